//! A scenario's own running cluster, with a log of what was done to it.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_cluster::{
    Bootstrap, Cluster, Host, IpFamilies, Layout, PodNetwork, ProxyMode, stretched,
};
use podwire_process::plain;

use crate::check::reading::Reading;
use crate::lab::balancer::Balancer;
use crate::lab::senders::TrafficLog;
use crate::lab::stream::Streams;

/// Name of the step log in the lab's folder.
pub const STEPS: &str = "steps.log";

/// A private clone of a stage. What it does is logged as a step, with the time since the clone's
/// segment was started, as the wire counts it; a failure's first page shows the log.
pub struct Lab {
    cluster: Cluster,
    speed_factor: f64,
    /// When the clone answered.
    answered: Instant,
    /// What stands before each step.
    about: String,
    steps: Mutex<Option<File>>,
    /// When a sabotage's fault was in.
    injected: Mutex<Option<Instant>>,
    /// What a sabotage's injection leaves to its check.
    kept: Mutex<Vec<Box<dyn Any + Send>>>,
    /// Nodes that were rebooted, by number: their containers began anew.
    booted_anew: Mutex<BTreeSet<u32>>,
    /// Where this host has kube-router's program, if the run has it.
    kube_router: Option<PathBuf>,
    traffic: TrafficLog,
    streams: Streams,
    readings: Mutex<Vec<Reading>>,
    balancer: Balancer,
}

impl Lab {
    /// Each step begins with `about`.
    pub(crate) fn new(
        cluster: Cluster,
        host: &Host,
        dir: &Path,
        about: Option<String>,
        kube_router: Option<PathBuf>,
    ) -> Self {
        let traffic = TrafficLog::new(cluster.segment().started());
        Self {
            cluster,
            speed_factor: host.speed_factor,
            answered: Instant::now(),
            about: about.map(|about| format!("{about}: ")).unwrap_or_default(),
            // Without a log there is less evidence, and still a verdict.
            steps: Mutex::new(File::create(dir.join(STEPS)).ok()),
            injected: Mutex::new(None),
            kept: Mutex::default(),
            booted_anew: Mutex::default(),
            kube_router,
            traffic,
            streams: Streams::default(),
            readings: Mutex::default(),
            balancer: Balancer::default(),
        }
    }

    pub(crate) async fn stop(self) {
        self.cluster.stop().await;
    }

    pub(super) fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// The cluster itself, for what has no word of its own here.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Who made the cluster.
    pub fn bootstrap(&self) -> Bootstrap {
        self.cluster.plan().cell.bootstrap
    }

    /// What carries its Pods' packets.
    pub fn pod_network(&self) -> PodNetwork {
        self.cluster.plan().cell.network
    }

    /// The mode that its kube-proxies were started in.
    pub fn kube_proxy_mode(&self) -> ProxyMode {
        self.cluster.plan().cell.proxy
    }

    /// Which of its nodes share a segment.
    pub fn layout(&self) -> Layout {
        self.cluster.plan().cell.layout
    }

    /// Which families of IP it has.
    pub fn ip_families(&self) -> IpFamilies {
        self.cluster.plan().cell.ip_families
    }

    /// A limit in host time, stretched for the machine's speed.
    pub fn limit(&self, limit: Duration) -> Duration {
        stretched(limit, self.speed_factor)
    }

    /// Says what the scenario does next, for the log and for whoever watches. While there is traffic,
    /// it is a mark on its timeline.
    pub fn step(&self, text: impl AsRef<str>) {
        // It may name what a guest or a server has said.
        let text = plain::text(text.as_ref());
        let seconds = self.age().as_secs_f64();
        let line = format!("{seconds:7.1}  {}{text}", self.about);
        eprintln!("{line}");
        self.traffic.step(Instant::now(), &text);
        if let Ok(mut steps) = self.steps.lock()
            && let Some(file) = steps.as_mut()
        {
            // A full disk costs the log, not the verdict.
            let _ = writeln!(file, "{line}");
        }
    }

    /// What was done so far, with the time since the segment's start.
    pub(crate) fn steps(&self) -> Vec<(Duration, String)> {
        let began = self.cluster.segment().started();
        let steps = self.traffic.steps().into_iter();
        steps
            .map(|(at, text)| (at.saturating_duration_since(began), text))
            .collect()
    }

    /// How long ago the clone's segment was started. All that is told of a clone counts from there: steps, rules,
    /// frames.
    pub(crate) fn age(&self) -> Duration {
        self.cluster.segment().started().elapsed()
    }

    /// How old it was when it answered.
    pub(super) fn age_at_first_answer(&self) -> Duration {
        let began = self.cluster.segment().started();
        self.answered.saturating_duration_since(began)
    }

    /// Says that a sabotage's fault is in, and its check begins: how long red takes is counted from
    /// here.
    pub(crate) fn injected(&self) {
        self.step("the fault is in");
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        *injected = Some(Instant::now());
    }

    pub(crate) fn injected_at(&self) -> Option<Instant> {
        *self.injected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a sabotage's injection saw for its check, see [`Lab::kept`].
    pub fn keep<T: Clone + Send + 'static>(&self, value: T) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(Box::new(value));
    }

    /// What was kept last of this type.
    ///
    /// # Errors
    /// When nothing was.
    pub fn kept<T: Clone + Send + 'static>(&self) -> anyhow::Result<T> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().rev().find_map(|it| it.downcast_ref::<T>());
        let what = std::any::type_name::<T>();
        found
            .cloned()
            .with_context(|| format!("no {what} was kept"))
    }

    /// Says that a node is about to boot: from now on its containers may have restarted.
    pub(super) fn boots_anew(&self, node: u32) {
        let booted = self.booted_anew.lock();
        booted.unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    pub(super) fn has_booted_anew(&self, node: u32) -> bool {
        let booted = self.booted_anew.lock();
        booted
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&node)
    }

    pub(super) fn traffic(&self) -> &TrafficLog {
        &self.traffic
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Those that were taken so far.
    pub(crate) fn readings(&self) -> MutexGuard<'_, Vec<Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn kube_router(&self) -> Option<&Path> {
        self.kube_router.as_deref()
    }

    pub(crate) fn into_cluster(self) -> Cluster {
        self.cluster
    }

    /// How many nodes the cluster has; they are numbered from 1.
    pub fn node_count(&self) -> u32 {
        self.cluster.plan().nodes
    }
}
