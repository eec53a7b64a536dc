//! A running clone of a stage.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::{join_all, select_all, try_join_all};
use podwire_lan::{Segment, SegmentOptions, SegmentPlan, SegmentState};
use podwire_vm::{MachineFault, Output, Ram, create_overlay};

use crate::addresses;
use crate::api;
use crate::component::Component;
use crate::credentials::{Access, Credentials};
use crate::gates::ready;
use crate::network;
use crate::node::{Node, Powered};
use crate::node_files::{UNPACK, archive};
use crate::pki::Pki;
use crate::stage::{MachineFiles, Phase, Stage, StageManifest};
use crate::wake::{Waking, wake};
use crate::{Break, ClusterError, ClusterPlan, Host, Settings};

/// Writing a unit, and what systemd needs to start or stop it.
const START: Duration = Duration::from_secs(30);
/// An ordinary command on a node.
const COMMAND: Duration = Duration::from_secs(10);
/// One request to the API.
const REQUEST: Duration = Duration::from_secs(10);
/// From waking up to an API server that says it is ready.
const API_READY: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// A cluster of one's own, running.
///
/// Dropping it ends its machines, as does the end of this process, however it ends.
pub struct Cluster {
    host: Host,
    plan: ClusterPlan,
    credentials: Credentials,
    broken: Option<Break>,
    dir: PathBuf,
    nodes: Vec<Node>,
    api: kube::Client,
    phases: Vec<Phase>,
    // After the nodes: their machines end before the segment does.
    segment: Segment,
}

impl Cluster {
    /// Brings a stage to life, privately: disks, consoles and the capture of its segment go to
    /// `dir`. It is there when every node's agent answers and the API server, if the stage has one,
    /// says that it is ready.
    ///
    /// `broken` alters the steps that are applied to it, see [`Break`].
    ///
    /// # Errors
    /// [`ClusterError`]; then nothing of it runs any more. A stage without a network card yet
    /// cannot be reached: [`ClusterError::NoCluster`].
    pub async fn clone_of(
        host: &Host,
        stage: &Stage,
        dir: &Path,
        broken: Option<Break>,
    ) -> Result<Self, ClusterError> {
        let plan = &stage.manifest.plan;
        let started = Instant::now();
        let mut waking = Vec::new();
        for number in 1..=plan.nodes {
            let frozen = MachineFiles::of_node(&stage.dir, number);
            let own = MachineFiles::of_node(dir, number);
            fs::create_dir_all(own.dir()).map_err(ClusterError::file("make", own.dir()))?;
            create_overlay(&host.qemu_img, &frozen.disk(), &own.disk())?;
            waking.push(Waking {
                number,
                ram: Ram::Clone(frozen.ram()),
                disk: own.disk(),
                state: frozen.state(),
                logs: own.dir().to_owned(),
                plugged: true,
            });
        }
        let disks = Phase::since(Phase::DISKS, started);
        let mut cluster = Self::woken(host, &stage.manifest, waking, dir, broken).await?;
        cluster.phases.insert(0, disks);
        cluster.phases.push(Phase::since(Phase::CLONE, started));
        Ok(cluster)
    }

    /// A stage's machines, going on in the files that `waking` says.
    pub(crate) async fn woken(
        host: &Host,
        manifest: &StageManifest,
        waking: Vec<Waking>,
        dir: &Path,
        broken: Option<Break>,
    ) -> Result<Self, ClusterError> {
        let Some(credentials) = manifest.credentials.clone() else {
            return Err(ClusterError::NoCluster {
                stage: manifest.name,
            });
        };
        let segment = addresses::segment(manifest.plan.nodes);
        let segment = restored_segment(segment, dir, manifest.segment.clone())?;
        let (powered, phases) =
            wake(host, &manifest.plan, &manifest.image, &segment, waking).await?;
        let keys = credentials.nodes.iter();
        let keys: Vec<_> = keys
            .map(|node| Some(node.ssh_host.public.as_str()))
            .collect();
        let api = match &credentials.access {
            Some(access) => api_client(host, &segment, access)?,
            None => api::none(),
        };
        let step = Instant::now();
        let answering = async {
            let (nodes, first) = answering(host, powered, &keys).await?;
            Ok((nodes, [first, Phase::since(Phase::NODES_ANSWER, step)]))
        };
        let api_ready = async {
            if credentials.access.is_none() {
                return Ok(None);
            }
            api_answers(host, &api).await?;
            Ok::<_, ClusterError>(Some(Phase::since(Phase::API_READY, step)))
        };
        let ((nodes, answers), api_phase) = tokio::try_join!(answering, api_ready)?;
        Ok(Self {
            host: host.clone(),
            plan: manifest.plan.clone(),
            credentials,
            broken,
            dir: dir.to_owned(),
            nodes,
            api,
            phases: phases.into_iter().chain(answers).chain(api_phase).collect(),
            segment,
        })
    }

