//! ARP (RFC 826) for the gateway's address.

use std::net::Ipv4Addr;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol};

use super::link::Link;
use crate::MacAddr;

/// A valid packet's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) request: bool,
    pub(super) sender: (Ipv4Addr, MacAddr),
    pub(super) target: Ipv4Addr,
}

/// Reads a packet for IPv4 over Ethernet.
pub(super) fn parse(packet: &[u8]) -> Option<Arp> {
    let packet = ArpPacket::new_checked(packet).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    Some(Arp {
        request: operation == ArpOperation::Request,
        sender: (source_protocol_addr, MacAddr(source_hardware_addr.0)),
        target: target_protocol_addr,
    })
}

/// Says that `address` is at `mac`.
pub(super) fn reply(link: &mut Link, address: Ipv4Addr, mac: MacAddr, to: (Ipv4Addr, MacAddr)) {
    send(link, ArpOperation::Reply, (address, mac), to);
}

/// Asks who has `target`.
pub(super) fn request(link: &mut Link, address: Ipv4Addr, mac: MacAddr, target: Ipv4Addr) {
    send(
        link,
        ArpOperation::Request,
        (address, mac),
        (target, MacAddr::BROADCAST),
    );
}

fn send(
    link: &mut Link,
    operation: ArpOperation,
    from: (Ipv4Addr, MacAddr),
    to: (Ipv4Addr, MacAddr),
) {
    let request = operation == ArpOperation::Request;
    let packet = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.1.0),
        source_protocol_addr: from.0,
        // A request leaves the address it asks for open.
        target_hardware_addr: EthernetAddress(if request { [0; 6] } else { to.1.0 }),
        target_protocol_addr: to.0,
    };
    link.send(
        to.1,
        EthernetProtocol::Arp,
        packet.buffer_len(),
        |payload| {
            packet.emit(&mut ArpPacket::new_unchecked(payload));
        },
    );
}
