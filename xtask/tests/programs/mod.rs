//! Stand-ins for programs, as tests write them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script of bash for somebody to run, by a process of its own: whoever another test starts
/// meanwhile inherits what is open here, and a file that is open for writing cannot be run (execve(2),
/// ETXTBSY).
pub(crate) fn program(path: &Path, script: &str) {
    let mut install = Command::new("install")
        .args(["-D", "-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = install.stdin.take().unwrap();
    writeln!(stdin, "#!/bin/bash\n{script}").unwrap();
    drop(stdin);
    assert!(install.wait().unwrap().success());
}
