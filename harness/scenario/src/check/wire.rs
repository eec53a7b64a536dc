//! Whether the wire carried requests as it should have, and how far a lost one came.

mod trace;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use podwire_cluster::Layout;
use podwire_cluster::addresses::{mac_at, node_name};
use podwire_lan::witness::{
    Again, Lost, Moment, Seen, Sighting, connections, second_syns, unusual,
};
use podwire_probe::{Outcome, TargetReport};

pub(crate) use self::trace::{
    first_unanswered, is_of, is_outside, trace, trace_to, unanswered_connections,
};
use self::way::{Hop, hops};
use crate::check::assert::is_of_services;
use crate::check::failure::{Cause, Failure};
use crate::check::mesh::{Cell, Mesh};
use crate::check::party::Party;

/// The gateway's port on the first segment; `gateway-2` on the second.
const GATEWAY: &str = "gateway";
/// Requests that a failure tells of in full, and frames of each.
const TOLD: usize = 6;
const FRAMES: usize = 4;
/// Lines of what stood out.
const LINES: usize = 20;

/// Requests of one party to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// Who asked.
    pub from: Party,
    /// Whose answer was wanted, or came.
    pub to: Party,
    /// The addresses by which the other side may know the sender.
    pub clients: BTreeSet<IpAddr>,
    /// Whether any was answered.
    pub answered: bool,
}

/// Requests, as far as the wire is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// Before they were sent.
    pub since: Moment,
    /// Who asked whom.
    pub crossings: Vec<Crossing>,
}

impl From<&Mesh> for Requests {
    fn from(mesh: &Mesh) -> Self {
        let crossing = |cell: &Cell| Crossing {
            from: cell.from.clone(),
            to: cell.to.clone(),
            clients: cell
                .client
                .iter()
                .filter_map(|it| it.parse().ok())
                .collect(),
            answered: cell.outcome == Outcome::Answered,
        };
        Requests {
            since: mesh.since,
            crossings: mesh.cells.iter().map(crossing).collect(),
        }
    }
}

impl Requests {
    /// One party's requests to a Service, by the Pods that answered.
    pub(crate) fn to_service(
        since: Moment,
        from: &Party,
        pods: &[Party],
        report: &TargetReport,
    ) -> Self {
        let clients = report
            .clients()
            .into_keys()
            .filter_map(|it| it.parse().ok());
        let clients: BTreeSet<IpAddr> = clients.collect();
        let hosts = report.hosts();
        let crossing = |pod: &Party| Crossing {
            from: from.clone(),
            to: pod.clone(),
            clients: clients.clone(),
            answered: hosts.contains_key(pod.name.as_str()),
        };
        Requests {
            since,
            crossings: pods.iter().map(crossing).collect(),
        }
    }
}

/// What the wire has to say of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Which nodes share a segment.
    pub(crate) layout: Layout,
    /// The frames of each.
    pub(crate) crossings: Vec<(Crossing, Seen)>,
    /// What was sent to the gateway for Pods and Services meanwhile, by whomever.
    pub(crate) to_gateway: Vec<Sighting>,
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

impl Crossing {
    fn stays_on_its_node(&self) -> bool {
        self.from.node == self.to.node
    }

    /// From the sender's node to the receiver's.
    fn way(&self, layout: Layout) -> Vec<Hop> {
        hops(layout, self.from.node, self.to.node)
    }

    fn is_request(&self, frame: &Sighting) -> bool {
        let source = frame.packet().map(|packet| packet.source);
        source.is_some_and(|source| self.clients.contains(&source))
    }

    /// The way of which a frame should have been a part.
    fn way_of(&self, frame: &Sighting, layout: Layout) -> Vec<Hop> {
        match self.is_request(frame) {
            true => self.way(layout),
            false => hops(layout, self.to.node, self.from.node),
        }
    }

    /// Whether a frame took another way. What the switch itself has lost took none, and an ICMP error
    /// may come from anybody.
    fn is_astray(&self, frame: &Sighting, layout: Layout) -> bool {
        let Some(packet) = frame.packet() else {
            return false;
        };
        if packet.about().is_some() {
            return false;
        }
        let is_part = |(from, to): &Hop| {
            let mut lost = frame.lost.iter();
            let lost = lost.any(|(port, _)| **port == **to || **port == **from);
            *frame.from == **from && (lost || arrives(frame, to))
        };
        self.stays_on_its_node() || !self.way_of(frame, layout).iter().any(is_part)
    }
}

