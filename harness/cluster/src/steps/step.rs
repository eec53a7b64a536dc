//! What leads from one stage to the next, as data: what is begun with, what is done, in order, and
//! what is waited for afterwards.
//!
//! A step is made by a pure function ([`crate::steps`]), carried out by one interpreter
//! ([`crate::running::carry_out`]), and digested for the key of its stage ([`crate::steps::key`]). Everything in it
//! counts for the key except for what people read meanwhile ([`Part::says`]): another sentence makes no
//! other cluster.

use std::time::Duration;

use podwire_lan::{NetworkPlan, SegmentPlan};
use serde::Serialize;
use serde_json::Value;

use crate::parts::credentials::Access;
use crate::parts::file::NodeFile;
use crate::plan::cluster_plan::Role;
use crate::plan::pod_manifest::Controller;

/// What leads to a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) begins: Beginning,
    pub(crate) parts: Vec<Part>,
    pub(crate) settles: Settling,
}

/// What a step begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Beginning {
    /// Machines are switched on, without a network card.
    Boot(Boot),
    /// The parent's booted machines become nodes.
    Plug(Plug),
    /// The parent's cluster goes on.
    Wake,
}

/// Machines as their guests see them, and what executes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Boot {
    /// Digest names of the node image and of the layer over it.
    pub(crate) image: String,
    pub(crate) layer: Option<String>,
    /// QEMU's version and build, and the host's processor.
    pub(crate) qemu: String,
    pub(crate) host_cpu: String,
    /// What each becomes, and its [`podwire_vm::MachineSpec::shape`].
    pub(crate) machines: Vec<(Role, Vec<String>)>,
}

/// Each node is a copy of a booted machine, and gets a card whose MAC address has a lease. What is beyond
/// the first segment is left out of the data where nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Plug {
    /// The machine that each node is a copy of, by number from 1.
    pub(crate) roles: Vec<Role>,
    pub(crate) segment: SegmentPlan,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beyond: Option<Beyond>,
}

/// A second segment, and the machine that leads to it, if one does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Beyond {
    /// The machine that the router is a copy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) router: Option<Role>,
    pub(crate) segment: SegmentPlan,
}

impl Plug {
    pub(crate) fn network(&self) -> NetworkPlan {
        let beyond = self.beyond.iter().map(|beyond| &beyond.segment);
        let segments = [&self.segment].into_iter().chain(beyond);
        NetworkPlan {
            segments: segments.cloned().collect(),
        }
    }
}

/// Some actions that people are told of in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    /// In the present tense.
    #[serde(skip)]
    pub(crate) says: String,
    pub(crate) does: Vec<Action>,
}

/// All limits are the host's, before stretching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Action {
    OnNodes(OnNodes),
    /// A command line of root's shell on the router.
    OnRouter {
        command: String,
        limit: Duration,
    },
    /// These nodes boot again, all at the same time.
    Reboot {
        nodes: Vec<u32>,
    },
    /// kubeadm runs to its end on these nodes; what it prints tells what it is at.
    Kubeadm {
        /// `init` or `join`.
        phase: &'static str,
        on: OnNodes,
    },
    /// API objects are applied, one after the other, until the API server has taken them.
    Apply {
        objects: Vec<Value>,
        limit: Duration,
    },
    Wait {
        gate: Gate,
        limit: Duration,
    },
    /// From now on the API is reached like this.
    Reach(Access),
    /// The same with what a command prints: a kubeconfig in JSON with everything in it.
    ReachAs(Ask),
    /// A hole is filled by what a command prints, in all that follows.
    Fill(Hole, Ask),
}

/// Done on some nodes, on all of them at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct OnNodes {
    pub(crate) nodes: Vec<OnNode>,
    pub(crate) limit: Duration,
}

/// On one node: its files in one archive, then a command line of root's shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct OnNode {
    /// The node's number.
    pub(crate) node: u32,
    pub(crate) files: Vec<NodeFile>,
    pub(crate) command: Option<String>,
}

impl OnNode {
    pub(crate) fn run(node: u32, command: impl Into<String>) -> Self {
        Self {
            node,
            files: Vec::new(),
            command: Some(command.into()),
        }
    }
}

/// A command line whose words are needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Ask {
    pub(crate) node: u32,
    pub(crate) command: String,
    pub(crate) limit: Duration,
}

/// What is only known once the cluster runs. Its name stands in the files that need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Hole {
    /// `sha256:` and the digest of the authority's public key, from the command for workers that
    /// `kubeadm init` prints.
    CaHash,
}

impl Hole {
    /// What stands for it in a file's text.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CaHash => "<the hash that kubeadm init prints>",
        }
    }
}

/// What must be so before the step goes on. No gate looks at an address, a route, a name or a
/// ClusterIP, because that is what scenarios assert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Gate {
    /// The API server says that it is ready; these units of node 1 have to run for that, itself last.
    ApiReady { units: [&'static str; 2] },
    /// The Nodes 1 to this are listed.
    NodesRegistered(u32),
}

/// What is waited for before the stage is frozen, as it then is all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Settling {
    /// For each of them.
    pub(crate) limit: Duration,
    /// The nodes that are in the cluster: without their kubelets nothing settles.
    pub(crate) nodes: Vec<u32>,
    /// In this order: what others run on first, so that what does not come is told.
    pub(crate) when: Vec<Settled>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Settled {
    /// All Pods of each are ready.
    Controllers(Vec<Controller>),
    /// So many of each are ready.
    Pods(Vec<Pods>),
    /// So many Nodes are there, and each is Ready.
    NodesReady(u32),
    /// kube-proxy says of itself that it is healthy on the nodes 1 to this: that it has read all
    /// Services and written its rules.
    ProxiesHealthy { nodes: u32, limit: Duration },
}

/// A number of Pods that a label selector selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Pods {
    pub(crate) namespace: &'static str,
    pub(crate) selector: &'static str,
    pub(crate) count: u32,
}
