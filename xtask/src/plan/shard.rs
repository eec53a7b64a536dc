//! `--shard`: which of a run's scenarios belong to one of several machines.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// More parts than anybody has machines.
const MOST: u64 = 1000;

/// One part of so many, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    number: u64,
    of: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) && of <= MOST => {
                Ok(Self { number, of })
            }
            _ => Err(format!(
                "it is M/N, part M of N, which is {MOST} at most: 1/3, 2/3 and 3/3 are a whole"
            )),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// What `--shard` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskedShard {
    /// `M/N`.
    Part(Shard),
    /// `auto` or `auto/N`: what the CI system has set; with N, of so many.
    Auto(Option<u64>),
}

impl FromStr for AskedShard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("auto") {
            None => text.parse().map(Self::Part),
            Some("") => Ok(Self::Auto(None)),
            Some(of) => {
                let of = of.strip_prefix('/').and_then(|of| of.parse().ok());
                let of = of.filter(|of| (1..=MOST).contains(of));
                let wrong = || format!("it is auto, or auto/N for one of N parts, {MOST} at most");
                Ok(Self::Auto(Some(of.ok_or_else(wrong)?)))
            }
        }
    }
}

/// GitLab's `parallel: N` counts its jobs from 1 (GitLab, "Predefined CI/CD variables").
const GITLAB: [&str; 2] = ["CI_NODE_INDEX", "CI_NODE_TOTAL"];
/// A Kubernetes Job with `completionMode: Indexed` counts its Pods from 0, and does not tell them how
/// many there are (Kubernetes, "Indexed Job for Parallel Processing").
const INDEXED_JOB: &str = "JOB_COMPLETION_INDEX";

impl AskedShard {
    /// The part, given what the environment says.
    ///
    /// # Errors
    /// In words, when that says none or a wrong one.
    pub(crate) fn part(self, env: impl Fn(&str) -> Option<String>) -> Result<Shard, String> {
        let of = match self {
            Self::Part(shard) => return Ok(shard),
            Self::Auto(of) => of,
        };
        let wrong = |said: String| format!("--shard auto: {said} is no part of a whole");
        if let [Some(number), Some(total)] = GITLAB.map(&env) {
            let said = format!("CI_NODE_INDEX={number} with CI_NODE_TOTAL={total}");
            if of.is_some_and(|of| of.to_string() != total) {
                return Err(wrong(format!("{said}, where --shard says another total,")));
            }
            return format!("{number}/{total}").parse().map_err(|_| wrong(said));
        }
        let Some(index) = env(INDEXED_JOB) else {
            return Err(format!(
                "--shard auto: this environment has neither {} and {}, which GitLab sets, nor \
                 {INDEXED_JOB}, which a Kubernetes Indexed Job sets; --shard M/N names the part",
                GITLAB[0], GITLAB[1]
            ));
        };
        let said = format!("{INDEXED_JOB}={index}");
        let Some(of) = of else {
            return Err(format!(
                "--shard auto: {said} does not say of how many; write --shard auto/N, with the Job's \
                 completions"
            ));
        };
        let number = index
            .parse::<u64>()
            .ok()
            .and_then(|index| index.checked_add(1));
        let part = number.and_then(|number| format!("{number}/{of}").parse().ok());
        part.ok_or_else(|| wrong(format!("{said} of {of}")))
    }
}

impl Shard {
    /// Counted from 1.
    pub(crate) fn number(self) -> u64 {
        self.number
    }

    /// How many there are.
    pub(crate) fn of(self) -> u64 {
        self.of
    }

