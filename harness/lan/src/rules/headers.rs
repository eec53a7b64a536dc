//! What rules read of a frame.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use twox_hash::XxHash3_64;

use super::rule::{Packets, Protocol};
use crate::Ipv4Net;
use crate::frame::ADDRESSES;

/// Destination ports of VXLAN: IANA's (RFC 7348) and Linux' own, which flannel takes.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];

/// Octets of VXLAN's header, behind which is a frame (RFC 7348 section 5).
const VXLAN_HEADER: usize = 8;

/// A frame's packet, and the one inside where it is a tunnel's. What is cut short or no packet at all
/// is as far as it could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) outer: Packet,
    pub(crate) inner: Option<Packet>,
    /// The two addresses of Ethernet.
    stations: [u8; ADDRESSES],
}

/// One packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Octets, as its header says; of IP alone.
    pub(crate) length: Option<usize>,
    /// Source and destination; of ARP, the sender's and the target's protocol address.
    pub(crate) ends: Option<(IpAddr, IpAddr)>,
    pub(crate) is_arp: bool,
    /// IP's.
    protocol: Option<IpNumber>,
    /// TCP's or UDP's.
    ports: Option<(u16, u16)>,
}

impl Headers {
    pub(crate) fn of(frame: &[u8]) -> Self {
        let Ok(sliced) = LaxSlicedPacket::from_ethernet(frame) else {
            return Headers::default();
        };
        Headers {
            outer: Packet::of(&sliced),
            inner: inner(&sliced),
            stations: *frame.first_chunk().unwrap_or(&[0; ADDRESSES]),
        }
    }

    /// The frame's packet, and the one inside.
    pub(crate) fn packets(&self) -> impl Iterator<Item = &Packet> {
        std::iter::once(&self.outer).chain(&self.inner)
    }

    /// Whether one of the packets is meant.
    pub(crate) fn meets(&self, packets: &Packets) -> bool {
        let any = *packets == Packets::default();
        any || self.packets().any(|packet| packet.meets(packets))
    }

    /// Which flow it belongs to: the innermost packet's addresses, protocol and ports; the two stations
    /// where there is no packet.
    pub(crate) fn flow(&self) -> u64 {
        let inner = self.inner.filter(|inner| inner.ends.is_some());
        let packet = inner.unwrap_or(self.outer);
        let mut octets = [0; 2 * 16 + 2 + 4];
        match packet.ends {
            Some((source, destination)) => {
                for (place, end) in [(0, source), (16, destination)] {
                    let address = match end {
                        IpAddr::V4(address) => address.to_ipv6_mapped(),
                        IpAddr::V6(address) => address,
                    };
                    octets[place..place + 16].copy_from_slice(&address.octets());
                }
            }
            None => octets[..ADDRESSES].copy_from_slice(&self.stations),
        }
        octets[32] = u8::from(packet.is_arp);
        octets[33] = packet.protocol.unwrap_or_default().0;
        let (source, destination) = packet.ports.unwrap_or_default();
        octets[34..36].copy_from_slice(&source.to_be_bytes());
        octets[36..].copy_from_slice(&destination.to_be_bytes());
        XxHash3_64::oneshot(&octets)
    }
}

