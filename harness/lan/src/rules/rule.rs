//! A rule as data: which frames, and what becomes of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::units::{BitRate, Percent, Size, Time};
use crate::Ipv4Net;

/// What becomes of some of a segment's frames.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which frames.
    pub selector: Selector,
    /// What becomes of them.
    pub impairment: Impairment,
}

impl Rule {
    /// The same for the way back: ports, addresses and their ports change places.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Rule {
            selector: self.selector.reversed(),
            impairment: self.impairment.clone(),
        }
    }

    /// The rule, and the one for the way back where that is another.
    #[must_use]
    pub fn both_ways(self) -> Vec<Self> {
        let back = self.reversed();
        let other = back.selector != self.selector;
        std::iter::once(self).chain(other.then_some(back)).collect()
    }
}

/// Which frames: on their way from a port to a port, in this direction alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// The name of the port that they enter by; any without one.
    pub from: Option<String>,
    /// The name of the port that they leave by; any without one. What is flooded leaves by several, and
    /// each copy is a frame of its own here.
    pub to: Option<String>,
    /// What they carry.
    pub packets: Packets,
}

impl Selector {
    /// Every frame between two ports, in this direction.
    #[must_use]
    pub fn between(from: &str, to: &str) -> Self {
        Selector {
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            packets: Packets::default(),
        }
    }

    /// Every frame that enters by a port.
    #[must_use]
    pub fn from(port: &str) -> Self {
        Selector {
            from: Some(port.to_owned()),
            ..Selector::default()
        }
    }

    fn reversed(&self) -> Self {
        Selector {
            from: self.to.clone(),
            to: self.from.clone(),
            packets: Packets {
                source: self.packets.destination,
                destination: self.packets.source,
                protocol: self.packets.protocol,
                source_port: self.packets.destination_port,
                destination_port: self.packets.source_port,
            },
        }
    }

    /// Whether the port is one of its two ends.
    #[must_use]
    pub fn names(&self, port: &str) -> bool {
        [&self.from, &self.to]
            .into_iter()
            .flatten()
            .any(|name| name == port)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |port: &Option<String>| port.clone().unwrap_or_else(|| "any".to_owned());
        write!(
            f,
            "{} -> {}{}",
            name(&self.from),
            name(&self.to),
            self.packets
        )
    }
}

/// What a frame carries. All that is given must hold, and of one packet: of the frame's own, or of the
/// one inside where the frame's own is VXLAN's (UDP to port 4789, or 8472 as Linux has it) or
/// IP-in-IP's. So an address of a Pod means the same on a network of routes and in a tunnel. Only one
/// tunnel is looked into, no other kind, and IPv6 meets no address. The parts of a fragmented packet
/// have no ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Packets {
    /// Where the packet comes from; of ARP, the sender's protocol address.
    pub source: Option<Ipv4Net>,
    /// Where it goes to; of ARP, the target's protocol address.
    pub destination: Option<Ipv4Net>,
    /// What it is.
    pub protocol: Option<Protocol>,
    /// TCP's or UDP's source port.
    pub source_port: Option<u16>,
    /// TCP's or UDP's destination port.
    pub destination_port: Option<u16>,
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut each = |name: &str, value: Option<String>| match value {
            Some(value) => write!(f, "{name}{value}"),
            None => Ok(()),
        };
        each(" ", self.protocol.map(|it| it.to_string()))?;
        each(" source ", self.source.map(|it| it.to_string()))?;
        each(" source port ", self.source_port.map(|it| it.to_string()))?;
        each(" destination ", self.destination.map(|it| it.to_string()))?;
        each(
            " destination port ",
            self.destination_port.map(|it| it.to_string()),
        )
    }
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// ARP (RFC 826).
    Arp,
    /// ICMP, of IPv4 or of IPv6.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 4] = [Protocol::Arp, Protocol::Icmp, Protocol::Tcp, Protocol::Udp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Arp => "arp",
            Protocol::Icmp => "icmp",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl std::str::FromStr for Protocol {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|protocol| protocol.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| RuleError::UnknownProtocol {
            text: text.to_owned(),
        })
    }
}

