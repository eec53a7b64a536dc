//! Frames whose time has not come: bounded, by when they are due.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::{Arrived, RuleId};

/// Octets of memory for all of a segment's delayed frames: a quarter of a second of one gigabit per
/// second.
pub(crate) const LIMIT: usize = 32 * 1024 * 1024;

/// A frame that waits.
#[derive(Debug)]
pub(crate) struct Delayed {
    /// The port that it leaves by.
    pub(crate) to: usize,
    pub(super) rule: RuleId,
    arrived: Duration,
    due: Duration,
    /// Which came first, of those due at the same time.
    order: u64,
    /// The number by which the witness knows it.
    pub(crate) number: u64,
    pub(crate) frame: Box<[u8]>,
}

impl Delayed {
    /// How long it has waited.
    pub(super) fn waited(&self, now: Duration) -> Duration {
        now.saturating_sub(self.arrived)
    }

    /// How much later than it was due it is.
    pub(super) fn late(&self, now: Duration) -> Duration {
        now.saturating_sub(self.due)
    }

    fn cost(&self) -> usize {
        size_of::<Self>() + self.frame.len()
    }
}

impl Ord for Delayed {
    /// The one that leaves first is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Delayed {}

#[derive(Debug)]
pub(super) struct Waiting {
    heap: BinaryHeap<Delayed>,
    octets: usize,
    limit: usize,
    pushed: u64,
}

impl Waiting {
    pub(super) fn new(limit: usize) -> Self {
        Waiting {
            heap: BinaryHeap::new(),
            octets: 0,
            limit,
            pushed: 0,
        }
    }

    /// Takes a frame; false when there is no room for it.
    pub(super) fn push(
        &mut self,
        to: usize,
        rule: RuleId,
        arrived: &Arrived<'_>,
        due: Duration,
        frame: &[u8],
    ) -> bool {
        let cost = size_of::<Delayed>() + frame.len();
        if self.octets + cost > self.limit {
            return false;
        }
        self.octets += cost;
        self.heap.push(Delayed {
            to,
            rule,
            arrived: arrived.at,
            due,
            order: self.pushed,
            number: arrived.number,
            frame: frame.into(),
        });
        self.pushed += 1;
        true
    }

    /// When the first is due.
    pub(super) fn first_due(&self) -> Option<Duration> {
        self.heap.peek().map(|first| first.due)
    }

    /// The first, if its time has come.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Delayed> {
        if self.first_due()? > now {
            return None;
        }
        let first = self.heap.pop()?;
        self.octets -= first.cost();
        Some(first)
    }

    /// All of a rule's, the first to leave first.
    pub(super) fn take(&mut self, rule: RuleId) -> Vec<Delayed> {
        let all = std::mem::take(&mut self.heap).into_vec();
        let (mut taken, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.rule == rule);
        self.octets = left.iter().map(Delayed::cost).sum();
        self.heap = left.into();
        taken.sort_by(|a, b| b.cmp(a));
        taken
    }

    /// All for a port, the first to leave first.
    pub(super) fn for_port(&self, port: usize) -> Vec<&Delayed> {
        let mut frames: Vec<_> = self.heap.iter().filter(|it| it.to == port).collect();
        frames.sort_by(|a, b| b.cmp(a));
        frames
    }

    /// How many of a rule's wait.
    pub(super) fn count(&self, rule: RuleId) -> u64 {
        self.heap.iter().filter(|it| it.rule == rule).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: RuleId = RuleId(1);
    const FIRST: Arrived<'_> = Arrived {
        from: 0,
        frame: &[],
        number: 0,
        at: Duration::ZERO,
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn waiting(limit: usize, dues: &[u64]) -> Waiting {
        let mut waiting = Waiting::new(limit);
        for (n, due) in (0..).zip(dues) {
            let rule = RuleId(u64::from(n) % 2);
            waiting.push(usize::from(n) % 3, rule, &FIRST, at(*due), &[n; 100]);
        }
        waiting
    }

    fn marks<'a>(frames: impl IntoIterator<Item = &'a Delayed>) -> Vec<u8> {
        frames.into_iter().map(|it| it.frame[0]).collect()
    }

    #[test]
    fn frames_leave_when_they_are_due_and_in_the_order_they_came() {
        let mut waiting = waiting(LIMIT, &[5, 3, 5, 9, 3]);
        assert_eq!(waiting.first_due(), Some(at(3)));
        let mut left = Vec::new();
        while let Some(frame) = waiting.pop_due(at(5)) {
            left.push(frame);
        }
        assert_eq!(marks(&left), [1, 4, 0, 2]);
        assert_eq!(waiting.first_due(), Some(at(9)));
    }

    #[test]
    fn a_rule_s_and_a_port_s_frames_are_told_apart() {
        let mut waiting = waiting(LIMIT, &[5, 3, 5, 9, 3]);
        assert_eq!(marks(waiting.for_port(0)), [0, 3]);
        assert_eq!(waiting.count(RULE), 2);
        assert_eq!(marks(&waiting.take(RULE)), [1, 3]);
        assert_eq!(waiting.count(RULE), 0);
        assert_eq!(waiting.first_due(), Some(at(3)));
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let cost = size_of::<Delayed>() + 100;
        let mut waiting = waiting(3 * cost, &[1, 2, 3]);
        let push = |waiting: &mut Waiting| waiting.push(0, RULE, &FIRST, at(9), &[9; 100]);
        assert!(!push(&mut waiting));
        assert!(waiting.pop_due(at(1)).is_some());
        assert!(push(&mut waiting));
        assert!(!push(&mut waiting));
        assert_eq!(waiting.take(RULE).len(), 2);
        assert!(push(&mut waiting));
        assert!(push(&mut waiting));
        assert!(!push(&mut waiting));
    }
}
