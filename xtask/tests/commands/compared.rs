//! A base against a head.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;

use serde_json::Value;

use super::{latest, xtask};

/// What drops all that is sent on by a node to another.
const DROPS_WHAT_IT_FORWARDS: &str = "\
table inet mine {
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
}
";

/// A comparison of what is tested without any flags with `head`, and what it has left.
fn compared(filter: &str, head: &str) -> (Output, Value) {
    let words = format!("compare --yes --nodes 2 --bootstrap by-hand --filter {filter}");
    let output = xtask(&words).args(["", head]).output().unwrap();
    let file = fs::read(latest().join("compare.json")).unwrap();
    (output, serde_json::from_slice(&file).unwrap())
}

#[test]
#[ignore = "runs clusters of machines"]
fn what_is_the_same_breaks_nothing() {
    let (output, comparison) = compared("static_routes,every_pair", "");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("head breaks none of 2 scenarios\n"), "{told}");
    assert_eq!(comparison["head"]["runs"].as_array().unwrap().len(), 1);
}

#[test]
#[ignore = "runs clusters of machines"]
fn a_planted_change_breaks_what_it_touches_and_is_seen_five_times() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("node2/etc");
    let wants = etc.join("systemd/system/sysinit.target.wants");
    fs::create_dir_all(&wants).unwrap();
    fs::write(etc.join("nftables.conf"), DROPS_WHAT_IT_FORWARDS).unwrap();
    let unit = "/usr/lib/systemd/system/nftables.service";
    symlink(unit, wants.join("nftables.service")).unwrap();
    let head = format!("--node-files {}", dir.path().display());

    let (output, comparison) = compared("nodes_have_their_own_identity,every_pair", &head);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("head breaks 1 of 2 scenarios\n"), "{told}");
    let scenarios = comparison["scenarios"].as_array().unwrap();
    let said: Vec<String> = scenarios
        .iter()
        .map(|it| format!("{} {}", it["name"], it["difference"]))
        .collect();
    let expected = [
        r#""nodes_have_their_own_identity" "passes_on_both""#,
        r#""every_pair" "broke""#,
    ];
    assert_eq!(said, expected, "{comparison:#}");
    for (side, verdict) in [("base", "passed"), ("head", "failed")] {
        let runs = scenarios[1][side]["runs"].as_array().unwrap();
        assert_eq!(runs, &vec![Value::from(verdict); 5], "{comparison:#}");
        assert_eq!(comparison[side]["runs"].as_array().unwrap().len(), 5);
    }
    let page = fs::read_to_string(latest().join("report.html")).unwrap();
    assert!(page.contains("head breaks 1 of 2 scenarios"));
    assert!(page.contains(dir.path().to_str().unwrap()));
}
