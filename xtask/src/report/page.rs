//! `report.html`: a run as one page that explains itself.
//!
//! A pure function of the results and of what failed scenarios left. The page asks for nothing: no script,
//! no style or picture from elsewhere, so that it can be read from a disk and kept by a CI service. Whatever
//! guests and servers have said is escaped where it is put in, and a policy of the page's own
//! (`Content-Security-Policy`) would let nothing of it run.

pub(crate) mod comparison;
mod failure;
mod matrix;
mod overview;
mod readings;
mod said;
mod slowest;
mod timeline;
mod twin;
mod way;

use std::collections::BTreeMap;
use std::path::PathBuf;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::report::left::{FAILURES, Left};
use crate::report::results::{Results, ScenarioRecord, TestRecord, Verdict};
use crate::report::summary::{closing, guests, machine};

use self::said::{block, line, link};

/// Octets that it may have.
pub(crate) const MOST: usize = 2 << 20;
/// From the most that it tells to the least: where it would be too long, it tells less.
const ROOMS: [Room; 6] = [
    Room::of(FAILURES, 400),
    Room::of(12, 400),
    Room::of(6, 400),
    Room::of(3, 200),
    Room::of(1, 100),
    Room::of(0, 50),
];
/// The harness's own tests that are told of when they failed.
const TESTS: usize = 20;
/// Stages of which it is told that they had not settled: a run has a few for each cluster.
const STAGES: usize = 50;
/// Octets of a path that is worth a link.
const PATH: usize = 1024;

const STYLE: &str = include_str!("page/style.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// How much is told.
#[derive(Clone, Copy)]
struct Room {
    /// Failures in full.
    in_full: usize,
    /// Rows of each list of scenarios; all of them are in results.json.
    rows: usize,
}

impl Room {
    const fn of(in_full: usize, rows: usize) -> Self {
        Self { in_full, rows }
    }
}

/// The page. `left` is what scenarios left, by their places in the results.
pub(crate) fn page(results: &Results, left: &BTreeMap<usize, Left>) -> String {
    let mut page = String::new();
    for room in ROOMS {
        page = whole(results, left, room).into_string();
        if page.len() <= MOST {
            break;
        }
    }
    page
}

fn whole(results: &Results, left: &BTreeMap<usize, Left>, room: Room) -> Markup {
    let failed = results.scenarios.iter().enumerate();
    let failed = failed.filter(|(_, record)| record.outcome == Verdict::Failed);
    let failed: Vec<(usize, &ScenarioRecord)> = failed.collect();
    let verdict = closing(results);
    let body = html! {
        a.skip href="#scenarios" { "To all scenarios" }
        header {
            h1 { (verdict) }
            @if let Some(error) = &results.error {
                p.error { "It did not come to its end: " (line(error)) }
            }
            (unsettled(&results.unsettled_stages))
        }
        main {
            @if failed.len() > 1 { (contents(&failed, left)) }
            @for (number, (place, record)) in failed.iter().take(room.in_full).enumerate() {
                (failure::section(number + 1, record, left.get(place)))
            }
            @if failed.len() > room.in_full {
                (others(&failed[room.in_full..], left, room.rows))
            }
            @let tests = results.harness_tests.iter();
            @for test in tests.filter(|it| it.outcome == Verdict::Failed).take(TESTS) {
                (harness_test(test))
            }
            (readings::section(results, room.rows))
            (overview::section(results, room.rows))
        }
        footer {
            p { (line(&machine(results))) }
            @if let Some(found) = guests(results) { p { (line(&found)) } }
            p { (line(&results.provenance.to_string())) }
            @if let Some(network) = &results.pod_network {
                p { "The Pod network: " (line(network)) }
            }
            @for archive in &results.pod_images {
                p { "Images of Pods: " (line(archive)) }
            }
            @if results.cluster_dns { p { "Clusters by hand have CoreDNS too." } }
            @if let Some(files) = &results.node_files {
                p { "Files over the nodes': " (line(files)) }
            }
            @for configuration in &results.configurations {
                p { (line(configuration)) }
            }
            p {
                "All of it as data: " a href="results.json" { "results.json" } ", "
                a href="junit.xml" { "junit.xml" } "."
            }
        }
    };
    document(&verdict, &body)
}

/// What there was under the scenarios that had not settled, and what it lacked.
fn unsettled(stages: &[String]) -> Markup {
    html! {
        @for said in stages.iter().take(STAGES) { p.error { (line(said)) } }
        @if stages.len() > STAGES { p.error { (stages.len() - STAGES) " more had not settled." } }
    }
}

/// A page around what it has to say.
fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                link rel="icon" href="data:,";
                title { "podwire: " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

/// Who failed, in a line each.
fn contents(failed: &[(usize, &ScenarioRecord)], left: &BTreeMap<usize, Left>) -> Markup {
    html! {
        nav aria-label="What failed" tabindex="0" {
            ol {
                @for (number, (place, record)) in failed.iter().take(FAILURES).enumerate() {
                    li {
                        a href={ "#failure-" (number + 1) } { (line(&record.name)) }
                        " " span.cell { (line(&record.cell)) } ": "
                        (failure::in_short(&record.reason, left.get(place)))
                    }
                }
            }
        }
    }
}

/// Those that there is no room for in full.
fn others(
    failed: &[(usize, &ScenarioRecord)],
    left: &BTreeMap<usize, Left>,
    rows: usize,
) -> Markup {
    let worth = |folder: &&PathBuf| folder.as_os_str().len() <= PATH;
    html! {
        section {
            h2 { "Others that failed" }
            ul {
                @for (place, record) in failed.iter().take(rows) {
                    li {
                        (line(&record.name)) " " span.cell { (line(&record.cell)) } ": "
                        (failure::in_short(&record.reason, left.get(place)))
                        @if let Some(folder) = record.folder.as_ref().filter(worth) {
                            " " a href=(link(&folder.join(Left::FIRST_PAGE))) { "first page" }
                        }
                    }
                }
            }
            @if failed.len() > rows { p { "and " (failed.len() - rows) " more in results.json" } }
        }
    }
}

fn harness_test(test: &TestRecord) -> Markup {
    html! {
        section {
            h2 { (line(&test.name)) " " span.cell { "the harness's own test" } }
            pre tabindex="0" { (block(&test.reason)) }
        }
    }
}

#[cfg(test)]
mod tests;
