//! A kernel of the user's in the nodes: Debian's for clouds, which is another build than the nodes' own.

use std::fs;
use std::process::Command;

use super::{is_up, said};

/// What of Debian's archive depends on the newest kernel for clouds.
const NEWEST: &str = "linux-image-cloud-amd64";

/// Its name begins like that, and the rest of it is its version.
const NAMED: &str = "linux-image-";

#[test]
#[ignore = "runs clusters of machines"]
fn nodes_run_the_user_s_kernel_and_reach_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let apt = |program: &str, words: &[&str]| {
        let done = Command::new(program).args(words).current_dir(&dir).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let depends = apt("apt-cache", &["depends", NEWEST]);
    let package = depends
        .split_whitespace()
        .find(|it| it.starts_with(NAMED) && *it != NEWEST);
    let package = package.unwrap();
    apt("apt-get", &["download", package]);
    let file = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let cluster = format!("--yes --nodes 2 --kernel {}", file.display());

    is_up(&format!("up --stage workload {cluster}"), || {
        for node in ["node1", "node2"] {
            let release = said(&format!("ssh {node} uname -r"));
            assert_eq!(Some(release.trim()), package.strip_prefix(NAMED), "{node}");
        }
    });

    let told = said(&format!(
        "test --bootstrap by-hand --filter every_pair {cluster}"
    ));
    let name = file.file_name().unwrap().to_str().unwrap();
    let kernel = format!("debian with the kernel of {name} (sha256 ");
    assert!(told.contains(&kernel), "{told}");
}
