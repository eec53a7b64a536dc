//! `cargo xtask forward` and `kubeconfig`: a cluster that another process runs, for programs on this host.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use podwire_access::{Forward, administrator, kubectl};
use podwire_cluster::addresses::{API_NAME, API_PORT};
use podwire_process::ChildCommand;
use podwire_scenario::Ending;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::command::cli::lab::{ForwardArgs, KubeconfigArgs};
use crate::lab::access::{chosen, drive, linked};
use crate::say::stop::Stop;

/// Carries connections to a port of a node until Ctrl-C; the cluster's end is an error.
pub(crate) fn forward(args: &ForwardArgs) -> Result<(), Stop> {
    let to = &args.to;
    drive(async {
        let running = chosen(&args.run, Some(&to.node)).await?;
        let forward = Forward::open(&running.dir, &to.node, to.port, args.local).await?;
        let mut told = Told::listen().context("cannot listen to signals")?;
        errln!(
            "leads to port {} of {}, for everybody on this host; Ctrl-C ends it",
            to.port,
            to.node
        );
        outln!("{}", forward.address());
        carried(forward, &mut told).await
    })
}

/// Leads programs on this host to the API, with a kubeconfig that is there until Ctrl-C; the cluster's end is an error.
pub(crate) fn kubeconfig(args: &KubeconfigArgs) -> Result<(), Stop> {
    drive(async {
        let running = chosen(&args.run, Some(kubectl::NODE)).await?;
        errln!(
            "asking {} for the administrator's kubeconfig",
            kubectl::NODE
        );
        let shell = linked(&running).await?.ssh(kubectl::NODE).await?;
        let access = administrator(&shell).await?;
        drop(shell);
        let forward = Forward::open(&running.dir, API_NAME, API_PORT, None).await?;
        // From here on a signal takes the file along.
        let mut told = Told::listen().context("cannot listen to signals")?;
        let file = forward.kubeconfig(&access)?;
        errln!("for a shell on this host; Ctrl-C ends it");
        outln!("{}", export(file.path()));
        carried(forward, &mut told).await
    })
}

/// As a shell takes it.
fn export(kubeconfig: &Path) -> String {
    ChildCommand::new("export")
        .args([format!("KUBECONFIG={}", kubeconfig.display())])
        .display()
}

/// Carries connections until somebody ends this process, or the cluster.
async fn carried(forward: Forward, told: &mut Told) -> Result<(), Stop> {
    tokio::select! {
        carried = forward.carry(|line| errln!("{line}")) => {
            carried?;
            Err(Stop::setup("the cluster has ended"))
        }
        () = told.come() => Ok(()),
    }
}

/// Ctrl-C, and the signals by which a process is told to end.
struct Told {
    interrupt: Signal,
    ending: Ending,
}

impl Told {
    /// Listens from now on.
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            ending: Ending::listen()?,
        })
    }

    /// Resolves when one of them comes.
    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            () = self.ending.come() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_the_line_as_it_is() {
        let said = |path: &str| export(Path::new(path));
        assert_eq!(said("/run/k.json"), "export KUBECONFIG=/run/k.json");
        assert_eq!(said("/my run/k.json"), "export 'KUBECONFIG=/my run/k.json'");
    }
}
