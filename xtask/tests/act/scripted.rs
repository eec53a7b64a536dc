//! With a cargo whose build is a script, which does as xtask would.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::github::GitHub;

/// What cargo's build is here. Says what it was asked; uses the cache; leaves results and what belongs to
/// them.
const XTASK: &str = r#"
case "$*" in
*nothing*)
  echo "error: nothing matches the filter" >&2
  exit 2 ;;
*--break*) results=red.json code=1 ;;
*) results=green.json code=0 ;;
esac
found=$(ls "$PODWIRE_CACHE/tools" 2>/dev/null | tr '\n' ' ')
mkdir -p "$PODWIRE_CACHE/tools" && touch "$PODWIRE_CACHE/tools/of-run-$GITHUB_RUN_ID"
out=$CARGO_TARGET_DIR/podwire
mkdir -p "$out/runs/1/cell" && ln -sfn runs/1 "$out/latest" && cd "$out/runs/1"
cp "$STORE/$results" results.json
echo '<testsuites/>' >junit.xml
touch cell/first-page.md cell/node1.qcow2 cell/node1.ram
printf '%s\n' "$@" >asked
echo "$found" >found
if [ -e "$OLDPWD/out/kube-proxy" ]; then "$OLDPWD/out/kube-proxy" >program; fi
exit $code
"#;

/// Whether there is a build already, it says too.
const CARGO: &str = r#"
echo "cargo: $*, after $(ls "$CARGO_TARGET_DIR/debug" 2>/dev/null | wc -l) files"
mkdir -p "$CARGO_TARGET_DIR/debug"
cp --remove-destination "$STORE/../bin/xtask-of-this-test" "$CARGO_TARGET_DIR/debug/xtask"
"#;

fn results(outcome: &str, reason: &str) -> Value {
    json!({
        "kubernetes": "1.36.4", "nodes": 3, "accelerator": "tcg", "error": null,
        "harness_tests": [],
        "scenarios": [{
            "name": "static_routes", "cell": "by-hand/nftables/routes", "outcome": outcome,
            "reason": reason, "seconds": 12.3,
        }],
    })
}

fn github() -> GitHub {
    let github = GitHub::new();
    github.program("cargo", CARGO);
    github.program("rustup", "exit 0");
    github.program("xtask-of-this-test", XTASK);
    github.program("sudo", "touch \"$STORE/sudo-was-asked\"; exit 1");
    let write = |name: &str, results: Value| {
        fs::write(github.path("store").join(name), results.to_string()).unwrap();
    };
    write("green.json", results("passed", ""));
    write("red.json", results("failed", "expected: <an answer>"));
    github
}

/// A job that uses the action with these inputs, and then does these steps.
fn job(version: &str, with: &str, then: &str) -> String {
    format!(
        "  network:
    runs-on: ubuntu-24.04
    steps:
      - uses: owner/podwire@{version}
        id: podwire
        with:
{}
{then}",
        with.lines()
            .map(|line| format!("          {line}\n"))
            .collect::<String>()
    )
}

