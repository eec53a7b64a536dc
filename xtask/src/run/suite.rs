//! Scenarios as nextest runs them: what their processes are told, and what is seen of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use podwire_admission::Memory;
use podwire_cluster::{Break, ClusterPlan, Host, Settings, Stage};
use podwire_images::bundle::Provenance;
use podwire_process::kill_descendants;
use podwire_scenario::{
    ANCESTOR_VARIABLE, CELL_VARIABLE, CellContext, Limits, Programs, Scenario, Share,
};

use crate::command::session::Session;
use crate::lab::keep::Keeper;
use crate::plan::{capacity, durations};
use crate::prepare::{machine, tickets};
use crate::report::merge::Seen;
use crate::run::nextest::{self, Ended, Nextest};
use crate::run::pace::Pace;
use crate::run::under_way::{Standstill, UnderWay};
use crate::say::stop::Stop;

/// What is shown from the first Ctrl-C on.
pub(super) const ENDING: &str = "interrupted: ending all machines";

/// What scenarios run with.
pub(crate) struct Suite<'a> {
    pub(crate) session: &'a Session,
    /// The program.
    pub(crate) nextest: &'a Path,
    /// kube-router's program, where one of them starts it.
    pub(crate) kube_router: Option<&'a Path>,
    pub(crate) host: &'a Host,
    pub(crate) plan: &'a ClusterPlan,
    /// How many of them run beside each other.
    pub(crate) at_once: usize,
    pub(crate) broken: Option<Break>,
    pub(crate) catalogue: &'a [Scenario],
    /// The programs of the user's that the scenarios are, if they are.
    pub(crate) programs: Option<&'a Programs>,
    /// The run's folder, if the first failed scenario's cluster stays.
    pub(crate) keep: Option<&'a Path>,
    /// How often each scenario runs.
    pub(crate) repeat: u32,
    /// Whether what stands out on the wire fails a scenario.
    pub(crate) strict_wire: bool,
    /// What the nodes run.
    pub(crate) system: &'a str,
    /// Where the Kubernetes under test came from.
    pub(crate) provenance: &'a Provenance,
    /// The command that leads to the same cluster again.
    pub(crate) again: &'a str,
}

/// What came of them.
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    /// By the scenarios' names.
    pub(crate) seen: BTreeMap<String, Seen>,
    /// When a person ended the run: why scenarios have no result.
    pub(crate) cut_short: Option<CutShort>,
    /// Those that had died by then, or by the end: their processes were gone without a result.
    pub(crate) died: Vec<String>,
    /// For how long all of them waited for a place on this machine.
    pub(crate) waited: Duration,
}

/// What a person's Ctrl-C (or SIGTERM, or SIGHUP) has ended before all scenarios had run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CutShort {
    /// Scenarios at work.
    AtWork,
    /// The wait at the cluster that `--keep` held, the ordinary way out of it.
    Kept(String),
}

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtWork => write!(f, "ended by Ctrl-C"),
            Self::Kept(what) => write!(f, "ended by Ctrl-C, which ended the kept {what}"),
        }
    }
}

/// How many clones of such a cluster this machine carries now.
pub(crate) fn at_once(plan: &ClusterPlan) -> Result<usize, Stop> {
    let available = Memory::of_host()?.available;
    let claim = tickets::claim("", plan);
    Ok(capacity::at_once(
        machine::cores(),
        available,
        plan.accelerator,
        claim.memory_mib,
    ))
}

