//! A Pod network of the user's own, or by its name.

use std::fs;

use serde_json::Value;

use podwire_cluster::{FlannelBackend, IpFamilies, flannel};

use super::{done, latest, results};

#[test]
#[ignore = "runs a cluster of machines"]
fn a_manifest_whose_nodes_would_ask_a_registry_runs_with_what_they_have_when_asked_to() {
    let mut manifest = flannel::manifest(FlannelBackend::Vxlan, IpFamilies::Ipv4);
    let objects = manifest["items"].as_array_mut().unwrap();
    let daemon = objects.iter_mut().find(|it| it["kind"] == "DaemonSet");
    let pod = &mut daemon.unwrap()["spec"]["template"]["spec"];
    pod["containers"][0]["imagePullPolicy"] = "Always".into();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.json");
    fs::write(&path, serde_json::to_string_pretty(&manifest).unwrap()).unwrap();
    let words = format!(
        "test --yes --nodes 2 --bootstrap by-hand --filter every_pair --pod-network {}",
        path.display()
    );

    let refused = done(&words);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("--pull-policy-as-present"), "{told}");

    let green = format!("{words} --pull-policy-as-present");
    passes_in(&green, "by-hand/nftables/manifest");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn kube_router_is_built_and_carries_by_its_name() {
    let words =
        "test --yes --nodes 2 --bootstrap kubeadm --filter every_pair --pod-network kube-router";
    let scenario = passes_in(words, "kubeadm/nftables/kube-router");
    let again = scenario["again"].as_str().unwrap_or_default();
    assert!(
        again.is_empty() || again.contains("--pod-network kube-router"),
        "{again}"
    );
}

#[test]
#[ignore = "runs a cluster of machines"]
fn calico_is_built_and_carries_by_its_name() {
    let words = "test --yes --nodes 2 --bootstrap by-hand --filter every_pair --pod-network calico";
    passes_in(words, "by-hand/nftables/calico");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn cilium_is_built_and_carries_by_its_name() {
    let words = "test --yes --nodes 2 --bootstrap by-hand --filter every_pair --pod-network cilium";
    passes_in(words, "by-hand/nftables/cilium");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn flannel_carries_as_it_is_published() {
    let words = "test --yes --nodes 2 --bootstrap by-hand --filter every_pair --pod-network flannel-published";
    passes_in(words, "by-hand/nftables/flannel-published");
}

/// Gives the record of a run's only scenario, which passes in this cell.
fn passes_in(words: &str, cell: &str) -> Value {
    let green = done(words);
    let told = String::from_utf8_lossy(&green.stdout).into_owned();
    assert_eq!(green.status.code(), Some(0), "{told}");
    let results = results(&latest());
    let scenario = &results["scenarios"][0];
    assert_eq!(scenario["outcome"], "passed", "{results:#}");
    assert_eq!(scenario["cell"], cell, "{results:#}");
    scenario.clone()
}
