//! Frames to the gateway that are nearly right: each protocol's messages, with a fault here and there.
//!
//! Checksums are mostly right over what is wrong, so that faults get behind them.

use std::net::Ipv4Addr;

use super::dice::Dice;
use crate::MacAddr;

/// The machine that sends.
pub(super) const NODE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 1, 1]);
pub(super) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 11);
pub(super) const GATEWAY_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

const ETHERNET: usize = 14;
/// Octets of an IP packet at most.
const PACKET: usize = 65_535;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Writes one frame over what `out` held.
pub(super) type Make = fn(&mut Dice, &mut Vec<u8>);

fn ethernet(dice: &mut Dice, out: &mut Vec<u8>, kind: u16) {
    out.clear();
    let to = if dice.percent(15) {
        MacAddr::BROADCAST
    } else {
        GATEWAY_MAC
    };
    out.extend(to.0);
    out.extend(NODE.0);
    if dice.percent(5) {
        out[11] = dice.byte();
    }
    out.extend(kind.to_be_bytes());
}

/// Cuts a frame short, or has something behind it.
fn spoil_end(dice: &mut Dice, out: &mut Vec<u8>) {
    if dice.percent(3) {
        let length = dice.below(out.len() + 1);
        out.truncate(length);
    }
    if dice.percent(5) {
        dice.some_octets(out, 64);
    }
}

/// Whose the source may be.
pub(super) fn source(dice: &mut Dice) -> Ipv4Addr {
    match dice.below(10) {
        0..=5 => NODE_ADDRESS,
        6 => Ipv4Addr::new(10, 1, 1, dice.byte()),
        7 => dice.pick(&[
            GATEWAY,
            OUTSIDE,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(172, 30, 0, 255),
            Ipv4Addr::new(224, 0, 0, 1),
            Ipv4Addr::LOCALHOST,
        ]),
        _ => Ipv4Addr::from_bits(dice.long()),
    }
}

fn destination(dice: &mut Dice) -> Ipv4Addr {
    dice.pick(&[
        GATEWAY,
        GATEWAY,
        GATEWAY,
        OUTSIDE,
        OUTSIDE,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(172, 30, 0, 255),
        Ipv4Addr::new(10, 1, 2, 3),
    ])
}

/// What an IP packet carries.
pub(super) struct Carried {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    /// Where its checksum is.
    pub(super) sum_at: usize,
}

/// A frame with an IP packet whose payload `fill` appends.
pub(super) fn ipv4(
    dice: &mut Dice,
    out: &mut Vec<u8>,
    carried: &Carried,
    fill: impl FnOnce(&mut Dice, &mut Vec<u8>),
) {
    ethernet(dice, out, 0x0800);
    let options = if dice.percent(10) {
        dice.below(10) * 4
    } else {
        0
    };
    out.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, carried.protocol, 0, 0]);
    out.extend(carried.source.octets());
    out.extend(carried.destination.octets());
    dice.octets(out, options);
    let header = 20 + options;
    let payload = out.len();
    fill(dice, out);
    out.truncate(ETHERNET + PACKET);
    let length = out.len() - payload;
    if length >= carried.sum_at + 2 && !dice.percent(3) {
        let pseudo = pseudo_header(carried, length);
        put_sum(&mut out[payload..], carried.sum_at, pseudo);
    }
    let packet = &mut out[ETHERNET..];
    packet[0] = 0x40 | u8::try_from(header / 4).unwrap_or(5);
    let total = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    if dice.percent(8) {
        let at = dice.below(header);
        packet[at] = dice.byte();
    }
    if dice.percent(5) {
        let total = u16::try_from(dice.below(packet.len() + 40)).unwrap_or(u16::MAX);
        packet[2..4].copy_from_slice(&total.to_be_bytes());
    }
    let said = usize::from(packet[0] & 15) * 4;
    if (20..=packet.len()).contains(&said) && !dice.percent(2) {
        put_sum(&mut packet[..said], 10, 0);
    }
    spoil_end(dice, out);
}

/// The sum of what TCP's and UDP's checksums cover besides (RFC 9293 section 3.1, RFC 768).
pub(super) fn pseudo_header(carried: &Carried, length: usize) -> u64 {
    if carried.protocol == ICMP {
        return 0;
    }
    add(&carried.source.octets())
        + add(&carried.destination.octets())
        + u64::from(carried.protocol)
        + length as u64
}

