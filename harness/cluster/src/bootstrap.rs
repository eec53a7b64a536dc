//! The way from one stage to the next: what both bootstraps do alike, and a module for each.
//!
//! The gates here check that processes are healthy and Nodes register, and nothing else: no gate
//! looks at an address, a route, a name or a ClusterIP, because that is what scenarios assert.

use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod, Service};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use podwire_process::Report;

pub(crate) mod by_hand;
mod with_kubeadm;

use self::with_kubeadm::SystemPods;
use crate::addresses::node_name;
use crate::api::chain;
use crate::cell::{Bootstrap, Cell, PodNetwork};
use crate::node::Node;
use crate::node_files::{self, NodeFile, UNPACK, archive};
use crate::stuck::{self, StuckUnit};
use crate::workload::{self, REPLICAS_PER_NODE, WORKLOAD_SELECTOR, WORKLOAD_SERVICE};
use crate::{
    Cluster, ClusterError, Settings, StageName, flannel, identity, kubeadm, pod_manifest, units,
};

/// Unpacking the files and starting daemons.
const START: Duration = Duration::from_secs(30);
/// From the API server's start to its readiness.
const API_READY: Duration = Duration::from_secs(20);
/// From then to Ready Nodes, and from the workload's creation to running Pods.
const SETTLED: Duration = Duration::from_secs(40);
/// From kube-proxy's start to its first rules.
const PROXY_HEALTHY: Duration = Duration::from_secs(5);
/// Each look costs an emulated guest as much as a Pod's start: not too often.
const POLL: Duration = Duration::from_secs(1);
/// How often a wait asks what would have to act: for the same reason seldom, and not at all where
/// what is waited for comes in its usual time. Host time, whatever the machine.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(15);

/// The workload's Pods in a cluster of `nodes`.
pub(crate) fn replicas(nodes: u32) -> u32 {
    nodes * REPLICAS_PER_NODE
}

impl Cluster {
    /// Does what leads to a stage from its parent, and lets the cluster settle: what was still
    /// missing when the time for that ran out.
    pub(crate) async fn go_on_to(
        &mut self,
        stage: StageName,
        report: &dyn Report,
    ) -> Result<Option<String>, ClusterError> {
        let Cell {
            bootstrap, network, ..
        } = self.plan().cell;
        match (stage, bootstrap) {
            (StageName::Booted, _) => {}
            (StageName::ControlPlane, _) => self.start_control_plane(report).await?,
            (StageName::Init, _) => self.init(report).await?,
            (StageName::Joined, Bootstrap::ByHand) => self.start_nodes(report).await?,
            (StageName::Joined, Bootstrap::Kubeadm) => self.join(report).await?,
            (StageName::Cni, _) => self.add_pod_network(report).await?,
            (StageName::PodNetwork, Bootstrap::ByHand) => {
                report.step("start kube-proxy");
                self.start_kube_proxy().await?;
                self.add_pod_network(report).await?;
            }
            (StageName::PodNetwork, Bootstrap::Kubeadm) => {
                self.add_pod_network(report).await?;
                if network == PodNetwork::Routes {
                    report.step("add all routes");
                    self.add_all_routes().await?;
                }
            }
            (StageName::WorkloadBare, _) => self.create_workload(report).await?,
            (StageName::Workload, Bootstrap::ByHand) if network == PodNetwork::Routes => {
                report.step("add all routes, start kube-proxy");
                self.add_all_routes().await?;
                self.start_kube_proxy().await?;
            }
            (StageName::Workload, _) => {
                if bootstrap == Bootstrap::Kubeadm {
                    report.step("let the workload onto node1 too");
                    let limit = self.host().limit(START);
                    self.node(1).run_ok(kubeadm::UNTAINT, limit).await?;
                }
                self.create_workload(report).await?;
            }
        }
        report.step("let the cluster settle");
        let limit = self.host().limit(SETTLED);
        // The others' kubelets wait for kubeadm.
        let joined = match stage {
            StageName::Init => &self.nodes()[..1],
            _ => self.nodes(),
        };
        let mut lacking = Vec::new();
        // The Pod network before what runs on it: what is waited for is what does not come.
        if let Some(manifest) = &self.plan().pod_manifest
            && stage >= StageName::PodNetwork
        {
            let missing = async |api, _| manifest.lacking(api).await;
            lacking.extend(self.settle(joined, limit, report, missing).await?);
        }
        if bootstrap == Bootstrap::Kubeadm {
            let parts = SystemPods::of(stage, network);
            let missing = async |api, nodes| parts.lacking(api, nodes).await;
            lacking.extend(self.settle(joined, limit, report, missing).await?);
        }
        if stage >= StageName::Cni {
            lacking.extend(self.settle(joined, limit, report, nodes_lacking).await?);
        }
        if stage >= StageName::WorkloadBare {
            lacking.extend(self.settle(joined, limit, report, pods_lacking).await?);
        }
        if stage >= StageName::Workload || stage == StageName::PodNetwork {
            lacking.extend(self.proxies_lacking().await?);
        }
        if !lacking.is_empty() {
            let pods: Api<Pod> = Api::all(self.api());
            // Why is worth less than what: an API server that does not answer does not change it.
            let listed = pods.list(&ListParams::default()).await;
            let pods = listed.map(|pods| pods.items).unwrap_or_default();
            lacking.extend(pods.iter().filter_map(stumbling));
        }
        Ok((!lacking.is_empty()).then(|| lacking.join("; ")))
    }