/// What becomes of frames. Units and meanings are those of tc-netem(8), but for what is said here.
///
/// A frame is taken through it in this order: cut, hole, loss, duplication, and then each copy through
/// corruption, rate and delay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Impairment {
    /// All vanish.
    pub cut: bool,
    /// Those vanish, without a word to anybody, whose IP packet is longer than so many octets: its header
    /// and all behind it, as the header's own length says (IPv4's total length; IPv6's payload length and
    /// 40). Of a tunnel's, the outer one. It is what a link's MTU counts: neither Ethernet's header nor
    /// a VLAN tag. Frames that are not IP pass.
    pub hole: Option<u16>,
    /// How long each takes (netem's `delay`).
    pub delay: Option<Time>,
    /// How much longer or shorter at most, all of it equally likely (netem without a distribution's
    /// table, `tabledist` of Linux' `sch_netem.c`). A flow's frames keep their order all the same: none
    /// leaves before the one in front of it.
    pub jitter: Option<Time>,
    /// Jitter may change the order of a flow's frames, as netem's does.
    pub reorder: bool,
    /// How many are lost (netem's `loss`).
    pub loss: Option<Percent>,
    /// How many are lost in a row, on average: Gilbert's model (netem's `loss gemodel p r` with r the
    /// inverse of this, and p such that `loss` holds). Each flow has bursts of its own. Without it each
    /// frame is lost or not whatever became of the one in front of it.
    pub burst: Option<u32>,
    /// How many come twice (netem's `duplicate`).
    pub duplicate: Option<Percent>,
    /// In how many a bit is flipped, anywhere behind the Ethernet header (netem's `corrupt`).
    pub corrupt: Option<Percent>,
    /// How fast they leave, all that the rule selects together (netem's `rate`). What counts is the
    /// frame from its destination address to the end of its payload.
    pub rate: Option<BitRate>,
    /// How many octets wait for that at most; what does not fit is dropped, and is not counted as lost.
    /// A frame always fits when none waits. Without it, what 1000 frames of Ethernet's usual size have
    /// (netem's `limit`, in octets).
    pub queue: Option<Size>,
    /// What chance begins with: the same number, the same fate. 0 without it.
    pub seed: Option<u64>,
}

/// 1000 frames of 1514 octets.
const QUEUE: Size = Size::octets(1_514_000);

impl Impairment {
    /// With what is newly given in place of what was: what is not given stays.
    #[must_use]
    pub fn merged(&self, newer: &Self) -> Self {
        Impairment {
            cut: self.cut || newer.cut,
            hole: newer.hole.or(self.hole),
            delay: newer.delay.or(self.delay),
            jitter: newer.jitter.or(self.jitter),
            reorder: self.reorder || newer.reorder,
            loss: newer.loss.or(self.loss),
            burst: newer.burst.or(self.burst),
            duplicate: newer.duplicate.or(self.duplicate),
            corrupt: newer.corrupt.or(self.corrupt),
            rate: newer.rate.or(self.rate),
            queue: newer.queue.or(self.queue),
            seed: newer.seed.or(self.seed),
        }
    }

    pub(super) fn queue_octets(&self) -> u64 {
        self.queue.unwrap_or(QUEUE).get()
    }

