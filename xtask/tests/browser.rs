//! `report.html` in a real browser, from the file system. Nothing else needs one, so these are run when asked
//! for: `cargo test -p xtask --test browser -- --ignored`, with Chromium or Chrome on the path.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod chromium;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chromium::{open, picture};
use serde_json::{Value, json};

/// Looks at the report in a frame of one screen's size, and becomes what it saw.
const LOOK: &str = r#"<!DOCTYPE html><meta charset="utf-8"><body>
<iframe id="frame" width="1280" height="800" style="border:0" src="report.html"></iframe>
<script>
addEventListener("load", () => {
  const page = document.getElementById("frame").contentWindow, dom = page.document;
  const place = (name) => {
    const it = dom.querySelector(name), box = it?.getBoundingClientRect();
    return it && { text: it.textContent, top: box.top, bottom: box.bottom, right: box.right };
  };
  const reached = [...dom.querySelectorAll("a, summary, pre, nav, .wide")];
  const asked = page.performance.getEntriesByType("resource").map((it) => it.name);
  document.body.textContent = "SEEN" + JSON.stringify({
    title: dom.title,
    who: place(".who"), whom: place(".whom"), where: place(".where"),
    scripts: dom.scripts.length,
    asked: asked.filter((it) => !it.startsWith("data:")),
    unreachable: reached.filter((it) => it.tabIndex < 0).map((it) => it.outerHTML),
    wider: dom.documentElement.scrollWidth > 1280,
    wrong: [...dom.querySelectorAll(".pairs td")].map((it) => page.getComputedStyle(it).backgroundColor),
    links: [...dom.querySelectorAll("a[href^='#']")].map((it) => ({
      text: it.textContent, row: it.closest("tr") !== null,
      to: dom.getElementById(it.hash.slice(1))?.textContent ?? null,
    })),
    paper: page.getComputedStyle(dom.body).backgroundColor,
    ink: page.getComputedStyle(dom.body).color,
  }) + "SEEN";
});
</script>"#;

fn console(done: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let lines = said.lines().filter(|line| line.contains("CONSOLE"));
    lines.map(str::to_owned).collect()
}

/// What the page that looks at the report saw.
fn seen(folder: &Path, flags: &[&str]) -> Value {
    let look = folder.join("look.html");
    fs::write(&look, LOOK).unwrap();
    let all = [flags, &["--allow-file-access-from-files", "--dump-dom"]].concat();
    let done = open(&look, &all);
    let dom = String::from_utf8_lossy(&done.stdout).into_owned();
    let told = dom.split("SEEN").nth(1);
    assert!(told.is_some(), "{done:?}");
    // The browser writes it as HTML.
    let told = told.unwrap().replace("&lt;", "<").replace("&gt;", ">");
    serde_json::from_str(&told.replace("&amp;", "&")).unwrap()
}

