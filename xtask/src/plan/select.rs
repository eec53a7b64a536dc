//! Which scenarios a run takes.

use podwire_scenario::{Profile, Scenario};

use crate::say::text::nearest;

/// A filter's word that matches nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    word: String,
    nearest: Vec<String>,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "--filter: no scenario is named, contains or covers `{}`",
            self.word
        )?;
        if !self.nearest.is_empty() {
            write!(f, "; the nearest: {}", self.nearest.join(", "))?;
        }
        write!(f, " (`cargo xtask scenarios` lists them all)")
    }
}

/// The scenarios of a profile; a filter chooses among all of them unless a profile is named too.
///
/// # Errors
/// [`Unknown`] for the first word of the filter that matches no scenario.
pub(crate) fn choose<'a>(
    catalogue: &'a [Scenario],
    filter: Option<&str>,
    profile: Option<Profile>,
) -> Result<Vec<&'a Scenario>, Unknown> {
    let words: Option<Vec<&str>> = filter.map(|text| {
        text.split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect()
    });
    if let Some(unknown) = words
        .iter()
        .flatten()
        .find(|word| !catalogue.iter().any(|s| matches(s, word, catalogue)))
    {
        return Err(Unknown {
            word: (*unknown).to_owned(),
            nearest: nearest(names(catalogue), unknown),
        });
    }
    let widest = widest(filter, profile);
    Ok(catalogue
        .iter()
        .filter(|scenario| scenario.profile <= widest)
        .filter(|scenario| {
            words
                .as_ref()
                .is_none_or(|words| words.iter().any(|word| matches(scenario, word, catalogue)))
        })
        .collect())
}

/// The profile of a run that was told these.
pub(crate) fn widest(filter: Option<&str>, profile: Option<Profile>) -> Profile {
    match (profile, filter) {
        (Some(profile), _) => profile,
        (None, Some(_)) => Profile::Full,
        (None, None) => Profile::Default,
    }
}

/// A word that is exactly some name or id means only that; else it is a part of names.
fn matches(scenario: &Scenario, word: &str, catalogue: &[Scenario]) -> bool {
    let exact = |scenario: &Scenario| {
        scenario.name == word || scenario.ids().iter().any(|id| same_id(id, word))
    };
    exact(scenario)
        || (!catalogue.iter().any(exact) && scenario.name.contains(&word.replace('-', "_")))
}

/// The mark of a failure that is shown on purpose, as in docs/scenarios.md, is no part of an id.
fn same_id(id: &str, word: &str) -> bool {
    word.trim_end_matches('!').eq_ignore_ascii_case(id)
}

fn names(catalogue: &[Scenario]) -> impl Iterator<Item = &str> {
    let all = catalogue.iter();
    all.flat_map(|scenario| std::iter::once(scenario.name).chain(scenario.ids()))
}

/// What a run takes for a cell. A scenario that is not in it was left out by a filter and never counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Names of the scenarios to run.
    pub(crate) scenarios: Vec<String>,
    /// Those selected that this machine cannot run.
    pub(crate) skipped: Vec<Skipped>,
}

/// A scenario that was selected and cannot run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Its name.
    pub(crate) name: String,
    /// What it needs that this run does not have.
    pub(crate) reason: String,
}

/// Parts what this cluster can carry from what it cannot.
pub(crate) fn select(chosen: &[&Scenario], nodes: u32) -> Selection {
    let (able, unable): (Vec<&Scenario>, Vec<&Scenario>) =
        chosen.iter().partition(|scenario| scenario.nodes <= nodes);
    Selection {
        scenarios: able
            .iter()
            .map(|scenario| scenario.name.to_owned())
            .collect(),
        skipped: unable
            .iter()
            .map(|scenario| Skipped {
                name: scenario.name.to_owned(),
                reason: format!("needs {} nodes, this cluster has {nodes}", scenario.nodes),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::scenario;
    use podwire_scenarios::catalogue::{C4, C6, C7, C8, E7, E34};

    fn catalogue() -> Vec<Scenario> {
        vec![
            Scenario {
                covers: &[C6, C7, C8],
                ..scenario("static_routes")
            },
            Scenario {
                covers: &[C4],
                ..scenario("pod_addresses")
            },
            Scenario {
                covers: &[E7],
                nodes: 3,
                ..scenario("pod_addresses_seen")
            },
            Scenario {
                covers: &[E34],
                profile: Profile::Full,
                ..scenario("rejoin_bridge")
            },
        ]
    }

    fn names(filter: Option<&str>, profile: Option<Profile>) -> String {
        match choose(&catalogue(), filter, profile) {
            Ok(chosen) => chosen.iter().map(|s| s.name).collect::<Vec<_>>().join(" "),
            Err(unknown) => unknown.to_string(),
        }
    }

    #[test]
    fn without_a_filter_the_profile_decides() {
        assert_eq!(
            names(None, None),
            "static_routes pod_addresses pod_addresses_seen"
        );
        assert_eq!(
            names(None, Some(Profile::Full)),
            "static_routes pod_addresses pod_addresses_seen rejoin_bridge"
        );
    }

    #[test]
    fn a_filter_takes_names_parts_of_names_and_ids() {
        assert_eq!(names(Some("static_routes"), None), "static_routes");
        // An exact name is not also a part of a longer one.
        assert_eq!(names(Some("pod_addresses"), None), "pod_addresses");
        assert_eq!(
            names(Some("address"), None),
            "pod_addresses pod_addresses_seen"
        );
        assert_eq!(names(Some("c6"), None), "static_routes");
        assert_eq!(names(Some("C6!"), None), "static_routes");
        assert_eq!(
            names(Some("C4, static-r"), None),
            "static_routes pod_addresses"
        );
    }

    #[test]
    fn a_filter_reaches_beyond_the_default_profile_unless_one_is_named() {
        assert_eq!(names(Some("E34"), None), "rejoin_bridge");
        assert_eq!(names(Some("E34"), Some(Profile::Default)), "");
    }

    #[test]
    fn an_unknown_word_is_named_with_the_nearest() {
        insta::assert_snapshot!(names(Some("C7,static_rotes"), None), @"--filter: no scenario is named, contains or covers `static_rotes`; the nearest: static_routes (`cargo xtask scenarios` lists them all)");
    }

    #[test]
    fn what_a_small_cluster_cannot_show_is_skipped_with_the_reason() {
        let catalogue = catalogue();
        let chosen = choose(&catalogue, Some("address"), None).unwrap();
        let selection = select(&chosen, 2);
        assert_eq!(selection.scenarios, ["pod_addresses"]);
        assert_eq!(selection.skipped[0].name, "pod_addresses_seen");
        assert_eq!(
            selection.skipped[0].reason,
            "needs 3 nodes, this cluster has 2"
        );
    }
}
