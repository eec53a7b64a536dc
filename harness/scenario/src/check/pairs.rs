//! Who was to reach whom, what was seen instead, and how far a lost packet came: as data, which a failure
//! keeps beside its words for the run's report.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use podwire_cluster::addresses::node_name;
use podwire_lan::witness::Sighting;
use serde::{Deserialize, Serialize};

/// Frames of one flow that are kept: half of them from its beginning, half from its end.
pub const FRAMES: usize = 50;
/// Pairs of addresses that a display filter names.
const FLOWS: usize = 8;
/// Rules of one node that are kept.
const RULES: usize = 20;
/// Between the route and the rules in the answer of [`Met::question`].
const MARK: &str = "--- rules";

/// One end of requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct End {
    /// The number of the node that it is on, where it is on one.
    pub node: Option<u32>,
    /// A Pod's name, a Node's, or what was asked as it was written.
    pub name: String,
    /// Its address, where that is not its name.
    pub address: Option<IpAddr>,
}

impl End {
    /// One of which nothing but a name is known.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            node: None,
            name: name.to_owned(),
            address: None,
        }
    }
}

/// `blue-x2x9z (10.1.2.3 on node2)`.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.map(node_name).filter(|node| *node != self.name);
        match (self.address, node) {
            (Some(address), Some(node)) => write!(f, "{} ({address} on {node})", self.name),
            (Some(address), None) => write!(f, "{} ({address})", self.name),
            (None, _) => f.write_str(&self.name),
        }
    }
}

/// Requests from one end to another: what was expected of them, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Who asked.
    pub from: End,
    /// Whose answer was wanted, or was not.
    pub to: End,
    /// How it should have ended: `answered`.
    pub expected: String,
    /// How it did: `timed out`.
    pub seen: String,
    /// Whether that is not what was expected.
    pub wrong: bool,
}

/// Pairs of ends, the right ones as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs {
    /// In the order in which they were asked.
    pub all: Vec<Pair>,
    /// How far the request of a wrong one came: of the first that nobody answered.
    pub lost: Option<Trace>,
}

/// How far a request came that nobody answered, as the wire tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Who asked.
    pub from: End,
    /// Whose answer was wanted.
    pub to: End,
    /// From machine to machine: those of the request, then those of its answer. Only the last may be one
    /// that was not seen.
    pub hops: Vec<Hop>,
    /// Where its last frame was, and where it should have gone next.
    pub ended: String,
    /// The node that had the packet last and did not send it on, or sent it astray; nothing where none is
    /// known.
    pub held_by: Option<u32>,
    /// Where that packet was going.
    pub heading: IpAddr,
    /// The flow's frames, [`FRAMES`] at most.
    pub frames: Vec<Frame>,
    /// How many there are between the first half of them and the second.
    pub left_out: usize,
    /// Which they are in the capture: a display filter of Wireshark's (wireshark-filter(4)); empty where there are none.
    #[serde(default)]
    pub filter: String,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ended)
    }
}

/// From one machine's port to another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The port that it begins at.
    pub from: String,
    /// The port that it ends at.
    pub to: String,
    /// Whether it is one of the answer's.
    pub answer: bool,
    /// When it was first taken, microseconds since the segment's start; nothing where it never was.
    pub at_us: Option<u64>,
}

/// A frame as the switch saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Microseconds since the segment's start.
    pub at_us: u64,
    /// Octets of it.
    pub length: usize,
    /// The port that it came from.
    pub from: String,
    /// The ports that it was given to.
    pub to: Vec<String>,
    /// The ports that it was meant for and not given to, each with the reason.
    pub lost: Vec<String>,
    /// What it says: `10.1.1.2:40000 > 10.1.2.2:80 TCP SYN`.
    pub what: String,
    /// What that is wrapped in.
    pub tunnel: Option<String>,
}

