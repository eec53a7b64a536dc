//! What is waited for, while a step is carried out and before its stage is frozen.

use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Event, Node as ApiNode, Pod};
use kube::Api;
use kube::api::ListParams;
use podwire_process::Report;

use super::api::{failing_checks, is_refused};
use super::cluster::Cluster;
use super::node::Node;
use super::readiness::{is_running, name, stumbling, takes_no_pods};
use super::stuck::{self, NoSandbox, StuckUnit};
use crate::parts::units;
use crate::plan::addresses::node_name;
use crate::plan::error::ClusterError;
use crate::plan::pod_manifest::{Controller, ControllerKind};
use crate::steps::step::{Pods, Settled, Settling};

/// Asking systemd for a unit's state.
const COMMAND: Duration = Duration::from_secs(30);
/// Each look costs an emulated guest as much as a Pod's start: not too often.
const POLL: Duration = Duration::from_secs(1);
/// How often a wait asks what would have to act: for the same reason seldom, and not at all where
/// what is waited for comes in its usual time. Host time, whatever the machine.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(15);

/// What is to be expected of a wait, by those who would have to act.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// Nothing speaks against it.
    Open,
    /// What may pass, and is told to who waits.
    Doubtful(String),
    /// Why it will stay so.
    Hopeless(String),
}

/// Of what is no hope, if there is such a thing.
impl From<Option<String>> for Prospect {
    fn from(why: Option<String>) -> Self {
        why.map_or(Self::Open, Self::Hopeless)
    }
}

impl Cluster {
    /// Lets the cluster settle: what was still missing when the time for that ran out.
    pub(crate) async fn settle(
        &self,
        settles: &Settling,
        report: &dyn Report,
    ) -> Result<Option<String>, ClusterError> {
        let limit = self.host().limit(settles.limit);
        let joined: Vec<&Node> = settles.nodes.iter().map(|it| self.node(*it)).collect();
        let prospect = async || self.prospect(&joined).await;
        let mut lacking = Vec::new();
        for settled in &settles.when {
            let state = match settled {
                Settled::ProxiesHealthy { nodes, limit } => {
                    self.proxies_lacking(*nodes, *limit).await?
                }
                by_api => {
                    let missing = async |api| by_api.lacking(api).await;
                    self.wait_unless(limit, report, prospect, missing).await?
                }
            };
            lacking.extend(state);
        }
        Ok(match lacking.is_empty() {
            true => None,
            false => Some(self.with_why(&joined, lacking.join("; ")).await),
        })
    }

    /// What is lacking, and what keeps Pods from running where that does not say it: each container that does not run,
    /// and a Pod without a sandbox. Why is worth less than what: an API server that does not answer changes nothing.
    async fn with_why(&self, nodes: &[&Node], lacking: String) -> String {
        let pods = self.all_pods().await;
        let without = self.without_sandbox(nodes, &pods).await;
        let why = pods.iter().filter_map(stumbling);
        let why = why.chain(without.map(|it| it.said));
        why.fold(lacking, |told, why| match told.contains(&why) {
            true => told,
            false => format!("{told}; {why}"),
        })
    }

