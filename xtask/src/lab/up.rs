//! `cargo xtask up`: a cluster for the person at the terminal.

use anyhow::anyhow;
use podwire_access::Door;

use crate::command::cli::lab::ClusterArgs;
use crate::command::session::Session;
use crate::lab::access;
use crate::lab::clone::Prepared;
use crate::say::stop::Stop;

/// Runs a clone of a stage until Ctrl-C; prepares what is missing first.
pub(crate) fn up(session: &Session, args: &ClusterArgs) -> Result<(), Stop> {
    let prepared = Prepared::get(session, args, "cargo xtask up")?;
    let ended = session.wait_for(held(session, &prepared));
    prepared.leave(session, ended)
}

/// Runs the clone, serves it and waits for Ctrl-C, or for a machine to fail.
async fn held(session: &Session, prepared: &Prepared) -> anyhow::Result<()> {
    let cluster = prepared.wake(session).await?;
    let door = Door::open(&cluster, &prepared.dir, &prepared.served(session)?)?;
    // From here on Ctrl-C is the ordinary way out.
    let ended = session.interrupts.expect();
    out!("{}", access::ways(door.description(), &prepared.run()));
    if !prepared.has_api_server() {
        outln!("this stage has no API server yet: kubectl has nobody to ask until you start one");
    }
    outln!("{}", prepared.provenance);
    for configured in &prepared.configured {
        outln!("{configured}");
    }
    outln!("Ctrl-C ends it; nothing of it is kept");
    let fault = tokio::select! {
        () = ended.come() => None,
        fault = cluster.faulted() => Some(fault),
    };
    drop(door);
    if fault.is_none() {
        errln!("\nending the cluster");
    }
    cluster.stop().await;
    match fault {
        None => Ok(()),
        Some(fault) => {
            Err(anyhow!("{fault}").context("a machine failed, and the cluster was ended"))
        }
    }
}
