//! Who reaches whom: requests from nodes and Pods.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use podwire_cluster::{Family, addresses};
use podwire_lan::witness::Moment;
use podwire_probe::{
    FetchReport, FetchRequest, Kind, Outcome, RecordKind, ResolveOutcome, ResolveReport,
    ResolveRequest, TargetReport,
};

use crate::check::assert;
use crate::check::failure::Failure;
use crate::check::mesh::{Cell, Mesh};
use crate::check::pairs::{End, Pairs};
use crate::check::party::{Asker, Party};
use crate::check::shares;
use crate::check::wire::Crossing;
use crate::lab::Lab;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// A command on a node that asks a name, without the question itself.
const QUESTION: Duration = Duration::from_secs(10);
/// For the answer of a process whose kernel has taken the connection, before stretching: an emulated one
/// may have other work for seconds.
const ANSWER: Duration = Duration::from_secs(5);
/// Requests to one address that are under way at once.
const AT_ONCE: u32 = 16;
/// So many time-outs are no loss of a packet here and there, which a verdict would have to weigh.
const TIME_OUTS: u32 = 3 * AT_ONCE;

/// Small requests of a mesh that are under way at once, from each sender.
const MESH_AT_ONCE: u32 = 64;
/// Transfers that are under way at once, from each sender. What they carry is all in its kernel.
const TRANSFERS_AT_ONCE: u32 = 4;
/// For the EndpointSlice to follow its Pods, kube-proxy the EndpointSlice, and everybody to ask.
const ALL_ANSWER: Duration = Duration::from_secs(30);
/// So long nothing of a transfer may move: a segment that was lost is sent again five times until then.
const STANDSTILL: Duration = Duration::from_secs(10);

/// The request, with as much time and company as its kind needs.
fn of_kind(request: FetchRequest, kind: Kind) -> FetchRequest {
    let request = request.kind(kind);
    match kind {
        Kind::Http | Kind::Udp | Kind::Ping => request,
        Kind::Transfer { .. } => request.limit(STANDSTILL).concurrency(TRANSFERS_AT_ONCE),
    }
}

/// Requests from one party to one target, sent when it is awaited: one, unless said otherwise, each on
/// a connection of its own: five seconds to open it, and as many, stretched, to answer.
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

    /// At this port instead of port 80.
    pub fn at_port(mut self, port: u16) -> Self {
        for target in &mut self.request.targets {
            if let Some((host, _)) = target.rsplit_once(':') {
                *target = format!("{host}:{port}");
            }
        }
        self
    }

    /// Requests of another kind than HTTP: `by(Kind::both_ways(mib(1)))`. A transfer stands still for ten
    /// seconds before it has timed out, and may take its time as long as something moves.
    pub fn by(mut self, kind: Kind) -> Self {
        self.request = of_kind(self.request, kind);
        self
    }

    /// No more than so many time-outs are waited for.
    pub(super) fn at_most_time_outs(mut self, count: u32) -> Self {
        self.request = self.request.concurrency(count).give_up_after(count);
        self
    }

    /// So many at once, and all of them, however many time out.
    pub(super) fn whatever_times_out(mut self, at_once: u32) -> Self {
        let count = self.request.count;
        self.request = self.request.concurrency(at_once).give_up_after(count);
        self
    }

    /// Sends them, and each ends like this, unanswered; `expected` completes "expected ...".
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with what they did instead; or the sender cannot be reached.
    pub async fn all_end(self, how: Outcome, expected: impl AsRef<str>) -> anyhow::Result<()> {
        let judge = |from: &End, report: &TargetReport| {
            let judged = assert::all_ended(expected.as_ref(), report, how);
            (judged, shares::asked(from, report, how))
        };
        self.judged(how, &[], judge).await.map(drop)
    }

    /// Sends them, and each is answered by one of these, by its own name, see [`assert::all_answered_by`]. That
    /// each of several answers is not asked for. It gives their report.
    ///
    /// # Errors
    /// As [`Ask::all_end`].
    pub async fn all_answered_by(
        self,
        parties: impl AsRef<[Party]>,
        expected: impl AsRef<str>,
    ) -> anyhow::Result<TargetReport> {
        let parties = parties.as_ref();
        let judge = answered_by(expected.as_ref(), parties);
        self.judged(Outcome::Answered, parties, judge).await
    }

    /// Sends them, to the host outside, and each is answered, to this address, see
    /// [`assert::all_answered_to`]: as whom it saw its client.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with what they did instead; or the sender cannot be reached.
    pub async fn all_answered_to(self, client: impl Into<IpAddr>) -> anyhow::Result<()> {
        let (client, kind) = (client.into(), self.request.kind);
        let judge = |from: &End, report: &TargetReport| {
            let judged = assert::all_answered_to(client, kind, report);
            (judged, shares::asked(from, report, Outcome::Answered))
        };
        self.judged(Outcome::Answered, &[], judge).await.map(drop)
    }

    /// Sends them and judges, as [`Lab::judged`] does.
    async fn judged(
        self,
        how: Outcome,
        behind: &[Party],
        judge: impl FnOnce(&End, &TargetReport) -> (Result<(), Failure>, Pairs),
    ) -> anyhow::Result<TargetReport> {
        let (lab, from, kind) = (self.lab, Asker::from(&self.from), self.request.kind);
        let since = lab.wire().now()?;
        let report = self.send().await?;
        let verdict = judge(&from.end(), &report);
        let ended = Ended {
            from,
            kind,
            since,
            report,
        };
        lab.judged(ended, how, behind, verdict).await
    }

    async fn send(self) -> anyhow::Result<TargetReport> {
        let report = self.lab.fetch(&self.from, &self.request).await?;
        let target = report.targets.into_iter().next();
        target.with_context(|| format!("no report for {:?}", self.request.targets))
    }
}