    async fn all_pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::all(self.api());
        let listed = pods.list(&ListParams::default()).await;
        listed.map(|pods| pods.items).unwrap_or_default()
    }

    /// The nodes on which kube-proxy does not say of itself that it is healthy: that it has read all
    /// Services and written its rules.
    async fn proxies_lacking(
        &self,
        nodes: u32,
        limit: Duration,
    ) -> Result<Option<String>, ClusterError> {
        let limit = self.host().limit(limit);
        let nodes = &self.nodes()[..nodes as usize];
        // One process that asks again, instead of one per look.
        let command = format!(
            "curl -sSf -o /dev/null --max-time {0} --retry {0} --retry-delay 1 --retry-all-errors \
             --retry-max-time {0} http://127.0.0.1:10256/healthz",
            limit.as_secs()
        );
        let limit = limit * 2;
        let asked = nodes.iter().map(|node| node.run(&command, limit));
        let asked = try_join_all(asked).await?;
        let lacking: Vec<&str> = nodes
            .iter()
            .zip(asked)
            .filter(|(_, output)| !output.status.success())
            .map(|(node, _)| node.name())
            .collect();
        let names = lacking.join(", ");
        Ok((!lacking.is_empty()).then(|| format!("kube-proxy is not healthy on {names}")))
    }

    pub(crate) async fn not_up(
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

    /// As [`Cluster::wait_unless`], whatever becomes of the daemons.
    pub(crate) async fn wait(
        &self,
        limit: Duration,
        report: &dyn Report,
        lacking: impl AsyncFn(kube::Client) -> Result<Option<String>, kube::Error>,
    ) -> Result<Option<String>, ClusterError> {
        self.wait_unless(limit, report, async || Prospect::Open, lacking)
            .await
    }

    /// Waits until nothing is lacking; gives what still is when the time runs out, or when `prospect`
    /// has said twice in a row why it will stay so. A busy API server that leaves a request unanswered
    /// is asked again.
    pub(crate) async fn wait_unless(
        &self,
        limit: Duration,
        report: &dyn Report,
        prospect: impl AsyncFn() -> Prospect,
        lacking: impl AsyncFn(kube::Client) -> Result<Option<String>, kube::Error>,
    ) -> Result<Option<String>, ClusterError> {
        let started = Instant::now();
        let mut asked = started;
        let mut last = Prospect::Open;
        loop {
            let state = match lacking(self.api()).await {
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
            match &last {
                Prospect::Open => report.waiting(&state),
                Prospect::Doubtful(why) | Prospect::Hopeless(why) => {
                    report.waiting(&format!("{state}; {why}"));
                }
            }
            if let Some(fault) = self.fault() {
                return Err(fault.into());
            }
            if started.elapsed() > limit {
                return Ok(Some(state));
            }
            if asked.elapsed() >= BETWEEN_QUESTIONS {
                let before = std::mem::replace(&mut last, prospect().await);
                asked = Instant::now();
                if let Prospect::Hopeless(why) = &last
                    && before == last
                {
                    let clear = asked.duration_since(started).as_secs();
                    return Ok(Some(format!("{state}: {why} (given up after {clear} s)")));
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A unit of these nodes that will not act; what cannot be asked is no answer.
    pub(crate) async fn unit_down(&self, nodes: &[&Node], unit: &str) -> Option<String> {
        let limit = self.host().limit(COMMAND);
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

    /// Whether Pods, and Nodes, will still become ready; these are the nodes that are in the cluster.
    async fn prospect(&self, nodes: &[&Node]) -> Prospect {
        if let Some(down) = self.unit_down(nodes, units::KUBELET).await {
            return Prospect::Hopeless(down);
        }
        let pods = self.all_pods().await;
        let mut stuck = pods.iter().filter(|pod| stuck::container(pod).is_some());
        if let Some(found) = stuck.find_map(stumbling) {
            return Prospect::Hopeless(found);
        }
        let without = self.without_sandbox(nodes, &pods).await;
        if let Some(found) = without.as_ref().filter(|it| it.is_for_good) {
            return Prospect::Hopeless(found.said.clone());
        }
        let found = pods.iter().find_map(stumbling);
        let found = found.or(without.map(|it| it.said));
        found.map_or(Prospect::Open, Prospect::Doubtful)
    }

    /// A Pod that has no sandbox, one that will get none before all others.
    async fn without_sandbox(&self, nodes: &[&Node], pods: &[Pod]) -> Option<NoSandbox> {
        // Whatever is asked is work for a guest.
        if !pods.iter().any(|pod| stuck::awaits_sandbox(pod).is_some()) {
            return None;
        }
        let events: Api<Event> = Api::all(self.api());
        let failures = ListParams::default().fields(&format!("reason={}", stuck::NO_SANDBOX));
        let events = events.list(&failures).await.ok()?.items;
        let limit = self.host().limit(COMMAND);
        let clock = nodes.first()?.run("date +%s", limit).await.ok()?;
        let now = clock.stdout.trim().parse().ok()?;
        let without = pods.iter();
        let without = without.filter_map(|pod| stuck::sandbox(pod, pods, &events, now));
        without.min_by_key(|it| !it.is_for_good)
    }
}

impl Settled {
    /// What is missing by the API.
    async fn lacking(&self, api: kube::Client) -> Result<Option<String>, kube::Error> {
        match self {
            Self::Controllers(controllers) => {
                for controller in controllers {
                    let lacking = controller_lacking(controller, api.clone()).await?;
                    if lacking.is_some() {
                        return Ok(lacking);
                    }
                }
                Ok(None)
            }
            Self::Pods(wanted) => pods_lacking(wanted, api).await,
            Self::NodesReady(nodes) => nodes_lacking(api, *nodes).await,
            // The nodes are asked.
            Self::ProxiesHealthy { .. } => Ok(None),
        }
    }
}

/// The first Node that is not there yet: `node2 is not registered`.
pub(crate) async fn nodes_missing(
    api: kube::Client,
    nodes: u32,
) -> Result<Option<String>, kube::Error> {
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
    let lacking: Vec<String> = listed.iter().filter_map(takes_no_pods).collect();
    let listed = listed.items.len();
    Ok(if !lacking.is_empty() {
        Some(lacking.join("; "))
    } else if listed < nodes as usize {
        Some(format!("{listed} of {nodes} Nodes"))
    } else {
        None
    })
}

async fn pods_lacking(wanted: &[Pods], api: kube::Client) -> Result<Option<String>, kube::Error> {
    for Pods {
        namespace,
        selector,
        count,
    } in wanted
    {
        let pods: Api<Pod> = Api::namespaced(api.clone(), namespace);
        let listed = pods.list(&ListParams::default().labels(selector)).await?;
        let running = listed.iter().filter(|pod| is_running(pod)).count();
        if running < *count as usize {
            return Ok(Some(format!("{running} of {count} Pods {selector} run")));
        }
    }
    Ok(None)
}

async fn controller_lacking(
    controller: &Controller,
    api: kube::Client,
) -> Result<Option<String>, kube::Error> {
    let Controller {
        kind,
        namespace,
        name,
    } = controller;
    let pods = match kind {
        ControllerKind::DaemonSet => {
            let api = Api::<DaemonSet>::namespaced(api, namespace);
            api.get_opt(name).await?.and_then(|it| of_daemon_set(&it))
        }
        ControllerKind::Deployment => {
            let api = Api::<Deployment>::namespaced(api, namespace);
            api.get_opt(name).await?.and_then(|it| of_deployment(&it))
        }
    };
    Ok(match pods {
        None => Some(format!("{controller} has made no Pods yet")),
        Some((ready, wanted)) if ready < wanted => Some(format!(
            "{ready} of {wanted} Pods of {controller} are ready"
        )),
        Some(_) => None,
    })
}

/// How many Pods are ready, and how many should be; nothing until its controller has looked at it.
fn of_daemon_set(set: &DaemonSet) -> Option<(i32, i32)> {
    let status = set.status.as_ref()?;
    let seen = status.observed_generation >= set.metadata.generation;
    seen.then_some((status.number_ready, status.desired_number_scheduled))
}

fn of_deployment(deployment: &Deployment) -> Option<(i32, i32)> {
    let status = deployment.status.as_ref()?;
    let wanted = deployment.spec.as_ref()?.replicas.unwrap_or(1);
    let seen = status.observed_generation >= deployment.metadata.generation;
    seen.then_some((status.ready_replicas.unwrap_or(0), wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_count_once_their_controller_has_looked() {
        let set = |observed| -> DaemonSet {
            let status = json!({
                "observedGeneration": observed, "numberReady": 1, "desiredNumberScheduled": 3,
                "currentNumberScheduled": 3, "numberMisscheduled": 0,
            });
            let set = json!({ "metadata": { "generation": 2 }, "status": status });
            serde_json::from_value(set).unwrap()
        };
        assert_eq!(of_daemon_set(&set(1)), None);
        assert_eq!(of_daemon_set(&set(2)), Some((1, 3)));
        assert_eq!(of_daemon_set(&DaemonSet::default()), None);
        let deployment = |status| -> Deployment {
            let spec = json!({ "replicas": 2, "selector": {}, "template": {} });
            let it = json!({ "metadata": { "generation": 1 }, "spec": spec, "status": status });
            serde_json::from_value(it).unwrap()
        };
        assert_eq!(of_deployment(&deployment(json!({}))), None);
        let seen = json!({ "observedGeneration": 1 });
        assert_eq!(of_deployment(&deployment(seen)), Some((0, 2)));
        let ready = json!({ "observedGeneration": 1, "readyReplicas": 2 });
        assert_eq!(of_deployment(&deployment(ready)), Some((2, 2)));
    }
}
