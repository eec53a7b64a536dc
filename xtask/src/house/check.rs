//! `cargo xtask check`: what needs nothing but the Rust toolchain, a C compiler and GnuPG.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podwire_images::tools;
use podwire_process::{ChildCommand, Spawner, Stream, run};

use crate::command::session::Session;
use crate::say::stop::Stop;
use crate::say::text::clock;

/// A check: one command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: &'static str,
    program: PathBuf,
    args: Vec<&'static str>,
}

/// Longest that asking for the advisory data may take before they count as out of reach.
const ADVISORIES_LIMIT: Duration = Duration::from_secs(60);

/// All checks, the quick ones first.
fn checks(cargo: &Path, cargo_deny: &Path) -> Vec<Check> {
    let check = |name, program: &Path, args: &[&'static str]| Check {
        name,
        program: program.to_owned(),
        args: args.to_vec(),
    };
    vec![
        check("format", cargo, &["fmt", "--all", "--check"]),
        check(
            "licences, bans, sources",
            cargo_deny,
            &[
                "check",
                "--hide-inclusion-graph",
                "licenses",
                "bans",
                "sources",
            ],
        ),
        check(
            "lints",
            cargo,
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ],
        ),
        check(
            "tests without QEMU",
            cargo,
            &[
                "test",
                "--workspace",
                "--exclude",
                "podwire-tests",
                "--exclude",
                "podwire-scenarios",
            ],
        ),
        // Its test program wants a cluster; its unit tests want nothing.
        check(
            "tests of the catalogue",
            cargo,
            &["test", "--package", "podwire-scenarios", "--lib"],
        ),
    ]
}

/// Programs of other people's that open what podwire captures, and the package of each. A test that wants one
/// begins with its name.
const READERS: [(&str, &str); 2] = [("tshark", "tshark"), ("tcpdump", "tcpdump")];

/// The tests of those readers that are here; what is left out is said.
fn readers(cargo: &Path, is_here: impl Fn(&str) -> bool) -> (Vec<Check>, Vec<String>) {
    let (here, missing): (Vec<_>, Vec<_>) = READERS
        .into_iter()
        .partition(|(program, _)| is_here(program));
    let checks = here.into_iter().map(|(program, _)| Check {
        name: "captures as others read them",
        program: cargo.to_owned(),
        args: [
            "test",
            "--package",
            "podwire-lan",
            "--test",
            "readers",
            "--",
            "--ignored",
            program,
        ]
        .to_vec(),
    });
    let missing = missing.into_iter().map(|(program, package)| {
        format!(
            "captures as {program} reads them: not checked, it is not on the path (package {package})"
        )
    });
    (checks.collect(), missing.collect())
}

/// The whole command.
pub(crate) fn check(session: &Session) -> Result<(), Stop> {
    session.progress.phase("tools");
    let cargo_deny = tools::deny(&session.workshop());
    session.progress.idle();
    check_all(
        &session.spawner,
        &session.workspace.root,
        session.cache.root(),
        &cargo_deny?,
    )
}

/// Runs them all, and says at the end which did not pass.
fn check_all(spawner: &Spawner, root: &Path, cache: &Path, cargo_deny: &Path) -> Result<(), Stop> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut failed = Vec::new();
    let mut passed = 0;
    let mut checks = checks(&cargo, cargo_deny);
    let advisories = Check {
        name: "advisories",
        program: cargo_deny.to_owned(),
        args: vec!["check", "advisories"],
    };
    match reachable(spawner, root, cache, cargo_deny) {
        Ok(()) => checks.insert(2, advisories),
        Err(why) => {
            errln!("==> advisories: not checked, their data are out of reach from here ({why})")
        }
    }
    let (readers, left_out) = readers(&cargo, |program| which::which(program).is_ok());
    checks.extend(readers);
    for what in &left_out {
        errln!("==> {what}");
    }
    for check in &checks {
        let started = Instant::now();
        let mut command = command(check, root, cache);
        command.stdout = Stream::Inherit;
        command.stderr = Stream::Inherit;
        errln!("==> {}: {}", check.name, command.display());
        let status = spawner.spawn(command)?.wait()?;
        let took = clock(started.elapsed());
        if status.success() {
            passed += 1;
            errln!("==> {}: passed ({took})", check.name);
        } else {
            errln!("==> {}: FAILED with {status} ({took})", check.name);
            failed.push(check.name);
        }
    }
    if !failed.is_empty() {
        errln!("failed: {}", failed.join(", "));
    }
    outln!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Stop::Failed)
    }
}

fn command(check: &Check, root: &Path, cache: &Path) -> ChildCommand {
    ChildCommand::new(&check.program)
        .args(&check.args)
        .outside_cargo()
        .dir(root)
        // deny.toml keeps the advisory data there.
        .env("PODWIRE_CACHE", cache)
        // A snapshot that differs is a failure, not something to be written.
        .env("INSTA_UPDATE", "no")
}

/// Fetches the advisory data; `Err` says why they cannot be had.
fn reachable(
    spawner: &Spawner,
    root: &Path,
    cache: &Path,
    cargo_deny: &Path,
) -> Result<(), String> {
    let fetch = Check {
        name: "advisory data",
        program: cargo_deny.to_owned(),
        args: vec!["fetch", "db"],
    };
    let command = command(&fetch, root, cache);
    let shown = command.display();
    run(spawner, command, ADVISORIES_LIMIT)
        .and_then(|finished| finished.success(&shown))
        .map(drop)
        .map_err(|error| {
            error
                .to_string()
                .lines()
                .next_back()
                .unwrap_or_default()
                .trim()
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_check_needs_a_guest() {
        let checks = checks(Path::new("cargo"), Path::new("cargo-deny"));
        let lines: Vec<String> = checks
            .iter()
            .map(|check| command(check, Path::new("."), Path::new("/cache")).display())
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        cargo fmt --all --check
        cargo-deny check --hide-inclusion-graph licenses bans sources
        cargo clippy --workspace --all-targets -- --deny warnings
        cargo test --workspace --exclude podwire-tests --exclude podwire-scenarios
        cargo test --package podwire-scenarios --lib
        ");
    }

    /// A filter that meets no test passes.
    #[test]
    fn each_reader_has_a_test() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let tests = std::fs::read_to_string(root.join("harness/lan/tests/readers.rs")).unwrap();
        for (program, _) in READERS {
            let test = format!("#[ignore = \"wants {program}");
            assert!(tests.contains(&test), "no test wants {program}");
            assert!(tests.contains(&format!("fn {program}_")), "{program}");
        }
    }

    #[test]
    fn a_reader_that_is_not_here_is_said_to_be_left_out() {
        let (checks, left_out) = readers(Path::new("cargo"), |program| program == "tshark");
        let lines = checks.iter();
        let lines =
            lines.map(|check| command(check, Path::new("."), Path::new("/cache")).display());
        assert_eq!(
            lines.collect::<Vec<_>>(),
            ["cargo test --package podwire-lan --test readers -- --ignored tshark"]
        );
        assert_eq!(
            left_out,
            [
                "captures as tcpdump reads them: not checked, it is not on the path (package tcpdump)"
            ]
        );
    }
}
