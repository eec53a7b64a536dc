//! The switch: streams cut anywhere, and a segment that is held and released, frozen and thawed.
//!
//! Each frame says who sent it and its number, and is sealed: what leaves a port must be whole, from
//! another port, and in order.

use std::time::Duration;

use super::case::Log;
use super::dice::Dice;
use crate::capture::Capture;
use crate::frame::HEADER;
use crate::framing::{FrameBuffer, LENGTH, MAX_FRAME, append, first_frame};
use crate::mac_table::AGEING;
use crate::switch::Switch;

const PORTS: usize = 4;
const NAMES: [&str; PORTS] = ["port0", "port1", "port2", "port3"];

/// Octets that wait for a port at most: so few that some are lost.
const LIMIT: usize = 2 * MAX_FRAME;

/// Octets of a frame's mark: the port it came from, its number, its seal.
const MARK: usize = 1 + 4 + 4;

struct Subject {
    switch: Switch,
    now: Duration,
    ports: [Port; PORTS],
}

#[derive(Default)]
struct Port {
    /// Octets that left, the part of a frame.
    out: Vec<u8>,
    /// How many frames it sent.
    sent: u32,
    /// The last that came from each port.
    last: [Option<u32>; PORTS],
}

impl Subject {
    fn new(dice: &mut Dice, held: bool) -> Self {
        let now = AGEING + dice.pause();
        let capture = dice
            .one_in(4)
            .then(|| Capture::new("never written".into(), now));
        let mut subject = Subject {
            switch: Switch::new(LIMIT, held, capture),
            now,
            ports: Default::default(),
        };
        for name in NAMES {
            let port = subject.switch.port(name);
            subject.switch.attach(port);
        }
        subject
    }

    /// A frame of a port's.
    fn frame(&mut self, dice: &mut Dice, from: usize, out: &mut Vec<u8>) {
        out.clear();
        let size = match dice.below(2048) {
            0 => MAX_FRAME - HEADER - MARK,
            1..=9 => 9000,
            _ => 60,
        };
        for _ in 0..2 {
            let last = dice.pick(&[0, 1, 2, 3, 4, 5, 0xff]);
            out.extend([if last == 0xff { 0xff } else { 0x52 }, 0x54, 0, 0, 1, last]);
        }
        if dice.one_in(64) {
            let count = dice.below(out.len() + 2);
            out.truncate(count);
            return;
        }
        out.extend([0x88, 0xb5]);
        let number = self.ports[from].sent;
        self.ports[from].sent += 1;
        out.push(u8::try_from(from).unwrap_or(u8::MAX));
        out.extend(number.to_be_bytes());
        let seal = out.len();
        out.extend([0; 4]);
        dice.some_octets(out, size);
        let sum = sum(&out[seal + 4..]);
        out[seal..seal + 4].copy_from_slice(&sum.to_be_bytes());
    }

    /// A port's machine reads so much at most.
    fn drain(&mut self, port: usize, most: usize) {
        let queue = self.switch.queue(port);
        let mut left = most;
        let before = self.ports[port].out.len();
        for slice in queue.slices() {
            let count = slice.len().min(left);
            self.ports[port].out.extend_from_slice(&slice[..count]);
            left -= count;
        }
        queue.consume(self.ports[port].out.len() - before);
        let Port { out, last, .. } = &mut self.ports[port];
        let mut at = 0;
        loop {
            let frame = first_frame(&out[at..]);
            assert!(frame.is_ok(), "port {port} gets a length that no frame has");
            let Ok(Some(frame)) = frame else { break };
            at += LENGTH + frame.len();
            check(port, frame, last);
        }
        out.drain(..at);
    }

    fn end(mut self) {
        self.switch.release(self.now);
        for port in 0..PORTS {
            self.drain(port, usize::MAX);
            let whole = self.ports[port].out.is_empty();
            assert!(whole, "port {port} gets half a frame");
        }
    }

    /// A machine goes, with what it has read in part, and comes again.
    fn plug(&mut self, port: usize) {
        self.switch.detach(port);
        self.switch.attach(port);
        self.ports[port].out.clear();
    }

    /// The segment goes on as another with its state, which has the same state.
    fn thaw(&mut self) {
        let state = self.switch.state(self.now);
        let mut thawed = Switch::new(LIMIT, true, None);
        thawed.restore(state.clone(), self.now);
        assert_eq!(thawed.state(self.now), state, "a state does not come back");
        for port in 0..PORTS {
            thawed.attach(port);
            self.ports[port].out.clear();
        }
        self.switch = thawed;
    }
}

