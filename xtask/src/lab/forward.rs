//! `cargo xtask forward` and `kubeconfig`: a cluster that another process runs, for programs on this host.

use std::path::Path;

use anyhow::Context as _;
use podwire_access::{Forward, administrator, kubectl};
use podwire_cluster::addresses::{API_NAME, API_PORT};
use podwire_process::ChildCommand;
use podwire_scenario::Ending;
use tokio::signal::ctrl_c;

use crate::command::cli::lab::{ForwardArgs, KubeconfigArgs};
use crate::lab::access::{chosen, drive, linked};
use crate::say::stop::Stop;

/// Carries connections to a port of a node until Ctrl-C, or the cluster's end.
pub(crate) fn forward(args: &ForwardArgs) -> Result<(), Stop> {
    let to = &args.to;
    drive(async {
        let running = chosen(&args.run, Some(&to.node)).await?;
        let forward = Forward::open(&running.dir, &to.node, to.port, args.local).await?;
        errln!(
            "leads to port {} of {}, for everybody on this host; Ctrl-C ends it",
            to.port,
            to.node
        );
        outln!("{}", forward.address());
        carried(forward).await
    })
}

/// Leads programs on this host to the API, with a kubeconfig that is there until Ctrl-C or the cluster's end.
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
        let file = forward.kubeconfig(&access)?;
        errln!("for a shell on this host; Ctrl-C ends it");
        outln!("{}", export(file.path()));
        carried(forward).await
    })
}

/// As a shell takes it.
fn export(kubeconfig: &Path) -> String {
    ChildCommand::new("export")
        .args([format!("KUBECONFIG={}", kubeconfig.display())])
        .display()
}

/// Carries connections until somebody ends this process or the cluster.
async fn carried(forward: Forward) -> Result<(), Stop> {
    let mut ending = Ending::listen().context("cannot listen to signals")?;
    tokio::select! {
        carried = forward.carry(|line| errln!("{line}")) => {
            carried?;
            errln!("the cluster has ended");
        }
        _ = ctrl_c() => {}
        () = ending.come() => {}
    }
    Ok(())
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
