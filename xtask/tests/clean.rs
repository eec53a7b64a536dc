//! `cargo xtask clean` as a person types it, over folders in which no machine has run.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;
use std::process::Command;

use podwire_scenario::bare;
use time::OffsetDateTime;

/// What it says.
fn clean(dir: &Path, words: &str) -> String {
    let clean = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("clean")
        .args(words.split_whitespace())
        .env("PODWIRE_CACHE", dir.join("cache"))
        .env(bare::OUTPUT_VARIABLE, dir.join("output"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    assert!(clean.status.success(), "{clean:?}");
    String::from_utf8(clean.stdout).unwrap()
}

#[test]
fn a_bare_scenarios_run_is_left_alone_and_told_until_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("output").join(bare::RUNS);
    // As a scenario has it that `cargo nextest run` has started: `latest` does not lead there.
    let live = bare::new_run(&runs, OffsetDateTime::now_utc()).unwrap();
    let path = live.to_owned();
    fs::write(path.join("memory"), "of a clone").unwrap();
    let old = runs.join("20261121T130500Z-1");
    fs::create_dir(&old).unwrap();

    let kept = format!("in use, kept: runs {}", path.display());
    let told = clean(dir.path(), "--dry-run");
    assert!(told.contains(&kept), "{told}");
    assert_eq!(told.matches(path.to_str().unwrap()).count(), 1, "{told}");
    assert!(old.exists());
    for words in ["", "--all", "--older-than 0s"] {
        let told = clean(dir.path(), words);
        assert!(told.contains(&kept), "clean {words}: {told}");
        assert!(path.join("memory").exists(), "clean {words}");
        assert!(!old.exists(), "clean {words}");
    }

    drop(live);
    let told = clean(dir.path(), "");
    assert!(!told.contains("in use, kept:"), "{told}");
    assert!(!path.exists());
}
