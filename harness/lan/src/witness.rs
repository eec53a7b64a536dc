//! The wire as a witness: which frames the switch saw, from where to where, when, and what they were.
//!
//! The switch notes the beginning of each frame ([`notes`]); whoever asks reads them ([`decode`]), by
//! the flow that they belong to. Memory is bounded on both sides, and an answer says how much of what
//! it was asked for is forgotten.
//!
//! ```text
//! Switch -- Notes (ring of frames' beginnings) --taken on a question--> Witness (by flow) --> Seen
//! ```

mod decode;
mod facts;
pub(crate) mod notes;
mod story;
#[cfg(test)]
mod tests;
mod unusual;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::decode::Rest;
pub use self::facts::{
    Arp, Checksum, Content, Flow, Icmp, Packet, Tcp, Transport, Tunnel, TunnelKind, Udp,
};
pub use self::notes::Lost;
use self::notes::{Fate, Head, KEPT, Taken};
pub use self::story::{Again, Connection, Repeat, SecondSyn, connections, second_syns};
pub use self::unusual::{Unusual, What, unusual};
use crate::frame::addresses;
use crate::label::{Label, SegmentNumber};
use crate::mac_table::AGEING;
use crate::{Ipv4Net, MacAddr};

/// Octets of frames' beginnings that are remembered: some 180 000 frames.
const REMEMBERED: usize = 32 * 1024 * 1024;

/// A point in the order in which the switch saw frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// A frame as the switch saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// How many frames were seen before it.
    pub number: u64,
    /// When, since the segment's start.
    pub at: Duration,
    /// Octets of it.
    pub length: usize,
    /// The segment that it was on, where the switch keeps several apart.
    pub segment: Option<SegmentNumber>,
    /// The port that it came from.
    pub from: Arc<str>,
    /// The ports that it was given to.
    pub to: Vec<Arc<str>>,
    /// The ports that it was meant for and not given to.
    pub lost: Vec<(Arc<str>, Lost)>,
    /// Whether it went to every port because nobody knew where its destination is.
    pub flooded: bool,
    /// Its source and destination; nothing of one too short to have them.
    pub addresses: Option<(MacAddr, MacAddr)>,
    /// What its packet is wrapped in.
    pub tunnel: Option<Tunnel>,
    /// What it carries.
    pub content: Content,
}

/// An answer: the frames asked for, in the order in which the switch saw them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The frames.
    pub frames: Vec<Sighting>,
    /// How many frames of the time asked for are forgotten, of whatever flow: among them may be some
    /// that belong here.
    pub forgotten: u64,
}

/// What the switch saw, by flow.
#[derive(Debug)]
pub struct Witness {
    names: Vec<Arc<str>>,
    /// Of the ports, by number.
    segments: Vec<Option<SegmentNumber>>,
    heads: VecDeque<Head>,
    /// The number of the frame that comes next.
    next: u64,
    losses: BTreeMap<u64, Vec<(usize, Lost)>>,
    /// Numbers of the frames of each flow, and of those that tell of errors of it; some may be
    /// forgotten.
    flows: BTreeMap<Flow, Vec<u64>>,
    /// Numbers in `flows`.
    indexed: usize,
    /// Where each station was last heard.
    stations: BTreeMap<MacAddr, u32>,
    capacity: usize,
}

impl Default for Witness {
    fn default() -> Self {
        Witness::with_capacity(REMEMBERED / size_of::<Head>())
    }
}

