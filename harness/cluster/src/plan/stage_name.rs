//! The stages, and which is made of which.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cell::{Bootstrap, Cell, PodNetwork};

/// A named point of the way from nothing to a cluster with a workload. Each is made of its parent,
/// which depends on the cell: [`StageName::line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageName {
    /// One machine of each size, up to a running sshd; no network card yet, no identity.
    Booted,
    /// Every node has its card, address, name and identity; nothing of Kubernetes was started.
    Identified,
    /// By hand: the control plane runs on node 1.
    ControlPlane,
    /// kubeadm: every node is prepared; `kubeadm init` has returned on node 1.
    Init,
    /// Every node's kubelet has registered its Node.
    Joined,
    /// By hand: every node has its CNI file: Nodes are Ready. No routes.
    Cni,
    /// The Pod network is there, and kube-proxy; Nodes are Ready. With kubeadm, CoreDNS runs.
    PodNetwork,
    /// By hand: the workload's Pods run; no routes, and kube-proxy was never started.
    WorkloadBare,
    /// The workload's Pods run, and the whole Pod and Service network.
    Workload,
}

impl StageName {
    /// All of them, parents first.
    pub const ALL: [Self; 9] = [
        Self::Booted,
        Self::Identified,
        Self::ControlPlane,
        Self::Init,
        Self::Joined,
        Self::Cni,
        Self::PodNetwork,
        Self::WorkloadBare,
        Self::Workload,
    ];

    /// The stages of a cell, each the parent of the next.
    pub fn all_of(cell: Cell) -> &'static [Self] {
        match (cell.bootstrap, cell.network) {
            (Bootstrap::ByHand, PodNetwork::Routes) => &[
                Self::Booted,
                Self::Identified,
                Self::ControlPlane,
                Self::Joined,
                Self::Cni,
                Self::WorkloadBare,
                Self::Workload,
            ],
            // A Pod network that runs in Pods needs the API's Service, so kube-proxy comes first:
            // there is nothing to see without it.
            (
                Bootstrap::ByHand,
                PodNetwork::Flannel(_) | PodNetwork::Published(_) | PodNetwork::Manifest,
            ) => &[
                Self::Booted,
                Self::Identified,
                Self::ControlPlane,
                Self::Joined,
                Self::PodNetwork,
                Self::Workload,
            ],
            (Bootstrap::Kubeadm, _) => &[
                Self::Booted,
                Self::Identified,
                Self::Init,
                Self::Joined,
                Self::PodNetwork,
                Self::Workload,
            ],
        }
    }

    /// Whether a cell has this stage.
    pub fn is_of(self, cell: Cell) -> bool {
        Self::all_of(cell).contains(&self)
    }

    /// It and what it is made of in a cell, the first first; nothing when the cell does not have it.
    pub fn line(self, cell: Cell) -> &'static [Self] {
        let all = Self::all_of(cell);
        let found = all.iter().position(|name| *name == self);
        found.map_or(&[], |index| &all[..=index])
    }

    /// The stage that it is made of in a cell.
    pub fn parent(self, cell: Cell) -> Option<Self> {
        self.line(cell).iter().rev().nth(1).copied()
    }

    /// What there is in it, in a cell that has it.
    pub fn has(self, cell: Cell) -> Has {
        let kubeadm = cell.bootstrap == Bootstrap::Kubeadm;
        match self {
            Self::Booted => Has::default(),
            Self::Identified => Has {
                identities: true,
                ..Has::default()
            },
            Self::ControlPlane | Self::Init => Has {
                api_server: true,
                ..Self::Identified.has(cell)
            },
            Self::Joined => Has {
                nodes_registered: true,
                kube_proxy: kubeadm,
                ..Self::Init.has(cell)
            },
            Self::Cni => Has {
                nodes_ready: true,
                ..Self::Joined.has(cell)
            },
            Self::PodNetwork => Has {
                nodes_ready: true,
                pod_network: true,
                kube_proxy: true,
                services: true,
                cluster_dns: kubeadm,
                ..Self::Joined.has(cell)
            },
            Self::WorkloadBare => Has {
                workload: true,
                ..Self::Cni.has(cell)
            },
            Self::Workload => Has {
                workload: true,
                ..Self::PodNetwork.has(cell)
            },
        }
    }

    /// What there is in it, in one line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Booted => "machines that have booted, without a network card",
            Self::Identified => "nodes with their identities, nothing of Kubernetes started",
            Self::ControlPlane => "the control plane on node1, no Nodes",
            Self::Init => "kubeadm init done on node1, the others prepared",
            Self::Joined => "all Nodes registered, not Ready: no Pod network",
            Self::Cni => "a CNI file per node: Nodes Ready, no routes between Pods",
            Self::PodNetwork => "the Pod network and kube-proxy: Nodes Ready, no workload",
            Self::WorkloadBare => "the workload runs; no routes, no kube-proxy",
            Self::Workload => "the workload runs, with the whole Pod and Service network",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::Identified => "identified",
            Self::ControlPlane => "control-plane",
            Self::Init => "init",
            Self::Joined => "joined",
            Self::Cni => "cni",
            Self::PodNetwork => "pod-network",
            Self::WorkloadBare => "workload-bare",
            Self::Workload => "workload",
        }
    }
}

