//! A Kubernetes by hand, one component at a time.
//!
//! The gates here check that processes are healthy and Nodes register, and nothing else: no gate
//! looks at an address, a route, a name or a ClusterIP, because that is what scenarios assert.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod, Service};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use podwire_lan::Segment;
use podwire_process::Report;
use podwire_vm::MachineSpec;
use tokio::sync::watch;

use crate::addresses::node_name;
use crate::api::{self, chain};
use crate::limits::GuestLimits;
use crate::node::{Node, Powered};
use crate::node_files::{UNPACK, archive, node_files};
use crate::pki::Pki;
use crate::workload::{self, REPLICAS_PER_NODE, WORKLOAD_SELECTOR, WORKLOAD_SERVICE};
use crate::{ClusterError, ClusterPlan, Host, Phase};

/// Unpacking the files and starting daemons.
const START: Duration = Duration::from_secs(30);
/// From the API server's start to its readiness.
const API_READY: Duration = Duration::from_secs(20);
/// From then to the registration of all Nodes.
const REGISTERED: Duration = Duration::from_secs(20);
/// From then to Ready Nodes, and from the workload's creation to running Pods.
const SETTLED: Duration = Duration::from_secs(40);
/// One request to the API.
const REQUEST: Duration = Duration::from_secs(10);
/// Each look costs an emulated guest as much as a Pod's start: not too often.
const POLL: Duration = Duration::from_secs(1);

/// Commands that start the daemons: on every node but the first; on the first before and after the
/// API server is ready. `enable` reads the new units as well, which saves a process.
pub(crate) const STARTED: [&str; 3] = [
    "systemctl enable --now node-network containerd kubelet",
    "systemctl enable --now etcd kube-apiserver",
    "systemctl enable --now kube-controller-manager kube-scheduler node-network containerd kubelet",
];

/// The workload's Pods in a cluster of `nodes`.
pub(crate) fn replicas(nodes: u32) -> u32 {
    nodes * REPLICAS_PER_NODE
}

/// What the bootstrap leaves.
pub(crate) struct Bootstrapped {
    pub(crate) nodes: Vec<Node>,
    pub(crate) api: kube::Client,
    /// What was still missing when the time to settle ran out.
    pub(crate) unsettled: Option<String>,
    pub(crate) phases: Vec<Phase>,
}

/// Boots the machines (`specs`, by number from 1) and makes them a cluster with its workload.
pub(crate) async fn bootstrap(
    host: &Host,
    plan: &ClusterPlan,
    pki: &Pki,
    segment: &Segment,
    specs: Vec<(MachineSpec, std::path::PathBuf)>,
    report: &dyn Report,
) -> Result<Bootstrapped, ClusterError> {
    let work = Work {
        host,
        plan,
        pki,
        segment,
        report,
    };
    let started = Instant::now();
    let limit = host.limit(REQUEST);
    let api = api::client(&segment.gateway(), pki, &pki.admin, limit)
        .map_err(|error| ClusterError::Client(Box::new(error)))?;
    let mut specs = (1..).zip(specs).collect::<Vec<_>>();
    let others = specs.split_off(1);
    let (first_is_up, wait_for_first) = watch::channel(false);

    report.step("boot node1 and start its control plane, while the others boot");
    let first = async {
        let mut phases = Vec::new();
        let mut first = None;
        for (number, (spec, logs)) in specs {
            let node = work.boot(number, spec, &logs).await?;
            phases.push(Phase::since("boot node1", started));
            first_is_up.send_replace(true);
            let starting = Instant::now();
            work.set_up(&node, STARTED[1]).await?;
            work.api_ready(&node, &api).await?;
            phases.push(Phase::since("control plane ready", starting));
            work.start(&node, STARTED[2]).await?;
            first = Some(node);
        }
        Ok::<_, ClusterError>((first, phases))
    };
    // Machines that boot together on few cores take longer than one after the other.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let others = async {
        let mut wait_for_first = wait_for_first;
        // The sender goes only with an error of the other branch, which then counts.
        let _ = wait_for_first.wait_for(|up| *up).await;
        let booting = stream::iter(others).map(|(number, (spec, logs))| {
            let work = &work;
            async move {
                let node = work.boot(number, spec, &logs).await?;
                work.set_up(&node, STARTED[0]).await?;
                Ok::<_, ClusterError>(node)
            }
        });
        let mut nodes: Vec<Node> = booting
            .buffer_unordered(cores.saturating_sub(1).max(1))
            .try_collect()
            .await?;
        nodes.sort_by_key(Node::number);
        Ok((nodes, Phase::since("all nodes booted", started)))
    };
    let ((first, mut phases), (others, booted)) = tokio::try_join!(first, others)?;
    phases.push(booted);
    let nodes: Vec<Node> = first.into_iter().chain(others).collect();

    let registering = Instant::now();
    work.registered(&nodes, &api).await?;
    phases.push(Phase::since("nodes registered", registering));

    report.step("let the cluster settle");
    let limit = host.limit(SETTLED);
    let settling = Instant::now();
    let not_ready = work.wait(&nodes, &api, limit, nodes_lacking).await?;
    phases.push(Phase::since("nodes ready", settling));
    phases.push(Phase::since("cold to ready nodes", started));
    let settling = Instant::now();
    work.create_workload(&nodes, &api).await?;
    let not_running = work.wait(&nodes, &api, limit, pods_lacking).await?;
    phases.push(Phase::since("workload running", settling));
    phases.push(Phase::since("cold to running workload", started));
    let lacking: Vec<String> = not_ready.into_iter().chain(not_running).collect();
    Ok(Bootstrapped {
        nodes,
        api,
        unsettled: (!lacking.is_empty()).then(|| lacking.join("; ")),
        phases,
    })
}

