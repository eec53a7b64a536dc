//! Configurations of components that are the user's, merged into podwire's.

use std::fs;
use std::path::Path;

use super::{Running, done, latest, results, said};

const KUBELET: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 37
";

const KUBE_PROXY: &str = "\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack:
  tcpEstablishedTimeout: 1h
";

/// No node has an address there, so that nobody serves a node's port.
const SERVES_NO_NODE_PORT: &str = "nodePortAddresses: [192.0.2.0/24]\n";

const KUBEADM: &str = "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer:
  certSANs: [api.example]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs: [{ name: node-labels, value: mine=first }]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration:
  kubeletExtraArgs: [{ name: node-labels, value: mine=other }]
";

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Of the kubelet by what its Node says, of kube-proxy by what its kernel was told.
fn is_configured() {
    for node in ["node1", "node2"] {
        let pods = said(&format!(
            "kubectl get node {node} -o jsonpath={{.status.capacity.pods}}"
        ));
        assert_eq!(pods.trim(), "37", "{node}");
        let established = "net.netfilter.nf_conntrack_tcp_timeout_established";
        let established = said(&format!("ssh {node} sysctl -n {established}"));
        assert_eq!(established.trim(), "3600", "{node}");
    }
}

fn is_up_configured(words: &str, look: impl FnOnce()) {
    let mut up = Running::start(&format!("up --yes --nodes 2 {words}"));
    up.wait_for(" sets conntrack");
    up.wait_for("Ctrl-C ends it");
    is_configured();
    look();
    let (code, heard) = up.interrupt();
    assert_eq!(code, Some(0), "{heard:#?}");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn by_hand_components_have_the_user_s_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let kubelet = file(dir.path(), "kubelet.yaml", KUBELET);
    let kube_proxy = file(dir.path(), "kube-proxy.yaml", KUBE_PROXY);
    let both = format!("--kubelet-config {kubelet} --kube-proxy-config {kube_proxy}");
    is_up_configured(&format!("--bootstrap by-hand {both}"), || ());
}

#[test]
#[ignore = "runs a cluster of machines"]
fn with_kubeadm_they_and_kubeadm_itself_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let kubelet = file(dir.path(), "kubelet.yaml", KUBELET);
    let kube_proxy = file(dir.path(), "kube-proxy.yaml", KUBE_PROXY);
    let kubeadm = file(dir.path(), "kubeadm.yaml", KUBEADM);
    let all = format!(
        "--kubelet-config {kubelet} --kube-proxy-config {kube_proxy} --kubeadm-config {kubeadm}"
    );
    is_up_configured(&format!("--bootstrap kubeadm {all}"), || {
        let told = said("kubectl -n kube-system get configmap kubeadm-config -o yaml");
        assert!(told.contains("api.example"), "{told}");
        for (value, node) in [("first", "node/node1"), ("other", "node/node2")] {
            let labelled = said(&format!("kubectl get nodes -l mine={value} -o name"));
            assert_eq!(labelled.trim(), node);
        }
    });
}

#[test]
#[ignore = "runs a cluster of machines"]
fn what_the_user_s_configuration_breaks_is_told_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let broken = format!("{KUBE_PROXY}{SERVES_NO_NODE_PORT}");
    let broken = file(dir.path(), "broken.yaml", &broken);
    let broken = format!("--kube-proxy-config {broken}");
    let red = done(&format!(
        "test --yes --bootstrap by-hand --filter node_port {broken}"
    ));
    let told = String::from_utf8_lossy(&red.stdout).into_owned();
    assert_eq!(red.status.code(), Some(1), "{told}");
    let results = results(&latest());
    let configured = results["configurations"][0].as_str().unwrap();
    assert!(configured.starts_with(&broken), "{configured}");
    let sets = " sets conntrack, nodePortAddresses";
    assert!(configured.ends_with(sets), "{configured}");
    assert!(told.contains(configured), "{told}");
    let scenario = &results["scenarios"][0];
    let reason = scenario["reason"].as_str().unwrap();
    assert!(reason.contains("node1"), "{reason}");
    let again = scenario["again"].as_str().unwrap();
    assert!(again.contains(&broken), "{again}");
}
