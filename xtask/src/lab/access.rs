//! `cargo xtask ssh`, `console` and `kubectl`: into a cluster that another process runs.

use std::env;
use std::io::{self, Write, stdout};
use std::path::Path;

use anyhow::Context as _;
use podwire_access::find::{self, Running};
use podwire_access::kubectl::{self, Kubectl};
use podwire_access::{AccessError, Description, Exit, Foreground, Link, RUN_VARIABLE, Streams};
use podwire_process::plain::Plain;

use crate::command::cli::lab::{ConsoleArgs, KubectlArgs, RunArgs, SshArgs};
use crate::command::workspace::Workspace;
use crate::say::stop::Stop;
use crate::say::text::table;

/// A command on a node, or a shell there.
pub(crate) fn ssh(args: &SshArgs) -> Result<u8, Stop> {
    drive(async {
        let link = reach(&args.run, Some(&args.node)).await?;
        let shell = link.ssh(&args.node).await?;
        let command = (!args.command.is_empty()).then(|| args.command.join(" "));
        // Only now: while the session comes about, Ctrl-C ends this process.
        let foreground = Some(Foreground::take()?);
        let exit = shell
            .run(command.as_deref(), Streams::own()?, foreground)
            .await?;
        Ok(status(&exit, &args.node))
    })
}

/// What a node prints on its serial line.
pub(crate) fn console(args: &ConsoleArgs) -> Result<(), Stop> {
    drive(async {
        let link = reach(&args.run, Some(&args.node)).await?;
        errln!(
            "what {} prints on its serial line; Ctrl-C leaves",
            args.node
        );
        link.console(&args.node, plainly(stdout())).await?;
        errln!("the cluster has ended");
        Ok(())
    })
}

/// Writes what a guest prints, as it may be shown.
fn plainly(mut to: impl Write) -> impl FnMut(&[u8]) -> io::Result<()> {
    let mut said = Plain::default();
    move |bytes| {
        to.write_all(said.bytes(bytes).as_bytes())?;
        to.flush()
    }
}

/// kubectl on the control-plane node.
pub(crate) fn kubectl(args: &KubectlArgs) -> Result<u8, Stop> {
    let kubectl = Kubectl::new(&args.args);
    drive(async {
        let link = reach(&args.run, Some(kubectl::NODE)).await?;
        let shell = link.ssh(kubectl::NODE).await?;
        match kubectl.run(&shell).await {
            Ok(exit) => Ok(status(&exit, kubectl::NODE)),
            Err(error @ AccessError::File { .. }) => {
                Err(Stop::Usage(format!("{:#}", anyhow::Error::from(error))))
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// How to reach a cluster, for the person who has just started it.
pub(crate) fn ways(description: &Description, run: &str) -> String {
    let machines: Vec<Vec<String>> = description
        .machines()
        .map(|node| vec![format!("  {}", node.name), node.address.to_string()])
        .collect();
    let last = description.nodes.last();
    let last = last.map_or(kubectl::NODE, |node| node.name.as_str());
    format!(
        "{}:\n{}from another terminal:\n  \
           cargo xtask ssh {last}\n  \
           cargo xtask console {last}\n  \
           cargo xtask kubectl get pods -A -o wide\n  \
           cargo xtask kubeconfig\n  \
           cargo xtask impair {last} --delay 40ms --loss 1%\n\
         (where several clusters run: --run {run} behind ssh, console, kubectl or impair)\n",
        description.what,
        table(&machines),
    )
}

/// Connects to the cluster that is meant, which must have the machine where one is named.
pub(super) async fn reach(args: &RunArgs, node: Option<&str>) -> Result<Link, Stop> {
    linked(&chosen(args, node).await?).await
}

/// Connects to a cluster that was there just now.
pub(super) async fn linked(running: &Running) -> Result<Link, Stop> {
    let link = Link::open(&running.dir).await?;
    link.ok_or_else(|| Stop::setup(format!("the cluster of {} has just ended", running.run)))
}

/// The cluster that is meant, which must have the machine where one is named.
pub(super) async fn chosen(args: &RunArgs, node: Option<&str>) -> Result<Running, Stop> {
    let chosen = match (&args.run, env::var_os(RUN_VARIABLE)) {
        (None, Some(dir)) if !dir.is_empty() => beside(Path::new(&dir)).await?,
        (prefix, _) => of_all(prefix.as_deref()).await?,
    };
    let machines = chosen.description.machines();
    let names: Vec<&str> = machines.map(|known| known.name.as_str()).collect();
    if let Some(node) = node
        && !names.contains(&node)
    {
        return Err(Stop::Usage(format!(
            "the cluster has no node `{node}`; it has {}",
            names.join(", ")
        )));
    }
    Ok(chosen)
}

/// The cluster that this process runs beside.
async fn beside(dir: &Path) -> Result<Running, Stop> {
    find::at(dir).await.ok_or_else(|| {
        Stop::setup(format!(
            "no cluster is running in {}, which {RUN_VARIABLE} names; --run PREFIX takes another",
            dir.display()
        ))
    })
}

/// The newest whose run's name begins like this.
async fn of_all(prefix: Option<&str>) -> Result<Running, Stop> {
    let runs = Workspace::find()?.runs();
    let running = find::running(&runs).await?;
    let Some(chosen) = find::choose(&running, prefix) else {
        return Err(nobody(&running, prefix));
    };
    if running.len() > 1 && prefix != Some(chosen.run.as_str()) {
        errln!("{}", several(&running, chosen));
    }
    Ok(chosen.clone())
}

fn nobody(running: &[Running], prefix: Option<&str>) -> Stop {
    match (prefix, running) {
        (_, []) => Stop::setup(
            "no cluster is running; `cargo xtask up` starts one, and `cargo xtask test --keep` \
             keeps that of a failed scenario",
        ),
        (prefix, running) => Stop::Usage(format!(
            "no running cluster's run begins with `{}`; there are:\n{}",
            prefix.unwrap_or_default(),
            listed(running)
        )),
    }
}

fn several(running: &[Running], chosen: &Running) -> String {
    format!(
        "several clusters are running; this is {} (--run PREFIX takes another):\n{}",
        chosen.run,
        listed(running)
    )
}

fn listed(running: &[Running]) -> String {
    let rows: Vec<Vec<String>> = running
        .iter()
        .map(|running| {
            vec![
                format!("  {}", running.run),
                running.description.what.clone(),
            ]
        })
        .collect();
    table(&rows).trim_end().to_owned()
}

/// The exit status that says how a command on a node ended.
fn status(exit: &Exit, node: &str) -> u8 {
    if *exit == Exit::Left {
        errln!("\nleft {node}");
    }
    exit.status()
}

/// Drives something to its end, and does not wait for a terminal that nobody types at.
pub(super) fn drive<T>(work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads that carry the bytes")?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_commands_no_terminal() {
        let mut shown = Vec::new();
        let mut show = plainly(&mut shown);
        for piece in [
            "\u{1b}",
            "[2J\u{1b}]52;c;Y3Vy\u{7}\r",
            "\n\u{1b}[32mOK\u{1b}[m login: ",
        ] {
            show(piece.as_bytes()).unwrap();
        }
        drop(show);
        let expected = "\\u001b[2J\\u001b]52;c;Y3Vy\\u0007\nOK login: ";
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
    }
}
