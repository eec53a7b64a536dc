//! A scenario's own running cluster, with a log of what was done to it.

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::try_join_all;
use podwire_cluster::{Cluster, Host, PodRef, stretched};
use podwire_lan::Ipv4Net;
use podwire_probe::{FetchReport, FetchRequest, TargetReport};

use crate::assert::{Cell, Mesh, Party, Restarts};
use crate::traffic::TrafficLog;

/// Name of the step log in the lab's folder.
pub const STEPS: &str = "steps.log";

/// Requests to one address that are under way at once.
const AT_ONCE: u32 = 16;
/// So many time-outs are no loss of a packet here and there, which a verdict would have to weigh.
const TIME_OUTS: u32 = 3 * AT_ONCE;

/// A private clone of a stage. What it does is logged as a step, with the time since the clone
/// answered; a failure's first page shows the log.
pub struct Lab {
    cluster: Cluster,
    speed_factor: f64,
    started: Instant,
    /// What stands before each step.
    about: String,
    steps: Mutex<Option<File>>,
    /// When a sabotage's fault was in.
    injected: Mutex<Option<Instant>>,
    traffic: TrafficLog,
}

impl Lab {
    /// Each step begins with `about`.
    pub(crate) fn new(cluster: Cluster, host: &Host, dir: &Path, about: Option<String>) -> Self {
        Self {
            cluster,
            speed_factor: host.speed_factor,
            started: Instant::now(),
            about: about.map(|about| format!("{about}: ")).unwrap_or_default(),
            // Without a log there is less evidence, and still a verdict.
            steps: Mutex::new(File::create(dir.join(STEPS)).ok()),
            injected: Mutex::new(None),
            traffic: TrafficLog::default(),
        }
    }

    pub(crate) async fn stop(self) {
        self.cluster.stop().await;
    }

    /// The cluster itself, for what has no word of its own here.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A limit in host time, stretched for the machine's speed.
    pub fn limit(&self, limit: Duration) -> Duration {
        stretched(limit, self.speed_factor)
    }

    /// Says what the scenario does next, for the log and for whoever watches. While there is traffic,
    /// it is a mark on its timeline.
    pub fn step(&self, text: impl AsRef<str>) {
        let line = format!(
            "{:7.1}  {}{}",
            self.started.elapsed().as_secs_f64(),
            self.about,
            text.as_ref()
        );
        eprintln!("{line}");
        self.traffic.step(Instant::now(), text.as_ref());
        if let Ok(mut steps) = self.steps.lock()
            && let Some(file) = steps.as_mut()
        {
            // A full disk costs the log, not the verdict.
            let _ = writeln!(file, "{line}");
        }
    }

    /// Says that a sabotage's fault is in, and its assertion begins: how long red takes is counted from
    /// here. One that does not say so has had its fault from the start.
    pub fn injected(&self) {
        self.step("the fault is in");
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        *injected = Some(Instant::now());
    }

    pub(crate) fn injected_at(&self) -> Option<Instant> {
        *self.injected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn traffic(&self) -> &TrafficLog {
        &self.traffic
    }

    pub(crate) fn into_cluster(self) -> Cluster {
        self.cluster
    }

    /// How many nodes the cluster has; they are numbered from 1.
    pub fn nodes(&self) -> u32 {
        self.cluster.plan().nodes
    }

    /// Every node, as a sender.
    pub fn node_parties(&self) -> Vec<Party> {
        (1..=self.nodes())
            .map(|number| self.node_party(number))
            .collect()
    }

    fn node_party(&self, number: u32) -> Party {
        let node = self.cluster.node(number);
        Party {
            name: node.name().to_owned(),
            node: number,
            pod: false,
            address: node.address(),
        }
    }

    /// The workload's Pods that run, in the order of their nodes and names.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn pods(&self) -> anyhow::Result<Vec<Party>> {
        let pods = self
            .cluster
            .pods(podwire_cluster::WORKLOAD_SELECTOR)
            .await?;
        let mut parties: Vec<Party> = pods.iter().filter_map(party).collect();
        parties.sort_by(|a, b| (a.node, &a.name).cmp(&(b.node, &b.name)));
        Ok(parties)
    }

