//! What is read of a frame, as data.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::MacAddr;

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An ARP packet for IPv4 over Ethernet (RFC 826).
    Arp(Arp),
    /// An IP packet; that in the tunnel where there is one.
    Ip(Packet),
    /// Anything else, by its EtherType.
    Other {
        /// The EtherType; nothing of a frame that is too short to have one.
        ethertype: Option<u16>,
    },
}

/// Who asks for whose Ethernet address, or tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Whether it asks; else it tells.
    pub request: bool,
    /// The sender's address.
    pub sender: Ipv4Addr,
    /// The sender's Ethernet address, as it says.
    pub sender_mac: MacAddr,
    /// The address in question, or of the one who asked.
    pub target: Ipv4Addr,
}

/// Whether a checksum is that of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is.
    Right,
    /// It is not: whoever gets the packet drops it.
    Wrong,
    /// It covers the addresses alone, as Linux leaves it to a network card (`CHECKSUM_PARTIAL` of
    /// `include/linux/skbuff.h`), and no card has completed it.
    LeftToCard,
    /// The sender gave none, as UDP may over IPv4 (RFC 768).
    None,
    /// It covers more than was seen: a fragment, or a packet cut short.
    Unknown,
}

/// An IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its identification; IPv4 only.
    pub id: Option<u16>,
    /// How many more hops it may take.
    pub ttl: u8,
    /// The IPv4 header's checksum; IPv6 has none.
    pub checksum: Checksum,
    /// What it carries.
    pub transport: Transport,
}

/// What an IP packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp(Udp),
    /// An ICMP message (RFC 792).
    Icmp(Icmp),
    /// Anything else, by its protocol's number (IANA); any fragment, and what is cut short.
    Other {
        /// The number.
        protocol: u8,
    },
}

/// A TCP segment (RFC 9293).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The first octet's sequence number, or the SYN's.
    pub seq: u32,
    /// What it acknowledges, if it does.
    pub ack: Option<u32>,
    /// It opens a connection.
    pub syn: bool,
    /// Nothing comes behind it.
    pub fin: bool,
    /// It ends the connection at once.
    pub rst: bool,
    /// Octets of its payload.
    pub payload: u32,
    /// The sender's clock, and the peer's as last seen (RFC 7323).
    pub timestamps: Option<(u32, u32)>,
    /// The first block of selective acknowledgement: of what came twice where it lies before `ack`
    /// (RFC 2883).
    pub block: Option<(u32, u32)>,
    /// Its checksum.
    pub checksum: Checksum,
}

/// A UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Octets of its payload.
    pub payload: u32,
    /// Its checksum.
    pub checksum: Checksum,
}

/// An ICMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Identifier and number of an echo request or reply.
    pub echo: Option<(u16, u16)>,
    /// The MTU that a packet was too long for (RFC 1191).
    pub mtu: Option<u16>,
    /// The packet that an error is about.
    pub about: Option<Flow>,
    /// Its checksum.
    pub checksum: Checksum,
}

/// What a packet was wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// How.
    pub kind: TunnelKind,
    /// Its beginning.
    pub source: IpAddr,
    /// Its end.
    pub destination: IpAddr,
}

/// How a packet is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelKind {
    /// VXLAN (RFC 7348), with this network identifier.
    Vxlan(u32),
    /// IP in IP (RFC 2003).
    IpInIp,
}

/// Two ends that talk to each other, whichever speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub(super) low: IpAddr,
    pub(super) high: IpAddr,
    pub(super) protocol: u8,
    pub(super) low_port: u16,
    pub(super) high_port: u16,
}

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

impl Flow {
    /// The flow between two ends. An ICMP echo has its identifier as either port, others have 0.
    #[must_use]
    pub fn new(protocol: u8, one: SocketAddr, other: SocketAddr) -> Self {
        let ends = |it: SocketAddr| (it.ip(), it.port());
        let (low, high) = match ends(one) <= ends(other) {
            true => (one, other),
            false => (other, one),
        };
        Flow {
            low: low.ip(),
            high: high.ip(),
            protocol,
            low_port: low.port(),
            high_port: high.port(),
        }
    }

    /// Whether one of its ends has an address for which this holds.
    pub fn touches(&self, holds: impl Fn(IpAddr) -> bool) -> bool {
        holds(self.low) || holds(self.high)
    }
}

