//! A cluster that runs.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures::future::{join_all, select_all, try_join_all};
use podwire_lan::{NetworkPlan, Segment, SegmentOptions, SegmentState};
use podwire_vm::{MachineFault, Scheduled};

use super::api::{self, ready};
use super::host::Host;
use super::node::{Node, Powered};
use super::phase::Phase;
use super::wake::{Waking, wake};
use crate::parts::credentials::{Access, Credentials};
use crate::parts::pki::Pki;
use crate::plan::addresses;
use crate::plan::breaks::Break;
use crate::plan::cluster_plan::{ClusterPlan, ImageFiles};
use crate::plan::error::ClusterError;
use crate::plan::settings::Settings;

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
    /// But for how the API is reached: that is in `reached`.
    credentials: Credentials,
    broken: Option<Break>,
    dir: PathBuf,
    nodes: Vec<Node>,
    router: Option<Node>,
    reached: OnceLock<Reached>,
    phases: Vec<Phase>,
    // After the machines: their machines end before the segment does.
    segment: Segment,
}

/// How a cluster's API is reached, from when there is one.
struct Reached {
    access: Access,
    api: kube::Client,
}

/// What is known of a cluster that was frozen, beside its machines' files.
pub(crate) struct Frozen<'a> {
    pub(crate) plan: &'a ClusterPlan,
    pub(crate) image: &'a ImageFiles,
    pub(crate) credentials: Credentials,
    pub(crate) segment: SegmentState,
}

impl Cluster {
    /// Frozen machines, going on in the files that `waking` says.
    pub(crate) async fn woken(
        host: &Host,
        frozen: Frozen<'_>,
        waking: Vec<Waking>,
        dir: &Path,
        broken: Option<Break>,
    ) -> Result<Self, ClusterError> {
        let Frozen {
            plan,
            image,
            mut credentials,
            segment,
        } = frozen;
        let segment = restored_segment(plan.network(), dir, segment)?;
        let (powered, phases) = wake(host, plan, image, &segment, waking).await?;
        let keys = credentials.nodes.iter();
        // A router keeps the image's, and nobody logs in to it.
        let keys: Vec<_> = keys
            .map(|node| Some(node.ssh_host.public.as_str()))
            .chain([None])
            .collect();
        let reached = credentials.access.take();
        let reached = reached.map(|access| Reached::by(access, host, &segment));
        let reached = reached.transpose()?;
        let step = Instant::now();
        let answering = async {
            let (nodes, first) = answering(host, powered, &keys).await?;
            Ok::<_, ClusterError>((nodes, [first, Phase::since(Phase::NODES_ANSWER, step)]))
        };
        let api_ready = async {
            let Some(reached) = &reached else {
                return Ok(None);
            };
            api_answers(host, &reached.api).await?;
            Ok::<_, ClusterError>(Some(Phase::since(Phase::API_READY, step)))
        };
        // An API that is not ready is asked about on nodes that answer.
        let api_ready = async { Ok::<_, ClusterError>(api_ready.await) };
        let ((mut nodes, answers), api_ready) = tokio::try_join!(answering, api_ready)?;
        let router = without_router(&mut nodes, plan);
        let mut cluster = Self {
            host: host.clone(),
            plan: plan.clone(),
            credentials,
            broken,
            dir: dir.to_owned(),
            nodes,
            router,
            reached: reached.map(OnceLock::from).unwrap_or_default(),
            phases: phases.into_iter().chain(answers).collect(),
            segment,
        };
        let api_phase = cluster.explained(api_ready).await?;
        cluster.phases.extend(api_phase);
        Ok(cluster)
    }