impl Suite<'_> {
    /// What the scenarios' processes are to know; they start from clones of these stages.
    pub(crate) fn context(&self, stages: &[Stage]) -> Result<CellContext, Stop> {
        let (session, host) = (self.session, self.host);
        let claim = tickets::claim("", self.plan);
        Ok(CellContext {
            plan: self.plan.clone(),
            stages: stages
                .iter()
                .map(|stage| (stage.manifest.name, stage.dir.clone()))
                .collect(),
            qemu: host.qemu.clone(),
            qemu_img: host.qemu_img.clone(),
            accelerator: host.accelerator,
            speed_factor: self.limits().speed_factor,
            ssh_key: session.cache.ssh_keys(&session.progress)?.user,
            broken: self.broken,
            share: Share {
                folder: session.cache.folder(tickets::ADMISSION)?,
                slots: claim.slots,
                clone_mib: claim.memory_mib,
                keep_free_mib: claim.keep_free_mib,
            },
            keep: self.keep.map(Path::to_owned),
            repeat: self.repeat,
            strict_wire: self.strict_wire,
            kube_router: self.kube_router.map(Path::to_owned),
            programs: self.programs.cloned(),
            tested: tested(self.plan, self.system, self.provenance),
            again: self.again.to_owned(),
        })
    }

    /// The limits of the scenarios' processes, with as many of them beside each other as there may be.
    fn limits(&self) -> Limits {
        #[expect(clippy::cast_precision_loss, reason = "clones at once are few")]
        let clones = self.at_once as f64;
        Limits {
            speed_factor: self.host.speed_factor * clones,
            repeat: self.repeat,
        }
    }

    /// Runs these scenarios; their context is in the cell's folder, and their results go there. The
    /// first Ctrl-C ends nextest and all machines, but not this process: what has finished is told.
    /// How fast they go is noted in `pace`, and what is left by that is shown. Each time that one more
    /// has its result, or has died, and once before the first, `more` is called with those that have died.
    pub(crate) fn run(
        &self,
        cell_dir: &Path,
        names: &[String],
        pace: &mut Pace,
        more: &mut dyn FnMut(&[String]),
    ) -> Result<Ran, Stop> {
        let session = self.session;
        let selected = self.catalogue.iter();
        let selected = selected.filter(|scenario| names.iter().any(|name| name == scenario.name));
        let limit = longest(self.limits(), selected);
        let keep = self.keep.is_some();
        let nextest = Nextest {
            program: self.nextest.to_owned(),
            workspace: session.workspace.root.clone(),
            profile: nextest::SCENARIOS,
            store: cell_dir.to_owned(),
            settings: nextest::scenarios_settings(limit, self.limits().grace(), keep),
            filterset: nextest::scenarios(names),
            at_once: self.at_once,
            env: vec![
                (CELL_VARIABLE.into(), cell_dir.display().to_string()),
                (ANCESTOR_VARIABLE.into(), std::process::id().to_string()),
            ],
        };
        let interrupted = session.interrupts.expect();
        let mut keeper = self.keep.map(Keeper::new);
        let mut standstill = Standstill::default();
        let cell = self.plan.cell.to_string();
        let (mut told, mut died) = (None, Vec::new());
        let ended = nextest.run(session, || {
            let (under_way, now) = (UnderWay::look(cell_dir, names), Instant::now());
            standstill.look(under_way.stands_still(), now);
            // Whatever goes after Ctrl-C goes because of it.
            if !interrupted.has_come() {
                died.clone_from(&under_way.died);
            }
            let over = (under_way.done.len(), died.len());
            if told != Some(over) {
                told = Some(over);
                more(&died);
            }
            pace.look(&under_way, |name| durations::on_cell(name, &cell), now);
            let (step, left) = if interrupted.has_come() {
                (ENDING.to_owned(), None)
            } else if let Some(kept) = keeper.as_mut().and_then(|keeper| keeper.look(session)) {
                // Until somebody has seen enough.
                (kept, None)
            } else {
                (under_way.to_string(), pace.left(now))
            };
            session.progress.left(left);
            session.progress.step(&step);
        })?;
        if interrupted.has_come() {
            // Scenarios have left, and their machines are on their way.
            kill_descendants();
        }
        Ok(Ran {
            ended,
            cut_short: interrupted
                .has_come()
                .then(|| keeper.and_then(Keeper::into_kept))
                .map(|kept| kept.map_or(CutShort::AtWork, CutShort::Kept)),
            died,
            seen: nextest.seen()?,
            waited: standstill.total(),
        })
    }
}

/// What is under test, in words for the first page.
fn tested(plan: &ClusterPlan, system: &str, provenance: &Provenance) -> String {
    let files = plan.node_tree.as_ref();
    let files = files.map_or(String::new(), |tree| {
        format!("; {} of the user's files over the nodes'", tree.count())
    });
    let kinds = plan.configurations.0.keys();
    let kinds: Vec<&str> = kinds.map(|kind| kind.name()).collect();
    let configured = match kinds.is_empty() {
        true => String::new(),
        false => format!("; the user's {} merged in", kinds.join(", ")),
    };
    format!(
        "{} on {system}, {provenance}{files}{configured}; component settings: {}",
        plan.cell,
        Settings::of(plan.accelerator)
    )
}

/// The longest that one of these scenarios' processes may take.
fn longest<'a>(limits: Limits, scenarios: impl Iterator<Item = &'a Scenario>) -> Duration {
    let processes = scenarios.map(|scenario| limits.process(scenario.limit));
    processes.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::fixture::cluster_plan;
    use crate::report::fixture::results;
    use podwire_cluster::{Configurations, Kind};
    use podwire_vm::{Accelerator, KvmProcessor};
    use serde_json::Value;

    #[test]
    fn the_first_page_tells_whose_settings_the_components_have() {
        let provenance = results().provenance;
        let tested = |accelerator| {
            let plan = ClusterPlan {
                accelerator,
                ..cluster_plan()
            };
            tested(&plan, "debian", &provenance)
        };
        let given = [(Kind::Kubelet, Value::Null), (Kind::Cluster, Value::Null)];
        let plan = cluster_plan().with_configurations(Configurations(given.into()));
        let configured = super::tested(&plan, "debian", &provenance);
        let what = "; the user's KubeletConfiguration merged in; component settings: idle";
        assert!(configured.contains(what), "{configured}");
        insta::assert_snapshot!(tested(Accelerator::Tcg), @"by-hand/nftables/routes on debian, kubernetes 1.36.4 from modules; kube-proxy from ./out/kube-proxy (sha256 0123abcd); component settings: idle (docs/idle.md)");
        insta::assert_snapshot!(tested(Accelerator::Kvm(KvmProcessor::HOST)), @"by-hand/nftables/routes on debian, kubernetes 1.36.4 from modules; kube-proxy from ./out/kube-proxy (sha256 0123abcd); component settings: own defaults");
    }

    use proptest::prelude::*;

    proptest! {
        /// Whatever machine and however many clones on it.
        #[test]
        fn nextest_ends_no_scenario_of_the_catalogue_before_it_ends_itself(
            speed_factor in 0.1_f64..=100.0,
            clones in 1_u32..64,
            repeat in 1_u32..100,
        ) {
            let speed_factor = speed_factor * f64::from(clones);
            let limits = Limits { speed_factor, repeat };
            let catalogue = podwire_scenarios::all();
            let nextests = longest(limits, catalogue.iter());
            for scenario in &catalogue {
                let own = limits.scenario(scenario.limit);
                prop_assert!(own + limits.evidence() < nextests, "{}", scenario.name);
            }
        }
    }
}
