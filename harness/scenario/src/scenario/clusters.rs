//! Kinds of clusters that a scenario means something for.

use podwire_cluster::{Bootstrap, FlannelBackend, IpFamilies, PodNetwork};

/// The clusters that a scenario means something for, beside those that lack its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// All: it asserts what holds whoever made the cluster.
    Any,
    /// Each node's Pods hang on a bridge: any of podwire's own Pod networks.
    WithBridge,
    /// flannel carries the Pods' packets, in either of its ways.
    WithFlannel,
    /// It looks at what the steps by hand have left.
    ByHand,
    /// By hand, and with routes: nobody but the scenario gives Nodes their ranges and writes CNI files.
    ByHandWithRoutes,
    /// It looks at what kubeadm has left, or runs it.
    Kubeadm,
    /// Both: kubeadm, and a bridge.
    KubeadmWithBridge,
    /// Pods of nodes that share no segment reach each other: by routes, which a router can have as well, or
    /// in a tunnel. flannel's host-gw needs a shared one.
    Routable,
    /// flannel's host-gw carries its Pods' packets: as they are, by way of the other node.
    HostGw,
    /// flannel's VXLAN carries its Pods' packets, in UDP between the nodes.
    Vxlan,
}

/// The families of IP that a scenario looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone: in a dual-stack cluster it would say half of what there is to say.
    Ipv4,
    /// Each that the cluster has: in a dual-stack cluster it asserts the same by both.
    Each,
    /// Both: it is about what only a dual-stack cluster has.
    Dual,
}

impl Families {
    pub(super) fn include(self, families: IpFamilies) -> bool {
        match self {
            Self::Ipv4 => families == IpFamilies::Ipv4,
            Self::Each => true,
            Self::Dual => families == IpFamilies::Dual,
        }
    }
}

impl Cells {
    /// The one that they are all of, if they are of one.
    pub(super) fn bootstrap(self) -> Option<Bootstrap> {
        match self {
            Self::ByHand | Self::ByHandWithRoutes => Some(Bootstrap::ByHand),
            Self::Kubeadm | Self::KubeadmWithBridge => Some(Bootstrap::Kubeadm),
            Self::Any
            | Self::WithBridge
            | Self::WithFlannel
            | Self::Routable
            | Self::HostGw
            | Self::Vxlan => None,
        }
    }

    pub(super) fn include_network(self, network: PodNetwork) -> bool {
        match self {
            Self::Any | Self::ByHand | Self::Kubeadm => true,
            Self::ByHandWithRoutes => network == PodNetwork::Routes,
            Self::WithBridge | Self::KubeadmWithBridge => !network.is_of_a_manifest(),
            Self::WithFlannel => matches!(network, PodNetwork::Flannel(_)),
            Self::Routable => {
                network == PodNetwork::Routes
                    || network == PodNetwork::Flannel(FlannelBackend::Vxlan)
            }
            Self::HostGw => network == PodNetwork::Flannel(FlannelBackend::HostGw),
            Self::Vxlan => network == PodNetwork::Flannel(FlannelBackend::Vxlan),
        }
    }

    pub(super) fn about_their_networks(self) -> &'static str {
        match self {
            Self::Any | Self::ByHand | Self::Kubeadm => "is about any Pod network",
            Self::ByHandWithRoutes => "gives Nodes their ranges and writes their CNI files itself",
            Self::WithBridge | Self::KubeadmWithBridge => {
                "counts on the bridge, or the CNI file and plugins, that podwire's own networks have on each node"
            }
            Self::WithFlannel => "is about podwire's own flannel",
            Self::Routable => {
                "needs to know which way leads to whose Pods, to have a router lead there too"
            }
            Self::HostGw => "is about flannel's host-gw",
            Self::Vxlan => "is about flannel's VXLAN",
        }
    }
}
