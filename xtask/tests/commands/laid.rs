//! Files of the user's over the nodes' own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::{done, is_up, latest, results, said};

/// Of what a node boots with, and one node alone.
const DROPS_WHAT_IT_FORWARDS: &str = "\
table inet mine {
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
}
";

/// A tree with which node2 forwards nothing.
pub(crate) fn lay_out(tree: &Path) {
    let wants = tree.join("node2/etc/systemd/system/sysinit.target.wants");
    fs::create_dir_all(&wants).unwrap();
    fs::write(tree.join("node2/etc/nftables.conf"), DROPS_WHAT_IT_FORWARDS).unwrap();
    let unit = "/usr/lib/systemd/system/nftables.service";
    symlink(unit, wants.join("nftables.service")).unwrap();
}

#[test]
#[ignore = "runs clusters of machines"]
fn nodes_boot_with_the_user_s_files_and_what_these_break_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("mine");
    lay_out(&tree);
    fs::create_dir_all(tree.join("etc/sysctl.d")).unwrap();
    let sysctl = tree.join("etc/sysctl.d/90-mine.conf");
    fs::write(sysctl, "net.ipv4.tcp_fin_timeout = 33\n").unwrap();
    let files = format!("--node-files {}", tree.display());
    let cluster = format!("--yes --nodes 2 --bootstrap by-hand {files}");

    is_up(&format!("up --stage identified {cluster}"), || {
        for node in ["node1", "node2"] {
            let timeout = said(&format!("ssh {node} sysctl -n net.ipv4.tcp_fin_timeout"));
            assert_eq!(timeout.trim(), "33", "{node}");
            let drops = said(&format!("ssh {node} nft list tables")).contains("inet mine");
            assert_eq!(drops, node == "node2", "{node}");
        }
    });

    let red = done(&format!("test --filter every_pair {cluster}"));
    let told = String::from_utf8_lossy(&red.stdout).into_owned();
    assert_eq!(red.status.code(), Some(1), "{told}");
    let results = results(&latest());
    let laid = results["node_files"].as_str().unwrap();
    assert!(laid.contains("(3 files, sha256 "), "{laid}");
    assert!(told.contains(laid), "{told}");
    let reason = results["scenarios"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("timed out"), "{reason}");
    let again = results["scenarios"][0]["again"].as_str().unwrap();
    assert!(again.contains("--node-files"), "{again}");
    // Of the same files a second clone is not healthy either.
    let attempt = latest().join(results["scenarios"][0]["folder"].as_str().unwrap());
    let page = fs::read_to_string(attempt.join("first-page.md")).unwrap();
    assert!(page.contains("a second clone failed as well: "), "{page}");
}

/// Instead of the plugin that gives addresses: what asks it, the bridge plugin's ADD, fails.
const GIVES_NO_ADDRESS: &str = "\
#!/bin/sh
echo '{\"cniVersion\": \"1.0.0\", \"code\": 100, \"msg\": \"no address is left\"}'
exit 1
";

#[test]
#[ignore = "runs clusters of machines"]
fn pods_that_get_no_network_on_one_node_are_missed_before_a_scenario_begins() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("mine");
    let plugins = tree.join("node2/opt/cni/bin");
    fs::create_dir_all(&plugins).unwrap();
    let plugin = plugins.join("host-local");
    fs::write(&plugin, GIVES_NO_ADDRESS).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();

    let files = format!("--node-files {}", tree.display());
    let red = done(&format!(
        "test --filter every_pair --yes --nodes 2 --bootstrap by-hand {files}"
    ));
    let told = String::from_utf8_lossy(&red.stdout).into_owned();
    assert_eq!(red.status.code(), Some(1), "{told}");
    let results = results(&latest());
    let unsettled = results["unsettled_stages"][0].as_str().unwrap();
    let said = "the stage workload of by-hand/nftables/routes was frozen before it had settled: ";
    assert!(unsettled.starts_with(said), "{unsettled}");
    // In the plugin's words, and not as long as a cluster may take that comes to something.
    let why = unsettled.contains("gets no sandbox on node2: plugin type=\"bridge\"")
        && unsettled.contains("no address is left (given up after ");
    assert!(why, "{unsettled}");
    let scenario = &results["scenarios"][0];
    let reason = scenario["reason"].as_str().unwrap();
    assert!(
        reason.contains("not Ready: ") && reason.contains("on node2"),
        "{reason}"
    );
    let page = fs::read_to_string(latest().join("report.html")).unwrap();
    assert!(told.contains(said) && page.contains(said), "{told}");
}