    /// Brings the Pod network of the cluster's cell onto the nodes.
    async fn add_pod_network(&self, report: &dyn Report) -> Result<(), ClusterError> {
        match self.plan().cell.network {
            PodNetwork::Routes => {
                report.step("write a CNI file on every node");
                let each = self.nodes().iter().map(|node| async move {
                    let file = node_files::pod_network(node.number(), self.broken());
                    self.set_up(node, &[file], "true").await
                });
                try_join_all(each).await?;
            }
            PodNetwork::Flannel(backend) => {
                report.step("apply flannel's manifest");
                let file = pod_manifest::file(&format!("{:#}\n", flannel::manifest(backend)));
                self.set_up(self.node(1), &[file], pod_manifest::APPLY)
                    .await?;
            }
            PodNetwork::Manifest => {
                let manifest = self.plan().pod_manifest.as_ref();
                let manifest = manifest.ok_or(ClusterError::NoPodManifest)?;
                report.step(&format!("apply {}", manifest.name));
                let file = pod_manifest::file(&manifest.text);
                self.set_up(self.node(1), &[file], pod_manifest::APPLY)
                    .await?;
            }
        }
        Ok(())
    }

    /// Makes every node itself, see [`identity`].
    pub(crate) async fn take_identities(&self) -> Result<(), ClusterError> {
        let each = self.nodes().iter().zip(&self.credentials().nodes);
        let each = each.map(|(node, identity)| async move {
            self.set_up(node, &identity.files(node.number()), identity::TAKE)
                .await
        });
        try_join_all(each).await?;
        Ok(())
    }

    async fn create_workload(&self, report: &dyn Report) -> Result<(), ClusterError> {
        report.step("create the workload");
        let objects = workload::objects(replicas(self.plan().nodes));
        let (deployment, service) = objects.map_err(|source| ClusterError::Json {
            what: "the workload",
            source,
        })?;
        // Applied, not created: a request that timed out may have been carried out.
        let apply = PatchParams::apply("podwire");
        let services: Api<Service> = Api::default_namespaced(self.api());
        let deployments: Api<Deployment> = Api::default_namespaced(self.api());
        let name = WORKLOAD_SERVICE;
        let limit = self.host().limit(SETTLED);
        let created = self
            .wait(limit, report, async |_, _| {
                services
                    .patch(name, &apply, &Patch::Apply(&service))
                    .await?;
                deployments
                    .patch(name, &apply, &Patch::Apply(&deployment))
                    .await?;
                Ok(None)
            })
            .await?;
        match created {
            None => Ok(()),
            Some(state) => Err(self
                .not_up(self.node(1), units::API_SERVER, limit, state)
                .await),
        }
    }

