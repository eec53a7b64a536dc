//! `cargo xtask test`: the main job, phase by phase.

use std::collections::BTreeMap;
use std::path::Path;

use podwire_cluster::{Cell, ClusterPlan, Host, Settings, Stage};
use podwire_images::{NodeImage, host};
use podwire_process::{kill_descendants, plain};
use podwire_scenario::bare::{self, RunFolder};
use podwire_scenario::{Programs, Scenario};
use podwire_scenarios::measurements::measurements;
use time::OffsetDateTime;

use crate::command::cli::run::{AskedTests, TestArgs, WireMode};
use crate::command::session::Session;
use crate::command::{again, consent};
use crate::plan::durations::{self, Durations, ScenarioTime};
use crate::plan::forecast::Forecast;
use crate::plan::outline::Plan;
use crate::plan::phase::Phase;
use crate::prepare::pod_network::{Given, Shape};
use crate::prepare::preparation::{Judged, Preparation};
use crate::prepare::space::Demand;
use crate::prepare::{node_tree, parts};
use crate::report::merge::{self, Extent, Merged, Seen, Unfinished};
use crate::report::results::{self, NOT_SET_UP, Results, ScenarioRecord};
use crate::report::whole::{self, Whole};
use crate::report::{breaks, files, summary};
use crate::run::nextest::{self, Ended, Nextest};
use crate::run::order::{CellOrder, MEASURED_AT_ONCE, Order};
use crate::run::pace::Pace;
use crate::run::programs::{self, Found};
use crate::run::suite::{self, CutShort, ENDING, Suite};
use crate::run::{build, look, prepare_only};
use crate::say::progress;
use crate::say::stop::Stop;

/// The whole command.
pub(crate) fn test(session: &Session, args: &TestArgs, catalogue: &[Scenario]) -> Result<(), Stop> {
    let found = match &args.tests {
        Some(asked) => {
            let order = parts::bundle_order(session, &args.sources)?;
            Some(programs::find(session, asked, &order)?)
        }
        None => None,
    };
    let own = found.as_ref().map(|found| found.scenarios(session));
    let own = own.or_else(|| args.measure.then(measurements));
    let catalogue = own.as_deref().unwrap_or(catalogue);
    let measured = Durations::load(session.cache.root());
    session.progress.phase("looking at what is there");
    let packages = host::Host::detect(&session.spawner).plan(false);
    let looked = Order::take(session, args, catalogue).and_then(|order| {
        let (plan, uses) = look::look(session, &order, &packages)?;
        Ok((order, plan, uses))
    });
    session.progress.idle();
    let (order, plan, uses) = looked?;
    out!("{}", plan.render(&measured));
    if args.prepare_only {
        outln!("{}", prepare_only::SAID);
    }
    let shortages = plan.shortages();
    if args.plan {
        for shortage in shortages {
            outln!("{shortage}");
        }
        return Ok(());
    }
    if !shortages.is_empty() {
        return Err(Stop::setup(shortages.join("\n")));
    }
    consent::packages(&packages, args.yes)?;
    let demand = Demand {
        needed: plan.disk_needed(),
        uses: &uses,
    };
    demand.make_room(session)?;
    if args.prepare_only {
        return prepare_only::prepare(session, &order, &packages, Forecast::of(&plan, &measured));
    }

    let run_dir = session.workspace.new_run(OffsetDateTime::now_utc())?;
    for order in &order.cells {
        bare::new_cell(&run_dir, order.cell)?;
    }
    let mut pace = Pace::new(plan.expected(&measured), plan.at_once);
    let forecast = Forecast::of(&plan, &measured);
    let mut run = Run::new(session, &order, plan, run_dir)?;
    run.preparation.forecast = Some(forecast);
    run.found = found;
    let done = run.all(&packages, &mut pace);
    run.report(done)
}

/// A run under way.
struct Run<'a> {
    session: &'a Session,
    order: &'a Order<'a>,
    plan: Plan,
    preparation: Preparation<'a>,
    run_dir: RunFolder,
    /// What there is beside what the preparation knows, see [`Run::told`].
    results: Results,
    /// What nextest saw of each cell's scenarios.
    seen: BTreeMap<Cell, BTreeMap<String, Seen>>,
    /// When a person ended the run.
    cut_short: Option<Cut>,
    /// The user's programs, if these are the scenarios.
    found: Option<Found>,
    /// The same with what they need.
    programs: Option<Programs>,
}

