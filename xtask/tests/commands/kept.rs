//! What is kept on this machine, while a cluster is up.

use std::fs;

use crate::{done, newest_run, output, said};

/// It is looked at, read and thinned out without harm to a cluster that runs.
pub(crate) fn is_left_alone() {
    let run = newest_run();
    let old = output().join("runs/20200101T000000Z-1");
    fs::create_dir_all(&old).unwrap();
    let old_name = old.file_name().unwrap().to_str().unwrap();
    let would = said("clean --dry-run");
    assert!(would.contains(old_name), "{would}");
    assert!(old.exists());
    // Its stage, for one.
    let all = said("clean --all --dry-run");
    assert!(all.contains("in use, kept: stages"), "{all}");
    for words in [
        "clean",
        "clean --older-than 3650d",
        "clean --max-size 1000TiB",
    ] {
        said(words);
        assert!(run.exists(), "{words}");
    }
    assert!(!old.exists());

    let verified = done("stages --verify");
    let told = [verified.stdout, verified.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert_eq!(verified.status.code(), Some(0), "{told}");
    assert!(told.contains("nothing is damaged"), "{told}");
    assert_eq!(said("ssh node2 hostname").trim(), "node2");
}
