//! A run that somebody ends while it sets something up: what it leaves.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod programs;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// By when all of it is to be there.
const LIMIT: Duration = Duration::from_secs(5);

/// Whatever is built or installed first never comes to its end.
#[test]
#[ignore = "needs the room and the packages of a run, and no machine: cargo test -p xtask --test interrupted -- --ignored"]
fn who_ends_the_set_up_has_a_whole_report_within_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let waits = format!(
        "echo $$ >{0}.new && mv {0}.new {0}; sleep 600",
        path("pid").display()
    );
    for program in ["cargo", "sudo", "apt-get"] {
        programs::program(&path("bin").join(program), &waits);
    }
    let own = std::env::var("PATH").unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["test", "--yes", "--bootstrap", "by-hand"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .env("PATH", format!("{}:{own}", path("bin").display()))
        .env("PODWIRE_CACHE", path("cache"))
        .env("PODWIRE_OUTPUT", path("output"))
        .env_remove("CI")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(path("said")).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(path("said")).unwrap();
    let waiting = loop {
        if let Ok(pid) = fs::read_to_string(path("pid")) {
            break pid;
        }
        assert!(run.try_wait().unwrap().is_none(), "{}", said());
        thread::sleep(Duration::from_millis(50));
    };
    let (told, pid) = (Instant::now(), run.id().to_string());
    let signalled = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(signalled.success());
    let ended = run.wait().unwrap();
    let took = told.elapsed();
    assert_eq!(ended.code(), Some(130), "{}", said());
    assert!(took < LIMIT, "{took:?}");
    // Of one that nobody has reaped yet it is empty (proc_pid_cmdline(5)).
    let left = fs::read(Path::new("/proc").join(waiting.trim()).join("cmdline"));
    assert!(left.unwrap_or_default().is_empty(), "its child is left");

    let read = |name: &str| fs::read_to_string(path("output/latest").join(name)).unwrap();
    let results: Value = serde_json::from_str(&read("results.json")).unwrap();
    let error = results["error"].as_str().unwrap();
    assert!(error.starts_with("the run was under way"), "{error}");
    let scenarios = results["scenarios"].as_array().unwrap();
    assert!(!scenarios.is_empty());
    assert!(scenarios.iter().all(|it| it["outcome"] == "skipped"));
    assert!(read("report.html").contains(error));
    assert!(read("junit.xml").contains("<testsuites"));
}
