//! The learning switch as a value: frames in, frames in queues out, no descriptors.
//!
//! It is a bridge in the sense of IEEE 802.1D-2004 clause 7, without spanning tree and without VLAN
//! filtering: a tag is payload to it, and stations are learned by address alone. It may carry several
//! segments and keeps them apart, as a real one does with a VLAN for each and untagged ports: each
//! port is on one, each segment learns its own stations, and no frame goes from one to another.

mod by_rules;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capture::Capture;
use crate::frame::{ADDRESSES, HEADER, addresses};
use crate::framing::{LENGTH, Oversized, append, first_frame};
use crate::label::{Label, SegmentNumber};
use crate::mac_table::MacTable;
use crate::queue::SendQueue;
use crate::rules::{self, Rules};
use crate::state::{HeldFrame, LearnedMac, PortState, SegmentState};
use crate::tap::Taps;
use crate::witness::notes::{Fate, Lost, Notes};

/// What went through a port since the segment started. "In" is from the machine to the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// The port's name; the gateway's is `gateway`.
    pub name: String,
    /// Frames the machine sent.
    pub frames_in: u64,
    /// Octets of these, without their lengths.
    pub bytes_in: u64,
    /// Frames queued for the machine.
    pub frames_out: u64,
    /// Octets of these, without their lengths.
    pub bytes_out: u64,
    /// Frames lost at this port.
    pub dropped: Drops,
}

/// Frames lost at a port, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// For the machine, which does not read fast enough.
    pub queue_full: u64,
    /// From the machine, beyond what a held segment stores.
    pub held_full: u64,
    /// From the machine, which its address filter did not let in.
    pub filtered: u64,
    /// For a machine that is not attached.
    pub detached: u64,
    /// From the machine, too short to have addresses.
    pub runt: u64,
    /// Lengths from the machine that no frame has; each ended the connection.
    pub oversized: u64,
}

#[derive(Debug)]
struct Port {
    /// The index of the segment that it is on.
    segment: usize,
    attached: bool,
    queue: SendQueue,
    /// What this port's frames in [`Switch::held`] cost, see [`held_cost`].
    held: usize,
    counters: PortCounters,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    To(usize),
    Flood,
    /// The destination is behind the port the frame came from.
    Filter,
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::To(port) => Self::To(port),
            Verdict::Flood => Self::Flood,
            Verdict::Filter => Self::Nowhere,
        }
    }
}

/// Consecutive frames of a batch for one port: they are copied at once.
#[derive(Debug, Clone, Copy)]
struct Run {
    to: usize,
    start: usize,
    count: u64,
    /// The first one's number, where the segment is watched.
    first: u64,
}

#[derive(Debug)]
pub(crate) struct Switch {
    ports: Vec<Port>,
    /// Of each segment.
    stations: Vec<MacTable>,
    queue_limit: usize,
    /// While the segment is held: what ports sent, in order.
    held: Option<VecDeque<(usize, Vec<u8>)>>,
    capture: Option<Capture>,
    taps: Taps,
    rules: Rules,
    /// Framed frames on their way from the rules to a queue; kept for its memory.
    passed: Vec<u8>,
    notes: Option<Notes>,
}

impl Switch {
    pub(crate) fn new(queue_limit: usize, held: bool, capture: Option<Capture>) -> Self {
        Switch {
            ports: Vec::new(),
            stations: vec![MacTable::default()],
            queue_limit,
            held: held.then(VecDeque::new),
            capture,
            taps: Taps::default(),
            rules: Rules::new(rules::LIMIT),
            passed: Vec::new(),
            notes: None,
        }
    }

    /// The same with so many segments, at least one.
    pub(crate) fn with_segments(mut self, count: usize) -> Self {
        self.stations.resize_with(count, MacTable::default);
        self
    }

    /// Notes from now on what it sees.
    pub(crate) fn watch(&mut self) {
        self.notes = Some(Notes::default());
    }

