//! What the program says of addresses with passwords, wherever on its command line they are.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::process::Command;

fn refused(words: &[&str]) -> String {
    let cache = tempfile::tempdir().unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(words)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .env_clear()
        .env("PODWIRE_CACHE", cache.path())
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    assert!(done.stdout.is_empty(), "{done:?}");
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn a_password_is_in_no_error() {
    for words in [
        [
            "test",
            "--pod-network",
            "https://user:s3cret@a.example/net.yaml",
        ],
        ["up", "--bundle-from", "https://user:s3cret@a.example"],
        [
            "bundle",
            "--replace",
            "kube-proxy=https://user:s3cret@a.example/x",
        ],
        [
            "bundle",
            "--config",
            "https://user:s3cret@a.example/mine.toml",
        ],
        ["bundle", "https://user:s3cret@a.example", "x"],
    ] {
        let told = refused(&words);
        assert!(told.contains("https://***@a.example"), "{words:?}: {told}");
        assert!(!told.contains("s3cret"), "{words:?}: {told}");
    }
}
