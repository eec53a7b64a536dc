//! `cargo xtask compare` as a person types it, as far as no machine is needed: what it refuses, in words.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod repository;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use repository::{git, of_two_commits};

/// With an empty cache: nobody gets further than to what is refused.
fn compare(words: &[&str]) -> Output {
    compare_in(tempfile::tempdir().unwrap().path(), words)
}

/// The same with its cache and its output below a folder.
fn compare_in(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("compare").args(words).env_remove("CI");
    for name in ["PODWIRE_CACHE", "PODWIRE_OUTPUT"] {
        command.env(name, dir.join(name));
    }
    // As in a hook of git's: it names another repository than the one that is meant.
    command.env("GIT_DIR", dir.join("nowhere"));
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
        (
            vec!["", "", "--measurements", "measure_me"],
            "--measurements: ",
        ),
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
    let plan_of = |head: &str, words: &[&str]| {
        let all = [&["", head, "--plan", "--filter", "every_pair"], words].concat();
        let planned = compare(&all);
        let said = String::from_utf8_lossy(&planned.stdout).into_owned();
        assert_eq!(planned.status.code(), Some(0), "{said}");
        said
    };
    let plan = |words: &[&str]| plan_of("", words);
    let six = plan(&[]);
    assert!(
        six.contains("numbers of by-hand are measured, in 6 pairs in turns"),
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
    let few = plan(&["--pairs", "2", "--bootstrap", "kubeadm", "--margin", "5%"]);
    assert!(
        few.contains("numbers of kubeadm") && few.contains("more than 5 %"),
        "{few}"
    );
    assert!(few.contains("--pairs 5 is the least"), "{few}");
    let none = plan(&["--pairs", "0"]);
    assert!(!none.contains("measured"), "{none}");
    let one = plan(&["--measurements", "measure_drain"]);
    assert!(
        one.contains("Then 2 numbers of by-hand") && one.contains(": measure_drain.\n"),
        "{one}"
    );
    // What only kubeadm reads is measured where it is read.
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("kubeadm.yaml");
    let timeouts = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\n\
                    timeouts:\n  discovery: 60s\n";
    fs::write(&config, timeouts).unwrap();
    let read = plan_of(&format!("--kubeadm-config {}", config.display()), &[]);
    assert!(read.contains("numbers of kubeadm"), "{read}");
    // A node alone has no other to measure the way to.
    let alone = ["", "", "--plan", "--nodes", "1", "--filter", "first_node"];
    let said = compare(&alone);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("No numbers: base: "), "{said}");
}

#[test]
fn a_revision_is_built_once_in_a_checkout_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mine = dir.path().join("my repository");
    of_two_commits(&mine, ["first", "second"]);
    fs::write(mine.join("note"), "not committed").unwrap();
    // Whoever stands in a folder of his repository names that.
    let within = mine.join("within");
    fs::create_dir(&within).unwrap();
    let before = git(&mine, &["status", "--porcelain", "--ignored"]);

    let side = |revision: &str, filter: &str, more: &[&str]| {
        let words = ["", revision, "--filter", filter];
        let ran = compare_in(dir.path(), &[&words, more].concat());
        let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8(said).unwrap());
        (ran.status.code().unwrap(), said.concat())
    };
    let takes = [
        "--repository",
        within.to_str().unwrap(),
        "--takes",
        "--node-files {}/out",
    ];
    let log = dir.path().join("builds");
    let build = format!(
        "mkdir -p out/etc && cp note out/etc && cat note >>'{}'",
        log.display()
    );
    let built = [&takes[..], &["--build", &build]].concat();
    let plan = [&built[..], &["--plan"]].concat();

    let (code, said) = side("git:HEAD", "every_pair", &plan);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("head: git:HEAD, commit "), "{said}");
    assert!(said.contains(", to be checked out and built\n"), "{said}");
    assert!(said.contains("head: what is not committed in "), "{said}");
    assert!(!log.exists(), "{said}");

    let (code, said) = side("git:HEAD", "no_such", &built);
    assert_eq!(code, 2, "{said}");
    assert!(!log.exists(), "{said}");

    // What has been built stays, also where nothing can be run on it.
    let nothing = [
        &takes[..2],
        &["--takes", "--node-files {}/out --pod-network flannel"],
    ]
    .concat();
    let nothing = [&nothing[..], &["--build", &build]].concat();
    for revision in ["git:HEAD", "git:old", "git:HEAD"] {
        let (code, said) = side(revision, "static_routes", &nothing);
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("head: nothing to run on a cluster of"),
            "{said}"
        );
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "secondfirst");
    let (code, said) = side("git:old", "every_pair", &plan);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(", built already\n"), "{said}");
    assert!(said.contains("head: --node-files "), "{said}");
    assert!(!said.contains("not committed"), "{said}");

    let broken = [&takes[..], &["--build", "echo no such compiler; false"]].concat();
    for _ in 0..2 {
        let (code, said) = side("git:old", "every_pair", &broken);
        assert_eq!(code, 3, "{said}");
        assert!(
            said.contains("head: cannot build git:old, commit "),
            "{said}"
        );
        assert!(said.contains("no such compiler"), "{said}");
    }

    let elsewhere = [&takes[..2], &["--takes", "--node-files out"]].concat();
    let no_change = [&takes[..2], &["--takes", "--nodes {}"]].concat();
    for (revision, more, told) in [
        ("git:nobody", &built, "head: "),
        ("git:nobody", &built, "has no revision `nobody`"),
        ("git:--help", &built, "has no revision `--help`"),
        ("git:old", &vec!["--plan"], "a revision needs --repository"),
        ("git:old", &elsewhere, "takes nothing from a revision"),
        (
            "git:old",
            &no_change,
            "--takes: unexpected argument '--nodes'",
        ),
        ("", &takes.to_vec(), "no side is one"),
    ] {
        let (code, said) = side(revision, "every_pair", more);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(told), "{revision}: {said}");
    }
    assert_eq!(git(&mine, &["status", "--porcelain", "--ignored"]), before);
    assert!(!mine.join(".git/worktrees").exists());
}

#[test]
fn a_revision_with_submodules_is_said_to_lack_them() {
    let dir = tempfile::tempdir().unwrap();
    let mine = dir.path().join("mine");
    of_two_commits(&mine, ["first", "second"]);
    fs::write(mine.join(".gitmodules"), "").unwrap();
    git(&mine, &["add", ".gitmodules"]);
    git(&mine, &["commit", "--quiet", "--message", "third"]);
    let repository = mine.to_str().unwrap();
    let told = |revision: &str| {
        let sides = ["", revision, "--repository", repository];
        let plan = ["--takes", "--node-files {}/out", "--plan"];
        let planned = compare_in(dir.path(), &[&sides[..], &plan].concat());
        let said = String::from_utf8_lossy(&planned.stdout).into_owned();
        assert_eq!(planned.status.code(), Some(0), "{planned:?}");
        said.contains("head: its submodules are checked out only where --build does it")
    };
    assert!(told("git:HEAD") && !told("git:old"));
}
