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

/// What has Cilium carry Services in kube-proxy's place, and what to write.
/// <https://docs.cilium.io/en/stable/network/kubernetes/kubeproxy-free/>
pub(super) fn kube_proxy_replaced(object: &Node) -> Option<(&Node, &'static str)> {
    let value = object.at(&["data", "kube-proxy-replacement"])?;
    let replaced = ["true", "strict", "partial", "probe"].contains(&value.text()?);
    replaced.then_some((
        value,
        "Cilium would carry the Services here, and kube-proxy runs on these nodes: packets would not meet its rules, \
         nor those that sabotages write; write kube-proxy-replacement: \"false\" (and routing-mode: native, \
         enable-host-legacy-routing: \"true\", without which Pods' packets pass by the nodes' rules as well), or take \
         --pod-network cilium, which has all that",
    ))
}

/// The argument that has kube-router carry Services beside kube-proxy, and what to write.
/// <https://github.com/cloudnativelabs/kube-router/blob/master/docs/user-guide.md>
pub(super) fn second_service_proxy(container: &Node) -> Option<(&Node, &'static str)> {
    let given = ["command", "args"].into_iter();
    let mut given = given
        .filter_map(|name| container.get(name)?.list())
        .flatten();
    let argument = given.find(|argument| {
        let rest = argument
            .text()
            .and_then(|text| text.strip_prefix("--run-service-proxy"));
        matches!(rest, Some("" | "=true"))
    })?;
    Some((
        argument,
        "kube-router would carry the Services here, and kube-proxy runs on these nodes and does so already; write \
         --run-service-proxy=false",
    ))
}

/// The name of a ConfigMap that kubeadm makes (of the namespace `kube-system`), which others take a kubeconfig from.
pub(super) const KUBEADM_S: &str = "kube-proxy";

/// The volumes of a Pod's that are of something named like that and must be there: of which kind, and the line.
pub(super) fn volumes_of_kubeadm_s(pod: &Node) -> impl Iterator<Item = (&'static str, u64)> {
    let volumes = pod.get("volumes").and_then(Node::list).unwrap_or_default();
    let kinds = [
        ("ConfigMap", "configMap", "name"),
        ("Secret", "secret", "secretName"),
    ];
    volumes.iter().flat_map(move |volume| {
        kinds.into_iter().filter_map(|(kind, source, name)| {
            let source = volume.get(source)?;
            let named = source
                .get(name)
                .filter(|name| name.text() == Some(KUBEADM_S))?;
            let optional = source.get("optional").is_some_and(Node::is_true);
            (!optional).then_some((kind, named.line))
        })
    })
}

/// What to do about such a volume where there is nothing of the name.
pub(super) fn absent(kind: &str, namespace: &str) -> String {
    let (who, instead) = match (kind, namespace) {
        ("ConfigMap", "kube-system") => (
            "and which clusters by hand do not have",
            ", or take clusters where kubeadm makes it (--bootstrap kubeadm)",
        ),
        _ => ("and which no cluster here has", ""),
    };
    format!(
        "this volume is of the {kind} {namespace}/{KUBEADM_S}, which is not in this file {who}, so that the Pod would \
         never start; add it to this file{instead}"
    )
}
