//! A run in parts, each scenario more than once, and strict about the wire.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{done, latest, results};

/// Of the default profile, and of the full one.
const SCENARIOS: [&str; 2] = [
    "nodes_have_their_own_identity",
    "short_hole_in_steady_traffic",
];

const RUN: &str = "test --yes --nodes 2 --bootstrap by-hand";

/// A part's results, after its exit code.
fn part(shard: &str) -> (Option<i32>, Value) {
    let filter = SCENARIOS.join(",");
    let how = format!("--profile full --filter {filter} --repeat 2 --wire strict");
    let ran = done(&format!("{RUN} {how} --shard {shard}"));
    (ran.status.code(), results(&latest()))
}

#[test]
#[ignore = "runs a cluster of machines"]
fn parts_of_a_run_are_a_whole_whose_scenarios_run_as_often_as_asked() {
    let mut seen = BTreeSet::new();
    for shard in ["1/2", "2/2"] {
        let (code, results) = part(shard);
        assert_eq!(results["shard"], shard);
        assert_eq!(results["repeat"], 2);
        let scenarios = results["scenarios"].as_array().unwrap();
        assert_eq!(scenarios.len(), 1, "{results:#}");
        let scenario = &scenarios[0];
        seen.insert(scenario["name"].as_str().unwrap().to_owned());
        // What stands out is no matter of luck here: it is red, and what does not is green.
        let stood_out = scenario.get("wire").is_some();
        if stood_out {
            let reason = scenario["reason"].as_str().unwrap();
            assert!(reason.contains("--wire strict"), "{results:#}");
            assert_eq!((code, &scenario["outcome"]), (Some(1), &"failed".into()));
            continue;
        }
        assert_eq!((code, &scenario["outcome"]), (Some(0), &"passed".into()));
        for run in ["scenario: run", "scenario 2: run"] {
            assert!(scenario["parts"].get(run).is_some(), "{results:#}");
        }
    }
    assert_eq!(seen, SCENARIOS.map(str::to_owned).into());
}

#[test]
#[ignore = "needs QEMU and the image tools"]
fn a_profile_holds_for_what_a_filter_names() {
    let planned = |profile: &str| {
        let words = format!("{RUN} --plan --filter {} {profile}", SCENARIOS[1]);
        done(&words).status.code()
    };
    assert_eq!(planned(""), Some(0));
    assert_eq!(planned("--profile full"), Some(0));
    assert_ne!(planned("--profile default"), Some(0));
}
