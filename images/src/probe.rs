//! The static guest program, built from this workspace.

use std::path::PathBuf;
use std::time::Duration;

use podwire_process::ChildCommand;

use crate::command::run_step;
use crate::digest::sha256_file;
use crate::{Error, Workshop};

/// The target whose glibc can be linked statically without another toolchain.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How long cargo may take for it.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The built program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it is.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
}

/// Builds it; cargo finds out whether anything is to be done.
///
/// # Errors
/// [`Error::Step`] with cargo's last lines.
pub fn build(workshop: &Workshop<'_>) -> Result<Probe, Error> {
    let _lock = workshop.cache.lock("probe", workshop.report)?;
    workshop.cache.hold(&workshop.cache.folder("build")?)?;
    let target = workshop.cache.folder("build/probe")?;
    let remap = format!("--remap-path-prefix={}=podwire", workshop.source.display());
    let flags = ["-Ctarget-feature=+crt-static", "-Cstrip=symbols", &remap].join("\u{1f}");
    let command = ChildCommand::new("cargo")
        .args([
            "build",
            "--locked",
            "--release",
            "--package",
            "podwire-probe",
            "--bin",
            "probe",
        ])
        .args(["--target", TARGET])
        .outside_cargo()
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .dir(workshop.source);
    let path = target.join(TARGET).join("release/probe");
    if !path.exists() {
        workshop
            .report
            .step("building the guest program (about 20 seconds, once)");
    }
    let log = workshop.cache.folder("logs")?.join("probe.log");
    run_step(workshop, "building the guest program", command, &log, LIMIT)?;
    let sha256 = sha256_file(&path).map_err(Error::file("read", &path))?;
    Ok(Probe { path, sha256 })
}
