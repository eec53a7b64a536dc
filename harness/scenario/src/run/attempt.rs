//! One attempt at a scenario: its labs, from the stage to the verdict.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use podwire_access::{AccessError, Door, Served};
use podwire_admission::{Admission, AdmissionError, Claim, Ticket};
use podwire_cluster::{Cluster, Host, Stage};
use podwire_process::{Report, plain};
use tokio::signal::unix::{SignalKind, signal};

use crate::check::assert;
use crate::check::reading::Reading;
use crate::lab::Lab;
use crate::run::cases::Case;
use crate::run::caught::{self, caught};
use crate::run::context::{ANCESTOR_VARIABLE, CELL_VARIABLE, CellContext, HEALTHY_VARIABLE, Share};
use crate::run::ending::Ending;
use crate::run::page::{self, Page};
use crate::run::place::Queue;
use crate::run::program::{Place, Programs};
use crate::run::proof::{Effect, NotInjected, Proof, Uncaught};
use crate::run::result::{
    Outcome, PREPARATION, PhaseTime, Processors, SABOTAGE, ScenarioResult, StepTime,
};
use crate::run::stopping::{Stop, Stopping};
use crate::scenario::{Sabotage, Scenario};

/// The stage that a scenario's preparation makes, in the attempt's folder.
const PREPARED: &str = "prepared";

/// For a node of a kept cluster to accept a connection, before stretching.
const CONNECT: Duration = Duration::from_secs(10);

/// One attempt at a scenario, in a process of its own.
pub(super) struct Attempt {
    pub(super) scenario: Scenario,
    pub(super) cell_dir: PathBuf,
    /// Its own, in the cell's.
    pub(super) folder: PathBuf,
    pub(super) attempt: u32,
    pub(super) context: CellContext,
    pub(super) host: Host,
}

impl Attempt {
    /// Waits until the machine carries one more cluster, and says how long that was, if at all.
    pub(super) async fn admitted(&self) -> Result<(Ticket, Option<PhaseTime>), AdmissionError> {
        let Share {
            folder,
            slots,
            clone_mib,
            keep_free_mib,
        } = &self.context.share;
        let claim = Claim {
            what: self.scenario.name.to_owned(),
            slots: *slots,
            memory_mib: *clone_mib,
            keep_free_mib: *keep_free_mib,
        };
        let queue = Queue::at(&self.folder);
        let ticket = Admission::at(folder)?.enter(&claim, &queue).await?;
        Ok((ticket, queue.left()))
    }

