//! `cargo xtask up`: a cluster for the person at the terminal.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use podwire_access::{Door, Served};
use podwire_cluster::{Cluster, ClusterError, Host, Stage, StageName};
use podwire_images::Provenance;
use time::OffsetDateTime;

use crate::command::cli::UpArgs;
use crate::command::consent;
use crate::command::session::Session;
use crate::lab::access;
use crate::prepare::pod_network::{self, Given};
use crate::prepare::preparation::Preparation;
use crate::prepare::wanted::{StageOrder, Wanted};
use crate::prepare::{parts, tickets};
use crate::say::stop::Stop;

/// For a node to accept a connection, before stretching.
const CONNECT: Duration = Duration::from_secs(10);

/// Runs a clone of a stage until Ctrl-C; prepares what is missing first.
pub(crate) fn up(session: &Session, args: &UpArgs) -> Result<(), Stop> {
    let cell = args.network.cell(args.bootstrap).laid_out(args.layout);
    if !cell.exists() {
        return Err(Stop::Usage(format!(
            "--layout {}: no router leads from one segment to another by IPv6; --ip-families dual is for \
             clusters whose nodes share one",
            args.layout
        )));
    }
    if !args.stage.is_of(cell) {
        let stage = args.stage;
        return Err(Stop::Usage(format!(
            "--stage: {}",
            ClusterError::NoSuchStage { stage, cell }
        )));
    }
    if !args.stage.has(cell).identities {
        return Err(Stop::Usage(format!(
            "--stage: the machines of `{}` have no network card yet, so nobody could reach them; \
             `{}` is the first stage with nodes",
            args.stage,
            StageName::Identified
        )));
    }
    let given = Given::read(session, &args.network)?;
    let bundle = parts::bundle_order(session, &args.sources)?;
    let system = parts::NodeSystem::take(session, args.from, &args.sources.config)?;
    consent::host_packages(session, args.yes)?;
    let wanted = Wanted {
        system: Some(&system),
        yes: args.yes,
        locked: args.locked,
        ..Wanted::cluster(&bundle, args.nodes)
    };
    let mut preparation = Preparation::new(session, wanted);
    let pod_network = given.as_ref().map(|given| preparation.pod_network(given));
    let pod_network = pod_network.transpose()?;
    let judged = preparation.judge()?;
    let node = preparation.node_image()?;
    let pod_manifest = pod_network::on(pod_network.as_ref(), &node)?;
    let dir = session.workspace.new_folder(OffsetDateTime::now_utc())?;
    let host = preparation.host(&judged);
    let orders = [StageOrder {
        plan: wanted
            .cluster_plan(session, cell, &node, host.accelerator)?
            .with_pod_manifest(pod_manifest),
        names: vec![args.stage],
    }];
    let image = preparation.layer(&host, &node, pod_network.as_ref(), &dir.join("layer"))?;
    let stages = preparation.stages(&host, &image, &orders, &dir.join("stages"))?;
    let stage = stages
        .first()
        .and_then(|stages| stages.first())
        .with_context(|| format!("the stage {} was not made", args.stage))?;
    let plan = &stage.manifest.plan;
    session.progress.phase("cluster");
    let ticket = tickets::ticket(session, "cargo xtask up", plan);
    session.progress.idle();
    let _ticket = ticket?;
    let provenance = bundle.provenance();
    match session.wait_for(held(session, &host, stage, &provenance, &dir)) {
        Ok(()) => fs::remove_dir_all(&*dir)
            .with_context(|| format!("cannot remove {}", dir.display()))
            .map_err(Stop::from),
        Err(error) => {
            let dir = session.workspace.shown(&dir);
            Err(Stop::setup(format!(
                "{error:#}\nconsoles, and QEMU's own words, are in {}",
                dir.display()
            )))
        }
    }
}

/// Runs the clone, serves it and waits for Ctrl-C, or for a machine to fail.
async fn held(
    session: &Session,
    host: &Host,
    stage: &Stage,
    provenance: &Provenance,
    dir: &Path,
) -> anyhow::Result<()> {
    let plan = &stage.manifest.plan;
    session.progress.phase("cluster");
    session
        .progress
        .step(&format!("waking {} machines", plan.nodes));
    let cluster = Cluster::clone_of(host, stage, dir, None).await;
    session.progress.idle();
    let cluster = cluster?;
    let served = Served {
        what: format!(
            "{} nodes, Kubernetes {}, {}, stage {}: {}",
            plan.nodes,
            plan.kubernetes,
            plan.cell,
            stage.manifest.name,
            stage.manifest.name.about()
        ),
        user_key: session.cache.ssh_keys(&session.progress)?.user,
        limit: host.limit(CONNECT),
    };
    let door = Door::open(&cluster, dir, &served)?;
    // From here on Ctrl-C is the ordinary way out.
    let ended = session.interrupts.expect();
    let run = dir.file_name().unwrap_or_default().to_string_lossy();
    out!("{}", access::ways(door.description(), &run));
    if !stage.manifest.name.has(plan.cell).api_server {
        outln!("this stage has no API server yet: kubectl has nobody to ask until you start one");
    }
    outln!("{provenance}");
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
