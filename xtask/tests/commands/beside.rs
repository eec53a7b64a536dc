//! Two runs in one checkout, and one whose terminal is closed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{LIMIT, Running, output, results, workspace};

const RUN: &str = "test --yes --nodes 2 --bootstrap by-hand --filter static_routes";

/// Of the one cell that these runs have.
const CELL: &str = "by-hand-nftables-routes";

fn runs() -> BTreeSet<PathBuf> {
    let runs = fs::read_dir(output().join("runs"));
    let runs = runs.into_iter().flatten();
    runs.map(|run| run.unwrap().path()).collect()
}

/// The number of the process that made a run.
fn process(run: &Path) -> u32 {
    let name = run.file_name().unwrap().to_str().unwrap();
    name.rsplit_once('-').unwrap().1.parse().unwrap()
}

fn until<T>(found: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(started.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "runs clusters of machines"]
fn two_runs_at_once_in_one_checkout_are_both_right() {
    let whole = Running::start(RUN);
    let broken = Running::start(&format!("{RUN} --break route"));
    for (run, code, outcome) in [(whole, 0, "passed"), (broken, 1, "failed")] {
        let own = run.child.id();
        let (ended, heard) = run.ended();
        assert_eq!(ended, Some(code), "{heard:#?}");
        let folder = runs().into_iter().find(|it| process(it) == own).unwrap();
        let results = results(&folder);
        let scenarios = results["scenarios"].as_array().unwrap();
        assert_eq!(scenarios.len(), 1, "{results:#}");
        assert_eq!(scenarios[0]["outcome"], outcome, "{results:#}");
        if outcome == "failed" {
            // A second clone lacks the route as well.
            let attempt = folder.join(scenarios[0]["folder"].as_str().unwrap());
            let page = fs::read_to_string(attempt.join("first-page.md")).unwrap();
            assert!(page.contains("a second clone failed as well: "), "{page}");
        }
        let store = folder.join(CELL).join("nextest.xml");
        assert!(store.exists(), "{}", store.display());
    }
}

#[test]
#[ignore = "runs a cluster of machines"]
fn a_run_whose_terminal_is_closed_ends_its_machines_and_reports() {
    let before = runs();
    // script(1) is the terminal, and its end is that of the terminal.
    let command = format!("exec {} {RUN}", env!("CARGO_BIN_EXE_xtask"));
    let mut terminal = Command::new("script")
        .args(["--quiet", "--flush", "--command", &command, "/dev/null"])
        .current_dir(workspace())
        .env_remove("CI")
        .env("PODWIRE_OUTPUT", output())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let run = until(|| runs().difference(&before).next().cloned());
    let attempt = run.join(CELL).join("scenarios/static_routes/attempt-1");
    until(|| attempt.join("scenario").exists().then_some(()));
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    // One that only waits to be reaped has no program any more.
    let program = PathBuf::from(format!("/proc/{}/exe", process(&run)));
    until(|| fs::read_link(&program).err());

    let results = results(&run);
    let scenarios = results["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 1, "{results:#}");
    assert_eq!(scenarios[0]["outcome"], "skipped", "{results:#}");
    let reason = scenarios[0]["reason"].as_str().unwrap();
    assert!(reason.contains("ended by"), "{results:#}");
    assert!(run.join("junit.xml").exists());
    let name = run.file_name().unwrap();
    let left = Command::new("pgrep").arg("-f").arg(name).output().unwrap();
    assert!(left.stdout.is_empty(), "{left:?}");
}
