//! From nextest's command line to a result file.

use std::fmt;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use podwire_access::{AccessError, Door, Served};
use podwire_admission::{Admission, AdmissionError, Claim, Ticket};
use podwire_cluster::{Cluster, Host, Stage};
use podwire_process::{Report, Spawner, plain, watch_ancestors};
use rustix::process::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::check::assert;
use crate::check::failure::Failure;
use crate::check::network::State;
use crate::check::reading::{Reading, mistaken};
use crate::check::twin::{Twin, compared, is_past};
use crate::check::wire;
use crate::lab::Lab;
use crate::run::account::Account;
use crate::run::cases;
use crate::run::caught::{self, caught};
use crate::run::context::{
    self, ANCESTOR_VARIABLE, CELL_VARIABLE, CellContext, HEALTHY_VARIABLE, Share,
};
use crate::run::ending::Ending;
use crate::run::page::{self, Page};
use crate::run::place::Queue;
use crate::run::program::{self, Place, Programs};
use crate::run::proof::{Effect, NotInjected, Proof, Uncaught};
use crate::run::result::{
    Outcome, PREPARATION, PhaseTime, Processors, SABOTAGE, ScenarioResult, StepTime,
};
use crate::scenario::{Sabotage, Scenario};

/// Exit status of a process that went because it was told to, not because of what it saw.
const INTERRUPTED: i32 = 130;

/// The stage that a scenario's preparation makes, in the attempt's folder.
const PREPARED: &str = "prepared";

/// The lab of a healthy clone, in the attempt's folder.
const TWIN_LAB: &str = "twin-lab";

/// From one look at a healthy clone's steps to the next.
const LOOK: Duration = Duration::from_millis(50);

/// For a node of a kept cluster to accept a connection, before stretching.
const CONNECT: Duration = Duration::from_secs(10);

