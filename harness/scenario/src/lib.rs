//! What the author of a scenario imports.
//!
//! A [`Scenario`] is one async function with a name, the [`Claim`]s that it covers and its
//! [`Sabotage`]s. It gets a [`Lab`]: its own running clone of a frozen cluster, which it may break
//! as it likes. It does things to the lab with the lab's verbs, and asserts with [`ensure`] and the
//! functions of [`check`], which return a [`Failure`] that says what was expected, what was seen, and
//! where to look.
//!
//! ```text
//! xtask ── context.json ──> nextest ──> one process per scenario
//!                                         run_main(scenarios)
//!                                           Lab (clone) -> run -> result.json
//!                                           Lab (fresh clone) -> inject, check -> caught?
//! ```
//!
//! Its rooms, each of which uses only those below it: `run` (from nextest's command line to a result),
//! `scenario` (the declaration), `lab` (the verbs), `wait` (looks, and who would have to act, as data),
//! `check` (pure functions over what was observed).
//!
//! docs/writing-a-scenario.md shows a real one, line by line.

pub mod check;
mod lab;
mod run;
mod scenario;
mod wait;

pub use check::assert;
pub use check::balance::{Band, REQUESTS_PER_BACKEND, Rounds};
pub use check::clock::Clock;
pub use check::datagrams::{Received, received_by};
pub use check::failure::{Cause, Failure, listed};
pub use check::load::Rules;
pub use check::mesh::{Cell, Mesh};
pub use check::nodes::NodeTrouble;
pub use check::pairs::{End, FRAMES, Frame, Hop, Met, Pair, Pairs, Trace};
pub use check::party::Party;
pub use check::reading::{Metric, Read, Reading, Worse};
pub use check::record::{Followed, Gap, Mark, Record, Segment};
pub use check::rules::RuleChange;
pub use check::streams::said_back_by;
pub use check::twin::{Line, Twin, Unlike};
pub use check::wire::{Crossing, Requests};
pub use futures::try_join;
pub use lab::ask::{Ask, AskEach};
pub use lab::command::{Answer, Command};
pub use lab::curl::Curled;
pub use lab::datagrams::Datagrams;
pub use lab::etcd::EtcdMember;
pub use lab::impair::{Checked, Impaired, Impairing};
pub use lab::init::InitConfig;
pub use lab::kubeadm::{Kubeadm, READY_AFTER_JOIN, looks_at_cluster_info};
pub use lab::node::Node;
pub use lab::nodes::ListedNode;
pub use lab::objects::{Deployment, Service};
pub use lab::pods::{Pod, Pods};
pub use lab::router::Router;
pub use lab::tokens::Token;
pub use lab::traffic::{StartTraffic, Traffic};
pub use lab::wire::Wire;
pub use lab::{Lab, STEPS};
pub use podwire_cluster::kubeadm::{INIT_LOG, JoinCommand};
pub use podwire_cluster::kubeconfig;
pub use podwire_cluster::{
    Bootstrap, Break, Component, Family, Layout, PodNetwork, ProxyMode, StageName,
};
pub use podwire_lan::witness::{Moment, Seen, Sighting};
pub use podwire_lan::{Check, ContactProtocol, Ipv4Net, MacAddr, Packets, Protocol, Realised};
pub use podwire_probe::{
    Kind, Load, LoadReport, Outcome as RequestOutcome, ResolveOutcome, TargetReport,
};
pub use run::account::{Account, Step};
pub use run::bare;
pub use run::cases::{self, Case};
pub use run::context::{
    ANCESTOR_VARIABLE, CELL_VARIABLE, CellContext, ContextError, HEALTHY_VARIABLE, Share,
};
pub use run::ending::Ending;
pub use run::limits::Limits;
pub use run::place::{WAITING, awaited};
pub use run::program::{self, Program, Programs};
pub use run::result::{
    Outcome, PREPARATION, PhaseTime, Processors, SABOTAGE, SabotageResult, ScenarioResult, StepTime,
};
pub use run::runner::run_main;
pub use scenario::claim::Claim;
pub use scenario::clusters::{Cells, Families};
#[doc(hidden)]
pub use scenario::done;
pub use scenario::fit::Unfit;
pub use scenario::{Future, Place, Profile, Sabotage, Scenario, Steps};
pub use wait::evidence::Evidence;
pub use wait::needs::Needs;
pub use wait::probe::Probe;

/// So many mebibytes, in octets.
pub const fn mib(mebibytes: u64) -> u64 {
    mebibytes << 20
}

/// So many seconds.
pub const fn secs(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}
