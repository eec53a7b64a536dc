//! The gateway's side of its port: frames out, and who is behind which Ethernet address.
//!
//! It is a device of smoltcp's without a link layer: this module resolves addresses itself, so that
//! a reply goes to the machine that sent the request, even when its source is not on the segment (a
//! Pod's), and so that an unanswered ARP request is seen as such.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Ipv4Packet};

use crate::MacAddr;
use crate::ageing::Ageing;
use crate::frame::HEADER;
use crate::framing::{LENGTH, append, begin, first_frame};

/// Octets of an IP packet that the gateway sends at most: Ethernet's usual MTU, whatever the
/// machines use among themselves.
pub(super) const MTU: usize = 1500;

/// How long an address is remembered when there are too many.
const NEIGHBOUR_AGE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Link {
    mac: MacAddr,
    neighbours: Ageing<Ipv4Addr, MacAddr>,
    /// Framed frames for the switch.
    out: Vec<u8>,
    /// Framed packets for the TCP stack, of which it has taken `taken` octets.
    packets: Vec<u8>,
    taken: usize,
}

impl Link {
    pub(super) fn new(mac: MacAddr) -> Self {
        Link {
            mac,
            neighbours: Ageing::new(NEIGHBOUR_AGE),
            out: Vec::new(),
            packets: Vec::new(),
            taken: 0,
        }
    }

    /// Framed frames for the switch; the caller empties it.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Notes who sent from an address.
    pub(super) fn learn(&mut self, address: Ipv4Addr, mac: MacAddr, now: Duration) {
        self.neighbours.learn(address, mac, now);
    }

    /// Whether something came from an address less than `age` ago.
    pub(super) fn heard(&self, address: Ipv4Addr, age: Duration, now: Duration) -> bool {
        self.neighbours
            .get(&address)
            .is_some_and(|neighbour| neighbour.age(now) < age)
    }

    /// Gives a packet to the TCP stack.
    pub(super) fn deliver(&mut self, packet: &[u8]) {
        append(&mut self.packets, packet);
    }

    /// Sends a frame of `length` octets of payload, which `fill` writes.
    pub(super) fn send(
        &mut self,
        to: MacAddr,
        ethertype: EthernetProtocol,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let start = begin(&mut self.out, HEADER + length);
        let frame = &mut self.out[start..];
        fill(&mut frame[HEADER..]);
        EthernetRepr {
            src_addr: EthernetAddress(self.mac.0),
            dst_addr: EthernetAddress(to.0),
            ethertype,
        }
        .emit(&mut EthernetFrame::new_unchecked(frame));
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

pub(super) struct Sending<'a> {
    mac: MacAddr,
    neighbours: &'a Ageing<Ipv4Addr, MacAddr>,
    out: &'a mut Vec<u8>,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let before = self.out.len();
        let start = begin(self.out, HEADER + length);
        let frame = &mut self.out[start..];
        let result = fill(&mut frame[HEADER..]);
        let to = Ipv4Packet::new_checked(&frame[HEADER..])
            .ok()
            .and_then(|packet| self.neighbours.get(&packet.dst_addr()));
        match to {
            Some(neighbour) => EthernetRepr {
                src_addr: EthernetAddress(self.mac.0),
                dst_addr: EthernetAddress(neighbour.value.0),
                ethertype: EthernetProtocol::Ipv4,
            }
            .emit(&mut EthernetFrame::new_unchecked(frame)),
            // Every connection begins with a frame from its peer (an ARP reply, a SYN); TCP sends
            // again if the table has lost it since.
            None => self.out.truncate(before),
        }
        result
    }
}

impl Device for Link {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        if self.taken == self.packets.len() {
            self.packets.clear();
            self.taken = 0;
            return None;
        }
        let packet = first_frame(&self.packets[self.taken..]).ok()??;
        self.taken += LENGTH + packet.len();
        let sending = Sending {
            mac: self.mac,
            neighbours: &self.neighbours,
            out: &mut self.out,
        };
        Some((Received(packet), sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending {
            mac: self.mac,
            neighbours: &self.neighbours,
            out: &mut self.out,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // What is delivered was verified before.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}
