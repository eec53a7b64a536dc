//! The balancing rule: how many of the requests each backend may have answered, and when enough were
//! asked to say so.

use statrs::distribution::{Binomial, DiscreteCDF};

/// False-alarm rate of one balancing assertion, over all its backends, both sides of the band and all
/// rounds.
pub(crate) const FALSE_ALARMS: f64 = 1e-6;
/// What part of its fair share a backend may have too much or too little and still go unnoticed.
const SKEW: f64 = 0.25;
/// How often one that has just so much may do so after one round. One in twenty over all rounds, divided by
/// them, would be enough, and less than half of it used up: a count that is clear once is so in most rounds
/// that follow. The exact sum for every number of backends in use is in the tests.
const MISSES_A_ROUND: f64 = 0.012;

/// Requests per backend in one round of a balancing assertion (docs/writing-a-scenario.md,
/// "Balancing").
pub const REQUESTS_PER_BACKEND: u32 = 100;

/// Counts of answers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Fewest answers.
    pub low: u64,
    /// Most answers.
    pub high: u64,
}

impl Band {
    /// Whether a count lies in the band.
    pub fn contains(self, count: u64) -> bool {
        (self.low..=self.high).contains(&count)
    }

    /// The narrowest exact binomial band: of `requests`, each of which independently has the chance
    /// `share` (0 to 1), a number outside has the probability `tail` at most on either side.
    pub fn of(requests: u64, share: f64, tail: f64) -> Self {
        match Binomial::new(share, requests) {
            Ok(counts) => Self {
                low: first(requests, |count| counts.cdf(count) > tail),
                high: first(requests, |count| counts.sf(count) <= tail),
            },
            // No share at all: nothing is known.
            Err(_) => Self {
                low: 0,
                high: requests,
            },
        }
    }
}

/// The first number up to `most` for which it holds, as it does for all that follow; else `most`.
fn first(most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low.midpoint(high);
        match holds(middle) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

/// The plan of one balancing assertion, fixed in advance: rounds of [`REQUESTS_PER_BACKEND`] requests
/// for each backend, until the counts say which.
///
/// After a round every count is held against two bands. Outside [`Rounds::fair`] fair balancing would
/// hardly have brought it: the assertion fails. Inside [`Rounds::clear`] a share that is a quarter too
/// large or too small would hardly have: when all are, the requests spread evenly. In between another
/// round is asked. In the last round there is no in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    backends: u32,
    most: u32,
}

impl Rounds {
    /// Those for so many backends.
    pub fn of(backends: u32) -> Self {
        let plan = |most| Self { backends, most };
        let ends = |most: &u32| {
            let plan = plan(*most);
            let (fair, clear) = (plan.fair(plan.requests()), plan.clear(plan.requests()));
            clear.contains(fair.low) && clear.contains(fair.high)
        };
        // More rounds make either band a little wider, and the requests more: some number is enough.
        plan((1..).find(ends).unwrap_or(u32::MAX))
    }

    /// How many there are at most.
    pub fn most(self) -> u32 {
        self.most
    }

    /// Requests in one round.
    pub fn round(self) -> u32 {
        self.backends.saturating_mul(REQUESTS_PER_BACKEND)
    }

    /// Requests in all rounds.
    fn requests(self) -> u64 {
        u64::from(self.round()) * u64::from(self.most)
    }

    fn share(self) -> f64 {
        1.0 / f64::from(self.backends.max(1))
    }

    /// The counts that fair balancing allows one backend, when each of `requests` fresh connections
    /// picks one of them uniformly and independently.
    ///
    /// Some backend's count falls outside after some round with a probability of at most 1e-6. One
    /// backend gets every request: its band is a single number.
    pub fn fair(self, requests: u64) -> Band {
        let tails = f64::from(self.backends) * 2.0 * f64::from(self.most);
        Band::of(requests, self.share(), FALSE_ALARMS / tails)
    }