    pub(crate) fn notes(&mut self) -> Option<&mut Notes> {
        self.notes.as_mut()
    }

    /// The port of that name; it is made on the first segment if there is none.
    pub(crate) fn port(&mut self, name: &str) -> usize {
        self.port_on(0, name)
    }

    /// The port of that name; it is made on that segment if there is none.
    pub(crate) fn port_on(&mut self, segment: usize, name: &str) -> usize {
        if let Some(port) = self.find(name) {
            return port;
        }
        self.taps.port_added(&self.label(segment, name));
        self.ports.push(Port {
            segment,
            attached: false,
            queue: SendQueue::new(self.queue_limit),
            held: 0,
            counters: PortCounters {
                name: name.to_owned(),
                ..PortCounters::default()
            },
        });
        self.ports.len() - 1
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.ports
            .iter()
            .position(|port| port.counters.name == name)
    }

    pub(crate) fn ports(&self) -> usize {
        self.ports.len()
    }

    fn label(&self, segment: usize, name: &str) -> Label {
        let several = self.stations.len() > 1;
        Label {
            name: name.to_owned(),
            segment: several.then(|| SegmentNumber::of_index(segment)),
        }
    }

    /// What the ports are called, by number.
    pub(crate) fn labels(&self) -> Vec<Label> {
        let ports = self.ports.iter();
        ports
            .map(|port| self.label(port.segment, &port.counters.name))
            .collect()
    }

    pub(crate) fn segments(&self) -> usize {
        self.stations.len()
    }

    /// The segment that a port is on.
    pub(crate) fn segment_of(&self, port: usize) -> usize {
        self.ports[port].segment
    }

    /// Whether what a port sends to everybody is for this one.
    fn is_flooded(&self, from: usize, to: usize) -> bool {
        to != from && self.ports[to].segment == self.ports[from].segment
    }

    pub(crate) fn is_attached(&self, port: usize) -> bool {
        self.ports[port].attached
    }

    pub(crate) fn attach(&mut self, port: usize) {
        self.ports[port].attached = true;
    }

    /// The machine is gone: what waited for it is lost, and its stations may come back elsewhere.
    pub(crate) fn detach(&mut self, port: usize) {
        for stations in &mut self.stations {
            stations.forget_port(port);
        }
        let port = &mut self.ports[port];
        port.attached = false;
        port.counters.dropped.detached += port.queue.take().len() as u64;
    }

    pub(crate) fn queue(&mut self, port: usize) -> &mut SendQueue {
        &mut self.ports[port].queue
    }

    pub(crate) fn count_oversized(&mut self, port: usize) {
        self.ports[port].counters.dropped.oversized += 1;
    }

    pub(crate) fn counters(&self) -> Vec<PortCounters> {
        self.ports
            .iter()
            .map(|port| port.counters.clone())
            .collect()
    }