    /// Machines that have just been cloned from booted ones, as the nodes of a cluster to be.
    pub(crate) async fn new_nodes(
        host: &Host,
        plan: &ClusterPlan,
        credentials: Credentials,
        powered: Vec<Powered>,
        segment: Segment,
        dir: &Path,
    ) -> Result<Self, ClusterError> {
        // The image's host key, until each has taken its identity.
        let keys = vec![None; powered.len()];
        let (nodes, _) = answering(host, powered, &keys).await?;
        try_join_all(nodes.iter().map(|node| node.on_the_segment(host))).await?;
        Ok(Self {
            host: host.clone(),
            plan: plan.clone(),
            broken: plan.broken,
            credentials,
            dir: dir.to_owned(),
            nodes,
            api: api::none(),
            phases: Vec::new(),
            segment,
        })
    }

    /// Its plan.
    pub fn plan(&self) -> &ClusterPlan {
        &self.plan
    }

    /// The keys and certificates of a cluster by hand.
    ///
    /// # Errors
    /// [`ClusterError::NoPki`] for kubeadm's.
    pub fn pki(&self) -> Result<&Pki, ClusterError> {
        self.credentials.pki.as_ref().ok_or(ClusterError::NoPki)
    }

    /// How its API is reached; nothing before it has one.
    pub fn access(&self) -> Option<&Access> {
        self.credentials.access.as_ref()
    }

    /// From now on its API is reached like this.
    pub(crate) fn reach_api_with(&mut self, access: Access) -> Result<(), ClusterError> {
        self.api = api_client(&self.host, &self.segment, &access)?;
        self.credentials.access = Some(access);
        Ok(())
    }

    /// All that it proves itself with.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Its segment.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How long each part of bringing it to life took.
    pub fn timings(&self) -> &[Phase] {
        &self.phases
    }

    /// Its nodes, by number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this number, from 1 to [`ClusterPlan::nodes`].
    ///
    /// # Panics
    /// For any other number.
    pub fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize - 1]
    }

    /// A client of its API, in `system:masters`. In a cluster of a stage without an API server every
    /// request fails and says so.
    pub fn api(&self) -> kube::Client {
        self.api.clone()
    }

    /// The first fault of any of its machines.
    pub fn fault(&self) -> Option<MachineFault> {
        self.nodes.iter().find_map(|node| node.machine().fault())
    }

    /// Resolves with the first fault of any of its machines as soon as it happens.
    pub async fn faulted(&self) -> MachineFault {
        let faults = self
            .nodes
            .iter()
            .map(|node| Box::pin(node.machine().faulted()));
        select_all(faults).await.0
    }

    /// Adds the route to the Pods of node `to` on node `on`; there already, it stays. With
    /// [`Break::Route`], the one from 1 to 2 is left out.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn add_route(&self, on: u32, to: u32) -> Result<(), ClusterError> {
        self.on_nodes(&network::add_route(on, to, self.broken))
            .await
    }

    /// Adds all N x (N-1) routes, as [`Cluster::add_route`].
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn add_all_routes(&self) -> Result<(), ClusterError> {
        self.on_nodes(&network::add_all_routes(self.plan.nodes, self.broken))
            .await
    }

    /// Deletes the route to the Pods of node `to` from node `on`. One that is not there stays so.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn delete_route(&self, on: u32, to: u32) -> Result<(), ClusterError> {
        self.on_nodes(&network::delete_route(on, to, self.broken))
            .await
    }

    /// Starts kube-proxy on every node. With [`Break::KubeProxy`], its kubeconfig leads nowhere.
    ///
    /// # Errors
    /// [`ClusterError::Guest`], [`ClusterError::NoPki`].
    pub async fn start_kube_proxy(&self) -> Result<(), ClusterError> {
        let proxies = network::start_proxy(self.plan.nodes, self.pki()?, self.broken);
        self.on_nodes(&proxies).await
    }

    /// Whose settings its components run with.
    pub fn settings(&self) -> Settings {
        Settings::of(self.plan.accelerator)
    }

    /// Starts a component on a node as it now is, in the place of one that runs: its unit is written and
    /// systemd reads it. What systemd says: a component may end again right afterwards, see
    /// [`Cluster::last_words`].
    ///
    /// # Errors
    /// [`ClusterError::Guest`]; but systemd's refusal is not one.
    pub async fn start_component(
        &self,
        node: u32,
        component: &Component,
    ) -> Result<Output, ClusterError> {
        let unit = &component.unit;
        let command = format!("systemctl daemon-reload && systemctl restart {unit}");
        let files = component.files();
        let (node, limit) = (self.node(node), self.host.limit(START));
        if files.is_empty() {
            return node.run(&command, limit).await;
        }
        let files = archive(&files).map_err(ClusterError::file("archive", "the node's files"))?;
        let command = format!("{UNPACK} && {command}");
        node.run_given(&command, &files, limit).await
    }

    /// Stops a component on a node. One that does not run stays so.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn stop_component(
        &self,
        node: u32,
        component: &Component,
    ) -> Result<(), ClusterError> {
        let command = format!("systemctl stop {}", component.unit);
        let limit = self.host.limit(START);
        self.node(node).run_ok(&command, limit).await?;
        Ok(())
    }

    /// What systemd and the journal say of a component: its state, and the journal's last lines. It
    /// never fails: where the node does not answer, that is what it says.
    pub async fn last_words(&self, node: u32, component: &Component) -> String {
        self.node(node)
            .last_words(&self.host, &component.unit)
            .await
    }

    /// Lets a node reboot, and waits until it answers again.
    ///
    /// # Errors
    /// [`ClusterError::NoAnswer`] when it does not come back.
    pub async fn reboot(&self, number: u32) -> Result<(), ClusterError> {
        let node = self.node(number);
        let before = node.boot(&self.host).await?;
        // The agent may end before it has told how the command did.
        let _ = node.run("systemctl reboot", self.host.limit(COMMAND)).await;
        node.booted_again(&self.host, &before).await
    }

    /// Cuts a node's power, switches it on again, and waits until it answers.
    ///
    /// # Errors
    /// [`ClusterError::NoAnswer`] when it does not come back.
    pub async fn cut_power(&self, number: u32) -> Result<(), ClusterError> {
        let node = self.node(number);
        let before = node.boot(&self.host).await?;
        node.machine().reset().await?;
        node.booted_again(&self.host, &before).await
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Where a node's machine keeps its console and transcripts.
    pub(crate) fn machine_dir(&self, node: &Node) -> PathBuf {
        MachineFiles::of_node(&self.dir, node.number())
            .dir()
            .to_owned()
    }

    /// Ends its machines and its segment.
    pub async fn stop(self) {
        let (nodes, segment) = self.taken_apart();
        join_all(nodes.into_iter().map(Node::kill)).await;
        drop(segment);
    }

    /// Its nodes and its segment; the connections to the API end.
    pub(crate) fn taken_apart(self) -> (Vec<Node>, Segment) {
        (self.nodes, self.segment)
    }
}

