//! The gateway alone: a frame in, and what it sends is as it should be.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::case::Log;
use super::dice::Dice;
use super::frames::{
    Carried, GATEWAY_MAC, ICMP, Make, NODE, NODE_ADDRESS, OUTSIDE, TCP, UDP, add, fold,
    pseudo_header,
};
use crate::framing::{LENGTH, append, first_frame};
use crate::gateway::Gateway;
use crate::mac_table::AGEING;
use crate::plan::example;
use crate::queue::SendQueue;

/// Octets that wait for the gateway at most.
const QUEUE: usize = 4 * 1024 * 1024;

/// Frames that the gateway gets at once at most.
const TOGETHER: usize = 8;

/// A gateway, its time, and what it gets next.
pub(super) struct Subject {
    pub(super) gateway: Gateway,
    pub(super) now: Duration,
    queue: SendQueue,
    batch: Vec<u8>,
    waiting: u64,
    sent: Vec<u8>,
}

impl Subject {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let now = AGEING + dice.pause();
        Subject {
            gateway: Gateway::new(example(), dice.word(), now),
            now,
            queue: SendQueue::new(QUEUE),
            batch: Vec::new(),
            waiting: 0,
            sent: Vec::new(),
        }
    }

    /// Has a frame wait for the gateway.
    pub(super) fn put(&mut self, log: &mut Log, frame: &[u8]) {
        log.note("frame", frame);
        append(&mut self.batch, frame);
        self.waiting += 1;
    }

    /// Gives the gateway what waits, at its next turn; what it sends is looked at.
    pub(super) fn turn(&mut self, dice: &mut Dice) -> &[u8] {
        self.now += dice.pause();
        self.queue.push(&self.batch, self.waiting);
        self.batch.clear();
        self.waiting = 0;
        self.gateway.receive(&mut self.queue, self.now);
        assert!(self.queue.is_empty(), "something still waits");
        self.gateway.poll(self.now);
        self.sent.clear();
        self.sent.append(self.gateway.sent());
        each(&self.sent, check);
        &self.sent
    }

    /// The gateway goes on as if nothing had happened.
    pub(super) fn still_answers(mut self, dice: &mut Dice, log: &mut Log) {
        self.turn(dice);
        self.put(log, &echo());
        let answers = self.turn(dice);
        let mut answered = false;
        each(answers, |frame| {
            answered |= frame.get(23) == Some(&ICMP) && frame[30..34] == NODE_ADDRESS.octets();
        });
        assert!(answered, "an echo request gets no answer any more");
    }
}

/// Calls `look` with each of some framed frames.
pub(super) fn each(framed: &[u8], mut look: impl FnMut(&[u8])) {
    let mut at = 0;
    while let Ok(Some(frame)) = first_frame(&framed[at..]) {
        at += LENGTH + frame.len();
        look(frame);
    }
    assert_eq!(
        at,
        framed.len(),
        "what the gateway sends ends in half a frame"
    );
}

/// What the gateway sends is its own, whole, and right.
fn check(frame: &[u8]) {
    assert!(frame.len() >= 14 + 20, "it sent {} octets", frame.len());
    assert_eq!(frame[6..12], GATEWAY_MAC.0, "it sent in another's name");
    let packet = &frame[14..];
    match [frame[12], frame[13]] {
        [0x08, 0x06] => assert_eq!(packet.len(), 28, "ARP of another length"),
        [0x08, 0x00] => check_packet(packet),
        kind => assert_eq!(kind, [0x08, 0x00], "a frame of another kind"),
    }
}

fn check_packet(packet: &[u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    assert_eq!(packet[0], 0x45, "an IP header of another length");
    assert_eq!(total, packet.len(), "the IP header says another length");
    assert_eq!(fold(add(&packet[..header])), 0, "the IP header's checksum");
    let address =
        |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let carried = Carried {
        source: address(12),
        destination: address(16),
        protocol: packet[9],
        sum_at: 0,
    };
    let payload = &packet[header..];
    let known = [ICMP, TCP, UDP].contains(&carried.protocol);
    assert!(known, "it sent protocol {}", carried.protocol);
    let sum = fold(add(payload) + pseudo_header(&carried, payload.len()));
    assert_eq!(sum, 0, "the checksum of protocol {}", carried.protocol);
    if carried.protocol == TCP && carried.source == OUTSIDE {
        check_client(payload, carried.destination);
    }
}

/// The outside host tells a client its own address.
fn check_client(segment: &[u8], client: Ipv4Addr) {
    let data = segment
        .get(usize::from(segment[12] >> 4) * 4..)
        .unwrap_or_default();
    let begins = b"HTTP/1.1 200 OK\r\n";
    let mark = b"{\"client\": \"";
    if data.starts_with(begins)
        && let Some(at) = data.windows(mark.len()).position(|part| part == mark)
    {
        let named = format!("{client}\"}}\n");
        // A client's window may cut the segment anywhere.
        let named = named.as_bytes().starts_with(&data[at + mark.len()..]);
        assert!(named, "{client} is told that it is somebody else");
    }
}

fn echo() -> Vec<u8> {
    let mut frame = [&GATEWAY_MAC.0[..], &NODE.0, &[0x08, 0x00]].concat();
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, ICMP, 0, 0]);
    frame.extend(NODE_ADDRESS.octets());
    frame.extend(super::frames::GATEWAY.octets());
    let sum = fold(add(&frame[14..]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    frame
}

/// A case of frames that know nothing of each other.
pub(super) fn play(dice: &mut Dice, log: &mut Log, make: Make) {
    let mut subject = Subject::new(dice);
    let mut frame = Vec::new();
    while !log.is_full() {
        for _ in 0..=dice.below(TOGETHER) {
            make(dice, &mut frame);
            subject.put(log, &frame);
        }
        subject.turn(dice);
    }
    subject.still_answers(dice, log);
}
