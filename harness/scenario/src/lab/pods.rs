//! The cluster's Pods, and what is to be known of one.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1 as api;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher;
use podwire_cluster::{PodNetwork, WORKLOAD_IMAGE, WORKLOAD_SERVICE, addresses};
use serde_json::{Value, json};

use crate::check::assert::{self, Restarts, addresses_unique, addresses_unique_and_in_range};
use crate::check::failure::{Cause, Failure};
use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::command::Answer;
use crate::lab::node::Node;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// From the wish for Pods to running ones.
const RUNNING: Duration = Duration::from_secs(60);

/// A Pod as the API shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod(pub(super) api::Pod);

impl Deref for Pod {
    type Target = api::Pod;

    fn deref(&self) -> &api::Pod {
        &self.0
    }
}

impl From<api::Pod> for Pod {
    fn from(pod: api::Pod) -> Self {
        Self(pod)
    }
}

impl Pod {
    /// The image of the workload's program, which every node has.
    pub const IMAGE: &str = WORKLOAD_IMAGE;

    /// One as the API would show it, for a check's tests.
    ///
    /// # Panics
    /// When it is none.
    #[doc(hidden)]
    #[expect(clippy::expect_used, reason = "a test's own words")]
    pub fn from_json(pod: Value) -> Self {
        Self(serde_json::from_value(pod).expect("a Pod of the API"))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// `NAMESPACE/NAME`.
    pub fn full_name(&self) -> String {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        format!("{namespace}/{}", self.name())
    }

    /// Its identity: another Pod of the same name has another.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The number of the node that it is bound to.
    pub fn node(&self) -> Option<u32> {
        addresses::node_number(self.spec.as_ref()?.node_name.as_deref()?)
    }

    /// Its address.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
    }

    /// Its address of the second family, where it has one.
    pub fn address_v6(&self) -> Option<Ipv6Addr> {
        self.addresses().find_map(|it| it.parse().ok())
    }

    /// Its addresses of either family, as they are written.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let all = self.status.iter().filter_map(|it| it.pod_ips.as_ref());
        all.flatten().map(|it| it.ip.as_str())
    }

    /// `Pending`, `Running`, ...; nothing before it has a status.
    pub fn phase(&self) -> &str {
        let phase = self.status.as_ref().and_then(|it| it.phase.as_deref());
        phase.unwrap_or_default()
    }

    /// Whether its address is one of the Pods' range; over the user's network, which may have any range, whether it is
    /// neither a machine's nor a Service's.
    pub fn has_pod_address(&self, network: PodNetwork) -> bool {
        let of_others = [
            addresses::SEGMENT,
            addresses::SECOND_SEGMENT,
            addresses::SERVICES,
        ];
        self.address().is_some_and(|it| match network {
            PodNetwork::Manifest => !of_others.iter().any(|range| range.contains(it)),
            _ => addresses::PODS.contains(it),
        })
    }

    /// Whether it is on its node's network.
    pub fn is_on_host_network(&self) -> bool {
        self.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
    }

    /// Its condition of this type: `Ready`, `PodScheduled`.
    pub fn condition(&self, kind: &str) -> Option<&api::PodCondition> {
        let conditions = self.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|it| it.type_ == kind)
    }

    /// Whether its condition of this type holds.
    pub fn holds(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|it| it.status == "True")
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether it is Ready and stays.
    pub fn is_running(&self) -> bool {
        self.holds("Ready") && !self.is_terminating()
    }

    /// Whether it is Ready, and all its containers began in this second or later: seconds since 1970,
    /// by its node's clock.
    pub fn runs_since(&self, second: i64) -> bool {
        let status = self.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let all_since = containers.is_some_and(|all| {
            let mut began = all.iter().map(|it| {
                let running = it.state.as_ref()?.running.as_ref()?;
                Some(running.started_at.as_ref()?.0.as_second())
            });
            began.all(|it| it.is_some_and(|began| began >= second))
        });
        self.holds("Ready") && all_since
    }

    /// Restarts of all its containers together.
    pub fn restarts(&self) -> u32 {
        let status = self.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let restarts = containers.into_iter().flatten();
        restarts.map(|it| it.restart_count.unsigned_abs()).sum()
    }

    /// The DaemonSet that keeps it.
    pub fn daemon_set(&self) -> Option<&str> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.kind == "DaemonSet")?;
        Some(owner.name.as_str())
    }

    /// A static Pod's identity on its node, where the mirror in the API has another UID.
    pub fn static_hash(&self) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get("kubernetes.io/config.mirror")?;
        Some(annotations.get("kubernetes.io/config.hash")?.as_str())
    }

    /// Whether it belongs to its node alone: a DaemonSet's, or a static Pod's mirror.
    pub fn belongs_to_its_node(&self) -> bool {
        self.daemon_set().is_some() || self.static_hash().is_some()
    }

    /// It, as somebody who asks and answers, while it has an address.
    pub fn party(&self) -> Option<Party> {
        let node = self.node().unwrap_or(0);
        let party = Party::new(self.name(), node, true, self.address()?);
        Some(party.with_ipv6(self.address_v6()))
    }

    /// The container of a Pod of one's own: the workload's program, which answers at port 80.
    pub fn container() -> Value {
        json!({
            "name": "probe",
            "image": WORKLOAD_IMAGE,
            "imagePullPolicy": "Never",
            "command": ["/probe", "serve"],
        })
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full_name())
    }
}