    /// The result; and the lab that it was found in, when that is to be kept.
    pub(super) async fn carry_out(
        &self,
        waited: Option<PhaseTime>,
    ) -> (ScenarioResult, Option<Lab>) {
        let started = Instant::now();
        let stop = Stopping::listen(self.limit());
        let mut record = Record {
            phases: Vec::from_iter(waited),
            cases: Vec::new(),
        };
        let mut proofs = Vec::new();

        let stage = self.stage(&stop, &mut record.phases).await;
        let (main, mut kept) = match &stage {
            Ok(stage) => self.main(stage, &stop, &mut record).await,
            Err(_) => (Ok(()), None),
        };
        if let (Ok(stage), Err(error)) = (&stage, &main)
            && kept.is_none()
            && self.has_twin(error, &stop)
        {
            let twin = self.twin(stage, &stop, &mut record.phases);
            caught::leave(&self.folder, "what a healthy clone has", twin).await;
        }
        let (main, stage) = match stage {
            Ok(stage) => (main, Some(stage)),
            Err(error) => (Err(error), None),
        };
        let verdict = match (main, &stage) {
            (Ok(()), Some(stage)) if self.context.broken.is_none() => {
                for sabotage in self.scenario.sabotages {
                    let (proof, lab) = self.sabotage(sabotage, stage, &stop, &mut record).await;
                    proofs.push(proof);
                    kept = lab;
                    // No second cluster beside the one that a person is to look at.
                    if kept.is_some() {
                        break;
                    }
                }
                Uncaught::among(&proofs).map_err(anyhow::Error::from)
            }
            (verdict, _) => verdict,
        };
        if self.scenario.prepare.is_some() && kept.is_none() {
            // Gigabytes that nobody needs any more.
            let _ = fs::remove_dir_all(self.folder.join(PREPARED));
        }

        let evidence = verdict.is_err().then(|| self.folder.join(page::EVIDENCE));
        let unsettled = stage.as_ref().and_then(|stage| {
            let manifest = &stage.manifest;
            manifest.not_settled(self.context.plan.cell)
        });
        let reason = verdict
            .as_ref()
            .err()
            .map_or(String::new(), |error| plain::text(&format!("{error:#}")));
        let ids = self.scenario.ids();
        let page = Page {
            name: self.scenario.name,
            about: self.scenario.about,
            covers: &ids,
            verdict: &verdict,
            proofs: &proofs,
            broken: self.context.broken,
            unsettled: unsettled.as_deref(),
            tested: &self.context.tested,
            again: &self.context.again,
            folder: &self.folder,
        };
        if page.is_worth_reading() {
            // A page that cannot be written must not hide the failure that it is about.
            let written =
                async { anyhow::Ok(fs::write(self.folder.join(page::FILE), page.text())?) };
            caught::leave(&self.folder, "the first page", written).await;
        }
        let result = ScenarioResult {
            name: self.scenario.name.to_owned(),
            attempt: self.attempt,
            outcome: if verdict.is_ok() {
                Outcome::Passed
            } else {
                Outcome::Failed
            },
            reason,
            seconds: started.elapsed().as_secs_f64(),
            sabotages: proofs.iter().map(Proof::result).collect(),
            phases: record.phases,
            cases: record.cases,
            wire: page::stood_out(&self.folder),
            readings: match verdict {
                Ok(()) => Reading::read(&self.folder),
                Err(_) => Vec::new(),
            },
            evidence: evidence
                .filter(|folder| folder.exists())
                .map(|folder| relative(&folder, &self.cell_dir)),
        };
        (result, kept)
    }

    /// The scenario itself, as often as the run repeats it, until it fails.
    async fn main(
        &self,
        stage: &Stage,
        stop: &Stopping,
        record: &mut Record,
    ) -> (anyhow::Result<()>, Option<Lab>) {
        let all = self.context.repeat;
        for number in 1..=all {
            let role = Role::Main(Round { number, all });
            let (verdict, lab) = self.in_a_lab(role, stage, stop, record).await;
            if let Err(error) = verdict {
                let which = match role.round() {
                    Some(round) => error.context(round),
                    None => error,
                };
                return (Err(which), lab);
            }
        }
        (Ok(()), None)
    }

    async fn sabotage(
        &self,
        sabotage: &Sabotage,
        stage: &Stage,
        stop: &Stopping,
        record: &mut Record,
    ) -> (Proof, Option<Lab>) {
        let role = Role::Sabotage(sabotage);
        let (verdict, lab) = self.in_a_lab(role, stage, stop, record).await;
        let proof = Proof {
            sabotage: *sabotage,
            effect: Effect::of(sabotage, &verdict),
        };
        (proof, lab)
    }

