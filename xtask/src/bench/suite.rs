//! `cargo xtask bench suite`: scenarios on clones of cached stages, beside the same scenarios with one
//! cluster from nothing each.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use podwire_cluster::{Bootstrap, Cell, ImageFiles, Stage, StageName, Stages};
use podwire_images::image::ImageFrom;
use podwire_images::tools;
use podwire_scenario::Scenario;
use serde::Serialize;
use time::OffsetDateTime;

use crate::command::cli::house::BenchSuiteArgs;
use crate::command::consent;
use crate::command::session::Session;
use crate::plan::{capacity, select};
use crate::prepare::preparation::Preparation;
use crate::prepare::wanted::{StageOrder, Wanted};
use crate::prepare::{machine, parts, tickets};
use crate::report::merge::Seen;
use crate::run::build;
use crate::run::nextest::Ended;
use crate::run::pace::Pace;
use crate::run::suite::{self, Ran, Suite};
use crate::say::stop::Stop;
use crate::say::text::table;

/// Short ones, from different stages.
const SAMPLE: &str = "api_server_names,pods_see_own_addresses,outside_host";

/// What was measured, in seconds of the host's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SuiteBench {
    pub(crate) accelerator: String,
    pub(crate) cores: usize,
    pub(crate) nodes: u32,
    /// How many clones ran beside each other; clusters from nothing are made one after the other.
    pub(crate) at_once: usize,
    /// All scenarios on clones, nextest's own time included.
    pub(crate) clones_s: f64,
    /// All scenarios' `cold_s`; nextest's own time is not in it.
    pub(crate) cold_s: f64,
    pub(crate) cold_over_clones: f64,
    pub(crate) scenarios: Vec<Timed>,
}

/// One scenario, sabotages included: they run on clones either way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Timed {
    pub(crate) name: String,
    /// Its process, when the stage is cached.
    pub(crate) clone_s: f64,
    /// Every stage up to its own, made from nothing, and then its process.
    pub(crate) cold_s: f64,
}

/// Measures, and prints a table or JSON.
pub(crate) fn suite(
    session: &Session,
    args: &BenchSuiteArgs,
    catalogue: &[Scenario],
    json: bool,
) -> Result<(), Stop> {
    let filter = args.filter.as_deref().unwrap_or(SAMPLE);
    let measured = on_stages(
        session,
        catalogue,
        filter,
        args.nodes,
        |bench, chosen, cached| bench.measure(chosen, cached),
    )?;
    if json {
        let text = serde_json::to_string_pretty(&measured).context("cannot write JSON")?;
        outln!("{text}");
    } else {
        out!("{}", shown(&measured));
    }
    Ok(())
}