    /// The nodes on which kube-proxy does not say of itself that it is healthy: that it has read all
    /// Services and written its rules.
    async fn proxies_lacking(&self) -> Result<Option<String>, ClusterError> {
        let limit = self.host().limit(PROXY_HEALTHY);
        // One process that asks again, instead of one per look.
        let command = format!(
            "curl -sSf -o /dev/null --max-time {0} --retry {0} --retry-delay 1 --retry-all-errors \
             --retry-max-time {0} http://127.0.0.1:10256/healthz",
            limit.as_secs()
        );
        let limit = limit * 2;
        let asked = self.nodes().iter().map(|node| node.run(&command, limit));
        let asked = try_join_all(asked).await?;
        let lacking: Vec<&str> = self
            .nodes()
            .iter()
            .zip(asked)
            .filter(|(_, output)| !output.status.success())
            .map(|(node, _)| node.name())
            .collect();
        let names = lacking.join(", ");
        Ok((!lacking.is_empty()).then(|| format!("kube-proxy is not healthy on {names}")))
    }

    fn settings(&self) -> Settings {
        Settings::of(self.plan().accelerator)
    }

    /// Writes files onto a node and runs a command there, in one go.
    async fn set_up(
        &self,
        node: &Node,
        files: &[NodeFile],
        command: &str,
    ) -> Result<(), ClusterError> {
        let files = archive(files).map_err(ClusterError::file("archive", "the node's files"))?;
        let command = format!("{UNPACK} && {command}");
        let limit = self.host().limit(START);
        node.run_with_input(&command, &files, limit).await?;
        Ok(())
    }

    async fn not_up(
        &self,
        node: &Node,
        unit: &str,
        limit: Duration,
        state: String,
    ) -> ClusterError {
        ClusterError::NotUp {
            node: node.name().to_owned(),
            unit: unit.to_owned(),
            limit,
            state,
            journal: node.last_words(self.host(), unit).await,
        }
    }

    /// As [`Cluster::wait_unless`], for what kubelets and containers have to do.
    async fn settle(
        &self,
        nodes: &[Node],
        limit: Duration,
        report: &dyn Report,
        lacking: impl AsyncFn(kube::Client, u32) -> Result<Option<String>, kube::Error>,
    ) -> Result<Option<String>, ClusterError> {
        let hopeless = async || self.will_not_settle(nodes).await;
        self.wait_unless(limit, report, hopeless, lacking).await
    }

    /// As [`Cluster::wait_unless`], whatever becomes of the daemons.
    async fn wait(
        &self,
        limit: Duration,
        report: &dyn Report,
        lacking: impl AsyncFn(kube::Client, u32) -> Result<Option<String>, kube::Error>,
    ) -> Result<Option<String>, ClusterError> {
        self.wait_unless(limit, report, async || None, lacking)
            .await
    }