/// Requests that have ended.
pub(super) struct Ended {
    pub(super) from: Asker,
    pub(super) kind: Kind,
    /// Before they were sent.
    pub(super) since: Moment,
    pub(super) report: TargetReport,
}

/// Whether these answered, and who else was asked by whom.
pub(super) fn answered_by(
    expected: &str,
    parties: &[Party],
) -> impl FnOnce(&End, &TargetReport) -> (Result<(), Failure>, Pairs) {
    move |from, report| {
        let judged = assert::all_answered_by(expected, report, parties);
        (
            judged,
            shares::shared(from, report, parties, shares::WHOEVER),
        )
    }
}

impl<'lab> IntoFuture for Ask<'lab> {
    type Output = anyhow::Result<TargetReport>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'lab>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Requests from each of several parties to each of several, sent when it is awaited.
#[must_use = "requests are sent when they are awaited"]
pub struct AskEach<'lab> {
    lab: &'lab Lab,
    senders: Vec<Party>,
    targets: Vec<Party>,
    /// Of which all that is asked and whom goes by, in this order; as the parties are where there is none.
    families: &'static [Family],
    request: FetchRequest,
}

impl<'lab> AskEach<'lab> {
    /// Requests of another kind than HTTP, see [`Ask::by`].
    pub fn by(mut self, kind: Kind) -> Self {
        self.request = of_kind(self.request, kind);
        self
    }

    /// By each family that the cluster has: everybody asks all by IPv4, and in a dual-stack cluster then by
    /// IPv6 as well.
    pub fn by_each_family(mut self) -> Self {
        self.families = self.lab.ip_families().each();
        self
    }

    async fn send(self) -> anyhow::Result<Mesh> {
        let mut mesh = Mesh {
            since: self.lab.wire().now()?,
            ..Mesh::default()
        };
        if self.families.is_empty() {
            self.ask(&self.senders, &self.targets, &mut mesh).await?;
        }
        for family in self.families {
            let by = |parties: &[Party]| parties.iter().map(|it| it.by(*family)).collect();
            let senders: Result<Vec<Party>, Failure> = by(&self.senders);
            let targets: Result<Vec<Party>, Failure> = by(&self.targets);
            self.ask(&senders?, &targets?, &mut mesh).await?;
        }
        Ok(mesh)
    }

    /// One request from each of these to each of those, as they are.
    async fn ask(
        &self,
        senders: &[Party],
        targets: &[Party],
        mesh: &mut Mesh,
    ) -> anyhow::Result<()> {
        let addresses = targets.iter().map(|it| SocketAddr::new(it.ip(), PORT));
        let request = FetchRequest {
            targets: addresses.map(|it| it.to_string()).collect(),
            ..self.request.clone()
        };
        let reports = senders.iter();
        let reports = reports.map(|from| self.lab.fetch(from, &request));
        let reports = try_join_all(reports).await?;
        for (from, report) in senders.iter().zip(reports) {
            for (to, target) in targets.iter().zip(report.targets) {
                let result = target.results.into_iter().next();
                let result = result.with_context(|| format!("no result for {from} -> {to}"))?;
                mesh.cells.push(Cell {
                    from: from.clone(),
                    to: to.clone(),
                    outcome: result.outcome,
                    // An echo's reply names nobody, and is only taken from the address that was asked.
                    host: match self.request.kind {
                        Kind::Ping if result.outcome == Outcome::Answered => Some(to.name.clone()),
                        _ => result.host,
                    },
                    client: result.client,
                    error: result.error,
                    came: None,
                });
            }
        }
        for from in senders {
            self.lab.tell_what_was_lost(from, mesh).await?;
        }
        Ok(())
    }
}

