//! A scenario and its sabotages, as data.

use std::pin::Pin;
use std::time::Duration;

use podwire_cluster::{Bootstrap, Break, Cell, PodNetwork, StageName};

use crate::claim::Claim;
use crate::failure::Cause;
use crate::lab::Lab;

/// What a scenario's function returns.
pub type Future<'lab> = Pin<Box<dyn std::future::Future<Output = anyhow::Result<()>> + 'lab>>;

/// Whether a scenario belongs to the runs that everybody makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Run unless asked otherwise.
    Default,
    /// Run with `--profile full` only.
    Full,
}

/// The clusters that a scenario means something for, beside those that lack its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// All: it asserts what holds whoever made the cluster.
    Any,
    /// It looks at what the steps by hand have left.
    ByHand,
    /// It looks at what kubeadm has left, or runs it.
    Kubeadm,
    /// The same, where each node's Pods hang on a bridge: any Pod network but the user's own.
    KubeadmWithBridge,
}

/// One thing that the suite asserts about a cluster's network.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Name, as `--filter` takes it: lower case with underscores.
    pub name: &'static str,
    /// What it shows, in a sentence that a newcomer understands.
    pub about: &'static str,
    /// What of the catalogue it shows.
    pub covers: &'static [&'static Claim],
    /// The stage whose clone it starts from.
    pub stage: StageName,
    /// Which clusters it is for.
    pub cells: Cells,
    /// Which runs it belongs to.
    pub profile: Profile,
    /// Fewest nodes that it means something with.
    pub nodes: u32,
    /// Limit of the whole scenario on a machine with KVM, sabotages included; stretched like all
    /// limits.
    pub limit: Duration,
    /// What is done once, in a cluster of its own that is then frozen: the scenario and each of its
    /// sabotages start from clones of that. For what takes long and is the same for all of them, or
    /// must be seen to live through a freeze.
    pub prepare: Option<for<'lab> fn(&'lab Lab) -> Future<'lab>>,
    /// What it does and asserts.
    pub run: for<'lab> fn(&'lab Lab) -> Future<'lab>,
    /// Faults that prove its assertions can fail.
    pub sabotages: &'static [Sabotage],
    /// The faults of `--break` that must turn it red.
    pub red_when: &'static [Break],
}

impl Scenario {
    /// The ids of what it covers.
    pub fn ids(&self) -> Vec<&'static str> {
        self.covers.iter().map(|claim| claim.id).collect()
    }

    /// Whether it means something for a cluster of this cell.
    pub fn fits(&self, cell: Cell) -> bool {
        let bootstrap = match self.cells {
            Cells::Any => true,
            Cells::ByHand => cell.bootstrap == Bootstrap::ByHand,
            Cells::Kubeadm => cell.bootstrap == Bootstrap::Kubeadm,
            Cells::KubeadmWithBridge => {
                cell.bootstrap == Bootstrap::Kubeadm && cell.network != PodNetwork::Manifest
            }
        };
        bootstrap && self.stage.is_of(cell)
    }
}

/// A fault injected on purpose, in a fresh clone, followed by the scenario's assertion alone.
#[derive(Debug, Clone, Copy)]
pub struct Sabotage {
    /// Name.
    pub name: &'static str,
    /// What is broken.
    pub about: &'static str,
    /// The class of failure that the assertion must report.
    pub expects: Cause,
    /// Injects the fault, says so ([`Lab::injected`]), and repeats the assertion; must end in a
    /// [`Failure`](crate::Failure).
    pub run: for<'lab> fn(&'lab Lab) -> Future<'lab>,
}