/// Whether a frame went to this port, and was for the machine behind it. One that was flooded went to
/// others, who did not take it.
fn arrives(frame: &Sighting, port: &str) -> bool {
    let its_own = frame.addresses.map(|(_, to)| to) == mac_at(port);
    match (&*frame.to, frame.flooded) {
        ([only], false) => **only == *port,
        (to, true) => its_own && to.iter().any(|it| **it == *port),
        (_, false) => false,
    }
}

/// Each request crossed the wire once, from its sender's node to its receiver's and no third one's (by the
/// router where they do not share a segment, once on each), and its answer likewise the other way; what stays within a node was not on the wire. Nothing was lost
/// behind the wire and sent again, no connection was opened twice, and nothing for a Pod or a Service
/// went to the gateway. Where packets may be `hidden` from the wire, none has to have been seen.
///
/// # Errors
/// A [`Failure`] with the frames that went otherwise.
pub(crate) fn carried(observed: &Observed, hidden: bool) -> Result<(), Failure> {
    let (seen, layout) = (&observed.crossings, observed.layout);
    on_their_way(seen, layout)?;
    none_at_the_gateway(&observed.to_gateway)?;
    once(seen)?;
    let unseen = |(crossing, seen): &&(Crossing, Seen)| {
        let has_to_cross = crossing.answered && !crossing.stays_on_its_node();
        let crossed = |(one, other): &Hop| {
            let mut frames = seen.frames.iter().filter(|it| it.tcp().is_some());
            frames.any(|it| [one, other].iter().any(|port| *it.from == ***port))
        };
        has_to_cross && !crossing.way(layout).iter().all(crossed)
    };
    let unseen: Vec<String> = seen
        .iter()
        .filter(unseen)
        .map(|(it, _)| format!("\n  {it}"))
        .collect();
    if hidden || unseen.is_empty() {
        return Ok(());
    }
    let expected =
        "requests between nodes to be on the wire with the addresses that their ends see";
    let seen = format!("answered, and not seen on the wire:{}", unseen.concat());
    let failure = Failure::new(Cause::WrongPath, expected, seen);
    Err(failure.look("the wire capture: between which addresses, in which tunnel, do they go?"))
}

fn on_their_way(seen: &[(Crossing, Seen)], layout: Layout) -> Result<(), Failure> {
    let astray = seen
        .iter()
        .filter_map(|(crossing, seen)| Some((crossing, astray(crossing, seen, layout)?)));
    let astray: Vec<(&Crossing, String)> = astray.collect();
    let Some((first, _)) = astray.first() else {
        return Ok(());
    };
    let told: String = astray
        .iter()
        .take(TOLD)
        .map(|(_, told)| told.as_str())
        .collect();
    let count = format!("{} of {} took another way:{told}", astray.len(), seen.len());
    let expected = "each request to cross the wire once, from its sender's node to its receiver's, and \
                    none that stays within a node";
    let crossings = astray.iter().map(|(crossing, _)| *crossing);
    Err(Failure::new(Cause::WrongPath, expected, count).look(format!(
        "`ip route get {}` and `ip neighbour` of {}, and whose the Ethernet address is that they name: {}",
        first.to.ip(),
        node_name(first.from.node),
        who_is_who(crossings, layout),
    )))
}

/// The frames of a request that took another way, in words.
fn astray(crossing: &Crossing, seen: &Seen, layout: Layout) -> Option<String> {
    let frames = seen.frames.iter();
    let frames = frames.filter(|it| crossing.is_astray(it, layout));
    let frames: Vec<String> = frames.map(|it| format!("\n    {it}")).collect();
    if frames.is_empty() {
        return None;
    }
    let way = match crossing.stays_on_its_node() {
        true => "has no business on the wire".to_owned(),
        false => {
            let way = crossing.way(layout).into_iter();
            let way = way.map(|(from, to)| format!("between {from} and {to}"));
            format!("goes {}", way.collect::<Vec<_>>().join(" and "))
        }
    };
    let more = match frames.len().saturating_sub(FRAMES) {
        0 => String::new(),
        more => format!("\n    and {more} more frames"),
    };
    let first: String = frames.into_iter().take(FRAMES).collect();
    Some(format!("\n  {crossing}, which {way}:{first}{more}"))
}