    /// Machines that have just been cloned from booted ones, as the nodes of a cluster to be; see
    /// [`Cluster::on_the_segment`].
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
        let (mut nodes, _) = answering(host, powered, &keys).await?;
        Ok(Self {
            router: without_router(&mut nodes, plan),
            host: host.clone(),
            plan: plan.clone(),
            broken: plan.broken,
            credentials,
            dir: dir.to_owned(),
            nodes,
            reached: OnceLock::new(),
            phases: Vec::new(),
            segment,
        })
    }

    /// Waits until all machines have taken their leases.
    pub(crate) async fn on_the_segment(&self) -> Result<(), ClusterError> {
        let leases = self.machines().map(|node| node.on_the_segment(&self.host));
        try_join_all(leases).await?;
        Ok(())
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
        self.reached.get().map(|reached| &reached.access)
    }

    /// From now on its API is reached like this; once it is, it stays so.
    pub(crate) fn reach_api_with(&self, access: Access) -> Result<(), ClusterError> {
        let reached = Reached::by(access, &self.host, &self.segment)?;
        let _ = self.reached.set(reached);
        Ok(())
    }

    /// All that it proves itself with.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials {
            access: self.access().cloned(),
            ..self.credentials.clone()
        }
    }

    /// Its segment, or both of them.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same, with how long its disks took before it woke, and all of it since `started`.
    pub(crate) fn timed(mut self, disks: Phase, started: Instant) -> Self {
        self.phases.insert(0, disks);
        self.phases.push(Phase::since(Phase::CLONE, started));
        self
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

    /// The machine that leads from one of its segments to the other, where it has two.
    pub fn router(&self) -> Option<&Node> {
        self.router.as_ref()
    }

    /// All its machines: the nodes by number, then the router.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain(&self.router)
    }

    /// A client of its API, in `system:masters`. In a cluster of a stage without an API server every
    /// request fails and says so.
    pub fn api(&self) -> kube::Client {
        let reached = self.reached.get();
        reached.map_or_else(api::none, |reached| reached.api.clone())
    }

    /// The first fault of any of its machines.
    pub fn fault(&self) -> Option<MachineFault> {
        self.machines().find_map(|node| node.machine().fault())
    }

    /// What the host's scheduler says of its machines' threads so far; nothing where a machine has ended, or
    /// the kernel keeps no such account.
    pub fn scheduled(&self) -> Option<Scheduled> {
        let mut sum = Scheduled::default();
        for node in self.machines() {
            sum += node.machine().scheduled().ok()?;
        }
        Some(sum)
    }

    /// Resolves with the first fault of any of its machines as soon as it happens.
    pub async fn faulted(&self) -> MachineFault {
        let faults = self
            .machines()
            .map(|node| Box::pin(node.machine().faulted()));
        select_all(faults).await.0
    }

    /// Whose settings its components run with.
    pub fn settings(&self) -> Settings {
        Settings::of(self.plan.accelerator)
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

    pub(crate) fn broken(&self) -> Option<Break> {
        self.broken
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Where a node's machine keeps its console and transcripts.
    pub(crate) fn machine_dir(&self, node: &Node) -> PathBuf {
        self.dir.join(node.name())
    }

    /// What there is of a cluster without a machine.
    #[cfg(test)]
    pub(crate) fn without_nodes(dir: &Path) -> Self {
        use crate::plan::cell::{Bootstrap, Cell};
        use crate::plan::layout::Layout;
        use podwire_process::Spawner;
        use podwire_vm::Accelerator;

        let image = ImageFiles::default();
        let (cell, tcg) = (Cell::usual(Bootstrap::ByHand), Accelerator::Tcg);
        Self {
            host: Host {
                spawner: Spawner::start().unwrap(),
                qemu: PathBuf::new(),
                qemu_img: PathBuf::new(),
                accelerator: tcg,
                speed_factor: 1.0,
                tsc_khz: None,
            },
            plan: ClusterPlan::new(1, cell, "", &image, tcg, "", "", None).unwrap(),
            credentials: Credentials::default(),
            broken: None,
            dir: dir.to_owned(),
            nodes: Vec::new(),
            router: None,
            reached: OnceLock::new(),
            phases: Vec::new(),
            segment: Segment::start(Layout::Flat.network(1), SegmentOptions::default()).unwrap(),
        }
    }

    /// Ends its machines and its segment.
    pub async fn stop(self) {
        let (machines, segment) = self.taken_apart();
        join_all(machines.into_iter().map(Node::kill)).await;
        drop(segment);
    }

    /// Its machines and its segment; the connections to the API end.
    pub(crate) fn taken_apart(self) -> (Vec<Node>, Segment) {
        let machines = self.nodes.into_iter().chain(self.router);
        (machines.collect(), self.segment)
    }
}

/// Takes the router out of all machines, where the plan has one: it is the last.
fn without_router(machines: &mut Vec<Node>, plan: &ClusterPlan) -> Option<Node> {
    (machines.len() > plan.nodes as usize)
        .then(|| machines.pop())
        .flatten()
}

/// The segments in the state that they were frozen in, held.
pub(crate) fn restored_segment(
    plan: NetworkPlan,
    dir: &Path,
    state: SegmentState,
) -> Result<Segment, ClusterError> {
    let options = SegmentOptions {
        capture: Some(dir.join("segment.pcapng")),
        watch: true,
        start_held: true,
        ..SegmentOptions::default()
    };
    Ok(Segment::restore(plan, options, state)?)
}

impl Reached {
    fn by(access: Access, host: &Host, segment: &Segment) -> Result<Self, ClusterError> {
        let api = api::client(&segment.gateway(), &access, host.limit(REQUEST));
        let api = api.map_err(|error| ClusterError::Client(Box::new(error)))?;
        Ok(Self { access, api })
    }
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
                unit: crate::parts::units::API_SERVER.to_owned(),
                limit,
                state: last,
                journal: "(it ran when the stage was frozen)".to_owned(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}