    pub(crate) fn capture(&self) -> Option<&Capture> {
        self.capture.as_ref()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(crate) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Switches what was held, in order, and everything from now on. Delayed frames whose time came
    /// meanwhile were sent earlier, and go first.
    pub(crate) fn release(&mut self, now: Duration) {
        let mut batch = Vec::new();
        let held = self.held.take().unwrap_or_default();
        self.send_due(now);
        for (from, frame) in held {
            self.ports[from].held -= held_cost(&frame);
            batch.clear();
            append(&mut batch, &frame);
            // A held frame has passed the length check when it came in.
            let _ = self.ingress(from, &batch, now);
        }
    }

    /// Takes the complete frames of `batch` (framed, from port `from`) and says how many octets
    /// they were.
    pub(crate) fn ingress(
        &mut self,
        from: usize,
        batch: &[u8],
        now: Duration,
    ) -> Result<usize, Oversized> {
        if self.held.is_some() {
            return self.hold_back(from, batch);
        }
        if !self.rules.is_idle() {
            return self.ingress_by_rules(from, batch, now);
        }
        let (mut at, mut frames, mut bytes) = (0, 0, 0);
        let mut run: Option<Run> = None;
        // Frames come in trains between the same two stations: one look at the table serves all.
        let mut previous: (&[u8], Verdict) = (&[], Verdict::Filter);
        let end = loop {
            let frame = match first_frame(&batch[at..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(at),
                Err(oversized) => break Err(oversized),
            };
            let start = at;
            at += LENGTH + frame.len();
            frames += 1;
            bytes += frame.len() as u64;
            if let Some(capture) = &mut self.capture {
                capture.record(from, frame, now);
            }
            self.taps.entered(from, frame);
            let verdict = match frame.get(..HEADER).map(|header| &header[..ADDRESSES]) {
                Some(header) if header == previous.0 => previous.1,
                header => {
                    let verdict = self.judge(from, frame, now);
                    previous = (header.unwrap_or_default(), verdict);
                    verdict
                }
            };
            let number = self.note(from, frame, verdict.into(), now);
            match (verdict, &mut run) {
                (Verdict::To(port), Some(run)) if run.to == port => run.count += 1,
                (verdict, _) => {
                    self.send(run.take(), batch, start);
                    match verdict {
                        Verdict::To(to) => {
                            run = Some(Run {
                                to,
                                start,
                                count: 1,
                                first: number,
                            })
                        }
                        Verdict::Flood => {
                            for to in 0..self.ports.len() {
                                if self.is_flooded(from, to) {
                                    let run = Run {
                                        to,
                                        start,
                                        count: 1,
                                        first: number,
                                    };
                                    self.send(Some(run), batch, at);
                                }
                            }
                        }
                        Verdict::Filter => {}
                    }
                }
            }
        };
        self.send(run, batch, at);
        let counters = &mut self.ports[from].counters;
        counters.frames_in += frames;
        counters.bytes_in += bytes;
        end
    }

    fn judge(&mut self, from: usize, frame: &[u8], now: Duration) -> Verdict {
        let Some((destination, source)) = addresses(frame) else {
            self.ports[from].counters.dropped.runt += 1;
            return Verdict::Filter;
        };
        let stations = &mut self.stations[self.ports[from].segment];
        stations.learn(source, from, now);
        if destination.is_group() {
            return Verdict::Flood;
        }
        match stations.lookup(destination, now) {
            None => Verdict::Flood,
            Some(port) if port == from => Verdict::Filter,
            Some(port) => Verdict::To(port),
        }
    }

    fn send(&mut self, run: Option<Run>, batch: &[u8], end: usize) {
        let Some(run) = run else {
            return;
        };
        let (kept, why) = self.enqueue(run, &batch[run.start..end]);
        if let Some(notes) = &mut self.notes {
            // The later ones of a run are those that are lost.
            notes.lost(run.first + kept, run.count - kept, run.to, why);
        }
    }

    /// Says how many of a run's frames its port has taken, and why it took no more.
    fn enqueue(&mut self, run: Run, frames: &[u8]) -> (u64, Lost) {
        let port = &mut self.ports[run.to];
        let dropped = &mut port.counters.dropped;
        if !port.attached {
            dropped.detached += run.count;
            return (0, Lost::Detached);
        }
        let pushed = port.queue.push(frames, run.count);
        self.taps.left(run.to, frames, pushed.frames);
        dropped.queue_full += pushed.dropped;
        port.counters.frames_out += pushed.frames;
        port.counters.bytes_out += pushed.bytes;
        (pushed.frames, Lost::QueueFull)
    }

    /// Notes a frame where the segment is watched, and gives its number.
    fn note(&mut self, from: usize, frame: &[u8], fate: Fate, now: Duration) -> u64 {
        let ports = self.ports.len();
        let notes = self.notes.as_mut();
        notes.map_or(0, |notes| notes.saw((from, ports), frame, fate, now))
    }

    fn hold_back(&mut self, from: usize, batch: &[u8]) -> Result<usize, Oversized> {
        let mut at = 0;
        while let Some(frame) = first_frame(&batch[at..])? {
            at += LENGTH + frame.len();
            self.hold_frame(from, frame.to_vec());
        }
        Ok(at)
    }

    fn hold_frame(&mut self, from: usize, frame: Vec<u8>) {
        let port = &mut self.ports[from];
        let cost = held_cost(&frame);
        if port.held + cost > self.queue_limit {
            port.counters.dropped.held_full += 1;
            return;
        }
        port.held += cost;
        self.held.get_or_insert_default().push_back((from, frame));
    }

    /// The whole switch as data.
    pub(crate) fn state(&self, now: Duration) -> SegmentState {
        let name = |port: usize| self.ports[port].counters.name.clone();
        SegmentState {
            ports: self
                .ports
                .iter()
                .map(|port| PortState {
                    name: port.counters.name.clone(),
                    segment: port.segment,
                })
                .collect(),
            stations: self
                .stations
                .iter()
                .flat_map(|stations| stations.entries(now))
                .map(|(mac, port, age)| LearnedMac {
                    mac,
                    port: name(port),
                    age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                })
                .collect(),
            held: self
                .held
                .iter()
                .flatten()
                .map(|(from, frame)| HeldFrame {
                    port: name(*from),
                    frame: frame.clone(),
                })
                .collect(),
            queued: (0..self.ports.len())
                .flat_map(|port| {
                    let queued = self.ports[port].queue.frames().into_iter();
                    let delayed = self.rules.delayed_for(port).map(<[u8]>::to_vec);
                    queued.chain(delayed).map(move |frame| (port, frame))
                })
                .map(|(port, frame)| HeldFrame {
                    port: name(port),
                    frame,
                })
                .collect(),
        }
    }

    /// Takes a state into a fresh switch. Its ports wait for their machines.
    pub(crate) fn restore(&mut self, state: SegmentState, now: Duration) {
        for port in &state.ports {
            // Of a state with more segments than the plan has, the rest is on the last.
            let segment = port.segment.min(self.stations.len() - 1);
            self.port_on(segment, &port.name);
        }
        for station in state.stations {
            let port = self.port(&station.port);
            let seen = now.saturating_sub(Duration::from_millis(station.age_ms));
            self.stations[self.ports[port].segment].learn(station.mac, port, seen);
        }
        for held in state.held {
            let port = self.port(&held.port);
            self.hold_frame(port, held.frame);
        }
        let mut framed = Vec::new();
        for queued in state.queued {
            let port = self.port(&queued.port);
            framed.clear();
            append(&mut framed, &queued.frame);
            self.ports[port].queue.restore(&framed);
        }
    }
}

/// Octets that a held frame takes in memory: an empty one is not for nothing.
fn held_cost(frame: &[u8]) -> usize {
    size_of::<(usize, Vec<u8>)>() + frame.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MacAddr;
    use crate::mac_table::AGEING;

    pub(super) const LIMIT: usize = 64 * 1024;
    pub(super) const NOW: Duration = AGEING;

    pub(super) fn station(n: u8) -> MacAddr {
        MacAddr([0x52, 0x54, 0, 0, 1, n])
    }

    pub(super) fn frame(to: MacAddr, from: MacAddr, payload: &[u8]) -> Vec<u8> {
        [&to.0[..], &from.0, &[0x08, 0x00], payload].concat()
    }

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            append(&mut out, frame);
        }
        out
    }