    /// The counts that show a backend's share to be less than a quarter away from the fair one; without
    /// any (`low` above `high`) after too few requests.
    ///
    /// One that gets a quarter more than its share, or a quarter less, has such a count after some round
    /// with a probability of at most 5 %.
    pub fn clear(self, requests: u64) -> Band {
        if self.backends <= 1 {
            return self.fair(requests);
        }
        let at = |skew: f64| Band::of(requests, self.share() * skew, MISSES_A_ROUND);
        Band {
            low: at(1.0 - SKEW).high + 1,
            // What lies below the band of the larger share: it is empty, where that begins with 0.
            high: at(1.0 + SKEW).low.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{RngAlgorithm, TestRng};
    use statrs::distribution::Discrete;

    /// How often a backend whose share is just so skewed may go unnoticed, over all rounds.
    const MISSES: f64 = 0.05;

    fn choose(n: u64, k: u64) -> f64 {
        (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product()
    }

    #[test]
    fn a_small_band_agrees_with_the_sum_of_its_terms() {
        let Band { low, high } = Band::of(200, 0.5, 2.5e-7);
        let outside: f64 = (0..=200)
            .filter(|k| !(low..=high).contains(k))
            .map(|k| choose(200, k) * 0.5_f64.powi(200))
            .sum();
        assert!(outside <= 5e-7, "{outside}");
        let one_narrower: f64 = outside + choose(200, low) * 0.5_f64.powi(200) * 2.0;
        assert!(
            one_narrower > 5e-7,
            "the band is not the narrowest: {one_narrower}"
        );
    }

    #[test]
    fn a_band_of_all_or_nothing_is_a_single_number() {
        assert_eq!(Band::of(500, 0.0, 1e-7), Band { low: 0, high: 0 });
        let all = Band {
            low: 500,
            high: 500,
        };
        assert_eq!(Band::of(500, 1.0, 1e-7), all);
        assert_eq!(Rounds::of(1).most(), 1);
        let hundred = Band {
            low: 100,
            high: 100,
        };
        assert_eq!(Rounds::of(1).fair(100), hundred);
        assert_eq!(Rounds::of(1).clear(100), hundred);
    }

    /// What becomes of one backend whose share is `skew` times the fair one, exactly: the probabilities
    /// that it is noticed, and that its count is ever clear before that. It goes unnoticed no more
    /// often, as the others' counts have to be clear in the same round.
    fn noticed_and_missed(rounds: Rounds, skew: f64, may_end: bool) -> (f64, f64) {
        let round = Binomial::new(rounds.share() * skew, u64::from(rounds.round())).unwrap();
        let round: Vec<(usize, f64)> = (0..=u64::from(rounds.round()))
            .map(|more| (more as usize, round.pmf(more)))
            .filter(|(_, chance)| *chance > 1e-20)
            .collect();
        let (mut noticed, mut missed) = (0.0, 0.0);
        let mut counts = vec![0.0; rounds.requests() as usize + 1];
        counts[0] = 1.0;
        for number in 1..=u64::from(rounds.most()) {
            let mut next = vec![0.0; counts.len()];
            for (count, chance) in counts.iter().enumerate().filter(|(_, it)| **it > 1e-20) {
                for (more, each) in &round {
                    next[count + more] += chance * each;
                }
            }
            let requests = number * u64::from(rounds.round());
            let (fair, clear) = (rounds.fair(requests), rounds.clear(requests));
            for (count, chance) in next.iter_mut().enumerate() {
                if !fair.contains(count as u64) {
                    noticed += std::mem::take(chance);
                } else if may_end && clear.contains(count as u64) {
                    missed += std::mem::take(chance);
                }
            }
            counts = next;
        }
        (noticed, missed)
    }

    #[test]
    fn fair_balancing_is_hardly_ever_called_uneven() {
        for backends in 2..=12 {
            let rounds = Rounds::of(backends);
            let (alarms, _) = noticed_and_missed(rounds, 1.0, false);
            let alarms = alarms * f64::from(backends);
            assert!(alarms <= FALSE_ALARMS, "{backends}: {alarms}");
            // A band that is far too wide would also never be left.
            assert!(alarms > FALSE_ALARMS / 20.0, "{backends}: {alarms}");
        }
    }

    #[test]
    fn a_quarter_too_much_or_too_little_is_missed_once_in_twenty_at_most() {
        for backends in 2..=12 {
            for skew in [1.0 - SKEW, 1.0 + SKEW] {
                let (noticed, missed) = noticed_and_missed(Rounds::of(backends), skew, true);
                assert!(missed <= MISSES, "{backends}, {skew}: {missed}");
                let all = noticed + missed;
                assert!((all - 1.0).abs() < 1e-9, "{backends}, {skew}: {all}");
            }
        }
    }

    /// docs/writing-a-scenario.md, "Balancing", has these numbers.
    #[test]
    fn what_is_still_missed() {
        let mut shown = vec!["backends: missed at most, by share".to_owned()];
        for backends in [2, 5, 6, 8] {
            let missed = [1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.45, 0.75].map(|skew| {
                let (_, missed) = noticed_and_missed(Rounds::of(backends), skew, true);
                format!("{skew}: {:.2} %", missed * 100.0)
            });
            shown.push(format!("{backends}: {}", missed.join(", ")));
        }
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn the_bands_in_use() {
        let mut shown = Vec::new();
        for backends in 2..=9 {
            let rounds = Rounds::of(backends);
            let bands = [1, 2, rounds.most()].map(|number| {
                let requests = u64::from(number * rounds.round());
                let (fair, clear) = (rounds.fair(requests), rounds.clear(requests));
                let (low, high) = (clear.low, clear.high);
                format!("{number}: {}..={}, {low}..={high}", fair.low, fair.high)
            });
            shown.push(format!("{backends}: {}", bands.join("; ")));
        }
        insta::assert_snapshot!(shown.join("\n"));
    }

    /// docs/writing-a-scenario.md, "Balancing", has these numbers.
    #[test]
    fn how_many_rounds_fair_balancing_takes() {
        const TRIALS: u32 = 400;
        let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let shown = [2, 5, 6, 8].map(|backends| {
            let rounds = Rounds::of(backends);
            let mut asked = 0;
            for _ in 0..TRIALS {
                let mut counts = vec![0; backends as usize];
                for number in 1..=rounds.most() {
                    for _ in 0..rounds.round() {
                        counts[random.random_range(0..backends) as usize] += 1;
                    }
                    asked += 1;
                    let clear = rounds.clear(u64::from(number * rounds.round()));
                    if counts.iter().all(|count| clear.contains(*count)) {
                        break;
                    }
                }
            }
            let mean = f64::from(asked) / f64::from(TRIALS);
            format!("{backends}: {mean:.1} of {}", rounds.most())
        });
        insta::assert_snapshot!(shown.join("\n"));
    }

    proptest! {
        #[test]
        fn the_mean_is_inside_and_zero_is_outside(backends in 2_u32..20) {
            let rounds = Rounds::of(backends);
            let requests = rounds.requests();
            let mean = requests / u64::from(backends);
            for band in [rounds.fair(requests), rounds.clear(requests)] {
                prop_assert!(band.contains(mean));
                prop_assert!(!band.contains(0));
                prop_assert!(!band.contains(requests));
            }
            let first = rounds.fair(u64::from(rounds.round()));
            prop_assert!(first.contains(u64::from(REQUESTS_PER_BACKEND)) && !first.contains(0));
        }
    }
}