    /// One Pod of each node that has one.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn one_pod_per_node(&self) -> anyhow::Result<Vec<Party>> {
        let mut pods = self.pods().await?;
        pods.dedup_by_key(|pod| pod.node);
        Ok(pods)
    }

    /// The only or first Pod on a node.
    ///
    /// # Errors
    /// When the API does not answer, or there is none.
    pub async fn pod_on(&self, node: u32) -> anyhow::Result<Party> {
        let pods = self.pods().await?;
        pods.into_iter()
            .find(|pod| pod.node == node)
            .with_context(|| format!("the workload has no running Pod on node{node}"))
    }

    /// Sends requests from a node, or from inside a Pod.
    ///
    /// # Errors
    /// When the sender cannot be reached; what became of the requests is in the report.
    pub async fn fetch(&self, from: &Party, request: &FetchRequest) -> anyhow::Result<FetchReport> {
        let report = if from.pod {
            self.cluster
                .fetch_from_pod(from.node, from.address, request)
                .await
        } else {
            self.cluster.fetch_from_node(from.node, request).await
        };
        report.with_context(|| format!("cannot send requests from {from}"))
    }

    /// Sends `count` requests to one address, each on a connection of its own; not all of them when
    /// so many time out that nothing can make it right any more.
    ///
    /// # Errors
    /// As [`Lab::fetch`].
    pub async fn fetch_one(
        &self,
        from: &Party,
        to: Ipv4Addr,
        count: u32,
    ) -> anyhow::Result<TargetReport> {
        let request = FetchRequest::new([format!("{to}:80")])
            .count(count)
            .concurrency(AT_ONCE)
            .give_up_after(TIME_OUTS);
        let report = self.fetch(from, &request).await?;
        let target = report.targets.into_iter().next();
        target.with_context(|| format!("no report for {to} from {from}"))
    }

    /// One request from every sender to every Pod.
    ///
    /// # Errors
    /// As [`Lab::fetch`].
    pub async fn mesh(&self, senders: &[Party], pods: &[Party]) -> anyhow::Result<Mesh> {
        let targets = pods.iter().map(|pod| format!("{}:80", pod.address));
        let request = FetchRequest::new(targets).concurrency(64);
        let reports = try_join_all(senders.iter().map(|from| self.fetch(from, &request))).await?;
        let mut mesh = Mesh::default();
        for (from, report) in senders.iter().zip(reports) {
            for (to, target) in pods.iter().zip(report.targets) {
                let result = target.results.into_iter().next();
                let result = result.with_context(|| format!("no result for {from} -> {to}"))?;
                mesh.cells.push(Cell {
                    from: from.clone(),
                    to: to.clone(),
                    outcome: result.outcome,
                    host: result.host,
                    client: result.client,
                });
            }
        }
        Ok(mesh)
    }

    /// The addresses of a node's Pods, as nft(8) takes them: the node's range, or those of the
    /// workload's Pods where the Pod network keeps its ranges to itself.
    ///
    /// # Errors
    /// When the API does not answer, or the node has no range.
    pub async fn pod_addresses(&self, node: u32) -> anyhow::Result<String> {
        if let Some(ranges) = self.cluster.pod_ranges().await? {
            let range = ranges.get(&node).map(Ipv4Net::to_string);
            return range.with_context(|| format!("node{node} has no range for its Pods"));
        }
        let pods = self.pods().await?;
        let own = pods.iter().filter(|pod| pod.node == node);
        let own: Vec<String> = own.map(|pod| pod.address.to_string()).collect();
        Ok(format!("{{ {} }}", own.join(", ")))
    }

    /// Adds `ip route add 10.1.TO.0/24 via ADDRESS-OF-TO` on one node.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn add_route(&self, on: u32, to: u32) -> anyhow::Result<()> {
        self.step(format!("add the route to node{to}'s Pods on node{on}"));
        Ok(self.cluster.add_route(on, to).await?)
    }

    /// Deletes that route.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn delete_route(&self, on: u32, to: u32) -> anyhow::Result<()> {
        self.step(format!("delete the route to node{to}'s Pods on node{on}"));
        Ok(self.cluster.delete_route(on, to).await?)
    }

    /// Adds all N x (N-1) routes.
    ///
    /// # Errors
    /// When a node does not carry it out.
    pub async fn add_all_routes(&self) -> anyhow::Result<()> {
        self.step("add the routes of every node to every other's Pods");
        Ok(self.cluster.add_all_routes().await?)
    }

    /// Starts kube-proxy on every node.
    ///
    /// # Errors
    /// When systemd refuses to start it.
    pub async fn start_kube_proxy(&self) -> anyhow::Result<()> {
        self.step("start kube-proxy on every node");
        Ok(self.cluster.start_kube_proxy().await?)
    }

    pub(crate) async fn restarts(&self) -> anyhow::Result<Restarts> {
        let pods = self.cluster.pods("").await?;
        Ok(pods
            .into_iter()
            .map(|pod| ((pod.name, pod.uid), pod.restarts))
            .collect())
    }
}

fn party(pod: &PodRef) -> Option<Party> {
    let address = pod.ip?;
    let running = pod.ready && !pod.terminating;
    running.then(|| Party {
        name: pod.name.clone(),
        node: pod.node_number.unwrap_or(0),
        pod: true,
        address,
    })
}