/// 16-bit words of some octets, added (RFC 1071).
pub(super) fn add(octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<2>();
    let words = words
        .iter()
        .map(|word| u64::from(u16::from_be_bytes(*word)));
    words.sum::<u64>() + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

/// The checksum of a sum.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn put_sum(octets: &mut [u8], at: usize, besides: u64) {
    octets[at..at + 2].fill(0);
    let sum = fold(add(octets) + besides);
    octets[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn arp(dice: &mut Dice, out: &mut Vec<u8>) {
    ethernet(dice, out, 0x0806);
    let start = out.len();
    let operation = if dice.percent(70) { 1 } else { 2 };
    out.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    out.extend(NODE.0);
    out.extend(source(dice).octets());
    out.extend([0; 6]);
    out.extend(destination(dice).octets());
    for _ in 0..dice.below(3) {
        let at = start + dice.below(28);
        out[at] = dice.byte();
    }
    spoil_end(dice, out);
}

fn udp(
    dice: &mut Dice,
    out: &mut Vec<u8>,
    ports: (u16, u16),
    fill: impl FnOnce(&mut Dice, &mut Vec<u8>),
) {
    let carried = Carried {
        source: source(dice),
        destination: destination(dice),
        protocol: UDP,
        sum_at: 6,
    };
    ipv4(dice, out, &carried, |dice, out| {
        let start = out.len();
        out.extend(ports.0.to_be_bytes());
        out.extend(ports.1.to_be_bytes());
        out.extend([0; 4]);
        fill(dice, out);
        let length = if dice.percent(4) {
            dice.short()
        } else {
            u16::try_from(out.len() - start).unwrap_or(u16::MAX)
        };
        out[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
    });
}

pub(super) fn dhcp(dice: &mut Dice, out: &mut Vec<u8>) {
    udp(dice, out, (68, 67), |dice, out| {
        let start = out.len();
        out.extend([1, 1, 6, 0]);
        out.resize(start + 28, 0);
        out.extend(NODE.0);
        out.resize(start + 236, 0);
        for _ in 0..dice.below(3) {
            let at = start + dice.below(236);
            out[at] = dice.byte();
        }
        out.extend([0x63, 0x82, 0x53, 0x63]);
        out.extend([53, 1, dice.pick(&[1, 1, 3, 3, 4, 7, 8, 9])]);
        // As long as a datagram can be, every now and then.
        let (room, longest) = if dice.one_in(256) {
            (65_507 - 244 - dice.below(300), 255)
        } else {
            (dice.below(600), dice.pick(&[4, 20, 255]))
        };
        let end = out.len() + room;
        let only = dice.percent(50).then_some(61);
        while out.len() + 2 < end {
            let kind = only.unwrap_or_else(|| {
                let other = dice.byte();
                dice.pick(&[
                    61, 50, 54, 12, 55, 57, 0, 255, 53, 1, 3, 6, 51, 58, 59, other,
                ])
            });
            let length = dice.below(longest + 1).min(end - out.len() - 2);
            out.extend([kind, u8::try_from(length).unwrap_or(u8::MAX)]);
            dice.octets(out, length);
        }
        if dice.percent(80) {
            out.push(255);
        }
    });
}

pub(super) fn dns(dice: &mut Dice, out: &mut Vec<u8>) {
    let from = dice.short();
    udp(dice, out, (from, 53), |dice, out| {
        let start = out.len();
        dice.octets(out, 2);
        let mut mostly = |usual: u8| {
            if dice.percent(90) { usual } else { dice.byte() }
        };
        out.extend([mostly(1), mostly(0), 0, mostly(1), 0, 0, 0, 0, 0, 0]);
        let labels = if dice.one_in(512) { 2000 } else { 8 };
        for _ in 0..dice.below(labels) {
            match dice.below(12) {
                0 => out.extend([0xc0 | dice.byte() & 0x3f, dice.byte()]),
                1 => {
                    let back = dice.below(out.len() - start + 4);
                    out.extend([0xc0, u8::try_from(back).unwrap_or(u8::MAX)]);
                }
                2 => out.push(dice.byte()),
                3 => out.extend(b"\x05node1"),
                4 => out.extend(b"\x07outside\x04test"),
                _ => {
                    let length = dice.below(64);
                    out.push(u8::try_from(length).unwrap_or(63));
                    dice.octets(out, length);
                }
            }
        }
        if dice.percent(90) {
            out.push(0);
        }
        let other = dice.byte();
        out.extend([0, dice.pick(&[1, 28, 255, 6, other]), 0, 1]);
        dice.some_octets(out, 20);
    });
}

pub(super) fn icmp(dice: &mut Dice, out: &mut Vec<u8>) {
    let carried = Carried {
        source: source(dice),
        destination: destination(dice),
        protocol: ICMP,
        sum_at: 2,
    };
    ipv4(dice, out, &carried, |dice, out| {
        let other = dice.byte();
        out.extend([dice.pick(&[8, 8, 8, 0, 3, 11, other]), 0, 0, 0]);
        let most = if dice.one_in(256) { PACKET } else { 60 };
        dice.some_octets(out, most);
    });
}

/// Datagrams for ports where nobody is, and frames of which only the addresses are right.
pub(super) fn udp_or_any(dice: &mut Dice, out: &mut Vec<u8>) {
    if dice.percent(60) {
        let ports = (dice.short(), dice.short());
        return udp(dice, out, ports, |dice, out| {
            let most = if dice.one_in(256) { PACKET } else { 100 };
            dice.some_octets(out, most);
        });
    }
    let other = dice.short();
    let kind = dice.pick(&[0x0800, 0x0800, 0x0806, 0x86dd, 0x8100, other]);
    ethernet(dice, out, kind);
    dice.some_octets(out, 200);
}
