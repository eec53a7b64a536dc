//! `cargo xtask`: podwire's command line.
//!
//! Thin: the commands put together what the crates below do, show progress, and report.

#[macro_use]
mod say;

mod bench;
mod command;
mod house;
mod lab;
mod plan;
mod prepare;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser as _;
use podwire_images::image::ImageFrom;
use podwire_images::{image, tools};
use podwire_scenario::Profile;

use crate::bench::{clone, last_run, red, suite};
use crate::command::cli::{
    BenchTarget, BundleArgs, Cli, Command, ImageAction, ImageArgs, ImageBuildArgs, ScenariosArgs,
};
use crate::command::consent;
use crate::command::session::Session;
use crate::house::{check, clean, doctor, stages};
use crate::lab::{access, up};
use crate::plan::{scenarios, select};
use crate::prepare::parts::{self, NodeSystem};
use crate::prepare::preparation::Preparation;
use crate::prepare::wanted::Wanted;
use crate::run::test;
use crate::say::stop::{self, Stop};
use crate::say::text;

fn main() -> ExitCode {
    stop::end(run(Cli::parse().command))
}

/// The exit status: 0, or that of a command on a node.
fn run(command: Command) -> Result<u8, Stop> {
    match command {
        // These start no process: Ctrl-C ends them as it ends any program, or goes to the node.
        Command::Ssh(args) => return access::ssh(&args),
        Command::Console(args) => access::console(&args),
        Command::Kubectl(args) => return access::kubectl(&args),
        Command::Scenarios(args) => list(&args),
        Command::Test(args) => {
            test::test(&Session::start()?, &args, &podwire_scenarios::catalogue())
        }
        Command::Up(args) => up::up(&Session::start()?, &args),
        Command::Doctor(args) => doctor::doctor(&Session::start()?, &args),
        Command::Image(args) => build_image(&Session::start()?, &args),
        Command::Bundle(args) => build_bundle(&Session::start()?, &args),
        Command::Check => checks(&Session::start()?),
        Command::Stages(args) => stages::stages(&Session::start()?, &args),
        Command::Clean(args) => clean::clean(&Session::start()?, &args),
        Command::Bench(args) => match args.what {
            None => last_run::last_run(&Session::start()?.workspace.latest(), args.json),
            Some(BenchTarget::Switch) => last_run::segment_switch(args.json),
            Some(BenchTarget::Clone(what)) => clone::clone(&Session::start()?, &what, args.json),
            Some(BenchTarget::Red(what)) => {
                let catalogue = podwire_scenarios::catalogue();
                red::red(&Session::start()?, &what, &catalogue, args.json)
            }
            Some(BenchTarget::Suite(what)) => {
                let catalogue = podwire_scenarios::catalogue();
                suite::suite(&Session::start()?, &what, &catalogue, args.json)
            }
        },
    }
    .map(|()| 0)
}

fn list(args: &ScenariosArgs) -> Result<(), Stop> {
    let catalogue = podwire_scenarios::catalogue();
    let chosen = select::choose(&catalogue, args.filter.as_deref(), Some(Profile::Full))
        .map_err(|unknown| Stop::Usage(unknown.to_string()))?;
    if args.json {
        outln!("{}", scenarios::json(&chosen)?);
    } else {
        out!("{}", scenarios::text(&chosen));
    }
    Ok(())
}

fn checks(session: &Session) -> Result<(), Stop> {
    session.progress.phase("tools");
    let cargo_deny = tools::deny(&session.workshop());
    session.progress.idle();
    check::check_all(
        &session.spawner,
        &session.workspace.root,
        session.cache.root(),
        &cargo_deny?,
    )
}

fn build_bundle(session: &Session, args: &BundleArgs) -> Result<(), Stop> {
    let order = parts::bundle_order(session, &args.sources)?;
    consent::host_packages(session, args.yes)?;
    session.progress.phase("bundle");
    let bundle = podwire_images::bundle::get(&session.workshop(), &order);
    session.progress.idle();
    let bundle = bundle?;
    outln!("{}", order.provenance());
    outln!("{}", bundle.dir.display());
    for (path, file) in &bundle.manifest.files {
        outln!(
            "  {path}  {}  sha256 {}  {}",
            text::size(file.size),
            file.sha256,
            file.origin
        );
    }
    for (reference, image) in &bundle.manifest.images {
        outln!(
            "  {reference}  sha256 {}  pulled as {}",
            image.sha256,
            image.from
        );
    }
    Ok(())
}

fn build_image(session: &Session, args: &ImageArgs) -> Result<(), Stop> {
    let system = NodeSystem::take(session, args.from, &args.build.sources.config)?;
    consent::host_packages(session, args.build.yes)?;
    match args.action {
        Some(ImageAction::Bump) => bump(session, &system),
        None => node_image(session, &system, &args.build),
    }
}

fn node_image(session: &Session, system: &NodeSystem, args: &ImageBuildArgs) -> Result<(), Stop> {
    let order = parts::bundle_order(session, &args.sources)?;
    let workshop = session.workshop();
    let accelerator = match system.from {
        ImageFrom::Debian => None,
        // It is customised in a machine.
        ImageFrom::Ubuntu2404 => {
            let wanted = Wanted {
                yes: args.yes,
                locked: args.locked,
                ..Wanted::cluster(&order, 1)
            };
            let judged = Preparation::new(session, wanted).judge()?;
            Some(judged.verdict.accelerator)
        }
    };
    session.progress.phase("bundle");
    let bundle = podwire_images::bundle::get(&workshop, &order)?;
    session.progress.phase("node image");
    let outdated = consent::outdated(session, args.yes, args.locked);
    let request = image::ImageRequest {
        system: system.system(accelerator),
        recipe: image::NODE,
        bundle: Some(&bundle),
        outdated: outdated.as_request(),
    };
    let built = image::get(&workshop, &request);
    session.progress.idle();
    let built = built?;
    let manifest = &built.image.manifest;
    let how = if built.cached { "cached" } else { "built" };
    outln!(
        "{} ({how}, {} packages)",
        built.image.dir.display(),
        manifest.packages
    );
    outln!("{}", order.provenance());
    for difference in &manifest.differences {
        outln!("  not as locked: {difference}");
    }
    if !manifest.differences.is_empty() {
        outln!("`cargo xtask image bump` moves the lock");
    }
    Ok(())
}

fn bump(session: &Session, system: &NodeSystem) -> Result<(), Stop> {
    let (locks, what): (&[(&str, &str)], _) = match system.from {
        ImageFrom::Debian => (
            &[(image::BASE, image::BASE), (image::NODE, image::NODE)],
            "packages",
        ),
        // One cloud image for both recipes.
        ImageFrom::Ubuntu2404 => (&[(image::UBUNTU, image::NODE)], "settings"),
    };
    for (lock, recipe) in locks {
        session.progress.phase(&format!("lock of the {lock} image"));
        let differences = image::bump(&session.workshop(), &system.system(None), recipe);
        session.progress.idle();
        let differences = differences?;
        outln!(
            "images/recipes/{lock}.lock: {} {what} changed",
            differences.len()
        );
        for difference in differences {
            outln!("  {difference}");
        }
    }
    Ok(())
}
