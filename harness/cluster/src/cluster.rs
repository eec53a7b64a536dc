//! A running clone of a stage.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::{join_all, select_all, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, ListParams, Patch, PatchParams};
use podwire_lan::{Segment, SegmentOptions};
use podwire_probe::{FetchReport, FetchRequest};
use podwire_vm::{ExitStatus, MachineFault, Output, Ram, create_overlay};
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::addresses::{self, node_address, node_number, pod_range};
use crate::api::{self, chain};
use crate::bootstrap::{is_running, ready};
use crate::node::{Node, Powered};
use crate::pki::Pki;
use crate::stage::{NodeFiles, Phase, Stage};
use crate::workload::WORKLOAD_SERVICE;
use crate::{Break, ClusterError, ClusterPlan, Host, kubeconfig};

/// An ordinary command on a node.
const COMMAND: Duration = Duration::from_secs(10);
/// One request to the API.
const REQUEST: Duration = Duration::from_secs(10);
/// From waking up to an API server that says it is ready.
const API_READY: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// A port on which nothing listens anywhere.
const DEAD_PORT: u16 = 1;

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
    pki: Pki,
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
    /// [`ClusterError`]; then nothing of it runs any more.
    pub async fn clone_of(
        host: &Host,
        stage: &Stage,
        dir: &Path,
        broken: Option<Break>,
    ) -> Result<Self, ClusterError> {
        let manifest = &stage.manifest;
        let plan = &manifest.plan;
        let started = Instant::now();
        let mut phases = Vec::new();
        let options = SegmentOptions {
            capture: Some(dir.join("segment.pcapng")),
            start_held: true,
            ..SegmentOptions::default()
        };
        let segment = addresses::segment(plan.nodes);
        let segment = Segment::restore(segment, options, manifest.segment.clone())?;
        let mut specs = Vec::new();
        for number in 1..=plan.nodes {
            let frozen = NodeFiles::of(&stage.dir, number);
            let own = NodeFiles::of(dir, number);
            fs::create_dir_all(own.dir()).map_err(ClusterError::file("make", own.dir()))?;
            create_overlay(&host.qemu_img, &frozen.disk(), &own.disk())?;
            let ram = Ram::Clone(frozen.ram());
            let image = &manifest.image;
            let spec = plan.machine(number, &image.kernel, &image.initrd, own.disk(), ram);
            specs.push((number, spec, own));
        }
        phases.push(Phase::since("disks", started));

        let step = Instant::now();
        let powered = specs.into_iter().map(|(number, spec, own)| {
            let segment = &segment;
            async move { Powered::on(host, segment, number, spec, own.dir()).await }
        });
        let powered = try_join_all(powered).await?;
        phases.push(Phase::since("start QEMU", step));

        let step = Instant::now();
        let loads = (1..).zip(&powered).map(|(number, powered)| {
            let state = NodeFiles::of(&stage.dir, number).state();
            async move { powered.machine.load(&state).await }
        });
        try_join_all(loads).await?;
        phases.push(Phase::since("load", step));

        let step = Instant::now();
        try_join_all(powered.iter().map(|powered| powered.machine.resume())).await?;
        segment.release()?;
        phases.push(Phase::since("resume", step));

        let step = Instant::now();
        let limit = host.limit(REQUEST);
        let pki = manifest.pki.clone();
        let api = api::client(&segment.gateway(), &pki, &pki.admin, limit)
            .map_err(|error| ClusterError::Client(Box::new(error)))?;
        let answering = async {
            let answering = powered
                .into_iter()
                .map(|powered| powered.answering(host, &segment));
            let nodes = try_join_all(answering).await?;
            Ok((nodes, Phase::since("SSH answers", step)))
        };
        let api_ready = async {
            api_answers(host, &api).await?;
            Ok::<_, ClusterError>(Phase::since("API ready", step))
        };
        let ((nodes, ssh), api_phase) = tokio::try_join!(answering, api_ready)?;
        phases.extend([ssh, api_phase, Phase::since("clone", started)]);
        Ok(Self {
            host: host.clone(),
            plan: plan.clone(),
            pki,
            broken,
            dir: dir.to_owned(),
            nodes,
            api,
            phases,
            segment,
        })
    }

    /// Its plan.
    pub fn plan(&self) -> &ClusterPlan {
        &self.plan
    }

    /// Its keys and certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
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
        self.add_routes(on, &[to]).await
    }

    /// Adds all N x (N-1) routes, as [`Cluster::add_route`].
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn add_all_routes(&self) -> Result<(), ClusterError> {
        let numbers: Vec<u32> = self.nodes.iter().map(Node::number).collect();
        let each = numbers.iter().map(|on| {
            let others: Vec<u32> = numbers.iter().copied().filter(|to| to != on).collect();
            async move { self.add_routes(*on, &others).await }
        });
        try_join_all(each).await?;
        Ok(())
    }

    async fn add_routes(&self, on: u32, to: &[u32]) -> Result<(), ClusterError> {
        let broken = self.broken == Some(Break::Route);
        let commands: Vec<String> = to
            .iter()
            .filter(|to| !(broken && (on, **to) == (1, 2)))
            .map(|to| format!("ip route replace {}", route(*to)))
            .collect();
        if commands.is_empty() {
            return Ok(());
        }
        self.carry_out(on, &commands.join(" && ")).await
    }

    /// Deletes the route to the Pods of node `to` from node `on`. One that is not there stays so.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn delete_route(&self, on: u32, to: u32) -> Result<(), ClusterError> {
        // With `Break::Route` there is nothing to delete: only then is absence no error.
        if self.broken == Some(Break::Route) && (on, to) == (1, 2) {
            return Ok(());
        }
        self.carry_out(on, &format!("ip route delete {}", route(to)))
            .await
    }

    /// Starts kube-proxy on every node. With [`Break::KubeProxy`], its kubeconfig leads nowhere.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn start_kube_proxy(&self) -> Result<(), ClusterError> {
        let limit = self.host.limit(COMMAND);
        if self.broken == Some(Break::KubeProxy) {
            let server = format!("https://{}:{DEAD_PORT}", addresses::API_NAME);
            let ca = &self.pki.ca.certificate;
            let text = kubeconfig::embedded(&server, ca, &self.pki.kube_proxy);
            let path = kubeconfig::KUBE_PROXY_PATH;
            let writes = self
                .nodes
                .iter()
                .map(|node| node.write(path, text.as_bytes(), 0o600, limit));
            try_join_all(writes).await?;
        }
        self.on_every_node("systemctl start kube-proxy").await
    }

    async fn on_every_node(&self, command: &str) -> Result<(), ClusterError> {
        let numbers = self.nodes.iter().map(Node::number);
        try_join_all(numbers.map(|number| self.carry_out(number, command))).await?;
        Ok(())
    }

    async fn carry_out(&self, on: u32, command: &str) -> Result<(), ClusterError> {
        let limit = self.host.limit(COMMAND);
        self.node(on).run_ok(command, limit).await?;
        Ok(())
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
        NodeFiles::of(&self.dir, node.number()).dir().to_owned()
    }

    /// Ends its machines and its segment.
    pub async fn stop(self) {
        let Self {
            nodes,
            api,
            segment,
            ..
        } = self;
        drop(api);
        join_all(nodes.into_iter().map(Node::kill)).await;
        drop(segment);
    }
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

fn route(to: u32) -> String {
    format!("{} via {}", pod_range(to), node_address(to))
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
    fn a_route_is_as_the_documents_type_it() {
        insta::assert_snapshot!(route(2), @"10.1.2.0/24 via 172.30.0.12");
    }

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
