//! A scenario and its sabotages, as data.

use std::pin::Pin;
use std::time::Duration;

use podwire_cluster::{
    Bootstrap, Break, Cell, FlannelBackend, IpFamilies, Layout, PodNetwork, StageName,
};

use crate::check::failure::Cause;
use crate::check::reading::Metric;
use crate::lab::Lab;
use crate::scenario::claim::Claim;

pub(crate) mod claim;

/// What a scenario's function returns.
pub type Future<'lab> = Pin<Box<dyn std::future::Future<Output = anyhow::Result<()>> + 'lab>>;

/// What is done in a lab: [`steps!`](crate::steps) makes one of an async function.
pub type Steps = for<'lab> fn(&'lab Lab) -> Future<'lab>;

/// For a sabotage that leaves out what the scenario does before its check.
pub const LEFT_OUT: Steps = |_| Box::pin(async { Ok(()) });

/// Makes [`Steps`] of an async function that takes a `&Lab`, or of a closure whose body may `.await`.
/// What they give beside success is not looked at.
///
/// ```
/// use podwire_scenario::{Lab, Steps, steps};
///
/// async fn every_pod_answers(lab: &Lab) -> anyhow::Result<()> {
///     lab.step("ask every Pod");
///     Ok(())
/// }
/// const CHECK: Steps = steps!(every_pod_answers);
/// const INJECT: Steps = steps!(|lab| lab.node(2).stop("kubelet").await);
/// ```
#[macro_export]
macro_rules! steps {
    (|$lab:ident| $body:expr) => {
        |$lab| {
            ::std::boxed::Box::pin(async move {
                let done = $body;
                $crate::done(done)
            })
        }
    };
    ($function:path) => {
        |lab| ::std::boxed::Box::pin(async move { $crate::done($function(lab).await) })
    };
}

/// What [`steps!`](crate::steps) makes of what a function gives.
#[doc(hidden)]
pub fn done<T>(result: anyhow::Result<T>) -> anyhow::Result<()> {
    result.map(|_| ())
}

/// Whether a scenario belongs to the runs that everybody makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Run unless asked otherwise, on each cluster that it is for.
    Everywhere,
    /// Run unless asked otherwise. Where nobody names a bootstrap, and so both make clusters, what is for both is
    /// seen by hand alone: it asserts the same of either.
    Default,
    /// Run with `--profile full` only.
    Full,
}

/// The clusters that a scenario means something for, beside those that lack its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// All: it asserts what holds whoever made the cluster.
    Any,
    /// Each node's Pods hang on a bridge: any Pod network but the user's own.
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

/// One thing that the suite asserts about a cluster's network.
///
/// ```
/// use podwire_scenario::{Cause, Lab, Sabotage, Scenario, StageName, steps};
///
/// const CABLE: Scenario = Scenario {
///     about: "a node answers as long as its cable is in",
///     sabotages: &[Sabotage {
///         name: "pulled",
///         about: "somebody pulled it",
///         expects: Cause::TimedOut,
///         inject: steps!(|lab| lab.node(2).set_link(false).await),
///         check: steps!(answers),
///     }],
///     ..Scenario::new("cable", StageName::Workload, steps!(answers))
/// };
///
/// async fn answers(lab: &Lab) -> anyhow::Result<()> {
///     Ok(())
/// }
/// ```
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
    /// Which of the clusters that have its stage; all of them unless said otherwise.
    pub cells: Cells,
    /// Which nodes share a segment; all of them unless said otherwise. It runs on clusters that are laid out
    /// so, and on no others.
    pub layout: Layout,
    /// Which families of IP it looks at, and so on which clusters it runs: those of IPv4 alone unless said
    /// otherwise.
    pub families: Families,
    /// Which runs it belongs to; all of them unless said otherwise.
    pub profile: Profile,
    /// Fewest nodes that it means something with; two unless said otherwise.
    pub nodes: u32,
    /// Limit of the whole scenario on a machine with KVM, sabotages included; stretched like all
    /// limits. Two minutes unless said otherwise.
    pub limit: Duration,
    /// What is done once, in a cluster of its own that is then frozen: the scenario and each of its
    /// sabotages start from clones of that. For what takes long and is the same for all of them, or
    /// must be seen to live through a freeze.
    pub prepare: Option<Steps>,
    /// Whether it starts kube-router, which is no part of a cluster: only runs with such a scenario build
    /// it.
    pub kube_router: bool,
    /// Whether it upgrades the cluster: it runs where there is something to upgrade to (`--upgrade-to`).
    pub upgrades: bool,
    /// How many processors of the host it needs: with fewer it runs only where a filter names it. For machines that
    /// would starve each other, so that a verdict would be one on the host.
    pub cores: usize,
    /// What it takes a reading of, each once ([`Lab::reading`](crate::Lab::reading)): for `compare`, which judges
    /// pairs of them. Of what asserts something, nothing.
    pub measures: &'static [&'static Metric],
    /// What it does and asserts.
    pub run: Steps,
    /// Faults that prove its assertions can fail.
    pub sabotages: &'static [Sabotage],
    /// The faults of `--break` that must turn it red.
    pub red_when: &'static [Break],
}