    /// Runs one function in a clone of its own, and leaves evidence when a scenario fails in it.
    /// The lab is given back running when it is to be kept.
    async fn in_a_lab(
        &self,
        role: Role<'_>,
        stage: &Stage,
        stop: &Stopping,
        record: &mut Record,
    ) -> (anyhow::Result<()>, Option<Lab>) {
        let dir = self.folder.join(match role {
            // One after the other, in the same folder.
            Role::Main(_) => page::LAB.to_owned(),
            Role::Sabotage(sabotage) => page::sabotage_lab(sabotage.name),
        });
        let cloning = Instant::now();
        let cluster = tokio::select! {
            cluster = self.clone_stage(stage, &dir) => cluster,
            stopped = stop.come() => Err(self.cut_short(stopped)),
        };
        let cluster = match cluster {
            Ok(cluster) => cluster,
            Err(error) => return (Err(error), None),
        };
        record
            .phases
            .push(phase(&format!("{role}: clone"), cloning));

        let running = Instant::now();
        let lab = self.lab(cluster, &dir, role.round());
        let main = matches!(role, Role::Main(_));
        let program = self.program(&dir).filter(|_| main);
        let verdict = match &program {
            Some(place) => {
                let cases = &mut record.cases;
                self.passes(place, &lab, stage, stop, cases).await
            }
            None => {
                let run = async {
                    match role {
                        Role::Main(_) => {
                            judged(&lab, &self.scenario, stage).await?;
                            self.readings(&lab)
                        }
                        Role::Sabotage(sabotage) => {
                            sabotaged(&lab, &self.scenario, stage, sabotage).await
                        }
                    }
                };
                self.carried_out(run, &lab, stop).await
            }
        };
        let processors = processors_of(&lab);
        record.phases.push(PhaseTime {
            processors,
            longest: StepTime::longest(&lab.steps(), lab.age()),
            ..phase(&format!("{role}: run"), running)
        });
        if let Role::Sabotage(sabotage) = role {
            let injected = lab.injected_at().unwrap_or(running);
            record
                .phases
                .push(phase(&PhaseTime::to_red(sabotage.name), injected));
        }

        let verdict = match role {
            Role::Main(_) => self.what_stood_out(&lab, verdict).await,
            Role::Sabotage(_) => verdict,
        };
        if main {
            match &verdict {
                Ok(()) => self.leave(&lab, "the timeline", self.timeline(&lab)).await,
                Err(error) => self.collect(&lab, error).await,
            }
        }
        let failed = match role {
            Role::Main(_) => verdict.is_err(),
            Role::Sabotage(sabotage) => {
                !matches!(Effect::of(sabotage, &verdict), Effect::Caught(_))
            }
        };
        if failed {
            tell(processors, &lab);
        }
        if failed && self.context.keep.is_some() && !stop.is_terminated() {
            return (verdict, Some(lab));
        }
        lab.stop().await;
        if !failed {
            // Only what somebody has to look into is worth its disk.
            let _ = fs::remove_dir_all(&dir);
        }
        (verdict, None)
    }

    /// Drives something in a lab to its end, or to what ends it before.
    pub(super) async fn carried_out(
        &self,
        run: impl Future<Output = anyhow::Result<()>>,
        lab: &Lab,
        stop: &Stopping,
    ) -> anyhow::Result<()> {
        tokio::select! {
            verdict = caught("the scenario", run) => verdict,
            why = self.cut(lab, stop) => Err(why),
        }
    }

    /// Resolves when something has to end that is done in a lab.
    async fn cut(&self, lab: &Lab, stop: &Stopping) -> anyhow::Error {
        tokio::select! {
            fault = lab.cluster().faulted() => anyhow!("{fault}").context("a machine failed"),
            stopped = stop.come() => self.cut_short(stopped),
        }
    }

    /// Runs a program of the user's in the place of the scenario's function. What cuts it short tells it.
    async fn passes(
        &self,
        place: &Place<'_>,
        lab: &Lab,
        stage: &Stage,
        stop: &Stopping,
        cases: &mut Vec<Case>,
    ) -> anyhow::Result<()> {
        cases.clear();
        let ready = async {
            place.clear()?;
            begins(lab, &self.scenario, stage).await
        };
        self.carried_out(ready, lab, stop).await?;
        let passes = place.passes(lab, self.cut(lab, stop), cases);
        caught("the scenario", passes).await
    }

