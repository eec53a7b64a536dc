//! What a scenario that failed leaves.

use std::fs;

use serde_json::Value;

use super::{done, latest};

#[test]
#[ignore = "runs a cluster of machines"]
fn a_failure_tells_when_rules_changed_and_by_whom() {
    let red = done("test --yes --bootstrap by-hand --break route --filter cluster_ip");
    let told = String::from_utf8_lossy(&red.stdout).into_owned();
    assert_eq!(red.status.code(), Some(1), "{told}");
    let attempt = latest().join("by-hand-nftables-routes/scenarios/cluster_ip/attempt-1");
    let account = fs::read(attempt.join("failure.json")).unwrap();
    let account: Value = serde_json::from_slice(&account).unwrap();
    let began = &account["steps"][0]["at_ms"];
    for node in ["node1", "node2", "node3"] {
        // What kube-proxy has written, which the scenario has started.
        let changes = account["rules"].as_array().unwrap();
        let of_service = |it: &&Value| {
            let tables = it["tables"].as_array().unwrap();
            it["node"] == node && tables.contains(&"ip kube-proxy".into())
        };
        let change = changes.iter().find(of_service);
        let change = change.unwrap_or_else(|| panic!("{node}: {account:#}"));
        assert_eq!(change["by"], "nft", "{change:#}");
        assert_ne!(change["added"], 0, "{change:#}");
        let at = change["at_ms"].as_u64();
        assert!(began.as_u64() < at, "{change:#}");
        assert!(at < account["failed_ms"].as_u64(), "{change:#}");
    }
    let first = fs::read_to_string(attempt.join("first-page.md")).unwrap();
    assert!(first.contains("## When rules changed"), "{first}");
    let page = fs::read_to_string(latest().join("report.html")).unwrap();
    assert!(page.contains("node1's rules, by nft: "), "{page}");
}
