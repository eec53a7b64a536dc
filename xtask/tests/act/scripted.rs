//! With a cargo whose build is a script, which does as xtask would.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::github::GitHub;

/// What cargo's build is here. Says what it was asked; uses the cache; leaves results and what belongs to
/// them, of one scenario for each part; makes one of several results.
const XTASK: &str = r#"
if [ "$1" = merge ]; then
  into=$3 && shift 3
  file=results.json
  if [ -e "$1/compare.json" ]; then file=compare.json; fi
  whole=$(jq -r '.shard // .part.shard' "$1/$file") && whole=${whole#*/}
  if [ $# != "$whole" ]; then
    echo "error: missing: $((whole - $#)) of $whole" >&2
    exit 2
  fi
  jq -s '.[0] + { shard: null, part: null,
      scenarios: [.[] | (.shard // .part.shard) as $part | .scenarios[] | .part = $part] }' \
    "${@/%//$file}" >"$into/$file"
  touch "$into/junit.xml" "$into/report.html"
  jq -e 'all(.scenarios[]; .outcome == "passed" or .difference)' "$into/$file" >/dev/null
  exit
fi
case "$*" in
*nothing*)
  echo "error: nothing matches the filter" >&2
  exit 2 ;;
*--filter=lost*--shard=2/*)
  echo "error: the disk is full" >&2
  exit 3 ;;
*--filter=red*--shard=2/* | *--break*) results=red.json code=1 ;;
*) results=green.json code=0 ;;
esac
file=results.json
if [ "$1" = compare ]; then
  file=compare.json results=compare.json
  cat "$3" >"$STORE/head"
fi
found=$(ls "$PODWIRE_CACHE/tools" 2>/dev/null | tr '\n' ' ')
mkdir -p "$PODWIRE_CACHE/tools"
case "$*" in
*--prepare-only*)
  touch "$PODWIRE_CACHE/tools/prepared-in-run-$GITHUB_RUN_ID"
  printf '%s\n' "$@" >"$STORE/prepared"
  exit 0 ;;
esac
touch "$PODWIRE_CACHE/tools/of-run-$GITHUB_RUN_ID"
out=$CARGO_TARGET_DIR/podwire
mkdir -p "$out/runs/1/cell" && ln -sfn runs/1 "$out/latest" && cd "$out/runs/1"
part=$(printf '%s\n' "$@" | sed -n 's/^--shard=//p')
jq --arg part "$part" 'if $part == "" then . elif .sentence then .part.shard = $part else .shard = $part end' \
  "$STORE/$results" >$file
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
    let side = json!({ "flags": [], "tested": null, "runs": ["passed"], "reason": null });
    let scenario = json!({
        "name": "static_routes", "cluster": "by-hand", "difference": "only_head",
        "base": side, "head": side,
    });
    let comparison = json!({
        "sentence": "nothing broke", "error": null, "base": side, "head": side,
        "scenarios": [scenario],
    });
    write("compare.json", comparison);
    github
}

/// A job that uses the action with these inputs, and then does these steps. It builds programs of its own in a
/// folder of its own.
fn job(version: &str, with: &str, then: &str) -> String {
    format!(
        "  network:
    runs-on: ubuntu-24.04
    env:
      CARGO_TARGET_DIR: of-the-callers-own
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
    restore podwire-Linux:v1:podwire-results:A:1-1: nothing
    restore podwire-cargo-Linux:v1:podwire-results:A:1-1: nothing
    save podwire-Linux:v1:podwire-results:A:1-1
    save podwire-cargo-Linux:v1:podwire-results:A:1-1
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
    restore Linux:v1:results:A:1-1: nothing
    restore cargo-Linux:v1:results:A:1-1: nothing
    cargo: build --locked --package xtask, after 0 files
    tools
    ");
    // Another job of the workflow has nothing of its own yet.
    insta::assert_snapshot!(restored("v1", other, "other"), @"
    restore Linux:v1:other:B:2-1: Linux:v1:results:A:1-1
    restore cargo-Linux:v1:other:B:2-1: cargo-Linux:v1:results:A:1-1
    cargo: build --locked --package xtask, after 1 files
    tools of-run-1
    ");
    // Its own comes before a newer one, also of other inputs.
    insta::assert_snapshot!(restored("v1", "args: --filter=C6", "podwire-results"), @"
    restore Linux:v1:results:B:3-1: Linux:v1:results:A:1-1
    restore cargo-Linux:v1:results:B:3-1: cargo-Linux:v1:results:A:1-1
    cargo: build --locked --package xtask, after 1 files
    tools of-run-1
    ");
    // And of its own what it was asked for before comes first.
    insta::assert_snapshot!(restored("v1", "args: --break=route", "podwire-results"), @"
    restore Linux:v1:results:A:4-1: Linux:v1:results:A:1-1
    restore cargo-Linux:v1:results:A:4-1: cargo-Linux:v1:results:A:1-1
    cargo: build --locked --package xtask, after 1 files
    tools of-run-1
    ");
    // Another version of podwire is built in another folder.
    insta::assert_snapshot!(restored("v2", other, "other"), @"
    restore Linux:v2:other:B:5-1: Linux:v1:results:A:4-1
    restore cargo-Linux:v2:other:B:5-1: nothing
    cargo: build --locked --package xtask, after 0 files
    tools of-run-1 of-run-4
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

/// The workflow with components of an earlier job, these arguments and parts.
fn workflow(args: &str, shards: &str) -> String {
    format!(
        r#"
  programs:
    runs-on: ubuntu-24.04
    steps:
      - run: mkdir built && printf '#!/bin/bash\necho proxy of mine' >built/kube-proxy
      - uses: actions/upload-artifact@v4
        with: {{ name: programs, path: built, overwrite: true }}
  network:
    needs: programs
    uses: owner/podwire/.github/workflows/podwire.yml@v1
    with:
      podwire: owner/podwire
      version: v1
      artifact: programs
      replace: kube-proxy=out/kube-proxy
      args: {args}
      shards: '{shards}'
"#
    )
}

/// What was restored and saved, whichever job was first.
fn caches(github: &GitHub) -> String {
    let mut caches = github.caches();
    caches.sort();
    caches.join("\n")
}

const TWO: &str = r#"["1/2", "2/2"]"#;

#[test]
#[ignore = "builds act"]
fn the_workflow_prepares_once_and_makes_one_result_of_its_parts() {
    let github = github();
    let jobs = workflow("--profile=full", TWO);
    let ran = github.push(&jobs);
    assert!(ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    ### podwire: 2 passed

    Kubernetes 1.36.4 on 3 nodes, guests under tcg.

    | scenario | cluster | result | seconds | part |
    |---|---|---|---|---|
    | static&#95;routes | by-hand/nftables/routes | ✅ passed | 12 | 1/2 |
    | static&#95;routes | by-hand/nftables/routes | ✅ passed | 12 | 2/2 |
    ");
    let prepared =
        "test\n--yes\n--prepare-only\n--replace\nkube-proxy=out/kube-proxy\n--profile=full\n";
    assert_eq!(read(&github.path("store"), "prepared"), prepared);
    let whole = ran.artifact("podwire-results");
    assert_eq!(
        names(&whole),
        [
            "junit.xml",
            "part-1",
            "part-2",
            "report.html",
            "results.json"
        ]
    );
    for part in ["1", "2"] {
        let folder = whole.join(format!("part-{part}"));
        let asked = format!(
            "test\n--yes\n--require-kvm\n--replace\nkube-proxy=out/kube-proxy\n--profile=full\n--shard={part}/2\n"
        );
        assert_eq!(read(&folder, "asked"), asked);
        assert_eq!(read(&folder, "program"), "proxy of mine\n");
        assert_eq!(read(&folder, "found").trim_end(), "prepared-in-run-1");
        assert_eq!(names(&folder.join("cell")), ["first-page.md"]);
    }
    insta::assert_snapshot!(caches(&github), @"
    restore podwire-Linux:v1:podwire-results:A:1-1: nothing
    restore podwire-Linux:v1:podwire-results:A:1-1: podwire-Linux:v1:podwire-results:A:1-1
    restore podwire-Linux:v1:podwire-results:A:1-1: podwire-Linux:v1:podwire-results:A:1-1
    restore podwire-cargo-Linux:v1:podwire-results:A:1-1: nothing
    restore podwire-cargo-Linux:v1:podwire-results:A:1-1: podwire-cargo-Linux:v1:podwire-results:A:1-1
    restore podwire-cargo-Linux:v1:podwire-results:A:1-1: podwire-cargo-Linux:v1:podwire-results:A:1-1
    restore podwire-cargo-Linux:v1:podwire-results:A:1-1: podwire-cargo-Linux:v1:podwire-results:A:1-1
    save podwire-Linux:v1:podwire-results:A:1-1
    save podwire-cargo-Linux:v1:podwire-results:A:1-1
    ");

    // The next run begins with what this one has prepared, and its parts with that alone.
    let ran = github.push(&jobs);
    assert!(ran.passed, "{}", ran.log);
    let found = read(&ran.artifact("podwire-results-2"), "found");
    assert_eq!(found.trim_end(), "prepared-in-run-1 prepared-in-run-2");
    assert!(!ran.log.contains("not there any more"), "{}", ran.log);
    insta::assert_snapshot!(caches(&github), @"
    restore podwire-Linux:v1:podwire-results:A:2-1: podwire-Linux:v1:podwire-results:A:1-1
    restore podwire-Linux:v1:podwire-results:A:2-1: podwire-Linux:v1:podwire-results:A:2-1
    restore podwire-Linux:v1:podwire-results:A:2-1: podwire-Linux:v1:podwire-results:A:2-1
    restore podwire-cargo-Linux:v1:podwire-results:A:2-1: podwire-cargo-Linux:v1:podwire-results:A:1-1
    restore podwire-cargo-Linux:v1:podwire-results:A:2-1: podwire-cargo-Linux:v1:podwire-results:A:2-1
    restore podwire-cargo-Linux:v1:podwire-results:A:2-1: podwire-cargo-Linux:v1:podwire-results:A:2-1
    restore podwire-cargo-Linux:v1:podwire-results:A:2-1: podwire-cargo-Linux:v1:podwire-results:A:2-1
    save podwire-Linux:v1:podwire-results:A:2-1
    save podwire-cargo-Linux:v1:podwire-results:A:2-1
    ");
}

#[test]
#[ignore = "builds act"]
fn the_workflow_compares_in_parts_what_it_has_prepared_for_both_sides() {
    let github = github();
    let compare = "--pairs=2\n      compare: true\n      base: --kube-proxy=iptables";
    let ran = github.push(&workflow(compare, TWO));
    assert!(ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    ### podwire: nothing broke

    - base: what is tested without any flags
    - head: what is tested without any flags

    | scenario | cluster | verdict | base | head | part |
    |---|---|---|---|---|---|
    | static&#95;routes | by-hand | only on head | passed 1 of 1 | passed 1 of 1 | 1/2 |
    | static&#95;routes | by-hand | only on head | passed 1 of 1 | passed 1 of 1 | 2/2 |
    ");
    let asked = |folder: &Path, name: &str| {
        let asked = read(folder, name);
        let words = asked.lines().filter(|word| !word.starts_with('/'));
        words.collect::<Vec<_>>().join(" ")
    };
    let store = github.path("store");
    assert_eq!(
        asked(&store, "prepared"),
        "compare --yes --prepare-only --pairs=2"
    );
    assert_eq!(
        read(&store, "head"),
        "--replace\nkube-proxy=out/kube-proxy\n"
    );
    let whole = ran.artifact("podwire-results");
    assert!(whole.join("compare.json").exists());
    for part in ["1", "2"] {
        let folder = whole.join(format!("part-{part}"));
        assert_eq!(
            asked(&folder, "asked"),
            format!("compare --yes --require-kvm --pairs=2 --shard={part}/2")
        );
    }
}

#[test]
#[ignore = "builds act"]
fn a_part_takes_nothing_older_than_what_was_prepared_for_it_and_leaves_the_page_to_the_whole() {
    let github = github();
    let earlier = github.push(&job("v1", "args: --filter=C6", ""));
    assert!(earlier.passed, "{}", earlier.log);
    caches(&github);
    let part = "args: --filter=C6\nprepared: Linux:v1:lost";
    let ran = github.push(&job("v1", part, ""));
    assert!(ran.passed, "{}", ran.log);
    insta::assert_snapshot!(caches(&github), @"
    restore podwire-Linux:v1:lost: nothing
    restore podwire-cargo-Linux:v1:lost: nothing
    ");
    assert!(ran.log.contains("not there any more"), "{}", ran.log);
    let artifact = ran.artifact("podwire-results");
    assert_eq!(read(&artifact, "found").trim_end(), "");
    assert_eq!(ran.page, "");
    assert!(read(&artifact, "page.md").starts_with("### podwire: 1 passed\n"));
}

#[test]
#[ignore = "builds act"]
fn a_whole_is_red_when_a_part_is_and_the_others_are_in_it_too() {
    let github = github();
    let ran = github.push(&workflow("--filter=red", TWO));
    assert!(!ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    ### podwire: 1 failed, 1 passed

    Kubernetes 1.36.4 on 3 nodes, guests under tcg.

    | scenario | cluster | result | seconds | part |
    |---|---|---|---|---|
    | static&#95;routes | by-hand/nftables/routes | ✅ passed | 12 | 1/2 |
    | static&#95;routes | by-hand/nftables/routes | ❌ failed | 12 | 2/2 |

    **static&#95;routes**: expected: &lt;an answer&gt;
    ");
    let whole = ran.results("podwire-results");
    assert_eq!(whole["scenarios"][0]["outcome"], "passed");
    assert_eq!(whole["scenarios"][1]["outcome"], "failed");
    let evidence = ran.artifact("podwire-results").join("part-2/cell");
    assert_eq!(names(&evidence), ["first-page.md"]);

    // A second attempt has the run's artifacts before it.
    let ran = github.rerun(&workflow("--filter=C6", TWO));
    assert!(ran.passed, "{}", ran.log);
    let whole = ran.results("podwire-results");
    assert_eq!(whole["scenarios"][1]["outcome"], "passed");
}

#[test]
#[ignore = "builds act"]
fn a_whole_without_one_of_its_parts_says_so_and_keeps_the_others() {
    let github = github();
    let ran = github.push(&workflow("--filter=lost", TWO));
    assert!(!ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    ### podwire: the parts have not become one result

        error: missing: 1 of 2

    ## Part 1/2

    ### podwire: 1 passed

    Kubernetes 1.36.4 on 3 nodes, guests under tcg, part 1/2 of the scenarios.

    | scenario | cluster | result | seconds |
    |---|---|---|---|
    | static&#95;routes | by-hand/nftables/routes | ✅ passed | 12 |

    ## Part 2/2

    podwire ended before it had results. Its last words:

        error: the disk is full
    ");
    let whole = ran.artifact("podwire-results");
    assert_eq!(names(&whole), ["part-1", "part-2"]);
    assert_eq!(names(&whole.join("part-2")), ["page.md"]);

    // Nobody was asked for the third.
    let ran = github.push(&workflow("--filter=C6", r#"["1/3", "2/3"]"#));
    assert!(!ran.passed, "{}", ran.log);
    assert!(
        ran.page.contains("    error: missing: 1 of 3\n"),
        "{}",
        ran.page
    );
}

#[test]
#[ignore = "builds act"]
fn what_cannot_be_prepared_is_said_once_and_no_part_begins() {
    let github = github();
    let ran = github.push(&workflow("--filter=nothing", TWO));
    assert!(!ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    podwire ended before it had results. Its last words:

        error: nothing matches the filter
    ");
    assert_eq!(names(&github.path("store/artifacts/1")), ["programs"]);
}

#[test]
#[ignore = "builds act"]
fn one_machine_that_has_all_scenarios_prepares_for_itself_and_merges_nothing() {
    let github = github();
    let emulated = "--profile=full\n      require-kvm: false";
    let ran = github.push(&workflow(emulated, r#"["1/1"]"#));
    assert!(ran.passed, "{}", ran.log);
    insta::assert_snapshot!(ran.page, @"
    ### podwire: 1 passed

    Kubernetes 1.36.4 on 3 nodes, guests under tcg.

    | scenario | cluster | result | seconds |
    |---|---|---|---|
    | static&#95;routes | by-hand/nftables/routes | ✅ passed | 12 |
    ");
    let artifact = ran.artifact("podwire-results");
    let asked = "test\n--yes\n--replace\nkube-proxy=out/kube-proxy\n--profile=full\n";
    assert_eq!(read(&artifact, "asked"), asked);
    assert_eq!(read(&artifact, "program"), "proxy of mine\n");
    assert!(!github.path("store/prepared").exists());
    insta::assert_snapshot!(caches(&github), @"
    restore podwire-Linux:v1:podwire-results:A:1-1: nothing
    restore podwire-cargo-Linux:v1:podwire-results:A:1-1: nothing
    save podwire-Linux:v1:podwire-results:A:1-1
    save podwire-cargo-Linux:v1:podwire-results:A:1-1
    ");
}