/// What there is in a stage: facts that a cluster of it begins with, of the harness's own making.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Has {
    /// Nodes on the segment, each with its address, name and identity. Before that nothing can be
    /// reached.
    pub identities: bool,
    /// An API server on node 1.
    pub api_server: bool,
    /// A Node for every node.
    pub nodes_registered: bool,
    /// All of them Ready: each can give its Pods addresses.
    pub nodes_ready: bool,
    /// Pods of different nodes reach each other.
    pub pod_network: bool,
    /// kube-proxy on every node.
    pub kube_proxy: bool,
    /// Services answer: kube-proxy has its rules, and the Pod network is there.
    pub services: bool,
    /// A DNS of the cluster's own, CoreDNS.
    pub cluster_dns: bool,
    /// The workload's Pods.
    pub workload: bool,
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no stage's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no stage: booted, identified, control-plane, init, joined, cni, pod-network, workload-bare and workload are"
)]
pub struct UnknownStage(String);

impl FromStr for StageName {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|each| each.name() == text);
        found.ok_or_else(|| UnknownStage(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_the_name_it_shows_and_serialises_to() {
        for each in StageName::ALL {
            assert_eq!(each.to_string().parse(), Ok(each));
            assert_eq!(serde_json::to_value(each).unwrap(), each.to_string());
        }
        let unknown = "workloads".parse::<StageName>().unwrap_err().to_string();
        for each in StageName::ALL {
            assert!(unknown.contains(&each.to_string()), "{unknown}");
        }
    }

    #[test]
    fn the_lines_of_the_cells() {
        let line = |cell: &str| {
            let cell = cell.parse().unwrap();
            let names = StageName::Workload.line(cell).iter();
            names.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        insta::assert_snapshot!(line("by-hand/nftables/routes"), @"booted identified control-plane joined cni workload-bare workload");
        insta::assert_snapshot!(line("by-hand/nftables/flannel"), @"booted identified control-plane joined pod-network workload");
        insta::assert_snapshot!(line("kubeadm/iptables/routes"), @"booted identified init joined pod-network workload");
    }

    #[test]
    fn a_stage_keeps_what_its_parent_has_and_adds_to_it() {
        let facts = |has: Has| {
            let Has {
                identities,
                api_server,
                nodes_registered,
                nodes_ready,
                pod_network,
                kube_proxy,
                services,
                cluster_dns,
                workload,
            } = has;
            [
                identities,
                api_server,
                nodes_registered,
                nodes_ready,
                pod_network,
                kube_proxy,
                services,
                cluster_dns,
                workload,
            ]
        };
        for cell in Cell::all() {
            for pair in StageName::all_of(cell).windows(2) {
                let (before, after) = (facts(pair[0].has(cell)), facts(pair[1].has(cell)));
                let kept = before
                    .iter()
                    .zip(after)
                    .all(|(before, after)| *before <= after);
                assert!(
                    kept && before != after,
                    "{cell}: {} and {}",
                    pair[0],
                    pair[1]
                );
            }
            let all = StageName::Workload.has(cell);
            let kubeadm = cell.bootstrap == Bootstrap::Kubeadm;
            assert_eq!(
                facts(all).iter().filter(|it| !**it).count(),
                usize::from(!kubeadm)
            );
            assert_eq!(all.cluster_dns, kubeadm);
        }
    }

    #[test]
    fn parents_come_first_and_belong_to_the_same_cell() {
        for bootstrap in Bootstrap::ALL {
            for network in PodNetwork::ALL {
                let cell = Cell {
                    network,
                    ..Cell::usual(bootstrap)
                };
                assert!(StageName::all_of(cell).is_sorted());
                for stage in StageName::ALL {
                    assert_eq!(stage.is_of(cell), stage.line(cell).last() == Some(&stage));
                    let parent = stage.parent(cell);
                    assert!(parent.is_none_or(|parent| parent.is_of(cell) && parent < stage));
                }
            }
        }
    }
}