/// Where a person ended a run, and how.
struct Cut {
    cell: Cell,
    how: CutShort,
    /// The scenarios of that cell which had died before.
    died: Vec<String>,
}

impl Cut {
    /// How much of a cell's run there was: of one that had ended by itself before, `ran`, all of it. Whatever
    /// has no result there has died.
    fn extent<'a>(&'a self, cell: Cell, ran: bool, reason: &'a str) -> Extent<'a> {
        match cell == self.cell {
            false if ran => Extent::Whole,
            here => Extent::CutShort(Unfinished {
                reason,
                died: if here { &self.died } else { &[] },
            }),
        }
    }
}

/// What `results.json` says while the run goes on, and of one that nobody let end.
const UNFINISHED: &str = "the run was under way; what ended it left no time to say more";
/// Why a scenario has no result then.
const NOT_RUN_YET: &str = "not run, or not to its end";

/// How the phases ended.
enum Done {
    /// All of them ran; the scenarios' results are on disk.
    Ran,
    /// The harness's own tests failed, so no scenario ran.
    Untrusted,
}

impl<'a> Run<'a> {
    /// One of which nothing has been done yet.
    fn new(
        session: &'a Session,
        order: &'a Order<'a>,
        plan: Plan,
        run_dir: RunFolder,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            session,
            order,
            plan,
            preparation: Preparation::new(session, order.wanted()),
            run_dir,
            results: Results {
                accelerator: "not judged yet".into(),
                accelerator_reason: None,
                speed_factor: 0.0,
                component_settings: None,
                kubernetes: order.bundle.kubernetes.clone(),
                provenance: order.bundle.provenance(),
                system: order.system.to_string(),
                pod_network: order.pod_network.as_ref().and_then(Given::network),
                pod_images: order
                    .pod_network
                    .as_ref()
                    .map_or_else(Vec::new, Given::images),
                cluster_dns: order.wanted().cluster_dns,
                node_files: order.node_files.as_ref().map(node_tree::Given::about),
                configurations: order.configured(None)?,
                nodes: order.args.nodes,
                shard: order.shard.as_ref().map(|(shard, _)| shard.to_string()),
                whole: order.shard.as_ref().map(|(_, scenarios)| Whole {
                    podwire: session.workspace.revision(&session.spawner),
                    arguments: whole::common_arguments(again::typed()),
                    scenarios: scenarios.clone(),
                }),
                inputs: BTreeMap::new(),
                repeat: order.args.repeat,
                image: None,
                package_differences: Vec::new(),
                unsettled_stages: Vec::new(),
                error: None,
                phases: Vec::new(),
                harness_tests: Vec::new(),
                left_out: order.left_out.clone(),
                scenarios: Vec::new(),
                broken: None,
            },
            seen: BTreeMap::new(),
            cut_short: None,
            found: None,
            programs: None,
        })
    }

    /// Every phase, in order.
    fn all(&mut self, packages: &host::Plan, pace: &mut Pace) -> Result<Done, Stop> {
        let session = self.session;
        self.leave_so_far(None);
        let given = self.order.pod_network.as_ref();
        self.preparation.pull(given)?;
        self.preparation.packages(packages)?;
        let nextest = self.preparation.nextest()?;
        let judged = self.preparation.judge()?;
        let verdict = &judged.verdict;
        self.results.accelerator = verdict.accelerator.to_string();
        self.results.accelerator_reason = Some(verdict.reason.clone());
        self.results.speed_factor = verdict.speed_factor;
        self.results.component_settings = Some(Settings::of(verdict.accelerator).to_string());
        self.results.configurations = self.order.configured(Some(verdict.accelerator))?;
        self.plan.machine.accelerator = Some(verdict.accelerator);
        let node = self.preparation.node_image()?;
        self.results.image = Some(node.manifest.name.clone());
        let built = match &self.order.args.tests {
            Some(AskedTests::Conformance) => Some(self.preparation.conformance_tests()?),
            Some(AskedTests::Folder(_)) | None => None,
        };
        let own = self.found.take().zip(self.preparation.bundle.as_ref());
        self.programs = own.map(|(found, bundle)| found.ready(bundle, built.as_ref()));
        let kube_router = match self.order.has_kube_router() {
            true => Some(self.preparation.kube_router()?),
            false => None,
        };
        let given = self.order.pod_network.as_ref();
        let brought = self.preparation.brought(given)?;
        let shape = Shape::on(&node, given, brought.as_ref())?;
        self.results.inputs = whole::inputs(
            &node.manifest,
            (shape.manifest.as_ref(), shape.images.as_ref()),
            self.order.node_files.as_ref().map(|given| &given.tree),
            &self.order.configurations.all,
        );
        self.leave_so_far(None);
        let log = self.run_dir.join("build.log");
        self.preparation.programs(|| build::build(session, &log))?;
        if self.order.harness_tests {
            let good = self.phase(Phase::HarnessTests, |run| {
                Ok((run.harness_tests(&nextest, &judged, &node)?, false))
            })?;
            if !good {
                return Ok(Done::Untrusted);
            }
        }
        if self.order.scenarios().is_empty() {
            return Ok(Done::Ran);
        }
        let host = self.preparation.host(&judged);
        let logs = self.run_dir.join("stages");
        let orders = self
            .order
            .stages(session, &node, host.accelerator, &shape)?;
        let console = self.run_dir.join("layer");
        let image = self
            .preparation
            .layer(&host, &node, brought.as_ref(), &console)?;
        let stages = self.preparation.stages(&host, &image, &orders, &logs)?;
        self.leave_so_far(None);
        let clusters: Vec<(&CellOrder, &ClusterPlan, Vec<Stage>)> = self
            .order
            .cells
            .iter()
            .filter(|cell| cell.has_any())
            .zip(orders.iter().zip(stages))
            .map(|(cell, (order, stages))| (cell, &order.plan, stages))
            .collect();
        self.phase(Phase::Scenarios, |run| {
            for (order, plan, stages) in clusters {
                let programs = (&*nextest, kube_router.as_deref());
                run.scenarios(order, plan, &stages, programs, &host, pace)?;
                // A person who wants to end the run does not mean one cluster of it.
                if run.cut_short.is_some() {
                    break;
                }
            }
            Ok(((), false))
        })?;
        Ok(Done::Ran)
    }

    /// The scenarios of one cell; the programs are nextest, and kube-router where one starts it.
    fn scenarios(
        &mut self,
        order: &CellOrder,
        plan: &ClusterPlan,
        stages: &[Stage],
        (nextest, kube_router): (&Path, Option<&Path>),
        host: &Host,
        pace: &mut Pace,
    ) -> Result<(), Stop> {
        let session = self.session;
        let suite = Suite {
            session,
            nextest,
            kube_router,
            host,
            plan,
            at_once: match self.order.args.measure {
                true => MEASURED_AT_ONCE,
                false => suite::at_once(plan)?,
            },
            broken: self.order.args.broken,
            catalogue: self.order.catalogue,
            programs: self.programs.as_ref(),
            keep: self.order.args.keep.then_some(&*self.run_dir),
            repeat: self.order.args.repeat,
            strict_wire: self.order.args.wire == Some(WireMode::Strict),
            system: &self.results.system,
            provenance: &self.results.provenance,
            again: &again::command(self.order.args, order.cell),
        };
        self.plan.at_once = suite.at_once;
        if self.order.cells.len() > 1 {
            session
                .progress
                .phase(&format!("{}, {}", Phase::Scenarios.name(), order.cell));
        }
        let cell_dir = bare::cell_dir(&self.run_dir, order.cell);
        suite.context(stages)?.write(&cell_dir)?;
        let names = &order.selection.scenarios;
        let ran = suite.run(&cell_dir, names, pace, &mut |died| {
            self.leave_so_far(Some((order.cell, died)));
        })?;
        self.preparation.waited(ran.waited);
        let (cell, died) = (order.cell, ran.died);
        self.cut_short = ran.cut_short.map(|how| Cut { cell, how, died });
        self.seen.insert(order.cell, ran.seen);
        match ran.ended {
            Ended::Passed | Ended::TestsFailed => Ok(()),
            // Told to end before it could listen.
            Ended::Broken if self.cut_short.is_some() => Ok(()),
            Ended::Broken => Err(Stop::setup(
                "nextest could not run the scenarios; its words are above",
            )),
        }
    }

    /// Times one phase; what it does returns whether the cache had its result.
    fn phase<T>(
        &mut self,
        phase: Phase,
        work: impl FnOnce(&mut Self) -> Result<(T, bool), Stop>,
    ) -> Result<T, Stop> {
        let begun = self.preparation.begin(phase);
        let done = work(self);
        self.preparation.end(begun, done)
    }

    /// Runs the harness's own tests, on the small base image, and looks into the node image; whether
    /// all is as it should be.
    fn harness_tests(
        &mut self,
        program: &Path,
        judged: &Judged,
        node: &NodeImage,
    ) -> Result<bool, Stop> {
        self.session
            .progress
            .step("running the harness's own tests");
        let all = self.tests_on(program, judged, &judged.base, nextest::harness_tests())?;
        self.session.progress.step("looking into the node image");
        let facts = self.tests_on(program, judged, node, nextest::image_facts())?;
        Ok(all && facts)
    }

    /// Runs tests of the harness in machines of this image; whether all passed.
    fn tests_on(
        &mut self,
        program: &Path,
        judged: &Judged,
        image: &NodeImage,
        filterset: String,
    ) -> Result<bool, Stop> {
        let key = self.session.cache.ssh_keys(&self.session.progress)?.user;
        let text = |path: &Path| path.display().to_string();
        let nextest = Nextest {
            program: program.to_owned(),
            workspace: self.session.workspace.root.clone(),
            profile: nextest::HARNESS,
            store: self.run_dir.join("harness").join(&image.manifest.recipe),
            settings: String::new(),
            filterset,
            at_once: (self.plan.machine.cores / 2).max(1),
            env: vec![
                ("PODWIRE_TEST_IMAGE".into(), text(&image.dir)),
                ("PODWIRE_SSH_KEY".into(), text(&key)),
                (
                    "PODWIRE_ACCELERATOR".into(),
                    judged.verdict.accelerator.id(),
                ),
                ("PODWIRE_QEMU".into(), text(&judged.programs.qemu)),
                ("PODWIRE_QEMU_IMG".into(), text(&judged.programs.qemu_img)),
            ],
        };
        let good = self.harness_tests_by(&nextest, &image.manifest.recipe);
        if matches!(good, Err(Stop::Interrupted)) {
            kill_descendants();
        }
        good
    }

    /// The same by this nextest, and what the image is called. The first Ctrl-C ends the tests, but not this
    /// process: what has passed is told.
    fn harness_tests_by(&mut self, nextest: &Nextest, recipe: &str) -> Result<bool, Stop> {
        let interrupted = self.session.interrupts.expect();
        let ended = nextest.run(self.session, || {
            if interrupted.has_come() {
                self.session.progress.step(ENDING);
            }
        })?;
        if interrupted.has_come() {
            // It may have had no time to tell.
            let (seen, ended) = (nextest.seen().unwrap_or_default(), CutShort::AtWork);
            let records = merge::harness_tests_until(recipe, &seen, &ended.to_string());
            self.results.harness_tests.extend(records);
            return Err(Stop::Interrupted);
        }
        if ended == Ended::Broken {
            return Err(Stop::setup(
                "nextest could not run the harness's tests; its words are above",
            ));
        }
        let records = merge::harness_tests(recipe, &nextest.seen()?, ended.is_good());
        let good = records
            .iter()
            .all(|it| it.outcome == results::Verdict::Passed);
        self.results.harness_tests.extend(records);
        self.leave_so_far(None);
        Ok(good)
    }

    /// What is to be told, but of the scenarios.
    fn told(&self) -> Results {
        let Preparation {
            phases,
            package_differences,
            unsettled,
            ..
        } = &self.preparation;
        Results {
            phases: phases.clone(),
            package_differences: package_differences.clone(),
            unsettled_stages: unsettled.clone(),
            ..self.results.clone()
        }
    }

    /// Writes what there is while the run goes on: whatever ends it leaves that, whole. Of the cell
    /// under way, if there is one, these scenarios have died.
    fn leave_so_far(&self, under_way: Option<(Cell, &[String])>) {
        let extent = |cell| match self.seen.contains_key(&cell) {
            true => Extent::Whole,
            false => Extent::UnderWay(Unfinished {
                reason: NOT_RUN_YET,
                died: match under_way {
                    Some((here, died)) if cell == here => died,
                    _ => &[],
                },
            }),
        };
        let results = Results {
            error: Some(UNFINISHED.to_owned()),
            scenarios: records(self.order, &self.run_dir, &self.seen, extent),
            ..self.told()
        };
        // What cannot be written now is tried again, at the end for the last time.
        if let Err(error) = files::write(&self.run_dir, &results) {
            let said = format!("the results so far are not kept: {error:#}");
            self.session.progress.line(&said);
        }
    }

    /// Writes the results and says the same in short.
    fn report(mut self, done: Result<Done, Stop>) -> Result<(), Stop> {
        self.results = self.told();
        let ran = self
            .results
            .phases
            .iter()
            .any(|phase| phase.name == Phase::Scenarios.name());
        let aborted = match &done {
            Ok(Done::Ran) => None,
            Ok(Done::Untrusted) => Some("the harness's own tests failed".to_owned()),
            // Whatever ran has left its results.
            Err(_) if ran => None,
            Err(Stop::Setup(_)) => Some(NOT_SET_UP.to_owned()),
            Err(Stop::Interrupted) => Some(CutShort::AtWork.to_string()),
            Err(stop) => Some(
                stop.words()
                    .unwrap_or_else(|| "an earlier phase failed".to_owned()),
            ),
        };
        self.results.error = match &done {
            Ok(Done::Ran) => None,
            Err(stop @ (Stop::Setup(_) | Stop::Usage(_))) => {
                stop.words().map(|words| plain::text(&words))
            }
            _ => aborted.clone(),
        };
        let cut = self.cut_short.as_ref();
        let cut = cut.map(|cut| (cut, cut.how.to_string()));
        let extent = |cell| match (&aborted, &cut) {
            (Some(reason), _) => Extent::Nothing(reason),
            (None, Some((cut, reason))) => cut.extent(cell, self.seen.contains_key(&cell), reason),
            (None, None) => Extent::Whole,
        };
        self.results.scenarios = records(self.order, &self.run_dir, &self.seen, extent);
        let broken = self.order.args.broken.filter(|_| done.is_ok());
        self.results.broken = broken
            .map(|broken| breaks::judge(broken, self.order.catalogue, &self.results.scenarios));
        files::write(&self.run_dir, &self.results)?;
        self.remember_scenarios()?;
        if let (Some(broken), Some(verdict)) = (broken, &self.results.broken) {
            out!("\n{}", breaks::report(broken, verdict));
        }
        out!(
            "{}",
            summary::render(
                &self.results,
                &self
                    .session
                    .workspace
                    .shown(&self.session.workspace.latest())
            )
        );
        for line in self.order.starved.lines() {
            outln!("{line}");
        }
        done?;
        if matches!(&self.cut_short, Some(cut) if cut.how == CutShort::AtWork) {
            return Err(Stop::Interrupted);
        }
        if self
            .results
            .good(self.order.args.strict || progress::is_ci())
        {
            Ok(())
        } else {
            Err(Stop::Failed)
        }
    }

    /// For the next plan; what failed may have ended early, and says nothing, as what was broken.
    fn remember_scenarios(&mut self) -> anyhow::Result<()> {
        if self.order.args.broken.is_some() {
            return Ok(());
        }
        let accelerator = self.plan.machine.accelerator;
        let repeat = self.order.args.repeat;
        for record in &self.results.scenarios {
            if record.outcome == results::Verdict::Passed {
                let measured = &mut self.preparation.measured;
                let name = durations::on_cell(&record.name, &record.cell);
                let time = ScenarioTime::seen(record.seconds, repeat, &record.parts);
                measured.set_scenario(&name, accelerator, time);
            }
        }
        self.preparation.measured.store(self.session.cache.root())
    }
}

