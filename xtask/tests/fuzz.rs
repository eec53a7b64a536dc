//! `cargo xtask fuzz` as a person types it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::process::{Command, Output};

fn fuzz(words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("fuzz")
        .args(words.split_whitespace())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap()
}

/// How much was survived: the last line without the seed and the time.
fn survived(words: &str) -> String {
    let output = fuzz(words);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    let (_, behind_seed) = last.split_once(": ").unwrap();
    behind_seed.split(" in ").next().unwrap().to_owned()
}

#[test]
fn a_seed_repeats_the_inputs_and_targets_are_chosen() {
    let all = survived("--inputs 20000 --seed 7");
    assert!(all.ends_with(" inputs survived"), "{all}");
    assert_eq!(survived("--inputs 20000 --seed 7"), all);
    assert_ne!(survived("--inputs 20000 --seed 8"), all);
    let one = fuzz("--target dns --target held --inputs 1000");
    let text = String::from_utf8(one.stdout).unwrap();
    let tried: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(tried, ["target", "dns", "held", "seed"]);
}

#[test]
fn a_time_ends_it_and_an_unknown_target_never_begins() {
    assert_eq!(survived("--seconds 0"), "0 inputs survived");
    assert_eq!(fuzz("--target http").status.code(), Some(2));
}
