//! Configuration files of the daemons on every node. JSON, which every reader of YAML takes.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::addresses::node_name;
use crate::kubeconfig::KUBE_PROXY_PATH;
use crate::limits::GuestLimits;
use crate::units;

/// The kubelet's `--config`.
pub const KUBELET_PATH: &str = "/etc/kubernetes/kubelet.json";
/// kube-proxy's `--config`.
pub const KUBE_PROXY_CONFIG_PATH: &str = "/etc/kubernetes/kube-proxy.json";
/// Folder of static Pods.
pub const STATIC_PODS: &str = "/etc/kubernetes/manifests";

/// How kube-proxy translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// The successor, GA since Kubernetes 1.33.
    Nftables,
    /// The default of today.
    Iptables,
}

/// KubeletConfiguration (kubelet.config.k8s.io/v1beta1).
///
/// What only keeps an idle node busy is rare: volumes are not measured, logs seldom looked at.
/// Image collection and eviction are out of the way: what a stage holds must still be there
/// whenever a clone of it wakes up.
pub fn kubelet(limits: GuestLimits) -> String {
    let seconds = |seconds: u32| format!("{seconds}s");
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": units::CA_CERTIFICATE },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": units::NODE_CERTIFICATE,
        "tlsPrivateKeyFile": units::NODE_KEY,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "systemd",
        "failSwapOn": false,
        "resolvConf": "/etc/resolv.conf",
        "staticPodPath": STATIC_PODS,
        "volumeStatsAggPeriod": "-1s",
        "containerLogMonitorInterval": "60s",
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h0m0s",
        "evictionHard": {
            "imagefs.available": "1%",
            "memory.available": "30Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "makeIPTablesUtilChains": false,
        "runtimeRequestTimeout": seconds(limits.runtime_request),
        "nodeStatusUpdateFrequency": seconds(limits.node_status_update),
        "nodeLeaseDurationSeconds": limits.node_lease,
    });
    format!("{config:#}\n")
}

/// KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1).
///
/// It leaves the kernel's connection tracking as it is: each sysctl would be one more thing that a
/// guest does before the first rule is there.
pub fn kube_proxy(number: u32, mode: ProxyMode) -> String {
    let mode = match mode {
        ProxyMode::Nftables => "nftables",
        ProxyMode::Iptables => "iptables",
    };
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": node_name(number),
        "clientConnection": { "kubeconfig": KUBE_PROXY_PATH },
        "clusterCIDR": "",
        "bindAddress": Ipv4Addr::UNSPECIFIED,
        "conntrack": {
            "maxPerCore": 0,
            "tcpCloseWaitTimeout": "0s",
            "tcpEstablishedTimeout": "0s",
        },
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_vm::Accelerator;

    #[test]
    fn the_configurations_read_as_meant() {
        insta::assert_snapshot!(kubelet(GuestLimits::of(Accelerator::Tcg)), @r#"
        {
          "apiVersion": "kubelet.config.k8s.io/v1beta1",
          "authentication": {
            "anonymous": {
              "enabled": false
            },
            "webhook": {
              "enabled": true
            },
            "x509": {
              "clientCAFile": "/etc/kubernetes/pki/ca.crt"
            }
          },
          "authorization": {
            "mode": "Webhook"
          },
          "cgroupDriver": "systemd",
          "containerLogMonitorInterval": "60s",
          "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
          "evictionHard": {
            "imagefs.available": "1%",
            "memory.available": "30Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%"
          },
          "failSwapOn": false,
          "imageGCHighThresholdPercent": 100,
          "imageMinimumGCAge": "24h0m0s",
          "kind": "KubeletConfiguration",
          "makeIPTablesUtilChains": false,
          "nodeLeaseDurationSeconds": 120,
          "nodeStatusUpdateFrequency": "20s",
          "resolvConf": "/etc/resolv.conf",
          "runtimeRequestTimeout": "600s",
          "staticPodPath": "/etc/kubernetes/manifests",
          "tlsCertFile": "/etc/kubernetes/pki/kubelet.crt",
          "tlsPrivateKeyFile": "/etc/kubernetes/pki/kubelet.key",
          "volumeStatsAggPeriod": "-1s"
        }
        "#);
        insta::assert_snapshot!(kube_proxy(2, ProxyMode::Nftables), @r#"
        {
          "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
          "bindAddress": "0.0.0.0",
          "clientConnection": {
            "kubeconfig": "/etc/kubernetes/kube-proxy.conf"
          },
          "clusterCIDR": "",
          "conntrack": {
            "maxPerCore": 0,
            "tcpCloseWaitTimeout": "0s",
            "tcpEstablishedTimeout": "0s"
          },
          "hostnameOverride": "node2",
          "kind": "KubeProxyConfiguration",
          "mode": "nftables"
        }
        "#);
        assert!(kube_proxy(2, ProxyMode::Iptables).contains("\"mode\": \"iptables\""));
    }
}