/// What `cargo xtask merge` makes of a part in which a scenario failed; the page is in the folder.
fn report(project: &Path) -> PathBuf {
    fs::create_dir_all(project.join("images/bundle")).unwrap();
    let (cell, name) = ("by-hand/nftables/routes", "every_pair");
    let results = json!({
        "accelerator": "tcg", "speed_factor": 7.5, "kubernetes": "1.36.4",
        "provenance": {
            "kubernetes": "1.36.4", "source": "modules", "directory": null, "replaced": [],
        },
        "system": "debian", "nodes": 3, "shard": "1/1",
        "whole": {
            "podwire": null, "arguments": [],
            "scenarios": [{ "cell": cell, "name": name }],
        },
        "repeat": 1, "image": null, "package_differences": [], "error": null, "phases": [],
        "harness_tests": [],
        "scenarios": [{
            "name": name, "cell": cell, "covers": ["C4"], "outcome": "failed", "reason": "no answer",
            "attempts": 1, "seconds": 31.5, "sabotages": [], "parts": {}, "folder": "attempt-1",
            "again": "cargo xtask test --bootstrap by-hand --filter every_pair",
        }],
    });
    let end = |node: u32| {
        let name = format!("blue-589d7cd7d5-x{node}");
        json!({ "node": node, "name": name, "address": format!("10.1.{node}.2") })
    };
    let nodes = [1, 2, 3];
    let pairs = nodes.iter().flat_map(|from| nodes.map(|to| (*from, to)));
    let pairs = pairs.map(|(from, to)| {
        let wrong = (from, to) == (1, 2);
        let seen = if wrong { "timed out" } else { "answered" };
        json!({
            "from": end(from), "to": end(to), "expected": "answered", "seen": seen, "wrong": wrong,
        })
    });
    let hop =
        |to: &str, at: Value| json!({ "from": "node1", "to": to, "answer": false, "at_us": at });
    let account = json!({
        "about": "Pods of every node reach each other", "cause": "timed_out",
        "expected": "every pair to answer", "seen": "1 of 9 pairs did otherwise:\n  one",
        "look": "`ip route` of the sending node", "met": null, "failed_ms": 8100,
        "steps": [{ "at_ms": 2900, "text": "everybody reaches everybody" }],
        "pairs": {
            "all": pairs.collect::<Vec<_>>(),
            "lost": {
                "from": end(1), "to": end(2), "held_by": 1, "heading": "10.1.2.2", "left_out": 0,
                "hops": [hop("gateway", json!(2_950_123)), hop("node2", Value::Null)],
                "ended": "what came last was the request: it went to the gateway, which drops it: \
                          the next hop should have been node2",
                "frames": [{
                    "at_us": 2_950_123, "length": 74, "from": "node1", "to": ["gateway"], "lost": [],
                    "what": "10.1.1.2:40000 > 10.1.2.2:80 TCP SYN", "tunnel": null,
                }],
            },
        },
    });
    let part = project.join("part");
    fs::create_dir_all(part.join("attempt-1")).unwrap();
    fs::write(part.join("results.json"), results.to_string()).unwrap();
    fs::write(part.join("attempt-1/failure.json"), account.to_string()).unwrap();
    merged(project)
}

/// The folder with the report of `part` alone, in which something is red.
fn merged(project: &Path) -> PathBuf {
    let merge = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["merge", "part"])
        .current_dir(project)
        .env("CARGO_MANIFEST_DIR", project)
        .output()
        .unwrap();
    assert_eq!(merge.status.code(), Some(1), "{merge:?}");
    fs::canonicalize(project.join("target/podwire/latest")).unwrap()
}

/// What `cargo xtask merge` makes of a part of a comparison in which head breaks so many scenarios.
fn comparison(project: &Path, broken: usize) -> PathBuf {
    fs::create_dir_all(project.join("images/bundle")).unwrap();
    let names = (0..broken).map(|number| format!("scenario_{number}"));
    let names: Vec<String> = names.collect();
    let of = |side: &str| {
        let run = json!({ "folder": format!("{side}/runs/1"), "seconds": 90.0, "error": null });
        json!({ "flags": [], "tested": "by-hand on debian", "runs": [run] })
    };
    let passed =
        json!({ "runs": vec!["passed"; 5], "reason": null, "folder": null, "again": null });
    let scenarios = names.iter().map(|name| {
        let head = json!({
            "runs": vec!["failed"; 5], "reason": format!("expected an answer; seen: none of {name}"),
            "folder": null, "again": format!("cargo xtask test --filter {name}"),
        });
        json!({
            "name": name, "cluster": "by-hand", "difference": "broke", "base": passed, "head": head,
        })
    });
    let comparison = json!({
        "sentence": "", "error": null,
        "counts": {
            "compared": 0, "broke": 0, "recovered": 0, "now_and_then": 0, "undecided": 0, "absent": 0,
            "fails_on_both": 0,
        },
        "part": {
            "shard": "1/1", "podwire": null, "arguments": ["", ""], "scenarios": names,
            "made_of": [{}, {}],
        },
        "base": of("base"), "head": of("head"), "scenarios": scenarios.collect::<Vec<_>>(),
    });
    let part = project.join("part");
    fs::create_dir_all(&part).unwrap();
    fs::write(part.join("compare.json"), comparison.to_string()).unwrap();
    merged(project)
}