impl<'lab> IntoFuture for AskEach<'lab> {
    type Output = anyhow::Result<Mesh>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'lab>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Where everybody here answers.
const PORT: u16 = 80;

/// An address or a name with that port; one of IPv6 stands in brackets (RFC 3986, 3.2.2).
fn at_port_80(to: &impl Display) -> String {
    let to = to.to_string();
    match to.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, PORT).to_string(),
        Err(_) => format!("{to}:{PORT}"),
    }
}

impl Lab {
    /// Asks an address or a name at port 80, from a node or from inside a Pod:
    /// `lab.ask(node1, "10.0.0.42").times(100).await?`.
    pub fn ask(&self, from: impl Into<Party>, to: impl Display) -> Ask<'_> {
        Ask {
            lab: self,
            from: from.into(),
            request: self
                .requests([at_port_80(&to)])
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
        let request = self.requests([at_port_80(&one), at_port_80(&other)]);
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
        self.resolve_by(Family::Ipv4, from, name).await
    }

    /// The same for the addresses of a family; AAAA records (RFC 3596) for IPv6.
    ///
    /// # Errors
    /// As [`Lab::resolve`].
    pub async fn resolve_by(
        &self,
        family: Family,
        from: &Party,
        name: &str,
    ) -> anyhow::Result<ResolveReport> {
        let kind = match family {
            Family::Ipv4 => RecordKind::A,
            Family::Ipv6 => RecordKind::Aaaa,
        };
        let request = ResolveRequest::new(name, kind);
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

    /// The DNS leads from a name to exactly these addresses of a family, see [`assert::resolved`].
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with the whole answer or, where nobody answered, how far the question
    /// came; as [`Lab::resolve`].
    pub async fn resolves_to(
        &self,
        family: Family,
        from: &Party,
        name: &str,
        wanted: &BTreeSet<IpAddr>,
    ) -> anyhow::Result<()> {
        let since = self.wire().now()?;
        let answer = self.resolve_by(family, from, name).await?;
        let Err(mut failure) = assert::resolved(&answer, wanted) else {
            return Ok(());
        };
        if let Some(server) = answer
            .server
            .filter(|_| answer.outcome == ResolveOutcome::TimedOut)
        {
            let target = server.to_string();
            let (wire, asker) = (self.wire(), Asker::from(from));
            let mut pairs = shares::unanswered(&asker.end(), &target);
            pairs.lost = wire.trace_to(&asker, &target, Kind::Udp, since, &[]).await;
            failure = failure.pairs(pairs);
        }
        Err(failure.into())
    }

    /// The report of requests, when this verdict finds them right. Else its failure, with who asked whom and, where
    /// one that should have ended otherwise (`how`) timed out, how far it came: to its target, and from there to
    /// those `behind` it.
    pub(super) async fn judged(
        &self,
        ended: Ended,
        how: Outcome,
        behind: &[Party],
        (verdict, mut pairs): (Result<(), Failure>, Pairs),
    ) -> anyhow::Result<TargetReport> {
        let Ended {
            from,
            kind,
            since,
            report,
        } = ended;
        let Err(failure) = verdict else {
            return Ok(report);
        };
        if how != Outcome::TimedOut && report.count(Outcome::TimedOut) > 0 {
            let (wire, target) = (self.wire(), &report.target);
            pairs.lost = wire.trace_to(&from, target, kind, since, behind).await;
        }
        Err(failure.pairs(pairs).into())
    }

    fn requests(&self, targets: impl IntoIterator<Item = String>) -> FetchRequest {
        FetchRequest::new(targets).answer_within(self.limit(ANSWER))
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

    /// One request from every sender to every Pod, HTTP unless said otherwise.
    pub fn mesh(&self, senders: &[Party], pods: &[Party]) -> AskEach<'_> {
        AskEach {
            lab: self,
            senders: senders.to_vec(),
            targets: pods.to_vec(),
            families: &[],
            request: self.requests([]).concurrency(MESH_AT_ONCE),
        }
    }

    /// The first Pod of the workload on each node, once all run that the workload is to have.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when not all run, or a node has none.
    pub async fn pod_of_each_node(&self) -> anyhow::Result<Vec<Party>> {
        let pods = self.pods().all().await?;
        Ok(pods.first_of_each_node(self.node_count())?)
    }

    /// Every node, and the first Pod of the workload on each, as senders.
    ///
    /// # Errors
    /// As [`Lab::pod_of_each_node`].
    pub async fn everybody(&self) -> anyhow::Result<Vec<Party>> {
        let mut senders = self.node_parties();
        senders.extend(self.pod_of_each_node().await?);
        Ok(senders)
    }

    /// Waits until each of these answers a request of every sender, by its own name and by each family that
    /// the cluster has. For what has only
    /// just come about: a Service that kube-proxy has yet to hear of.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) that lists the pairs which do otherwise, when it does not come to
    /// that.
    pub async fn until_all_answer(
        &self,
        senders: &[Party],
        targets: &[Party],
    ) -> anyhow::Result<()> {
        self.until_all_answer_within(ALL_ANSWER, senders, targets)
            .await
    }

    /// The same within another limit, before stretching.
    pub(super) async fn until_all_answer_within(
        &self,
        limit: Duration,
        senders: &[Party],
        targets: &[Party],
    ) -> anyhow::Result<()> {
        let expected = "each of them to answer everybody";
        let seen = self.eventually(expected, limit, async || {
            let mesh = self.mesh(senders, targets).by_each_family().await?;
            let Err(failure) = mesh.all_answer(expected) else {
                return Ok(Probe::Done(()));
            };
            let silent = |cell: &&Cell| cell.host.as_ref() != Some(&cell.to.name);
            let needs = match mesh.cells.iter().find(silent) {
                Some(cell) => self.way(cell).await?,
                None => Needs::Time,
            };
            Ok(Probe::judged(Err(failure)).needs(needs))
        });
        seen.await
    }

    /// Who would have to act for a request like this to be answered.
    async fn way(&self, cell: &Cell) -> anyhow::Result<Needs> {
        let Cell { from, to, .. } = cell;
        // What kube-proxy has for IPv6 is not looked into.
        if to.family == Family::Ipv6 {
            return Ok(Needs::Time);
        }
        if !addresses::SERVICES.contains(to.address) {
            let (from, to) = (from.clone(), to.clone());
            return Ok(Needs::Way { from, to });
        }
        let pod = self.pods().anybodys().named(&to.name).await?;
        Ok(Needs::KubeProxy {
            node: from.node,
            service: to.address,
            pods: pod.and_then(|pod| pod.address()).into_iter().collect(),
        })
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
            cell.came = Some(self.wire().trace(&crossing, since)?);
        }
        Ok(())
    }