impl Scenario {
    /// One that says of itself only what is its own: the rest is as most are.
    pub const fn new(name: &'static str, stage: StageName, run: Steps) -> Self {
        Self {
            name,
            about: "",
            covers: &[],
            stage,
            cells: Cells::Any,
            layout: Layout::Flat,
            families: Families::Ipv4,
            profile: Profile::Default,
            nodes: 2,
            limit: Duration::from_secs(120),
            prepare: None,
            kube_router: false,
            upgrades: false,
            cores: 1,
            measures: &[],
            run,
            sabotages: &[],
            red_when: &[],
        }
    }

    /// The ids of what it covers.
    pub fn ids(&self) -> Vec<&'static str> {
        self.covers.iter().map(|claim| claim.id).collect()
    }

    /// Whether it means something for a cluster of this cell.
    pub fn fits(&self, cell: Cell) -> bool {
        self.layout == cell.layout
            && self.families.include(cell.ip_families)
            && self.cells.include(cell)
            && self.stage.is_of(cell)
    }

    /// Why it means nothing over a Pod network of the user's or one by its name, whoever makes the cluster;
    /// nothing where it does.
    pub fn unfit_for_a_manifest(&self) -> Option<&'static str> {
        let mut cells = Bootstrap::ALL.into_iter().map(|bootstrap| Cell {
            network: PodNetwork::Manifest,
            ..Cell::usual(bootstrap).laid_out(self.layout)
        });
        if cells.clone().any(|cell| self.fits(cell)) {
            return None;
        }
        if self.families == Families::Dual {
            return Some("it is about two families of IP, which the cell does not have");
        }
        let has_stage = cells.any(|cell| self.stage.is_of(cell));
        Some(match self.cells {
            _ if !has_stage => {
                "it starts where nobody has laid anything between the nodes, which is a stage of routes by hand"
            }
            Cells::WithBridge | Cells::KubeadmWithBridge => {
                "it counts on the bridge, or the CNI file and plugins, that podwire's own networks have on each node"
            }
            Cells::WithFlannel | Cells::HostGw | Cells::Vxlan => {
                "it is about one of flannel's two ways"
            }
            Cells::Routable => {
                "it needs to know which way leads to whose Pods, to have a router lead there too"
            }
            Cells::Any | Cells::ByHand | Cells::ByHandWithRoutes | Cells::Kubeadm => {
                "it gives Nodes their ranges and writes their CNI files itself"
            }
        })
    }
}

impl Families {
    fn include(self, families: IpFamilies) -> bool {
        match self {
            Self::Ipv4 => families == IpFamilies::Ipv4,
            Self::Each => true,
            Self::Dual => families == IpFamilies::Dual,
        }
    }
}

impl Cells {
    fn include(self, cell: Cell) -> bool {
        match self {
            Self::Any => true,
            Self::ByHand => cell.bootstrap == Bootstrap::ByHand,
            Self::ByHandWithRoutes => {
                Self::ByHand.include(cell) && cell.network == PodNetwork::Routes
            }
            Self::Kubeadm => cell.bootstrap == Bootstrap::Kubeadm,
            Self::WithBridge => cell.network != PodNetwork::Manifest,
            Self::WithFlannel => matches!(cell.network, PodNetwork::Flannel(_)),
            Self::Routable => match cell.network {
                PodNetwork::Routes | PodNetwork::Flannel(FlannelBackend::Vxlan) => true,
                PodNetwork::Flannel(FlannelBackend::HostGw) | PodNetwork::Manifest => false,
            },
            Self::HostGw => cell.network == PodNetwork::Flannel(FlannelBackend::HostGw),
            Self::Vxlan => cell.network == PodNetwork::Flannel(FlannelBackend::Vxlan),
            Self::KubeadmWithBridge => {
                Self::Kubeadm.include(cell) && Self::WithBridge.include(cell)
            }
        }
    }
}

/// A fault injected on purpose, in a fresh clone, followed by the scenario's assertion alone.
#[derive(Debug, Clone, Copy)]
pub struct Sabotage {
    /// Name.
    pub name: &'static str,
    /// What is broken.
    pub about: &'static str,
    /// The class of failure that must be among what the check finds.
    pub expects: Cause,
    /// Injects the fault. What fails here is the harness's fault: nothing is proved.
    pub inject: Steps,
    /// The scenario's assertion, which must end in a [`Failure`](crate::Failure).
    pub check: Steps,
}
