//! A Pod network of the user's own, or by its name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use podwire_cluster::{FlannelBackend, IpFamilies, flannel};

use super::{bundle, done, latest, results, workspace};

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

/// Those of scenarios that look at Pods' addresses; the others would say no more.
const OF_ADDRESSES: [&str; 5] = [
    "pods_see_own_addresses",
    "every_pair",
    "cluster_ip_from_everywhere",
    "services_from_everywhere",
    "egress_from_every_node",
];

/// Calico gives Pods addresses of whatever range its manifest names; the images are those of Calico by its name.
#[test]
#[ignore = "runs clusters of machines"]
fn pods_with_addresses_of_another_range_turn_nothing_red() {
    let by_hand = "--yes --nodes 2 --bootstrap by-hand";
    let prepared = done(&format!(
        "test {by_hand} --prepare-only --pod-network calico"
    ));
    let told = String::from_utf8_lossy(&prepared.stderr).into_owned();
    assert_eq!(prepared.status.code(), Some(0), "{told}");

    let named = fs::read_to_string(workspace().join("images/networks/calico.yaml")).unwrap();
    let manifest = named.replace("\"10.1.0.0/16\"", "\"192.168.0.0/16\"");
    assert_ne!(manifest, named);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calico.yaml");
    fs::write(&path, manifest).unwrap();
    let mut network = format!("--pod-network {}", path.display());
    for archive in archives("calico-images-") {
        network += &format!(" --pod-images {}", archive.display());
    }

    let filter = OF_ADDRESSES.join(",");
    let green = done(&format!("test {by_hand} --filter {filter} {network}"));
    let told = String::from_utf8_lossy(&green.stdout).into_owned();
    assert_eq!(green.status.code(), Some(0), "{told}");
    let results = results(&latest());
    let scenarios = results["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), OF_ADDRESSES.len(), "{results:#}");
    for scenario in scenarios {
        assert_eq!(scenario["outcome"], "passed", "{results:#}");
        assert_eq!(scenario["cell"], "by-hand/nftables/manifest", "{results:#}");
    }

    let addresses = "-- kubectl get pods -o jsonpath={.items[*].status.podIP}";
    let listed = done(&format!("with {by_hand} {network} {addresses}"));
    let addresses = String::from_utf8_lossy(&listed.stdout).into_owned();
    let elsewhere = |address: &str| address.starts_with("192.168.");
    assert!(addresses.split(' ').all(elsewhere), "{addresses}");
}

/// The archives of images that the cache has of a network, those that were used last.
fn archives(name: &str) -> Vec<PathBuf> {
    let bundle = bundle();
    let tools = bundle.ancestors().nth(2).unwrap().join("tools");
    let below = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|it| it.unwrap().path()).collect::<Vec<_>>()
    };
    let mut folders = below(&tools);
    folders.retain(|it| it.file_name().unwrap().to_string_lossy().starts_with(name));
    let used = |it: &PathBuf| fs::metadata(it.join("used")).unwrap().modified().unwrap();
    let folder = folders.into_iter().max_by_key(used).unwrap();
    let mut archives = below(&folder);
    archives.retain(|it| it.extension().is_some_and(|it| it == "tar"));
    archives
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
