//! A base against a head.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::repository::{git, of_two_commits};
use super::{Running, done, laid, latest, results, workspace, xtask};

/// Nothing about the base; both sides with these scenarios alone.
pub(crate) fn compare(head: &str, filter: &str) -> Command {
    compare_in_pairs(head, filter, "0")
}

/// The same with so many pairs of readings.
fn compare_in_pairs(head: &str, filter: &str, pairs: &str) -> Command {
    let mut command = xtask("compare");
    command.args(["", head, "--filter", filter, "--pairs", pairs]);
    command.args(["--yes", "--nodes", "2", "--bootstrap", "by-hand"]);
    command
}

/// What is left of it: its data, and its page.
pub(crate) fn left() -> (Value, String) {
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
    let attempt = latest().join(folder);
    assert!(attempt.join("first-page.md").is_file());
    // The base's clone passed, and what it has not got is the rule.
    let twin = fs::read(attempt.join("twin.json")).unwrap();
    let twin: Value = serde_json::from_slice(&twin).unwrap();
    assert_eq!(
        (&twin["whose"], &twin["failed"]),
        (&"a clone of the base".into(), &Value::Null)
    );
    let unlike = twin["unlike"].as_array().unwrap();
    assert!(
        unlike
            .iter()
            .all(|it| it["node"] == "node2" && it["about"] == "rules"),
        "{twin:#}"
    );
    let lines = unlike.iter().flat_map(|it| it["lines"].as_array().unwrap());
    let own =
        lines.filter(|it| it["healthy"] == false && it["text"].to_string().contains("inet mine"));
    assert!(own.count() > 0, "{twin:#}");
}

#[test]
#[ignore = "runs clusters of machines"]
fn two_revisions_are_built_and_each_is_tested_with_its_own_files() {
    let dir = tempfile::tempdir().unwrap();
    let mine = dir.path().join("mine");
    let timeout = |seconds: u32| format!("net.ipv4.tcp_fin_timeout = {seconds}\n");
    of_two_commits(&mine, [&timeout(31), &timeout(33)]);
    let mut command = xtask("compare git:old git:HEAD --pairs 0 --nodes 2 --bootstrap by-hand");
    command.args(["--filter", "first_start", "--yes", "--repository"]);
    command.arg(&mine);
    command.args([
        "--build",
        "install -D -m 644 note tree/etc/sysctl.d/90-mine.conf",
    ]);
    command.args(["--takes", "--node-files {}/tree"]);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}{errors}");
    assert!(
        told.contains("\nhead breaks none of 1 scenario\n"),
        "{told}"
    );
    let (data, page) = left();
    for (side, revision) in [("base", "old"), ("head", "HEAD")] {
        let commit = git(&mine, &["rev-parse", "--short=12", revision]);
        let named = format!("git:{revision}, commit {commit}");
        assert_eq!(data[side]["revision"], named.as_str());
        assert!(told.contains(&format!("{side}: {named}\n")), "{told}");
        assert!(page.contains(&named));
        let tested = data[side]["tested"].as_str().unwrap();
        assert!(
            tested.contains(&commit) && tested.contains("(1 file, sha256 "),
            "{tested}"
        );
    }
}

#[test]
#[ignore = "runs clusters of machines"]
fn two_parts_on_machines_of_their_own_become_one_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("mine");
    laid::lay_out(&tree);
    let head = format!("--node-files {}", tree.display());
    let whole = dir.path().join("whole");
    let codes = ["1/2", "2/2"].map(|shard| {
        let mut part = compare(&head, "api_server_names,every_pair");
        let code = part.args(["--shard", shard]).status().unwrap().code();
        let own = fs::canonicalize(latest()).unwrap();
        fs::create_dir_all(&whole).unwrap();
        fs::rename(own, whole.join(shard.replace('/', "-"))).unwrap();
        code
    });
    let mut merge = xtask("merge --into");
    merge
        .arg(&whole)
        .args(["1-2", "2-2"].map(|part| whole.join(part)));
    let output = merge.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let data = fs::read(whole.join("compare.json")).unwrap();
    let data: Value = serde_json::from_slice(&data).unwrap();
    let scenarios = data["scenarios"].as_array().unwrap().iter();
    let parts: Vec<_> = scenarios
        .map(|it| (it["name"].as_str().unwrap(), it["part"].as_str().unwrap()))
        .collect();
    assert_eq!(parts, [("api_server_names", "1/2"), ("every_pair", "2/2")]);
    assert_eq!(codes, [Some(0), Some(1)]);
    let folder = data["scenarios"][1]["head"]["folder"].as_str().unwrap();
    assert!(
        whole.join(folder).join("first-page.md").is_file(),
        "{folder}"
    );
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

/// Whether it is said in this field that the machine under the test has no counter for what a metric counts.
fn is_not_counted_here(it: &Value, field: &str) -> bool {
    let why = it[field].as_str().unwrap_or_default();
    let known = [
        "counts no instructions",
        "may not count instructions",
        "had the processors' counters",
    ];
    it["metric"] == "instructions of a request to a Pod"
        && known.iter().any(|part| why.contains(part))
}