/// What became of the scenarios of all cells, each of which has run as far as `extent` says.
fn records<'a>(
    order: &Order<'_>,
    run_dir: &Path,
    seen: &BTreeMap<Cell, BTreeMap<String, Seen>>,
    extent: impl Fn(Cell) -> Extent<'a>,
) -> Vec<ScenarioRecord> {
    let of_cell = |cell: &CellOrder| {
        let merged = Merged {
            run_dir,
            cell: cell.cell,
            selection: &cell.selection,
            seen: seen.get(&cell.cell),
            sabotaged: order.args.broken.is_none(),
        };
        let mut records = merge::merge(order.catalogue, &merged, extent(cell.cell));
        let failed = records.iter_mut();
        for record in failed.filter(|it| it.outcome == results::Verdict::Failed) {
            let again = again::command(order.args, cell.cell);
            record.again = Some(format!("{again} --filter {}", record.name));
        }
        records
    };
    order.cells.iter().flat_map(of_cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::cli::{Cli, Command};
    use crate::plan::fixture::scenario;
    use crate::plan::outline;
    use crate::plan::phase::PhaseRecord;
    use clap::Parser as _;
    use podwire_cluster::Bootstrap;
    use std::time::Duration;
    use std::{fs, thread};

    /// A run on one cluster, of which nothing has been done.
    fn with_a_run(then: impl FnOnce(Run<'_>)) -> (Results, String) {
        let dir = tempfile::tempdir().unwrap();
        let session = Session::below(dir.path());
        let words = ["xtask", "test", "--bootstrap", "by-hand"];
        let Command::Test(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("it is no run");
        };
        let catalogue = [scenario("every_pair")];
        let order = Order::take(&session, &args, &catalogue).unwrap();
        let run_dir = session
            .workspace
            .new_run(OffsetDateTime::UNIX_EPOCH)
            .unwrap();
        let mut run = Run::new(&session, &order, outline::tests::fresh(), run_dir).unwrap();
        run.preparation.phases = vec![PhaseRecord {
            name: "stage".into(),
            seconds: 1.0,
            cached: false,
        }];
        run.preparation.package_differences = vec!["runc 1.1.15 -> 1.1.16".into()];
        run.preparation.unsettled = vec!["the stage workload had not settled".into()];
        run.results.harness_tests = crate::report::fixture::results().harness_tests;
        then(run);
        let read = |name: &str| fs::read_to_string(session.workspace.latest().join(name)).unwrap();
        let all = ["results.json", "junit.xml", "report.html"].map(read);
        (serde_json::from_str(&all[0]).unwrap(), all.concat())
    }

    /// What both a run under way and one that has ended tell of what was prepared.
    fn has_what_was_prepared(results: &Results) {
        assert_eq!(results.phases[0].name, "stage");
        assert_eq!(results.package_differences, ["runc 1.1.15 -> 1.1.16"]);
        let unsettled = ["the stage workload had not settled"];
        assert_eq!(results.unsettled_stages, unsettled);
        assert_eq!(results.harness_tests[0].name, "machine::boots");
    }

    #[test]
    fn what_is_there_while_a_run_goes_on_has_all_that_was_prepared_and_no_verdict_more() {
        let (results, page) = with_a_run(|run| run.leave_so_far(None));
        has_what_was_prepared(&results);
        assert_eq!(results.error.as_deref(), Some(UNFINISHED));
        let record = &results.scenarios[0];
        assert_eq!(record.outcome, results::Verdict::Skipped);
        assert_eq!(record.reason, NOT_RUN_YET);
        assert!(page.contains(UNFINISHED), "{page}");
    }

    #[test]
    fn who_ends_a_run_before_its_scenarios_has_a_report_that_says_so() {
        let (results, page) = with_a_run(|run| {
            let ended = run.report(Err(Stop::Interrupted));
            assert!(matches!(ended, Err(Stop::Interrupted)), "{ended:?}");
        });
        has_what_was_prepared(&results);
        assert_eq!(results.error.as_deref(), Some("ended by Ctrl-C"));
        assert_eq!(results.scenarios[0].reason, "ended by Ctrl-C");
        assert!(page.contains("It did not come to its end: ended by Ctrl-C"));
    }

    #[test]
    fn what_had_died_before_somebody_ended_the_run_has_failed() {
        let outcome = |cut: fn(Cell) -> Cell, died: &[&str]| {
            let (results, _) = with_a_run(|mut run| {
                let own = run.order.cells[0].cell;
                run.preparation.phases[0].name = Phase::Scenarios.name().into();
                run.seen.insert(own, BTreeMap::new());
                run.cut_short = Some(Cut {
                    cell: cut(own),
                    how: CutShort::AtWork,
                    died: died.iter().map(ToString::to_string).collect(),
                });
                let ended = run.report(Ok(Done::Ran));
                assert!(matches!(ended, Err(Stop::Interrupted)), "{ended:?}");
            });
            results.scenarios[0].outcome
        };
        let another = |cell| Cell {
            bootstrap: Bootstrap::Kubeadm,
            ..cell
        };
        let [failed, skipped] = [results::Verdict::Failed, results::Verdict::Skipped];
        // In another cell, which had come to its end; in this one, and before that.
        assert_eq!(outcome(another, &[]), failed);
        assert_eq!(outcome(|own| own, &["every_pair"]), failed);
        assert_eq!(outcome(|own| own, &["another"]), skipped);
    }

    /// Says that it is ready; told to end, what became of two tests until then.
    const NEXTEST: &str = r#"
# A shell traps no signal that was ignored when it began, as in a job of another one.
[ "$AGAIN" ] || AGAIN=1 exec env --default-signal=INT bash "$0"
trap 'echo "<testsuites name=\"n\"><testsuite name=\"t\" tests=\"2\" failures=\"1\" errors=\"0\">
<testcase name=\"had_passed\" classname=\"t\"/>
<testcase name=\"was_at_work\" classname=\"t\"><failure message=\"SIGINT\"/></testcase>
</testsuite></testsuites>" >"$STORE/nextest.xml"; exit 100' INT
echo >"$STORE/ready"
while :; do sleep 0.05; done
"#;

    #[test]
    fn who_ends_the_harness_s_tests_loses_no_verdict_of_those_that_had_passed() {
        let dir = tempfile::tempdir().unwrap();
        // As bash sees it: the script that is called as nextest's first argument.
        fs::write(dir.path().join("nextest"), NEXTEST).unwrap();
        let nextest = Nextest {
            program: "/bin/bash".into(),
            workspace: dir.path().to_owned(),
            profile: nextest::HARNESS,
            store: dir.path().to_owned(),
            settings: String::new(),
            filterset: nextest::harness_tests(),
            at_once: 1,
            env: vec![("STORE".into(), dir.path().display().to_string())],
        };
        let ready = dir.path().join("ready");
        let (results, _) = with_a_run(|mut run| {
            let interrupts = run.session.interrupts.clone();
            let person = thread::spawn(move || {
                // Two minutes: only what hangs comes so far.
                for _ in 0..6000 {
                    match ready.exists() {
                        true => break,
                        false => thread::sleep(Duration::from_millis(20)),
                    }
                }
                interrupts.was_expected()
            });
            run.results.harness_tests.clear();
            let done = run.harness_tests_by(&nextest, "base");
            assert!(matches!(done, Err(Stop::Interrupted)), "{done:?}");
            assert!(person.join().unwrap());
            let ended = run.report(done.map(|_| Done::Ran));
            assert!(matches!(ended, Err(Stop::Interrupted)), "{ended:?}");
        });
        assert_eq!(results.error.as_deref(), Some("ended by Ctrl-C"));
        let tests = results.harness_tests.iter();
        let tests: Vec<_> = tests.map(|it| (it.name.as_str(), it.outcome)).collect();
        let passed = ("had_passed (base image)", results::Verdict::Passed);
        let ended = ("was_at_work (base image)", results::Verdict::Skipped);
        assert_eq!(tests, [passed, ended]);
    }

    #[test]
    fn a_mirrors_password_is_in_no_file_of_a_run() {
        let tail = "the end of its log:\nGET http://user:s3cret@m.example/b\u{1b}[2J";
        let step = anyhow::anyhow!(tail).context("cannot fetch http://user:s3cret@m.example/a");
        for stop in [Stop::Setup(step), Stop::Usage(tail.into())] {
            let (results, files) = with_a_run(|run| drop(run.report(Err(stop))));
            let error = results.error.unwrap();
            assert!(
                error.contains(r"http://***@m.example/b\u001b[2J"),
                "{error}"
            );
            assert!(!files.contains("s3cret"), "{files}");
        }
    }
}
