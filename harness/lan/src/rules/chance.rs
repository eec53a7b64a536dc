//! Chance that comes back: each draw is a hash of what it is for, so that no other draw shifts it.

use twox_hash::XxHash3_64;

use super::units::Percent;

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Question {
    Lost,
    Twice,
    Corrupted,
    WhichBit,
    HowLong,
}

/// Whose chance: of a frame of a flow under a rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chance {
    pub(super) seed: u64,
    /// What the rule selects, as a number: the rule's place among others is no part of it.
    pub(super) rule: u64,
    pub(super) flow: u64,
    /// The frame's number in the flow.
    pub(super) number: u64,
}

impl Chance {
    /// A number, all equally likely; `copy` tells a frame's duplicate from it.
    pub(super) fn draw(self, question: Question, copy: u8) -> u64 {
        let mut octets = [0; 26];
        octets[..8].copy_from_slice(&self.rule.to_le_bytes());
        octets[8..16].copy_from_slice(&self.flow.to_le_bytes());
        octets[16..24].copy_from_slice(&self.number.to_le_bytes());
        octets[24] = question as u8;
        octets[25] = copy;
        XxHash3_64::oneshot_with_seed(self.seed, &octets)
    }

    /// A number less than `bound`, all equally likely.
    pub(super) fn below(self, question: Question, copy: u8, bound: u64) -> u64 {
        let scaled = u128::from(self.draw(question, copy)) * u128::from(bound);
        // Less than `bound`, which is one.
        u64::try_from(scaled >> 64).unwrap_or(0)
    }

    /// Whether it happens, with a probability.
    pub(super) fn happens(self, question: Question, copy: u8, probability: Odds) -> bool {
        u128::from(self.draw(question, copy)) < probability.0
    }
}

/// A probability, in 2^-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Odds(u128);

impl Odds {
    /// `of` in `all`; no more than always.
    pub(super) fn of(of: u64, all: u64) -> Self {
        let one = 1 << 64;
        Odds((u128::from(of) * one / u128::from(all.max(1))).min(one))
    }
}

impl From<Percent> for Odds {
    fn from(percent: Percent) -> Self {
        Odds::of(percent.millionths(), Percent::ALL.millionths())
    }
}

/// Gilbert's model (E. N. Gilbert, Capacity of a Burst-Noise Channel, Bell System Technical Journal 39,
/// 1960, with nothing lost in the good state and everything in the bad one): tc-netem(8)'s `loss gemodel
/// p r`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gilbert {
    /// Of a flow's first frame.
    at_first: Odds,
    /// After one that passed: netem's p.
    after_good: Odds,
    /// After one that was lost: 1 - r.
    after_bad: Odds,
}

impl Gilbert {
    /// Loses `loss` of the frames, `burst` in a row on average.
    ///
    /// Bad follows bad with 1 - 1/burst, so a burst is as long as asked. In the long run as many bursts
    /// begin as end: (1 - loss) p = loss / burst.
    pub(super) fn new(loss: Percent, burst: Option<u32>) -> Self {
        let at_first = Odds::from(loss);
        let Some(burst) = burst.map(u64::from) else {
            return Gilbert {
                at_first,
                after_good: at_first,
                after_bad: at_first,
            };
        };
        let lost = loss.millionths();
        let kept = Percent::ALL.millionths() - lost;
        Gilbert {
            at_first,
            after_good: Odds::of(lost, burst * kept),
            after_bad: Odds::of(burst.saturating_sub(1), burst),
        }
    }

    /// The odds for a flow's next frame, by what became of its last.
    pub(super) fn next(self, last_lost: Option<bool>) -> Odds {
        match last_lost {
            None => self.at_first,
            Some(false) => self.after_good,
            Some(true) => self.after_bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chance(flow: u64, number: u64) -> Chance {
        Chance {
            seed: 7,
            rule: 1,
            flow,
            number,
        }
    }

    #[test]
    fn draws_differ_by_all_that_they_are_for() {
        let first = chance(1, 1).draw(Question::Lost, 0);
        assert_eq!(chance(1, 1).draw(Question::Lost, 0), first);
        let other = |change: fn(&mut Chance)| {
            let mut chance = chance(1, 1);
            change(&mut chance);
            chance.draw(Question::Lost, 0)
        };
        for other in [
            other(|it| it.seed = 8),
            other(|it| it.rule = 2),
            other(|it| it.flow = 2),
            other(|it| it.number = 2),
            chance(1, 1).draw(Question::Twice, 0),
            chance(1, 1).draw(Question::Lost, 1),
        ] {
            assert_ne!(other, first);
        }
    }

    #[test]
    fn never_and_always_are_meant() {
        let (never, always) = ("0%".parse::<Percent>().unwrap(), Percent::ALL);
        for number in 0..10_000 {
            let chance = chance(1, number);
            assert!(!chance.happens(Question::Lost, 0, never.into()));
            assert!(chance.happens(Question::Lost, 0, always.into()));
        }
    }

    /// Lost frames and bursts of one flow of 1000000 frames.
    fn lose(loss: &str, burst: Option<u32>, seed: u64) -> (u64, u64) {
        let gilbert = Gilbert::new(loss.parse().unwrap(), burst);
        let (mut last, mut lost, mut bursts) = (None, 0, 0);
        for number in 0..1_000_000 {
            let chance = Chance {
                seed,
                ..chance(9, number)
            };
            let bad = chance.happens(Question::Lost, 0, gilbert.next(last));
            lost += u64::from(bad);
            bursts += u64::from(bad && last != Some(true));
            last = Some(bad);
        }
        (lost, bursts)
    }

    #[test]
    fn loss_and_mean_burst_are_as_asked() {
        // Seeds are fixed: the figures are always the same.
        for (loss, share, burst) in [
            ("1%", 0.01, 4),
            ("10%", 0.1, 10),
            ("50%", 0.5, 2),
            ("75%", 0.75, 3),
        ] {
            let (lost, bursts) = lose(loss, Some(burst), 1);
            let realised = lost as f64 / 1_000_000.0;
            assert!((realised / share - 1.0).abs() < 0.1, "{loss}: {realised}");
            let mean = lost as f64 / bursts as f64;
            assert!(
                (mean / f64::from(burst) - 1.0).abs() < 0.1,
                "{loss}: {mean}"
            );
        }
        let (lost, bursts) = lose("20%", None, 1);
        assert!((lost as f64 / 200_000.0 - 1.0).abs() < 0.05, "{lost}");
        // Independent losses: a burst's mean length is 1 / (1 - loss).
        let mean = lost as f64 / bursts as f64;
        assert!((mean / 1.25 - 1.0).abs() < 0.05, "{mean}");
    }

    proptest! {
        #[test]
        fn what_is_below_a_bound_is(seed: u64, flow: u64, number: u64, bound in 1_u64..) {
            let chance = Chance { seed, rule: 0, flow, number };
            prop_assert!(chance.below(Question::WhichBit, 0, bound) < bound);
        }
    }
}