#[test]
#[ignore = "runs clusters of machines"]
fn numbers_are_taken_of_both_sides_in_pairs() {
    let mut compared = compare_in_pairs("", "every_pair", "1");
    let output = compared.args(["--margin", "15%"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let (data, page) = left();
    assert_eq!(data["numbers"]["margin"], 0.15, "{data}");
    for said in [&told, &page] {
        assert!(said.contains("beyond 15 %"), "{said}");
    }
    let of = |side: &str| data[side]["measured"].as_array().unwrap().len();
    // What one pair shows by chance is measured once more.
    assert!(
        (1..=2).contains(&of("base")) && of("base") == of("head"),
        "{data}"
    );
    let numbers = &data["numbers"];
    for it in numbers["unmeasured"].as_array().unwrap() {
        assert!(is_not_counted_here(it, "reason"), "{numbers}");
    }
    let metrics = numbers["metrics"].as_array().unwrap();
    for it in metrics {
        assert!(!it["pairs"].as_array().unwrap().is_empty(), "{it}");
        let name = it["metric"].as_str().unwrap();
        assert!(told.contains(name) && page.contains(name), "{name}");
    }
    let positive = |name: &str| {
        let named = metrics.iter().filter(|it| it["metric"] == name);
        let pairs = named.flat_map(|it| it["pairs"].as_array().unwrap());
        let mut all = pairs.flat_map(|it| it.as_array().unwrap()).peekable();
        all.peek().is_some() && all.all(|it| it.as_f64().unwrap() > 0.0)
    };
    for name in [
        "requests on fresh connections to a Pod",
        "latency on kept connections to a ClusterIP",
        "throughput to a Pod",
        "frames of a request to a Pod",
        "rules of a node",
        "first right answer after a change",
    ] {
        assert!(positive(name), "{name}: {numbers}");
    }
}

#[test]
#[ignore = "runs clusters of machines"]
fn what_a_comparison_measures_is_read_once_for_a_look() {
    let output = done("test --measure --yes --nodes 2 --bootstrap by-hand");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let cell = "read on by-hand/nftables/routes, once:";
    assert!(told.contains(cell), "{told}");
    let page = fs::read_to_string(latest().join("report.html")).unwrap();
    let data = results(&latest());
    let scenarios = data["scenarios"].as_array().unwrap();
    let readings = scenarios.iter().map(|it| it["readings"].as_array());
    let readings: Vec<&Value> = readings.flat_map(Option::unwrap).collect();
    assert!(readings.len() >= 15, "{data}");
    for it in readings {
        let name = it["metric"].as_str().unwrap();
        let read = it["value"].is_number() || is_not_counted_here(it, "unread");
        assert!(read, "{it}");
        assert!(told.contains(name) && page.contains(name), "{name}");
    }
}

#[test]
#[ignore = "runs clusters of machines"]
fn ctrl_c_while_numbers_are_taken_leaves_the_verdicts() {
    let mut compared = Running::of(&mut compare_in_pairs("", "every_pair", "6"));
    compared.wait_for("base, pair 1 of 6: ");
    let (code, heard) = compared.interrupt();
    assert_eq!(code, Some(130), "{heard:#?}");
    let (data, _) = left();
    assert_eq!(data["error"], "ended by Ctrl-C");
    assert_eq!(data["scenarios"][0]["difference"], "passes_on_both");
    assert_eq!(data["numbers"]["metrics"], Value::Array(Vec::new()));
}

#[test]
#[ignore = "runs clusters of machines, and takes an hour where they are emulated"]
fn a_delay_on_the_way_is_worse_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    finds_a_delay(&dir.path().join("slow"));
}

/// Has head's nodes, with files that are made there, send what they send 40 ms later.
pub(crate) fn finds_a_delay(slow: &Path) {
    let tree = workspace().join(slow);
    let network = tree.join("etc/systemd/network/20-segment.network.d");
    fs::create_dir_all(&network).unwrap();
    let delays = "[NetworkEmulator]\nParent=root\nDelaySec=40ms\n";
    fs::write(network.join("slow.conf"), delays).unwrap();
    let head = format!("--node-files {}", slow.display());
    let mut compared = compare_in_pairs(&head, "every_pair", "6");
    let output = compared.args(["--measurements", "measure_way"]).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let (data, page) = left();
    assert_eq!(data["counts"]["broke"], 0, "{data}");
    let metrics = data["numbers"]["metrics"].as_array().unwrap();
    let answer = |name: &str| {
        let mut named = metrics.iter().filter(|it| it["metric"] == name);
        named.next().unwrap()["answer"].as_str().unwrap().to_owned()
    };
    assert_eq!(answer("latency on kept connections to a Pod"), "worse");
    assert_eq!(
        answer("latency on fresh connections to a ClusterIP"),
        "worse"
    );
    assert_eq!(answer("rules of a node"), "within");
    assert!(page.contains("class=\"wrong\""));
}
