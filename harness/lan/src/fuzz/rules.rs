//! The switch with rules: any rules, set, merged and healed between any frames.
//!
//! Each frame ends with its number and a seal over all before. Whatever the rules are, what goes on is
//! whole, all that a rule saw is accounted for, and nothing waits whose time has come.

use std::collections::HashMap;

use super::case::Log;
use super::dice::Dice;
use super::machines::{Act, LIMIT, Machines, NAMES, PORTS};
use crate::framing::append;
use crate::mac_table::AGEING;
use crate::rules::filter::{AddressFilter, Check};
use crate::rules::report::Realised;
use crate::rules::rule::{Impairment, Packets, Protocol, Rule, Selector};
use crate::rules::{Headers, Mode};
use crate::switch::Switch;
use crate::{Ipv4Net, LanError};

/// A frame's number and its seal.
const MARK: usize = 8;

/// What may happen in a case.
struct Kind {
    /// Frames are changed on their way.
    corrupts: bool,
    /// The rules are set before the first frame, and none changes the order of a flow.
    steady: bool,
}

struct Subject {
    machines: Machines,
    marks: Marks,
}

/// What is known of the frames, by their numbers.
struct Marks {
    kind: Kind,
    /// Who sent each.
    senders: Vec<usize>,
    /// How often each came, by port and number.
    came: HashMap<(usize, u32), u32>,
    /// The last of each flow, by the ports that it goes between.
    last: HashMap<(usize, usize, u64), u32>,
}

pub(super) fn play(dice: &mut Dice, log: &mut Log) {
    let kind = Kind {
        corrupts: dice.one_in(4),
        steady: dice.one_in(2),
    };
    let mut subject = Subject {
        machines: Machines::new(Switch::new(LIMIT, false, None), AGEING),
        marks: Marks {
            kind,
            senders: Vec::new(),
            came: HashMap::new(),
            last: HashMap::new(),
        },
    };
    for _ in 0..dice.below(4) {
        subject.set(dice, log);
    }
    let mut batch = Vec::new();
    while !log.is_full() {
        subject.machines.now += dice.pause();
        let port = dice.below(PORTS);
        batch.clear();
        for _ in 0..dice.below(6) {
            let frame = subject.frame(dice, port);
            append(&mut batch, &frame);
        }
        log.note(NAMES[port], &batch);
        let Machines { switch, now, .. } = &mut subject.machines;
        let taken = switch.ingress(port, &batch, *now);
        assert_eq!(taken, Ok(batch.len()), "whole frames are left");
        switch.send_due(*now);
        subject.look();
        if !subject.marks.kind.steady {
            subject.meddle(dice, log);
        }
        let (reader, most) = (dice.below(PORTS), dice.below(9000));
        let Subject { machines, marks } = &mut subject;
        machines.drain(reader, most, |frame| marks.check(reader, frame));
    }
    subject.end(dice, log);
}

