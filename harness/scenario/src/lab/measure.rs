//! What is measured in a lab: readings of metrics, and what they are taken of.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_lan::witness::Moment;
use podwire_probe::{Load, LoadReport, LoadRequest};
use podwire_vm::{Instructions, NotCounted, count_instructions};

use crate::check::assert::somebody;
use crate::check::load::{Rules, between, misreported, rules, sent_again};
use crate::check::party::Party;
use crate::check::reading::{Metric, Read, Reading};
use crate::lab::Lab;
use crate::lab::node::Node;
use crate::lab::serving::place;
use crate::lab::wire::Wire;

/// How long a load lasts, by the sender's clock: long enough for some tens of requests of an emulated guest.
const LASTS: Duration = Duration::from_secs(2);
/// For one request of it, by the sender's clock; a transfer's is for a time without an octet.
const REQUEST: Duration = Duration::from_secs(10);
/// For the way to the sender and back, before stretching.
const QUESTION: Duration = Duration::from_secs(20);
/// For a node to list its rules, which may be many, before stretching.
const LISTED: Duration = Duration::from_secs(30);

impl Lab {
    /// Takes a reading of a metric: what [`Scenario::measures`](crate::Scenario::measures) names, each once.
    ///
    /// # Errors
    /// When it is no number, or less than 0.
    pub fn reading(&self, metric: &Metric, value: f64) -> anyhow::Result<()> {
        let (name, unit) = (metric.name, metric.unit);
        anyhow::ensure!(
            value.is_finite() && value >= 0.0,
            "the reading of \"{name}\" is {value}"
        );
        self.step(format!("read: {name} {value:.3} {unit}").trim_end());
        self.readings()
            .push(Reading::of(metric, Read::Value(value)));
        Ok(())
    }

    /// Says why a metric has no reading here: where the machine that podwire runs on cannot take one, and not where
    /// the cluster does something else than expected, which is an error.
    pub fn no_reading(&self, metric: &Metric, why: impl fmt::Display) {
        self.step(format!("not read: {}: {why}", metric.name));
        let read = Read::Unread(why.to_string());
        self.readings().push(Reading::of(metric, read));
    }

    /// Begins to count the instructions that the host's processors carry out for these nodes' machines, kernels
    /// included.
    ///
    /// # Errors
    /// [`NotCounted`]: most virtual machines are given no counter.
    pub fn count_instructions(&self, nodes: &[Node<'_>]) -> Result<Instructions, NotCounted> {
        let machines = nodes
            .iter()
            .map(|node| self.cluster().node(node.number()).machine());
        count_instructions(machines)
    }

    /// Has a Pod send as many requests to port 80 of an address as fit into two seconds, so many at once, and
    /// gives how many there were and how long they took, by the Pod's clock. The address leads to one Pod, whose
    /// answers count.
    ///
    /// # Errors
    /// When the Pod cannot be reached, one of them is not answered, or by somebody else, or what it tells of them
    /// cannot be.
    pub async fn load(
        &self,
        from: &Party,
        (to, asked): (Ipv4Addr, &Party),
        by: Load,
        at_once: u32,
    ) -> anyhow::Result<LoadReport> {
        let request = LoadRequest {
            to: SocketAddr::from((to, 80)),
            by,
            at_once,
            for_ms: u64::try_from(LASTS.as_millis())?,
            limit_ms: u64::try_from(REQUEST.as_millis())?,
        };
        self.step(format!("load from {from} to {to}: {by}, {at_once} at once"));
        let limit = self.limit(QUESTION) + request.longest();
        let command = format!(
            "curl -sS --fail-with-body --max-time {} -X POST --data-binary @- http://{}/load",
            limit.as_secs(),
            place(from)
        );
        let body = serde_json::to_vec(&request)?;
        let node = self.cluster().node(from.node);
        let begun = Instant::now();
        let answer = node.run_with_input(&command, &body, limit).await;
        let answer = answer.with_context(|| format!("cannot ask {from} for a load"))?;
        let report: LoadReport = serde_json::from_str(&answer)
            .with_context(|| format!("{from} tells of no load: {answer:?}"))?;
        if let Some(wrong) = misreported(&request, &report, begun.elapsed()) {
            anyhow::bail!("what {from} tells of its load cannot be: {wrong}");
        }
        if let Some(failure) = &report.failure {
            anyhow::bail!(
                "a request of {from} to {to} was not answered, after {} that were: {failure}",
                report.answered
            );
        }
        let strangers = report.hosts.keys().find(|host| **host != asked.name);
        if let Some(stranger) = strangers {
            anyhow::bail!(
                "{} answered {from} at {to}, which leads to {asked}",
                somebody(stranger)
            );
        }
        Ok(report)
    }

    /// How many segments of TCP the kernel has sent again for a Pod of one container, since that began.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn segments_sent_again(&self, pod: &Party) -> anyhow::Result<u64> {
        let told = self.run_in_network_of(pod, "cat /proc/net/snmp").await?;
        sent_again(&told.stdout).with_context(|| format!("{pod} tells of no segments"))
    }
}

impl Node<'_> {
    /// What its kernel has of packet filter's rules, whoever wrote them.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn rules(self) -> anyhow::Result<Rules> {
        let listed = self.run("nft -j list ruleset").within(LISTED).await?;
        rules(&listed.stdout).with_context(|| format!("{self} lists no rules"))
    }
}

impl Wire<'_> {
    /// How many frames went from one node to another, or back, since then, whatever they carried.
    ///
    /// # Errors
    /// When the segment has stopped; when some frames are forgotten already.
    pub fn frames_between(
        &self,
        one: Node<'_>,
        other: Node<'_>,
        since: Moment,
    ) -> anyhow::Result<usize> {
        let seen = self.all(since)?;
        anyhow::ensure!(
            seen.forgotten == 0,
            "the wire is asked too late: {} frames since then are forgotten",
            seen.forgotten
        );
        Ok(between(&seen.frames, one.name(), other.name()))
    }
}