/// A segment in the state that it was frozen in, held.
pub(crate) fn restored_segment(
    plan: SegmentPlan,
    dir: &Path,
    state: SegmentState,
) -> Result<Segment, ClusterError> {
    let options = SegmentOptions {
        capture: Some(dir.join("segment.pcapng")),
        start_held: true,
        ..SegmentOptions::default()
    };
    Ok(Segment::restore(plan, options, state)?)
}

fn api_client(
    host: &Host,
    segment: &Segment,
    access: &Access,
) -> Result<kube::Client, ClusterError> {
    api::client(&segment.gateway(), access, host.limit(REQUEST))
        .map_err(|error| ClusterError::Client(Box::new(error)))
}

/// All of the machines as nodes, each with its host key where that is known, and when the first of
/// them answered.
async fn answering(
    host: &Host,
    powered: Vec<Powered>,
    keys: &[Option<&str>],
) -> Result<(Vec<Node>, Phase), ClusterError> {
    let started = Instant::now();
    let answering = powered.into_iter().zip(keys).map(|(powered, key)| async {
        let node = powered.answering(host, *key).await?;
        Ok::<_, ClusterError>((node, Phase::since(Phase::FIRST_ANSWER, started)))
    });
    let (nodes, answers): (Vec<_>, Vec<_>) = try_join_all(answering).await?.into_iter().unzip();
    let first = answers
        .into_iter()
        .min_by(|a, b| a.seconds.total_cmp(&b.seconds))
        .unwrap_or(Phase::since(Phase::FIRST_ANSWER, started));
    Ok((nodes, first))
}

async fn api_answers(host: &Host, api: &kube::Client) -> Result<(), ClusterError> {
    let limit = host.limit(API_READY);
    let started = Instant::now();
    loop {
        let Err(last) = ready(api).await else {
            return Ok(());
        };
        if started.elapsed() > limit {
            return Err(ClusterError::NotUp {
                node: addresses::API_NAME.to_owned(),
                unit: crate::units::API_SERVER.to_owned(),
                limit,
                state: last,
                journal: "(it ran when the stage was frozen)".to_owned(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}
