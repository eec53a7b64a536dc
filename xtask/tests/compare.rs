//! `cargo xtask compare` as a person types it, as far as no machine is needed: what it refuses, in words.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::process::{Command, Output};

/// With an empty cache: nobody gets further than to what is refused.
fn compare(words: &[&str]) -> Output {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("compare").args(words).env_remove("CI");
    for name in ["PODWIRE_CACHE", "PODWIRE_OUTPUT"] {
        command.env(name, cache.path().join(name));
    }
    command.output().unwrap()
}

#[test]
fn what_is_no_side_is_refused_with_its_name_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("head.flags");
    fs::write(&file, "--kube-proxy iptables # the old one\n--strict\n").unwrap();
    let file = file.to_str().unwrap();
    for (words, told) in [
        (vec!["--nodes 4", ""], "base: unexpected argument '--nodes'"),
        (vec!["", "--kube-proxy ipvs"], "head: invalid value 'ipvs'"),
        (vec!["", file], "head: unexpected argument '--strict'"),
        (vec!["", "--from 'debian"], "head: a quotation mark"),
        (
            vec!["", "out/no-such-file"],
            "head: `out/no-such-file` is neither a file nor a flag",
        ),
        (
            vec!["", "--pod-network flannel", "--filter", "static_routes"],
            "head: nothing to run on a cluster of by-hand/nftables/flannel",
        ),
        (vec!["", "", "--filter", "no_such"], "no scenario is named"),
        (vec!["--kube-proxy iptables"], "<HEAD>"),
        (vec!["", "", "--margin", "10"], "a number of per cent"),
        (vec!["", "", "--pairs", "11"], "11 is not in 0..=10"),
    ] {
        let refused = compare(&words);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(told), "{words:?}: {said}");
    }
}

#[test]
fn the_plan_says_what_is_measured_and_what_so_few_pairs_cannot_say() {
    let plan = |words: &[&str]| {
        let all = [&["", "", "--plan", "--filter", "every_pair"], words].concat();
        let planned = compare(&all);
        let said = String::from_utf8_lossy(&planned.stdout).into_owned();
        assert_eq!(planned.status.code(), Some(0), "{said}");
        said
    };
    let six = plan(&[]);
    assert!(
        six.contains("numbers of kubeadm are measured, in 6 pairs in turns"),
        "{six}"
    );
    assert!(
        six.contains("measure_change, measure_restart, measure_way"),
        "{six}"
    );
    assert!(
        !six.contains("is the least") && !six.contains("measure_drain"),
        "{six}"
    );
    let few = plan(&["--pairs", "2", "--bootstrap", "by-hand", "--margin", "5%"]);
    assert!(
        few.contains("numbers of by-hand") && few.contains("more than 5 %"),
        "{few}"
    );
    assert!(few.contains("--pairs 5 is the least"), "{few}");
    let none = plan(&["--pairs", "0"]);
    assert!(!none.contains("measured"), "{none}");
    // A node alone has no other to measure the way to.
    let alone = ["", "", "--plan", "--nodes", "1", "--filter", "first_node"];
    let said = compare(&alone);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("No numbers: base: "), "{said}");
}