    /// A switch with ports 0, 1, 2, ... and their machines.
    pub(super) fn switch(ports: usize, held: bool) -> Switch {
        let mut switch = Switch::new(LIMIT, held, None);
        for n in 0..ports {
            let port = switch.port(&format!("port{n}"));
            switch.attach(port);
        }
        switch
    }

    pub(super) fn send(switch: &mut Switch, from: usize, frames: &[Vec<u8>]) {
        let batch = framed(frames);
        assert_eq!(switch.ingress(from, &batch, NOW), Ok(batch.len()));
    }

    pub(super) fn received(switch: &mut Switch, port: usize) -> Vec<Vec<u8>> {
        switch.queue(port).take()
    }

    #[test]
    fn an_unknown_station_is_looked_for_everywhere_and_a_known_one_is_not() {
        let mut switch = switch(3, false);
        let question = frame(station(2), station(1), b"where are you");
        send(&mut switch, 1, std::slice::from_ref(&question));
        assert_eq!(received(&mut switch, 0), std::slice::from_ref(&question));
        assert_eq!(received(&mut switch, 1), [] as [Vec<u8>; 0]);
        assert_eq!(received(&mut switch, 2), [question]);
        let answer = frame(station(1), station(2), b"here");
        send(&mut switch, 2, std::slice::from_ref(&answer));
        assert_eq!(received(&mut switch, 0), [] as [Vec<u8>; 0]);
        assert_eq!(received(&mut switch, 1), [answer]);
    }