impl Witness {
    /// One that remembers so many frames.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Witness {
            names: Vec::new(),
            segments: Vec::new(),
            heads: VecDeque::new(),
            next: 0,
            losses: BTreeMap::new(),
            flows: BTreeMap::new(),
            indexed: 0,
            stations: BTreeMap::new(),
            capacity,
        }
    }

    /// Learns what was noted since the last time; the labels are those of all ports.
    pub(crate) fn learn(&mut self, mut taken: Taken, ports: &[Label]) {
        for port in ports.iter().skip(self.names.len()) {
            self.names.push(Arc::from(&*port.name));
            self.segments.push(port.segment);
        }
        let first = taken.next - taken.heads.len() as u64;
        if first > self.next {
            // Some were lost in between: what is remembered has no holes.
            self.heads.clear();
            self.next = first;
        }
        taken.heads.rotate_left(taken.oldest);
        for head in taken.heads {
            self.learn_frame(head);
        }
        for loss in taken.losses {
            let lost = self.losses.entry(loss.frame).or_default();
            lost.push((loss.port, loss.why));
        }
        self.forget();
    }

    fn learn_frame(&mut self, head: Head) {
        if let Some((_, source)) = addresses(head.kept()) {
            self.stations.insert(source, head.from);
        }
        if let (Content::Ip(packet), _) = read(&head) {
            let of = [Some(packet.flow()), packet.about()];
            for flow in of.into_iter().flatten() {
                self.flows.entry(flow).or_default().push(self.next);
                self.indexed += 1;
            }
        }
        self.heads.push_back(head);
        self.next += 1;
    }

    /// Keeps within its bounds.
    fn forget(&mut self) {
        let beyond = self.heads.len().saturating_sub(self.capacity);
        self.heads.drain(..beyond);
        let first = self.first();
        self.losses = self.losses.split_off(&first);
        // A frame has two entries at most; twice that, since a sweep looks at all of them.
        if self.indexed > 4 * self.capacity {
            self.flows.retain(|_, numbers| {
                numbers.drain(..numbers.partition_point(|number| *number < first));
                !numbers.is_empty()
            });
            self.indexed = self.flows.values().map(Vec::len).sum();
        }
        // One that makes up addresses is to fill no memory.
        if self.stations.len() > self.capacity {
            self.stations.clear();
        }
    }

    /// The number of the oldest frame that is remembered.
    fn first(&self) -> u64 {
        self.next - self.heads.len() as u64
    }

    /// Now: everything seen so far lies before it.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(self.next)
    }

    /// Every frame since a moment.
    #[must_use]
    pub fn all(&self, since: Moment) -> Seen {
        self.seen(since.0.max(self.first())..self.next, since)
    }

    /// The IP packets between two addresses since a moment, in both directions, of every protocol and
    /// port, and ICMP errors about them. What is in a tunnel counts by its own addresses.
    #[must_use]
    pub fn between(&self, one: IpAddr, other: IpAddr, since: Moment) -> Seen {
        let flow = |protocol, low_port, high_port| Flow {
            low: one.min(other),
            high: one.max(other),
            protocol,
            low_port,
            high_port,
        };
        let flows = flow(0, 0, 0)..=flow(u8::MAX, u16::MAX, u16::MAX);
        let numbers = self.flows.range(flows).map(|(_, numbers)| numbers);
        self.listed(numbers, since)
    }

    /// The packets of one flow since a moment, and ICMP errors about them.
    #[must_use]
    pub fn flow(&self, flow: &Flow, since: Moment) -> Seen {
        self.listed(self.flows.get(flow).into_iter(), since)
    }

    /// The packets since a moment of which either address is in one of these ranges.
    #[must_use]
    pub fn touching(&self, ranges: &[Ipv4Net], since: Moment) -> Seen {
        let within = |address| match address {
            IpAddr::V4(address) => ranges.iter().any(|range| range.contains(address)),
            IpAddr::V6(_) => false,
        };
        let flows = self.flows.iter().filter(|(flow, _)| flow.touches(within));
        self.listed(flows.map(|(_, numbers)| numbers), since)
    }

    fn listed<'a>(&self, lists: impl Iterator<Item = &'a Vec<u64>>, since: Moment) -> Seen {
        let first = since.0.max(self.first());
        let of = |list: &'a Vec<u64>| &list[list.partition_point(|number| *number < first)..];
        let mut numbers: Vec<u64> = lists.flat_map(of).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        self.seen(numbers, since)
    }

    fn seen(&self, numbers: impl IntoIterator<Item = u64>, since: Moment) -> Seen {
        let frames = numbers
            .into_iter()
            .filter_map(|number| self.sighting(number));
        Seen {
            frames: frames.collect(),
            forgotten: self.first().saturating_sub(since.0),
        }
    }

    fn sighting(&self, number: u64) -> Option<Sighting> {
        let index = number.checked_sub(self.first())?;
        let head = self.heads.get(usize::try_from(index).ok()?)?;
        let from = head.from as usize;
        let (content, tunnel) = read(head);
        let name = |port: usize| self.names.get(port).cloned().unwrap_or_default();
        let meant: Vec<usize> = match head.fate {
            Fate::To(port) => vec![port],
            Fate::Flood => {
                let others = (0..head.ports as usize).filter(|it| *it != from);
                let same = |it: &usize| self.segments.get(*it) == self.segments.get(from);
                others.filter(same).collect()
            }
            Fate::Nowhere | Fate::Filtered => Vec::new(),
        };
        let mut lost = self.losses.get(&number).cloned().unwrap_or_default();
        let to = meant
            .iter()
            .filter(|port| lost.iter().all(|(it, _)| it != *port));
        let to = to.map(|port| name(*port)).collect();
        if head.fate == Fate::Filtered {
            lost.push((from, Lost::Filtered));
        }
        let addresses = addresses(head.kept()).map(|(to, from)| (from, to));
        Some(Sighting {
            number,
            at: Duration::from_nanos(head.at).saturating_sub(AGEING),
            length: usize::try_from(head.length).unwrap_or(usize::MAX),
            segment: self.segments.get(from).copied().flatten(),
            from: name(from),
            to,
            lost: lost
                .into_iter()
                .map(|(port, why)| (name(port), why))
                .collect(),
            flooded: head.fate == Fate::Flood
                && addresses.is_some_and(|(_, destination)| !destination.is_group()),
            addresses,
            tunnel,
            content,
        })
    }

    /// The port behind which a station was last heard.
    #[must_use]
    pub fn port_of(&self, station: MacAddr) -> Option<Arc<str>> {
        let port = *self.stations.get(&station)?;
        self.names.get(port as usize).cloned()
    }
}

