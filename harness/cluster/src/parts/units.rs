//! The units of every component, by name, and where its files are.

use crate::plan::cell::PodNetwork;
use crate::plan::ip_families::IpFamilies;

/// The authority's certificate, on every node.
pub const CA_CERTIFICATE: &str = "/etc/kubernetes/pki/ca.crt";
/// The API server's certificate, on node 1. It is read again when it changes.
pub const SERVING_CERTIFICATE: &str = "/etc/kubernetes/pki/apiserver.crt";
/// Its key.
pub const SERVING_KEY: &str = "/etc/kubernetes/pki/apiserver.key";
/// What the API server shows to kubelets, on node 1.
pub const KUBELET_CLIENT_CERTIFICATE: &str = "/etc/kubernetes/pki/apiserver-kubelet-client.crt";
/// Its key.
pub const KUBELET_CLIENT_KEY: &str = "/etc/kubernetes/pki/apiserver-kubelet-client.key";
/// The key that signs ServiceAccount tokens, on node 1.
pub const TOKEN_KEY: &str = "/etc/kubernetes/pki/sa.key";
/// The key that verifies them.
pub const TOKEN_PUBLIC_KEY: &str = "/etc/kubernetes/pki/sa.pub";
/// The kubelet's certificate, on every node; it both dials and serves with it.
pub const NODE_CERTIFICATE: &str = "/etc/kubernetes/pki/kubelet.crt";
/// Its key.
pub const NODE_KEY: &str = "/etc/kubernetes/pki/kubelet.key";

/// Takes the place of the drop-in of the kubelet's package, of the same name (systemd.unit(5)).
pub const NO_DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
/// Kernel modules, sysctls and the masquerade rule; once per boot, on every node.
pub const NETWORK: &str = "node-network.service";
/// Tells the journal of each change of the packet filter's rules, on every node, for the evidence of a failure.
pub const RULES: &str = "podwire-rules.service";
/// The engine: its package's own unit.
pub const CONTAINERD: &str = "containerd.service";
/// What changes that unit, where anything does.
pub const CONTAINERD_DROP_IN: &str = "containerd.service.d/podwire.conf";
/// containerd's configuration on an emulated node: the node image has it beside the usual one.
/// Containers start by crun in it, where the image has one that fits its containerd.
pub const EMULATED_CONTAINERD: &str = "/etc/containerd/emulated.toml";
/// The node's agent.
pub const KUBELET: &str = "kubelet.service";
/// The Service proxy, on every node; with static routes not started before them.
pub const KUBE_PROXY: &str = "kube-proxy.service";
/// kube-router, on every node; no cluster has it until a scenario starts it.
pub const KUBE_ROUTER: &str = "kube-router.service";
/// Key-value store, on node 1.
pub const ETCD: &str = "etcd.service";
/// API server, on node 1.
pub const API_SERVER: &str = "kube-apiserver.service";
/// Controller manager, on node 1.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager.service";
/// Scheduler, on node 1.
pub const SCHEDULER: &str = "kube-scheduler.service";

/// A unit file, or a drop-in of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// File name under /etc/systemd/system.
    pub name: String,
    /// Its content.
    pub text: String,
}

impl Unit {
    /// `/etc/systemd/system/NAME`.
    pub fn path(&self) -> String {
        path(&self.name)
    }
}

/// `/etc/systemd/system/NAME`.
pub(crate) fn path(name: &str) -> String {
    format!("/etc/systemd/system/{name}")
}

/// What a node's kernel needs for Pods: [`NETWORK`]. With static routes it hides Pods from the
/// outside as well; another Pod network does that by itself.
pub fn network(network: PodNetwork, families: IpFamilies) -> Unit {
    let ipv6 = match families {
        IpFamilies::Ipv4 => "",
        IpFamilies::Dual => " net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-ip6tables=1",
    };
    let (modules, masquerade) = match network {
        PodNetwork::Routes => (
            "overlay br_netfilter",
            format!(
                "ExecStart=/usr/sbin/nft -f {}\n",
                crate::parts::cni::MASQUERADE_PATH
            ),
        ),
        PodNetwork::Flannel(_) | PodNetwork::Published(_) | PodNetwork::Manifest => {
            ("overlay br_netfilter vxlan", String::new())
        }
    };
    let text = format!(
        "\
[Unit]
Description=Kernel modules, sysctls and the masquerade rule of a Kubernetes node

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/modprobe -a {modules}
ExecStart=/sbin/sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1{ipv6}
{masquerade}
[Install]
WantedBy=multi-user.target
"
    );
    Unit {
        name: NETWORK.to_owned(),
        text,
    }
}

/// [`RULES`]: what `nft monitor` prints (nft(8)), as far as a journal takes it that is not to be flooded.
pub(crate) fn rules() -> Unit {
    let text = "\
[Unit]
Description=Changes of the packet filter's rules

[Service]
ExecStart=/usr/sbin/nft monitor
SyslogIdentifier=rules
LogRateLimitIntervalSec=10s
LogRateLimitBurst=4000
Restart=on-failure
RestartSec=1s

[Install]
WantedBy=multi-user.target
";
    Unit {
        name: RULES.to_owned(),
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cell::FlannelBackend;

    #[test]
    fn a_node_s_kernel_is_set_up_as_meant() {
        let first = network(PodNetwork::Routes, IpFamilies::Ipv4);
        insta::assert_snapshot!(first.text, @r"
        [Unit]
        Description=Kernel modules, sysctls and the masquerade rule of a Kubernetes node

        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/sbin/modprobe -a overlay br_netfilter
        ExecStart=/sbin/sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
        ExecStart=/usr/sbin/nft -f /etc/kubernetes/masquerade.nft

        [Install]
        WantedBy=multi-user.target
        ");
        let dual = network(PodNetwork::Routes, IpFamilies::Dual).text;
        let of_ipv6 = " net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-ip6tables=1\n";
        assert_eq!(dual.replace(of_ipv6, "\n"), first.text);
        assert!(dual.contains(of_ipv6));
        let flannel = PodNetwork::Flannel(FlannelBackend::Vxlan);
        let flannel = network(flannel, IpFamilies::Ipv4).text;
        assert!(flannel.contains("br_netfilter vxlan\n") && !flannel.contains("nft"));
    }

    #[test]
    fn the_image_has_what_an_emulated_node_s_containerd_reads() {
        let recipe = include_str!("../../../../images/recipes/node.toml");
        assert!(recipe.contains(&format!("path = \"{EMULATED_CONTAINERD}\"\n")));
    }
}