/// A frame that left a port.
fn check(port: usize, frame: &[u8], last: &mut [Option<u32>; PORTS]) {
    let mark = frame.get(HEADER..HEADER + MARK);
    assert!(mark.is_some(), "port {port} gets {} octets", frame.len());
    let Some(&[from, a, b, c, d, e, f, g, h]) = mark else {
        return;
    };
    let number = u32::from_be_bytes([a, b, c, d]);
    let whole = sum(&frame[HEADER + MARK..]).to_be_bytes() == [e, f, g, h];
    assert!(whole, "port {port} gets another frame than was sent");
    let from = usize::from(from);
    assert_ne!(from, port, "port {port} gets what it sent");
    let in_order = last[from].is_none_or(|last| last < number);
    assert!(in_order, "port {port} gets number {number} late, or twice");
    last[from] = Some(number);
}

fn sum(octets: &[u8]) -> u32 {
    let (words, rest) = octets.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_ne_bytes(*word));
    let rest = rest.iter().map(|octet| u64::from(*octet));
    let sum = words.chain(rest).fold(1u64, |sum, word| {
        (sum ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    });
    u32::try_from(sum >> 32).unwrap_or(0)
}

/// A case of writes: any part of a port's stream at a time.
pub(super) fn framing(dice: &mut Dice, log: &mut Log) {
    let mut subject = Subject::new(dice, false);
    let mut inputs: [FrameBuffer; PORTS] = std::array::from_fn(|_| FrameBuffer::new());
    let mut streams: [Vec<u8>; PORTS] = Default::default();
    let mut frame = Vec::new();
    while !log.is_full() {
        subject.now += dice.pause();
        let port = dice.below(PORTS);
        for _ in 0..dice.below(4) {
            subject.frame(dice, port, &mut frame);
            append(&mut streams[port], &frame);
        }
        if dice.one_in(64) {
            // A length that no frame has. One that some frame has would cut the sealed frames behind it
            // anew, and nobody could say of the pieces whether they are what was sent.
            streams[port].push(0x80);
            dice.octets(&mut streams[port], LENGTH - 1);
        }
        let stream = &mut streams[port];
        let room = inputs[port].room();
        let most = stream.len().min(room.len());
        let count = if dice.percent(50) {
            most
        } else {
            dice.below(most + 1)
        };
        room[..count].copy_from_slice(&stream[..count]);
        inputs[port].grow(count);
        log.note(NAMES[port], &stream[..count]);
        stream.drain(..count);
        match subject
            .switch
            .ingress(port, inputs[port].bytes(), subject.now)
        {
            Ok(taken) => inputs[port].consume(taken),
            Err(oversized) => {
                assert!(oversized.length as usize > MAX_FRAME, "{oversized:?}");
                subject.plug(port);
                inputs[port] = FrameBuffer::new();
                streams[port].clear();
            }
        }
        let (reader, most) = (dice.below(PORTS), dice.below(2000));
        subject.drain(reader, most);
    }
    subject.end();
}

/// A case of batches of whole frames, while the segment is held and released.
pub(super) fn held(dice: &mut Dice, log: &mut Log) {
    let mut subject = Subject::new(dice, true);
    let (mut frame, mut batch) = (Vec::new(), Vec::new());
    while !log.is_full() {
        subject.now += dice.pause();
        let port = dice.below(PORTS);
        batch.clear();
        for _ in 0..dice.below(6) {
            subject.frame(dice, port, &mut frame);
            append(&mut batch, &frame);
        }
        log.note(NAMES[port], &batch);
        let taken = subject.switch.ingress(port, &batch, subject.now);
        assert_eq!(taken, Ok(batch.len()), "whole frames are left");
        match dice.below(32) {
            0..=3 => {
                log.note("hold", &[]);
                subject.switch.hold();
            }
            4 | 5 => {
                log.note("release", &[]);
                subject.switch.release(subject.now);
            }
            6 => {
                log.note("plug", &[]);
                subject.plug(port);
            }
            7 => {
                log.note("thaw", &[]);
                subject.thaw();
            }
            8..=15 => subject.drain(port, dice.below(2000)),
            _ => {}
        }
    }
    subject.end();
}