    /// Serves the lab of a failed scenario in the run's folder until a signal ends it: `cargo xtask
    /// ssh` and the like reach it. One run serves one lab; another that fails meanwhile ends as usual.
    pub(super) async fn hold(&self, lab: Lab, run_dir: &Path, reason: &str) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut ending = Ending::listen()?;
        let served = self.served(format!(
            "scenario {}, which failed: {}",
            self.scenario.name,
            reason
                .lines()
                .next()
                .unwrap_or_default()
                .trim_end_matches(':')
        ));
        match Door::open(lab.cluster(), run_dir, &served) {
            Ok(_door) => {
                lab.step("kept for a look, until Ctrl-C");
                tokio::select! {
                    _ = interrupt.recv() => {}
                    () = ending.come() => {}
                }
            }
            Err(AccessError::Taken { .. }) => lab.step("not kept: one is kept already"),
            Err(error) => lab.step(format!("cannot be kept: {error}")),
        }
        lab.stop().await;
        Ok(())
    }

    fn served(&self, what: String) -> Served {
        Served {
            what,
            user_key: self.context.ssh_key.clone(),
            limit: self.host.limit(CONNECT),
        }
    }

    /// The program of the user's that the scenario is, with its lab in `lab`; nothing for others.
    fn program<'a>(&'a self, lab: &'a Path) -> Option<Place<'a>> {
        let Programs { programs, kubectl } = self.context.programs.as_ref()?;
        Some(Place {
            program: programs.get(self.scenario.name)?,
            kubectl,
            spawner: &self.host.spawner,
            hidden: &[CELL_VARIABLE, ANCESTOR_VARIABLE, HEALTHY_VARIABLE],
            served: self.served(format!("scenario {}", self.scenario.name)),
            lab,
            attempt: &self.folder,
        })
    }

    /// What the scenario and its sabotages are clones of: the stage that it names, or what its
    /// preparation makes of that.
    async fn stage(&self, stop: &Stopping, phases: &mut Vec<PhaseTime>) -> anyhow::Result<Stage> {
        let stage = self
            .context
            .stages
            .get(&self.scenario.stage)
            .with_context(|| {
                let stages = self.context.stages.keys().map(ToString::to_string);
                format!(
                    "the run has no stage `{}`, only {}; `cargo xtask test --filter {}` builds it",
                    self.scenario.stage,
                    stages.collect::<Vec<_>>().join(", "),
                    self.scenario.name
                )
            })?;
        let stage = Stage::open(stage)?.as_of(&self.context.plan);
        let Some(prepare) = self.scenario.prepare else {
            return Ok(stage);
        };
        let preparing = Instant::now();
        let logs = self.folder.join(page::PREPARATION);
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let (dir, broken) = (self.folder.join(PREPARED), self.context.broken);
        let (cluster, thawed) = tokio::select! {
            thawed = stage.thawed(&self.host, &dir, &logs, broken, &Told) => thawed?,
            stopped = stop.come() => return Err(self.cut_short(stopped)),
        };
        let lab = self.lab(cluster, &logs, None);
        let prepared = async {
            lab.begins_as(&stage.manifest).await?;
            prepare(&lab).await.context("the preparation failed")
        };
        if let Err(error) = self.carried_out(prepared, &lab, stop).await {
            let processors = processors_of(&lab);
            self.collect(&lab, &error).await;
            tell(processors, &lab);
            lab.stop().await;
            return Err(error);
        }
        lab.step("freeze what was prepared");
        let prepared = tokio::select! {
            prepared = thawed.freeze(&self.host, lab.into_cluster(), &Told) => prepared?,
            stopped = stop.come() => return Err(self.cut_short(stopped)),
        };
        phases.push(phase(PREPARATION, preparing));
        Ok(prepared)
    }

    pub(super) fn lab(&self, cluster: Cluster, dir: &Path, about: Option<String>) -> Lab {
        let kube_router = self.context.kube_router.clone();
        Lab::new(cluster, &self.host, dir, about, kube_router)
    }

    async fn clone_stage(&self, stage: &Stage, dir: &Path) -> anyhow::Result<Cluster> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cluster = Cluster::clone_of(&self.host, stage, dir, self.context.broken).await?;
        Ok(cluster)
    }

    pub(super) fn cut_short(&self, stop: Stop) -> anyhow::Error {
        match stop {
            Stop::Limit => anyhow!(
                "the scenario's limit of {:.0} s has passed",
                self.limit().as_secs_f64()
            ),
            Stop::Terminated => anyhow!("the scenario was told to end (SIGTERM or SIGHUP)"),
        }
    }

    /// For all runs of the scenario and its sabotages.
    fn limit(&self) -> Duration {
        self.context.limits().scenario(self.scenario.limit)
    }
}

