//! ICMP echo (RFC 792) over a raw socket: a scratch image has no `ping`.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const HEADER: usize = 8;

/// Sends `count` echo requests one after the other, each awaited for at most `limit`, and returns
/// how many were answered.
///
/// # Errors
/// When the kernel gives no raw socket (it wants `CAP_NET_RAW`) or has no route.
pub fn ping(to: Ipv4Addr, count: u16, limit: Duration) -> io::Result<u16> {
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
    // Every ping of a network namespace sees all replies, and those of one process may be many.
    let id = RandomState::new().hash_one(to) as u16;
    let mut answered = 0;
    for sequence in 0..count {
        let started = Instant::now();
        sendto(
            &raw,
            &request(id, sequence),
            SendFlags::empty(),
            &SocketAddrV4::new(to, 0),
        )?;
        answered += u16::from(awaited(&raw, to, (id, sequence), started + limit)?);
    }
    Ok(answered)
}

fn request(id: u16, sequence: u16) -> [u8; HEADER] {
    let mut packet = [0; HEADER];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) as u16 + (folded >> 16) as u16)
}

fn awaited(raw: &OwnedFd, from: Ipv4Addr, wanted: (u16, u16), until: Instant) -> io::Result<bool> {
    let mut packet = [0; 2048];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        if poll(&mut [PollFd::new(raw, PollFlags::IN)], Some(&limit))? == 0 {
            return Ok(false);
        }
        let (length, _) = recv(raw, &mut packet[..], RecvFlags::empty())?;
        if is_reply(&packet[..length], from, wanted) {
            return Ok(true);
        }
    }
}

/// Whether an IPv4 packet, as a raw socket delivers it with its header, is the awaited reply.
fn is_reply(packet: &[u8], from: Ipv4Addr, (id, sequence): (u16, u16)) -> bool {
    let Some(first) = packet.first() else {
        return false;
    };
    let header = usize::from(first & 0x0f) * 4;
    let (Some(source), Some(icmp)) = (packet.get(12..16), packet.get(header..header + HEADER))
    else {
        return false;
    };
    source == from.octets()
        && icmp[0] == ECHO_REPLY
        && icmp[4..6] == id.to_be_bytes()
        && icmp[6..8] == sequence.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_zero() {
        let packet = request(0xbeef, 7);
        assert_eq!(checksum(&packet), 0);
        assert_eq!(packet[0], ECHO_REQUEST);
    }

    #[test]
    fn only_the_awaited_reply_counts() {
        let from = Ipv4Addr::new(192, 0, 2, 10);
        let mut packet = vec![0x45; 1];
        packet.resize(12, 0);
        packet.extend(from.octets());
        packet.extend([0; 4]);
        let mut icmp = request(1, 2);
        icmp[0] = ECHO_REPLY;
        packet.extend(icmp);
        assert!(is_reply(&packet, from, (1, 2)));
        assert!(!is_reply(&packet, from, (1, 3)), "another sequence number");
        assert!(
            !is_reply(&packet, Ipv4Addr::LOCALHOST, (1, 2)),
            "another host"
        );
        assert!(!is_reply(&packet[..20], from, (1, 2)), "cut short");
        packet[20] = ECHO_REQUEST;
        assert!(!is_reply(&packet, from, (1, 2)), "a request");
    }
}
