//! Datagrams that nobody answers, all from one port: who gets them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use podwire_probe::{DatagramsReport, DatagramsRequest};

use crate::check::datagrams::{Received, counted, of_one_sender};
use crate::check::failure::Cause;
use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::serving::place;
use crate::wait::probe::Probe;

/// From one to the next, in milliseconds.
const PACE_MS: u64 = 100;
/// As many tell where they go.
const ENOUGH: u64 = 20;
/// For as many to be sent, before stretching.
const SENT: Duration = Duration::from_secs(20);
/// For one question.
const QUESTION: Duration = Duration::from_secs(20);

/// A Pod or a node that sends datagrams to port 80 of an address, ten a second and all from one port, once it is
/// told to and as long as it lives.
pub struct Datagrams<'lab> {
    lab: &'lab Lab,
    from: Party,
    request: DatagramsRequest,
}

impl Lab {
    /// Datagrams from a Pod or a node to port 80 of an address.
    pub fn datagrams(&self, from: &Party, to: Ipv4Addr) -> Datagrams<'_> {
        Datagrams {
            lab: self,
            from: from.clone(),
            request: DatagramsRequest {
                to: SocketAddr::from((to, 80)),
                source_port: Datagrams::SOURCE_PORT,
                interval_ms: PACE_MS,
            },
        }
    }

    async fn datagrams_of(
        &self,
        pod: &Party,
        method: &str,
        body: &str,
    ) -> anyhow::Result<DatagramsReport> {
        let limit = self.limit(QUESTION);
        let command = format!(
            "curl -sS --fail-with-body --max-time {} -X {method} --data-binary @- \
             http://{}/datagrams",
            limit.as_secs(),
            place(pod)
        );
        let node = self.cluster().node(pod.node);
        let answer = node.run_with_input(&command, body.as_bytes(), limit).await;
        let answer = answer.with_context(|| format!("cannot ask {pod} for its datagrams"))?;
        serde_json::from_str(&answer).with_context(|| format!("{pod} tells of no datagrams"))
    }
}

impl Datagrams<'_> {
    /// The port that they come from; the kernel gives it to nobody by itself (`ip_local_port_range`).
    pub const SOURCE_PORT: u16 = 30_000;

    /// Begins to send them.
    ///
    /// # Errors
    /// When the Pod cannot be reached, or sends some already.
    pub async fn start(&self) -> anyhow::Result<()> {
        let (from, to) = (&self.from, self.request.to);
        self.lab.step(format!(
            "datagrams from port {} of {from} to {to}",
            Self::SOURCE_PORT
        ));
        self.lab.serve_on(from).await?;
        let body = serde_json::to_string(&self.request)?;
        let report = self.lab.datagrams_of(from, "POST", &body).await?;
        self.sent_in(&report).map(drop)
    }

    /// How many were sent so far.
    ///
    /// # Errors
    /// When the sender cannot be reached, or sends no more.
    pub async fn sent(&self) -> anyhow::Result<u64> {
        let report = self.lab.datagrams_of(&self.from, "GET", "").await?;
        self.sent_in(&report)
    }

    fn sent_in(&self, report: &DatagramsReport) -> anyhow::Result<u64> {
        let of = &self.from;
        let sent = report.sent.as_ref();
        let sent = sent.with_context(|| format!("{of} sends no datagrams"))?;
        anyhow::ensure!(
            sent.request == self.request && sent.goes_on,
            "{of} was asked to send {:?}, and reports {sent:?}",
            self.request
        );
        Ok(sent.sent)
    }

    /// How many of the next twenty, or a few more, each of these Pods gets.
    ///
    /// # Errors
    /// When a Pod cannot be reached or tells what cannot be; a [`Failure`](crate::Failure) when the
    /// sender is stuck.
    pub async fn next_to(&self, pods: &[Party]) -> anyhow::Result<Vec<Received>> {
        let (began, before) = (self.sent().await?, self.counts(pods).await?);
        let expected = format!("{ENOUGH} more datagrams to be sent");
        let waited = self.lab.eventually(expected, SENT, async || {
            let more = self.sent().await?.saturating_sub(began);
            Ok(Probe::when(
                more >= ENOUGH,
                Cause::TimedOut,
                format!("{more} were"),
            ))
        });
        waited.await?;
        let (after, ended) = (self.counts(pods).await?, self.sent().await?);
        counted(pods, &before, &after, ended)
    }

    async fn counts(&self, pods: &[Party]) -> anyhow::Result<Vec<u64>> {
        let mut counts = Vec::new();
        for pod in pods {
            let report = self.lab.datagrams_of(pod, "GET", "").await?;
            let to_itself = *pod == self.from;
            counts.push(of_one_sender(&report, self.request.source_port, to_itself));
        }
        Ok(counts)
    }
}