/// Some of the cluster's Pods: those of the workload, unless said otherwise. Awaited, it lists them,
/// in the order of their nodes and names, whatever their state.
#[derive(Clone)]
#[must_use = "Pods are asked for when this is awaited"]
pub struct Pods<'lab> {
    lab: &'lab Lab,
    namespace: Option<String>,
    labels: String,
    /// Whose they are, where it is a Deployment's.
    deployment: Option<String>,
    node: Option<u32>,
    limit: Duration,
}

impl Lab {
    /// The workload's Pods: `app=blue` in the namespace `default`.
    pub fn pods(&self) -> Pods<'_> {
        self.pods_of_deployment(WORKLOAD_SERVICE)
    }

    pub(super) fn pods_of_deployment(&self, name: &str) -> Pods<'_> {
        Pods {
            lab: self,
            namespace: Some("default".to_owned()),
            labels: format!("app={name}"),
            deployment: Some(name.to_owned()),
            node: None,
            limit: RUNNING,
        }
    }

    /// The Pods of kubeadm's control plane and add-ons: the namespace `kube-system`.
    pub fn system_pods(&self) -> Pods<'_> {
        self.pods().of_namespace("kube-system")
    }

    /// The Pods of the cluster's DNS, which kubeadm brings.
    pub fn core_dns(&self) -> Pods<'_> {
        self.system_pods().labelled("k8s-app=kube-dns")
    }

    /// How often the containers of each Pod of the namespace `default` have restarted, but those of nodes
    /// that the scenario has rebooted.
    pub(crate) async fn restarts(&self) -> anyhow::Result<Restarts> {
        let pods = self.pods().anybodys().await?;
        let stayed = |pod: &Pod| !pod.node().is_some_and(|node| self.has_booted_anew(node));
        Ok(pods
            .into_iter()
            .filter(stayed)
            .map(|pod| {
                (
                    (pod.name().to_owned(), pod.uid().to_owned()),
                    pod.restarts(),
                )
            })
            .collect())
    }

    /// Every Pod that the workload is to have runs, its address is its own and, where the nodes have
    /// ranges, from its node's.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) that names the Pods in question, or says how many run.
    pub async fn pod_addresses_unique_and_in_range(&self) -> anyhow::Result<()> {
        let pods = self.pods().all_running().await?;
        self.unique_and_in_range(&pods).await
    }

    /// Of these Pods each address is its own and, where the nodes have ranges, from its node's.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) that names the Pods in question.
    pub async fn unique_and_in_range(&self, pods: &[Party]) -> anyhow::Result<()> {
        let Some(ranges) = self.cluster().pod_ranges().await? else {
            return Ok(addresses_unique(pods)?);
        };
        for pod in pods {
            let has_range = ranges.contains_key(&pod.node);
            anyhow::ensure!(has_range, "{pod} runs, and its node has no range for Pods");
        }
        Ok(addresses_unique_and_in_range(pods, |node| ranges[&node])?)
    }

    /// Runs a program in a Pod of the namespace `default`, as `kubectl exec` does: by the API server
    /// and the kubelet. Its exit status is in the answer.
    ///
    /// # Errors
    /// When nothing ran, or not to its end within ten seconds, stretched.
    pub async fn exec(&self, pod: &Party, command: &[&str]) -> anyhow::Result<Answer> {
        let limit = self.limit(EXEC);
        let done = self.cluster().exec_in_pod(&pod.name, command, limit).await;
        Ok(done?)
    }
}

