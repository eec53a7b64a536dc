//! Results for tests.

use std::collections::BTreeMap;

use podwire_cluster::{Bootstrap, Cell};
use podwire_images::Provenance;
use podwire_images::bundle::Replaced;
use podwire_scenario::{Outcome, SabotageResult, ScenarioResult};

use crate::plan::phase::PhaseRecord;
use crate::report::results::{Results, ScenarioRecord, TestRecord, Verdict};

/// What a passed attempt leaves.
pub(crate) fn passed(name: &str) -> ScenarioResult {
    ScenarioResult {
        name: name.into(),
        covers: vec!["C4".into()],
        attempt: 1,
        outcome: Outcome::Passed,
        reason: String::new(),
        seconds: 31.5,
        sabotages: vec![SabotageResult {
            name: "same_range".into(),
            caught: true,
            reason: "two Pods share 10.1.1.7".into(),
        }],
        phases: Vec::new(),
        wire: Vec::new(),
        evidence: None,
    }
}

/// A run in which all is well.
pub(crate) fn results() -> Results {
    Results {
        accelerator: "tcg".into(),
        speed_factor: 7.5,
        component_settings: Some("idle (docs/idle.md)".into()),
        kubernetes: "1.36.4".into(),
        provenance: Provenance {
            kubernetes: "1.36.4".into(),
            source: "modules".into(),
            directory: None,
            replaced: vec![Replaced {
                component: "kube-proxy".into(),
                path: "./out/kube-proxy".into(),
                sha256: "0123abcd".into(),
            }],
        },
        system: "debian".into(),
        nodes: 3,
        shard: None,
        whole: None,
        repeat: 1,
        image: Some("node-0123456789ab".into()),
        package_differences: Vec::new(),
        unsettled_stages: Vec::new(),
        error: None,
        phases: vec![
            PhaseRecord {
                name: "bundle".into(),
                seconds: 0.1,
                cached: true,
            },
            PhaseRecord {
                name: "stage".into(),
                seconds: 170.0,
                cached: false,
            },
        ],
        harness_tests: vec![TestRecord {
            name: "machine::boots".into(),
            outcome: Verdict::Passed,
            reason: String::new(),
            seconds: 22.0,
        }],
        scenarios: vec![ScenarioRecord {
            name: "pod_addresses".into(),
            cell: Cell::usual(Bootstrap::ByHand).to_string(),
            covers: vec!["C4".into()],
            outcome: Verdict::Passed,
            reason: String::new(),
            attempts: 1,
            seconds: 31.5,
            sabotages: passed("pod_addresses").sabotages,
            parts: BTreeMap::from([("scenario: clone".into(), 8.0)]),
            wire: Vec::new(),
            folder: None,
            part: None,
        }],
        broken: None,
    }
}
