//! Everything that can go wrong with a cluster.

use std::path::PathBuf;
use std::time::Duration;

use podwire_lan::LanError;
use podwire_vm::{GuestError, MachineFault, VmError};

use super::cell::Cell;
use super::stage_name::StageName;

/// Why a cluster could not be made, or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The plan asks for what cannot be.
    #[error("a cluster of {nodes} nodes cannot be planned: take 1 to {max}")]
    Nodes {
        /// How many were asked for.
        nodes: u32,
        /// How many have addresses.
        max: u32,
    },
    /// The cluster has one segment.
    #[error("the cluster has no router: all its nodes are on one segment; lay it out `routed`")]
    NoRouter,
    /// The segment.
    #[error("the segment failed")]
    Segment(#[from] LanError),
    /// A machine could not be started, stopped, frozen or brought back.
    #[error(transparent)]
    Machine(#[from] VmError),
    /// A machine failed while it ran.
    #[error("{0}")]
    Fault(Box<MachineFault>),
    /// A machine does not come to the end of its boot.
    #[error(
        "the machine {machine} has not booted within {} s; its last console lines:\n{console}",
        limit.as_secs()
    )]
    NotBooted {
        /// The machine.
        machine: String,
        /// What was allowed.
        limit: Duration,
        /// The console's end.
        console: String,
    },
    /// A booting or waking machine does not answer.
    #[error("{node} does not answer: {reason}; its last console lines:\n{console}")]
    NoAnswer {
        /// The node.
        node: String,
        /// What came of asking.
        reason: String,
        /// The console's end.
        console: String,
    },
    /// A command on a node failed.
    #[error("cannot {doing} on {node}")]
    Guest {
        /// The node.
        node: String,
        /// What was being done.
        doing: String,
        /// How it went.
        source: Box<GuestError>,
    },
    /// A component does not come up.
    #[error(
        "{unit} on {node} does not come up within {} s: {state}; its last words:\n{journal}",
        limit.as_secs()
    )]
    NotUp {
        /// The node.
        node: String,
        /// The systemd unit, or what else it is.
        unit: String,
        /// What was allowed.
        limit: Duration,
        /// What was seen instead.
        state: String,
        /// The unit's state by systemd and the end of its journal.
        journal: String,
    },
    /// kubeadm has given up: its own words say why.
    #[error("kubeadm {phase} failed on {node}:\n{said}\nThe kubelet there:\n{kubelet}")]
    Kubeadm {
        /// `init` or `join`.
        phase: &'static str,
        /// The node.
        node: String,
        /// What it printed last.
        said: String,
        /// The kubelet's state by systemd and the end of its journal.
        kubelet: String,
    },
    /// The API refused or did not answer.
    #[error("the API server did not {doing}")]
    Api {
        /// What was being done.
        doing: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The client for the API could not be made.
    #[error("cannot make a client for the API")]
    Client(#[source] Box<kube::Error>),
    /// A command in a Pod gave no result.
    #[error("cannot run {command:?} in Pod {pod}: {reason}")]
    Exec {
        /// The Pod.
        pod: String,
        /// The command.
        command: String,
        /// What happened.
        reason: String,
    },
    /// `probe` printed something that is not a report.
    #[error("no report from the probe on {node}: {output}")]
    Probe {
        /// The node.
        node: String,
        /// What it printed.
        output: String,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// `probe` tells of other requests than it was asked to send.
    #[error(
        "the probe on {node} was asked for something else than it reports: {mismatch}; it and the \
         harness must be of the same version, `cargo xtask image` builds the image anew"
    )]
    Misreported {
        /// The node.
        node: String,
        /// What differs.
        mismatch: String,
    },
    /// Keys or certificates could not be made.
    #[error("cannot make keys and certificates")]
    Pki(#[from] rcgen::Error),
    /// An SSH key could not be made.
    #[error("cannot make an SSH key")]
    Key(#[from] podwire_vm::keys::KeyError),
    /// A value could not be written as JSON.
    #[error("cannot write {what} as JSON")]
    Json {
        /// The value.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A file of a stage or clone could not be read or written.
    #[error("cannot {doing} {path:?}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The machines' memory finds no room on the disk.
    #[error(
        "too little disk space in {dir:?}: the machines' memory takes up to {needed_mib} MiB, \
         {available_mib} MiB are free; `cargo xtask clean` removes old runs, and what the cache can \
         spare with --max-size or --older-than; or point PODWIRE_CACHE at a larger disk"
    )]
    NoRoom {
        /// Where stages are made.
        dir: PathBuf,
        /// All machines' memory, MiB.
        needed_mib: u64,
        /// What is free, MiB.
        available_mib: u64,
    },
    /// The stage comes before there is anything to reach.
    #[error(
        "nothing in the stage {stage} can be reached: its machines have no network card yet; take {} or a later one",
        StageName::Identified
    )]
    NoCluster {
        /// The stage.
        stage: StageName,
    },
    /// The cell has no such stage.
    #[error(
        "a cluster of {cell} has no stage {stage}; it has {}",
        StageName::all_of(*cell).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoSuchStage {
        /// The stage.
        stage: StageName,
        /// How the cluster is made.
        cell: Cell,
    },
    /// Only a cluster by hand keeps its authority's key outside.
    #[error("kubeadm keeps the cluster's keys on node1, in /etc/kubernetes/pki")]
    NoPki,
    /// What a node says is not what is needed of it.
    #[error("no {what} in what {node} says: {said}")]
    Unreadable {
        /// The node.
        node: String,
        /// What was looked for.
        what: &'static str,
        /// The end of its words.
        said: String,
    },
    /// containerd has imported all archives, and an image is not there.
    #[error(
        "after the import containerd lacks {}; it has {}",
        missing.join(", "),
        there.join(", ")
    )]
    NotImported {
        /// Names of images.
        missing: Vec<String>,
        /// Those that are there.
        there: Vec<String>,
    },
    /// The cell asks for the user's Pod network, and there is none.
    #[error("the cluster's Pod network comes of a manifest, and the plan has none")]
    NoPodManifest,
    /// The user's files are for a node that there is not.
    #[error("there are files for node{node}, and the cluster has {nodes} nodes")]
    NodeFilesForNobody {
        /// Its number.
        node: u32,
        /// How many there are.
        nodes: u32,
    },
    /// A file of the user's would be overwritten, unseen.
    #[error(
        "{path} is written on the nodes by podwire itself, on the way to the stage {stage}, and yours \
         would be gone"
    )]
    NodeFileTaken {
        /// The file.
        path: String,
        /// The stage on the way to which it is written.
        stage: StageName,
    },
    /// A file of the user's would be gone when the nodes have booted with it.
    #[error(
        "{path} would be gone once the nodes have booted: {folder} is made anew with every boot; give what makes it \
         then, as /etc/tmpfiles.d/NAME.conf (tmpfiles.d(5)), or a place on the disk (/etc, /usr/local, /var/lib)"
    )]
    NodeFileInMemory {
        /// The file.
        path: String,
        /// What is made anew with every boot.
        folder: &'static str,
    },
    /// A file of the user's lies where another of theirs needs a folder.
    #[error(
        "on node{node} {path} would be a file, and {below} lies below it; leave one of them out, or give each to the \
         nodes that it is for (node1{path}, ...)"
    )]
    NodeFileIsFolder {
        /// The node that would have both.
        node: u32,
        /// The file.
        path: String,
        /// What is below it.
        below: String,
    },
    /// A guest's clock does not run as the host's.
    #[error(
        "the clock of {node} has run {there:.0} s while the host's ran {here:.0} s: it took the rate of its time stamp counter wrong when it booted, and every stage made of that machine keeps it; remove {stages:?} and run again on a less loaded host"
    )]
    Clock {
        /// The node.
        node: String,
        /// Seconds by its clock.
        there: f64,
        /// Seconds by the host's.
        here: f64,
        /// The folder of the stages.
        stages: PathBuf,
    },
    /// A stage is to be made in the place of one that is damaged, and cannot be removed.
    #[error("the stage {dir:?} is damaged and in use: try again when its clones have ended")]
    DamagedInUse {
        /// The stage's folder.
        dir: PathBuf,
    },
    /// A stage whose manifest says other things than this version of podwire reads.
    #[error(
        "the stage {dir:?} was made by another version of podwire, and is kept for that; delete it \
         if nobody uses that version any more"
    )]
    OtherVersion {
        /// The stage's folder.
        dir: PathBuf,
        /// What of its manifest is not understood.
        source: serde_json::Error,
    },
    /// A cluster whose nodes answered does not come to what it was to be: a clone, or a stage.
    #[error("a cluster failed; what its nodes had to say is in {evidence:?}")]
    Failed {
        /// The folder with it, see [`Cluster::evidence`](crate::Cluster::evidence).
        evidence: PathBuf,
        /// What failed.
        source: Box<ClusterError>,
    },
    /// A stage is not what its manifest says.
    #[error("the stage {dir:?} is unusable: {reason}; delete it, and the next run builds it again")]
    Stage {
        /// The stage's folder.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl ClusterError {
    pub(crate) fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api {
            doing,
            source: Box::new(source),
        }
    }

    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

impl From<MachineFault> for ClusterError {
    fn from(fault: MachineFault) -> Self {
        Self::Fault(Box::new(fault))
    }
}
