//! From a frame's beginning to what it says.

use std::net::{IpAddr, SocketAddr};

use etherparse::checksum::u64_16bit_word as words;
use etherparse::{
    ArpOperation, Icmpv4Slice, LaxIpPayloadSlice, LaxNetSlice, LaxSlicedPacket, TcpOptionElement,
    TcpSlice, TransportSlice, UdpSlice, ip_number,
};

use crate::MacAddr;
use crate::frame::{ADDRESSES, HEADER};
use crate::witness::facts::{
    Arp, Checksum, Content, Flow, Icmp, Packet, TCP, Tcp, Transport, Tunnel, TunnelKind, UDP, Udp,
};

/// UDP ports of VXLAN: Linux's and flannel's, and IANA's (RFC 7348).
const VXLAN: [u16; 2] = [8472, 4789];
/// Octets of VXLAN's own header.
const VXLAN_HEADER: usize = 8;
/// Its flag that says that there is a network identifier.
const VXLAN_HAS_ID: u8 = 0x08;
/// Octets of an ICMP message before what an error quotes.
const ICMP_HEADER: usize = 8;

/// What lies behind the octets that were kept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rest {
    pub(super) octets: usize,
    /// The sum of their 16-bit words.
    pub(super) sum: u64,
}

/// What a frame carries, and in which tunnel.
pub(super) fn frame(kept: &[u8], rest: Rest) -> (Content, Option<Tunnel>) {
    let Ok(sliced) = LaxSlicedPacket::from_ethernet(kept) else {
        return (Content::Other { ethertype: None }, None);
    };
    let ethertype = kept[ADDRESSES..HEADER].first_chunk();
    let other = Content::Other {
        ethertype: ethertype.map(|it| u16::from_be_bytes(*it)),
    };
    if let Some(inner) = unwrapped(&sliced, rest) {
        return inner;
    }
    (content(&sliced, rest).unwrap_or(other), None)
}

/// What a frame's or a packet's own headers say.
fn content(sliced: &LaxSlicedPacket<'_>, rest: Rest) -> Option<Content> {
    match sliced.net.as_ref()? {
        LaxNetSlice::Arp(arp) => {
            let arp = arp.to_packet().try_eth_ipv4().ok()?;
            Some(Content::Arp(Arp {
                request: arp.operation == ArpOperation::REQUEST,
                sender: arp.sender_ipv4.into(),
                sender_mac: MacAddr(arp.sender_mac),
                target: arp.target_ipv4.into(),
            }))
        }
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let declared = header.payload_len().ok().map(usize::from);
            let ends = (
                header.source_addr().into(),
                header.destination_addr().into(),
            );
            let sum = words::add_slice(0, header.slice());
            let body = Body::new(ends, ip.payload(), declared, rest);
            Some(Content::Ip(Packet {
                source: ends.0,
                destination: ends.1,
                id: Some(header.identification()),
                ttl: header.ttl(),
                checksum: match words::ones_complement(sum) {
                    0 => Checksum::Right,
                    _ => Checksum::Wrong,
                },
                transport: body.transport(sliced.transport.as_ref()),
            }))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let ends = (
                header.source_addr().into(),
                header.destination_addr().into(),
            );
            let extended = !ip.extensions().is_empty();
            let declared = (!extended).then(|| usize::from(header.payload_length()));
            let body = Body::new(ends, ip.payload(), declared, rest);
            Some(Content::Ip(Packet {
                source: ends.0,
                destination: ends.1,
                id: None,
                ttl: header.hop_limit(),
                checksum: Checksum::None,
                transport: body.transport(sliced.transport.as_ref()),
            }))
        }
    }
}

/// What is in the tunnel that a frame belongs to. A tunnel in a tunnel is not looked into.
fn unwrapped(outer: &LaxSlicedPacket<'_>, rest: Rest) -> Option<(Content, Option<Tunnel>)> {
    let (source, destination) = match outer.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let (kind, inner) = match &outer.transport {
        Some(TransportSlice::Udp(udp)) if VXLAN.contains(&udp.destination_port()) => {
            let (header, inner) = udp.payload().split_at_checked(VXLAN_HEADER)?;
            let [flags, _, _, _, a, b, c, _] = *header else {
                return None;
            };
            if flags & VXLAN_HAS_ID == 0 {
                return None;
            }
            let id = u32::from_be_bytes([0, a, b, c]);
            let inner = LaxSlicedPacket::from_ethernet(inner).ok()?;
            (TunnelKind::Vxlan(id), inner)
        }
        None => match &outer.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let carries = ip.payload();
                if carries.ip_number != ip_number::IPV4 || carries.fragmented {
                    return None;
                }
                let inner = LaxSlicedPacket::from_ip(carries.payload).ok()?;
                (TunnelKind::IpInIp, inner)
            }
            _ => return None,
        },
        _ => return None,
    };
    let tunnel = Tunnel {
        kind,
        source,
        destination,
    };
    Some((content(&inner, rest)?, Some(tunnel)))
}

/// What an IP packet carries, as far as it was kept, and what lies behind that.
struct Body<'a> {
    ends: (IpAddr, IpAddr),
    payload: &'a LaxIpPayloadSlice<'a>,
    /// Octets that the IP header announces.
    declared: Option<usize>,
    rest: Rest,
}

impl<'a> Body<'a> {
    fn new(
        ends: (IpAddr, IpAddr),
        payload: &'a LaxIpPayloadSlice<'a>,
        declared: Option<usize>,
        rest: Rest,
    ) -> Self {
        Body {
            ends,
            payload,
            declared,
            rest,
        }
    }