    /// Waits until nothing is lacking; gives what still is when the time runs out, or when `hopeless`
    /// has said twice in a row why it will stay so. A busy API server that leaves a request unanswered
    /// is asked again.
    async fn wait_unless(
        &self,
        limit: Duration,
        report: &dyn Report,
        hopeless: impl AsyncFn() -> Option<String>,
        lacking: impl AsyncFn(kube::Client, u32) -> Result<Option<String>, kube::Error>,
    ) -> Result<Option<String>, ClusterError> {
        let started = Instant::now();
        let mut asked = started;
        let mut reason = None;
        loop {
            let state = match lacking(self.api(), self.plan().nodes).await {
                Ok(None) => return Ok(None),
                Ok(Some(state)) => state,
                Err(error) => {
                    let state = format!("the API server: {}", failing_checks(&error));
                    if is_refused(&error) {
                        return Ok(Some(state));
                    }
                    state
                }
            };
            report.waiting(&state);
            if let Some(fault) = self.fault() {
                return Err(fault.into());
            }
            if started.elapsed() > limit {
                return Ok(Some(state));
            }
            if asked.elapsed() >= BETWEEN_QUESTIONS {
                let before = reason.take();
                reason = hopeless().await;
                asked = Instant::now();
                if let Some(why) = reason.as_ref().filter(|_| before == reason) {
                    let clear = asked.duration_since(started).as_secs();
                    return Ok(Some(format!("{state}: {why} (given up after {clear} s)")));
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A unit of these nodes that will not act; what cannot be asked is no answer.
    async fn unit_down(&self, nodes: &[Node], unit: &str) -> Option<String> {
        let limit = self.host().limit(START);
        let command = stuck::show(unit);
        let asked = nodes.iter().map(|node| node.run(&command, limit));
        let mut answers = nodes.iter().zip(join_all(asked).await);
        answers.find_map(|(node, answer)| {
            let why = match stuck::unit(&answer.ok()?.stdout)? {
                StuckUnit::NotRunning(_) => "does not run",
                StuckUnit::EndsAgain => "ends again and again",
            };
            Some(format!("{unit} of {} {why}", node.name()))
        })
    }

    /// Why Pods, or Nodes, will not become ready any more; these are the nodes that are in the cluster.
    async fn will_not_settle(&self, nodes: &[Node]) -> Option<String> {
        if let Some(down) = self.unit_down(nodes, units::KUBELET).await {
            return Some(down);
        }
        let pods: Api<Pod> = Api::all(self.api());
        let pods = pods.list(&ListParams::default()).await.ok()?;
        let mut stuck = pods.iter().filter(|pod| stuck::container(pod).is_some());
        stuck.find_map(stumbling)
    }
}

/// Whether the API server says that it is ready; its words when it is not.
pub(crate) async fn ready(api: &kube::Client) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    match api.request_text(request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failing_checks(&error)),
    }
}

/// Whether the API server has understood a request and will never carry it out: a bad request, or an
/// invalid object. Others (conflict, too many, not there yet) pass.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 422))
}

/// The failing checks of `/readyz?verbose`'s text, `[-]etcd failed: ...`, without the passing ones.
fn failing_checks(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        return chain(error);
    };
    let failing = status.message.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("[-]")?.split_once(' ')?;
        Some(name)
    });
    let failing: Vec<&str> = failing.collect();
    if failing.is_empty() {
        return status.message.clone();
    }
    format!("not ready: {}", failing.join(", "))
}

/// The first Node that is not there yet: `node2 is not registered`.
async fn nodes_missing(api: kube::Client, nodes: u32) -> Result<Option<String>, kube::Error> {
    let listed = Api::<ApiNode>::all(api)
        .list(&ListParams::default())
        .await?;
    let listed: Vec<String> = listed.iter().map(name).collect();
    let missing = (1..=nodes)
        .map(node_name)
        .find(|name| !listed.contains(name));
    Ok(missing.map(|name| format!("{name} is not registered")))
}

async fn nodes_lacking(api: kube::Client, nodes: u32) -> Result<Option<String>, kube::Error> {
    let listed = Api::<ApiNode>::all(api)
        .list(&ListParams::default())
        .await?;
    let not_ready: Vec<String> = listed
        .iter()
        .filter(|node| !is_ready(node))
        .map(name)
        .collect();
    let listed = listed.items.len();
    Ok(if !not_ready.is_empty() {
        Some(format!("not Ready: {}", not_ready.join(", ")))
    } else if listed < nodes as usize {
        Some(format!("{listed} of {nodes} Nodes"))
    } else {
        None
    })
}

fn name<K: kube::Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

