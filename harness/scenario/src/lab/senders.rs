//! Who sends steady traffic in a lab, and the steps that fall into its time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use podwire_probe::{TrafficRecord, TrafficRequest};

use crate::check::clock::{Clock, ClockReading, millis};
use crate::check::party::Party;
use crate::check::record::{Mark, Record};
use crate::lab::traffic::asked::{Known, Target};

/// The senders of a lab, and its steps.
#[derive(Debug)]
pub(super) struct TrafficLog {
    /// When the clone's time begins.
    began: Instant,
    steps: Mutex<Vec<(Instant, String)>>,
    senders: Mutex<Vec<Sender>>,
}

/// One sender, until its record is there.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) from: Party,
    /// What it was asked for.
    pub(super) request: TrafficRequest,
    pub(super) first: ClockReading,
    pub(super) others: Vec<ClockReading>,
    /// What its target is.
    pub(super) target: Target,
    pub(super) known: Known,
    pub(super) done: Option<Record>,
}

impl TrafficLog {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            steps: Mutex::default(),
            senders: Mutex::default(),
        }
    }

    pub(super) fn step(&self, at: Instant, text: &str) {
        locked(&self.steps).push((at, text.to_owned()));
    }

    pub(super) fn steps(&self) -> Vec<(Instant, String)> {
        locked(&self.steps).clone()
    }

    pub(super) fn senders(&self) -> MutexGuard<'_, Vec<Sender>> {
        locked(&self.senders)
    }

    pub(super) fn last_running(&self) -> Option<usize> {
        self.senders()
            .iter()
            .rposition(|sender| sender.done.is_none())
    }

    /// The sender's record of now, with what else is known about its time.
    pub(super) fn record(&self, sender: &Sender, sent: TrafficRecord, until: Instant) -> Record {
        let clock = Clock::of(sender.first, &sender.others);
        let steps = locked(&self.steps);
        let marks = steps
            .iter()
            .filter(|(at, _)| *at >= sender.first.asked && *at <= until);
        Record {
            from: sender.from.to_string(),
            began_ms: u64::try_from(-clock.at_ms(self.began)).unwrap_or(0),
            marks: marks
                .map(|(at, text)| Mark {
                    at_ms: millis(clock.at(*at)),
                    text: text.clone(),
                })
                .collect(),
            sent,
            nodes: sender.known.nodes.clone(),
            asked: sender.known.asked.clone(),
            until_ms: millis(clock.at(until).saturating_sub(clock.within())),
            clock,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::record::tests::record;
    use std::time::Duration;

    fn sender(asked: Instant, told: Instant) -> Sender {
        Sender {
            from: Party::new("node1", 1, false, [172, 30, 0, 11]),
            request: TrafficRequest::new("10.0.0.55:80"),
            first: ClockReading {
                asked,
                elapsed_ms: 0,
                told,
            },
            others: Vec::new(),
            target: Target::of("10.0.0.55:80"),
            known: Known::default(),
            done: None,
        }
    }

    #[test]
    fn of_several_the_last_that_goes_on_is_the_running_one() {
        let now = Instant::now();
        let log = TrafficLog::new(now);
        assert_eq!(log.last_running(), None);
        log.senders().extend([(); 3].map(|()| sender(now, now)));
        assert_eq!(log.last_running(), Some(2));
        log.senders()[2].done = Some(record("a", &[]));
        assert_eq!(log.last_running(), Some(1));
    }

    #[test]
    fn the_steps_within_its_time_are_marks() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let log = TrafficLog::new(at(300));
        let sender = sender(at(1000), at(1200));
        for (ms, text) in [
            (900, "before"),
            (1050, "at once"),
            (3100, "drain"),
            (9000, "after"),
        ] {
            log.step(at(ms), text);
        }
        let sent = TrafficRecord {
            request: TrafficRequest::new("10.0.0.55:80"),
            started_unix_ms: 0,
            elapsed_ms: 5000,
            missed: 0,
            ended: None,
            requests: Vec::new(),
        };
        let record = log.record(&sender, sent, at(6000));
        let marks: Vec<(u64, &str)> = record
            .marks
            .iter()
            .map(|mark| (mark.at_ms, mark.text.as_str()))
            .collect();
        // Between 1000 and 1200 it began, so no step is earlier than that.
        assert_eq!(marks, [(0, "at once"), (2000, "drain")]);
        // It began 1100 ms in, give or take 100.
        assert_eq!((record.began_ms, record.until_ms), (800, 4800));
    }
}
