//! What may differ between two clusters under the same assertions: a cell of the matrix.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ip_families::IpFamilies;
use super::layout::Layout;

/// Who puts Kubernetes onto the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bootstrap {
    /// The steps of the documents, one component at a time.
    ByHand,
    /// `kubeadm init` and `kubeadm join`.
    Kubeadm,
}

impl Bootstrap {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ByHand, Self::Kubeadm];

    fn name(self) -> &'static str {
        match self {
            Self::ByHand => "by-hand",
            Self::Kubeadm => "kubeadm",
        }
    }
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

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

/// How flannel carries packets between nodes; the `Backend` of its `net-conf.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlannelBackend {
    /// In UDP, VXLAN (RFC 7348) with the kernel's device.
    Vxlan,
    /// As they are, by routes that each node's flanneld keeps.
    HostGw,
}

/// A Pod network that is known by its name, and laid by a manifest as its project publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Published {
    /// kube-router: routes by BGP between the nodes, each Node's Pods in its range.
    KubeRouter,
    /// Calico: routes where nodes share a segment and VXLAN elsewhere, blocks of addresses of its own choice.
    Calico,
    /// Cilium: programs of the kernel's own (eBPF) at each Pod, routes, each Node's Pods in its range.
    Cilium,
    /// flannel (VXLAN), each Node's Pods in its range.
    Flannel,
}

impl Published {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::KubeRouter, Self::Calico, Self::Cilium, Self::Flannel];

    fn name(self) -> &'static str {
        match self {
            Self::KubeRouter => "kube-router",
            Self::Calico => "calico",
            Self::Cilium => "cilium",
            Self::Flannel => "flannel-published",
        }
    }
}

/// What connects Pods of different nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodNetwork {
    /// A bridge per node with a range written by hand, and static routes between the nodes.
    Routes,
    /// flannel as a DaemonSet; each node's range is the one that the controller manager gives it.
    Flannel(FlannelBackend),
    /// One by its name, of the manifest that its project publishes. Each Node has a range.
    Published(Published),
    /// The one of a manifest that the user gave, see [`PodManifest`](crate::plan::pod_manifest::PodManifest). Each Node
    /// has a range all the same; whether the network keeps to it is its own business.
    Manifest,
}

impl PodNetwork {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Routes,
        Self::Flannel(FlannelBackend::Vxlan),
        Self::Flannel(FlannelBackend::HostGw),
        Self::Published(Published::KubeRouter),
        Self::Published(Published::Calico),
        Self::Published(Published::Cilium),
        Self::Published(Published::Flannel),
        Self::Manifest,
    ];

    /// Whether the controller manager gives each Node its range (`spec.podCIDR`).
    pub fn allocates(self) -> bool {
        match self {
            Self::Routes => false,
            Self::Flannel(_) | Self::Published(_) | Self::Manifest => true,
        }
    }

    /// Whether a manifest that is not podwire's own lays it, see [`PodManifest`](crate::plan::pod_manifest::PodManifest):
    /// one as published, or the user's.
    pub fn is_of_a_manifest(self) -> bool {
        match self {
            Self::Published(_) | Self::Manifest => true,
            Self::Routes | Self::Flannel(_) => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Flannel(FlannelBackend::Vxlan) => "flannel",
            Self::Flannel(FlannelBackend::HostGw) => "flannel-host-gw",
            Self::Published(published) => published.name(),
            Self::Manifest => "manifest",
        }
    }
}

impl fmt::Display for PodNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A cell of the matrix. A difference between the results of two cells localises a fault in what
/// they differ by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Who puts Kubernetes onto the machines.
    pub bootstrap: Bootstrap,
    /// How kube-proxy translates.
    pub proxy: ProxyMode,
    /// What connects the Pods.
    pub network: PodNetwork,
    /// Which nodes share a segment, and which have room for a control plane.
    #[serde(default, skip_serializing_if = "Layout::is_flat")]
    pub layout: Layout,
    /// Which families of IP it has. Two only where all nodes share a segment: no router leads from one to
    /// another by IPv6.
    #[serde(default, skip_serializing_if = "IpFamilies::is_ipv4")]
    pub ip_families: IpFamilies,
}

impl Cell {
    /// The whole matrix.
    pub fn all() -> impl Iterator<Item = Self> {
        let usual = |bootstrap| {
            let modes = ProxyMode::ALL.into_iter();
            modes.flat_map(move |proxy| {
                let networks = PodNetwork::ALL.into_iter();
                networks.map(move |network| Self {
                    proxy,
                    network,
                    ..Self::usual(bootstrap)
                })
            })
        };
        let flat = Bootstrap::ALL.into_iter().flat_map(usual);
        flat.flat_map(|cell| {
            let laid_out = Layout::ALL.map(|layout| cell.laid_out(layout));
            let dual = cell.with_families(IpFamilies::Dual);
            laid_out.into_iter().chain([dual])
        })
    }