    #[test]
    fn group_addresses_reach_everybody_but_the_sender() {
        for group in [MacAddr::BROADCAST, MacAddr([0x33, 0x33, 0, 0, 0, 1])] {
            let mut switch = switch(3, false);
            let call = frame(group, station(1), b"all");
            send(&mut switch, 1, std::slice::from_ref(&call));
            let seen: Vec<_> = (0..3)
                .map(|port| received(&mut switch, port).len())
                .collect();
            assert_eq!(seen, [1, 0, 1]);
        }
    }

    #[test]
    fn a_station_that_moves_is_followed() {
        let mut switch = switch(3, false);
        send(
            &mut switch,
            1,
            &[frame(MacAddr::BROADCAST, station(1), b"")],
        );
        send(
            &mut switch,
            2,
            &[frame(MacAddr::BROADCAST, station(1), b"")],
        );
        (0..3).for_each(|port| drop(received(&mut switch, port)));
        send(
            &mut switch,
            0,
            &[frame(station(1), station(9), b"to the new place")],
        );
        assert_eq!(received(&mut switch, 1).len(), 0);
        assert_eq!(received(&mut switch, 2).len(), 1);
    }

    #[test]
    fn a_frame_for_the_port_it_came_from_goes_nowhere() {
        let mut switch = switch(3, false);
        send(
            &mut switch,
            1,
            &[frame(MacAddr::BROADCAST, station(1), b"")],
        );
        (0..3).for_each(|port| drop(received(&mut switch, port)));
        send(&mut switch, 1, &[frame(station(1), station(2), b"")]);
        let seen: usize = (0..3).map(|port| received(&mut switch, port).len()).sum();
        assert_eq!(seen, 0);
    }

