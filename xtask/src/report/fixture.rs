//! Results for tests.

use std::collections::BTreeMap;

use podwire_cluster::{Bootstrap, Cell};
use podwire_images::Provenance;
use podwire_images::bundle::Replaced;
use podwire_scenario::{
    Account, Cause, End, Frame, Hop, Met, Outcome, Pair, Pairs, RuleChange, SabotageResult,
    ScenarioResult, Step, Trace,
};

use crate::plan::phase::PhaseRecord;
use crate::report::results::{Results, ScenarioRecord, TestRecord, Verdict};

/// What a passed attempt leaves.
pub(crate) fn passed(name: &str) -> ScenarioResult {
    ScenarioResult {
        name: name.into(),
        attempt: 1,
        outcome: Outcome::Passed,
        reason: String::new(),
        seconds: 31.5,
        sabotages: vec![SabotageResult {
            name: "same_range".into(),
            caught: true,
            reason: "two Pods share 10.1.1.7".into(),
            held_by: None,
        }],
        phases: Vec::new(),
        cases: Vec::new(),
        wire: Vec::new(),
        readings: Vec::new(),
        evidence: None,
    }
}

/// A run in which all is well.
pub(crate) fn results() -> Results {
    Results {
        accelerator: "tcg".into(),
        accelerator_reason: Some(
            "/dev/kvm cannot be opened on Some CPU (permission denied)".into(),
        ),
        speed_factor: 7.5,
        component_settings: Some("idle (docs/idle.md)".into()),
        kubernetes: "1.36.4".into(),
        provenance: Provenance {
            kubernetes: "1.36.4".into(),
            source: "modules".into(),
            directory: None,
            upgrade_to: None,
            replaced: vec![Replaced {
                component: "kube-proxy".into(),
                path: "./out/kube-proxy".into(),
                sha256: "0123abcd".into(),
            }],
        },
        system: "debian".into(),
        pod_network: None,
        pod_images: Vec::new(),
        cluster_dns: false,
        node_files: None,
        configurations: Vec::new(),
        nodes: 3,
        shard: None,
        whole: None,
        inputs: BTreeMap::new(),
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
        left_out: Vec::new(),
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
            longest: Vec::new(),
            cases: Vec::new(),
            wire: Vec::new(),
            readings: Vec::new(),
            processors: None,
            folder: None,
            again: None,
            part: None,
        }],
        broken: None,
    }
}

fn end(name: &str, node: u32, last: u8) -> End {
    let octet = u8::try_from(node).unwrap();
    End {
        node: Some(node),
        name: name.into(),
        address: Some([10, 1, octet, last].into()),
    }
}

fn step(at_ms: u64, text: &str) -> Step {
    Step {
        at_ms,
        text: text.into(),
    }
}

/// What a scenario leaves that found node 1 without its route to node 2's Pods.
pub(crate) fn account() -> Account {
    let (a, b) = (
        end("blue-589d7cd7d5-a2a2a", 1, 2),
        end("blue-589d7cd7d5-b3b3b", 2, 3),
    );
    let pair = |from: &End, to: &End, seen: &str| Pair {
        from: from.clone(),
        to: to.clone(),
        expected: "answered".into(),
        seen: seen.into(),
        wrong: seen != "answered",
    };
    let frame = Frame {
        at_us: 2_950_123,
        length: 74,
        from: "node1".into(),
        to: vec!["gateway".into()],
        lost: vec![],
        what: "10.1.1.2:40000 > 10.1.2.3:80 TCP SYN".into(),
        tunnel: None,
    };
    let hop = |to: &str, at_us| Hop {
        from: "node1".into(),
        to: to.into(),
        answer: false,
        at_us,
    };
    Account {
        about: "Pods of every node reach each other".into(),
        cause: Some(Cause::TimedOut),
        expected: "every pair to answer".into(),
        seen: "1 of 4 pairs did otherwise:\n  blue-589d7cd7d5-a2a2a -> blue-589d7cd7d5-b3b3b: timed out".into(),
        look: "`ip route` of the sending node".into(),
        pairs: Some(Pairs {
            all: vec![
                pair(&a, &a, "answered"),
                pair(&a, &b, "timed out (connect: no answer in time)"),
                pair(&b, &a, "answered"),
                pair(&b, &b, "answered"),
            ],
            lost: Some(Trace {
                from: a,
                to: b,
                hops: vec![hop("gateway", Some(2_950_123)), hop("node2", None)],
                ended: "what came last was the request: 2.950123 s node1 -> gateway: 10.1.1.2:40000 > 10.1.2.3:80 TCP SYN; it went to the gateway, which drops it: the next hop should have been node2".into(),
                held_by: Some(1),
                heading: [10, 1, 2, 3].into(),
                frames: vec![frame],
                left_out: 0,
                filter: "(ip.addr == 10.1.1.2 && ip.addr == 10.1.2.3)".into(),
            }),
        }),
        met: Some(Met {
            node: 1,
            heading: [10, 1, 2, 3].into(),
            route: "10.1.2.3 via 172.30.0.1 dev eth0 src 172.30.0.11".into(),
            rules: vec!["ip filter FORWARD: type filter hook forward priority filter; policy drop;".into()],
            left_out: 0,
        }),
        steps: vec![
            step(500, "remove the route to node2's Pods from node1"),
            step(2900, "everybody reaches everybody"),
        ],
        failed_ms: 8100,
        rules: vec![RuleChange {
            at_ms: 3120,
            node: "node1".into(),
            by: "nft".into(),
            tables: ["ip filter".to_owned()].into(),
            added: 2,
            deleted: 1,
            first: "add rule ip filter FORWARD drop".into(),
        }],
    }
}