    /// The cell that a bootstrap is usually looked at in: what its documents use.
    pub const fn usual(bootstrap: Bootstrap) -> Self {
        Self {
            bootstrap,
            proxy: ProxyMode::Nftables,
            network: match bootstrap {
                Bootstrap::ByHand => PodNetwork::Routes,
                Bootstrap::Kubeadm => PodNetwork::Flannel(FlannelBackend::Vxlan),
            },
            layout: Layout::Flat,
            ip_families: IpFamilies::Ipv4,
        }
    }

    /// The same with its nodes laid out otherwise.
    #[must_use]
    pub fn laid_out(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// The same with these families of IP.
    #[must_use]
    pub const fn with_families(self, ip_families: IpFamilies) -> Self {
        Self {
            ip_families,
            ..self
        }
    }

    /// Whether there is such a cluster.
    pub fn exists(self) -> bool {
        self.layout == Layout::Flat || !self.ip_families.is_dual()
    }
}

/// `kubeadm/nftables/flannel`; with nodes on two segments `kubeadm/nftables/flannel+routed`, with two families
/// of IP `kubeadm/nftables/flannel+dual`.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bootstrap,
            proxy,
            network,
            layout,
            ip_families,
        } = self;
        let layout = match layout {
            Layout::Flat => String::new(),
            Layout::Routed | Layout::SecondCard | Layout::ControlPlanes => {
                format!("+{layout}")
            }
        };
        let families = match ip_families {
            IpFamilies::Ipv4 => "",
            IpFamilies::Dual => "+dual",
        };
        f.pad(&format!("{bootstrap}/{proxy}/{network}{layout}{families}"))
    }
}

/// A word that names no part of a cell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked:?} is no {what}: {known} are")]
pub struct UnknownPart {
    asked: String,
    what: &'static str,
    known: String,
}

fn named<T: Copy + fmt::Display>(
    asked: &str,
    what: &'static str,
    all: &[T],
) -> Result<T, UnknownPart> {
    let found = all.iter().find(|each| each.to_string() == asked);
    found.copied().ok_or_else(|| UnknownPart {
        asked: asked.to_owned(),
        what,
        known: all.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for Bootstrap {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(text, "bootstrap", &Self::ALL)
    }
}

impl FromStr for ProxyMode {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(text, "mode of kube-proxy", &Self::ALL)
    }
}

impl FromStr for PodNetwork {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(text, "Pod network", &Self::ALL)
    }
}

impl FromStr for Layout {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(text, "layout", &Self::ALL)
    }
}

impl FromStr for IpFamilies {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(text, "choice of IP families", &Self::ALL)
    }
}

impl FromStr for Cell {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (text, ip_families) = match text.strip_suffix("+dual") {
            Some(text) => (text, IpFamilies::Dual),
            None => (text, IpFamilies::Ipv4),
        };
        let (text, layout) = match text.split_once('+') {
            Some((text, layout)) => (text, layout.parse()?),
            None => (text, Layout::Flat),
        };
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self {
            bootstrap: part().parse()?,
            proxy: part().parse()?,
            network: part().parse()?,
            layout,
            ip_families,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_found_by_the_name_it_shows() {
        for cell in Cell::all() {
            assert_eq!(cell.to_string().parse(), Ok(cell));
        }
        assert_eq!(Cell::all().count(), 160);
        assert!(Cell::all().all(Cell::exists));
        let dual = Cell::usual(Bootstrap::ByHand).with_families(IpFamilies::Dual);
        assert_eq!(dual.to_string(), "by-hand/nftables/routes+dual");
        assert!(!dual.laid_out(Layout::Routed).exists());
    }

    #[test]
    fn a_wrong_word_is_told_with_the_right_ones() {
        let told = |text: &str| text.parse::<Cell>().unwrap_err().to_string();
        insta::assert_snapshot!(told("hand/nftables/routes"), @r#""hand" is no bootstrap: by-hand, kubeadm are"#);
        insta::assert_snapshot!(told("kubeadm/ipvs/routes"), @r#""ipvs" is no mode of kube-proxy: nftables, iptables are"#);
        insta::assert_snapshot!(told("kubeadm/iptables"), @r#""" is no Pod network: routes, flannel, flannel-host-gw, kube-router, calico, cilium, flannel-published, manifest are"#);
        insta::assert_snapshot!(told("kubeadm/nftables/flannel+two"), @r#""two" is no layout: flat, routed, second-card, control-planes are"#);
    }
}
