//! A scenario and its sabotages, as data.

use std::pin::Pin;
use std::time::Duration;

use podwire_cluster::{Break, Layout, StageName};

use crate::check::failure::Cause;
use crate::check::reading::Metric;
use crate::lab::Lab;
use crate::scenario::claim::Claim;
use crate::scenario::clusters::{Cells, Families};

pub(crate) mod claim;
pub(crate) mod clusters;
pub(crate) mod fit;

/// What a scenario's function returns.
pub type Future<'lab> = Pin<Box<dyn std::future::Future<Output = anyhow::Result<()>> + 'lab>>;

/// What is done in a lab: [`steps!`](crate::steps) makes one of an async function.
pub type Steps = for<'lab> fn(&'lab Lab) -> Future<'lab>;

const NOTHING: Steps = |_| Box::pin(async { Ok(()) });

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

/// One thing that the suite asserts about a cluster's network.
///
/// ```
/// use podwire_scenario::{Cause, Lab, Sabotage, Scenario, StageName, steps};
///
/// const CABLE: Scenario = Scenario {
///     about: "a node answers as long as its cable is in",
///     sabotages: &[Sabotage::new("pulled")
///         .about("somebody pulled it")
///         .inject(steps!(|lab| lab.node(2).set_link(false).await))
///         .caught_by(steps!(answers), Cause::TimedOut)],
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
}

/// A fault injected on purpose, in a fresh clone, followed by the scenario's assertion alone.
#[derive(Debug, Clone, Copy)]
pub struct Sabotage {
    /// Name.
    pub name: &'static str,
    /// What is broken.
    pub about: &'static str,
    /// Injects the fault. What fails here is the harness's fault: nothing is proved.
    pub inject: Steps,
    /// The scenario's assertion, which must end in a [`Failure`](crate::Failure).
    pub check: Steps,
    /// The class of failure that must be among what the check finds.
    pub expects: Cause,
    /// What the failure must say as well, where its class is too wide to tell this fault from others.
    pub says: Option<&'static str>,
    /// Which node loses packets by it, if one alone does: where the failure's page should end the way of one of them.
    pub place: Option<Place>,
}

/// Which node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one with this number.
    Node(u32),
    /// The one with the highest.
    Last,
}

impl Place {
    /// Its number in a cluster of so many nodes.
    pub fn of(self, nodes: u32) -> u32 {
        match self {
            Self::Node(number) => number,
            Self::Last => nodes,
        }
    }
}

impl Sabotage {
    /// One that injects nothing: it leaves out what the scenario does before its check.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            about: "",
            inject: NOTHING,
            check: NOTHING,
            expects: Cause::Other,
            says: None,
            place: None,
        }
    }

    /// What is broken.
    #[must_use]
    pub const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// How it is broken.
    #[must_use]
    pub const fn inject(mut self, inject: Steps) -> Self {
        self.inject = inject;
        self
    }

    /// The scenario's assertion, and the class of failure that must be among what it finds then.
    #[must_use]
    pub const fn caught_by(mut self, check: Steps, expects: Cause) -> Self {
        self.check = check;
        self.expects = expects;
        self
    }

    /// What the failure must say as well, word by word.
    #[must_use]
    pub const fn saying(mut self, says: &'static str) -> Self {
        self.says = Some(says);
        self
    }

    /// One node alone loses packets by it, and which.
    #[must_use]
    pub const fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The failure that it must provoke, for reports: its class, and what it must say.
    pub(crate) fn failure(&self) -> String {
        let class = format!("\"{}\"", self.expects);
        match self.says {
            Some(words) => format!("{class}, saying \"{words}\""),
            None => class,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_node_is_the_one_with_the_highest_number() {
        assert_eq!((Place::Node(2).of(3), Place::Last.of(3)), (2, 3));
    }
}