impl Packet {
    fn of(sliced: &LaxSlicedPacket<'_>) -> Self {
        let mut packet = Packet::default();
        match &sliced.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                packet.length = Some(usize::from(header.total_len()));
                packet.ends = Some((
                    header.source_addr().into(),
                    header.destination_addr().into(),
                ));
                packet.protocol = Some(ip.payload_ip_number());
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let payload = usize::from(header.payload_length());
                packet.length = Some(etherparse::Ipv6Header::LEN + payload);
                packet.ends = Some((
                    header.source_addr().into(),
                    header.destination_addr().into(),
                ));
                packet.protocol = Some(ip.payload().ip_number);
            }
            Some(LaxNetSlice::Arp(arp)) => {
                packet.is_arp = true;
                let end = |octets: &[u8]| {
                    let octets: [u8; 4] = octets.try_into().ok()?;
                    Some(IpAddr::V4(Ipv4Addr::from(octets)))
                };
                let sender = end(arp.sender_protocol_addr());
                packet.ends = sender.zip(end(arp.target_protocol_addr()));
            }
            None => {}
        }
        packet.ports = match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        };
        packet
    }

    /// Source and destination, where they are IPv4's (or ARP's for it).
    pub(crate) fn ipv4_ends(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        match self.ends? {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some((source, destination)),
            _ => None,
        }
    }

    /// Source and destination port, of TCP or UDP.
    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        self.ports
    }

    pub(crate) fn is(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Arp => self.is_arp,
            Protocol::Icmp => {
                matches!(self.protocol, Some(IpNumber::ICMP | IpNumber::IPV6_ICMP))
            }
            Protocol::Tcp => self.protocol == Some(IpNumber::TCP),
            Protocol::Udp => self.protocol == Some(IpNumber::UDP),
        }
    }

    fn meets(&self, packets: &Packets) -> bool {
        let ends = self.ipv4_ends();
        let within = |net: Option<Ipv4Net>, end: fn((Ipv4Addr, Ipv4Addr)) -> Ipv4Addr| {
            net.is_none_or(|net| ends.is_some_and(|ends| net.contains(end(ends))))
        };
        let port = |wanted: Option<u16>, end: fn((u16, u16)) -> u16| {
            wanted.is_none_or(|wanted| self.ports.is_some_and(|ports| end(ports) == wanted))
        };
        packets.protocol.is_none_or(|it| self.is(it))
            && within(packets.source, |ends| ends.0)
            && within(packets.destination, |ends| ends.1)
            && port(packets.source_port, |ports| ports.0)
            && port(packets.destination_port, |ports| ports.1)
    }
}

/// What is inside a tunnel's packet.
fn inner(sliced: &LaxSlicedPacket<'_>) -> Option<Packet> {
    if let Some(TransportSlice::Udp(udp)) = &sliced.transport {
        let frame = udp.payload().get(VXLAN_HEADER..)?;
        return VXLAN_PORTS
            .contains(&udp.destination_port())
            .then(|| LaxSlicedPacket::from_ethernet(frame).ok())?
            .map(|inner| Packet::of(&inner));
    }
    let payload = sliced.net.as_ref()?.ip_payload_ref()?;
    (payload.ip_number == IpNumber::IPV4 && !payload.fragmented)
        .then(|| LaxSlicedPacket::from_ip(payload.payload).ok())?
        .map(|inner| Packet::of(&inner))
}

