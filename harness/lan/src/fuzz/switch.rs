//! The switch: streams cut anywhere, and a segment that is held and released, frozen and thawed.
//!
//! Each frame says who sent it and its number, and is sealed: what leaves a port must be whole, from
//! another port, and in order.

use super::case::Log;
use super::dice::Dice;
use super::machines::{Act, LIMIT, Machines, NAMES, PORTS};
use crate::capture::Capture;
use crate::frame::HEADER;
use crate::framing::{FrameBuffer, LENGTH, MAX_FRAME, append};
use crate::mac_table::AGEING;
use crate::switch::Switch;

/// Octets of a frame's mark: the port it came from, its number, its seal.
const MARK: usize = 1 + 4 + 4;

struct Subject {
    machines: Machines,
    ports: [Port; PORTS],
}

#[derive(Default)]
struct Port {
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
        Subject {
            machines: Machines::new(Switch::new(LIMIT, held, capture), now),
            ports: Default::default(),
        }
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

    fn drain(&mut self, port: usize, most: usize) {
        let last = &mut self.ports[port].last;
        let each = |frame: &[u8]| check(port, frame, last);
        self.machines.drain(port, most, each);
    }

    fn end(mut self) {
        self.machines.switch.release(self.machines.now);
        for (port, of) in self.ports.iter_mut().enumerate() {
            let each = |frame: &[u8]| check(port, frame, &mut of.last);
            self.machines.drain_to_the_end(port, each);
        }
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
        subject.machines.now += dice.pause();
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
        let Machines { switch, now, .. } = &mut subject.machines;
        match switch.ingress(port, inputs[port].bytes(), *now) {
            Ok(taken) => inputs[port].consume(taken),
            Err(oversized) => {
                assert!(oversized.length as usize > MAX_FRAME, "{oversized:?}");
                subject.machines.plug(port);
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
        subject.machines.now += dice.pause();
        let port = dice.below(PORTS);
        batch.clear();
        for _ in 0..dice.below(6) {
            subject.frame(dice, port, &mut frame);
            append(&mut batch, &frame);
        }
        log.note(NAMES[port], &batch);
        let Machines { switch, now, .. } = &mut subject.machines;
        let taken = switch.ingress(port, &batch, *now);
        assert_eq!(taken, Ok(batch.len()), "whole frames are left");
        let mut act = |act| subject.machines.act(act, log);
        match dice.below(32) {
            0..=3 => act(Act::Hold),
            4 | 5 => act(Act::Release),
            6 => act(Act::Plug(port)),
            7 => act(Act::Thaw),
            8..=15 => subject.drain(port, dice.below(2000)),
            _ => {}
        }
    }
    subject.end();
}
