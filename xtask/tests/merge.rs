//! What is for several machines, as a person types it: `cargo xtask merge`, `--shard auto`, `--prepare-only`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// In a project of its own, with nothing set that a CI system sets, and its results in its own folder.
fn command(project: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(words).current_dir(project);
    command.env("CARGO_MANIFEST_DIR", project);
    for name in [
        "CARGO_TARGET_DIR",
        "CI",
        "CI_NODE_INDEX",
        "CI_NODE_TOTAL",
        "JOB_COMPLETION_INDEX",
        "PODWIRE_OUTPUT",
    ] {
        command.env_remove(name);
    }
    command
}

fn xtask(project: &Path, words: &[&str]) -> Output {
    command(project, words).output().unwrap()
}

/// A part of two scenarios, of which it had one.
fn part(number: usize, outcome: &str) -> Value {
    let cell = "by-hand/nftables/routes";
    let names = ["pod_addresses", "every_pair"];
    let all = names.map(|name| json!({ "cell": cell, "name": name }));
    json!({
        "accelerator": "tcg", "speed_factor": 7.5, "kubernetes": "1.36.4",
        "provenance": {
            "kubernetes": "1.36.4", "source": "modules", "directory": null, "replaced": [],
        },
        "system": "debian", "nodes": 3, "shard": format!("{number}/2"),
        "whole": { "podwire": null, "arguments": [], "scenarios": all },
        "repeat": 1, "image": null, "package_differences": [], "error": null, "phases": [],
        "harness_tests": [],
        "scenarios": [{
            "name": names[number - 1], "cell": cell, "covers": ["C4"], "outcome": outcome,
            "reason": "two Pods share 10.1.1.7", "attempts": 1, "seconds": 31.5, "sabotages": [],
            "parts": {}, "folder": null,
        }],
    })
}

