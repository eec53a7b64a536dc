//! A git repository of the user's, as tests make one.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Has git do something in a repository, whoever runs the tests and however he has set it; gives what it says.
pub(crate) fn git(repository: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository);
    command
        .args(["-c", "user.name=a", "-c", "user.email=a@b.example"])
        .args(words);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git {words:?}: {said}");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// Makes one with two commits that differ in a file `note`: `first`, tagged `old`, and `second`.
pub(crate) fn of_two_commits(repository: &Path, [first, second]: [&str; 2]) {
    fs::create_dir(repository).unwrap();
    git(repository, &["init", "--quiet"]);
    let note = repository.join("note");
    fs::write(&note, first).unwrap();
    git(repository, &["add", "note"]);
    git(repository, &["commit", "--quiet", "--message", "first"]);
    git(repository, &["tag", "old"]);
    fs::write(&note, second).unwrap();
    let all = ["commit", "--quiet", "--all", "--message", "second"];
    git(repository, &all);
}