    fn is_nothing(&self) -> bool {
        let unseeded = Impairment {
            seed: None,
            ..self.clone()
        };
        unseeded == Impairment::default()
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
        let words = [
            self.cut.then(|| "cut".to_owned()),
            said("hole", self.hole.map(|it| it.to_string())),
            said("delay", self.delay.map(|it| it.to_string())),
            said("jitter", self.jitter.map(|it| it.to_string())),
            self.reorder.then(|| "reorder".to_owned()),
            said("loss", self.loss.map(|it| it.to_string())),
            said("burst", self.burst.map(|it| it.to_string())),
            said("duplicate", self.duplicate.map(|it| it.to_string())),
            said("corrupt", self.corrupt.map(|it| it.to_string())),
            said("rate", self.rate.map(|it| it.to_string())),
            said("queue", self.queue.map(|it| it.to_string())),
            said("seed", self.seed.map(|it| it.to_string())),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        f.write_str(&words.join(" "))
    }
}

/// A rule contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It does nothing.
    #[error("the rule does nothing; give one of cut, hole, delay, loss, duplicate, corrupt, rate")]
    Nothing,
    /// A frame would leave before it came.
    #[error("a jitter of {jitter} is more than the delay, {delay}: give a delay of at least that")]
    Jitter {
        /// The jitter.
        jitter: Time,
        /// The delay, 0 when none was given.
        delay: Time,
    },
    /// A new order without a jitter to make it.
    #[error("reorder lets jitter change the order of frames; give a jitter")]
    Reorder,
    /// Bursts without a loss.
    #[error("a burst is how many frames are lost in a row; give a loss")]
    Burst,
    /// Losses that fit into no such bursts.
    #[error(
        "a loss of {loss} comes in bursts of more than {burst} on average: give a longer burst, \
         less loss, or no burst at all"
    )]
    ShortBurst {
        /// The loss.
        loss: Percent,
        /// The mean burst.
        burst: u32,
    },
    /// A queue without a rate.
    #[error("a queue is what waits for a rate; give a rate")]
    Queue,
    /// A rate of nothing.
    #[error("at a rate of 0 nothing is ever sent; cut does that")]
    NoRate,
    /// Ports of what has none.
    #[error("{protocol} has no ports; ports are tcp's and udp's")]
    Ports {
        /// The protocol.
        protocol: Protocol,
    },
    /// Not a protocol.
    #[error("{text:?} is no protocol here; there are: {}", Protocol::ALL.map(|it| it.to_string()).join(", "))]
    UnknownProtocol {
        /// What was given.
        text: String,
    },
}