/// The Ethernet addresses of the machines that take part.
fn who_is_who<'a>(crossings: impl Iterator<Item = &'a Crossing>, layout: Layout) -> String {
    let ports = crossings.flat_map(|it| it.way(layout));
    let ports: BTreeSet<String> = ports.flat_map(|(from, to)| [from, to]).collect();
    let named = ports.iter().filter_map(|port| {
        let mac = mac_at(port)?;
        Some(format!("{port} {mac}"))
    });
    named.collect::<Vec<_>>().join(", ")
}

fn none_at_the_gateway(to_gateway: &[Sighting]) -> Result<(), Failure> {
    if to_gateway.is_empty() {
        return Ok(());
    }
    let told = to_gateway.iter().take(TOLD).map(|it| format!("\n  {it}"));
    let seen = format!("{} frames:{}", to_gateway.len(), told.collect::<String>());
    let expected = "nothing for a Pod or a Service to be sent to the gateway";
    let failure = Failure::new(Cause::WrongPath, expected, seen);
    Err(failure.look("`ip route` and kube-proxy's rules of the node that sent it"))
}

fn once(seen: &[(Crossing, Seen)]) -> Result<(), Failure> {
    let mut frames: BTreeMap<u64, &Sighting> = BTreeMap::new();
    for (_, seen) in seen {
        frames.extend(seen.frames.iter().map(|frame| (frame.number, frame)));
    }
    let frames: Vec<Sighting> = frames.into_values().cloned().collect();
    let connections = connections(&frames);
    let told = |all: Vec<String>| {
        let told: String = all
            .iter()
            .take(TOLD)
            .map(|it| format!("\n  {it}"))
            .collect();
        format!("{} of {} connections:{told}", all.len(), connections.len())
    };
    let second: Vec<String> = second_syns(&connections)
        .iter()
        .map(ToString::to_string)
        .collect();
    if !second.is_empty() {
        let expected = "each connection to be opened once";
        let failure = Failure::new(Cause::SecondSyn, expected, told(second));
        return Err(failure.look(
            "who translates on the sending node and forgets the connection before it is confirmed: \
             `conntrack -L`, the bridge's hairpin mode, rules that drop",
        ));
    }
    let repeats = connections.iter().flat_map(|it| it.repeats());
    let lost = repeats.filter(|it| it.fate == Again::FirstLost);
    let lost: Vec<String> = lost.map(|it| it.to_string()).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let expected = "nothing to be lost behind the wire and sent again";
    Err(Failure::new(Cause::SentAgain, expected, told(lost))
        .look("the rules and the interfaces' counters of the node that the first copy went to"))
}

/// How far an unanswered request came: where its last frame was, and where it should have gone next.
pub(crate) fn last_seen(crossing: &Crossing, seen: &Seen, layout: Layout) -> String {
    let from = node_name(crossing.from.node);
    let forgotten = match seen.forgotten {
        0 => String::new(),
        count => format!(" ({count} older frames are forgotten)"),
    };
    let Some(last) = seen.frames.last() else {
        return match crossing.stays_on_its_node() {
            true => format!("not on the wire, where it has no business: it was lost on {from}"),
            false => format!("nothing of it was on the wire: it never left {from}{forgotten}"),
        };
    };
    let what = match last.packet().is_some_and(|packet| packet.about().is_some()) {
        true => "what came last was an error",
        false if crossing.is_request(last) => "what came last was the request",
        false => "what came last was the answer",
    };
    let party = match crossing.is_request(last) {
        true => &crossing.to,
        false => &crossing.from,
    };
    let way = crossing.way_of(last, layout);
    let at = way.iter().position(|(from, _)| **from == *last.from);
    let next = match crossing.stays_on_its_node() {
        true => format!("it should not have left {from}"),
        false => next_hop(last, &way[at.unwrap_or_default()..], party),
    };
    format!("{what}: {last}; {next}{forgotten}")
}

