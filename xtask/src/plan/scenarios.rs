//! `cargo xtask scenarios`: all scenarios, for people and programs.

use podwire_cluster::StageName;
use podwire_scenario::{Profile, Scenario};
use serde::Serialize;

/// One scenario as `--json` shows it.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    name: &'a str,
    about: &'a str,
    covers: Vec<&'a str>,
    stage: StageName,
    profile: &'static str,
    nodes: u32,
    limit_seconds: u64,
    sabotages: Vec<Fault<'a>>,
    red_when: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Fault<'a> {
    name: &'a str,
    about: &'a str,
}

fn profile(scenario: &Scenario) -> &'static str {
    match scenario.profile {
        Profile::Everywhere => "default, on each cluster",
        Profile::Default => "default",
        Profile::Full => "full",
    }
}

/// An array of objects.
pub(crate) fn json(scenarios: &[&Scenario]) -> serde_json::Result<String> {
    let entries: Vec<Entry<'_>> = scenarios
        .iter()
        .map(|scenario| Entry {
            name: scenario.name,
            about: scenario.about,
            covers: scenario.ids(),
            stage: scenario.stage,
            profile: profile(scenario),
            nodes: scenario.nodes,
            limit_seconds: scenario.limit.as_secs(),
            sabotages: scenario
                .sabotages
                .iter()
                .map(|sabotage| Fault {
                    name: sabotage.name,
                    about: sabotage.about,
                })
                .collect(),
            red_when: scenario.red_when.iter().map(ToString::to_string).collect(),
        })
        .collect();
    serde_json::to_string_pretty(&entries)
}

/// A paragraph for each.
pub(crate) fn text(scenarios: &[&Scenario]) -> String {
    let mut text = String::new();
    for scenario in scenarios {
        text += &format!(
            "{}\n  {}\n  covers {}; starts from `{}`; profile {}; at least {} {}\n",
            scenario.name,
            scenario.about,
            scenario.ids().join(" "),
            scenario.stage,
            profile(scenario),
            scenario.nodes,
            if scenario.nodes == 1 { "node" } else { "nodes" },
        );
        for sabotage in scenario.sabotages {
            text += &format!("  sabotage {}: {}\n", sabotage.name, sabotage.about);
        }
        if !scenario.red_when.is_empty() {
            let breaks: Vec<String> = scenario
                .red_when
                .iter()
                .map(|broken| format!("--break {broken}"))
                .collect();
            text += &format!("  red with {}\n", breaks.join(", "));
        }
        text.push('\n');
    }
    text += &match scenarios.len() {
        1 => "1 scenario\n".to_owned(),
        count => format!("{count} scenarios\n"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::scenario;
    use podwire_cluster::Break;
    use podwire_scenarios::catalogue::{C6, C7};

    #[test]
    fn the_list_says_what_each_covers_and_what_proves_it() {
        let routes = Scenario {
            covers: &[C6, C7],
            red_when: &[Break::Route],
            profile: Profile::Full,
            ..scenario("static_routes")
        };
        insta::assert_snapshot!(text(&[&routes]));
        insta::assert_snapshot!(json(&[&routes]).unwrap());
    }
}
