//! Running nextest, and what it saw.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use podwire_process::{ChildCommand, Stream, plain};
use quick_junit::{Report, TestCaseStatus};
use rustix::process::Pid;

use crate::command::session::Session;
use crate::report::merge::Seen;

/// One run of nextest.
#[derive(Debug, Clone)]
pub(crate) struct Nextest {
    pub(crate) program: PathBuf,
    pub(crate) workspace: PathBuf,
    /// A profile of `.config/nextest.toml`.
    pub(crate) profile: &'static str,
    /// A folder of this run alone, for its settings and its report; an absolute path. nextest's own
    /// store is one for the checkout, and another run's report would be read for this one's.
    pub(crate) store: PathBuf,
    /// What the profile leaves open, beside where the report goes.
    pub(crate) settings: String,
    /// Which tests, in nextest's filterset language.
    pub(crate) filterset: String,
    pub(crate) at_once: usize,
    pub(crate) env: Vec<(String, String)>,
}

/// What nextest builds. Both runs name both packages, and so does [`build`](crate::run::build): with one set of packages
/// cargo resolves one set of features, and compiles everything once.
pub(super) const PACKAGES: [&str; 4] = [
    "--package",
    "podwire-tests",
    "--package",
    "podwire-scenarios",
];

/// All tests of the harness.
pub(crate) fn harness_tests() -> String {
    "package(podwire-tests)".into()
}

/// The one of them that is about the image in its machines.
pub(crate) fn image_facts() -> String {
    "package(podwire-tests) & test(=the_image_is_what_its_manifest_says)".into()
}

/// The profile of the harness's own tests.
pub(crate) const HARNESS: &str = "harness";

/// The profile of the scenarios.
pub(crate) const SCENARIOS: &str = "scenarios";

/// What [`SCENARIOS`] leaves open beside the report: how long a process may take. One that is kept for a person to look
/// at has no limit.
pub(crate) fn scenarios_settings(limit: Duration, grace: Duration, keep: bool) -> String {
    let ends = if keep { "" } else { "terminate-after = 1, " };
    // Without a fraction, and never less than was asked for.
    let seconds = |duration: Duration| duration.as_secs() + 1;
    format!(
        "slow-timeout = {{ period = \"{}s\", {ends}grace-period = \"{}s\" }}\n",
        seconds(limit),
        seconds(grace)
    )
}

/// Exactly these scenarios.
pub(crate) fn scenarios(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("test(={name})")).collect();
    format!(
        "package(podwire-scenarios) & kind(test) & ({})",
        names.join(" | ")
    )
}

/// How nextest ended, as far as it matters here (nextest-metadata's `NextestExitCode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Every test passed.
    Passed,
    /// Some did not (code 100).
    TestsFailed,
    /// It could not do its work: the build failed, for one.
    Broken,
}

impl Ended {
    /// Whether every test passed, as it says.
    pub(crate) fn is_good(self) -> bool {
        self == Self::Passed
    }

    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Passed,
            Some(100) => Self::TestsFailed,
            _ => Self::Broken,
        }
    }
}

impl Nextest {
    /// The command line, without what somebody has set for nextest.
    pub(crate) fn command(&self) -> ChildCommand {
        self.command_among(std::env::vars_os().map(|(name, _)| name))
    }

    /// The same where these are the names of the variables that there are.
    fn command_among(&self, variables: impl Iterator<Item = OsString>) -> ChildCommand {
        let mut args: Vec<String> = ["nextest", "run", "--locked"].map(String::from).to_vec();
        args.extend(PACKAGES.map(String::from));
        args.extend(
            [
                "--profile",
                self.profile,
                "--no-fail-fast",
                // A result that depends on luck is to be seen, not hidden: not even where
                // NEXTEST_RETRIES says otherwise.
                "--retries=0",
                "--show-progress=none",
                "--cargo-quiet",
                // What it passes on is shown without any.
                "--color=never",
                "--filterset",
                &self.filterset,
            ]
            .map(String::from),
        );
        let config = format!("podwire:{}", self.config_file().display());
        args.extend(["--tool-config-file".into(), config]);
        args.extend(["--test-threads".into(), self.at_once.max(1).to_string()]);
        let mut command = ChildCommand::new(&self.program)
            .args(args)
            .outside_cargo()
            .dir(&self.workspace);
        for name in settings_of_nextest(variables) {
            command = command.env_remove(name);
        }
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        // The terminal's Ctrl-C reaches xtask alone, which tells nextest once.
        command.own_group = true;
        command.stdout = Stream::Piped;
        command.stderr = Stream::Piped;
        command
    }

    fn config_file(&self) -> PathBuf {
        self.store.join("nextest.toml")
    }

    /// What the file of settings says.
    fn config(&self) -> anyhow::Result<String> {
        let (profile, settings) = (self.profile, &self.settings);
        // A string of JSON is one of TOML.
        let junit = serde_json::to_string(&self.junit())?;
        Ok(format!(
            "[profile.{profile}]\n{settings}\n[profile.{profile}.junit]\npath = {junit}\n"
        ))
    }