fn read(head: &Head) -> (Content, Option<Tunnel>) {
    let rest = Rest {
        octets: (head.length as usize).saturating_sub(KEPT),
        sum: head.rest,
    };
    decode::frame(head.kept(), rest)
}

impl Sighting {
    /// The IP packet that it carries.
    #[must_use]
    pub fn packet(&self) -> Option<&Packet> {
        match &self.content {
            Content::Ip(packet) => Some(packet),
            Content::Arp(_) | Content::Other { .. } => None,
        }
    }

    /// The TCP segment that it carries, and its packet.
    #[must_use]
    pub fn tcp(&self) -> Option<(&Packet, &Tcp)> {
        let packet = self.packet()?;
        Some((packet, packet.tcp()?))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::QueueFull => "its queue was full",
            Lost::Rule => "a rule took it",
            Lost::Filtered => "an address filter",
            Lost::Detached => "no machine was there",
        })
    }
}

/// `1.234567 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN (in VXLAN ...)`, with `[segment 2]`
/// before the ports where there are several; `{:#}` has TCP's sequence numbers.
impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} s ", self.at.as_secs_f64())?;
        if let Some(segment) = self.segment {
            write!(f, "[{segment}] ")?;
        }
        write!(f, "{} -> ", self.from)?;
        match (&*self.to, self.flooded) {
            ([], _) => f.write_str("nowhere")?,
            (to, true) => write!(f, "everybody ({})", to.join(", "))?,
            (to, false) => f.write_str(&to.join(", "))?,
        }
        for (port, why) in &self.lost {
            write!(f, " (lost at {port}: {why})")?;
        }
        f.write_str(": ")?;
        self.content.fmt(f)?;
        match &self.tunnel {
            Some(tunnel) => write!(f, " (in {tunnel})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for frame in &self.frames {
            writeln!(f, "{frame}")?;
        }
        match self.forgotten {
            0 => Ok(()),
            count => writeln!(
                f,
                "{count} older frames are forgotten; some that belong here may be among them"
            ),
        }
    }
}