fn read(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
#[ignore = "builds act"]
fn a_green_step_has_its_page_its_artifact_and_its_results() {
    let github = github();
    let inputs = "replace: kube-proxy=out/a proxy\nargs: |\n  --bootstrap=by-hand\n  --filter=C6\n";
    let then =
        "      - run: cp '${{ steps.podwire.outputs.results }}/results.json' \"$STORE/seen\"\n";
    let ran = github.push(&job("v1", inputs, then));
    assert!(ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    ### podwire: 1 passed

    Kubernetes 1.36.4 on 3 nodes, guests under tcg.

    | scenario | cluster | result | seconds |
    |---|---|---|---|
    | static&#95;routes | by-hand/nftables/routes | ✅ passed | 12 |
    ");
    let artifact = ran.artifact("podwire-results");
    assert_eq!(
        names(&artifact),
        ["asked", "cell", "found", "junit.xml", "results.json"]
    );
    assert_eq!(names(&artifact.join("cell")), ["first-page.md"]);
    let asked = "test\n--yes\n--require-kvm\n--replace\nkube-proxy=out/a proxy\n--bootstrap=by-hand\n--filter=C6\n";
    assert_eq!(read(&artifact, "asked"), asked);
    assert_eq!(
        read(&github.path("store"), "seen"),
        read(&artifact, "results.json")
    );
}

#[test]
#[ignore = "builds act"]
fn a_red_step_says_why_and_keeps_what_it_has_built() {
    let github = github();
    let ran = github.push(&job("v1", "args: --break=route", ""));
    assert!(!ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    ### podwire: 1 failed

    Kubernetes 1.36.4 on 3 nodes, guests under tcg.

    | scenario | cluster | result | seconds |
    |---|---|---|---|
    | static&#95;routes | by-hand/nftables/routes | ❌ failed | 12 |

    **static&#95;routes**: expected: &lt;an answer&gt;
    ");
    assert_eq!(
        ran.results("podwire-results")["scenarios"][0]["outcome"],
        "failed"
    );
    insta::assert_snapshot!(github.caches().join("\n"), @"
    restore podwire-Linux-v1-podwire-results-1-1: nothing
    restore podwire-cargo-Linux-v1-podwire-results-1-1: nothing
    save podwire-Linux-v1-podwire-results-1-1
    save podwire-cargo-Linux-v1-podwire-results-1-1
    ");
}

#[test]
#[ignore = "builds act"]
fn refused_arguments_are_on_the_page() {
    let github = github();
    let ran = github.push(&job("v1", "args: --filter=nothing", ""));
    assert!(!ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    podwire ended before it had results. Its last words:

        error: nothing matches the filter
    ");
    assert!(!ran.artifact("podwire-results").exists());
    let saved = github.caches();
    assert!(
        saved
            .iter()
            .any(|line| line.starts_with("save podwire-cargo-")),
        "{saved:?}"
    );
}

#[test]
#[ignore = "builds act"]
fn a_later_run_begins_with_what_an_earlier_one_of_its_job_has_built() {
    let github = github();
    let other = "artifact: other\nargs: --filter=C6";
    let restored = |version: &str, with: &str, artifact: &str| {
        let ran = github.push(&job(version, with, ""));
        let caches = github.caches();
        let restored = caches.iter().filter(|line| line.starts_with("restore"));
        let restored: Vec<String> = restored.map(|line| line.replace("podwire-", "")).collect();
        let cargo = ran.log.lines().find(|line| line.starts_with("cargo: "));
        format!(
            "{}\n{}\ntools {}",
            restored.join("\n"),
            cargo.unwrap_or_default(),
            read(&ran.artifact(artifact), "found").trim_end()
        )
    };
    insta::assert_snapshot!(restored("v1", "args: --break=route", "podwire-results"), @"
    restore Linux-v1-results-1-1: nothing
    restore cargo-Linux-v1-results-1-1: nothing
    cargo: build --locked --package xtask, after 0 files
    tools
    ");
    // Another job of the workflow has nothing of its own yet.
    insta::assert_snapshot!(restored("v1", other, "other"), @"
    restore Linux-v1-other-2-1: Linux-v1-results-1-1
    restore cargo-Linux-v1-other-2-1: cargo-Linux-v1-results-1-1
    cargo: build --locked --package xtask, after 1 files
    tools of-run-1
    ");
    // Its own comes before a newer one.
    insta::assert_snapshot!(restored("v1", "args: --filter=C6", "podwire-results"), @"
    restore Linux-v1-results-3-1: Linux-v1-results-1-1
    restore cargo-Linux-v1-results-3-1: cargo-Linux-v1-results-1-1
    cargo: build --locked --package xtask, after 1 files
    tools of-run-1
    ");
    // Another version of podwire is built in another folder.
    insta::assert_snapshot!(restored("v2", other, "other"), @"
    restore Linux-v2-other-4-1: Linux-v1-results-3-1
    restore cargo-Linux-v2-other-4-1: nothing
    cargo: build --locked --package xtask, after 0 files
    tools of-run-1 of-run-3
    ");
}

#[test]
#[ignore = "builds act"]
fn where_no_kvm_is_demanded_none_is() {
    let github = github();
    let ran = github.push(&job("v1", "require-kvm: false", ""));
    assert!(ran.passed, "{}", ran.log);
    let asked = read(&ran.artifact("podwire-results"), "asked");
    assert_eq!(asked, "test\n--yes\n");
    if !Path::new("/dev/kvm").exists() {
        assert!(!github.path("store/sudo-was-asked").exists());
    }
}

#[test]
#[ignore = "builds act"]
fn the_workflow_divides_the_scenarios_among_machines_with_the_programs_of_an_artifact() {
    let github = github();
    let jobs = r#"
  programs:
    runs-on: ubuntu-24.04
    steps:
      - run: mkdir built && printf '#!/bin/bash\necho proxy of mine' >built/kube-proxy
      - uses: actions/upload-artifact@v4
        with: { name: programs, path: built }
  network:
    needs: programs
    uses: owner/podwire/.github/workflows/podwire.yml@v1
    with:
      podwire: owner/podwire
      version: v1
      artifact: programs
      replace: kube-proxy=out/kube-proxy
      args: --profile=full
      shards: '["1/2", "2/2"]'
"#;
    let ran = github.push(jobs);
    assert!(ran.passed, "{}", ran.log);
    for (part, artifact) in [("1/2", "podwire-results-1"), ("2/2", "podwire-results-2")] {
        let artifact = ran.artifact(artifact);
        let asked = format!(
            "test\n--yes\n--require-kvm\n--replace\nkube-proxy=out/kube-proxy\n--profile=full\n--shard={part}\n"
        );
        assert_eq!(read(&artifact, "asked"), asked);
        assert_eq!(read(&artifact, "program"), "proxy of mine\n");
    }
    assert_eq!(
        ran.page.matches("### podwire: 1 passed").count(),
        2,
        "{}",
        ran.page
    );
    let emulated = "--break=route\n      require-kvm: false";
    let red = github.push(&jobs.replace("--profile=full", emulated));
    assert!(!red.passed, "{}", red.log);
    let asked = read(&red.artifact("podwire-results-1"), "asked");
    assert!(!asked.contains("--require-kvm"), "{asked}");
    assert_eq!(
        red.page.matches("### podwire: 1 failed").count(),
        2,
        "{}",
        red.page
    );
}
