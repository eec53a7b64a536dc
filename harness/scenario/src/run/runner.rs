//! From nextest's command line to a result file.

use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::bail;
use libtest_mimic::{Arguments, Failed, Trial};
use podwire_cluster::Host;
use podwire_process::{Spawner, plain, watch_ancestors};
use rustix::process::Pid;

use crate::run::attempt::Attempt;
use crate::run::context::{ANCESTOR_VARIABLE, CellContext};
use crate::run::page;
use crate::run::program;
use crate::run::result::{Outcome, ScenarioResult};
use crate::run::stopping::INTERRUPTED;
use crate::scenario::Scenario;

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
