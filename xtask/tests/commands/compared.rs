//! A base against a head.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{Running, laid, latest, xtask};

/// Nothing about the base; both sides with these scenarios alone.
fn compare(head: &str, filter: &str) -> Command {
    let mut command = xtask("compare");
    command.args(["", head, "--filter", filter]);
    command.args(["--yes", "--nodes", "2", "--bootstrap", "by-hand"]);
    command
}

/// What is left of it: its data, and its page.
fn left() -> (Value, String) {
    let data = fs::read(latest().join("compare.json")).unwrap();
    let page = fs::read_to_string(latest().join("report.html")).unwrap();
    (serde_json::from_slice(&data).unwrap(), page)
}

fn runs(of: &Value) -> usize {
    of["runs"].as_array().unwrap().len()
}

#[test]
#[ignore = "runs clusters of machines"]
fn the_same_on_both_sides_breaks_nothing() {
    let output = compare("", "static_routes,every_pair").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("\nhead breaks none of 2 scenarios\n"),
        "{told}"
    );
    let (data, page) = left();
    assert_eq!((runs(&data["base"]), runs(&data["head"])), (1, 1), "{data}");
    assert!(page.contains("<h1>head breaks none of 2 scenarios</h1>"));
}

#[test]
#[ignore = "runs clusters of machines"]
fn what_a_change_breaks_has_failed_five_times_where_the_base_passed_five_times() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("mine");
    laid::lay_out(&tree);
    let head = format!("--node-files {}", tree.display());
    let output = compare(&head, "every_pair").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("\nhead breaks 1 of 1 scenario\n"), "{told}");
    let (data, page) = left();
    assert_eq!((runs(&data["base"]), runs(&data["head"])), (5, 5), "{data}");
    let scenario = &data["scenarios"][0];
    assert_eq!(scenario["difference"], "broke");
    let tested = data["head"]["tested"].as_str().unwrap();
    assert!(tested.contains("(2 files, sha256 "), "{tested}");
    let again = scenario["head"]["again"].as_str().unwrap();
    assert!(again.contains(&head), "{again}");
    assert!(told.contains(again) && page.contains(again), "{told}");
    let folder = scenario["head"]["folder"].as_str().unwrap();
    assert!(latest().join(folder).join("first-page.md").is_file());
}

#[test]
#[ignore = "runs clusters of machines"]
fn ctrl_c_ends_the_run_of_a_side_and_tells_what_has_verdicts() {
    let mut compared = Running::of(&mut compare("", "every_pair"));
    compared.wait_for("head, run 1: ");
    let (code, heard) = compared.interrupt();
    assert_eq!(code, Some(130), "{heard:#?}");
    let (data, _) = left();
    assert_eq!(data["error"], "ended by Ctrl-C");
    assert_eq!(data["scenarios"][0]["difference"], "undecided");
    assert_eq!(runs(&data["base"]), 1, "{data}");
}