/// Prepares all that the scenarios of a filter need in a cluster by hand, and measures them.
pub(crate) fn on_stages<T>(
    session: &Session,
    catalogue: &[Scenario],
    filter: &str,
    nodes: u32,
    measure: impl FnOnce(&Bench<'_>, &[&Scenario], &[Stage]) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let chosen = select::choose(catalogue, Some(filter), None)
        .map_err(|unknown| Stop::Usage(unknown.to_string()))?;
    let by_hand = Cell::usual(Bootstrap::ByHand);
    if let Some(other) = chosen.iter().find(|scenario| !scenario.fits(by_hand)) {
        let name = other.name;
        return Err(Stop::Usage(format!(
            "{name} is not for a cluster of {by_hand}"
        )));
    }
    if let Some(larger) = chosen.iter().find(|scenario| scenario.nodes > nodes) {
        let (name, needed) = (larger.name, larger.nodes);
        return Err(Stop::Usage(format!("{name} needs --nodes {needed}")));
    }
    let bundle = parts::newest_modules(session)?;
    let wanted = Wanted::cluster(&bundle, nodes);
    consent::host_packages(session, false)?;
    let dir = session.workspace.new_folder(OffsetDateTime::now_utc())?;
    let mut preparation = Preparation::new(session, wanted);
    session.progress.phase("tools");
    let nextest = tools::nextest(&session.workshop());
    session.progress.idle();
    let nextest = nextest?;
    let judged = preparation.judge()?;
    let node = preparation.node_image()?;
    let kube_router = match chosen.iter().any(|scenario| scenario.kube_router) {
        true => Some(preparation.kube_router()?),
        false => None,
    };
    let host = preparation.host(&judged);
    let plan = wanted.cluster_plan(session, by_hand, &node, host.accelerator)?;
    session.progress.phase("test programs");
    let built = build::build(session, &dir.join("build.log"));
    session.progress.idle();
    built?;
    let mut names: Vec<StageName> = chosen.iter().map(|scenario| scenario.stage).collect();
    names.sort();
    names.dedup();
    let orders = [StageOrder {
        plan: plan.clone(),
        names,
    }];
    let cached = preparation.stages(
        &host,
        &parts::image_files(&node),
        &orders,
        &dir.join("stages"),
    )?;
    let cached = cached.concat();

    let system = ImageFrom::Debian.to_string();
    let bench = Bench {
        suite: Suite {
            session,
            nextest: &nextest,
            programs: None,
            kube_router: kube_router.as_deref(),
            host: &host,
            plan: &plan,
            at_once: suite::at_once(&plan)?,
            broken: None,
            catalogue,
            keep: None,
            repeat: 1,
            strict_wire: false,
            system: &system,
            provenance: &bundle.provenance(),
            again: &format!("cargo xtask test --bootstrap {}", by_hand.bootstrap),
        },
        image: parts::image_files(&node),
        dir: &dir,
    };
    let measured = measure(&bench, &chosen, &cached);
    session.progress.idle();
    measured
}

/// What scenarios are measured with.
pub(crate) struct Bench<'a> {
    pub(crate) suite: Suite<'a>,
    image: ImageFiles,
    dir: &'a Path,
}

impl Bench<'_> {
    fn measure(&self, chosen: &[&Scenario], cached: &[Stage]) -> Result<SuiteBench, Stop> {
        let progress = &self.suite.session.progress;
        progress.phase("on clones");
        let names: Vec<String> = chosen.iter().map(|it| it.name.to_owned()).collect();
        let on_clones = Instant::now();
        let clones = run(&self.suite, &self.folder("clones")?, &names, cached)?;
        let clones_s = on_clones.elapsed().as_secs_f64();
        let mut scenarios = Vec::new();
        for (number, scenario) in (1..).zip(chosen) {
            let name = scenario.name;
            progress.phase(&format!("cold {number} of {}, {name}", chosen.len()));
            scenarios.push(Timed {
                name: name.to_owned(),
                clone_s: seconds(&clones, name)?,
                cold_s: self.cold(scenario)?,
            });
        }
        let cold_s = scenarios.iter().map(|scenario| scenario.cold_s).sum();
        Ok(SuiteBench {
            accelerator: self.suite.host.accelerator.to_string(),
            cores: machine::cores(),
            nodes: self.suite.plan.nodes,
            at_once: self.suite.at_once,
            clones_s,
            cold_s,
            cold_over_clones: cold_s / clones_s,
            scenarios,
        })
    }

    /// A new folder of the run's.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.dir.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// One scenario with a cluster of its own, made from nothing; nothing of it stays.
    fn cold(&self, scenario: &Scenario) -> Result<f64, Stop> {
        let Suite {
            session,
            host,
            plan,
            ..
        } = self.suite;
        let name = scenario.name;
        let dir = self.folder(&format!("cold-{name}"))?;
        let scratch = session.cache.staging("bench")?;
        let guests = plan.memory_mib() << 20;
        let stages = scenario.stage.line(plan.cell).len() as u64;
        session
            .cache
            .require(capacity::disk_needed(guests, stages))?;
        let (stage, making) = {
            let _lock = session.cache.lock("stage", &session.progress)?;
            let _ticket = tickets::ticket(session, "bench suite", plan)?;
            let making = Instant::now();
            let stages = Stages::at(scratch.path());
            let (logs, report) = (dir.join("stages"), &session.progress);
            let get = stages.get(host, plan, &self.image, scenario.stage, &logs, report);
            let stage = session.wait_for(get).with_context(|| {
                let logs = logs.display();
                format!("the cluster did not come up; consoles are in {logs}")
            })?;
            (stage, making.elapsed().as_secs_f64())
            // Its process takes a ticket of its own.
        };
        let alone = Suite {
            at_once: 1,
            ..self.suite
        };
        let seen = run(&alone, &dir, &[name.to_owned()], &[stage])?;
        Ok(making + seconds(&seen, name)?)
    }
}

