//! `cargo xtask bench truth`: whether the page of a failure names the node that is at fault, for the sabotages
//! of the last run whose place is known.

use std::path::Path;

use podwire_cluster::addresses::node_name;
use podwire_scenario::{Place, Scenario};
use serde::Serialize;

use crate::bench::last_run::results_in;
use crate::report::results::Results;
use crate::say::stop::Stop;

/// A sabotage that was caught, on a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Told {
    scenario: String,
    sabotage: String,
    cell: String,
    /// Where the fault was.
    fault_on: String,
    /// Where the page ends the way of the packet that was lost.
    page_names: Option<String>,
}

impl Told {
    fn is_right(&self) -> bool {
        self.page_names.as_ref() == Some(&self.fault_on)
    }
}

/// The last run's. It fails where fewer than nine of ten are right.
pub(crate) fn truth(latest: &Path, json: bool) -> Result<(), Stop> {
    let all = told(&results_in(latest)?);
    if all.is_empty() {
        return Err(Stop::setup(
            "the last run has caught no sabotage whose place is known; `cargo xtask test` runs some",
        ));
    }
    if json {
        outln!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        out!("{}", page(&all));
    }
    verdict(&all)
}

fn right(all: &[Told]) -> usize {
    all.iter().filter(|it| it.is_right()).count()
}

/// Whether a page names the right node often enough to be believed.
fn verdict(all: &[Told]) -> Result<(), Stop> {
    let right = right(all);
    if right * 10 >= all.len() * 9 {
        return Ok(());
    }
    errln!("{right} of {} are right: fewer than nine of ten", all.len());
    Err(Stop::Failed)
}

fn told(results: &Results) -> Vec<Told> {
    let known = podwire_scenarios::all();
    let mut all = Vec::new();
    for record in &results.scenarios {
        for sabotage in record.sabotages.iter().filter(|it| it.caught) {
            let Some(place) = place(&known, &record.name, &sabotage.name) else {
                continue;
            };
            all.push(Told {
                scenario: record.name.clone(),
                sabotage: sabotage.name.clone(),
                cell: record.cell.clone(),
                fault_on: node_name(place.of(results.nodes)),
                page_names: sabotage.held_by.map(node_name),
            });
        }
    }
    all
}

/// Which node loses packets by a sabotage, if it says so of one.
fn place(all: &[Scenario], scenario: &str, sabotage: &str) -> Option<Place> {
    let scenario = all.iter().find(|it| it.name == scenario)?;
    let sabotage = scenario.sabotages.iter().find(|it| it.name == sabotage)?;
    sabotage.place
}

/// As Markdown, for the docs.
fn page(all: &[Told]) -> String {
    let right = right(all);
    let mut text = format!(
        "# Where a failure's page leads\n\nA failure's page ends the way of a lost packet at the node that had it \
         last. In {right} of {} sabotages that lose packets on one node, that is this node. Made by `cargo xtask \
         bench truth` of the last run.\n\n| scenario | sabotage | cluster | fault on | page names |\n|---|---|---|---|---|\n",
        all.len()
    );
    for it in all {
        let named = match (&it.page_names, it.is_right()) {
            (Some(named), true) => named.clone(),
            (Some(named), false) => format!("**{named}**"),
            (None, _) => "**none**".to_owned(),
        };
        text += &format!(
            "| `{}` | `{}` | {} | {} | {named} |\n",
            it.scenario, it.sabotage, it.cell, it.fault_on
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use podwire_scenario::SabotageResult;

    use super::*;
    use crate::report::fixture;

    #[test]
    fn fewer_than_nine_of_ten_fail() {
        let code = |right: usize, of: usize| {
            let told = |number: usize| Told {
                scenario: "a".into(),
                sabotage: "b".into(),
                cell: "c".into(),
                fault_on: "node1".into(),
                page_names: (number < right).then(|| "node1".into()),
            };
            let all: Vec<Told> = (0..of).map(told).collect();
            verdict(&all).err().map(|stop| stop.code())
        };
        assert_eq!((code(9, 10), code(18, 20), code(1, 1)), (None, None, None));
        assert_eq!(
            (code(8, 10), code(17, 19), code(0, 1)),
            (Some(1), Some(1), Some(1))
        );
    }

    #[test]
    fn what_the_page_names_is_compared_with_where_the_fault_was() {
        let mut results = fixture::results();
        let caught = |name: &str, held_by| SabotageResult {
            name: name.into(),
            caught: true,
            reason: String::new(),
            held_by,
        };
        results.nodes = 3;
        results.scenarios.truncate(1);
        let [record] = results.scenarios.as_mut_slice() else {
            panic!("there is one");
        };
        record.name = "services_from_everywhere".into();
        record.sabotages = vec![
            caught("bridge-filtering-off-on-node-1", Some(1)),
            caught("bridge-filtering-off-on-node-2", None),
            caught("hairpin-off", Some(2)),
            caught("of-no-known-place", Some(1)),
        ];
        record.sabotages.push(SabotageResult {
            caught: false,
            ..record.sabotages[0].clone()
        });
        insta::assert_snapshot!(page(&told(&results)), @"
        # Where a failure's page leads

        A failure's page ends the way of a lost packet at the node that had it last. In 1 of 3 sabotages that lose packets on one node, that is this node. Made by `cargo xtask bench truth` of the last run.

        | scenario | sabotage | cluster | fault on | page names |
        |---|---|---|---|---|
        | `services_from_everywhere` | `bridge-filtering-off-on-node-1` | by-hand/nftables/routes | node1 | node1 |
        | `services_from_everywhere` | `bridge-filtering-off-on-node-2` | by-hand/nftables/routes | node2 | **none** |
        | `services_from_everywhere` | `hairpin-off` | by-hand/nftables/routes | node3 | **node2** |
        ");
    }
}