const EXEC: Duration = Duration::from_secs(10);

/// Pods that do not run and are named.
const NAMED: usize = 4;

impl<'lab> Pods<'lab> {
    /// Those with these labels instead: `app=green`.
    pub fn labelled(self, labels: impl Into<String>) -> Self {
        Self {
            labels: labels.into(),
            deployment: None,
            ..self
        }
    }

    /// Those of another namespace instead, whatever their labels.
    pub fn of_namespace(self, namespace: impl Into<String>) -> Self {
        Self {
            namespace: Some(namespace.into()),
            ..self.labelled("")
        }
    }

    /// All of the namespace `default`.
    pub fn anybodys(self) -> Self {
        self.labelled("")
    }

    /// All of the cluster.
    pub fn everywhere(self) -> Self {
        Self {
            namespace: None,
            ..self.labelled("")
        }
    }

    /// Those that are bound to this node.
    pub fn on(self, node: Node<'_>) -> Self {
        Self {
            node: Some(node.number()),
            ..self
        }
    }

    /// The same, waited for no longer than this, stretched, instead of a minute.
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Who would have to act for so many of them to run.
    pub fn needs(&self, wanted: usize) -> Needs {
        match &self.deployment {
            Some(name) => Needs::deployment(name, wanted),
            None => Needs::Pods {
                namespace: self.namespace.clone().unwrap_or_default(),
                labels: self.labels.clone(),
                wanted,
            },
        }
    }

    fn api(&self) -> Api<api::Pod> {
        let client = self.lab.cluster().api();
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }

    fn fields(&self) -> String {
        let name = self.node.map(addresses::node_name);
        name.map(|name| format!("spec.nodeName={name}"))
            .unwrap_or_default()
    }

    async fn list(self) -> anyhow::Result<Vec<Pod>> {
        let select = ListParams::default()
            .labels(&self.labels)
            .fields(&self.fields());
        let listed = self.api().list(&select).await.context("cannot list Pods")?;
        Ok(sorted(listed.items))
    }

    /// Those that run: Ready, not being deleted.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn running(self) -> anyhow::Result<Vec<Party>> {
        Ok(running(&self.list().await?))
    }

    /// All that their Deployment is to have: waits until so many run, no more. Whoever takes those that
    /// happen to run leaves out, and does not notice, what does not start.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that; when no Deployment says how many.
    pub async fn all_running(self) -> anyhow::Result<Vec<Party>> {
        Ok(self.all().await?.0)
    }

    /// The same, as what only all of them are.
    ///
    /// # Errors
    /// As [`Pods::all_running`].
    pub(crate) async fn all(self) -> anyhow::Result<All> {
        let (deployment, node) = (self.deployment.as_deref(), self.node);
        let all = deployment.filter(|_| node.is_none());
        let name =
            all.context("only of all Pods of a Deployment it is said how many there should be")?;
        let wanted = self.lab.deployment(name).replicas().await?;
        let needs = self.needs(wanted);
        self.until(expected(wanted), |listed| All::of(listed, wanted, &needs))
            .await
    }

    /// The first that runs.
    ///
    /// # Errors
    /// When the API does not answer, or none runs.
    pub async fn first(self) -> anyhow::Result<Party> {
        let place = self.node.map(|node| format!(" on node{node}"));
        let place = place.unwrap_or_default();
        let none = format!("no Pod with {} runs{place}", self.labels);
        self.running().await?.into_iter().next().context(none)
    }

    /// The one of this name, while it is listed.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn named(self, name: &str) -> anyhow::Result<Option<Pod>> {
        Ok(self.api().get_opt(name).await?.map(Pod))
    }

    /// Deletes the one of this name.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn delete(self, name: &str) -> anyhow::Result<()> {
        self.api().delete(name, &Default::default()).await?;
        Ok(())
    }

    /// Deletes all of them at once, without a grace period.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn delete_all(self) -> anyhow::Result<()> {
        let select = ListParams::default()
            .labels(&self.labels)
            .fields(&self.fields());
        let now = kube::api::DeleteParams::default().grace_period(0);
        self.api().delete_collection(&now, &select).await?;
        Ok(())
    }

    /// Waits until so many run, no more.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn until_running(self, wanted: usize) -> anyhow::Result<Vec<Party>> {
        self.until_running_and(wanted, |_| None).await
    }

    /// The same, and nothing else that `lacking` tells is missing.
    ///
    /// # Errors
    /// As [`Pods::until_running`].
    pub async fn until_running_and(
        self,
        wanted: usize,
        lacking: impl Fn(&[Party]) -> Option<String>,
    ) -> anyhow::Result<Vec<Party>> {
        let needs = self.needs(wanted);
        self.until(expected(wanted), |listed| {
            so_many(listed, wanted, &needs, &lacking)
        })
        .await
    }

    /// Watches them until `judge` says that it is done.
    ///
    /// # Errors
    /// As [`Lab::watch`].
    pub async fn until<T>(
        self,
        expected: impl AsRef<str>,
        judge: impl Fn(&[Pod]) -> Probe<T>,
    ) -> anyhow::Result<T> {
        let select = watcher::Config::default()
            .labels(&self.labels)
            .fields(&self.fields());
        self.lab
            .watch(expected, self.limit, self.api(), select, |listed| {
                Ok(judge(&sorted(listed.to_vec())))
            })
            .await
    }
}

