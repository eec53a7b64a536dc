//! `cargo xtask with`: a program of the user's beside a cluster of its own.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use podwire_access::{Beside, ended};
use podwire_cluster::{Cluster, Phase};
use podwire_process::{ChildCommand, Family, StartError, Stream};

use crate::command::cli::lab::WithArgs;
use crate::command::session::Session;
use crate::lab::clone::Prepared;
use crate::say::stop::Stop;

/// The program of the bundle that is for this host as well.
const KUBECTL: &str = "kubectl";

/// Runs a program beside a clone, which goes when the program has ended; gives the program's exit status.
pub(crate) fn with(session: &Session, args: &WithArgs) -> Result<u8, Stop> {
    let (program, arguments) = args.command.split_first().ok_or_else(nothing)?;
    known(program)?;
    let prepared = Prepared::get(session, &args.cluster, "cargo xtask with")?;
    let command = ChildCommand::new(program).args(arguments);
    let ended = session.wait_for(beside(session, &prepared, command));
    prepared.leave(session, ended)?.map_err(Stop::from)
}

fn nothing() -> Stop {
    Stop::Usage("there is no program to run: `cargo xtask with -- kubectl get nodes`".to_owned())
}

/// A name that is spelt wrong is told before minutes are spent on its cluster.
fn known(program: &OsStr) -> Result<(), Stop> {
    if program == KUBECTL {
        return Ok(());
    }
    which::which(program).map(|_| ()).map_err(|_| {
        let program = program.to_string_lossy();
        Stop::Usage(format!("there is no program `{program}` that could be run"))
    })
}

/// Wakes the clone, runs the program, and ends the clone. That a program cannot be started is no fault of the
/// cluster's.
async fn beside(
    session: &Session,
    prepared: &Prepared,
    command: ChildCommand,
) -> anyhow::Result<Result<u8, StartError>> {
    let manifest = &prepared.stage.manifest;
    let cluster = prepared.wake(session).await?;
    let woken = Instant::now();
    let kubectl = prepared.bundle.dir.join("bin").join(KUBECTL);
    let served = prepared.served(session)?;
    let tell = |line: &str| errln!("{line}");
    let beside = Beside::open(
        &cluster,
        manifest.name,
        &prepared.dir,
        &served,
        &kubectl,
        tell,
    );
    let beside = beside.await?;
    let mut command = beside.given(command);
    command.stdin = Stream::Inherit;
    command.stdout = Stream::Inherit;
    command.stderr = Stream::Inherit;

    session.progress.line(&format!(
        "{}, stage {}, {}; --run {} reaches it: {}",
        manifest.plan.cell,
        manifest.name,
        awake(cluster.timings(), woken.elapsed()),
        prepared.run(),
        command.display()
    ));
    if !prepared.has_api_server() {
        session.progress.line(
            "this stage has no API server yet: the program's kubeconfig is empty; once one is started, \
             `cargo xtask kubeconfig` makes another",
        );
    }
    let ended = ran(session, &cluster, command).await;
    drop(beside);
    cluster.stop().await;
    ended
}

/// Runs the program until it ends, or a machine fails; nothing that it has started stays.
async fn ran(
    session: &Session,
    cluster: &Cluster,
    command: ChildCommand,
) -> anyhow::Result<Result<u8, StartError>> {
    let family = Family::to_come().context("cannot become the parent of orphans")?;
    let start = || family.start(&session.spawner, command);
    let (child, _theirs) = match session.interrupts.leave_to(start) {
        Ok(started) => started,
        Err(error) => return Ok(Err(error)),
    };
    let cut = async {
        let fault = cluster.faulted().await;
        anyhow!("{fault}").context("a machine failed, and the program was ended")
    };
    let ended = ended(family, child, cut).await;
    let (ended, left) = ended.context("cannot wait for the program")?;
    if !left.is_empty() {
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        errln!(
            "left running, since it is somebody else's, by process: {}",
            left.join(" ")
        );
    }
    Ok(Ok(status(ended?)))
}

/// As a shell tells it.
fn status(ended: ExitStatus) -> u8 {
    let signal = ended.signal().map(|signal| 128 + signal);
    let status = ended.code().or(signal);
    // A wait status has eight bits, and signals end at 64.
    status.map_or(u8::MAX, |status| {
        u8::try_from(status & 0xff).unwrap_or(u8::MAX)
    })
}

/// How long the clone took, and what a program needs beside it.
fn awake(timings: &[Phase], beside: Duration) -> String {
    let clone = timings.iter().find(|phase| phase.name == Phase::CLONE);
    let clone = clone.map_or_else(String::new, |clone| format!(" in {:.1} s", clone.seconds));
    format!(
        "awake{clone}, and ready for a program {:.1} s later",
        beside.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_told_at_once() {
        known(OsStr::new("sh")).unwrap();
        known(OsStr::new("/bin/sh")).unwrap();
        // It comes with the cluster.
        known(OsStr::new("kubectl")).unwrap();
        for none in ["kubctl-of-nobody", "./none", "/etc/passwd"] {
            assert!(
                matches!(known(OsStr::new(none)), Err(Stop::Usage(_))),
                "{none}"
            );
        }
    }

    #[test]
    fn a_status_is_told_as_a_shell_tells_it() {
        let of = |raw: i32| status(ExitStatus::from_raw(raw));
        assert_eq!((of(0), of(7 << 8), of(255 << 8)), (0, 7, 255));
        assert_eq!((of(2), of(9), of(15)), (130, 137, 143));
    }

    #[test]
    fn what_a_program_needs_beside_its_clone_is_told_apart() {
        let clone = Phase {
            name: Phase::CLONE.to_owned(),
            seconds: 2.34,
        };
        let told = awake(&[clone], Duration::from_millis(160));
        assert_eq!(told, "awake in 2.3 s, and ready for a program 0.2 s later");
    }
}
