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
        let steps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.github/steps");
        let path = std::env::var("PATH").unwrap();
        // The caller's nohup(1) is none of the runner's.
        let mut command = Command::new("/usr/bin/env");
        command
            .arg("--default-signal=HUP")
            .arg(steps.join(name))
            .current_dir(self.path("workspace"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("ACTION", self.path("action"))
            .env("CARGO_TARGET_DIR", self.path("action/target"))
            .env("RESULTS", self.path("action/target/podwire/latest"))
            .env("SAID", self.path("said"))
            .env("REPLACE", "kube-proxy=out/a proxy\ncni/bridge=out/bridge\n")
            .env("ARGS", "\n--filter=E7\n")
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

    /// What a run has left, and the action's way to show it.
    fn has_results(&self, results: &str) {
        let latest = self.path("action/target/podwire/latest");
        fs::create_dir_all(&latest).unwrap();
        fs::write(latest.join("results.json"), results).unwrap();
        let summary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.github/summary.jq");
        fs::create_dir(self.path("action/.github")).unwrap();
        fs::copy(summary, self.path("action/.github/summary.jq")).unwrap();
    }

    fn page(&self) -> String {
        let page = self.step("page.sh").output().unwrap();
        assert!(page.status.success(), "{page:?}");
        String::from_utf8(page.stdout).unwrap()
    }
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

fn of_parts(runner: &Runner, name: &str) -> Command {
    let mut step = runner.step(name);
    step.env("PARTS", runner.path("parts"))
        .env("SHARDS", r#"["1/3", "2/3", "3/3"]"#)
        .env("RESULTS", runner.path("whole"));
    step
}

#[test]
fn parts_are_merged_from_below_the_whole_s_own_folder() {
    let runner = with_parts("printf '<%s>\\n' \"$@\"; exit 1");
    let merged = of_parts(&runner, "merge.sh").output().unwrap();
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
fn the_page_of_parts_that_are_no_whole_says_why_and_has_their_own() {
    let runner = with_parts("echo 'error: missing: parts 2, 3 of 3' >&2; exit 2");
    let merged = of_parts(&runner, "merge.sh").output().unwrap();
    assert_eq!(merged.status.code(), Some(2));
    let page = of_parts(&runner, "page.sh").output().unwrap();
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
    let merged = of_parts(&runner, "merge.sh").output().unwrap();
    assert_eq!(merged.status.code(), Some(2));
    let page = text(&of_parts(&runner, "page.sh").output().unwrap());
    assert!(page.contains("    error: no part has results\n"), "{page}");
    assert_eq!(page.matches("It left nothing").count(), 3, "{page}");
}

#[test]
fn whoever_cancels_the_step_reaches_xtask() {
    let runner =
        Runner::new("trap 'exit 130' INT TERM; touch ../ready; while :; do sleep 0.1; done");
    let mut step = runner.step("test.sh");
    let mut running: Child = step
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    runner.awaited("ready");
    // A runner signals the process that it started, and nobody below it.
    let pid = running.id().to_string();
    let signalled = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(signalled.success());
    let ended = running.wait().unwrap();
    assert_eq!((ended.code(), ended.signal()), (Some(130), None));

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
    runner.has_results(&format!(
        r#"{{"kubernetes": "1.36", "nodes": 3, "accelerator": "tcg", "harness_tests": [], "scenarios": [{failed}{reason}"}}]}}"#
    ));
    let page = runner.page();
    assert!(page.starts_with("### podwire: 1 failed\n"), "{page}");
    assert_eq!(page.len(), 65_536);
}

#[test]
fn the_page_says_what_guests_run_as_what_had_not_settled_and_what_ended_the_run() {
    let runner = Runner::new("exit 3");
    runner.has_results(
        r#"{"kubernetes": "1.36", "nodes": 3, "accelerator": "kvm", "harness_tests": [],
        "accelerator_reason": "a guest booted under KVM on Some CPU, as host,pmu=off",
        "unsettled_stages": ["workload: 5 of 6 Pods run", "nodes: <b>"], "error": "the disk | is full",
        "scenarios": [{"name": "a", "cell": "b", "outcome": "passed", "seconds": 1}]}"#,
    );
    insta::assert_snapshot!(runner.page(), @"
    ### podwire: 1 passed

    Kubernetes 1.36 on 3 nodes, guests under kvm.

    Guests run under kvm: a guest booted under KVM on Some CPU, as host,pmu=off

    **workload: 5 of 6 Pods run**

    **nodes: &lt;b&gt;**

    **Ended early:** the disk &#124; is full

    | scenario | cluster | result | seconds |
    |---|---|---|---|
    | a | b | ✅ passed | 1 |
    ");
}

#[test]
fn a_device_that_is_not_there_or_opens_needs_nobody() {
    let runner = Runner::new("exit 0");
    runner.program("bin/sudo", "touch ../asked; exit 1");
    runner.program("bin/udevadm", "exit 0");
    let kvm = |device: &Path| {
        runner
            .step("kvm.sh")
            .arg(device)
            .status()
            .unwrap()
            .success()
    };
    assert!(kvm(&runner.path("none")));
    assert!(kvm(Path::new("/dev/null")));
    assert!(!runner.path("asked").exists());
}

/// A key of its own in each run, else a red run's half of a cache would stay the last word.
#[test]
fn caches_are_restored_and_saved_apart_and_saved_after_a_red_run_too() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in ["action.yml", ".github/workflows/ci.yml"] {
        let text = fs::read_to_string(project.join(file)).unwrap();
        assert!(!text.contains("uses: actions/cache@"), "{file}");
        let steps: Vec<&str> = text.split("- name: ").collect();
        let with = |what: &str| -> Vec<&str> {
            let uses = format!("uses: actions/cache/{what}@");
            let steps = steps.iter().filter(|step| step.contains(&uses));
            steps.copied().collect()
        };
        let (restored, saved) = (with("restore"), with("save"));
        assert_eq!((restored.len(), saved.len()), (2, 2), "{file}");
        for (restored, saved) in restored.into_iter().zip(saved) {
            assert!(saved.contains("if: always()"), "{file}: {saved}");
            let key = line_of(restored, "key: ");
            let named = match key.contains("${{ steps.paths.outputs.entry }}") {
                true => line_of(&text, "RUN: "),
                false => key,
            };
            assert!(
                named.contains("${{ github.run_id }}-${{ github.run_attempt }}"),
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