#[cfg(test)]
pub(crate) mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    pub(crate) const ONE: [u8; 6] = [0x52, 0x54, 0, 0, 1, 1];
    pub(crate) const TWO: [u8; 6] = [0x52, 0x54, 0, 0, 1, 2];

    /// A datagram between two addresses, in a frame from station 1 to station 2.
    pub(crate) fn udp(
        source: [u8; 4],
        destination: [u8; 4],
        ports: (u16, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(ONE, TWO).ipv4(source, destination, 64);
        let mut frame = Vec::new();
        let builder = builder.udp(ports.0, ports.1);
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    pub(crate) fn vxlan(port: u16, frame: &[u8]) -> Vec<u8> {
        let payload = [&[8, 0, 0, 0, 0, 0, 1, 0][..], frame].concat();
        udp([172, 30, 0, 11], [172, 30, 0, 12], (50000, port), &payload)
    }

    /// A question of station 1's to station 2.
    pub(crate) fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let header = [&TWO[..], &ONE, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        [&header[..], &ONE, &sender, &[0; 6], &target].concat()
    }

    fn packets(json: &str) -> Packets {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn all_that_is_given_must_hold_of_one_packet() {
        let plain = udp([10, 1, 1, 2], [10, 1, 2, 3], (40000, 53), b"?");
        let tunnelled = vxlan(8472, &plain);
        for frame in [&plain, &tunnelled, &vxlan(4789, &plain)] {
            let headers = Headers::of(frame);
            let meets = |json| headers.meets(&packets(json));
            assert!(meets("{}"));
            assert!(meets(
                r#"{"source":"10.1.1.0/24","destination":"10.1.2.3/32"}"#
            ));
            assert!(meets(
                r#"{"protocol":"udp","source_port":40000,"destination_port":53}"#
            ));
            assert!(!meets(r#"{"source":"10.1.2.0/24"}"#));
            assert!(!meets(r#"{"destination_port":54}"#));
            assert!(!meets(r#"{"protocol":"tcp"}"#));
        }
        let meets = |json| Headers::of(&tunnelled).meets(&packets(json));
        assert!(meets(
            r#"{"source":"172.30.0.11/32","destination_port":8472}"#
        ));
        // Each of one packet, and no packet has both.
        assert!(!meets(
            r#"{"source":"172.30.0.11/32","destination_port":53}"#
        ));
        // Not VXLAN's port: nobody looks inside.
        assert_eq!(Headers::of(&vxlan(1234, &plain)).inner, None);
    }

    #[test]
    fn ip_in_ip_and_arp_are_read() {
        let plain = udp([10, 1, 1, 2], [10, 1, 2, 3], (40000, 53), b"?");
        let mut ipip = Vec::new();
        let builder =
            PacketBuilder::ethernet2(ONE, TWO).ipv4([172, 30, 0, 11], [172, 30, 0, 12], 64);
        builder
            .write(&mut ipip, IpNumber::IPV4, &plain[14..])
            .unwrap();
        let headers = Headers::of(&ipip);
        assert_eq!(headers.inner, Some(Headers::of(&plain).outer));
        assert_eq!(headers.outer.length, Some(20 + plain.len() - 14));
        let arp = arp([172, 30, 0, 11], [172, 30, 0, 12]);
        let meets = |json| Headers::of(&arp).meets(&packets(json));
        assert!(meets(
            r#"{"protocol":"arp","source":"172.30.0.11/32","destination":"172.30.0.12/32"}"#
        ));
        assert!(!meets(r#"{"protocol":"udp"}"#));
        assert_eq!(Headers::of(&arp).outer.length, None);
    }

    #[test]
    fn a_flow_is_one_direction_of_one_conversation() {
        let flow = |source, destination, ports, payload| {
            Headers::of(&udp(source, destination, ports, payload)).flow()
        };
        let (a, b) = ([10, 1, 1, 2], [10, 1, 2, 3]);
        let one = flow(a, b, (40000, 53), b"one");
        assert_eq!(flow(a, b, (40000, 53), b"another payload"), one);
        assert_ne!(flow(b, a, (40000, 53), b"one"), one);
        assert_ne!(flow(a, b, (40001, 53), b"one"), one);
        assert_ne!(flow(a, b, (40000, 54), b"one"), one);
        let inside = Headers::of(&vxlan(8472, &udp(a, b, (40000, 53), b"one")));
        assert_eq!(inside.flow(), one, "whatever carries it");
        let garbage = |port| Headers::of(&udp(a, b, (port, 8472), &[7; 60])).flow();
        assert_ne!(garbage(1), garbage(2), "nothing inside tells them apart");
        let strange = |octet| Headers::of(&[octet; 60]).flow();
        assert_ne!(strange(1), strange(2));
    }

    #[test]
    fn a_tag_hides_nothing() {
        let mut tagged = udp([10, 1, 1, 2], [10, 1, 2, 3], (40000, 53), b"?");
        let plain = Headers::of(&tagged);
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(Headers::of(&tagged), plain);
    }

    #[test]
    fn no_frame_is_too_strange() {
        let frame = vxlan(8472, &udp([10, 1, 1, 2], [10, 1, 2, 3], (40000, 53), b"?"));
        for end in 0..frame.len() {
            let _ = Headers::of(&frame[..end]).flow();
        }
    }
}
