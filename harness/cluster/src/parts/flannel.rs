//! flannel's manifest: what its own kube-flannel.yml holds, with the image of the bundle.

use serde_json::{Value, json};

use crate::plan::addresses::PODS;
use crate::plan::cell::FlannelBackend;
use crate::plan::ip_families::{IpFamilies, PODS_V6};

/// Its namespace.
pub const NAMESPACE: &str = "kube-flannel";
/// Label of its Pods.
pub const SELECTOR: &str = "app=flannel";
/// The image that the node image holds.
const IMAGE: &str = "podwire.invalid/flannel:0.28.9";

/// A List of all its objects, for `kubectl apply`.
///
/// flanneld writes the CNI file by itself: upstream's meta-plugin does no more than pass the range
/// that flanneld has got on to the bridge plugin.
pub fn manifest(backend: FlannelBackend, families: IpFamilies) -> Value {
    let kind = match backend {
        FlannelBackend::Vxlan => "vxlan",
        FlannelBackend::HostGw => "host-gw",
    };
    let mut net_conf = json!({ "Network": PODS.to_string(), "Backend": { "Type": kind } });
    if families.is_dual() {
        net_conf["EnableIPv6"] = true.into();
        net_conf["IPv6Network"] = PODS_V6.to_string().into();
    }
    let named = |name: &str| json!({ "name": name, "namespace": NAMESPACE });
    let of_host = |name: &str, path: &str, kind: &str| json!({ "name": name, "hostPath": { "path": path, "type": kind } });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let allowed = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({ "apiGroups": groups, "resources": resources, "verbs": verbs });
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": NAMESPACE,
                    "labels": { "pod-security.kubernetes.io/enforce": "privileged" },
                },
            },
            { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("flannel") },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": { "name": "flannel" },
                "rules": [
                    allowed(&[""], &["pods"], &["get"]),
                    allowed(&[""], &["nodes"], &["get", "list", "watch"]),
                    allowed(&[""], &["nodes/status"], &["patch"]),
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": { "name": "flannel" },
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "flannel",
                },
                "subjects": [{ "kind": "ServiceAccount", "name": "flannel", "namespace": NAMESPACE }],
            },
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": named("kube-flannel-cfg"),
                "data": { "net-conf.json": net_conf.to_string() },
            },
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": named("kube-flannel-ds"),
                "spec": {
                    "selector": { "matchLabels": { "app": "flannel" } },
                    "template": {
                        "metadata": { "labels": { "app": "flannel" } },
                        "spec": {
                            "hostNetwork": true,
                            "priorityClassName": "system-node-critical",
                            "serviceAccountName": "flannel",
                            "terminationGracePeriodSeconds": 2,
                            "tolerations": [{ "operator": "Exists", "effect": "NoSchedule" }],
                            "containers": [{
                                "name": "kube-flannel",
                                "image": IMAGE,
                                "imagePullPolicy": "Never",
                                "args": ["--ip-masq"],
                                "env": [
                                    field("POD_NAME", "metadata.name"),
                                    field("POD_NAMESPACE", "metadata.namespace"),
                                    field("NODE_NAME", "spec.nodeName"),
                                ],
                                "securityContext": {
                                    "privileged": false,
                                    "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] },
                                },
                                "volumeMounts": [
                                    { "name": "run", "mountPath": "/run/flannel" },
                                    { "name": "cni", "mountPath": "/etc/cni/net.d" },
                                    { "name": "lock", "mountPath": "/run/xtables.lock" },
                                    { "name": "cfg", "mountPath": "/etc/kube-flannel" },
                                ],
                            }],
                            "volumes": [
                                of_host("run", "/run/flannel", "DirectoryOrCreate"),
                                of_host("cni", "/etc/cni/net.d", "DirectoryOrCreate"),
                                of_host("lock", "/run/xtables.lock", "FileOrCreate"),
                                { "name": "cfg", "configMap": { "name": "kube-flannel-cfg" } },
                            ],
                        },
                    },
                },
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_reads_as_meant() {
        insta::assert_snapshot!(format!(
            "{:#}",
            manifest(FlannelBackend::Vxlan, IpFamilies::Ipv4)
        ));
        let other = manifest(FlannelBackend::HostGw, IpFamilies::Ipv4).to_string();
        assert!(other.contains(r#"{\"Type\":\"host-gw\"}"#), "{other}");
        let dual = manifest(FlannelBackend::Vxlan, IpFamilies::Dual);
        insta::assert_snapshot!(dual["items"][4]["data"]["net-conf.json"], @r#""{\"Backend\":{\"Type\":\"vxlan\"},\"EnableIPv6\":true,\"IPv6Network\":\"fd00:10:1::/48\",\"Network\":\"10.1.0.0/16\"}""#);
    }
}
