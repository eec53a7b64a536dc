//! What rules were asked for, and what came of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::filter::FilterReport;
use super::rule::Rule;
use super::units::Time;

/// A rule of one segment. No other rule of the segment ever has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleId(pub(super) u64);

/// All that is set on a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesReport {
    /// The rules in the order in which a frame meets them: the first whose selector it meets has it.
    pub rules: Vec<RuleReport>,
    /// The address filters, by port.
    pub filters: Vec<FilterReport>,
}

/// A rule, as asked and as realised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// Which.
    pub id: RuleId,
    /// What was asked for.
    pub rule: Rule,
    /// What came of it.
    pub realised: Realised,
}

/// What came of a rule since it is there; changed settings do not begin anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Realised {
    /// Frames that it selected.
    pub seen: u64,
    /// Of these, cut.
    pub cut: u64,
    /// Longer than the hole lets through.
    pub holes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// The most lost in a row, of one flow.
    pub longest_burst: u64,
    /// Those that came twice.
    pub duplicated: u64,
    /// Copies with a bit flipped.
    pub corrupted: u64,
    /// Copies beyond the rate's queue.
    pub overflowed: u64,
    /// Copies for which there was no memory: the delayed frames of a segment take 32 MiB at most.
    pub no_room: u64,
    /// Copies that went on.
    pub passed: u64,
    /// How much later these went on than they came, all together.
    pub delayed: Duration,
    /// Of those that waited, how much later than it was due the 99th of a hundred went on, within a
    /// hundredth; none without one that waited.
    pub late: Option<Duration>,
    /// Copies that wait.
    pub waiting: u64,
}

impl Realised {
    /// How much later a frame went on than it came, on average; none without a frame.
    #[must_use]
    pub fn mean_delay(&self) -> Option<Duration> {
        let nanos = self.delayed.as_nanos().checked_div(self.passed.into())?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

impl fmt::Display for Realised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seen, {} passed", self.seen, self.passed)?;
        let counted = [
            (self.waiting, "waiting"),
            (self.cut, "cut"),
            (self.holes, "in the hole"),
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.corrupted, "corrupted"),
            (self.overflowed, "beyond the queue"),
            (self.no_room, "beyond what is stored"),
        ];
        for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        if self.longest_burst > 0 {
            write!(f, ", {} in a row at most", self.longest_burst)?;
        }
        if let Some(mean) = self.mean_delay().filter(|it| it.as_micros() > 0) {
            write!(f, ", {} later on average", in_micros(mean))?;
        }
        match self.late {
            None => Ok(()),
            Some(late) => {
                let late = in_micros(late);
                write!(f, ", 99 of 100 at most {late} after they were due")
            }
        }
    }
}

fn in_micros(time: Duration) -> Time {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Time::from(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_rule_reads_well() {
        insta::assert_snapshot!(Realised::default(), @"0 seen, 0 passed");
        let realised = Realised {
            seen: 1000,
            lost: 11,
            longest_burst: 5,
            passed: 900,
            overflowed: 87,
            waiting: 2,
            delayed: Duration::from_millis(900 * 40 + 7),
            late: Some(Duration::from_nanos(212_345)),
            ..Realised::default()
        };
        insta::assert_snapshot!(realised, @"1000 seen, 900 passed, 2 waiting, 11 lost, 87 beyond the queue, 5 in a row at most, 40.007ms later on average, 99 of 100 at most 212us after they were due");
    }
}
