//! `cargo xtask chaos` as a person types it, as far as no machine is needed.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn chaos(cache: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("chaos")
        .args(words.split_whitespace())
        .arg("--dir")
        .arg(cache.join("chaos"))
        .env("PODWIRE_CACHE", cache.join("cache"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap()
}

#[test]
fn a_seed_repeats_its_rounds_from_any_of_them_on() {
    let dir = tempfile::tempdir().unwrap();
    let drawn = |words: &str| {
        let output = chaos(dir.path(), words);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = drawn("--seed 7 --draw 30");
    assert_eq!(all.len(), 30);
    assert!(all[0].starts_with("round 1: "), "{}", all[0]);
    assert_eq!(drawn("--seed 7 --draw 30"), all);
    assert_ne!(drawn("--seed 8 --draw 30"), all);
    assert_eq!(drawn("--seed 7 --from 21 --draw 10"), all[20..]);
    assert!(!dir.path().join("chaos").exists());
}

#[test]
fn unknown_scenarios_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let output = chaos(dir.path(), "--filter no_such_scenario --seconds 1");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no_such_scenario"), "{said}");
    assert!(!dir.path().join("chaos").exists());
}

#[test]
fn a_cache_that_cannot_be_read_leaves_no_folder_behind() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("cache")).unwrap();
    // What is to be a folder of bundles is none.
    fs::write(dir.path().join("cache/bundles"), "").unwrap();
    let output = chaos(dir.path(), "--seconds 1");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let left = fs::read_dir(dir.path().join("chaos")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn a_campaign_that_was_killed_is_removed_by_clean_and_one_at_work_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("output");
    let campaigns = ["1-1", "2-2"].map(|name| output.join("chaos").join(name));
    for campaign in &campaigns {
        fs::create_dir_all(campaign.join("cache/stages")).unwrap();
    }
    let at_work = fs::File::open(&campaigns[1]).unwrap();
    at_work.lock_shared().unwrap();
    let clean = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("clean")
        .env("PODWIRE_CACHE", dir.path().join("cache"))
        .env("PODWIRE_OUTPUT", &output)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    assert!(clean.status.success(), "{clean:?}");
    assert_eq!(campaigns.map(|it| it.exists()), [false, true]);
    let said = String::from_utf8(clean.stdout).unwrap();
    assert!(said.contains("in use, kept: "), "{said}");
}