struct Work<'a> {
    host: &'a Host,
    plan: &'a ClusterPlan,
    pki: &'a Pki,
    segment: &'a Segment,
    report: &'a dyn Report,
}

impl Work<'_> {
    async fn boot(
        &self,
        number: u32,
        spec: MachineSpec,
        logs: &std::path::Path,
    ) -> Result<Node, ClusterError> {
        self.report
            .waiting(&format!("{} to boot", node_name(number)));
        let powered = Powered::on(self.host, self.segment, number, spec, logs).await?;
        powered.answering(self.host, self.segment).await
    }

    /// Writes a node's files and starts its daemons, in one go.
    async fn set_up(&self, node: &Node, start: &str) -> Result<(), ClusterError> {
        let limits = GuestLimits::of(self.plan.accelerator);
        let files = node_files(node.number(), self.pki, limits, self.plan.broken);
        let files = archive(&files).map_err(ClusterError::file("archive", "the node's files"))?;
        let command = format!("{UNPACK} && {start}");
        let limit = self.host.limit(START);
        node.run_with_input(&command, &files, limit).await?;
        Ok(())
    }

    async fn start(&self, node: &Node, start: &str) -> Result<(), ClusterError> {
        node.run_ok(start, self.host.limit(START)).await?;
        Ok(())
    }

    async fn api_ready(&self, node: &Node, api: &kube::Client) -> Result<(), ClusterError> {
        let limit = self.host.limit(API_READY);
        let lacking = async |api: kube::Client, _| Ok(ready(&api).await.err());
        let nodes = std::slice::from_ref(node);
        match self.wait(nodes, api, limit, lacking).await? {
            None => Ok(()),
            Some(state) => Err(self
                .not_up(node, crate::units::API_SERVER, limit, state)
                .await),
        }
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
            journal: node.last_words(self.host, unit).await,
        }
    }

    /// Waits until every kubelet has made its Node.
    async fn registered(&self, nodes: &[Node], api: &kube::Client) -> Result<(), ClusterError> {
        let limit = self.host.limit(REGISTERED);
        let Some(state) = self.wait(nodes, api, limit, nodes_missing).await? else {
            return Ok(());
        };
        let is_meant = |node: &&Node| state.starts_with(&format!("{} ", node.name()));
        let (node, unit) = match nodes.iter().find(is_meant) {
            Some(missing) => (missing, crate::units::KUBELET),
            None => (&nodes[0], crate::units::API_SERVER),
        };
        Err(self.not_up(node, unit, limit, state).await)
    }

    async fn create_workload(
        &self,
        nodes: &[Node],
        api: &kube::Client,
    ) -> Result<(), ClusterError> {
        self.report.step("create the workload");
        let objects = workload::objects(replicas(self.plan.nodes));
        let (deployment, service) = objects.map_err(|source| ClusterError::Json {
            what: "the workload",
            source,
        })?;
        // Applied, not created: a request that timed out may have been carried out.
        let apply = PatchParams::apply("podwire");
        let services: Api<Service> = Api::default_namespaced(api.clone());
        let deployments: Api<Deployment> = Api::default_namespaced(api.clone());
        let name = WORKLOAD_SERVICE;
        let limit = self.host.limit(SETTLED);
        let created = self
            .wait(nodes, api, limit, async |_, _| {
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
                .not_up(&nodes[0], crate::units::API_SERVER, limit, state)
                .await),
        }
    }

    /// Waits until nothing is lacking; gives what still is when the time runs out. A busy API
    /// server that leaves a request unanswered is asked again.
    async fn wait(
        &self,
        nodes: &[Node],
        api: &kube::Client,
        limit: Duration,
        lacking: impl AsyncFn(kube::Client, u32) -> Result<Option<String>, kube::Error>,
    ) -> Result<Option<String>, ClusterError> {
        let started = Instant::now();
        loop {
            let state = match lacking(api.clone(), self.plan.nodes).await {
                Ok(None) => return Ok(None),
                Ok(Some(state)) => state,
                Err(error) => format!("the API server: {}", failing_checks(&error)),
            };
            self.report.waiting(&state);
            if let Some(fault) = nodes.iter().find_map(|node| node.machine().fault()) {
                return Err(fault.into());
            }
            if started.elapsed() > limit {
                return Ok(Some(state));
            }
            tokio::time::sleep(POLL).await;
        }
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
/// created in between would crowd the others.
fn is_ready(node: &ApiNode) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    if taints.is_some_and(|taints| !taints.is_empty()) {
        return false;
    }
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
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
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
    }
}