impl Subject {
    fn frame(&mut self, dice: &mut Dice, from: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        for _ in 0..2 {
            let last = dice.pick(&[0, 1, 2, 3, 0xff]);
            frame.extend([if last == 0xff { 0xff } else { 0x52 }, 0x54, 0, 0, 1, last]);
        }
        frame.extend(dice.pick(&[
            [8, 0],
            [8, 0],
            [8, 6],
            [0x86, 0xdd],
            [0x81, 0],
            [0x88, 0xb5],
        ]));
        let size = dice.pick(&[0, 20, 60, 200, 1500, 9000]);
        if dice.percent(80) {
            let length = u16::try_from(20 + 8 + size + MARK).unwrap_or(u16::MAX);
            let length = if dice.one_in(8) { dice.short() } else { length };
            let fragment = if dice.one_in(8) { 0x20 } else { 0 };
            let protocol = dice.pick(&[1, 4, 6, 17]);
            frame.extend([0x45, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([0, 0, fragment, 0, 64, protocol, 0, 0]);
            for _ in 0..2 {
                frame.extend([10, 1, dice.pick(&[1, 2]), 3]);
            }
            for _ in 0..2 {
                frame.extend(dice.pick(&[80_u16, 4789, 40_000]).to_be_bytes());
            }
            frame.extend([0; 4]);
        }
        dice.some_octets(&mut frame, size);
        let number = u32::try_from(self.marks.senders.len()).unwrap_or(u32::MAX);
        self.marks.senders.push(from);
        frame.extend(number.to_be_bytes());
        let seal = sum(&frame);
        frame.extend(seal.to_be_bytes());
        frame
    }

    /// Sets a rule or a filter; one that makes no sense changes nothing.
    fn set(&mut self, dice: &mut Dice, log: &mut Log) {
        let before = self.machines.switch.rules();
        let refused = if dice.one_in(5) {
            log.note("filter", &[]);
            let filter = AddressFilter {
                port: dice.pick(&NAMES).to_owned(),
                own: vec![net(dice)],
                check: dice.pick(&[Check::Source, Check::Destination, Check::Both]),
            };
            self.machines.switch.set_filter(filter).err()
        } else {
            log.note("rule", &[]);
            let rule = self.rule(dice);
            let makes_sense = rule.check().is_ok();
            let mode = dice.pick(&[Mode::Add, Mode::Merge]);
            let refused = self.machines.switch.set_rules(&[rule], mode).err();
            let right = mode == Mode::Merge || makes_sense == refused.is_none();
            assert!(right, "{refused:?}");
            refused
        };
        if let Some(error) = refused {
            assert!(matches!(error, LanError::Rule(_)), "{error}");
            assert_eq!(
                self.machines.switch.rules(),
                before,
                "what is refused changes things"
            );
        }
    }

    fn rule(&self, dice: &mut Dice) -> Rule {
        let port = |dice: &mut Dice| dice.percent(60).then(|| dice.pick(&NAMES).to_owned());
        let packets = Packets {
            source: dice.one_in(4).then(|| net(dice)),
            destination: dice.one_in(4).then(|| net(dice)),
            protocol: dice.one_in(4).then(|| dice.pick(&Protocol::ALL)),
            source_port: dice.one_in(8).then_some(80),
            destination_port: dice.one_in(8).then_some(80),
        };
        let share = |dice: &mut Dice| dice.pick(&["0%", "1%", "30%", "100%"]).parse().ok();
        let free = !self.marks.kind.steady;
        let impairment = Impairment {
            cut: dice.one_in(16),
            hole: dice.one_in(4).then(|| dice.pick(&[0, 100, 1400])),
            delay: dice
                .one_in(2)
                .then(|| dice.pick(&["0us", "300us", "40ms", "20s"]).parse().ok())
                .flatten(),
            jitter: dice
                .one_in(3)
                .then(|| dice.pick(&["200us", "30ms"]).parse().ok())
                .flatten(),
            reorder: free && dice.one_in(4),
            loss: dice.one_in(3).then(|| share(dice)).flatten(),
            burst: dice.one_in(4).then(|| dice.pick(&[0, 1, 4])),
            duplicate: (free && dice.one_in(4)).then(|| share(dice)).flatten(),
            corrupt: (self.marks.kind.corrupts && dice.one_in(2))
                .then(|| share(dice))
                .flatten(),
            rate: dice
                .one_in(4)
                .then(|| dice.pick(&["0bit", "9600bit", "100mbit"]).parse().ok())
                .flatten(),
            queue: dice
                .one_in(4)
                .then(|| dice.pick(&["0b", "3000b", "1mb"]).parse().ok())
                .flatten(),
            seed: dice.one_in(2).then(|| dice.word()),
        };
        Rule {
            selector: Selector {
                from: port(dice),
                to: port(dice),
                packets,
            },
            impairment,
        }
    }

    /// What a person or a scenario does meanwhile.
    fn meddle(&mut self, dice: &mut Dice, log: &mut Log) {
        match dice.below(32) {
            0..=2 => self.set(dice, log),
            3 | 4 => self.heal(dice, log),
            5 => self.machines.act(Act::Hold, log),
            6 | 7 => self.machines.act(Act::Release, log),
            8 => self.machines.act(Act::Plug(dice.below(PORTS)), log),
            9 => self.machines.act(Act::Thaw, log),
            _ => {}
        }
    }

    fn heal(&mut self, dice: &mut Dice, log: &mut Log) {
        log.note("heal", &[]);
        let report = self.machines.switch.rules();
        if let Some(rule) = report.rules.get(dice.below(report.rules.len())) {
            assert!(self.machines.switch.heal(rule.id), "a rule is not there");
            assert!(
                !self.machines.switch.heal(rule.id),
                "a healed rule is there"
            );
        }
        let removed = self.machines.switch.remove_filter(dice.pick(&NAMES));
        assert!(removed.is_ok(), "{removed:?}");
    }

    /// What must hold at any time.
    fn look(&self) {
        let due = self.machines.switch.first_due();
        assert!(
            due.is_none_or(|due| due > self.machines.now),
            "a frame waits on"
        );
        for rule in self.machines.switch.rules().rules {
            let it = rule.realised;
            assert!(
                accounted(&it),
                "{} does not add up: {it:?}",
                rule.rule.selector
            );
        }
    }

    fn end(mut self, dice: &mut Dice, log: &mut Log) {
        self.machines.switch.release(self.machines.now);
        self.look();
        while !self.machines.switch.rules().rules.is_empty() {
            self.heal(dice, log);
        }
        let due = self.machines.switch.first_due();
        assert_eq!(due, None, "a frame waits for nothing");
        let Subject {
            mut machines,
            mut marks,
        } = self;
        for port in 0..PORTS {
            machines.drain_to_the_end(port, |frame| marks.check(port, frame));
        }
    }
}

impl Marks {
    /// A frame that left a port.
    fn check(&mut self, port: usize, frame: &[u8]) {
        if self.kind.corrupts {
            return;
        }
        let marked = frame.split_last_chunk::<MARK>();
        assert!(marked.is_some(), "port {port} gets {} octets", frame.len());
        let Some((_, &[a, b, c, d, e, f, g, h])) = marked else {
            return;
        };
        let number = u32::from_be_bytes([a, b, c, d]);
        let whole = sum(&frame[..frame.len() - 4]).to_be_bytes() == [e, f, g, h];
        assert!(whole, "port {port} gets another frame than was sent");
        let sender = self.senders[number as usize];
        assert_ne!(sender, port, "port {port} gets its own");
        let came = self.came.entry((port, number)).or_default();
        *came += 1;
        let most = if self.kind.steady { 1 } else { 2 };
        assert!(*came <= most, "number {number} comes {came} times");
        if self.kind.steady {
            let flow = (sender, port, Headers::of(frame).flow());
            let last = self.last.insert(flow, number);
            assert!(
                last.is_none_or(|last| last < number),
                "{number} is overtaken"
            );
        }
    }
}

fn accounted(it: &Realised) -> bool {
    it.seen + it.duplicated
        == it.cut + it.holes + it.lost + it.overflowed + it.no_room + it.passed + it.waiting
}

fn net(dice: &mut Dice) -> Ipv4Net {
    Ipv4Net {
        address: [10, 1, dice.pick(&[1, 2]), 0].into(),
        prefix: dice.pick(&[0, 24]),
    }
}

fn sum(octets: &[u8]) -> u32 {
    octets.iter().fold(1, |sum: u32, octet| {
        (sum ^ u32::from(*octet)).wrapping_mul(0x0100_0193)
    })
}