/// Ready, and open for Pods: the taints of a new Node go a moment after it is Ready, and Pods
/// created in between would crowd the others. kubeadm's taint of a control plane stays.
fn is_ready(node: &ApiNode) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let mut taints = taints.into_iter().flatten();
    if taints.any(|taint| taint.key != kubeadm::CONTROL_PLANE_TAINT) {
        return false;
    }
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| holds(&condition.type_, &condition.status))
}

async fn pods_lacking(api: kube::Client, nodes: u32) -> Result<Option<String>, kube::Error> {
    let of_workload = ListParams::default().labels(WORKLOAD_SELECTOR);
    let pods = Api::<Pod>::default_namespaced(api)
        .list(&of_workload)
        .await?;
    let wanted = replicas(nodes) as usize;
    let running = pods.iter().filter(|pod| is_running(pod)).count();
    Ok((running < wanted).then(|| format!("{running} of {wanted} Pods run")))
}

pub(crate) fn is_running(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| holds(&condition.type_, &condition.status))
}

/// Why a container of a Pod does not run, in the kubelet's words; nothing where it only takes time.
fn stumbling(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten();
    let mut containers = containers.chain(status.container_statuses.iter().flatten());
    containers.find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let ended = container.last_state.as_ref();
        let ended = ended.and_then(|state| state.terminated.as_ref());
        let ended = ended.map_or(String::new(), |it| format!(", ended with {}", it.exit_code));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        Some(format!(
            "{namespace}/{}: container {}: {reason}{ended}",
            name(pod),
            container.name
        ))
    })
}

fn holds(condition: &str, status: &str) -> bool {
    condition == "Ready" && status == "True"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_that_keeps_ending_is_told_from_one_that_takes_its_time() {
        let pod = |state: serde_json::Value, last: serde_json::Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": "ds-1", "namespace": "kube-flannel" },
                "status": { "containerStatuses": [{
                    "name": "flannel", "image": "", "imageID": "", "ready": false,
                    "restartCount": 3, "state": state, "lastState": last,
                }] },
            }))
            .unwrap()
        };
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        let ended = json!({ "terminated": { "exitCode": 2 } });
        assert_eq!(
            stumbling(&pod(waiting("CrashLoopBackOff"), ended)).as_deref(),
            Some("kube-flannel/ds-1: container flannel: CrashLoopBackOff, ended with 2")
        );
        assert_eq!(
            stumbling(&pod(waiting("ErrImageNeverPull"), json!({}))).as_deref(),
            Some("kube-flannel/ds-1: container flannel: ErrImageNeverPull")
        );
        assert_eq!(
            stumbling(&pod(waiting("ContainerCreating"), json!({}))),
            None
        );
        assert_eq!(stumbling(&pod(json!({ "running": {} }), json!({}))), None);
        assert_eq!(stumbling(&Pod::default()), None);
    }

    #[test]
    fn an_invalid_object_is_refused_for_good_and_a_busy_server_is_asked_again() {
        let of = |code: u16| {
            let status = kube::core::Status::failure("", "").with_code(code);
            is_refused(&kube::Error::Api(Box::new(status)))
        };
        assert!(of(400) && of(422));
        assert!(!of(404) && !of(409) && !of(429) && !of(500));
    }

    #[test]
    fn only_the_failing_checks_are_told() {
        let message = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: \
                       reason withheld\nreadyz check failed";
        let status = kube::core::Status::failure(message, "");
        let error = kube::Error::Api(Box::new(status));
        assert_eq!(
            failing_checks(&error),
            "not ready: etcd, poststarthook/rbac"
        );
    }

    #[test]
    fn a_ready_node_with_a_taint_takes_no_pods_yet() {
        let node = |taints: serde_json::Value| -> ApiNode {
            serde_json::from_value(json!({
                "metadata": { "name": "node1" },
                "spec": { "taints": taints },
                "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
            }))
            .unwrap()
        };
        assert!(is_ready(&node(json!([]))));
        let taint = json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }]);
        assert!(!is_ready(&node(taint)));
        let stays =
            json!([{ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }]);
        assert!(is_ready(&node(stays)));
    }
}