#[test]
fn parts_become_one_result_with_one_verdict() {
    let project = tempfile::tempdir().unwrap();
    fs::create_dir_all(project.path().join("images/bundle")).unwrap();
    let write = |folder: &str, results: &str| {
        let folder = project.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("results.json"), results).unwrap();
    };
    write("one", &part(1, "passed").to_string());
    write("two", &part(2, "passed").to_string());
    let done = xtask(project.path(), &["merge", "two", "one"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.ends_with("2 passed, 0 failed\n"), "{said}");
    let latest = project.path().join("target/podwire/latest");
    let results = fs::read(latest.join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&results).unwrap();
    let parts = results["scenarios"].as_array().unwrap();
    let parts: Vec<_> = parts.iter().map(|it| (&it["name"], &it["part"])).collect();
    let wanted = [
        json!("pod_addresses"),
        json!("1/2"),
        json!("every_pair"),
        json!("2/2"),
    ];
    assert_eq!(parts, [(&wanted[0], &wanted[1]), (&wanted[2], &wanted[3])]);
    let junit = fs::read_to_string(latest.join("junit.xml")).unwrap();
    assert!(junit.contains("every_pair"), "{junit}");
    let page = fs::read_to_string(latest.join("report.html")).unwrap();
    assert!(page.contains("<h1>2 passed, 0 failed</h1>"), "{page}");
    assert!(page.contains("part 2/2"), "{page}");
    assert!(
        said.contains("report: target/podwire/latest/report.html\n"),
        "{said}"
    );

    write("two", &part(2, "failed").to_string());
    let failed = xtask(project.path(), &["merge", "one", "two"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");

    write("nothing", "{");
    for (folders, told) in [
        (vec!["one"], "missing: part 2 of 2"),
        (vec!["one", "two", "two"], "are both part 2/2"),
        (vec!["one", "nowhere"], "cannot read nowhere/results.json"),
        (
            vec!["one", "nothing"],
            "nothing/results.json is not a run's results",
        ),
    ] {
        let words: Vec<&str> = ["merge"].into_iter().chain(folders).collect();
        let refused = xtask(project.path(), &words);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

/// A part of a comparison of two scenarios, of which it had one.
fn compared(number: usize, difference: &str) -> Value {
    let names = ["pod_addresses", "every_pair"];
    let side =
        |state: &str| json!({ "runs": [state], "reason": null, "folder": null, "again": null });
    let made_of = json!({ "Kubernetes is": "1.36.4", "the nodes run": "debian" });
    let run =
        |side: &str| json!({ "folder": format!("{side}/runs/1"), "seconds": 90.0, "error": null });
    let of =
        |side: &str| json!({ "flags": [], "tested": "by-hand on debian", "runs": [run(side)] });
    json!({
        "sentence": "", "error": null,
        "counts": {
            "compared": 1, "broke": 0, "recovered": 0, "now_and_then": 0, "undecided": 0, "absent": 0,
            "fails_on_both": 0,
        },
        "part": {
            "shard": format!("{number}/2"), "podwire": null, "arguments": ["", ""],
            "scenarios": names, "made_of": [made_of, made_of],
        },
        "base": of("base"), "head": of("head"),
        "scenarios": [{
            "name": names[number - 1], "cluster": "by-hand", "difference": difference,
            "base": side("passed"), "head": side(if difference == "broke" { "failed" } else { "passed" }),
        }],
    })
}

#[test]
fn parts_of_a_comparison_become_one_with_one_verdict() {
    let project = tempfile::tempdir().unwrap();
    fs::create_dir_all(project.path().join("images/bundle")).unwrap();
    let write = |folder: &str, file: &str, text: &str| {
        let folder = project.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    };
    write(
        "one",
        "compare.json",
        &compared(1, "passes_on_both").to_string(),
    );
    write(
        "two",
        "compare.json",
        &compared(2, "passes_on_both").to_string(),
    );
    let done = xtask(project.path(), &["merge", "two", "one"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(
        said.contains("\nhead breaks none of 2 scenarios\n"),
        "{said}"
    );
    let latest = project.path().join("target/podwire/latest");
    assert!(latest.join("report.html").exists());

    write("two", "compare.json", &compared(2, "broke").to_string());
    let worse = xtask(project.path(), &["merge", "one", "two"]);
    assert_eq!(worse.status.code(), Some(1), "{worse:?}");
    let whole = fs::read(latest.join("compare.json")).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    let parts = whole["scenarios"].as_array().unwrap().iter();
    let parts: Vec<_> = parts.map(|it| (&it["name"], &it["part"])).collect();
    let [one, two] = [json!("1/2"), json!("2/2")];
    let names = [json!("pod_addresses"), json!("every_pair")];
    assert_eq!(parts, [(&names[0], &one), (&names[1], &two)]);
    assert!(whole["part"].is_null(), "{whole}");
    let page = fs::read_to_string(latest.join("report.html")).unwrap();
    assert!(page.contains("part 2/2"), "{page}");

    write("run", "results.json", &part(2, "passed").to_string());
    write("nothing", "compare.json", "{");
    for (folders, told) in [
        (vec!["one"], "missing: part 2 of 2"),
        (
            vec!["one", "run"],
            "run has a run's results and one a comparison",
        ),
        (
            vec!["one", "nothing"],
            "nothing/compare.json is not a comparison",
        ),
    ] {
        let words: Vec<&str> = ["merge"].into_iter().chain(folders).collect();
        let refused = xtask(project.path(), &words);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

/// Parts that lie below the whole's report are moved together with it, as an artifact is.
#[test]
fn a_report_leads_to_evidence_below_it_wherever_both_are() {
    let project = tempfile::tempdir().unwrap();
    fs::create_dir_all(project.path().join("images/bundle")).unwrap();
    let evidence = "by-hand/scenarios/every_pair/attempt-1";
    for (folder, number, outcome) in [("all/one", 1, "passed"), ("all/two", 2, "failed")] {
        let mut part = part(number, outcome);
        let folder = project.path().join(folder);
        if outcome == "failed" {
            part["scenarios"][0]["folder"] = json!(evidence);
            fs::create_dir_all(folder.join(evidence)).unwrap();
            fs::write(folder.join(evidence).join("first-page.md"), "").unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("results.json"), part.to_string()).unwrap();
    }
    // Whatever the way to it.
    std::os::unix::fs::symlink("all", project.path().join("link")).unwrap();
    let words = ["merge", "--into", "link", "all/one", "./all/two"];
    let done = xtask(project.path(), &words);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("report: link/report.html\n"), "{said}");
    assert!(!project.path().join("target").exists());

    let moved = project.path().join("elsewhere");
    fs::rename(project.path().join("all"), &moved).unwrap();
    let results = fs::read(moved.join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&results).unwrap();
    let folder = results["scenarios"][1]["folder"].as_str().unwrap();
    assert!(
        moved.join(folder).join("first-page.md").exists(),
        "{folder}"
    );
    let page = fs::read_to_string(moved.join("report.html")).unwrap();
    let link = format!("href=\"two/{evidence}/first-page.md\"");
    assert!(page.contains(&link), "{page}");
    let here = project.path().display().to_string();
    assert!(!page.contains(&here), "{page}");

    let own = xtask(&moved, &["merge", "--into", "one", "one", "two"]);
    assert_eq!(own.status.code(), Some(2), "{own:?}");
    let said = String::from_utf8_lossy(&own.stderr).into_owned();
    assert!(said.contains("a part's own results"), "{said}");
}

/// As the terminal does that was closed, and `| head`: both ends are gone before the first word.
#[test]
fn a_report_is_whole_although_nobody_reads_what_is_said_of_it() {
    let project = tempfile::tempdir().unwrap();
    fs::create_dir_all(project.path().join("images/bundle")).unwrap();
    for (folder, number, outcome) in [("one", 1, "passed"), ("two", 2, "failed")] {
        fs::create_dir(project.path().join(folder)).unwrap();
        let results = project.path().join(folder).join("results.json");
        fs::write(results, part(number, outcome).to_string()).unwrap();
    }
    let mut command = command(project.path(), &["merge", "one", "two"]);
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let status = command.stdout(gone()).stderr(gone()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let latest = project.path().join("target/podwire/latest");
    let results = fs::read(latest.join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&results).unwrap();
    let outcomes = results["scenarios"].as_array().unwrap().iter();
    let outcomes: Vec<_> = outcomes.map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["passed", "failed"]);
    let junit = fs::read_to_string(latest.join("junit.xml")).unwrap();
    assert!(junit.trim_end().ends_with("</testsuites>"), "{junit}");
}

/// Where the action looks for them, whoever has set it.
#[test]
fn results_are_in_the_folder_that_cargo_is_told() {
    let project = tempfile::tempdir().unwrap();
    fs::create_dir_all(project.path().join("images/bundle")).unwrap();
    for number in [1, 2] {
        let folder = project.path().join(number.to_string());
        fs::create_dir(&folder).unwrap();
        let results = part(number, "passed").to_string();
        fs::write(folder.join("results.json"), results).unwrap();
    }
    let elsewhere = project.path().join("elsewhere");
    let mut merge = command(project.path(), &["merge", "1", "2"]);
    let done = merge.env("CARGO_TARGET_DIR", &elsewhere).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(elsewhere.join("podwire/latest/results.json").exists());
    assert!(!project.path().join("target").exists());
}

#[test]
fn a_part_that_nobody_has_numbered_is_refused_before_anything_is_done() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let refused = xtask(project, &["test", "--plan", "--shard", "auto"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("CI_NODE_INDEX"), "{said}");
}

#[test]
fn a_part_that_a_ci_system_has_numbered_is_the_one_of_that_number() {
    let cache = tempfile::tempdir().unwrap();
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let planned = |words: &[&str], set: &[(&str, &str)]| {
        let mut command = command(project, words);
        command.env("PODWIRE_CACHE", cache.path());
        let done = command.envs(set.iter().copied()).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let gitlab = [("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "3")];
    let job = [("JOB_COMPLETION_INDEX", "0")];
    for command in [&["test", "--plan"][..], &["compare", "", "", "--plan"]] {
        // What is free of memory and disk is another each time.
        let plan = |shard: &str, set| {
            let told = planned(&[command, &["--shard", shard]].concat(), set);
            let lines = told.lines().filter(|line| !line.contains("available"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let [first, second] = ["1/3", "2/3"].map(|shard| plan(shard, &[]));
        assert_ne!(first, second);
        assert_eq!(plan("auto", &gitlab), second, "{command:?}");
        assert_eq!(plan("auto/3", &job), first, "{command:?}");
    }
}

/// What depends on how a machine runs guests is not in it, and does not end it.
#[test]
fn what_is_only_prepared_is_planned_without_machines() {
    let cache = tempfile::tempdir().unwrap();
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let planned = |words: &[&str]| {
        let mut command = command(project, words);
        let done = command.env("PODWIRE_CACHE", cache.path()).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let phases = |plan: &str| {
        let lines = plan.lines().filter_map(|line| line.strip_prefix("  "));
        let names = lines.filter_map(|line| line.split("  ").next().map(str::to_owned));
        names.collect::<Vec<_>>().join(", ")
    };
    let whole = planned(&["test", "--plan"]);
    assert!(phases(&whole).ends_with(", stage, scenarios"), "{whole}");
    let only = planned(&["test", "--plan", "--prepare-only", "--require-kvm"]);
    let wanted = "packages, tools, base image, bundle, node image, test programs";
    assert_eq!(phases(&only), wanted, "{only}");
    assert!(only.contains("no test is run"), "{only}");
    // Of a comparison both sides.
    let head = "--kube-proxy iptables";
    let both = planned(&["compare", "", head, "--plan", "--prepare-only"]);
    assert_eq!(phases(&both), format!("{wanted}, {wanted}"), "{both}");
    assert!(both.contains("\nhead: --kube-proxy iptables\n"), "{both}");
}