/// How far those connections of requests came that were not answered.
pub(crate) fn unanswered(seen: &[(Crossing, Seen)], layout: Layout) -> String {
    let mut told = Vec::new();
    for (crossing, seen) in seen {
        for connection in connections(&seen.frames) {
            if connection.isn.is_some() && !connection.answered() {
                let frames = Seen {
                    frames: connection.frames,
                    ..Seen::default()
                };
                told.push(format!(
                    "\n  {crossing}: {}",
                    last_seen(crossing, &frames, layout)
                ));
            }
        }
    }
    let count = told.len();
    match told.into_iter().take(TOLD).collect::<String>() {
        none if none.is_empty() => none,
        some => format!("\nOn the wire and not answered, {count} connections:{some}"),
    }
}

/// What a run that wants nothing to stand out says of what did.
pub(crate) fn too_unusual(told: &str) -> Failure {
    let expected = "nothing to stand out on the wire (`--wire strict`)";
    let failure = Failure::new(Cause::Unusual, expected, format!("\n{}", told.trim_end()));
    failure.look("the wire capture of the evidence, at the times and ports above")
}

/// Whether a frame was sent to the gateway although it is for a Service, or for a Pod that takes part in
/// these requests: what is still under way to a Pod that is gone is another matter.
pub(crate) fn strayed_to_the_gateway(frame: &Sighting, crossings: &[Crossing]) -> bool {
    let sent_there = !frame.flooded && matches!(&*frame.to, [only] if is_gateway(only));
    let Some(destination) = frame.packet().map(|packet| packet.destination) else {
        return false;
    };
    let mut parties = crossings.iter().flat_map(|it| [&it.from, &it.to]);
    let takes_part = parties.any(|party| party.pod && party.ip() == destination);
    sent_there && (takes_part || is_of_services(destination))
}

/// What stood out between nodes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StoodOut {
    /// A line for each kind and pair of ports.
    pub(crate) lines: String,
    /// The frames around the first of each.
    pub(crate) frames: String,
}

/// What stood out between nodes, in words; nothing where nothing did. What the gateway takes part in is
/// the harness's own: its connections to nodes, which it ends as it likes.
pub(crate) fn stood_out(seen: &Seen) -> Option<StoodOut> {
    let mut all = unusual(&seen.frames);
    all.retain(|it| !is_gateway(&it.from) && !is_gateway(&it.to));
    if all.is_empty() {
        return None;
    }
    let lines = all.iter().take(LINES).map(|it| format!("{it}\n"));
    let more = match all.len().saturating_sub(LINES) {
        0 => String::new(),
        more => format!("and {more} more kinds\n"),
    };
    let forgotten = match seen.forgotten {
        0 => String::new(),
        count => format!("the first {count} frames are forgotten\n"),
    };
    let of_connections = all.iter().take(LINES).filter(|it| !it.frames.is_empty());
    let frames = of_connections.map(|it| {
        let frames = it.frames.iter().map(|frame| format!("  {frame:#}\n"));
        format!("{it}\n{}", frames.collect::<String>())
    });
    Some(StoodOut {
        lines: lines.collect::<String>() + &more + &forgotten,
        frames: frames.collect(),
    })
}

/// Whether a port is the gateway's, on whichever segment.
fn is_gateway(port: &str) -> bool {
    let rest = port.strip_prefix(GATEWAY);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Where a frame should have gone, of which this is the rest of the way.
fn next_hop(last: &Sighting, way: &[Hop], party: &Party) -> String {
    let [(_, to), then @ ..] = way else {
        return format!("{party} should have had it next");
    };
    if let Some((port, why)) = last.lost.first() {
        let why: &Lost = why;
        return format!("the switch could not give it to {port}: {why}");
    }
    if arrives(last, to) {
        return match then.first() {
            None => format!("{to} got it, where {party} should have had it next"),
            Some((from, next)) => {
                format!("{to} got it, and {from} should have sent it on to {next}")
            }
        };
    }
    let went = match &*last.to {
        [port] if is_gateway(port) => "the gateway, which drops it".to_owned(),
        [] => "nowhere".to_owned(),
        others => others.join(", "),
    };
    format!("it went to {went}: the next hop should have been {to}")
}

#[cfg(test)]
mod tests;
