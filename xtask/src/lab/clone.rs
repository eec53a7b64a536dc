//! A clone for the person at the terminal: what is missing is made, and a place on the machine waited for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use podwire_access::Served;
use podwire_admission::Ticket;
use podwire_cluster::{Cluster, ClusterError, Host, Stage, StageName};
use podwire_images::{Bundle, Provenance};
use podwire_scenario::bare::RunFolder;
use time::OffsetDateTime;

use crate::command::cli::lab::ClusterArgs;
use crate::command::consent;
use crate::command::session::Session;
use crate::prepare::configurations::{self, Target};
use crate::prepare::node_tree;
use crate::prepare::pod_network::{Given, Shape};
use crate::prepare::preparation::Preparation;
use crate::prepare::wanted::{StageOrder, Wanted};
use crate::prepare::{parts, tickets};
use crate::say::stop::Stop;

/// For a node to accept a connection, before stretching.
const CONNECT: Duration = Duration::from_secs(10);

/// All that a clone needs, and its place on this machine.
pub(super) struct Prepared {
    pub(super) host: Host,
    pub(super) stage: Stage,
    pub(super) provenance: Provenance,
    /// The user's configurations, a line of each file.
    pub(super) configured: Vec<String>,
    /// What its Kubernetes was put together from.
    pub(super) bundle: Bundle,
    /// The run's folder.
    pub(super) dir: RunFolder,
    _ticket: Ticket,
}

impl Prepared {
    /// Makes what is missing, on behalf of `command`.
    pub(super) fn get(session: &Session, args: &ClusterArgs, command: &str) -> Result<Self, Stop> {
        let cell = args.network.existing_cell(args.bootstrap, args.layout);
        let cell = cell.map_err(Stop::Usage)?;
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
        let given = Given::read(session, &args.network, &[cell], None)?;
        let node_files = args.network.node_files.as_deref();
        let node_files = node_tree::Given::read(node_files, args.nodes, &[cell])?;
        let order = parts::bundle_order(session, &args.sources)?;
        let cells = [cell];
        let target = Target::new(args.nodes, &cells, &order);
        let configurations = configurations::Given::read(&args.network, target)?;
        configurations.reach(target, args.stage)?;
        let system = parts::NodeSystem::take(session, &args.from, &args.sources.config)?;
        consent::host_packages(session, args.yes)?;
        let wanted = Wanted {
            system: Some(&system),
            cluster_dns: args.network.cluster_dns,
            yes: args.yes,
            locked: args.locked,
            ..Wanted::cluster(&order, args.nodes)
        };
        let mut preparation = Preparation::new(session, wanted);
        preparation.pull(given.as_ref())?;
        let judged = preparation.judge()?;
        let node = preparation.node_image()?;
        let brought = preparation.brought(given.as_ref())?;
        let shape = Shape::on(&node, given.as_ref(), brought.as_ref())?;
        let dir = session.workspace.new_folder(OffsetDateTime::now_utc())?;
        let host = preparation.host(&judged);
        let orders = [StageOrder {
            plan: shape
                .of(wanted.cluster_plan(session, cell, &node, host.accelerator)?)
                .with_node_tree(node_files.map(|given| given.tree))
                .with_configurations(configurations.all.clone()),
            names: vec![args.stage],
        }];
        let image = preparation.layer(&host, &node, brought.as_ref(), &dir.join("layer"))?;
        let stages = preparation.stages(&host, &image, &orders, &dir.join("stages"))?;
        let stage = stages.into_iter().flatten().next();
        let stage = stage.with_context(|| format!("the stage {} was not made", args.stage))?;
        session.progress.phase("cluster");
        let ticket = tickets::ticket(session, command, &stage.manifest.plan);
        session.progress.idle();
        Ok(Self {
            _ticket: ticket?,
            provenance: order.provenance(),
            configured: configurations.about(target, Some(host.accelerator))?,
            bundle: preparation.bundle.context("there is no bundle")?,
            host,
            stage,
            dir,
        })
    }

    /// Its run's name.
    pub(super) fn run(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Brings it to life.
    pub(super) async fn wake(&self, session: &Session) -> anyhow::Result<Cluster> {
        let machines = self.stage.manifest.plan.nodes;
        session.progress.phase("cluster");
        session
            .progress
            .step(&format!("waking {machines} machines"));
        let cluster = Cluster::clone_of(&self.host, &self.stage, &self.dir, None).await;
        session.progress.idle();
        Ok(cluster?)
    }

    /// As what it is served to other commands.
    pub(super) fn served(&self, session: &Session) -> anyhow::Result<Served> {
        let manifest = &self.stage.manifest;
        let plan = &manifest.plan;
        Ok(Served {
            what: format!(
                "{} nodes, Kubernetes {}, {}, stage {}: {}",
                plan.nodes,
                plan.kubernetes,
                plan.cell,
                manifest.name,
                manifest.name.about()
            ),
            user_key: session.cache.ssh_keys(&session.progress)?.user,
            limit: self.host.limit(CONNECT),
        })
    }

    /// Whether there is an API server in its stage.
    pub(super) fn has_api_server(&self) -> bool {
        let manifest = &self.stage.manifest;
        manifest.name.has(manifest.plan.cell).api_server
    }

    /// Removes what is left when its cluster has ended; where it failed, that is to be looked at.
    pub(super) fn leave<T>(self, session: &Session, ended: anyhow::Result<T>) -> Result<T, Stop> {
        let dir: &Path = &self.dir;
        match ended {
            Ok(done) => {
                // What was done counts all the same.
                if let Err(error) = fs::remove_dir_all(dir) {
                    errln!(
                        "cannot remove {}: {error}; `cargo xtask clean` tries again",
                        session.workspace.shown(dir).display()
                    );
                }
                Ok(done)
            }
            Err(error) => {
                let dir = session.workspace.shown(dir);
                Err(Stop::setup(format!(
                    "{error:#}\nconsoles, and QEMU's own words, are in {}",
                    dir.display()
                )))
            }
        }
    }
}
