//! A sender's clock, in host time.

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

/// One look at the sender's clock: it showed this somewhen between the question and the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockReading {
    pub(crate) asked: Instant,
    pub(crate) elapsed_ms: u64,
    pub(crate) told: Instant,
}

/// Where the sender's clock stands in host time. A guest's clock runs at the host's rate, but shows
/// another date, and looking at it takes a while.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub(super) base: Instant,
    /// From `base` to the sender's start.
    began_ms: i64,
    within_ms: u64,
}

impl Clock {
    /// From at least one reading; each of several narrows it down.
    pub(crate) fn of(first: ClockReading, others: &[ClockReading]) -> Self {
        let base = first.asked;
        let began = |shown: Instant, elapsed_ms: u64| {
            signed(shown.saturating_duration_since(base)).saturating_sub_unsigned(elapsed_ms)
        };
        // The sender began after each of the earliest times and before each of the latest ones.
        let (mut low, mut high) = (i64::MIN, i64::MAX);
        for reading in std::iter::once(&first).chain(others) {
            low = low.max(began(reading.asked, reading.elapsed_ms));
            high = high.min(began(reading.told, reading.elapsed_ms));
        }
        Self {
            base,
            began_ms: low + (high - low) / 2,
            // When clocks drift apart the two cross, and their distance is the error all the same.
            within_ms: low.abs_diff(high).div_ceil(2),
        }
    }

    /// Milliseconds from the sender's start to a moment of the host, negative before it.
    pub(crate) fn at_ms(&self, moment: Instant) -> i64 {
        let since = match moment.checked_duration_since(self.base) {
            Some(after) => signed(after),
            None => -signed(self.base.saturating_duration_since(moment)),
        };
        since - self.began_ms
    }

    /// The time on the sender's axis at this moment of the host; its start for any moment before.
    pub fn at(&self, moment: Instant) -> Duration {
        Duration::from_millis(u64::try_from(self.at_ms(moment)).unwrap_or(0))
    }

    /// How far off [`Clock::at`] may be.
    pub fn within(&self) -> Duration {
        Duration::from_millis(self.within_ms)
    }
}

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.within_ms)
    }
}

/// In milliseconds, as all that is told of a clone has it.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn signed(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_narrow_the_clock_down() {
        let base = Instant::now();
        let at = |ms| base + Duration::from_millis(ms);
        let reading = |asked, elapsed_ms, told| ClockReading {
            asked: at(asked),
            elapsed_ms,
            told: at(told),
        };
        // It began between 100 and 500, says the first one; between 300 and 700, says the other.
        let first = reading(100, 0, 500);
        let one = Clock::of(first, &[]);
        assert_eq!(
            (one.at(at(300)), one.within()),
            (Duration::ZERO, Duration::from_millis(200))
        );
        let two = Clock::of(first, &[reading(10_300, 10_000, 10_700)]);
        assert_eq!(two.at(at(1400)), Duration::from_secs(1));
        assert_eq!(two.within(), Duration::from_millis(100));
        assert_eq!(two.at(at(0)), Duration::ZERO);
        // Drifted apart by 200 ms: in the middle, and no surer than that.
        let apart = Clock::of(first, &[reading(10_700, 10_000, 10_900)]);
        assert_eq!(
            (apart.at(at(600)), apart.within()),
            (Duration::ZERO, Duration::from_millis(100))
        );
    }
}