    /// Its part of a list, given what each entry weighs. Neighbours stay together, since they start
    /// from the same stages; each entry belongs to exactly one part, on whatever machine it is asked.
    pub(crate) fn range(self, weights: &[u64]) -> Range<usize> {
        // A weight of nothing would let entries share a place.
        let weights = weights.iter().map(|weight| u128::from(*weight).max(1) * 2);
        let weights: Vec<u128> = weights.collect();
        let total: u128 = weights.iter().sum();
        let (number, of) = (u128::from(self.number), u128::from(self.of));
        let middles = weights.iter().scan(0, |before, weight| {
            let middle = *before + weight / 2;
            *before += weight;
            Some(middle)
        });
        let parts: Vec<u128> = middles.map(|middle| middle * of / total).collect();
        let first = parts.partition_point(|part| *part < number - 1);
        first..parts.partition_point(|part| *part < number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(of: u64, weights: &[u64]) -> Vec<Range<usize>> {
        let shards = (1..=of).map(|number| Shard { number, of });
        shards.map(|shard| shard.range(weights)).collect()
    }

    #[test]
    fn what_takes_long_counts_more() {
        assert_eq!(ranges(2, &[1, 1, 1, 1]), [0..2, 2..4]);
        assert_eq!(ranges(2, &[1, 1, 1, 9]), [0..3, 3..4]);
        assert_eq!(ranges(3, &[5, 5]), [0..1, 1..1, 1..2]);
        assert_eq!(ranges(2, &[0, 0]), [0..1, 1..2]);
    }

    #[test]
    fn weights_are_measured_and_may_be_anything() {
        assert_eq!(ranges(2, &[u64::MAX, u64::MAX]), [0..1, 1..2]);
        let ranges = ranges(MOST, &[u64::MAX; 100]);
        assert_eq!(
            ranges.into_iter().flatten().collect::<Vec<_>>(),
            (0..100).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_part_is_one_of_the_whole() {
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "2/3");
        let immense = format!("1/{}", u64::MAX);
        for wrong in [
            "", "3", "0/3", "4/3", "1/0", "-1/2", "a/b", "1/2/3", "1/1001", &immense,
        ] {
            let refused = wrong.parse::<Shard>().unwrap_err();
            assert!(refused.contains("M of N"), "{wrong}: {refused}");
        }
    }

    fn auto(asked: &str, set: &[(&str, &str)]) -> Result<String, String> {
        let env = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let part = asked.parse::<AskedShard>()?.part(env)?;
        Ok(part.to_string())
    }

    #[test]
    fn a_ci_system_s_own_numbers_name_the_part() {
        let gitlab = [("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "3")];
        assert_eq!(auto("auto", &gitlab).unwrap(), "2/3");
        assert_eq!(auto("auto/3", &gitlab).unwrap(), "2/3");
        assert_eq!(auto("1/2", &gitlab).unwrap(), "1/2");
        let job = [("JOB_COMPLETION_INDEX", "0")];
        assert_eq!(auto("auto/3", &job).unwrap(), "1/3");
    }

    #[test]
    fn numbers_that_name_no_part_are_told_with_where_they_come_from() {
        let told = [
            auto("auto", &[]),
            auto("auto", &[("CI_NODE_INDEX", "1")]),
            auto("auto", &[("CI_NODE_INDEX", "4"), ("CI_NODE_TOTAL", "3")]),
            auto("auto/2", &[("CI_NODE_INDEX", "1"), ("CI_NODE_TOTAL", "3")]),
            auto("auto", &[("JOB_COMPLETION_INDEX", "1")]),
            auto("auto/2", &[("JOB_COMPLETION_INDEX", "2")]),
            auto(
                "auto/2",
                &[("JOB_COMPLETION_INDEX", "18446744073709551615")],
            ),
            auto("auto/0", &[]),
            auto("automatic", &[]),
        ];
        let told = told.map(Result::unwrap_err).join("\n");
        insta::assert_snapshot!(told);
    }

    proptest! {
        #[test]
        fn every_entry_belongs_to_one_part(
            of in 1_u64..12,
            weights in proptest::collection::vec(0_u64..2000, 0..40),
        ) {
            let all: Vec<usize> = ranges(of, &weights).into_iter().flatten().collect();
            prop_assert_eq!(all, (0..weights.len()).collect::<Vec<_>>());
        }
    }
}
