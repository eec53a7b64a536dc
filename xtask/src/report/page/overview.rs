//! All scenarios on their clusters, their times, what was not run and why.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};

use super::said::{line, short};
use super::slowest;
use crate::report::results::{LeftOut, Results, ScenarioRecord, Verdict};
use crate::say::text::clock;

/// Columns of the table.
const COLUMNS: usize = 12;
/// Parts of the run that took time.
const PHASES: usize = 100;
/// Characters of a name, and of why something was not run.
const NAME: usize = 60;
const PART: usize = 12;
const WHY: usize = 120;

pub(super) fn section(results: &Results, rows: usize) -> Markup {
    html! {
        section id="scenarios" {
            h2 { "Scenarios" }
            (scenarios(results, rows))
            (not_run(results, rows))
            (slowest::section(results))
            (times(results))
        }
    }
}

fn scenarios(results: &Results, rows: usize) -> Markup {
    let mut cells: Vec<&str> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut records: BTreeMap<(&str, &str), &ScenarioRecord> = BTreeMap::new();
    for record in &results.scenarios {
        let (name, cell) = (record.name.as_str(), record.cell.as_str());
        if !cells.contains(&cell) && cells.len() < COLUMNS {
            cells.push(cell);
        }
        if records.insert((name, cell), record).is_none() && !names.contains(&name) {
            names.push(name);
        }
    }
    // Whatever failed is told, however many there are.
    if names.len() > rows {
        let failed = |name: &str| {
            let mut of = cells.iter().filter_map(|cell| records.get(&(name, *cell)));
            of.any(|record| record.outcome == Verdict::Failed)
        };
        names.sort_by_cached_key(|name| !failed(name));
    }
    let tests = &results.harness_tests;
    let passed = tests.iter().filter(|it| it.outcome == Verdict::Passed);
    html! {
        @if !tests.is_empty() {
            p { (passed.count()) " of " (tests.len()) " of the harness's own tests passed." }
        }
        @if let Some(broken) = &results.broken {
            p {
                "Broken on purpose: " (line(&broken.name)) ". Red are "
                @if broken.as_expected { "exactly" } @else { "NOT exactly" }
                " the scenarios that declare it."
            }
        }
        @if names.is_empty() { p { "None." } } @else {
            div.wide tabindex="0" role="region" aria-label="Scenarios" {
                table.scenarios {
                    thead {
                        tr {
                            th scope="col" { "scenario" }
                            @for cell in &cells { th scope="col" { (short(cell, NAME)) } }
                        }
                    }
                    tbody {
                        @for name in names.iter().take(rows) {
                            tr {
                                th scope="row" { (short(name, NAME)) }
                                @for cell in &cells { (outcome(records.get(&(*name, *cell)))) }
                            }
                        }
                    }
                }
            }
        }
        @if names.len() > rows { p { (names.len() - rows) " more are in results.json." } }
        p.legend { "Outcome, seconds, sabotages caught. Empty: nothing for such a cluster, or not asked for." }
    }
}

fn outcome(record: Option<&&ScenarioRecord>) -> Markup {
    let Some(record) = record else {
        return html! { td {} };
    };
    let wrong = record.outcome == Verdict::Failed;
    let caught = record.sabotages.iter().filter(|it| it.caught).count();
    html! {
        td class=[wrong.then_some("wrong")] {
            (record.outcome.to_string())
            @if record.attempts > 0 { " " span.time { (format!("{:.1} s", record.seconds)) } }
            @if !record.sabotages.is_empty() { " " (caught) " of " (record.sabotages.len()) }
            @if let Some(part) = &record.part { " " span.cell { "part " (short(part, PART)) } }
        }
    }
}

fn not_run(results: &Results, rows: usize) -> Markup {
    let skipped = results.scenarios.iter();
    let skipped = skipped.filter(|record| record.outcome == Verdict::Skipped);
    let skipped: Vec<&ScenarioRecord> = skipped.collect();
    html! {
        @if !skipped.is_empty() || !results.left_out.is_empty() {
            h3 { "Not run, and why" }
        }
        @if !skipped.is_empty() {
            div.wide tabindex="0" role="region" aria-label="Not run" {
                table {
                    tbody {
                        @for record in skipped.iter().take(rows) {
                            tr {
                                th scope="row" { (short(&record.name, NAME)) }
                                td { (short(&record.cell, NAME)) }
                                td { (short(&record.reason, WHY)) }
                            }
                        }
                    }
                }
            }
            @if skipped.len() > rows { p { (skipped.len() - rows) " more are in results.json." } }
        }
        (left_out(results, rows))
    }
}

/// What was not asked for: those with the same reason together.
fn left_out(results: &Results, rows: usize) -> Markup {
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for LeftOut { name, reason } in results.left_out.iter().take(rows) {
        by_reason.entry(reason).or_default().push(short(name, NAME));
    }
    let more = results.left_out.len().saturating_sub(rows);
    html! {
        @if !by_reason.is_empty() {
            ul {
                @for (reason, names) in &by_reason {
                    li { b { (short(reason, WHY)) } ": " (names.join(", ")) }
                }
            }
        }
        @if more > 0 { p { (more) " more are in results.json." } }
    }
}

fn times(results: &Results) -> Markup {
    let time = |seconds: f64| clock(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let total: f64 = results.phases.iter().map(|phase| phase.seconds).sum();
    html! {
        h3 { "Where the time went: " (time(total)) " in all" }
        div.wide tabindex="0" role="region" aria-label="Where the time went" {
            table {
                tbody {
                    @for phase in results.phases.iter().take(PHASES) {
                        tr {
                            th scope="row" { (short(&phase.name, NAME)) }
                            td.time { (time(phase.seconds)) }
                            td { @if phase.cached { "cached" } }
                        }
                    }
                }
            }
        }
    }
}
