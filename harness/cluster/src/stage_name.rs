//! The stages by hand, and which is made of which.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A named point of the way from nothing to a cluster with a workload. Each is made of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageName {
    /// One machine of each size, up to a running sshd; no network card yet, no identity.
    Booted,
    /// Every node has its identity; the control plane runs on node 1.
    ControlPlane,
    /// Every node's kubelet has registered its Node.
    Joined,
    /// Every node has its CNI file: Nodes are Ready. No routes.
    Cni,
    /// The workload's Pods run; no routes, and kube-proxy was never started.
    WorkloadBare,
    /// Routes and kube-proxy are there: the whole Pod and Service network.
    Workload,
}

impl StageName {
    /// All of them, parents first.
    pub const ALL: [Self; 6] = [
        Self::Booted,
        Self::ControlPlane,
        Self::Joined,
        Self::Cni,
        Self::WorkloadBare,
        Self::Workload,
    ];

    /// The stage that it is made of.
    pub fn parent(self) -> Option<Self> {
        match self {
            Self::Booted => None,
            Self::ControlPlane => Some(Self::Booted),
            Self::Joined => Some(Self::ControlPlane),
            Self::Cni => Some(Self::Joined),
            Self::WorkloadBare => Some(Self::Cni),
            Self::Workload => Some(Self::WorkloadBare),
        }
    }

    /// It and what it is made of, the first first.
    pub fn line(self) -> Vec<Self> {
        let mut line: Vec<Self> = std::iter::successors(Some(self), |name| name.parent()).collect();
        line.reverse();
        line
    }

    /// What there is in it, in one line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Booted => "machines that have booted, without a network card",
            Self::ControlPlane => "nodes with their identities, the control plane on node1",
            Self::Joined => "all Nodes registered, not Ready: no Pod network",
            Self::Cni => "a CNI file per node: Nodes Ready, no routes between Pods",
            Self::WorkloadBare => "the workload runs; no routes, no kube-proxy",
            Self::Workload => "the workload runs, with all routes and kube-proxy",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::ControlPlane => "control-plane",
            Self::Joined => "joined",
            Self::Cni => "cni",
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
#[error("{0:?} is no stage: booted, control-plane, joined, cni, workload-bare and workload are")]
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
    fn parents_come_first() {
        assert_eq!(StageName::Workload.line(), StageName::ALL);
        assert_eq!(StageName::Booted.line(), [StageName::Booted]);
    }
}
