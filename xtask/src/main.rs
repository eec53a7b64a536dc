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
use podwire_scenario::Profile;

use crate::bench::{clone, conformance, last_run, red, suite, switch, truth};
use crate::command::cli::house::{BenchTarget, ScenariosArgs};
use crate::command::cli::{Cli, Command};
use crate::command::session::Session;
use crate::command::workspace::Workspace;
use crate::house::{chaos, check, clean, docs, doctor, fuzz, stages};
use crate::lab::{access, capture, forward, impair, up, with};
use crate::plan::{scenarios, select};
use crate::prepare::alone;
use crate::run::{compare, parts, test};
use crate::say::stop::{self, Stop};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => stop::end(run(cli.command)),
        Err(error) => stop::misspelt(&error),
    }
}

/// The exit status: 0, or that of a command on a node or beside a cluster.
fn run(command: Command) -> Result<u8, Stop> {
    match command {
        // These start no process: Ctrl-C ends them as it ends any program, or goes to the node.
        Command::Ssh(args) => return access::ssh(&args),
        Command::Console(args) => access::console(&args),
        Command::Kubectl(args) => return access::kubectl(&args),
        Command::Kubeconfig(args) => forward::kubeconfig(&args),
        Command::Forward(args) => forward::forward(&args),
        Command::Impair(args) => impair::impair(&args),
        Command::Heal(args) => impair::heal(&args),
        Command::Capture(args) => capture::capture(&args),
        Command::Scenarios(args) => list(&args),
        Command::Fuzz(args) => fuzz::fuzz(&Workspace::find()?, &args),
        Command::Chaos(args) => chaos::chaos(&Session::start()?, &args, &podwire_scenarios::all()),
        Command::Test(args) => test::test(&Session::start()?, &args, &podwire_scenarios::all()),
        Command::Compare(args) => {
            compare::compare(&Session::start()?, &args, &podwire_scenarios::all())
        }
        Command::Merge(args) => parts::merge(&Workspace::find()?, &args),
        Command::Up(args) => up::up(&Session::start()?, &args),
        Command::With(args) => return with::with(&Session::start()?, &args),
        Command::Doctor(args) => doctor::doctor(&Session::start()?, &args),
        Command::Image(args) => alone::image(&Session::start()?, &args),
        Command::Bundle(args) => alone::bundle(&Session::start()?, &args),
        Command::Check => check::check(&Session::start()?),
        Command::Docs => docs::write(&Workspace::find()?.root),
        Command::Stages(args) => stages::stages(&Session::start()?, &args),
        Command::Clean(args) => clean::clean(&Session::start()?, &args),
        Command::Bench(args) => match args.what {
            None => last_run::last_run(&Session::start()?.workspace.latest(), args.json),
            Some(BenchTarget::Truth) => {
                truth::truth(&Session::start()?.workspace.latest(), args.json)
            }
            Some(BenchTarget::Conformance(what)) => {
                conformance::conformance(&Session::start()?.workspace, &what.runs, args.json)
            }
            Some(BenchTarget::Switch) => switch::segment_switch(args.json),
            Some(BenchTarget::Clone(what)) => clone::clone(&Session::start()?, &what, args.json),
            Some(BenchTarget::Red(what)) => {
                let catalogue = podwire_scenarios::all();
                red::red(&Session::start()?, &what, &catalogue, args.json)
            }
            Some(BenchTarget::Suite(what)) => {
                let catalogue = podwire_scenarios::all();
                suite::suite(&Session::start()?, &what, &catalogue, args.json)
            }
        },
    }
    .map(|()| 0)
}

fn list(args: &ScenariosArgs) -> Result<(), Stop> {
    let catalogue = podwire_scenarios::all();
    let chosen = select::choose(&catalogue, args.filter.as_deref(), Some(Profile::Full))
        .map_err(|unknown| Stop::Usage(unknown.to_string()))?;
    if args.json {
        outln!("{}", scenarios::json(&chosen)?);
    } else {
        out!("{}", scenarios::text(&chosen));
    }
    Ok(())
}
