//! Configuration files of the daemons on every node. JSON, which every reader of YAML takes.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::kubeconfig::KUBE_PROXY_PATH;
use super::merge::{Merged, Need, merge};
use super::units;
use crate::plan::addresses::{PODS, node_name};
use crate::plan::cell::{Bootstrap, Cell, ProxyMode};
use crate::plan::configurations::{Configurations, Kind};
use crate::plan::ip_families::PODS_V6;
use crate::plan::settings::{NODE_LEASE, NODE_STATUS_UPDATE, RUNTIME_REQUEST, Settings};

/// The kubelet's `--config`.
pub const KUBELET_PATH: &str = "/etc/kubernetes/kubelet.json";
/// kube-proxy's `--config`.
pub const KUBE_PROXY_CONFIG_PATH: &str = "/etc/kubernetes/kube-proxy.json";
/// containerd's socket, as the kubelet and kubeadm name it.
pub const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// The domain of Services' names, where there is cluster DNS.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";
/// Its address, the tenth of the Services' range, by kubeadm's own rule.
const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
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

/// The kubelet's configuration by hand, the user's merged in; kubeadm adds the like by itself, and always where the
/// cluster's DNS is.
pub(crate) fn kubelet(settings: Settings, given: &Configurations, cluster_dns: bool) -> Merged {
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
    let mut needs = kubelet_needs();
    needs.extend([
        Need::new(&["tlsCertFile"], units::NODE_CERTIFICATE, OWN_CERTIFICATE),
        Need::new(&["tlsPrivateKeyFile"], units::NODE_KEY, OWN_CERTIFICATE),
    ]);
    if cluster_dns {
        let dns = json!({ "clusterDNS": [CLUSTER_DNS], "clusterDomain": CLUSTER_DOMAIN });
        extend(&mut config, Some(dns));
        needs.extend(cluster_dns_needs());
    }
    merge(config, given.of(Kind::Kubelet), &needs)
}

/// What kubeadm is given of it.
pub(crate) fn kubelet_for_kubeadm(settings: Settings, given: &Configurations) -> Merged {
    let mut needs = kubelet_needs();
    needs.extend(cluster_dns_needs());
    merge(kubelet_settings(settings), given.of(Kind::Kubelet), &needs)
}

fn cluster_dns_needs() -> [Need; 2] {
    [
        Need::new(
            &["clusterDNS"],
            json!([CLUSTER_DNS]),
            "kubeadm gives that address to CoreDNS",
        ),
        Need::new(&["clusterDomain"], CLUSTER_DOMAIN, "CoreDNS answers for it"),
    ]
}

const OWN_CERTIFICATE: &str = "the node's certificate is there";
const WHO_MAY_ASK: &str = "scenarios look at who may ask a kubelet";

fn kubelet_needs() -> Vec<Need> {
    vec![
        Need::new(
            &["cgroupDriver"],
            "systemd",
            "containerd has systemd make its cgroups",
        ),
        Need::new(
            &["containerRuntimeEndpoint"],
            CRI_SOCKET,
            "containerd listens there",
        ),
        Need::new(&["staticPodPath"], STATIC_PODS, "static Pods are put there"),
        Need::new(
            &["authentication", "x509", "clientCAFile"],
            units::CA_CERTIFICATE,
            "the cluster's authority is there",
        ),
        Need::new(
            &["authentication", "anonymous", "enabled"],
            false,
            WHO_MAY_ASK,
        ),
        Need::new(&["authentication", "webhook", "enabled"], true, WHO_MAY_ASK),
        Need::new(&["authorization", "mode"], "Webhook", WHO_MAY_ASK),
        Need::new(&["port"], 10250, "scenarios ask a kubelet there"),
        Need::new(
            &["registerNode"],
            true,
            "a stage is complete when every node has its Node",
        ),
    ]
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

/// kube-proxy's configuration by hand, the user's merged in.
pub(crate) fn kube_proxy(number: u32, cell: Cell, given: &Configurations) -> Merged {
    let name = node_name(number);
    let mut config = kube_proxy_settings(cell.proxy);
    config["hostnameOverride"] = name.as_str().into();
    config["clientConnection"] = json!({ "kubeconfig": KUBE_PROXY_PATH });
    config["clusterCIDR"] = "".into();
    let mut needs = kube_proxy_needs(cell);
    needs.extend([
        Need::new(&["hostnameOverride"], name, "each node has its own name"),
        Need::new(
            &["clusterCIDR"],
            "",
            "no node here knows a range of all Pods",
        ),
    ]);
    merge(config, given.of(Kind::KubeProxy), &needs)
}

/// What kubeadm is given of it.
pub(crate) fn kube_proxy_for_kubeadm(cell: Cell, given: &Configurations) -> Merged {
    let pods = match cell.network.allocates() {
        true => cell.ip_families.listed(PODS, PODS_V6),
        false => String::new(),
    };
    let mut needs = kube_proxy_needs(cell);
    needs.extend([
        Need::new(
            &["hostnameOverride"],
            Value::Null,
            "kubeadm gives each node's name by a flag",
        ),
        Need::new(&["clusterCIDR"], pods, "kubeadm is told so of the Pods"),
    ]);
    let own = kube_proxy_settings(cell.proxy);
    merge(own, given.of(Kind::KubeProxy), &needs)
}

fn kube_proxy_needs(cell: Cell) -> Vec<Need> {
    let kubeconfig = match cell.bootstrap {
        Bootstrap::ByHand => KUBE_PROXY_PATH,
        // kubeadm's own.
        Bootstrap::Kubeadm => "/var/lib/kube-proxy/kubeconfig.conf",
    };
    vec![
        Need::new(
            &["mode"],
            json!(cell.proxy),
            "the cell is named by it (--kube-proxy)",
        ),
        Need::new(
            &["bindAddress"],
            json!(Ipv4Addr::UNSPECIFIED),
            "IPv4 is the first family of nodes",
        ),
        Need::new(
            &["clientConnection", "kubeconfig"],
            kubeconfig,
            "it is told there how to reach the API server",
        ),
        Need::new(
            &["healthzBindAddress"],
            "0.0.0.0:10256",
            "it is asked there whether it is healthy",
        ),
        Need::new(
            &["metricsBindAddress"],
            "127.0.0.1:10249",
            "it is asked there whether it has written its rules",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_read_as_meant_in_each_class() {
        let none = Configurations::default();
        for (settings, class) in [(Settings::OwnDefaults, "kvm"), (Settings::Idle, "tcg")] {
            let config = kubelet(settings, &none, false);
            insta::assert_snapshot!(format!("kubelet-{class}"), config.text());
            let with_dns = kubelet(settings, &none, true).config;
            assert_eq!(with_dns["clusterDNS"], json!(["10.0.0.10"]));
            assert_eq!(with_dns["clusterDomain"], "cluster.local");
        }
        let mut cell = Cell::usual(Bootstrap::ByHand);
        insta::assert_snapshot!("kube-proxy", kube_proxy(2, cell, &none).text());
        cell.proxy = ProxyMode::Iptables;
        assert_eq!(kube_proxy(2, cell, &none).config["mode"], "iptables");
    }
}
