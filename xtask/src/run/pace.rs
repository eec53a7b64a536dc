//! How much longer scenarios take, by how those that are done compare with what was expected of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::run::under_way::{Doing, UnderWay};

/// How much the estimates count beside what was seen, in seconds: one short scenario says little
/// about the long ones to come.
const WEIGHT: f64 = 60.0;

/// The scenarios of a run, expected and seen.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Seconds that each is expected to take, by its name on its cell.
    expected: BTreeMap<String, f64>,
    at_once: usize,
    /// Seconds that those took which are done.
    done: BTreeMap<String, f64>,
    /// When those began to run that are not.
    begun: BTreeMap<String, Instant>,
}

impl Pace {
    pub(crate) fn new(expected: BTreeMap<String, f64>, at_once: usize) -> Self {
        Self {
            expected,
            at_once,
            ..Self::default()
        }
    }

    /// Takes note of what is under way; `named` gives a scenario's name on its cell.
    pub(crate) fn look(
        &mut self,
        under_way: &UnderWay,
        named: impl Fn(&str) -> String,
        now: Instant,
    ) {
        for (name, doing) in &under_way.running {
            // The wait for a place is not the scenario's time.
            if !matches!(doing, Doing::Waiting(_)) {
                self.begun.entry(named(name)).or_insert(now);
            }
        }
        let over = under_way.done.iter().chain(&under_way.died);
        for name in over.map(|name| named(name)) {
            let begun = self.begun.remove(&name);
            // One that was over before anybody looked took about nothing.
            let taken = begun.map_or(0.0, |begun| seconds(begun, now));
            self.done.entry(name).or_insert(taken);
        }
    }

    /// What is left; nothing when there was nothing to expect.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        if self.expected.is_empty() {
            return None;
        }
        let expected = |name: &String| self.expected.get(name).copied().unwrap_or_default();
        let taken: f64 = self.done.values().sum();
        let planned: f64 = self.done.keys().map(expected).sum();
        let pace = (taken + WEIGHT) / (planned + WEIGHT);
        let to_do = self
            .expected
            .iter()
            .filter(|(name, _)| !self.done.contains_key(*name));
        let left: f64 = to_do
            .map(|(name, expected)| {
                let gone = self
                    .begun
                    .get(name)
                    .map_or(0.0, |begun| seconds(*begun, now));
                (expected * pace - gone).max(0.0)
            })
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "clones at once are few")]
        let at_once = self.at_once.max(1) as f64;
        Duration::try_from_secs_f64(left / at_once).ok()
    }
}

fn seconds(begun: Instant, now: Instant) -> f64 {
    now.saturating_duration_since(begun).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    fn pace() -> Pace {
        let expected = ["a", "b", "c"].map(|name| (format!("{name} on x"), 60.0));
        Pace::new(BTreeMap::from(expected), 1)
    }

    fn look(pace: &mut Pace, done: &[&str], running: &[(&str, Doing)], now: Instant) -> u64 {
        let under_way = UnderWay {
            running: running
                .iter()
                .map(|(name, doing)| ((*name).to_owned(), doing.clone()))
                .collect(),
            done: done.iter().map(ToString::to_string).collect(),
            died: Vec::new(),
            all: 3,
        };
        pace.look(&under_way, |name| format!("{name} on x"), now);
        pace.left(now).unwrap().as_secs()
    }

    #[test]
    fn what_scenarios_took_stretches_what_is_expected_of_the_others() {
        let (mut pace, begun) = (pace(), Instant::now());
        let step = || Doing::Step("ask".into());
        assert_eq!(look(&mut pace, &[], &[("a", step())], begun), 180);
        assert_eq!(look(&mut pace, &[], &[("a", step())], at(begun, 50)), 130);
        // Over its time: the others are still to come.
        assert_eq!(look(&mut pace, &[], &[("a", step())], at(begun, 100)), 120);
        // 180 s instead of 60, and an estimate's worth of 60: twice as slow.
        assert_eq!(
            look(&mut pace, &["a"], &[("b", step())], at(begun, 180)),
            240
        );
        assert_eq!(look(&mut pace, &["a", "b"], &[], at(begun, 240)), 100);
        assert_eq!(look(&mut pace, &["a", "b", "c"], &[], at(begun, 340)), 0);
    }

    #[test]
    fn a_wait_for_a_place_is_nobody_s_time() {
        let (mut pace, begun) = (pace(), Instant::now());
        let waiting = Doing::Waiting("another (process 7)".into());
        let wait =
            |pace: &mut Pace, second| look(pace, &[], &[("a", waiting.clone())], at(begun, second));
        assert_eq!(wait(&mut pace, 0), 180);
        assert_eq!(wait(&mut pace, 360), 180);
        let running = [("a", Doing::Starting)];
        assert_eq!(look(&mut pace, &[], &running, at(begun, 361)), 180);
    }
}