    /// Where it leaves its JUnit file, by its settings.
    fn junit(&self) -> PathBuf {
        self.store.join("nextest.xml")
    }

    /// Runs it to its end; its lines are shown as they come, and `poll` is called now and then.
    pub(crate) fn run(&self, session: &Session, mut poll: impl FnMut()) -> anyhow::Result<Ended> {
        let Session {
            spawner,
            interrupts,
            ..
        } = session;
        fs::create_dir_all(&self.store)
            .with_context(|| format!("cannot make {}", self.store.display()))?;
        let config = self.config_file();
        fs::write(&config, self.config()?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        match fs::remove_file(self.junit()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).context("cannot remove nextest's report of an earlier run");
            }
            _ => {}
        }
        let mut child = spawner.spawn(self.command())?;
        interrupts.tell_first(Some(Pid::from_child(&child)));
        let readers: Vec<_> = [
            child.stdout.take().map(|stream| lines(stream, session)),
            child.stderr.take().map(|stream| lines(stream, session)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            poll();
            thread::sleep(Duration::from_millis(200));
        };
        interrupts.tell_first(None);
        for reader in readers {
            // A reader that panicked has lost some lines of text, nothing else.
            let _ = reader.join();
        }
        Ok(Ended::of(status))
    }

    /// What it saw of each test, by the test's name.
    pub(crate) fn seen(&self) -> anyhow::Result<BTreeMap<String, Seen>> {
        read_junit(&self.junit())
    }
}

/// The variables by which somebody sets nextest's options, and those that it gives to tests: a run is
/// what its command line says. `NEXTEST_NO_TESTS=pass` would have nothing pass for something.
fn settings_of_nextest(names: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let own = |name: &OsString| name.as_encoded_bytes().starts_with(b"NEXTEST");
    names.filter(own).collect()
}

fn lines(stream: impl std::io::Read + Send + 'static, session: &Session) -> thread::JoinHandle<()> {
    let (progress, interrupts) = (session.progress.clone(), session.interrupts.clone());
    thread::spawn(move || {
        let mut shown = Shown::default();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if shown.has(&line, interrupts.have_come()) {
                progress.line(&line);
            }
        }
    })
}

/// Which of nextest's lines are shown.
#[derive(Debug, Default)]
struct Shown {
    /// Whether it has begun to end what runs, because somebody wants it to.
    is_over: bool,
}

impl Shown {
    fn has(&mut self, line: &str, interrupted: bool) -> bool {
        let ends = ["Cancelling ", "Summary ["];
        let ends = ends.iter().any(|word| line.trim_start().starts_with(word));
        // It calls failed what was ended, which the report that follows knows better.
        self.is_over |= interrupted && ends;
        // Rules between nextest's paragraphs say nothing among other lines.
        !self.is_over && line.chars().any(char::is_alphanumeric)
    }
}

fn read_junit(path: &Path) -> anyhow::Result<BTreeMap<String, Seen>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        // It ended before any test did.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let report = Report::deserialize_from_str(&text)
        .with_context(|| format!("cannot understand {}", path.display()))?;
    Ok(seen(&report))
}