impl From<&Sighting> for Frame {
    fn from(seen: &Sighting) -> Self {
        Self {
            at_us: u64::try_from(seen.at.as_micros()).unwrap_or(u64::MAX),
            length: seen.length,
            from: seen.from.to_string(),
            to: seen.to.iter().map(ToString::to_string).collect(),
            lost: seen
                .lost
                .iter()
                .map(|(port, why)| format!("{port}: {why}"))
                .collect(),
            what: seen.content.to_string(),
            tunnel: seen.tunnel.map(|tunnel| tunnel.to_string()),
        }
    }
}

/// The frames to keep, and how many are left out in their middle.
pub(crate) fn kept(frames: &[Sighting]) -> (Vec<Frame>, usize) {
    let left_out = frames.len().saturating_sub(FRAMES);
    let end = match left_out {
        0 => frames.len(),
        _ => FRAMES / 2,
    };
    let kept = frames[..end].iter().chain(&frames[end + left_out..]);
    (kept.map(Frame::from).collect(), left_out)
}

/// What finds these frames in a capture: between whose addresses they are.
pub(crate) fn display_filter(frames: &[Sighting]) -> String {
    let packets = frames.iter().filter_map(Sighting::packet);
    // An error holds the addresses of what it is about.
    let own = packets.filter(|packet| packet.about().is_none());
    let ends = own.map(|packet| {
        let (one, other) = (packet.source, packet.destination);
        (one.min(other), one.max(other))
    });
    let ends: BTreeSet<(IpAddr, IpAddr)> = ends.collect();
    let of_each = ends.into_iter().take(FLOWS).map(|(one, other)| {
        let field = if one.is_ipv4() {
            "ip.addr"
        } else {
            "ipv6.addr"
        };
        format!("({field} == {one} && {field} == {other})")
    });
    of_each.collect::<Vec<_>>().join(" || ")
}

/// What a lost packet met on the node that had it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// The node.
    pub node: u32,
    /// Where the packet was going.
    pub heading: IpAddr,
    /// The node's route there, as `ip route get` shows it (ip-route(8)).
    pub route: String,
    /// The rules of that node which drop or refuse anything, each with its table and chain, [`RULES`] at most: first
    /// those that name the address or a range that it is in.
    pub rules: Vec<String>,
    /// How many more there are.
    #[serde(default)]
    pub left_out: usize,
}

impl Met {
    /// The question to the node's shell: its route there, and its rules that let something not pass. A
    /// table's and a chain's name stand before each of these.
    pub(crate) fn question(heading: IpAddr) -> String {
        format!(
            "ip -o route get {heading} 2>&1; echo '{MARK}'; nft list ruleset | awk '\
             $1 == \"table\" {{ table = $2 \" \" $3 }} \
             $1 == \"chain\" || $1 == \"map\" {{ chain = $2 }} \
             /(^|[^a-z-])(drop|reject)([^a-z-]|$)/ {{ sub(/^[ \\t]+/, \"\"); \
             print table \" \" chain \": \" $0 }}'"
        )
    }

    /// What the node answered.
    pub(crate) fn read(node: u32, heading: IpAddr, answer: &str) -> Self {
        let (route, rules) = answer.split_once(MARK).unwrap_or((answer, ""));
        let rules = rules.lines().map(str::trim).filter(|it| !it.is_empty());
        let mut rules: Vec<&str> = rules.collect();
        // Which one the packet has met is not known: those that speak of it must not be among what is left out.
        rules.sort_by_key(|rule| !names(rule, heading));
        Self {
            node,
            heading,
            route: route.split_whitespace().collect::<Vec<_>>().join(" "),
            left_out: rules.len().saturating_sub(RULES),
            rules: rules.into_iter().take(RULES).map(str::to_owned).collect(),
        }
    }
}

