//! `--shard` of a comparison: which scenarios one of several machines compares, on both sides.

use crate::plan::shard::Shard;

/// A scenario that runs on a side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sided {
    pub(crate) name: String,
    /// How much of a machine's time it takes, beside the others.
    pub(crate) weight: u64,
    /// Whether it runs on both sides, on clusters that these have in common.
    pub(crate) on_both: bool,
}

/// A part's scenarios. What runs on both sides is parted; what runs on one goes with those before it, since a
/// machine that had nothing else would compare nothing.
///
/// # Errors
/// In words, when nothing is left for this part.
pub(crate) fn part(all: &[Sided], shard: Shard) -> Result<Vec<String>, String> {
    let on_both = all.iter().enumerate().filter(|(_, it)| it.on_both);
    let (places, weights): (Vec<usize>, Vec<u64>) =
        on_both.map(|(place, it)| (place, it.weight)).unzip();
    let range = shard.range(&weights);
    if range.is_empty() {
        return Err(format!(
            "--shard {shard}: nothing is left for this part of {} scenarios that run on both sides; take fewer \
             parts",
            weights.len()
        ));
    }
    let begin = |first: usize| match (first, places.get(first)) {
        (0, _) => 0,
        (_, Some(place)) => *place,
        (_, None) => all.len(),
    };
    let own = all.iter().take(begin(range.end)).skip(begin(range.start));
    Ok(own.map(|it| it.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sided(all: &[(u64, bool)]) -> Vec<Sided> {
        let all = all.iter().enumerate();
        all.map(|(number, (weight, on_both))| Sided {
            name: format!("s{number}"),
            weight: *weight,
            on_both: *on_both,
        })
        .collect()
    }

    fn parts(all: &[Sided], of: u64) -> Vec<Result<Vec<String>, String>> {
        let shards = (1..=of).map(|number| format!("{number}/{of}").parse().unwrap());
        shards.map(|shard| part(all, shard)).collect()
    }

    #[test]
    fn what_runs_on_one_side_goes_with_its_neighbours() {
        let all = sided(&[(9, false), (1, true), (9, false), (1, true), (9, false)]);
        let wanted = [&["s0", "s1", "s2"][..], &["s3", "s4"]];
        let parts = parts(&all, 2).into_iter().map(Result::unwrap);
        assert_eq!(parts.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_part_without_anything_on_both_sides_is_refused() {
        let all = sided(&[(1, true), (1, false), (1, false)]);
        let parts = parts(&all, 3);
        let refused = parts.iter().filter_map(|it| it.as_ref().err());
        let refused: Vec<&str> = refused.map(String::as_str).collect();
        insta::assert_snapshot!(refused.join("\n"), @r"
        --shard 1/3: nothing is left for this part of 1 scenarios that run on both sides; take fewer parts
        --shard 3/3: nothing is left for this part of 1 scenarios that run on both sides; take fewer parts
        ");
    }

    proptest! {
        #[test]
        fn every_scenario_belongs_to_one_part(
            of in 1_u64..6,
            all in proptest::collection::vec((0_u64..500, any::<bool>()), 0..30),
        ) {
            let all = sided(&all);
            let parts: Result<Vec<_>, _> = parts(&all, of).into_iter().collect();
            if let Ok(parts) = parts {
                let names: Vec<String> = all.into_iter().map(|it| it.name).collect();
                prop_assert_eq!(parts.concat(), names);
            }
        }
    }
}