fn seen(report: &Report) -> BTreeMap<String, Seen> {
    report
        .test_suites
        .iter()
        .flat_map(|suite| &suite.test_cases)
        .map(|case| {
            let (passed, message) = match &case.status {
                TestCaseStatus::Success { .. } => (true, String::new()),
                TestCaseStatus::NonSuccess {
                    message,
                    description,
                    ..
                } => {
                    let text = description.as_ref().or(message.as_ref());
                    (
                        false,
                        text.map_or_else(String::new, |text| text.as_str().to_owned()),
                    )
                }
                TestCaseStatus::Skipped { message, .. } => (
                    false,
                    message
                        .as_ref()
                        .map_or_else(String::new, |m| m.as_str().to_owned()),
                ),
            };
            let seconds = case.time.map_or(0.0, |time| time.as_secs_f64());
            (
                case.name.as_str().to_owned(),
                Seen {
                    passed,
                    message: plain::text(&message),
                    seconds,
                },
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn the_command_names_each_test_exactly() {
        let nextest = Nextest {
            program: "/cache/cargo-nextest".into(),
            workspace: "/podwire".into(),
            profile: SCENARIOS,
            store: "/run/cell".into(),
            settings: String::new(),
            filterset: scenarios(&["static_routes".into(), "joins".into()]),
            at_once: 0,
            env: vec![("PODWIRE_CELL_FOLDER".into(), "/run/cell".into())],
        };
        let command = nextest.command();
        insta::assert_snapshot!(command.display());
        assert!(command.own_group);
    }

    #[test]
    fn a_process_has_a_limit_unless_its_cluster_is_kept() {
        let config = |keep| {
            let (limit, grace) = (Duration::from_millis(90_500), Duration::from_secs(30));
            scenarios_settings(limit, grace, keep)
        };
        insta::assert_snapshot!(config(false), @r#"slow-timeout = { period = "91s", terminate-after = 1, grace-period = "31s" }"#);
        insta::assert_snapshot!(config(true), @r#"slow-timeout = { period = "91s", grace-period = "31s" }"#);
    }

    fn harness(store: &str) -> Nextest {
        Nextest {
            program: "/cache/cargo-nextest".into(),
            workspace: "/podwire".into(),
            profile: HARNESS,
            store: store.into(),
            settings: String::new(),
            filterset: harness_tests(),
            at_once: 1,
            env: Vec::new(),
        }
    }

    #[test]
    fn each_run_has_a_store_of_its_own_in_one_checkout() {
        let (one, other) = (harness("/runs/1/harness"), harness("/runs/2/harness"));
        assert_ne!(one.junit(), other.junit());
        insta::assert_snapshot!(one.config().unwrap(), @r#"
        [profile.harness]

        [profile.harness.junit]
        path = "/runs/1/harness/nextest.xml"
        "#);
        assert!(
            one.command()
                .display()
                .contains("/runs/1/harness/nextest.toml")
        );
        // What stands in the checkout's settings goes before a run's own.
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let shared = fs::read_to_string(workspace.join(".config/nextest.toml")).unwrap();
        let mut lines = shared.lines().map(str::trim_start);
        assert!(!lines.any(|line| line.starts_with("path")), "{shared}");
    }

    #[test]
    fn what_somebody_sets_for_nextest_does_not_reach_a_run() {
        let names = [
            "PATH",
            "NEXTEST_RETRIES",
            "NEXTEST_NO_TESTS",
            "MY_NEXTEST",
            "NEXTEST",
        ];
        let mut nextest = harness("/runs/1/harness");
        nextest.env = vec![("PODWIRE_TEST_IMAGE".into(), "/image".into())];
        let command = nextest.command_among(names.into_iter().map(OsString::from));
        let last = |name: &str| {
            let mut set = command.env.iter().rev();
            set.find(|(set, _)| set == name).map(|(_, value)| value)
        };
        for name in ["NEXTEST_RETRIES", "NEXTEST_NO_TESTS", "NEXTEST"] {
            assert_eq!(last(name), Some(&None), "{name}");
        }
        for name in ["PATH", "MY_NEXTEST"] {
            assert_eq!(last(name), None, "{name}");
        }
        assert_eq!(last("PODWIRE_TEST_IMAGE"), Some(&Some("/image".into())));
        // Those of this very process, where it has any.
        let command = nextest.command();
        for name in settings_of_nextest(std::env::vars_os().map(|(name, _)| name)) {
            assert!(command.env.contains(&(name, None)), "{:?}", command.env);
        }
    }

    #[test]
    fn what_somebody_ended_is_not_shown_as_failed() {
        let lines = [
            "        PASS [   2.904s] podwire-scenarios::scenarios names",
            "  Cancelling due to interrupt: 1 test still running",
            "        FAIL [   8.301s] podwire-scenarios::scenarios joins",
            "────────────",
            "     Summary [   8.302s] 1/3 tests run: 0 passed, 1 failed",
            "      SIGINT [   8.301s] podwire-scenarios::scenarios joins",
            "error: test run failed",
        ];
        let shown = |interrupted| {
            let mut shown = Shown::default();
            let kept = lines.iter().filter(|line| shown.has(line, interrupted));
            kept.count()
        };
        assert_eq!(shown(true), 1);
        assert_eq!(shown(false), 6);
    }

    #[test]
    fn nextest_s_exit_codes_tell_failed_tests_from_its_own_trouble() {
        let ended = |code: i32| Ended::of(ExitStatus::from_raw(code << 8));
        assert_eq!(ended(0), Ended::Passed);
        assert_eq!(ended(100), Ended::TestsFailed);
        assert_eq!(ended(101), Ended::Broken);
        assert_eq!(Ended::of(ExitStatus::from_raw(9)), Ended::Broken);
    }

    #[test]
    fn a_junit_file_tells_what_became_of_each_process() {
        let report = Report::deserialize_from_str(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="2" failures="1" errors="0" time="3.5">
  <testsuite name="podwire-scenarios::scenarios" tests="2" disabled="0" errors="0" failures="1">
    <testcase name="joins" classname="podwire-scenarios::scenarios" time="3.0"></testcase>
    <testcase name="static_routes" classname="podwire-scenarios::scenarios" time="0.5">
      <failure type="test failure with exit code 101">seen: a time-out</failure>
    </testcase>
  </testsuite>
</testsuites>"#,
        )
        .unwrap();
        let seen = seen(&report);
        assert!(seen["joins"].passed);
        assert_eq!(seen["joins"].seconds, 3.0);
        assert!(!seen["static_routes"].passed);
        assert_eq!(seen["static_routes"].message, "seen: a time-out");
    }

    #[test]
    fn no_junit_file_means_nothing_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            read_junit(&dir.path().join("junit.xml"))
                .unwrap()
                .is_empty()
        );
    }
}
