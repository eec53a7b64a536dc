//! `--shard M/N`: which of a run's scenarios belong to one of several machines.

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

impl Shard {
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