    /// One request from every node, and from one Pod of each, to every Pod that the workload is to
    /// have, by each family that the cluster has: it waits until all of them run.
    ///
    /// # Errors
    /// As [`Lab::everybody`]; when a sender cannot be reached. What became of the requests is in the
    /// mesh.
    pub async fn mesh_of_everybody(&self) -> anyhow::Result<Mesh> {
        let pods = self.pods().all().await?;
        let mut senders = self.node_parties();
        senders.extend(pods.first_of_each_node(self.node_count())?);
        self.mesh(&senders, &pods).by_each_family().await
    }

    /// Every node, and a Pod of each, reaches every Pod of the workload.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) that lists the pairs which do otherwise; as
    /// [`Lab::mesh_of_everybody`].
    pub async fn everybody_reaches_everybody(&self) -> anyhow::Result<()> {
        self.step("everybody reaches everybody");
        let mesh = self.mesh_of_everybody().await?;
        Ok(mesh.all_answer("every pair to answer, as before")?)
    }

    /// One request from one Pod of each node to every Pod that the workload is to have.
    ///
    /// # Errors
    /// As [`Lab::mesh_of_everybody`].
    pub async fn mesh_of_pods(&self) -> anyhow::Result<Mesh> {
        let pods = self.pods().all().await?;
        let senders = pods.first_of_each_node(self.node_count())?;
        self.mesh(&senders, &pods).await
    }
}
