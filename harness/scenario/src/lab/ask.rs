//! Who reaches whom: requests from nodes and Pods.

use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use podwire_probe::{
    FetchReport, FetchRequest, Outcome, RecordKind, ResolveReport, ResolveRequest, TargetReport,
};

use crate::check::assert::{self, Cell, Mesh, Party};
use crate::check::wire::Crossing;
use crate::lab::Lab;

/// A command on a node that asks a name, without the question itself.
const QUESTION: Duration = Duration::from_secs(10);
/// Requests to one address that are under way at once.
const AT_ONCE: u32 = 16;
/// So many time-outs are no loss of a packet here and there, which a verdict would have to weigh.
const TIME_OUTS: u32 = 3 * AT_ONCE;

/// Requests from one party to one target, sent when it is awaited: one, unless said otherwise, each on
/// a connection of its own with five seconds to be answered.
#[must_use = "requests are sent when they are awaited"]
pub struct Ask<'lab> {
    lab: &'lab Lab,
    from: Party,
    request: FetchRequest,
}

impl<'lab> Ask<'lab> {
    /// So many of them; not all when so many time out that nothing can make it right any more.
    pub fn times(mut self, count: u32) -> Self {
        self.request = self.request.count(count);
        self
    }

    /// No more than so many time-outs are waited for.
    pub(super) fn at_most_time_outs(mut self, count: u32) -> Self {
        self.request = self.request.concurrency(count).give_up_after(count);
        self
    }

    /// Sends them, and each ends like this; `expected` completes "expected ...".
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with what they did instead; or the sender cannot be reached.
    pub async fn all_end(self, how: Outcome, expected: impl AsRef<str>) -> anyhow::Result<()> {
        let report = self.send().await?;
        Ok(assert::all_ended(expected.as_ref(), &report, how)?)
    }

    async fn send(self) -> anyhow::Result<TargetReport> {
        let report = self.lab.fetch(&self.from, &self.request).await?;
        let target = report.targets.into_iter().next();
        target.with_context(|| format!("no report for {:?}", self.request.targets))
    }
}

impl<'lab> IntoFuture for Ask<'lab> {
    type Output = anyhow::Result<TargetReport>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'lab>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl Lab {
    /// Asks an address or a name at port 80, from a node or from inside a Pod:
    /// `lab.ask(node1, "10.0.0.42").times(100).await?`.
    pub fn ask(&self, from: impl Into<Party>, to: impl Display) -> Ask<'_> {
        Ask {
            lab: self,
            from: from.into(),
            request: FetchRequest::new([format!("{to}:80")])
                .concurrency(AT_ONCE)
                .give_up_after(TIME_OUTS),
        }
    }

    /// Asks two at the same time, once each: a negative and the positive beside it.
    ///
    /// # Errors
    /// When the sender cannot be reached; what became of the requests is in the reports.
    pub async fn ask_both(
        &self,
        from: impl Into<Party>,
        one: impl Display,
        other: impl Display,
    ) -> anyhow::Result<(TargetReport, TargetReport)> {
        let request = FetchRequest::new([format!("{one}:80"), format!("{other}:80")]);
        let targets = self.fetch(&from.into(), &request).await?.targets;
        let count = targets.len();
        let [one, other] = <[TargetReport; 2]>::try_from(targets)
            .map_err(|_| anyhow::anyhow!("two targets asked, {count} reported"))?;
        Ok((one, other))
    }

    /// Asks the DNS for the addresses of an absolute name (A records, RFC 1035), from a node or from
    /// inside a Pod, by the first nameserver of its /etc/resolv.conf: the whole answer, duplicates and
    /// all. No hosts file is looked at.
    ///
    /// # Errors
    /// When the sender cannot be reached; what the DNS said, or that nobody did, is in the report.
    pub async fn resolve(&self, from: &Party, name: &str) -> anyhow::Result<ResolveReport> {
        let request = ResolveRequest::new(name, RecordKind::A);
        let via = match from.pod {
            true => format!(" --via {}:80", from.address),
            false => String::new(),
        };
        let command = format!("probe resolve{via}");
        let limit = self.limit(QUESTION) + request.longest();
        let node = self.cluster().node(from.node);
        let input = serde_json::to_vec(&request)?;
        let asked = node.run_with_input(&command, &input, limit);
        let answer = asked
            .await
            .with_context(|| format!("cannot ask for a name from {from}"))?;
        let report: ResolveReport =
            serde_json::from_str(&answer).with_context(|| format!("no report in {answer:?}"))?;
        let told = report.name.trim_end_matches('.');
        anyhow::ensure!(
            report.kind == request.kind && told.eq_ignore_ascii_case(name.trim_end_matches('.')),
            "{from} was asked for {name} ({:?}), and reports {told} ({:?})",
            request.kind,
            report.kind
        );
        Ok(report)
    }

    async fn fetch(&self, from: &Party, request: &FetchRequest) -> anyhow::Result<FetchReport> {
        let cluster = self.cluster();
        let report = if from.pod {
            cluster
                .fetch_from_pod(from.node, from.address, request)
                .await
        } else {
            cluster.fetch_from_node(from.node, request).await
        };
        report.with_context(|| format!("cannot send requests from {from}"))
    }

    /// One request from every sender to every Pod.
    ///
    /// # Errors
    /// When a sender cannot be reached; what became of the requests is in the mesh.
    pub async fn mesh(&self, senders: &[Party], pods: &[Party]) -> anyhow::Result<Mesh> {
        let targets = pods.iter().map(|pod| format!("{}:80", pod.address));
        let request = FetchRequest::new(targets).concurrency(64);
        let since = self.wire().now()?;
        let reports = try_join_all(senders.iter().map(|from| self.fetch(from, &request))).await?;
        let mut mesh = Mesh {
            since,
            ..Mesh::default()
        };
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
                    came: None,
                });
            }
        }
        for from in senders {
            self.tell_what_was_lost(from, &mut mesh).await?;
        }
        Ok(mesh)
    }

    /// How far each of one sender's requests came that nobody answered.
    async fn tell_what_was_lost(&self, from: &Party, mesh: &mut Mesh) -> anyhow::Result<()> {
        let since = mesh.since;
        let own = mesh.cells.iter_mut().filter(|cell| cell.from == *from);
        let lost: Vec<&mut Cell> = own
            .filter(|cell| cell.outcome == Outcome::TimedOut)
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let clients = self.wire().clients_of(from).await;
        for cell in lost {
            let crossing = Crossing {
                from: from.clone(),
                to: cell.to.clone(),
                clients: clients.clone(),
                answered: false,
            };
            cell.came = Some(self.wire().last_seen(&crossing, since)?);
        }
        Ok(())
    }

    /// One request from every node, and from one Pod of each, to every Pod that the workload is to
    /// have: it waits until all of them run.
    ///
    /// # Errors
    /// As [`Lab::mesh`]; a [`Failure`](crate::Failure) when not all run, or a node has none.
    pub async fn mesh_of_everybody(&self) -> anyhow::Result<Mesh> {
        let pods = self.pods().all_running().await?;
        let mut senders = self.node_parties();
        senders.extend(assert::one_per_node(&pods, self.node_count())?);
        self.mesh(&senders, &pods).await
    }

    /// One request from one Pod of each node to every Pod that the workload is to have.
    ///
    /// # Errors
    /// As [`Lab::mesh_of_everybody`].
    pub async fn mesh_of_pods(&self) -> anyhow::Result<Mesh> {
        let pods = self.pods().all_running().await?;
        let senders = assert::one_per_node(&pods, self.node_count())?;
        self.mesh(&senders, &pods).await
    }
}