impl<'lab> IntoFuture for Pods<'lab> {
    type Output = anyhow::Result<Vec<Pod>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'lab>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.list())
    }
}

fn sorted(listed: Vec<api::Pod>) -> Vec<Pod> {
    let mut pods: Vec<Pod> = listed.into_iter().map(Pod).collect();
    pods.sort_by_key(|pod| (pod.node(), pod.full_name()));
    pods
}

/// Every Pod that there is to be: each runs, and there is no other. Nothing but a look at the list makes one,
/// so that whoever needs all of them cannot begin with those that happen to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct All(Vec<Party>);

impl All {
    /// Those listed, when so many run; else who does not.
    fn of(listed: &[Pod], wanted: usize, needs: &Needs) -> Probe<Self> {
        match so_many(listed, wanted, needs, &|_| None) {
            Probe::Done(pods) => Probe::Done(Self(pods)),
            Probe::Lacking(lacking) => Probe::Lacking(lacking),
        }
    }

    /// The first on each of so many nodes.
    ///
    /// # Errors
    /// A [`Failure`] when a node has none.
    pub(crate) fn first_of_each_node(&self, nodes: u32) -> Result<Vec<Party>, Failure> {
        assert::one_per_node(&self.0, nodes)
    }

    /// Each of so many nodes has so many of them.
    ///
    /// # Errors
    /// A [`Failure`] with the number of each.
    pub(crate) fn spread_evenly(&self, nodes: u32, on_each: u32) -> Result<(), Failure> {
        assert::spread_evenly(&self.0, nodes, on_each)
    }
}

impl Deref for All {
    type Target = [Party];

    fn deref(&self) -> &[Party] {
        &self.0
    }
}

fn expected(wanted: usize) -> String {
    format!("{wanted} running Pods")
}

/// Those listed that run, when they are so many and nothing else is lacking; else who does not run.
fn so_many(
    listed: &[Pod],
    wanted: usize,
    needs: &Needs,
    lacking: &dyn Fn(&[Party]) -> Option<String>,
) -> Probe<Vec<Party>> {
    let pods = running(listed);
    let state = match lacking(&pods) {
        Some(state) => state,
        None if pods.len() == wanted => return Probe::Done(pods),
        None => format!("{} run{}", pods.len(), who_does_not(listed)),
    };
    Probe::not_yet(Cause::NotReady, state)
        .needs(needs.clone())
        .look("the Pods and events of the evidence")
}

/// `; not Ready: blue-a on node2 (Pending)`, and so on for the first of them; nothing where there are none.
fn who_does_not(listed: &[Pod]) -> String {
    let others = listed.iter().filter(|pod| !pod.is_running());
    let others: Vec<String> = others
        .map(|pod| {
            let node = pod
                .node()
                .map_or("no node".to_owned(), addresses::node_name);
            let state = match pod.is_terminating() {
                true => "being deleted",
                false => pod.phase(),
            };
            format!("{} on {node} ({state})", pod.name())
        })
        .collect();
    match others.len() {
        0 => String::new(),
        all if all > NAMED => {
            let named = others[..NAMED].join(", ");
            format!("; not Ready: {named} and {} more", all - NAMED)
        }
        _ => format!("; not Ready: {}", others.join(", ")),
    }
}

