//! What people have at hand beside manifests, and manifests that mean another cluster: each told by what it is,
//! with what to give instead.

use super::yaml::Node;

/// The API groups that every API server of these nodes serves, beside those without a dot.
/// <https://kubernetes.io/docs/reference/kubernetes-api/>
const SERVED: [&str; 16] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Groups of configuration files: who reads them, and what to give.
const CONFIGURATIONS: [(&str, &str); 5] = [
    (
        "kubeadm.k8s.io",
        "kubeadm reads this: --kubeadm-config FILE gives it that; here is the place of what is applied once the \
         cluster is there",
    ),
    (
        "kubelet.config.k8s.io",
        "a kubelet reads this: --kubelet-config FILE gives it that; here is the place of what is applied to the cluster",
    ),
    (
        "kubeproxy.config.k8s.io",
        "kube-proxy reads this: --kube-proxy-config FILE gives it that; here is the place of what is applied to the \
         cluster",
    ),
    (
        "kind.x-k8s.io",
        "kind makes clusters by this, and podwire by its own flags; give the manifest of the Pod network that is \
         to be in them",
    ),
    (
        "kustomize.config.k8s.io",
        "kustomize reads this; give what it makes of it: `kubectl kustomize FOLDER > FILE`",
    ),
];

/// Whether an API server has this group by itself.
pub(super) fn is_served(group: &str) -> bool {
    !group.contains('.') || SERVED.contains(&group)
}

/// What to do about an object of a group that no API server has by itself, and nothing defines.
pub(super) fn undefined(group: &str, kind: &str) -> String {
    // As operators call theirs: `operator.tigera.io`.
    if group.starts_with("operator.") {
        let instead = match group {
            "operator.tigera.io" => ": Calico's calico.yaml, or none with --pod-network calico",
            _ => "",
        };
        return format!(
            "{kind} of {group} configures an operator, which starts Pods of images that nobody names here, and nodes \
             reach no registry; give the manifest of what the operator would start{instead}"
        );
    }
    format!(
        "no API server has {kind} of {group} by itself, and this file does not define it; add its \
         CustomResourceDefinition, or leave this object out"
    )
}

/// What reads objects of this group, where that is no API server.
pub(super) fn configuration(group: &str) -> Option<&'static str> {
    let mut known = CONFIGURATIONS.iter();
    known
        .find(|(name, _)| *name == group)
        .map(|(_, said)| *said)
}

/// What a document without apiVersion and kind is.
pub(super) fn no_object(document: &Node) -> Option<&'static str> {
    let has = |name| document.get(name).is_some();
    if has("apiVersion") || has("kind") {
        return None;
    }
    if has("cniVersion") || (has("type") && has("ipam")) {
        return Some(
            "this is a configuration of CNI, which a node's container engine reads from /etc/cni/net.d; lay it over \
             the nodes' own files (--node-files DIR, in DIR/etc/cni/net.d)",
        );
    }
    Some(
        "this object has neither apiVersion nor kind; where these are the values of a Helm chart, give what it \
         makes of them: `helm template CHART --values VALUES > FILE`",
    )
}

/// The line, from 1, of the first mark of a template. A text that parses may have such marks in what it
/// quotes, so that only one that does not is asked about.
pub(super) fn template(text: &str) -> Option<u64> {
    let marked = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ");
        let value = line.split_once(": ").map_or("", |(_, value)| value);
        line.starts_with("{{") || value.trim_start().starts_with("{{")
    };
    let lines = text.lines().zip(1..);
    let mut marks = lines.filter(|(line, _)| marked(line));
    marks.next().map(|(_, number)| number)
}

/// What to give in a template's place.
pub(super) const RENDERED: &str =
    "this is a template of a Helm chart; give what Helm makes of it: `helm template CHART > FILE`";

/// flannel's range of all Pods, and the value that has it.
/// <https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md>
pub(super) fn flannel_range(object: &Node) -> Option<(&Node, String)> {
    let value = object.at(&["data", "net-conf.json"])?;
    let read: serde_json::Value = serde_json::from_str(value.text()?).ok()?;
    let ipv4 = read.get("EnableIPv4").and_then(serde_json::Value::as_bool);
    let range = read.get("Network").and_then(serde_json::Value::as_str)?;
    (ipv4 != Some(false)).then(|| (value, range.to_owned()))
}

/// The group and kind that a CustomResourceDefinition defines.
pub(super) fn defined(object: &Node) -> Option<(String, String)> {
    let group = object.at(&["spec", "group"])?.text()?;
    let kind = object.at(&["spec", "names", "kind"])?.text()?;
    Some((group.to_owned(), kind.to_owned()))
}

/// What Multus defines.
pub(super) const ATTACHMENT: (&str, &str) = ("k8s.cni.cncf.io", "NetworkAttachmentDefinition");