    #[test]
    fn tags_and_jumbo_frames_pass_untouched() {
        let mut switch = switch(2, false);
        let header = [&station(2).0[..], &station(1).0].concat();
        let tagged = [&header[..], &[0x81, 0x00, 0x20, 0x64, 0x08, 0x00], &[7; 60]].concat();
        let twice = [
            &header[..],
            &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0],
            &[7; 60],
        ]
        .concat();
        let jumbo = frame(station(2), station(1), &[9; 60_000]);
        let frames = [tagged, twice, jumbo];
        send(&mut switch, 0, &frames);
        assert_eq!(received(&mut switch, 1), frames);
    }

    #[test]
    fn frames_too_short_for_addresses_are_dropped_and_counted() {
        let mut switch = switch(2, false);
        let whole = frame(MacAddr::BROADCAST, station(1), b"whole");
        // Also behind a frame between the same stations.
        let cut = whole[..ADDRESSES].to_vec();
        send(&mut switch, 0, &[vec![], vec![1; 13], whole.clone(), cut]);
        assert_eq!(received(&mut switch, 1), [whole]);
        assert_eq!(switch.counters()[0].dropped.runt, 3);
    }

    #[test]
    fn frames_before_an_impossible_length_are_switched() {
        let mut switch = switch(2, false);
        let mut batch = framed(&[frame(MacAddr::BROADCAST, station(1), b"last words")]);
        batch.extend([0xff; 4]);
        let length = u32::MAX;
        assert_eq!(switch.ingress(0, &batch, NOW), Err(Oversized { length }));
        assert_eq!(received(&mut switch, 1).len(), 1);
    }

    #[test]
    fn a_machine_that_left_is_forgotten() {
        let mut switch = switch(3, false);
        send(
            &mut switch,
            1,
            &[frame(MacAddr::BROADCAST, station(1), b"")],
        );
        switch.detach(1);
        (0..3).for_each(|port| drop(received(&mut switch, port)));
        send(
            &mut switch,
            0,
            &[frame(station(1), station(9), b"anybody there")],
        );
        assert_eq!(switch.counters()[1].dropped.detached, 1);
        assert_eq!(
            received(&mut switch, 2).len(),
            1,
            "its station may be elsewhere now"
        );
    }

    #[test]
    fn a_full_queue_drops_for_its_port_alone() {
        let mut switch = switch(3, false);
        let big = frame(MacAddr::BROADCAST, station(0), &[1; 30_000]);
        for _ in 0..5 {
            send(&mut switch, 0, std::slice::from_ref(&big));
            assert_eq!(received(&mut switch, 2).len(), 1);
        }
        let counters = switch.counters();
        assert_eq!(counters[1].dropped.queue_full, 3);
        assert_eq!(counters[1].frames_out, 2);
        assert_eq!(counters[2].dropped, Drops::default());
        assert_eq!(counters[2].bytes_out, 5 * big.len() as u64);
    }

    #[test]
    fn what_is_held_is_bounded_for_each_port() {
        let mut switch = switch(3, true);
        let big = |n| frame(MacAddr::BROADCAST, station(n), &[n; 30_000]);
        send(&mut switch, 0, &[big(0), big(0), big(0)]);
        send(&mut switch, 1, &[big(1)]);
        assert_eq!(switch.counters()[0].dropped.held_full, 1);
        switch.release(NOW);
        assert_eq!(
            received(&mut switch, 2),
            [big(0), big(0)],
            "the queue holds two"
        );
        assert_eq!(received(&mut switch, 0), [big(1)]);
        send(&mut switch, 0, &[big(0), big(0)]);
        assert_eq!(received(&mut switch, 2).len(), 2, "and has room again");
    }

    #[test]
    fn empty_frames_are_held_within_the_same_bound() {
        let mut switch = switch(2, true);
        let sent = LIMIT;
        send(&mut switch, 0, &vec![Vec::new(); sent]);
        let kept = switch.state(NOW).held.len();
        assert!((1000..LIMIT / 24).contains(&kept), "{kept}");
        assert_eq!(switch.counters()[0].dropped.held_full as usize, sent - kept);
        switch.release(NOW);
        assert_eq!(switch.counters()[0].dropped.runt as usize, kept);
    }

    /// A switch of two segments, with ports 0 and 1 on the first and 2, 3 and 4 on the second.
    fn two_segments() -> Switch {
        let mut switch = Switch::new(LIMIT, false, None).with_segments(2);
        for (port, segment) in [0, 0, 1, 1, 1].into_iter().enumerate() {
            let port = switch.port_on(segment, &format!("port{port}"));
            switch.attach(port);
        }
        switch
    }

    #[test]
    fn no_frame_leaves_its_segment() {
        let mut switch = two_segments();
        let call = frame(MacAddr::BROADCAST, station(1), b"everybody");
        send(&mut switch, 2, std::slice::from_ref(&call));
        // Nobody knows it on the other segment, where it is flooded.
        let over = frame(station(1), station(0), b"over there");
        send(&mut switch, 0, std::slice::from_ref(&over));
        assert!(received(&mut switch, 0).is_empty());
        assert_eq!(received(&mut switch, 1), [over]);
        assert!(received(&mut switch, 2).is_empty());
        for port in [3, 4] {
            assert_eq!(received(&mut switch, port), std::slice::from_ref(&call));
        }
    }

    #[test]
    fn a_station_may_be_on_both_segments_and_a_state_keeps_them_apart() {
        let mut switch = two_segments();
        for port in [0, 2] {
            let hello = frame(MacAddr::BROADCAST, station(9), b"");
            send(&mut switch, port, &[hello]);
        }
        let state = switch.state(NOW);
        let mut thawed = Switch::new(LIMIT, false, None).with_segments(2);
        thawed.restore(state.clone(), NOW);
        assert_eq!(thawed.state(NOW), state);
        for mut switch in [switch, thawed] {
            for port in 0..5 {
                switch.attach(port);
                received(&mut switch, port);
            }
            for (from, to) in [(1, 0), (3, 2)] {
                let call = frame(station(9), station(1), b"you");
                send(&mut switch, from, std::slice::from_ref(&call));
                assert_eq!(received(&mut switch, to), [call]);
            }
            assert!(received(&mut switch, 4).is_empty());
        }
    }

    #[test]
    fn a_state_brings_everything_back() {
        let mut old = switch(3, false);
        send(
            &mut old,
            1,
            &[frame(MacAddr::BROADCAST, station(1), b"queued")],
        );
        old.hold();
        send(&mut old, 0, &[frame(station(1), station(9), b"held")]);
        let later = NOW + Duration::from_secs(100);
        let state = old.state(later);
        let mut new = Switch::new(LIMIT, true, None);
        new.port("port0");
        new.restore(state.clone(), NOW);
        assert_eq!(new.state(NOW), state);
        for port in 0..3 {
            new.attach(port);
        }
        new.release(NOW);
        assert_eq!(
            received(&mut new, 0),
            [frame(MacAddr::BROADCAST, station(1), b"queued")]
        );
        assert_eq!(
            received(&mut new, 1),
            [frame(station(1), station(9), b"held")]
        );
        let much_later = NOW + Duration::from_secs(201);
        assert_eq!(new.state(NOW).stations.len(), 2);
        assert_eq!(new.state(much_later).stations.len(), 1, "ages go on");
    }

    proptest! {
        /// What each port gets does not depend on how the frames were batched, and is what a
        /// switch does that looks at one frame at a time; also under a rule that takes nothing.
        #[test]
        fn batches_change_nothing(
            traffic in prop::collection::vec((0usize..4, 0u8..7, 0u8..6, 0usize..80), 1..200),
            held in any::<bool>(),
            ruled in any::<bool>(),
        ) {
            let mut batched = switch(4, held);
            if ruled {
                by_rules::tests::rule(&mut batched, "port1", r#"{"hole":65535}"#);
            }
            let mut single = switch(4, false);
            let mut pending: (usize, Vec<Vec<u8>>) = (0, Vec::new());
            let mut total = 0;
            for (n, (from, to, source, size)) in traffic.into_iter().enumerate() {
                let to = if to == 6 { MacAddr::BROADCAST } else { station(to) };
                let payload = [&n.to_be_bytes()[..], &vec![0; size]].concat();
                let frame = frame(to, station(source), &payload);
                total += 1;
                send(&mut single, from, std::slice::from_ref(&frame));
                if pending.0 != from {
                    send(&mut batched, pending.0, &std::mem::take(&mut pending.1));
                    pending.0 = from;
                }
                pending.1.push(frame);
            }
            send(&mut batched, pending.0, &pending.1);
            if held {
                prop_assert_eq!(batched.state(NOW).held.len(), total);
                prop_assert!((0..4).all(|port| batched.queue(port).is_empty()));
                batched.release(NOW);
            }
            prop_assert_eq!(batched.counters(), single.counters());
            for port in 0..4 {
                prop_assert_eq!(received(&mut batched, port), received(&mut single, port));
            }
        }
    }
}