/// What an attempt comes to tell of beside its verdict.
struct Record {
    phases: Vec<PhaseTime>,
    /// Of a program of the user's, in its last run.
    cases: Vec<Case>,
}

/// Tells beside the scenario's own steps what it waits for.
struct Told;

impl Report for Told {
    fn step(&self, what: &str) {
        eprintln!("{}", plain::text(what));
    }

    fn waiting(&self, what: &str) {
        eprintln!("waiting for {}", plain::text(what));
    }
}

/// Runs the scenario; nothing restarts meanwhile. Where it begins without an API server, there is
/// nothing yet that could.
pub(super) async fn judged(lab: &Lab, scenario: &Scenario, stage: &Stage) -> anyhow::Result<()> {
    if !scenario.measures.is_empty() {
        lab.hear_no_rule_changes().await?;
    }
    let has = scenario.stage.has(lab.cluster().plan().cell);
    if !has.api_server {
        return (scenario.run)(lab).await;
    }
    begins(lab, scenario, stage).await?;
    let before = lab.restarts().await?;
    (scenario.run)(lab).await?;
    Ok(assert::nothing_restarted(&before, &lab.restarts().await?)?)
}

/// What the scenario's stage promises is there. What a preparation has left was looked at before that.
async fn begins(lab: &Lab, scenario: &Scenario, stage: &Stage) -> anyhow::Result<()> {
    match scenario.prepare {
        Some(_) => Ok(()),
        None => lab.begins_as(&stage.manifest).await,
    }
}

/// Injects the fault, then checks: only what fails from there on can be the fault's doing.
async fn sabotaged(
    lab: &Lab,
    scenario: &Scenario,
    stage: &Stage,
    sabotage: &Sabotage,
) -> anyhow::Result<()> {
    let injected = async {
        begins(lab, scenario, stage).await?;
        (sabotage.inject)(lab).await
    };
    let injected = injected.await;
    injected.map_err(|error| NotInjected(format!("{error:#}")))?;
    lab.injected();
    (sabotage.check)(lab).await
}

/// What is run in a lab.
#[derive(Clone, Copy)]
enum Role<'a> {
    /// The scenario itself.
    Main(Round),
    /// One of its sabotages.
    Sabotage(&'a Sabotage),
}

/// Which of how many runs of a scenario in fresh clones, from 1.
#[derive(Clone, Copy)]
struct Round {
    number: u32,
    all: u32,
}

impl Role<'_> {
    /// Which run of a scenario it is that is repeated.
    fn round(self) -> Option<String> {
        match self {
            Self::Main(Round { number, all }) if all > 1 => Some(format!("run {number} of {all}")),
            Self::Main(_) | Self::Sabotage(_) => None,
        }
    }
}

/// As a phase of the result is named.
impl fmt::Display for Role<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main(Round { number: 1, .. }) => f.write_str(page::LAB),
            Self::Main(Round { number, .. }) => write!(f, "{} {number}", page::LAB),
            Self::Sabotage(sabotage) => write!(f, "{SABOTAGE}{}", sabotage.name),
        }
    }
}

/// Of its machines so far.
fn processors_of(lab: &Lab) -> Option<Processors> {
    lab.cluster().scheduled().map(Processors::of)
}

/// For who reads the steps of what failed.
fn tell(processors: Option<Processors>, lab: &Lab) {
    if let Some(processors) = processors {
        lab.step(processors.to_string());
    }
}

pub(super) fn phase(name: &str, started: Instant) -> PhaseTime {
    PhaseTime {
        name: name.to_owned(),
        seconds: started.elapsed().as_secs_f64(),
        processors: None,
        longest: Vec::new(),
    }
}

fn relative(path: &Path, base: &Path) -> PathBuf {
    path.strip_prefix(base).unwrap_or(path).to_owned()
}
