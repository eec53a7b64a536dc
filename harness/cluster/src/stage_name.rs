//! The stages, and which is made of which.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cell::{Bootstrap, Cell, PodNetwork};

/// A named point of the way from nothing to a cluster with a workload. Each is made of its parent,
/// which depends on the cell: [`StageName::line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageName {
    /// One machine of each size, up to a running sshd; no network card yet, no identity.
    Booted,
    /// By hand: every node has its identity; the control plane runs on node 1.
    ControlPlane,
    /// kubeadm: every node has its identity; `kubeadm init` has returned on node 1.
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
    pub const ALL: [Self; 8] = [
        Self::Booted,
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
                Self::ControlPlane,
                Self::Joined,
                Self::Cni,
                Self::WorkloadBare,
                Self::Workload,
            ],
            // A Pod network that runs in Pods needs the API's Service, so kube-proxy comes first:
            // there is nothing to see without it.
            (Bootstrap::ByHand, PodNetwork::Flannel(_) | PodNetwork::Manifest) => &[
                Self::Booted,
                Self::ControlPlane,
                Self::Joined,
                Self::PodNetwork,
                Self::Workload,
            ],
            (Bootstrap::Kubeadm, _) => &[
                Self::Booted,
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

    /// What there is in it, in one line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Booted => "machines that have booted, without a network card",
            Self::ControlPlane => "nodes with their identities, the control plane on node1",
            Self::Init => "nodes with their identities, kubeadm init done on node1",
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

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no stage's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no stage: booted, control-plane, init, joined, cni, pod-network, workload-bare and workload are"
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
        insta::assert_snapshot!(line("by-hand/nftables/routes"), @"booted control-plane joined cni workload-bare workload");
        insta::assert_snapshot!(line("by-hand/nftables/flannel"), @"booted control-plane joined pod-network workload");
        insta::assert_snapshot!(line("kubeadm/iptables/routes"), @"booted init joined pod-network workload");
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