#[test]
#[ignore = "needs Chromium: cargo test -p xtask --test browser -- --ignored"]
fn the_report_opens_from_the_disk_and_its_first_screen_names_who_whom_and_where() {
    let project = tempfile::tempdir().unwrap();
    let folder = report(project.path());
    let taken = folder.join("report.png");
    let opened = picture(&folder.join("report.html"), &taken);
    assert_eq!(console(&opened), [""; 0]);
    assert!(fs::metadata(&taken).unwrap().len() > 10_000);

    let seen = seen(&folder, &[]);
    assert_eq!(seen["title"], "podwire: 0 passed, 1 failed");
    for (name, told) in [
        ("who", "blue-589d7cd7d5-x1 (10.1.1.2 on node1)"),
        ("whom", "blue-589d7cd7d5-x2 (10.1.2.2 on node2)"),
        ("where", "the next hop should have been node2"),
    ] {
        let place = &seen[name];
        assert!(place["text"].as_str().unwrap().contains(told), "{place}");
        let (top, bottom) = (
            place["top"].as_f64().unwrap(),
            place["bottom"].as_f64().unwrap(),
        );
        assert!(top >= 0.0 && bottom <= 800.0 && bottom > top, "{place}");
        assert!(place["right"].as_f64().unwrap() <= 1280.0, "{place}");
    }
    assert_eq!(seen["scripts"], 0);
    assert_eq!(seen["asked"], json!([]));
    assert_eq!(seen["unreachable"], json!([]));
    assert_eq!(seen["wider"], false);
    let colours: Vec<&str> = seen["wrong"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let without = "rgba(0, 0, 0, 0)";
    let coloured = colours.iter().filter(|it| **it != without).count();
    assert_eq!((colours.len(), coloured), (9, 1), "{colours:?}");
}

#[test]
#[ignore = "needs Chromium: cargo test -p xtask --test browser -- --ignored"]
fn each_of_twenty_broken_scenarios_is_a_link_away_in_a_comparison() {
    let project = tempfile::tempdir().unwrap();
    let folder = comparison(project.path(), 20);
    let opened = picture(&folder.join("report.html"), &folder.join("report.png"));
    assert_eq!(console(&opened), [""; 0]);
    let seen = seen(&folder, &[]);
    assert_eq!(seen["title"], "podwire: head breaks 20 of 20 scenarios");
    assert_eq!(seen["scripts"], 0);
    assert_eq!(seen["wider"], false);
    assert_eq!(seen["asked"], json!([]));
    assert_eq!(seen["unreachable"], json!([]));
    let links = seen["links"].as_array().unwrap();
    assert!(links.iter().all(|it| !it["to"].is_null()), "{links:?}");
    let rows = links.iter().filter(|it| it["row"] == true);
    let rows: Vec<_> = rows.map(|it| (&it["text"], &it["to"])).collect();
    assert_eq!(rows.len(), 20, "{links:?}");
    for (number, (text, to)) in rows.into_iter().enumerate() {
        let name = format!("scenario_{number}");
        assert_eq!(text, &name);
        assert!(to.as_str().unwrap().starts_with(&name), "{to}");
    }
}

#[test]
#[ignore = "needs Chromium: cargo test -p xtask --test browser -- --ignored"]
fn the_report_is_light_where_light_is_wanted_and_dark_where_dark_is() {
    let project = tempfile::tempdir().unwrap();
    let folder = report(project.path());
    // Blink's enumeration: 0 is dark, 1 is light.
    let of = |scheme: u32| {
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        let seen = seen(&folder, &[&scheme]);
        [&seen["paper"], &seen["ink"]].map(|it| it.as_str().unwrap().to_owned())
    };
    assert_eq!(of(1), ["rgb(255, 255, 255)", "rgb(27, 27, 27)"]);
    assert_eq!(of(0), ["rgb(22, 24, 27)", "rgb(232, 232, 232)"]);
}

/// Else the first test could not fail.
#[test]
#[ignore = "needs Chromium: cargo test -p xtask --test browser -- --ignored"]
fn what_a_console_gets_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    fs::write(&page, "<script>console.error('wrong')</script>").unwrap();
    let told = console(&open(&page, &["--dump-dom"]));
    assert!(told.iter().any(|line| line.contains("wrong")), "{told:?}");
}