/// Runs scenarios in the cell's folder; all of them have to pass, else the times say nothing.
pub(crate) fn run(
    suite: &Suite<'_>,
    cell_dir: &Path,
    names: &[String],
    stages: &[Stage],
) -> Result<Ran, Stop> {
    suite.context(stages)?.write(cell_dir)?;
    let ran = suite.run(cell_dir, names, &mut Pace::default(), &mut |_| {})?;
    if ran.cut_short.is_some() {
        return Err(Stop::Interrupted);
    }
    match ran.ended {
        Ended::Passed => Ok(ran),
        Ended::TestsFailed => Err(Stop::setup(format!(
            "a scenario failed, so that its time says nothing; what it left is in {}",
            cell_dir.display()
        ))),
        Ended::Broken => Err(Stop::setup(
            "nextest could not run the scenarios; its words are above",
        )),
    }
}

/// How long a scenario's process took.
fn seconds(ran: &Ran, name: &str) -> anyhow::Result<f64> {
    let seen: Option<&Seen> = ran.seen.get(name);
    let seen = seen.with_context(|| format!("nextest has not seen {name}"))?;
    Ok(seen.seconds)
}

fn shown(bench: &SuiteBench) -> String {
    let row = |what: &str, clones: f64, cold: f64| {
        vec![
            what.to_owned(),
            format!("{clones:.1} s"),
            format!("{cold:.1} s"),
            format!("{:.1}", cold / clones),
        ]
    };
    let heads = ["", "on a clone", "cold cluster", "ratio"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let scenarios = bench.scenarios.iter();
    rows.extend(scenarios.map(|timed| row(&timed.name, timed.clone_s, timed.cold_s)));
    rows.push(row("all", bench.clones_s, bench.cold_s));
    format!(
        "{} nodes, {} on {} cores; clones at once: {}\n\n{}",
        bench.nodes,
        bench.accelerator,
        bench.cores,
        bench.at_once,
        table(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> SuiteBench {
        let timed = |name: &str, clone_s, cold_s| Timed {
            name: name.into(),
            clone_s,
            cold_s,
        };
        SuiteBench {
            accelerator: "tcg".into(),
            cores: 2,
            nodes: 3,
            at_once: 1,
            clones_s: 40.0,
            cold_s: 300.0,
            cold_over_clones: 7.5,
            scenarios: vec![
                timed("api_server_names", 18.04, 100.0),
                timed("outside_host", 20.0, 200.0),
            ],
        }
    }

    #[test]
    fn the_table_shows_each_scenario_and_all() {
        insta::assert_snapshot!(shown(&bench()), @"
        3 nodes, tcg on 2 cores; clones at once: 1

                          on a clone  cold cluster  ratio
        api_server_names  18.0 s      100.0 s       5.5
        outside_host      20.0 s      200.0 s       10.0
        all               40.0 s      300.0 s       7.5
        ");
    }

    #[test]
    fn json_has_the_documented_keys() {
        insta::assert_snapshot!(serde_json::to_string(&bench()).unwrap(), @r#"{"accelerator":"tcg","cores":2,"nodes":3,"at_once":1,"clones_s":40.0,"cold_s":300.0,"cold_over_clones":7.5,"scenarios":[{"name":"api_server_names","clone_s":18.04,"cold_s":100.0},{"name":"outside_host","clone_s":20.0,"cold_s":200.0}]}"#);
    }

    #[test]
    fn the_sample_is_in_the_catalogue() {
        let catalogue = podwire_scenarios::all();
        let chosen = select::choose(&catalogue, Some(SAMPLE), None).unwrap();
        let names: Vec<&str> = chosen.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SAMPLE.split(',').count());
        assert!(names.iter().all(|name| SAMPLE.contains(name)));
    }
}