    fn transport(&self, sliced: Option<&TransportSlice<'_>>) -> Transport {
        match sliced {
            Some(TransportSlice::Tcp(tcp)) => Transport::Tcp(self.tcp(tcp)),
            Some(TransportSlice::Udp(udp)) => Transport::Udp(self.udp(udp)),
            Some(TransportSlice::Icmpv4(icmp)) => Transport::Icmp(self.icmp(icmp)),
            _ => Transport::Other {
                protocol: self.payload.ip_number.0,
            },
        }
    }

    fn tcp(&self, tcp: &TcpSlice<'_>) -> Tcp {
        let (mut timestamps, mut block) = (None, None);
        for option in tcp.options_iterator().map_while(Result::ok) {
            match option {
                TcpOptionElement::Timestamp(own, echo) => timestamps = Some((own, echo)),
                TcpOptionElement::SelectiveAcknowledgement(first, _) => block = Some(first),
                _ => {}
            }
        }
        let header = usize::from(tcp.data_offset()) * 4;
        let length = self.declared.unwrap_or(self.payload.payload.len());
        Tcp {
            source_port: tcp.source_port(),
            destination_port: tcp.destination_port(),
            seq: tcp.sequence_number(),
            ack: tcp.ack().then(|| tcp.acknowledgment_number()),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            payload: octets(length.saturating_sub(header)),
            timestamps,
            block,
            checksum: self.sum(self.pseudo_header(TCP), tcp.checksum()),
        }
    }

    fn udp(&self, udp: &UdpSlice<'_>) -> Udp {
        const HEADER: u16 = 8;
        let whole = self.declared == Some(usize::from(udp.length()));
        Udp {
            source_port: udp.source_port(),
            destination_port: udp.destination_port(),
            payload: u32::from(udp.length().saturating_sub(HEADER)),
            checksum: match udp.checksum() {
                0 => Checksum::None,
                sum if whole => self.sum(self.pseudo_header(UDP), sum),
                _ => Checksum::Unknown,
            },
        }
    }

    fn icmp(&self, icmp: &Icmpv4Slice<'_>) -> Icmp {
        let [a, b, c, d] = icmp.bytes5to8();
        let (kind, code) = (icmp.type_u8(), icmp.code_u8());
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
        let is_error = matches!(kind, 3 | 4 | 5 | 11 | 12);
        let quoted = icmp.slice().get(ICMP_HEADER..).filter(|_| is_error);
        let echo = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Icmp {
            kind,
            code,
            echo: matches!(kind, 0 | 8).then_some(echo),
            mtu: ((kind, code) == (3, 4)).then_some(echo.1),
            about: quoted.and_then(quoted_flow),
            checksum: match self.sum(0, icmp.checksum()) {
                // There is no pseudo-header whose sum a card would complete.
                Checksum::LeftToCard => Checksum::Wrong,
                sum => sum,
            },
        }
    }

    /// The sum of the addresses, the protocol and the length (RFC 9293, 3.1; RFC 8200, 8.1).
    fn pseudo_header(&self, protocol: u8) -> u64 {
        let addresses = match self.ends {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let sum = words::add_4bytes(0, source.octets());
                words::add_4bytes(sum, destination.octets())
            }
            (source, destination) => {
                let sum = |sum, address| match address {
                    IpAddr::V4(address) => words::add_4bytes(sum, address.octets()),
                    IpAddr::V6(address) => words::add_slice(sum, &address.octets()),
                };
                sum(sum(0, source), destination)
            }
        };
        let length = octets(self.declared.unwrap_or_default());
        let sum = words::add_2bytes(addresses, [0, protocol]);
        words::add_4bytes(sum, length.to_be_bytes())
    }

    /// Whether a checksum, one of the words summed up, is that of the whole payload.
    fn sum(&self, pseudo_header: u64, field: u16) -> Checksum {
        let kept = self.payload.payload;
        let missing = self
            .declared
            .and_then(|declared| declared.checked_sub(kept.len()));
        let sum = match missing {
            Some(0) => words::add_slice(pseudo_header, kept),
            Some(missing) if missing == self.rest.octets && kept.len().is_multiple_of(2) => {
                let sum = words::add_slice(pseudo_header, kept);
                words::add_8bytes(sum, self.rest.sum.to_ne_bytes())
            }
            _ => return Checksum::Unknown,
        };
        if words::ones_complement(sum) == 0 {
            Checksum::Right
        } else if !words::ones_complement(pseudo_header) == field.to_be() {
            Checksum::LeftToCard
        } else {
            Checksum::Wrong
        }
    }
}

/// The flow of a packet of which an ICMP error quotes the beginning: eight octets of what it carries
/// at least.
fn quoted_flow(quoted: &[u8]) -> Option<Flow> {
    let sliced = LaxSlicedPacket::from_ip(quoted).ok()?;
    let Some(LaxNetSlice::Ipv4(ip)) = &sliced.net else {
        return None;
    };
    let payload = ip.payload();
    let (source_port, destination_port) = match payload.ip_number {
        ip_number::TCP | ip_number::UDP if !payload.fragmented => match *payload.payload {
            [a, b, c, d, ..] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            _ => (0, 0),
        },
        ip_number::ICMP => match *payload.payload {
            [0 | 8, _, _, _, a, b, ..] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([a, b])),
            _ => (0, 0),
        },
        _ => (0, 0),
    };
    Some(Flow::new(
        payload.ip_number.0,
        SocketAddr::new(ip.header().source_addr().into(), source_port),
        SocketAddr::new(ip.header().destination_addr().into(), destination_port),
    ))
}

fn octets(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
