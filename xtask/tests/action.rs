//! The action's steps, as a runner carries them out: with a `cargo` and an `xtask` that only tell what they
//! were asked.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod programs;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Where xtask is started: the file, and the step in it.
const STARTS: [(&str, &str); 2] = [
    ("action.yml", "Test"),
    (".github/workflows/podwire.yml", "Merge"),
];

struct Runner {
    dir: TempDir,
}

impl Runner {
    /// `xtask` is a script.
    fn new(xtask: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runner = Self { dir };
        for program in ["bin/cargo", "bin/rustup"] {
            runner.program(program, "exit 0");
        }
        runner.program("action/target/debug/xtask", xtask);
        fs::create_dir(runner.path("workspace")).unwrap();
        runner
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        programs::program(&self.path(name), script);
    }

    fn step(&self, name: &str) -> Command {
        self.command(&[&script(name)])
    }

    /// With the environment that the action gives its steps.
    fn command(&self, words: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        // The caller's nohup(1) is none of the runner's, nor is that a shell has put it in the background.
        let mut command = Command::new("/usr/bin/env");
        command
            .arg("--default-signal=HUP,INT")
            .args(words)
            .current_dir(self.path("workspace"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("ACTION", self.path("action"))
            .env("CARGO_TARGET_DIR", self.path("action/target"))
            .env("RESULTS", self.path("action/target/podwire/latest"))
            .env("SAID", self.path("said"))
            .env("REPLACE", "kube-proxy=out/a proxy\ncni/bridge=out/bridge\n")
            .env("ARGS", "\n--filter=E7\n")
            .env("COMPARE", "false")
            .env("BASE", "")
            .env("HEAD", "")
            .env("PREPARE", "false")
            .env("REQUIRE_KVM", "true")
            .stdin(Stdio::null());
        command
    }

    /// What a program writes into a file, once it is there.
    fn awaited(&self, name: &str) -> String {
        // Two minutes: only what hangs comes so far.
        for _ in 0..6000 {
            match fs::read_to_string(self.path(name)) {
                Ok(text) => return text,
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
        panic!("{name} is never written")
    }

    /// What a run has left in such a file, and the action's way to show it.
    fn has_left(&self, file: &str, results: &str) {
        let latest = self.path("action/target/podwire/latest");
        fs::create_dir_all(&latest).unwrap();
        fs::write(latest.join(file), results).unwrap();
        std::os::unix::fs::symlink(project().join(".github"), self.path("action/.github")).unwrap();
    }

    fn page(&self) -> String {
        let page = self.step("page.sh").output().unwrap();
        assert!(page.status.success(), "{page:?}");
        String::from_utf8(page.stdout).unwrap()
    }
}

/// Of a step, where it is.
fn script(name: &str) -> String {
    format!("{}/../.github/steps/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn each_line_of_an_input_is_one_argument_seen_from_the_workspace() {
    let runner = Runner::new("pwd; printf '<%s>\\n' \"$@\"; exit 4");
    let tested = runner.step("test.sh").output().unwrap();
    assert_eq!(tested.status.code(), Some(4));
    let workspace = fs::canonicalize(runner.path("workspace")).unwrap();
    let said = text(&tested);
    let (folder, words) = said.split_once('\n').unwrap();
    assert_eq!(Path::new(folder), workspace);
    let words: Vec<&str> = words.lines().collect();
    assert_eq!(
        words,
        [
            "<test>",
            "<--yes>",
            "<--require-kvm>",
            "<--replace>",
            "<kube-proxy=out/a proxy>",
            "<--replace>",
            "<cni/bridge=out/bridge>",
            "<--filter=E7>",
        ]
    );
}

#[test]
fn what_is_only_prepared_needs_no_kvm() {
    let runner = Runner::new("printf '<%s>' \"$@\"");
    let mut step = runner.step("test.sh");
    let prepared = step.env("PREPARE", "true").env("REPLACE", "").output();
    assert_eq!(
        text(&prepared.unwrap()),
        "<test><--yes><--prepare-only><--filter=E7>"
    );
}

#[test]
fn a_comparison_has_two_sides_each_a_file_with_a_flag_on_each_line() {
    let runner = Runner::new("printf '<%s>\\n' \"$@\"; exit 1");
    let mut step = runner.step("test.sh");
    let step = step.env("COMPARE", "true").env("ARGS", "--pairs=2\n");
    let base = step.env("BASE", "--kube-proxy=iptables\n\n--node-files=my files\n");
    let compared = base.env("HEAD", "--ip-families=dual").output().unwrap();
    assert_eq!(compared.status.code(), Some(1));
    let said = runner.path("said");
    let said = said.display();
    let words =
        format!("<compare>\n<{said}.base>\n<{said}.head>\n<--yes>\n<--require-kvm>\n<--pairs=2>\n");
    assert_eq!(text(&compared), words);
    let side = |name: &str| fs::read_to_string(runner.path(name)).unwrap();
    insta::assert_snapshot!(side("said.base"), @r"
    --kube-proxy=iptables
    --node-files=my\ files
    ");
    insta::assert_snapshot!(side("said.head"), @r"
    --replace
    kube-proxy=out/a\ proxy
    --replace
    cni/bridge=out/bridge
    --ip-families=dual
    ");

    let mut step = runner.step("test.sh");
    let sound = step.env("COMPARE", "true").env("REPLACE", "").status();
    assert_eq!(sound.unwrap().code(), Some(1));
    assert_eq!(side("said.head"), "");
}

#[test]
fn sides_without_a_comparison_are_refused() {
    let runner = Runner::new("exit 0");
    for side in ["BASE", "HEAD"] {
        let refused = runner.step("test.sh").env(side, "--nodes=4").status();
        assert_eq!(refused.unwrap().code(), Some(2));
    }
    assert!(runner.page().ends_with(
        "    error: base and head are the sides of a comparison: that is made where compare is true\n"
    ));
}

/// A runner with the artifacts of parts 1 and 2 of 3, of which the second has no results.
fn with_parts(xtask: &str) -> Runner {
    let runner = Runner::new(xtask);
    for (file, text) in [
        ("podwire-results-1/results.json", "{}"),
        ("podwire-results-1/page.md", "### podwire: 1 passed\n"),
        ("podwire-results-1/cell/first-page.md", ""),
        ("podwire-results-2/page.md", "    error: the disk is full\n"),
        ("podwire-results-of-another/results.json", "{}"),
    ] {
        let file = runner.path("parts").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    runner
}

fn of_parts(runner: &Runner, words: &[&str]) -> Command {
    let mut step = runner.command(words);
    step.env("PARTS", runner.path("parts"))
        .env("SHARDS", r#"["1/3", "2/3", "3/3"]"#)
        .env("RESULTS", runner.path("whole"));
    step
}

fn part_step(runner: &Runner, name: &str) -> Command {
    of_parts(runner, &[&script(name)])
}

#[test]
fn parts_are_merged_from_below_the_whole_s_own_folder() {
    let runner = with_parts("printf '<%s>\\n' \"$@\"; exit 1");
    let merged = part_step(&runner, "merge.sh").output().unwrap();
    assert_eq!(merged.status.code(), Some(1));
    let whole = runner.path("whole");
    let whole = whole.display();
    assert_eq!(
        text(&merged),
        format!("<merge>\n<--into>\n<{whole}>\n<{whole}/part-1>\n")
    );
    assert!(runner.path("whole/part-1/cell/first-page.md").exists());
    assert!(runner.path("whole/part-2/page.md").exists());
    assert_eq!(fs::read_dir(runner.path("whole")).unwrap().count(), 2);
}

#[test]
fn parts_of_a_comparison_are_merged_likewise() {
    let runner = with_parts("printf '<%s>\\n' \"$@\"");
    let parts = runner.path("parts");
    fs::write(parts.join("podwire-results-2/compare.json"), "{}").unwrap();
    let merged = text(&part_step(&runner, "merge.sh").output().unwrap());
    let whole = runner.path("whole");
    assert!(
        merged.ends_with(&format!("<{}/part-2>\n", whole.display())),
        "{merged}"
    );
}

#[test]
fn the_page_of_parts_that_are_no_whole_says_why_and_has_their_own() {
    let runner = with_parts("echo 'error: missing: parts 2, 3 of 3' >&2; exit 2");
    let merged = part_step(&runner, "merge.sh").output().unwrap();
    assert_eq!(merged.status.code(), Some(2));
    let page = part_step(&runner, "page.sh").output().unwrap();
    assert!(page.status.success());
    insta::assert_snapshot!(text(&page), @"
    ### podwire: the parts have not become one result

        error: missing: parts 2, 3 of 3

    ## Part 1/3

    ### podwire: 1 passed

    ## Part 2/3

        error: the disk is full

    ## Part 3/3

    It left nothing, not even last words: its job says more, or never ran.
    ");
}

#[test]
fn where_no_part_has_results_there_is_nothing_to_merge() {
    let runner = Runner::new("exit 0");
    let merged = part_step(&runner, "merge.sh").output().unwrap();
    assert_eq!(merged.status.code(), Some(2));
    let page = text(&part_step(&runner, "page.sh").output().unwrap());
    assert!(page.contains("    error: no part has results\n"), "{page}");
    assert_eq!(page.matches("It left nothing").count(), 3, "{page}");
}

/// A runner gives a step's script to a shell of its own, which is all that it signals when a job is cancelled:
/// SIGINT, after 7.5 s SIGTERM, and after 2.5 s more it kills what is left.
#[test]
fn whoever_cancels_the_step_reaches_xtask() {
    for (file, name) in STARTS {
        let xtask = "trap 'echo INT >>../got; touch ../interrupted' INT
                     trap 'echo TERM >>../got; exit 143' TERM
                     touch ../ready; while [ -e ../ready ]; do sleep 0.1; done";
        let runner = with_parts(xtask);
        std::os::unix::fs::symlink(project().join(".github"), runner.path("action/.github"))
            .unwrap();
        // Where the workflow has put podwire.
        std::os::unix::fs::symlink("../action", runner.path("workspace/podwire")).unwrap();
        let text = read(file);
        let script = line_of(step_of(&text, name), "run: ");
        let script = script.strip_prefix("run: ").unwrap();
        fs::write(runner.path("step"), format!("{script}\n")).unwrap();
        let shell = [
            "bash",
            "--noprofile",
            "--norc",
            "-e",
            "-o",
            "pipefail",
            "../step",
        ];
        let mut running: Child = of_parts(&runner, &shell)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        runner.awaited("ready");
        let pid = running.id().to_string();
        let signalled = |signal: &str| {
            let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
            assert!(sent.success(), "{file}: {signal}");
        };
        signalled("-INT");
        runner.awaited("interrupted");
        // It takes its time.
        assert!(running.try_wait().unwrap().is_none(), "{file}");
        signalled("-TERM");
        let ended = running.wait().unwrap();
        assert_eq!((ended.code(), ended.signal()), (Some(143), None), "{file}");
        let got = fs::read_to_string(runner.path("got")).unwrap();
        assert_eq!(got, "INT\nTERM\n", "{file}");
    }

    let hung_up = Runner::new("kill -HUP $$; exit 0");
    let ended = hung_up.step("test.sh").status().unwrap();
    assert_eq!(ended.signal(), Some(1));
}

#[test]
fn a_run_without_results_says_why_on_the_page_as_text() {
    let runner =
        Runner::new("printf 'error: no such program: out/kube-proxy\\n\\033[2J```\\n' >&2; exit 2");
    // What is copied to the file is still on its way when the step has ended, and its terminal with it.
    let slow = "case $1 in *.build) exec /usr/bin/tee \"$@\" ;; esac
                echo $$ >../copier.new && mv ../copier.new ../copier
                until [ -e ../go-on ]; do sleep 0.05; done
                exec /usr/bin/tee \"$@\"";
    runner.program("bin/tee", slow);
    let mut step = runner.step("test.sh");
    let log = File::create(runner.path("log")).unwrap();
    let tested = step.stdout(Stdio::null()).stderr(log).status();
    assert_eq!(tested.unwrap().code(), Some(2));
    let copier = runner.awaited("copier");
    let hung_up = Command::new("kill").args(["-HUP", copier.trim()]).status();
    assert!(hung_up.unwrap().success());
    fs::write(runner.path("go-on"), "").unwrap();
    assert_eq!(
        runner.page(),
        "podwire ended before it had results. Its last words:\n\n    \
         error: no such program: out/kube-proxy\n    [2J```\n"
    );
    let log = fs::read_to_string(runner.path("log")).unwrap();
    assert!(log.contains("no such program"), "{log}");
}

#[test]
fn a_podwire_that_cannot_be_built_says_so_on_the_page() {
    let runner = Runner::new("exit 0");
    runner.program("bin/cargo", "echo 'error: no space left' >&2; exit 101");
    let tested = runner.step("test.sh").output().unwrap();
    assert_eq!(tested.status.code(), Some(101));
    assert!(runner.page().ends_with("    error: no space left\n"));

    let refused = Runner::new("echo 'error: no such filter' >&2; exit 2");
    refused.program("bin/cargo", "echo '   Compiling xtask' >&2");
    let tested = refused.step("test.sh").output().unwrap();
    assert_eq!(tested.status.code(), Some(2));
    let page = refused.page();
    assert!(
        page.ends_with("Its last words:\n\n    error: no such filter\n"),
        "{page}"
    );
}

#[test]
fn what_an_earlier_step_left_is_not_this_ones() {
    let runner = Runner::new("exit 3");
    fs::create_dir_all(runner.path("action/target/podwire/latest")).unwrap();
    fs::write(
        runner.path("action/target/podwire/latest/results.json"),
        "{}",
    )
    .unwrap();
    fs::write(runner.path("said"), "of the step before").unwrap();
    assert_eq!(runner.step("test.sh").status().unwrap().code(), Some(3));
    assert!(!runner.path("action/target/podwire/latest").exists());
    assert!(!runner.page().contains("of the step before"));
}

#[test]
fn a_step_that_never_began_leaves_a_page_all_the_same() {
    let page = Runner::new("exit 2").page();
    assert!(
        page.starts_with("podwire ended before it had results."),
        "{page}"
    );
}

#[test]
fn a_page_is_no_longer_than_a_page() {
    let runner = Runner::new("exit 2");
    fs::write(
        runner.path("said"),
        format!("{}\n", "x".repeat(10_000)).repeat(100),
    )
    .unwrap();
    let page = runner.page();
    assert!((10_000..=65_536).contains(&page.len()), "{}", page.len());

    let reason = "x".repeat(1_000_000);
    let failed = r#"{"name": "a", "cell": "b", "outcome": "failed", "seconds": 1, "reason": ""#;
    runner.has_left("results.json", &format!(
        r#"{{"kubernetes": "1.36", "nodes": 3, "accelerator": "tcg", "harness_tests": [], "scenarios": [{failed}{reason}"}}]}}"#
    ));
    let page = runner.page();
    assert!(page.starts_with("### podwire: 1 failed\n"), "{page}");
    assert_eq!(page.len(), 65_536);
}

/// A runner on which a step finds no program but those that the test has made, and bash.
fn bare() -> Runner {
    let runner = Runner::new("exit 0");
    let bash = std::env::split_paths(&std::env::var("PATH").unwrap())
        .map(|folder| folder.join("bash"))
        .find(|path| path.exists());
    std::os::unix::fs::symlink(bash.unwrap(), runner.path("bin/bash")).unwrap();
    // What is there and does not open for writing, for root neither.
    fs::create_dir(runner.path("closed")).unwrap();
    runner
}

/// The step's exit code and what it says of the device.
fn kvm(runner: &Runner, device: &Path) -> (Option<i32>, String) {
    let mut step = runner.step("kvm.sh");
    let step = step.arg(device).env("PATH", runner.path("bin"));
    let ended = step.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    let said = text(&ended).replace(&device.display().to_string(), "DEVICE");
    (ended.status.code(), said)
}

const ASKED: &str = "echo \"$*\" >>../asked";

#[test]
fn the_page_says_what_guests_run_as_what_had_not_settled_and_what_ended_the_run() {
    let runner = Runner::new("exit 3");
    runner.has_left(
        "results.json",
        r#"{"kubernetes": "1.36", "nodes": 3, "accelerator": "kvm", "harness_tests": [],
        "accelerator_reason": "a guest booted under KVM on Some CPU, as host,pmu=off",
        "pod_network": "net_1.yaml (sha256 0123)", "pod_images": ["web.tar (sha256 4567)"], "cluster_dns": true,
        "node_files": "./mine (1 file, sha256 89ab)",
        "unsettled_stages": ["workload: 5 of 6 Pods run", "nodes: <b>"], "error": "the disk | is full",
        "scenarios": [{"name": "a", "cell": "b", "outcome": "passed", "seconds": 1}]}"#,
    );
    insta::assert_snapshot!(runner.page(), @"
    ### podwire: 1 passed

    Kubernetes 1.36 on 3 nodes, guests under kvm.

    Guests run under kvm: a guest booted under KVM on Some CPU, as host,pmu=off

    The Pod network: net&#95;1.yaml (sha256 0123)

    Images of Pods: web.tar (sha256 4567)

    Clusters by hand have CoreDNS too.

    Files over the nodes': ./mine (1 file, sha256 89ab)

    **workload: 5 of 6 Pods run**

    **nodes: &lt;b&gt;**

    **Ended early:** the disk &#124; is full

    | scenario | cluster | result | seconds |
    |---|---|---|---|
    | a | b | ✅ passed | 1 |
    ");
}

#[test]
fn the_page_of_a_comparison_says_what_differs_and_why_and_the_numbers() {
    let runner = Runner::new("exit 1");
    runner.has_left(
        "compare.json",
        r#"{"sentence": "head breaks 1 of 3 scenarios", "error": "the disk | is full",
        "base": {"flags": [], "tested": null}, "part": {"shard": "1/2"},
        "head": {"flags": ["--replace", "kube-proxy=out/kube-proxy"], "tested": null,
            "unsettled_stages": ["workload: 5 of 6 Pods run"]},
        "scenarios": [
            {"name": "every_pair", "cluster": "kubeadm", "difference": "passes_on_both",
                "base": {"runs": ["passed"], "reason": null}, "head": {"runs": ["passed"], "reason": null}},
            {"name": "cluster_ip", "cluster": "by-hand", "difference": "broke",
                "base": {"runs": ["passed", "passed"], "reason": null},
                "head": {"runs": ["failed", "failed"], "reason": "expected all <six>\n  seen 5"}},
            {"name": "node_reset", "cluster": "kubeadm", "difference": "only_head",
                "base": {"runs": ["not_run"], "reason": "it is for others"},
                "head": {"runs": ["passed", "no_verdict"], "reason": null}}],
        "numbers": {"metrics": [
            {"metric": "throughput", "unit": "Mbit/s", "answer": "worse", "base": 812.34567, "head": null,
                "ratio": 0.4931, "interval": [0.401, 0.6], "p": 0.0004, "pairs": [[1, 2]]},
            {"metric": "segments sent again", "unit": "", "answer": "undecided", "base": 1, "head": 1,
                "ratio": 1, "interval": null, "p": 0.31254, "pairs": [[1, 1]]}],
          "unmeasured": [
            {"measurement": "measure_way", "metric": "instructions to a Pod", "side": "base", "reason": "no counter"},
            {"measurement": "measure_way", "metric": "instructions to a Pod", "side": "head", "reason": "no counter"},
            {"measurement": "measure_way", "metric": "instructions to a ClusterIP", "side": "base", "reason": "none"},
            {"measurement": "measure_drain", "side": "head", "reason": "no | node"}]}}"#,
    );
    insta::assert_snapshot!(runner.page(), @"
    ### podwire: head breaks 1 of 3 scenarios

    - base: what is tested without any flags
    - head: --replace kube-proxy=out/kube-proxy

    Part 1/2 of the scenarios.

    **workload: 5 of 6 Pods run**

    **Ended early:** the disk &#124; is full

    | scenario | cluster | verdict | base | head |
    |---|---|---|---|---|
    | cluster&#95;ip | by-hand | ❌ broke | passed 2 of 2 | passed 0 of 2 |
    | node&#95;reset | kubeadm | only on head | none | passed 1 of 1 |

    **cluster&#95;ip, head**: expected all &lt;six&gt;<br>  seen 5

    **node&#95;reset, base**: it is for others

    | number | answer | base | head | ratio | interval | p | pairs |
    |---|---|---|---|---|---|---|---|
    | throughput | ❌ worse | 812.346 Mbit/s | not measured | 0.49 | 0.4 to 0.6 | &lt;0.001 | 1 |
    | segments sent again | ❔ undecided | 1 | 1 | 1 | - | 0.313 | 1 |

    **instructions to a Pod was not measured on base and head**: no counter

    **instructions to a ClusterIP was not measured on base**: none

    **measure&#95;drain was not measured on head**: no &#124; node
    ");
}

#[test]
fn a_device_that_is_not_there_or_opens_needs_nobody() {
    let runner = bare();
    runner.program("bin/sudo", &format!("{ASKED}; exit 1"));
    runner.program("bin/udevadm", "exit 0");
    let silent = (Some(0), String::new());
    assert_eq!(kvm(&runner, &runner.path("none")), silent);
    assert_eq!(kvm(&runner, Path::new("/dev/null")), silent);
    assert!(!runner.path("asked").exists());
}

#[test]
fn a_device_that_does_not_open_and_stays_so_ends_no_job() {
    let closed = |runner: &Runner| kvm(runner, &runner.path("closed"));
    let nobody =
        "DEVICE does not open for this user, and there is no sudo or no udev to change that\n";
    let nobody = (Some(0), nobody.to_owned());
    let runner = bare();
    assert_eq!(closed(&runner), nobody);
    runner.program("bin/udevadm", "exit 0");
    assert_eq!(closed(&runner), nobody);
    runner.program("bin/sudo", &format!("{ASKED}; exit 1"));
    fs::remove_file(runner.path("bin/udevadm")).unwrap();
    assert_eq!(closed(&runner), nobody);
    assert!(!runner.path("asked").exists());

    // A sudo that wants a password.
    runner.program("bin/udevadm", "exit 0");
    let refused = "DEVICE could not be opened for this user\n";
    assert_eq!(closed(&runner), (Some(0), refused.to_owned()));
    let asked = fs::read_to_string(runner.path("asked")).unwrap();
    assert_eq!(asked, "-n tee /etc/udev/rules.d/99-kvm.rules\n");
}

#[test]
fn a_device_that_does_not_open_is_opened_by_udev() {
    let runner = bare();
    runner.program("bin/udevadm", "exit 0");
    runner.program("bin/sudo", ASKED);
    let opened = kvm(&runner, &runner.path("closed"));
    assert_eq!(opened, (Some(0), String::new()));
    let asked = fs::read_to_string(runner.path("asked")).unwrap();
    insta::assert_snapshot!(asked, @"
    -n tee /etc/udev/rules.d/99-kvm.rules
    -n udevadm control --reload-rules
    -n udevadm trigger --name-match=kvm
    -n udevadm settle
    ");
}

/// The outputs of the action's first step, with these in its environment beside a job's usual ones.
fn places(runner: &Runner, changed: &[(&str, &str)]) -> String {
    let mut step = runner.step("places.sh");
    step.env("TEMP", "/temp")
        .envs([("SYSTEM", "Linux"), ("VERSION", "v1"), ("JOB", "results")])
        .envs([("RUN", "7-1"), ("PREPARED", "")])
        .envs(changed.iter().copied());
    let ended = step.output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    text(&ended)
}

/// One of each of podwire's own files that something cached is made of.
const BUILT_OF: [&str; 4] = [
    "Cargo.lock",
    "rust-toolchain.toml",
    "images/a",
    "harness/probe/a",
];

#[test]
fn cached_entries_are_told_apart_by_all_that_they_are_made_of_and_restored_from_the_nearest() {
    let runner = Runner::new("exit 0");
    for file in BUILT_OF {
        let file = runner.path("action").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
    let entry = |changed: &[(&str, &str)]| {
        let said = places(&runner, changed);
        line_of(&said, "entry=").to_owned()
    };
    let digest = |changed: &[(&str, &str)]| {
        let entry = entry(changed);
        entry.split(':').nth(3).unwrap().to_owned()
    };
    let usual = digest(&[]);
    let said = places(&runner, &[]).replace(&usual, "DIGEST");
    let action = fs::canonicalize(runner.path("action")).unwrap();
    let said = said.replace(&action.display().to_string(), "ACTION");
    insta::assert_snapshot!(said, @"
    cache=/temp/podwire-cache
    said=/temp/podwire-said
    target=ACTION/target
    results=ACTION/target/podwire/latest
    entry=Linux:v1:results:DIGEST:7-1
    older<<.
    podwire-Linux:v1:results:DIGEST:
    podwire-Linux:v1:results:
    podwire-Linux:v1:
    podwire-Linux:
    .
    older-cargo<<.
    podwire-cargo-Linux:v1:results:DIGEST:
    podwire-cargo-Linux:v1:results:
    podwire-cargo-Linux:v1:
    .
    ");
    for name in ["SYSTEM", "VERSION", "JOB", "RUN"] {
        assert_ne!(entry(&[(name, "other")]), entry(&[]), "{name}");
        assert_eq!(digest(&[(name, "other")]), usual, "{name}");
    }
    assert_ne!(digest(&[("ARGS", "--filter=E8")]), usual);
    assert_ne!(digest(&[("REPLACE", "kube-proxy=out/other")]), usual);
    assert_ne!(digest(&[("COMPARE", "true")]), usual);
    let base = digest(&[("BASE", "--kube-proxy=iptables")]);
    let head = digest(&[("HEAD", "--kube-proxy=iptables")]);
    assert!(base != usual && head != usual && base != head);
    // What is on a line of one is not the same on a line of the other.
    let (one, other) = (("ARGS", "a"), ("REPLACE", "a"));
    assert_ne!(
        digest(&[one, ("REPLACE", "")]),
        digest(&[other, ("ARGS", "")])
    );
    assert_eq!(digest(&[("ARGS", "--filter=E7\n\n\n")]), usual);
    for file in BUILT_OF {
        let file = runner.path("action").join(file);
        fs::write(&file, "other").unwrap();
        assert_ne!(digest(&[]), usual, "{}", file.display());
        fs::write(&file, "").unwrap();
    }
    assert_eq!(digest(&[]), usual);

    // A part has what was prepared for it, or nothing.
    let part = places(&runner, &[("PREPARED", "Linux:v1:results:0:6-1")]);
    assert_eq!(line_of(&part, "entry="), "entry=Linux:v1:results:0:6-1");
    assert!(!part.contains("older"), "{part}");
}

#[test]
fn the_workflow_tells_the_action_its_version() {
    let (action, workflow) = (read("action.yml"), read(".github/workflows/podwire.yml"));
    let places = step_of(&action, "Where things are");
    assert_eq!(
        line_of(places, "VERSION: "),
        "VERSION: ${{ inputs.version || github.action_ref }}"
    );
    for (variable, input) in [
        ("JOB", "artifact"),
        ("REPLACE", "replace"),
        ("COMPARE", "compare"),
        ("BASE", "base"),
        ("HEAD", "head"),
        ("ARGS", "args"),
    ] {
        let given = line_of(places, &format!("{variable}: "));
        assert_eq!(given, format!("{variable}: ${{{{ inputs.{input} }}}}"));
    }
    let uses: Vec<&str> = steps(&workflow)
        .filter(|step| step.contains("uses: ./podwire"))
        .collect();
    assert_eq!(uses.len(), 2);
    for step in uses {
        for input in ["version", "replace", "compare", "base", "head"] {
            let given = line_of(step, &format!("{input}: "));
            assert_eq!(given, format!("{input}: ${{{{ inputs.{input} }}}}"));
        }
    }
}

/// Whoever cancels a job signals a shell; and results are where the action says, whatever the workflow that
/// uses it has set.
#[test]
fn no_shell_is_above_xtask_and_its_results_are_in_the_actions_folder() {
    let starts = STARTS.map(|(file, name)| {
        let text = read(file);
        let step = step_of(&text, name);
        ["run: ", "CARGO_TARGET_DIR: ", "RESULTS: "].map(|it| line_of(step, it).to_owned())
    });
    assert_eq!(
        starts,
        [
            [
                "run: exec \"$ACTION/.github/steps/test.sh\"",
                "CARGO_TARGET_DIR: ${{ steps.paths.outputs.target }}",
                "RESULTS: ${{ steps.paths.outputs.results }}",
            ],
            [
                "run: exec podwire/.github/steps/merge.sh",
                "CARGO_TARGET_DIR: ${{ github.workspace }}/podwire/target",
                "RESULTS: ${{ github.workspace }}/results",
            ],
        ]
    );
}

/// GitHub shows ten of a step, and no more. xtask prints none: what it repeats of others is told as text.
#[test]
fn no_job_has_more_annotations_than_are_shown() {
    let mut files = vec!["action.yml".to_owned(), ".github/summary.jq".to_owned()];
    for folder in [".github/steps", ".github/workflows"] {
        for entry in fs::read_dir(project().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            files.push(format!("{folder}/{name}"));
        }
    }
    let mut commands = Vec::new();
    for file in files {
        for line in read(&file).lines() {
            let annotates = ["::warning", "::error", "::notice"]
                .iter()
                .any(|command| line.contains(command));
            if annotates {
                commands.push(format!("{file}: {}", line.trim()));
            }
        }
    }
    assert!((1..=10).contains(&commands.len()), "{commands:#?}");
    // Each is said once: its step does nothing else.
    for command in commands {
        let said = command.strip_prefix("action.yml: run: echo '::warning::");
        assert!(said.is_some_and(|it| it.ends_with('\'')), "{command}");
    }
}

/// A key of its own in each run, else a red run's half of a cache would stay the last word; but where that is
/// saved only when it is whole.
#[test]
fn caches_are_restored_and_saved_apart_and_saved_after_a_red_run_too() {
    for (file, caches) in [("action.yml", 2), (".github/workflows/ci.yml", 3)] {
        let text = read(file);
        assert!(!text.contains("uses: actions/cache@"), "{file}");
        let steps: Vec<&str> = steps(&text).collect();
        let with = |what: &str| -> Vec<&str> {
            let uses = format!("uses: actions/cache/{what}@");
            let steps = steps.iter().filter(|step| step.contains(&uses));
            steps.copied().collect()
        };
        let (restored, saved) = (with("restore"), with("save"));
        assert_eq!((restored.len(), saved.len()), (caches, caches), "{file}");
        for (restored, saved) in restored.into_iter().zip(saved) {
            assert!(saved.contains("if: always()"), "{file}: {saved}");
            let key = line_of(restored, "key: ");
            let named = match key.contains("${{ steps.paths.outputs.entry }}") {
                true => line_of(&text, "RUN: "),
                false => key,
            };
            let whole = "if: always() && steps.check.outcome == 'success' && ";
            assert!(
                named.contains("${{ github.run_id }}-${{ github.run_attempt }}")
                    || saved.contains(whole),
                "{file}: {named}"
            );
            let id = restored
                .lines()
                .find_map(|line| line.trim().strip_prefix("id: "));
            let again =
                id.map(|id| format!("key: ${{{{ steps.{id}.outputs.cache-primary-key }}}}"));
            let same = line_of(saved, "key: ");
            assert!(
                same == key || Some(same) == again.as_deref(),
                "{file}: {same}"
            );
            assert_eq!(paths(restored), paths(saved), "{file}");
        }
    }
}

/// cargo's build is large: kept is what no later run of these pins makes anew.
#[test]
fn of_cargo_s_own_build_the_project_s_ci_keeps_what_others_have_published() {
    let text = read(".github/workflows/ci.yml");
    let restored = step_of(&text, "Restore cargo's build");
    assert_eq!(paths(restored), ["path: target/debug"]);
    let pins = "hashFiles('Cargo.lock', 'rust-toolchain.toml')";
    assert!(line_of(restored, "key: ").contains(pins), "{restored}");
    // What an older one has beside that would be kept for ever.
    assert!(!restored.contains("restore-keys"), "{restored}");
    let names: Vec<&str> = steps(&text)
        .filter_map(|step| step.lines().next())
        .collect();
    let cleaned = "Leave of cargo's build what others have published";
    let cleaned = names.iter().position(|name| *name == cleaned).unwrap();
    assert_eq!(names[cleaned + 1], "Keep cargo's build");
    let cleaned = step_of(&text, names[cleaned]);
    assert_eq!(line_of(cleaned, "run: "), "run: cargo clean --workspace");
    let condition = |step| line_of(step, "if: ").to_owned();
    assert_eq!(
        condition(cleaned),
        condition(step_of(&text, "Keep cargo's build"))
    );
    let missed = "steps.build.outputs.cache-hit != 'true'";
    assert!(condition(cleaned).ends_with(missed), "{cleaned}");
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the project.
fn read(name: &str) -> String {
    fs::read_to_string(project().join(name)).unwrap()
}

/// Of a workflow or an action, each from its name to that of the next.
fn steps(text: &str) -> impl Iterator<Item = &str> {
    text.split("- name: ").skip(1)
}

fn step_of<'a>(text: &'a str, name: &str) -> &'a str {
    let mut named = steps(text).filter(|step| step.lines().next() == Some(name));
    let step = named.next().unwrap_or_else(|| panic!("no step {name}"));
    assert!(named.next().is_none(), "{name}");
    step
}

fn line_of<'a>(step: &'a str, begins: &str) -> &'a str {
    let mut lines = step.lines().map(str::trim);
    lines.find(|line| line.starts_with(begins)).unwrap()
}

/// What is between `path:` and `key:`.
fn paths(step: &str) -> Vec<&str> {
    let lines = step.lines().map(str::trim);
    let lines = lines.skip_while(|line| !line.starts_with("path:"));
    lines.take_while(|line| !line.starts_with("key:")).collect()
}