/// Lists or runs scenarios the way libtest does, which is what nextest speaks. One that belongs to no
/// run uses what the newest run in the folder `workspace` has prepared.
pub fn run_main(scenarios: Vec<Scenario>, workspace: &Path) -> ExitCode {
    // What the segment and the machines warn of belongs beside the step log that nextest keeps.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .init();
    let scenarios = match CellContext::programs_of_run() {
        // One may well be called like a scenario.
        Ok(Some(own)) => program::scenarios(&own.programs),
        Ok(None) => scenarios,
        Err(error) => {
            eprintln!("{:#}", anyhow::Error::from(error));
            return ExitCode::FAILURE;
        }
    };
    let trials = scenarios
        .into_iter()
        .map(|scenario| {
            let workspace = workspace.to_owned();
            Trial::test(scenario.name, move || {
                let done = with_room(|| execute(scenario, &workspace));
                done.map_err(|error| Failed::from(plain::text(&format!("{error:#}"))))
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Without optimisation a future is as large as all that it awaits together, and whoever polls it has copies on
/// its stack. The two MiB that a test's thread has by default were too little for the deepest waits.
const STACK: usize = 64 << 20;

/// Does this with a stack of its own.
fn with_room(work: impl FnOnce() -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("scenario".into());
        let thread = thread.stack_size(STACK).spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

fn execute(scenario: Scenario, workspace: &Path) -> anyhow::Result<()> {
    let (cell_dir, context, _own) = CellContext::find(&scenario, workspace)?;
    let attempt = std::env::var("NEXTEST_ATTEMPT")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(1);
    let (folder, _in_use) = ScenarioResult::begin(&cell_dir, scenario.name, attempt)?;

    let ancestors: Vec<Pid> = std::env::var(ANCESTOR_VARIABLE)
        .ok()
        .and_then(|pid| Pid::from_raw(pid.parse().ok()?))
        .into_iter()
        .chain(rustix::process::getppid())
        .collect();
    // The QEMUs carry a parent-death signal: leaving is all there is to do.
    watch_ancestors(&ancestors, || std::process::exit(INTERRUPTED))?;

    let host = Host {
        spawner: Spawner::start()?,
        qemu: context.qemu.clone(),
        qemu_img: context.qemu_img.clone(),
        accelerator: context.accelerator,
        speed_factor: context.speed_factor,
        tsc_khz: podwire_vm::clock::tsc_khz(),
    };
    let attempt = Attempt {
        scenario,
        cell_dir,
        folder,
        attempt,
        context,
        host,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // Before the scenario's limit begins to run.
    let (_ticket, waited) = runtime.block_on(attempt.admitted())?;
    let (result, kept) = runtime.block_on(attempt.carry_out(waited));
    // Before anybody looks at the cluster for an hour.
    result.write(&attempt.cell_dir)?;
    if let (Some(lab), Some(run_dir)) = (kept, &attempt.context.keep) {
        runtime.block_on(attempt.hold(lab, run_dir, &result.reason))?;
    }
    match result.outcome {
        Outcome::Passed => Ok(()),
        Outcome::Failed => bail!(
            "{}\nfirst page: {}",
            result.reason,
            attempt.folder.join(page::FILE).display()
        ),
    }
}

/// Why a run in a lab was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Its own limit has passed.
    Limit,
    /// nextest asks it to end, see [`Ending`].
    Terminated,
}

/// Tells when an attempt must end. While it lives, SIGINT ends the process at once.
struct Stopping {
    told: watch::Receiver<Option<Stop>>,
    listening: AbortHandle,
}

impl Stopping {
    async fn come(&self) -> Stop {
        let mut told = self.told.clone();
        match told.wait_for(Option::is_some).await {
            Ok(stop) => stop.unwrap_or(Stop::Terminated),
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether it must end now.
    fn is_told(&self) -> bool {
        self.told.borrow().is_some()
    }

    /// Whether whoever started this process wants it to end.
    fn is_terminated(&self) -> bool {
        *self.told.borrow() == Some(Stop::Terminated)
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

struct Attempt {
    scenario: Scenario,
    cell_dir: PathBuf,
    /// Its own, in the cell's.
    folder: PathBuf,
    attempt: u32,
    context: CellContext,
    host: Host,
}

impl Attempt {
    /// Waits until the machine carries one more cluster, and says how long that was, if at all.
    async fn admitted(&self) -> Result<(Ticket, Option<PhaseTime>), AdmissionError> {
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
    async fn carry_out(&self, waited: Option<PhaseTime>) -> (ScenarioResult, Option<Lab>) {
        let started = Instant::now();
        let stop = self.stopping();
        let mut phases = Vec::from_iter(waited);
        let mut proofs = Vec::new();

        let stage = self.stage(&stop, &mut phases).await;
        let (main, mut kept) = match &stage {
            Ok(stage) => self.main(stage, &stop, &mut phases).await,
            Err(_) => (Ok(()), None),
        };
        if let (Ok(stage), Err(error)) = (&stage, &main)
            && kept.is_none()
            && self.has_twin(error, &stop)
        {
            let twin = self.twin(stage, &stop, &mut phases);
            caught::leave(&self.folder, "what a healthy clone has", twin).await;
        }
        let (main, stage) = match stage {
            Ok(stage) => (main, Some(stage)),
            Err(error) => (Err(error), None),
        };
        let verdict = match (main, &stage) {
            (Ok(()), Some(stage)) if self.context.broken.is_none() => {
                for sabotage in self.scenario.sabotages {
                    let (proof, lab) = self.sabotage(sabotage, stage, &stop, &mut phases).await;
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
            phases,
            // One that cannot be read has failed its scenario.
            cases: cases::read(&self.folder.join(program::JUNIT))
                .ok()
                .flatten()
                .unwrap_or_default(),
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
        phases: &mut Vec<PhaseTime>,
    ) -> (anyhow::Result<()>, Option<Lab>) {
        let all = self.context.repeat;
        for number in 1..=all {
            let role = Role::Main(Round { number, all });
            let (verdict, lab) = self.in_a_lab(role, stage, stop, phases).await;
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

    /// Whether a second clone may tell something of this failure: it is a verdict on the cluster, and there is time
    /// left. What programs of the user's do cannot be followed step by step.
    fn has_twin(&self, error: &anyhow::Error, stop: &Stopping) -> bool {
        let verdict = error.downcast_ref::<Failure>().is_some();
        verdict && !stop.is_told() && self.context.programs.is_none()
    }

    /// The same stage of the comparison's base, where this is the head and the base has it still. One that a
    /// preparation makes is nobody's before.
    fn stage_of_base(&self) -> Option<Stage> {
        let run = std::env::var_os(HEALTHY_VARIABLE)?;
        let cell_dir = Path::new(&run).join(self.cell_dir.file_name()?);
        let context = CellContext::read(&cell_dir).ok()?;
        let stage = context.stages.get(&self.scenario.stage);
        let stage = stage.filter(|_| self.scenario.prepare.is_none())?;
        Some(Stage::open(stage).ok()?.as_of(&context.plan))
    }

    /// Has another clone do the same until it has passed the step at which the first one failed, and leaves in what
    /// the nodes of both are unlike: one of the comparison's base, or a second one of the same stage.
    async fn twin(
        &self,
        stage: &Stage,
        stop: &Stopping,
        phases: &mut Vec<PhaseTime>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let of_base = self.stage_of_base();
        let (whose, stage) = match &of_base {
            Some(of_base) => ("a clone of the base", of_base),
            None => ("a second clone", stage),
        };
        let steps = Account::read(&self.folder)?.steps;
        let steps: Vec<String> = steps.into_iter().map(|step| step.text).collect();
        let (dir, folder) = (self.folder.join(TWIN_LAB), self.folder.join(page::TWIN));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cluster = tokio::select! {
            cluster = Cluster::clone_of(&self.host, stage, &dir, None) => cluster?,
            stopped = stop.come() => return Err(self.cut_short(stopped)),
        };
        let lab = self.lab(cluster, &dir, Some(page::TWIN.to_owned()));
        let run = judged(&lab, &self.scenario, stage);
        let ended = tokio::select! {
            ended = self.carried_out(run, &lab, stop) => ended,
            () = past(&lab, &steps) => Ok(()),
        };
        let evidence = self.context.limits().evidence();
        if ended.is_ok() {
            let network = lab.cluster().network_evidence(&folder);
            // What is there when the limit passes has to do.
            let _ = tokio::time::timeout(evidence, network).await;
        }
        let nodes: Vec<String> = lab.nodes().map(|node| node.name().to_owned()).collect();
        lab.stop().await;
        // Only what its nodes have said is worth its disk.
        let _ = fs::remove_dir_all(&dir);
        let evidence = self.folder.join(page::EVIDENCE);
        let of_both = nodes.into_iter().map(|node| {
            let [failed, healthy] = [&evidence, &folder].map(|it| State::read(&it.join(&node)));
            (node, failed, healthy)
        });
        let (unlike, unheard) = match ended {
            Ok(()) => compared(of_both),
            Err(_) => Default::default(),
        };
        let twin = Twin {
            whose: whose.to_owned(),
            step: steps.last().cloned().unwrap_or_default(),
            unlike,
            unheard,
            failed: ended.err().map(|error| plain::text(&format!("{error:#}"))),
        };
        phases.push(phase(page::TWIN, began));
        Ok(context::write(&self.folder.join(Twin::FILE), &twin)?)
    }

    async fn sabotage(
        &self,
        sabotage: &Sabotage,
        stage: &Stage,
        stop: &Stopping,
        phases: &mut Vec<PhaseTime>,
    ) -> (Proof, Option<Lab>) {
        let role = Role::Sabotage(sabotage);
        let (verdict, lab) = self.in_a_lab(role, stage, stop, phases).await;
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
        phases: &mut Vec<PhaseTime>,
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
        phases.push(phase(&format!("{role}: clone"), cloning));

        let running = Instant::now();
        let lab = self.lab(cluster, &dir, role.round());
        let main = matches!(role, Role::Main(_));
        let run = async {
            match role {
                Role::Main(_) => match self.program(&dir) {
                    Some(place) => {
                        begins(&lab, &self.scenario, stage).await?;
                        place.passes(&lab).await
                    }
                    None => {
                        judged(&lab, &self.scenario, stage).await?;
                        self.readings(&lab)
                    }
                },
                Role::Sabotage(sabotage) => sabotaged(&lab, &self.scenario, stage, sabotage).await,
            }
        };
        let verdict = self.carried_out(run, &lab, stop).await;
        let processors = processors_of(&lab);
        phases.push(PhaseTime {
            processors,
            longest: StepTime::longest(&lab.steps(), lab.age()),
            ..phase(&format!("{role}: run"), running)
        });
        if let Role::Sabotage(sabotage) = role {
            let injected = lab.injected_at().unwrap_or(running);
            phases.push(phase(&PhaseTime::to_red(sabotage.name), injected));
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
    async fn carried_out(
        &self,
        run: impl Future<Output = anyhow::Result<()>>,
        lab: &Lab,
        stop: &Stopping,
    ) -> anyhow::Result<()> {
        tokio::select! {
            verdict = caught("the scenario", run) => verdict,
            fault = lab.cluster().faulted() => Err(anyhow!("{fault}").context("a machine failed")),
            stopped = stop.come() => Err(self.cut_short(stopped)),
        }
    }

    /// Serves the lab of a failed scenario in the run's folder until a signal ends it: `cargo xtask
    /// ssh` and the like reach it. One run serves one lab; another that fails meanwhile ends as usual.
    async fn hold(&self, lab: Lab, run_dir: &Path, reason: &str) -> anyhow::Result<()> {
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

    /// Leaves the evidence of a failure. It never changes the verdict.
    async fn collect(&self, lab: &Lab, error: &anyhow::Error) {
        let evidence = async {
            self.evidence(lab, error).await;
            Ok(())
        };
        self.leave(lab, "the evidence", evidence).await;
    }

    /// Leaves each part of it, as far as it gets.
    async fn evidence(&self, lab: &Lab, error: &anyhow::Error) {
        let account = Account::of(self.scenario.about, error, lab.steps(), lab.age());
        // Collecting takes a while: whoever watches learns of the failure at once.
        lab.step(format!("failed: {error:#}"));
        let limit = self.context.limits().evidence();
        let nodes = async { anyhow::Ok(lab.leave_node_troubles(&self.folder).await?) };
        let cluster = async {
            let folder = self.folder.join(page::EVIDENCE);
            lab.cluster().evidence(&folder).await;
            Ok(())
        };
        let all = futures::future::join4(
            self.leave(lab, "the timeline", self.timeline(lab)),
            self.leave(lab, "what stands out on the nodes", nodes),
            self.leave(lab, "the failure as data", self.account(lab, account)),
            self.leave(lab, "what the nodes have to say", cluster),
        );
        // What is there when the limit passes has to do.
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Leaves one part of what is to be read; what is lost of it is a step as well.
    async fn leave(&self, lab: &Lab, what: &str, part: impl Future<Output = anyhow::Result<()>>) {
        if let Some(lost) = caught::leave(&self.folder, what, part).await {
            lab.step(lost);
        }
    }

    /// Leaves what stood out on the wire. Where the run wants nothing to, what has passed fails by it.
    async fn what_stood_out(&self, lab: &Lab, verdict: anyhow::Result<()>) -> anyhow::Result<()> {
        let strict = self.context.strict_wire && verdict.is_ok();
        let told = async { lab.wire().leave_what_stood_out(&self.folder) };
        match caught("whoever reads the capture", told).await {
            Ok(Some(told)) if strict => Err(wire::too_unusual(&told).into()),
            Err(error) if strict => Err(error),
            Ok(_) => verdict,
            Err(error) => {
                let lost = async { Err(error) };
                self.leave(lab, "what stood out on the wire", lost).await;
                verdict
            }
        }
    }

    /// Leaves what it saw as data, then once more with what a lost packet met, which a node has to tell.
    async fn account(&self, lab: &Lab, mut account: Account) -> anyhow::Result<()> {
        let mut written = account.write(&self.folder);
        let lost = account.pairs.as_ref().and_then(|pairs| pairs.lost.clone());
        if let Some(trace) = lost {
            account.met = lab.met(&trace).await;
            written = account.write(&self.folder);
        }
        Ok(written?)
    }

    /// Leaves what a measurement has read in the attempt's folder, once that is all.
    fn readings(&self, lab: &Lab) -> anyhow::Result<()> {
        let (metrics, taken) = (self.scenario.measures, lab.readings());
        if let Some(wrong) = mistaken(metrics, &taken) {
            bail!("{wrong}");
        }
        if metrics.is_empty() {
            return Ok(());
        }
        Reading::write(&taken, &self.folder).context("cannot keep the readings")
    }

    /// Leaves the timeline of the traffic that the lab had, if it had any.
    async fn timeline(&self, lab: &Lab) -> anyhow::Result<()> {
        Ok(lab.leave_timeline(&self.folder).await?)
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

    fn lab(&self, cluster: Cluster, dir: &Path, about: Option<String>) -> Lab {
        let kube_router = self.context.kube_router.clone();
        Lab::new(cluster, &self.host, dir, about, kube_router)
    }

    async fn clone_stage(&self, stage: &Stage, dir: &Path) -> anyhow::Result<Cluster> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cluster = Cluster::clone_of(&self.host, stage, dir, self.context.broken).await?;
        Ok(cluster)
    }

    fn cut_short(&self, stop: Stop) -> anyhow::Error {
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

    fn stopping(&self) -> Stopping {
        let (sender, told) = watch::channel(None);
        let limit = self.limit();
        let listening = tokio::spawn(async move {
            let (Ok(mut ending), Ok(mut interrupt)) =
                (Ending::listen(), signal(SignalKind::interrupt()))
            else {
                return;
            };
            let stop = tokio::select! {
                () = tokio::time::sleep(limit) => Stop::Limit,
                () = ending.come() => Stop::Terminated,
                _ = interrupt.recv() => std::process::exit(INTERRUPTED),
            };
            // The attempt may have ended by itself meanwhile.
            let _ = sender.send(Some(stop));
            interrupt.recv().await;
            std::process::exit(INTERRUPTED);
        });
        Stopping {
            told,
            listening: listening.abort_handle(),
        }
    }
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

/// Returns when a lab has passed the last of these steps of another one's.
async fn past(lab: &Lab, steps: &[String]) {
    loop {
        let done: Vec<String> = lab.steps().into_iter().map(|(_, step)| step).collect();
        if is_past(&done, steps) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Runs the scenario; nothing restarts meanwhile. Where it begins without an API server, there is
/// nothing yet that could.
async fn judged(lab: &Lab, scenario: &Scenario, stage: &Stage) -> anyhow::Result<()> {
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

fn phase(name: &str, started: Instant) -> PhaseTime {
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
