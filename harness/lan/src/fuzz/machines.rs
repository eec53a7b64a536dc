//! A switch and its ports' machines, who read what leaves, in parts of any size; they come and go, and the
//! segment is held and released, frozen and thawed.

use std::time::Duration;

use super::case::Log;
use crate::framing::{LENGTH, MAX_FRAME, first_frame};
use crate::switch::Switch;

pub(super) const PORTS: usize = 4;
pub(super) const NAMES: [&str; PORTS] = ["port0", "port1", "port2", "port3"];

/// Octets that wait for a port at most: so few that some are lost.
pub(super) const LIMIT: usize = 2 * MAX_FRAME;

pub(super) struct Machines {
    pub(super) switch: Switch,
    pub(super) now: Duration,
    /// Octets that left each port, the part of a frame.
    out: [Vec<u8>; PORTS],
}

/// What a person or a scenario does to a segment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Hold,
    Release,
    /// A port's machine goes, with what it has read in part, and comes again.
    Plug(usize),
    /// The segment goes on as another with its state, which has the same state.
    Thaw,
}

impl Machines {
    /// One at each port.
    pub(super) fn new(mut switch: Switch, now: Duration) -> Self {
        for name in NAMES {
            let port = switch.port(name);
            switch.attach(port);
        }
        Machines {
            switch,
            now,
            out: Default::default(),
        }
    }

    pub(super) fn act(&mut self, act: Act, log: &mut Log) {
        match act {
            Act::Hold => {
                log.note("hold", &[]);
                self.switch.hold();
            }
            Act::Release => {
                log.note("release", &[]);
                self.switch.release(self.now);
            }
            Act::Plug(port) => {
                log.note("plug", &[]);
                self.plug(port);
            }
            Act::Thaw => {
                log.note("thaw", &[]);
                self.thaw();
            }
        }
    }

    pub(super) fn plug(&mut self, port: usize) {
        self.switch.detach(port);
        self.switch.attach(port);
        self.out[port].clear();
    }

    fn thaw(&mut self) {
        let state = self.switch.state(self.now);
        let mut thawed = Switch::new(LIMIT, true, None);
        thawed.restore(state.clone(), self.now);
        assert_eq!(thawed.state(self.now), state, "a state does not come back");
        for port in 0..PORTS {
            thawed.attach(port);
            self.out[port].clear();
        }
        self.switch = thawed;
    }

    /// A port's machine reads so much at most; calls `each` for every frame that is whole by then.
    pub(super) fn drain(&mut self, port: usize, most: usize, mut each: impl FnMut(&[u8])) {
        let queue = self.switch.queue(port);
        let out = &mut self.out[port];
        let mut left = most;
        let before = out.len();
        for slice in queue.slices() {
            let count = slice.len().min(left);
            out.extend_from_slice(&slice[..count]);
            left -= count;
        }
        queue.consume(out.len() - before);
        let mut at = 0;
        loop {
            let frame = first_frame(&out[at..]);
            assert!(frame.is_ok(), "port {port} gets a length that no frame has");
            let Ok(Some(frame)) = frame else { break };
            at += LENGTH + frame.len();
            each(frame);
        }
        out.drain(..at);
    }

    /// A port's machine reads all that is left, which ends with a frame.
    pub(super) fn drain_to_the_end(&mut self, port: usize, each: impl FnMut(&[u8])) {
        self.drain(port, usize::MAX, each);
        assert!(self.out[port].is_empty(), "port {port} gets half a frame");
    }
}