impl Rule {
    /// Whether the rule makes sense.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), RuleError> {
        let it = &self.impairment;
        if it.is_nothing() {
            return Err(RuleError::Nothing);
        }
        let (delay, jitter) = (it.delay.unwrap_or_default(), it.jitter.unwrap_or_default());
        if jitter > delay {
            return Err(RuleError::Jitter { jitter, delay });
        }
        if it.reorder && it.jitter.is_none() {
            return Err(RuleError::Reorder);
        }
        match (it.loss, it.burst) {
            (None, Some(_)) => return Err(RuleError::Burst),
            // Between two bursts there is at least one frame.
            (Some(loss), Some(burst)) => {
                let kept = Percent::ALL.millionths() - loss.millionths();
                if burst == 0 || loss.millionths() > u64::from(burst) * kept {
                    return Err(RuleError::ShortBurst { loss, burst });
                }
            }
            (_, None) => {}
        }
        match it.rate {
            None if it.queue.is_some() => return Err(RuleError::Queue),
            Some(rate) if rate.is_nothing() => return Err(RuleError::NoRate),
            _ => {}
        }
        let packets = &self.selector.packets;
        let ports = packets.source_port.or(packets.destination_port).is_some();
        match packets.protocol {
            Some(protocol @ (Protocol::Arp | Protocol::Icmp)) if ports => {
                Err(RuleError::Ports { protocol })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(impairment: Impairment) -> Rule {
        Rule {
            selector: Selector::between("node2", "node3"),
            impairment,
        }
    }

    fn slow() -> Impairment {
        Impairment {
            delay: Some("40ms".parse().unwrap()),
            jitter: Some("5ms".parse().unwrap()),
            loss: Some("1%".parse().unwrap()),
            burst: Some(4),
            rate: Some("100mbit".parse().unwrap()),
            seed: Some(7),
            ..Impairment::default()
        }
    }

    #[test]
    fn a_rule_reads_well() {
        let mut slow = rule(slow());
        slow.selector.packets = Packets {
            source: Some("10.1.2.0/24".parse().unwrap()),
            protocol: Some(Protocol::Tcp),
            destination_port: Some(80),
            ..Packets::default()
        };
        let said = format!("{}: {}", slow.selector, slow.impairment);
        insta::assert_snapshot!(said, @"node2 -> node3 tcp source 10.1.2.0/24 destination port 80: delay 40ms jitter 5ms loss 1% burst 4 rate 100mbit seed 7");
        let json = serde_json::to_string(&slow).unwrap();
        insta::assert_snapshot!(json, @r#"{"selector":{"from":"node2","to":"node3","packets":{"source":"10.1.2.0/24","destination":null,"protocol":"tcp","source_port":null,"destination_port":80}},"impairment":{"cut":false,"hole":null,"delay":"40ms","jitter":"5ms","reorder":false,"loss":"1%","burst":4,"duplicate":null,"corrupt":null,"rate":"100mbit","queue":null,"seed":7}}"#);
        assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), slow);
        let unknown = r#"{"selector":{},"impairment":{"los":"1%"}}"#;
        assert!(serde_json::from_str::<Rule>(unknown).is_err());
        let back = slow.reversed().selector;
        insta::assert_snapshot!(back, @"node3 -> node2 tcp source port 80 destination 10.1.2.0/24");
        assert_eq!(slow.clone().both_ways().len(), 2);
        assert_eq!(Rule::default().both_ways().len(), 1);
    }

    #[test]
    fn what_is_not_given_again_stays() {
        let newer = Impairment {
            delay: Some("5ms".parse().unwrap()),
            duplicate: Some("2%".parse().unwrap()),
            ..Impairment::default()
        };
        insta::assert_snapshot!(slow().merged(&newer), @"delay 5ms jitter 5ms loss 1% burst 4 duplicate 2% rate 100mbit seed 7");
    }

    #[test]
    fn contradictions_are_named() {
        let message = |change: fn(&mut Rule)| {
            let mut rule = rule(slow());
            change(&mut rule);
            rule.check()
                .map_or_else(|error| error.to_string(), |()| "none".to_owned())
        };
        insta::assert_snapshot!(message(|_| ()), @"none");
        insta::assert_snapshot!(message(|it| it.impairment = Impairment { seed: Some(1), ..Impairment::default() }), @"the rule does nothing; give one of cut, hole, delay, loss, duplicate, corrupt, rate");
        insta::assert_snapshot!(message(|it| it.impairment.delay = None), @"a jitter of 5ms is more than the delay, 0us: give a delay of at least that");
        insta::assert_snapshot!(message(|it| {
            it.impairment.jitter = None;
            it.impairment.reorder = true;
        }), @"reorder lets jitter change the order of frames; give a jitter");
        insta::assert_snapshot!(message(|it| it.impairment.loss = None), @"a burst is how many frames are lost in a row; give a loss");
        insta::assert_snapshot!(message(|it| it.impairment.loss = "81%".parse().ok()), @"a loss of 81% comes in bursts of more than 4 on average: give a longer burst, less loss, or no burst at all");
        insta::assert_snapshot!(message(|it| it.impairment.loss = "80%".parse().ok()), @"none");
        insta::assert_snapshot!(message(|it| it.impairment.burst = Some(0)), @"a loss of 1% comes in bursts of more than 0 on average: give a longer burst, less loss, or no burst at all");
        insta::assert_snapshot!(message(|it| {
            it.impairment.rate = None;
            it.impairment.queue = Some(Size::octets(1500));
        }), @"a queue is what waits for a rate; give a rate");
        insta::assert_snapshot!(message(|it| it.impairment.rate = "0bit".parse().ok()), @"at a rate of 0 nothing is ever sent; cut does that");
        insta::assert_snapshot!(message(|it| it.selector.packets = Packets {
            protocol: Some(Protocol::Icmp),
            source_port: Some(1),
            ..Packets::default()
        }), @"icmp has no ports; ports are tcp's and udp's");
        insta::assert_snapshot!("sctp".parse::<Protocol>().unwrap_err(), @r#""sctp" is no protocol here; there are: arp, icmp, tcp, udp"#);
    }
}
