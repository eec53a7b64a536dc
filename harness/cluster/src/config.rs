//! Configuration files of the daemons on every node. JSON, which every reader of YAML takes.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::addresses::node_name;
use crate::kubeconfig::KUBE_PROXY_PATH;
use crate::limits::GuestLimits;
use crate::units;

/// The kubelet's `--config`.
pub const KUBELET_PATH: &str = "/etc/kubernetes/kubelet.json";
/// kube-proxy's `--config`.
pub const KUBE_PROXY_CONFIG_PATH: &str = "/etc/kubernetes/kube-proxy.json";
/// containerd's socket, as the kubelet and kubeadm name it.
pub const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// Folder of static Pods.
pub const STATIC_PODS: &str = "/etc/kubernetes/manifests";

/// How kube-proxy translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyMode {
    /// The successor, GA since Kubernetes 1.33.
    Nftables,
    /// The default of today.
    Iptables,
}

impl ProxyMode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nftables, Self::Iptables];

    /// KubeProxyConfiguration's `mode`.
    fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// KubeletConfiguration (kubelet.config.k8s.io/v1beta1), as far as both bootstraps set it.
///
/// What only keeps an idle node busy is rare: volumes are not measured, logs seldom looked at.
/// Image collection and eviction are off: what a stage holds must still be there whenever a clone of
/// it wakes up. Without thresholds and without limits on a Pod's disk the kubelet does not measure
/// every container each ten seconds either. 0% is none; kubeadm would drop an empty list, and the
/// kubelet then take its own.
pub(crate) fn kubelet_settings(limits: GuestLimits) -> Value {
    let seconds = |seconds: u32| format!("{seconds}s");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        "failSwapOn": false,
        "resolvConf": "/etc/resolv.conf",
        "volumeStatsAggPeriod": "-1s",
        "containerLogMonitorInterval": "60s",
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h0m0s",
        "evictionHard": { "memory.available": "0%" },
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "runtimeRequestTimeout": seconds(limits.runtime_request),
        "nodeStatusUpdateFrequency": seconds(limits.node_status_update),
        "nodeLeaseDurationSeconds": limits.node_lease,
    })
}

/// The kubelet's configuration by hand; kubeadm adds the like by itself.
pub fn kubelet(limits: GuestLimits) -> String {
    let mut config = kubelet_settings(limits);
    let own = json!({
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": units::CA_CERTIFICATE },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": units::NODE_CERTIFICATE,
        "tlsPrivateKeyFile": units::NODE_KEY,
        "containerRuntimeEndpoint": CRI_SOCKET,
        "staticPodPath": STATIC_PODS,
    });
    if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
        config.extend(own);
    }
    format!("{config:#}\n")
}

/// KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), as far as both bootstraps set it.
///
/// It leaves the kernel's connection tracking as it is: each sysctl would be one more thing that a
/// guest does before the first rule is there.
pub(crate) fn kube_proxy_settings(mode: ProxyMode) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "bindAddress": Ipv4Addr::UNSPECIFIED,
        "conntrack": {
            "maxPerCore": 0,
            "tcpCloseWaitTimeout": "0s",
            "tcpEstablishedTimeout": "0s",
        },
    })
}

/// kube-proxy's configuration by hand.
pub fn kube_proxy(number: u32, mode: ProxyMode) -> String {
    let mut config = kube_proxy_settings(mode);
    config["hostnameOverride"] = node_name(number).into();
    config["clientConnection"] = json!({ "kubeconfig": KUBE_PROXY_PATH });
    config["clusterCIDR"] = "".into();
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
            "memory.available": "0%"
          },
          "failSwapOn": false,
          "imageGCHighThresholdPercent": 100,
          "imageMinimumGCAge": "24h0m0s",
          "kind": "KubeletConfiguration",
          "localStorageCapacityIsolation": false,
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