fn running(pods: &[Pod]) -> Vec<Party> {
    let running = pods.iter().filter(|pod| pod.is_running());
    running.filter_map(Pod::party).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(metadata: Value) -> Pod {
        Pod(serde_json::from_value(json!({ "metadata": metadata })).unwrap())
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
        let pod = Pod(serde_json::from_value(pod).unwrap());
        assert_eq!(pod.full_name(), "default/blue-1");
        assert_eq!((pod.node(), pod.restarts()), (Some(2), 3));
        assert_eq!(pod.address(), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert!(pod.holds("Ready") && !pod.is_running());
        assert!(!of(json!({})).holds("Ready"));
    }

    /// One of a Deployment `blue`.
    fn blue(number: usize, node: u32, ready: &str) -> Pod {
        Pod::from_json(json!({
            "metadata": { "name": format!("blue-{number}"), "namespace": "default" },
            "spec": { "nodeName": addresses::node_name(node), "containers": [] },
            "status": {
                "phase": if ready == "True" { "Running" } else { "Pending" },
                "podIP": format!("10.1.{node}.{number}"),
                "conditions": [{ "type": "Ready", "status": ready }],
            },
        }))
    }

    #[test]
    fn a_mesh_begins_with_all_pods_and_who_is_not_ready_is_named_with_its_node() {
        let needs = Needs::Time;
        let mut listed: Vec<Pod> = (1..=6)
            .map(|number| blue(number, u32::try_from(number).unwrap().div_ceil(2), "True"))
            .collect();
        let Probe::Done(all) = All::of(&listed, 6, &needs) else {
            panic!("six run");
        };
        assert_eq!(all.len(), 6);
        assert_eq!(all.first_of_each_node(3).unwrap().len(), 3);
        all.spread_evenly(3, 2).unwrap();

        listed[3] = blue(4, 2, "False");
        let lacking = |listed: &[Pod], wanted| match All::of(listed, wanted, &needs) {
            Probe::Lacking(lacking) => (lacking.cause, lacking.state),
            Probe::Done(all) => panic!("began with {all:?}"),
        };
        let state = "5 run; not Ready: blue-4 on node2 (Pending)";
        assert_eq!(lacking(&listed, 6), (Cause::NotReady, state.into()));
        // One that the API has not even listed, and one too many.
        listed.remove(3);
        assert_eq!(lacking(&listed, 6).1, "5 run");
        assert_eq!(lacking(&listed, 4).1, "5 run");

        let none: Vec<Pod> = (1..=6).map(|number| blue(number, 1, "False")).collect();
        let state = "0 run; not Ready: blue-1 on node1 (Pending), blue-2 on node1 (Pending), \
                     blue-3 on node1 (Pending), blue-4 on node1 (Pending) and 2 more";
        assert_eq!(lacking(&none, 6).1, state);
    }

    #[test]
    fn a_status_from_before_a_boot_is_told() {
        let runs = |ready: &str, started: &str, second: i64| {
            let pod = Pod::from_json(json!({ "metadata": {}, "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [{
                    "name": "etcd", "image": "", "imageID": "", "ready": true, "restartCount": 1,
                    "state": { "running": { "startedAt": started } },
                }],
            } }));
            pod.runs_since(second)
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
        let boot = 1_767_225_630;
        assert!(runs("True", late, boot));
        assert!(!runs("True", early, boot));
        assert!(!runs("False", late, boot));
        assert!(!of(json!({})).runs_since(0));
    }

    #[test]
    fn pods_of_a_node_alone_are_told_from_those_that_move() {
        let owner = |kind: &str| {
            of(json!({ "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": kind, "name": "it", "uid": "u" }
            ] }))
        };
        assert_eq!(owner("DaemonSet").daemon_set(), Some("it"));
        assert!(!owner("ReplicaSet").belongs_to_its_node());
        let mirror = of(json!({ "annotations": {
            "kubernetes.io/config.mirror": "h", "kubernetes.io/config.hash": "h"
        } }));
        assert_eq!(mirror.static_hash(), Some("h"));
        assert!(mirror.belongs_to_its_node());
        assert_eq!(owner("DaemonSet").static_hash(), None);
    }
}
