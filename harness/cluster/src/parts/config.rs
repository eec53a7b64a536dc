//! Configuration files of the daemons on every node. JSON, which every reader of YAML takes.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::kubeconfig::KUBE_PROXY_PATH;
use super::units;
use crate::plan::addresses::node_name;
use crate::plan::cell::ProxyMode;
use crate::plan::settings::{NODE_LEASE, NODE_STATUS_UPDATE, RUNTIME_REQUEST, Settings};

/// The kubelet's `--config`.
pub const KUBELET_PATH: &str = "/etc/kubernetes/kubelet.json";
/// kube-proxy's `--config`.
pub const KUBE_PROXY_CONFIG_PATH: &str = "/etc/kubernetes/kube-proxy.json";
/// containerd's socket, as the kubelet and kubeadm name it.
pub const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// Folder of static Pods.
pub const STATIC_PODS: &str = "/etc/kubernetes/manifests";

/// KubeletConfiguration (kubelet.config.k8s.io/v1beta1), as far as both bootstraps set it.
///
/// Image collection is off: what a stage holds must still be there whenever a clone of it wakes up, and
/// no registry has it.
///
/// Emulated, what only keeps an idle node busy is rare: volumes are not measured, logs seldom looked
/// at, the chains that marked packets in former releases not kept up. Without eviction thresholds and
/// without limits on a Pod's disk the kubelet does not measure every container each ten seconds
/// either. 0% is none; kubeadm would drop an empty list, and the kubelet then take its own.
pub(crate) fn kubelet_settings(settings: Settings) -> Value {
    let seconds = |seconds: u32| format!("{seconds}s");
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        "failSwapOn": false,
        "resolvConf": "/etc/resolv.conf",
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h0m0s",
    });
    let idle = settings.idle(json!({
        "volumeStatsAggPeriod": "-1s",
        "containerLogMonitorInterval": "60s",
        "evictionHard": { "memory.available": "0%" },
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "runtimeRequestTimeout": seconds(RUNTIME_REQUEST),
        "nodeStatusUpdateFrequency": seconds(NODE_STATUS_UPDATE),
        "nodeLeaseDurationSeconds": NODE_LEASE,
    }));
    extend(&mut config, idle);
    config
}

/// Adds the fields of another object.
fn extend(config: &mut Value, more: Option<Value>) {
    if let (Value::Object(config), Some(Value::Object(more))) = (config, more) {
        config.extend(more);
    }
}

/// The kubelet's configuration by hand; kubeadm adds the like by itself.
pub fn kubelet(settings: Settings) -> String {
    let mut config = kubelet_settings(settings);
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
    extend(&mut config, Some(own));
    format!("{config:#}\n")
}

/// KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), as far as both bootstraps set it.
///
/// Its own defaults hold in each class, `conntrack` among them: it makes room for 131072 connections,
/// where the kernel of a guest with 1 GiB has it for 8192.
pub(crate) fn kube_proxy_settings(mode: ProxyMode) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "bindAddress": Ipv4Addr::UNSPECIFIED,
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

    #[test]
    fn the_configurations_read_as_meant_in_each_class() {
        for (settings, class) in [(Settings::OwnDefaults, "kvm"), (Settings::Idle, "tcg")] {
            insta::assert_snapshot!(format!("kubelet-{class}"), kubelet(settings));
        }
        insta::assert_snapshot!("kube-proxy", kube_proxy(2, ProxyMode::Nftables));
        let iptables = kube_proxy(2, ProxyMode::Iptables);
        assert!(iptables.contains("\"mode\": \"iptables\""));
    }
}