/// Whether a rule has this address in it, or a range, `10.1.2.0/24` or `10.1.2.2-10.1.2.9`, that it is in.
fn names(rule: &str, address: IpAddr) -> bool {
    let mut words = rule.split(|it: char| it.is_whitespace() || "{},".contains(it));
    words.any(|word| match word.split_once('-') {
        Some((first, last)) => {
            let ends = first.parse::<IpAddr>().ok().zip(last.parse().ok());
            ends.is_some_and(|(first, last)| (first..=last).contains(&address))
        }
        None => {
            let range = word.parse::<IpNet>();
            word.parse() == Ok(address) || range.is_ok_and(|range| range.contains(&address))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_lan::witness::Content;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn an_end_is_named_as_a_party_is() {
        let end = |name: &str, node, address: Option<[u8; 4]>| End {
            name: name.into(),
            node,
            address: address.map(IpAddr::from),
        };
        let told = [
            end("a", Some(2), Some([10, 1, 2, 3])),
            end("node2", Some(2), Some([172, 30, 0, 12])),
            end("10.0.0.9:80", None, None),
        ];
        let told = told.map(|it| it.to_string()).join(", ");
        insta::assert_snapshot!(told, @"a (10.1.2.3 on node2), node2 (172.30.0.12), 10.0.0.9:80");
    }

    #[test]
    fn of_a_long_flow_its_beginning_and_its_end_are_kept() {
        let frame = |number| Sighting {
            number,
            at: Duration::from_micros(number),
            length: 60,
            segment: None,
            from: Arc::from("node1"),
            to: vec![Arc::from("node2")],
            lost: vec![],
            flooded: false,
            addresses: None,
            tunnel: None,
            content: Content::Other { ethertype: None },
        };
        let times = |count| {
            let frames: Vec<Sighting> = (0..count).map(frame).collect();
            let (kept, left_out) = kept(&frames);
            (kept.iter().map(|it| it.at_us).collect::<Vec<_>>(), left_out)
        };
        assert_eq!(times(0), (vec![], 0));
        assert_eq!(times(50), ((0..50).collect(), 0));
        assert_eq!(times(60), ((0..25).chain(35..60).collect(), 10));
    }

    #[test]
    fn what_a_packet_met_is_read_of_what_the_node_says() {
        let heading = IpAddr::from([10, 1, 2, 2]);
        let answer = "10.1.2.2 via 172.30.0.1 dev eth0 src 172.30.0.11 uid 0 \\    cache \n\
                      --- rules\nip filter FORWARD: type filter hook forward; policy drop;\n\n";
        let met = Met::read(1, heading, answer);
        assert_eq!(
            met.route,
            "10.1.2.2 via 172.30.0.1 dev eth0 src 172.30.0.11 uid 0 \\ cache"
        );
        let rules = ["ip filter FORWARD: type filter hook forward; policy drop;"];
        assert_eq!(met.rules, rules);
        let silent = Met::read(1, heading, "");
        assert_eq!((silent.route.as_str(), silent.rules.len()), ("", 0));
        assert!(Met::question(heading).starts_with("ip -o route get 10.1.2.2 "));
    }

    #[test]
    fn of_many_rules_those_that_name_the_packet_s_address_come_first_and_the_rest_is_counted() {
        let heading = IpAddr::from([10, 1, 2, 2]);
        let others = (0..RULES).map(|number| format!("ip other c: ip daddr 10.9.0.{number} drop"));
        let own = [
            "ip mine c: ip daddr 10.1.2.2 drop",
            "ip mine c: ip daddr 10.1.2.0/24 counter drop",
            "ip mine c: ip daddr { 10.9.9.9, 10.1.0.0/16 } reject",
            "ip mine c: ip saddr 10.1.2.1-10.1.2.9 drop",
        ];
        let beside = [
            "ip mine c: ip daddr 10.1.2.22 drop",
            "ip6 mine c: ip6 daddr ::/0 drop",
        ];
        let all = others
            .chain(beside.map(str::to_owned))
            .chain(own.map(str::to_owned));
        let answer = format!("a route\n{MARK}\n{}\n", all.collect::<Vec<_>>().join("\n"));
        let met = Met::read(1, heading, &answer);
        assert_eq!(met.rules[..own.len()], own);
        assert_eq!(met.rules[own.len()], "ip other c: ip daddr 10.9.0.0 drop");
        assert_eq!((met.rules.len(), met.left_out), (RULES, 6));
    }
}
