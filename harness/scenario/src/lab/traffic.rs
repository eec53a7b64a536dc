//! Steady traffic in a lab: a sender in a Pod or on a node, and the steps that fall into its time.

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_probe::{Kind, TrafficRecord, TrafficRequest};
use podwire_process::plain;

use crate::check::clock::{ClockReading, millis};
use crate::check::party::Party;
use crate::check::record::{Record, misrecorded};
use crate::lab::Lab;
use crate::lab::senders::Sender;
use crate::lab::serving::place;

pub(super) mod asked;
mod pace;
mod until;

/// The drawing, in the attempt's folder.
pub(crate) const TIMELINE: &str = "timeline.txt";
/// Every request of every sender, beside it.
pub(crate) const REQUESTS: &str = "timeline.json";

/// For one question to a sender, before stretching; the last one waits for what is under way.
const QUESTION: Duration = Duration::from_secs(20);

/// For the kernel at the other end of a node's own wire to accept a connection, which takes it no
/// process: not stretched.
const CONNECTED: Duration = Duration::from_secs(10);

/// Steady traffic that goes on until it is stopped, or its lab ends. The lab's steps become its
/// marks.
#[must_use = "traffic that nobody stops is drawn, but nothing is asserted of it"]
pub struct Traffic<'lab> {
    lab: &'lab Lab,
    number: usize,
}

impl Traffic<'_> {
    /// What was sent until now; requests may be under way.
    ///
    /// # Errors
    /// When the sender cannot be reached, or is gone.
    pub async fn so_far(&self) -> anyhow::Result<Record> {
        self.lab.traffic_record(self.number, false).await
    }

    /// Ends it, waits for the requests under way, and gives the whole record.
    ///
    /// # Errors
    /// When the sender cannot be reached, or is gone.
    pub async fn stop(self) -> anyhow::Result<Record> {
        self.lab.traffic_record(self.number, true).await
    }
}

/// Steady traffic that starts when it is awaited.
#[must_use = "traffic starts when it is awaited"]
pub struct StartTraffic<'lab> {
    lab: &'lab Lab,
    from: Party,
    request: TrafficRequest,
}

impl<'lab> StartTraffic<'lab> {
    /// Requests of another kind than HTTP: `by(Kind::Udp)`.
    pub fn by(mut self, kind: Kind) -> Self {
        self.request.kind = kind;
        self
    }

    async fn start(self) -> anyhow::Result<Traffic<'lab>> {
        let Self { lab, from, request } = self;
        lab.step(format!("steady traffic from {from} to {}", request.target));
        lab.serve_on(&from).await?;
        let target = lab.target(&request.target).await?;
        let known = lab.known(&target).await?;
        let body = serde_json::to_vec(&request)?;
        let (first, _) = lab.ask_sender(&from, &request, "POST", &body).await?;
        let sender = Sender {
            from,
            request,
            first,
            others: Vec::new(),
            target,
            known,
            done: None,
        };
        let mut senders = lab.traffic().senders();
        senders.push(sender);
        Ok(Traffic {
            lab,
            number: senders.len() - 1,
        })
    }
}

impl<'lab> IntoFuture for StartTraffic<'lab> {
    type Output = anyhow::Result<Traffic<'lab>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'lab>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl Lab {
    /// Sends a request to `target` (`HOST:PORT`) every so often, each on a fresh connection with
    /// five seconds to be answered, whatever becomes of those before it. From a node, or from inside
    /// a Pod, which sends as long as it lives: one traffic at a time. By HTTP, unless said otherwise;
    /// it starts when it is awaited. Whose answers count is by the target: those of the Pods behind a
    /// Service's address or port of nodes, of the Pod or of the Node.
    pub fn start_traffic(
        &self,
        from: &Party,
        target: impl Into<String>,
        every: Duration,
    ) -> StartTraffic<'_> {
        let mut request = TrafficRequest::new(target);
        request.interval_ms = millis(every);
        StartTraffic {
            lab: self,
            from: from.clone(),
            request,
        }
    }

    /// The traffic that was started last and that nobody stopped: what a sabotage's check asks of the
    /// one that was there before the fault.
    ///
    /// # Errors
    /// When there is none.
    pub fn running_traffic(&self) -> anyhow::Result<Traffic<'_>> {
        let last = self.traffic().last_running();
        let number = last.context("no steady traffic goes on")?;
        Ok(Traffic { lab: self, number })
    }

    /// Draws the traffic that there was, and stops what nobody stopped. Nothing without any.
    pub(crate) async fn leave_timeline(&self, folder: &Path) -> io::Result<()> {
        let number = self.traffic().senders().len();
        if number == 0 {
            return Ok(());
        }
        let mut drawn = Vec::new();
        let mut records = Vec::new();
        for sender in 0..number {
            let done = self.traffic().senders()[sender].done.clone();
            let record = match done {
                Some(record) => Ok(record),
                None => self.traffic_record(sender, true).await,
            };
            match record {
                Ok(record) => {
                    drawn.push(record.to_string());
                    records.push(record);
                }
                Err(error) => {
                    let from = self.traffic().senders()[sender].from.clone();
                    drawn.push(format!("The traffic of {from} left no record: {error:#}\n"));
                }
            }
        }
        // Whoever answered has named himself.
        fs::write(folder.join(TIMELINE), plain::text(&drawn.join("\n")))?;
        fs::write(folder.join(REQUESTS), serde_json::to_vec(&records)?)
    }

    async fn traffic_record(&self, number: usize, stop: bool) -> anyhow::Result<Record> {
        let until = Instant::now();
        let (from, request, target) = {
            let sender = &self.traffic().senders()[number];
            (
                sender.from.clone(),
                sender.request.clone(),
                sender.target.clone(),
            )
        };
        let method = if stop { "DELETE" } else { "GET" };
        let (reading, sent) = self.ask_sender(&from, &request, method, &[]).await?;
        // Pods have come and gone meanwhile. What an API that does not answer would add is good enough
        // without for a drawing; it gives the target no Pods either.
        let known = self.known(&target).await.unwrap_or_default();
        let mut senders = self.traffic().senders();
        let sender = &mut senders[number];
        sender.known.extend(known);
        sender.others.push(reading);
        let record = self.traffic().record(sender, sent, until);
        if stop {
            sender.done = Some(record.clone());
        }
        Ok(record)
    }

    async fn ask_sender(
        &self,
        from: &Party,
        request: &TrafficRequest,
        method: &str,
        body: &[u8],
    ) -> anyhow::Result<(ClockReading, TrafficRecord)> {
        let place = place(from);
        let limit = self.limit(QUESTION);
        let command = format!(
            "curl -sS --fail-with-body --connect-timeout {} --max-time {} -X {method} \
             --data-binary @- http://{place}/traffic",
            CONNECTED.as_secs(),
            limit.as_secs()
        );
        let node = self.cluster().node(from.node);
        let asked = Instant::now();
        let answer = node.run_with_input(&command, body, limit).await;
        let told = Instant::now();
        let answer = answer.with_context(|| format!("cannot reach the sender {from}"))?;
        let record: TrafficRecord = serde_json::from_str(&answer)
            .with_context(|| format!("the sender {from} gives no record"))?;
        if let Some(wrong) = misrecorded(request, &record) {
            anyhow::bail!("the record of the sender {from} cannot be: {wrong}");
        }
        let reading = ClockReading {
            asked,
            elapsed_ms: record.elapsed_ms,
            told,
        };
        Ok((reading, record))
    }
}