impl Packet {
    /// Its sender, with the port that it has, else 0.
    #[must_use]
    pub fn sender(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.ports().0)
    }

    /// Its receiver, likewise.
    #[must_use]
    pub fn receiver(&self) -> SocketAddr {
        SocketAddr::new(self.destination, self.ports().1)
    }

    /// Its flow.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let protocol = match self.transport {
            Transport::Tcp(_) => TCP,
            Transport::Udp(_) => UDP,
            Transport::Icmp(_) => ICMP,
            Transport::Other { protocol } => protocol,
        };
        Flow::new(protocol, self.sender(), self.receiver())
    }

    /// The flow that it tells an error of.
    #[must_use]
    pub fn about(&self) -> Option<Flow> {
        match &self.transport {
            Transport::Icmp(icmp) => icmp.about,
            _ => None,
        }
    }

    /// Its segment, if it is TCP's.
    #[must_use]
    pub fn tcp(&self) -> Option<&Tcp> {
        match &self.transport {
            Transport::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    fn ports(&self) -> (u16, u16) {
        match &self.transport {
            Transport::Tcp(it) => (it.source_port, it.destination_port),
            Transport::Udp(it) => (it.source_port, it.destination_port),
            Transport::Icmp(it) => it.echo.map_or((0, 0), |(id, _)| (id, id)),
            Transport::Other { .. } => (0, 0),
        }
    }

    /// Its checksum and that of what it carries that the receiver would find wrong, by name.
    #[must_use]
    pub fn wrong_checksum(&self) -> Option<&'static str> {
        let (name, inner) = match &self.transport {
            Transport::Tcp(it) => ("TCP", it.checksum),
            Transport::Udp(it) => ("UDP", it.checksum),
            Transport::Icmp(it) => ("ICMP", it.checksum),
            Transport::Other { .. } => ("", Checksum::Unknown),
        };
        match (self.checksum, inner) {
            (Checksum::Wrong, _) => Some("IPv4"),
            (_, Checksum::Wrong) => Some(name),
            _ => None,
        }
    }
}

impl Tcp {
    /// The sequence number behind it: SYN and FIN take one each.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.seq.wrapping_add(self.length())
    }

    /// Sequence numbers that it takes.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.payload + u32::from(self.syn) + u32::from(self.fin)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (
            SocketAddr::new(self.low, self.low_port),
            SocketAddr::new(self.high, self.high_port),
        );
        match self.protocol {
            TCP => write!(f, "TCP {low} and {high}"),
            UDP => write!(f, "UDP {low} and {high}"),
            ICMP => write!(f, "ICMP {} and {}", self.low, self.high),
            other => write!(f, "protocol {other}, {} and {}", self.low, self.high),
        }
    }
}

/// `10.1.1.2:40000 > 10.1.2.2:80 TCP SYN`; `{:#}` with sequence numbers.
impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            Transport::Tcp(tcp) => {
                write!(f, "{} > {} ", self.sender(), self.receiver())?;
                tcp.fmt(f)?;
            }
            Transport::Udp(udp) => write!(
                f,
                "{} > {} UDP, {} octets",
                self.sender(),
                self.receiver(),
                udp.payload
            )?,
            Transport::Icmp(icmp) => write!(f, "{} > {} {icmp}", self.source, self.destination)?,
            Transport::Other { protocol } => write!(
                f,
                "{} > {} protocol {protocol}",
                self.source, self.destination
            )?,
        }
        match self.wrong_checksum() {
            Some(which) => write!(f, " (wrong {which} checksum)"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TCP")?;
        let flags = [
            (self.syn, " SYN"),
            (self.fin, " FIN"),
            (self.rst, " RST"),
            (self.ack.is_some(), " ACK"),
        ];
        for (_, name) in flags.iter().filter(|(set, _)| *set) {
            f.write_str(name)?;
        }
        if self.payload > 0 {
            write!(f, ", {} octets", self.payload)?;
        }
        if f.alternate() {
            write!(f, ", seq {}", self.seq)?;
            if let Some(ack) = self.ack {
                write!(f, " ack {ack}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.code) {
            (8, _) => f.write_str("ICMP echo request")?,
            (0, _) => f.write_str("ICMP echo reply")?,
            (3, 0) => f.write_str("ICMP network unreachable")?,
            (3, 1) => f.write_str("ICMP host unreachable")?,
            (3, 3) => f.write_str("ICMP port unreachable")?,
            (3, 4) => f.write_str("ICMP fragmentation needed")?,
            (3, 9 | 10 | 13) => f.write_str("ICMP administratively prohibited")?,
            (5, _) => f.write_str("ICMP redirect")?,
            (11, _) => f.write_str("ICMP time exceeded")?,
            (kind, code) => write!(f, "ICMP type {kind} code {code}")?,
        }
        if let Some(mtu) = self.mtu {
            write!(f, " (MTU {mtu})")?;
        }
        match self.about {
            Some(flow) => write!(f, " about {flow}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TunnelKind::Vxlan(vni) => write!(f, "VXLAN {vni}")?,
            TunnelKind::IpInIp => f.write_str("IP in IP")?,
        }
        write!(f, " {} > {}", self.source, self.destination)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Ip(packet) => packet.fmt(f),
            Content::Arp(Arp {
                request: true,
                sender,
                target,
                ..
            }) => write!(f, "ARP: {sender} asks who has {target}"),
            Content::Arp(arp) => {
                write!(f, "ARP: {} is at {}", arp.sender, arp.sender_mac)
            }
            Content::Other {
                ethertype: Some(ethertype),
            } => write!(f, "EtherType {ethertype:#06x}"),
            Content::Other { ethertype: None } => f.write_str("a frame without a header"),
        }
    }
}
