//! A running clone of a stage.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::{join_all, select_all, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use kube::Api;
use kube::api::{AttachParams, ListParams, Patch, PatchParams};
use podwire_lan::{Ipv4Net, Segment, SegmentOptions, SegmentState};
use podwire_probe::{FetchReport, FetchRequest};
use podwire_vm::{ExitStatus, MachineFault, Output, Ram, create_overlay};
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::addresses::{self, node_number, pod_range};
use crate::api::{self, chain};
use crate::bootstrap::{is_running, ready};
use crate::cell::PodNetwork;
use crate::network;
use crate::node::{Node, Powered};
use crate::pki::Pki;
use crate::stage::{Access, Credentials, MachineFiles, Phase, Stage};
use crate::wake::{Waking, wake};
use crate::workload::WORKLOAD_SERVICE;
use crate::{Break, ClusterError, ClusterPlan, Host, kubeconfig};

/// An ordinary command on a node.
const COMMAND: Duration = Duration::from_secs(10);
/// One request to the API.
const REQUEST: Duration = Duration::from_secs(10);
/// From waking up to an API server that says it is ready.
const API_READY: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// A Pod, as far as scenarios look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity: another Pod of the same name has another.
    pub uid: String,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// That node's number.
    pub node_number: Option<u32>,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// `Pending`, `Running`, ...
    pub phase: String,
    /// Whether its Ready condition holds.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Restarts of all its containers together.
    pub restarts: u32,
}

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
    /// `dir`. It is there when SSH answers on every node and the API server says that it is ready.
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
        let mut cluster = Self::woken(host, stage, waking, dir, broken).await?;
        cluster.phases.insert(0, disks);
        cluster.phases.push(Phase::since(Phase::CLONE, started));
        Ok(cluster)
    }

    /// A stage's machines, going on in the files that `waking` says.
    pub(crate) async fn woken(
        host: &Host,
        stage: &Stage,
        waking: Vec<Waking>,
        dir: &Path,
        broken: Option<Break>,
    ) -> Result<Self, ClusterError> {
        let manifest = &stage.manifest;
        let Some(credentials) = manifest.credentials.clone() else {
            return Err(ClusterError::NoCluster {
                stage: manifest.name,
            });
        };
        let segment = restored_segment(&manifest.plan, dir, manifest.segment.clone())?;
        let (powered, phases) =
            wake(host, &manifest.plan, &manifest.image, &segment, waking).await?;
        let keys = credentials.nodes.iter();
        let keys: Vec<_> = keys
            .map(|node| Some(node.ssh_host.public.as_str()))
            .collect();
        let api = match &credentials.access {
            Some(access) => api_client(host, &segment, access)?,
            None => {
                return Err(ClusterError::NoCluster {
                    stage: manifest.name,
                });
            }
        };
        let step = Instant::now();
        let answering = async {
            let (nodes, first) = answering(host, &segment, powered, &keys).await?;
            Ok((nodes, [first, Phase::since(Phase::SSH_ANSWERS, step)]))
        };
        let api_ready = async {
            api_answers(host, &api).await?;
            Ok::<_, ClusterError>(Phase::since(Phase::API_READY, step))
        };
        let ((nodes, ssh), api_phase) = tokio::try_join!(answering, api_ready)?;
        Ok(Self {
            host: host.clone(),
            plan: manifest.plan.clone(),
            credentials,
            broken,
            dir: dir.to_owned(),
            nodes,
            api,
            phases: phases.into_iter().chain(ssh).chain([api_phase]).collect(),
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
        let api = match &credentials.access {
            Some(access) => api_client(host, &segment, access)?,
            None => api::none(),
        };
        // The image's host key, until each has taken its identity.
        let keys = vec![None; powered.len()];
        let (nodes, _) = answering(host, &segment, powered, &keys).await?;
        Ok(Self {
            host: host.clone(),
            plan: plan.clone(),
            broken: plan.broken,
            credentials,
            dir: dir.to_owned(),
            nodes,
            api,
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

    pub(crate) fn broken(&self) -> Option<Break> {
        self.broken
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

    /// A client of its API, in `system:masters`.
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
        match network::add_routes(on, &[to], self.broken) {
            Some(command) => self.carry_out(on, &command).await,
            None => Ok(()),
        }
    }

    /// Adds all N x (N-1) routes, as [`Cluster::add_route`].
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn add_all_routes(&self) -> Result<(), ClusterError> {
        let routes = network::all_routes(self.plan.nodes, self.broken);
        let each = routes.iter();
        try_join_all(each.map(|(on, command)| self.carry_out(*on, command))).await?;
        Ok(())
    }

    /// Deletes the route to the Pods of node `to` from node `on`. One that is not there stays so.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn delete_route(&self, on: u32, to: u32) -> Result<(), ClusterError> {
        // What was left out needs no deletion: only then is absence no error.
        if network::is_left_out(on, to, self.broken) {
            return Ok(());
        }
        self.carry_out(on, &format!("ip route delete {}", network::route(to)))
            .await
    }

    /// Starts kube-proxy on every node. With [`Break::KubeProxy`], its kubeconfig leads nowhere.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn start_kube_proxy(&self) -> Result<(), ClusterError> {
        let limit = self.host.limit(COMMAND);
        if let Some(text) = network::proxy_override(self.pki()?, self.broken) {
            let path = kubeconfig::KUBE_PROXY_PATH;
            let writes = self
                .nodes
                .iter()
                .map(|node| node.write(path, text.as_bytes(), 0o600, limit));
            try_join_all(writes).await?;
        }
        let numbers = self.nodes.iter().map(Node::number);
        try_join_all(numbers.map(|number| self.carry_out(number, network::START_PROXY))).await?;
        Ok(())
    }

    async fn carry_out(&self, on: u32, command: &str) -> Result<(), ClusterError> {
        let limit = self.host.limit(COMMAND);
        self.node(on).run_ok(command, limit).await?;
        Ok(())
    }

    /// Lets a node reboot, and waits until it answers again.
    ///
    /// # Errors
    /// [`ClusterError::NoSsh`] when it does not come back.
    pub async fn reboot(&self, number: u32) -> Result<(), ClusterError> {
        let node = self.node(number);
        let before = node.boot(&self.host).await?;
        // The connection may end before the command does.
        let _ = node.run("systemctl reboot", self.host.limit(COMMAND)).await;
        node.booted_again(&self.host, &self.segment, &before).await
    }

    /// Cuts a node's power, switches it on again, and waits until it answers.
    ///
    /// # Errors
    /// [`ClusterError::NoSsh`] when it does not come back.
    pub async fn cut_power(&self, number: u32) -> Result<(), ClusterError> {
        let node = self.node(number);
        let before = node.boot(&self.host).await?;
        node.machine().reset().await?;
        node.booted_again(&self.host, &self.segment, &before).await
    }

    /// Sends requests from a node.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no report; what became of the requests is in it.
    pub async fn fetch_from_node(
        &self,
        node: u32,
        request: &FetchRequest,
    ) -> Result<FetchReport, ClusterError> {
        self.fetch(node, "probe fetch", request).await
    }

    /// Sends requests from inside the Pod with this address on this node: its own server carries
    /// them out, which the node reaches without any route.
    ///
    /// # Errors
    /// As [`Cluster::fetch_from_node`].
    pub async fn fetch_from_pod(
        &self,
        node: u32,
        pod: Ipv4Addr,
        request: &FetchRequest,
    ) -> Result<FetchReport, ClusterError> {
        self.fetch(node, &format!("probe fetch --via {pod}:80"), request)
            .await
    }

    async fn fetch(
        &self,
        node: u32,
        command: &str,
        request: &FetchRequest,
    ) -> Result<FetchReport, ClusterError> {
        let text = serde_json::to_vec(request).map_err(|source| ClusterError::Json {
            what: "a request for the probe",
            source,
        })?;
        let limit = self.host.limit(COMMAND) + request.longest();
        let node = self.node(node);
        let output = node.run_with_input(command, &text, limit).await?;
        serde_json::from_str(&output).map_err(|source| ClusterError::Probe {
            node: node.name().to_owned(),
            output,
            source,
        })
    }

    /// The Pods of the namespace `default` with these labels; all of them for an empty selector.
    ///
    /// # Errors
    /// [`ClusterError::Api`].
    pub async fn pods(&self, selector: &str) -> Result<Vec<PodRef>, ClusterError> {
        let pods: Api<Pod> = Api::default_namespaced(self.api());
        let listed = pods.list(&ListParams::default().labels(selector)).await;
        let listed = listed.map_err(ClusterError::api("list the Pods"))?;
        Ok(listed.items.into_iter().map(pod_ref).collect())
    }

    /// The range that the Pods of each node have their addresses from, by the node's number. Where
    /// the controller manager gives them out, a Node that has just come may have none yet. Nothing
    /// for a Pod network of the user's, which may take its addresses from anywhere.
    ///
    /// # Errors
    /// [`ClusterError::Api`].
    pub async fn pod_ranges(&self) -> Result<Option<BTreeMap<u32, Ipv4Net>>, ClusterError> {
        match self.plan.cell.network {
            PodNetwork::Manifest => return Ok(None),
            PodNetwork::Routes => {
                let numbers = 1..=self.plan.nodes;
                let ranges = numbers.map(|number| (number, pod_range(number)));
                return Ok(Some(ranges.collect()));
            }
            PodNetwork::Flannel(_) => {}
        }
        let nodes: Api<ApiNode> = Api::all(self.api());
        let listed = nodes.list(&ListParams::default()).await;
        let listed = listed.map_err(ClusterError::api("list the Nodes"))?;
        let ranges = listed.items.into_iter().filter_map(|node| {
            let number = node_number(node.metadata.name.as_deref()?)?;
            Some((number, node.spec?.pod_cidr?.parse().ok()?))
        });
        Ok(Some(ranges.collect()))
    }

    /// Sets the workload's number of Pods.
    ///
    /// # Errors
    /// [`ClusterError::Api`].
    pub async fn scale_workload(&self, replicas: u32) -> Result<(), ClusterError> {
        let deployments: Api<Deployment> = Api::default_namespaced(self.api());
        let scale = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        let scaled = deployments
            .patch_scale(WORKLOAD_SERVICE, &PatchParams::default(), &scale)
            .await;
        scaled.map_err(ClusterError::api("scale the workload"))?;
        Ok(())
    }

    /// Runs a program in a Pod's first container, as `kubectl exec` does: by the API server and
    /// the kubelet. Another exit status than 0 is not an error.
    ///
    /// # Errors
    /// [`ClusterError::Exec`] when nothing ran, or not to its end within the limit.
    pub async fn exec_in_pod(
        &self,
        pod: &str,
        command: &[&str],
        limit: Duration,
    ) -> Result<Output, ClusterError> {
        let failed = |reason: String| ClusterError::Exec {
            pod: pod.to_owned(),
            command: command.join(" "),
            reason,
        };
        match tokio::time::timeout(limit, self.exec(pod, command)).await {
            Ok(done) => done.map_err(failed),
            Err(_) => Err(failed(format!("not done within {} s", limit.as_secs()))),
        }
    }

    async fn exec(&self, pod: &str, command: &[&str]) -> Result<Output, String> {
        let pods: Api<Pod> = Api::default_namespaced(self.api());
        let streams = AttachParams::default().stdout(true).stderr(true);
        let attached = pods.exec(pod, command.iter().copied(), &streams).await;
        let mut attached = attached.map_err(|error| chain(&error))?;
        let (Some(mut out), Some(mut err), Some(status)) =
            (attached.stdout(), attached.stderr(), attached.take_status())
        else {
            return Err("the API server opened no streams".to_owned());
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (read_out, read_err, status) = tokio::join!(
            out.read_to_end(&mut stdout),
            err.read_to_end(&mut stderr),
            status
        );
        read_out.and(read_err).map_err(|error| error.to_string())?;
        let status = status.ok_or("the session ended without a status")?;
        let status = match status.status.as_deref() {
            Some("Success") => ExitStatus::Code(0),
            _ => exit_code(&status).ok_or_else(|| status.message.clone().unwrap_or_default())?,
        };
        Ok(Output {
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
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
    plan: &ClusterPlan,
    dir: &Path,
    state: SegmentState,
) -> Result<Segment, ClusterError> {
    let options = SegmentOptions {
        capture: Some(dir.join("segment.pcapng")),
        start_held: true,
        ..SegmentOptions::default()
    };
    Ok(Segment::restore(
        addresses::segment(plan.nodes),
        options,
        state,
    )?)
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
    segment: &Segment,
    powered: Vec<Powered>,
    keys: &[Option<&str>],
) -> Result<(Vec<Node>, Phase), ClusterError> {
    let started = Instant::now();
    let answering = powered.into_iter().zip(keys).map(|(powered, key)| async {
        let node = powered.answering(host, segment, *key).await?;
        Ok::<_, ClusterError>((node, Phase::since(Phase::FIRST_ANSWER, started)))
    });
    let (nodes, answers): (Vec<_>, Vec<_>) = try_join_all(answering).await?.into_iter().unzip();
    let first = answers
        .into_iter()
        .min_by(|a, b| a.seconds.total_cmp(&b.seconds))
        .unwrap_or(Phase::since(Phase::FIRST_ANSWER, started));
    Ok((nodes, first))
}

/// The exit code in a failed exec's status (meta/v1 Status, cause `ExitCode`).
fn exit_code(
    status: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Status,
) -> Option<ExitStatus> {
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let cause = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
    Some(ExitStatus::Code(cause.message.as_ref()?.parse().ok()?))
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

fn pod_ref(pod: Pod) -> PodRef {
    let ready = is_running(&pod);
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let restarts = status.container_statuses.unwrap_or_default();
    let restarts = restarts.iter().map(|status| status.restart_count);
    PodRef {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        uid: pod.metadata.uid.unwrap_or_default(),
        node_number: spec.node_name.as_deref().and_then(node_number),
        node: spec.node_name,
        ip: status.pod_ip.and_then(|address| address.parse().ok()),
        phase: status.phase.unwrap_or_default(),
        ready,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        restarts: restarts.map(i32::unsigned_abs).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_read_from_the_api() {
        let pod = json!({
            "metadata": {
                "name": "blue-1", "namespace": "default", "uid": "u",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": { "nodeName": "node2", "containers": [] },
            "status": {
                "phase": "Running", "podIP": "10.1.2.3",
                "conditions": [{ "type": "Ready", "status": "True" }],
                "containerStatuses": [
                    { "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 2 },
                    { "name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 1 },
                ],
            },
        });
        let pod = pod_ref(serde_json::from_value(pod).unwrap());
        assert_eq!(
            (pod.node_number, pod.ip),
            (Some(2), Some(Ipv4Addr::new(10, 1, 2, 3)))
        );
        assert!(pod.ready && pod.terminating);
        assert_eq!(pod.restarts, 3);
        assert!(!pod_ref(Pod::default()).ready);
    }

    #[test]
    fn an_exit_code_is_found_in_a_failed_exec() {
        let status = json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": "3" }] },
        });
        let status = serde_json::from_value(status).unwrap();
        assert_eq!(exit_code(&status), Some(ExitStatus::Code(3)));
        assert_eq!(exit_code(&Default::default()), None);
    }
}
