//! Tools that no package gives: pinned, and built or fetched into the cache, never into the user's
//! home.

mod act;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::ChildCommand;

use crate::cache::remove_all;
use crate::command::run_step;
use crate::digest::Inputs;
use crate::host::find_program;
use crate::{Check, Error, Kind, Workshop};

pub use act::act;

/// The Go release that builds the bundle; any Go since 1.21 fetches it as a module.
pub const GO_VERSION: &str = "1.26.8";

/// A cargo subcommand, pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CargoTool {
    package: &'static str,
    version: &'static str,
}

const NEXTEST: CargoTool = CargoTool {
    package: "cargo-nextest",
    version: "0.9.151",
};
const DENY: CargoTool = CargoTool {
    package: "cargo-deny",
    version: "0.20.2",
};

/// How long building one tool may take on a small, busy host.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A profile that builds about three times as fast as the tools' own: they spend their time waiting
/// for other programs.
const CHEAP_PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
];

impl CargoTool {
    fn name(self) -> String {
        let inputs = Inputs::of("cargo tool").with("version", self.version);
        let inputs = CHEAP_PROFILE
            .iter()
            .fold(inputs, |inputs, (name, value)| inputs.with(name, value));
        format!("{}-{}-{}", self.package, self.version, &inputs.name()[..8])
    }

    fn install(self, root: &Path, target: &Path) -> ChildCommand {
        let command = ChildCommand::new("cargo")
            .args([
                "install",
                "--locked",
                "--no-default-features",
                "--version",
                self.version,
            ])
            .args(["--root"])
            .args([root])
            .args([self.package])
            .env("CARGO_TARGET_DIR", target)
            // This project's own settings are not the tool's.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .outside_cargo()
            .dir(root);
        CHEAP_PROFILE
            .iter()
            .fold(command, |command, (name, value)| command.env(name, value))
    }

    fn binary(self, dir: &Path) -> PathBuf {
        dir.join("bin").join(self.package)
    }

    fn cached(self, workshop: &Workshop<'_>) -> Result<Option<PathBuf>, Error> {
        let found = workshop
            .cache
            .find(Kind::Tool, &self.name(), Check::Contents)?;
        let dir = found.usable(self.package, workshop.report);
        Ok(dir.map(|dir| self.binary(&dir)))
    }

    fn get(self, workshop: &Workshop<'_>) -> Result<PathBuf, Error> {
        let _lock = workshop.cache.lock(self.package, workshop.report)?;
        if let Some(binary) = self.cached(workshop)? {
            return Ok(binary);
        }
        workshop.report.step(&format!(
            "building {} {} (about 2 minutes, once)",
            self.package, self.version
        ));
        let staging = workshop.cache.staging(self.package)?;
        // Kept when interrupted, so that the next run goes on where this one stopped.
        workshop.cache.hold(&workshop.cache.folder("build")?)?;
        let target = workshop.cache.folder(&format!("build/{}", self.package))?;
        let log = workshop.cache.log(&format!("{}.log", self.package))?;
        run_step(
            workshop,
            &format!("building {}", self.package),
            self.install(staging.path(), &target),
            &log,
            BUILD_LIMIT,
        )?;
        let dir = workshop.cache.publish(Kind::Tool, &self.name(), staging)?;
        remove_all(&target).map_err(Error::file("remove", target))?;
        Ok(self.binary(&dir))
    }
}

/// The pinned `cargo-nextest`, built on first use.
///
/// # Errors
/// [`Error::Step`] when it does not build.
pub fn nextest(workshop: &Workshop<'_>) -> Result<PathBuf, Error> {
    NEXTEST.get(workshop)
}

/// The pinned `cargo-deny`, built on first use.
///
/// # Errors
/// [`Error::Step`] when it does not build.
pub fn deny(workshop: &Workshop<'_>) -> Result<PathBuf, Error> {
    DENY.get(workshop)
}

/// Whether `cargo-nextest` and `cargo-deny`, in this order, are built already.
///
/// # Errors
/// [`Error::Cache`].
pub fn cached(workshop: &Workshop<'_>) -> Result<[bool; 2], Error> {
    Ok([
        NEXTEST.cached(workshop)?.is_some(),
        DENY.cached(workshop)?.is_some(),
    ])
}

/// The Go toolchain, with everything that it keeps inside the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Go {
    program: PathBuf,
    home: PathBuf,
}

/// Finds a Go on the host; the pinned release comes through it on first use.
///
/// # Errors
/// [`Error::MissingProgram`].
pub fn go(workshop: &Workshop<'_>) -> Result<Go, Error> {
    let program = find_program("go").ok_or_else(|| Error::MissingProgram {
        program: "go".to_owned(),
        package: "golang-go".to_owned(),
    })?;
    let home = workshop.cache.folder("go")?;
    workshop.cache.hold(&home)?;
    Ok(Go { program, home })
}

impl Go {
    /// `go` with these arguments in `dir`: pinned release, static programs for the guests, nothing
    /// outside the cache.
    pub fn command(&self, dir: &Path, args: &[&str]) -> ChildCommand {
        ChildCommand::new(&self.program)
            .args(args)
            .dir(dir)
            .env("GOTOOLCHAIN", format!("go{GO_VERSION}"))
            .env("GOPATH", &self.home)
            .env("GOMODCACHE", self.home.join("mod"))
            .env("GOCACHE", self.build_cache())
            .env("GOFLAGS", "-modcacherw")
            .env("GOWORK", "off")
            .env("GOOS", "linux")
            .env("GOARCH", "amd64")
            .env("CGO_ENABLED", "0")
    }

    fn build_cache(&self) -> PathBuf {
        self.home.join("build")
    }

    /// Removes Go's build cache (2-3 GB after a bundle). Its module cache stays: another bundle
    /// needs no download then.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove_build_cache(&self) -> Result<(), Error> {
        let path = self.build_cache();
        if fs::exists(&path).map_err(Error::file("look at", &path))? {
            remove_all(&path).map_err(Error::file("remove", path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_pinned_and_stays_out_of_the_users_home() {
        let command = NEXTEST.install(Path::new("/c/tmp/x"), Path::new("/c/build/x"));
        insta::assert_snapshot!(command.display(), @"cargo install --locked --no-default-features --version 0.9.151 --root /c/tmp/x cargo-nextest");
        let target = command
            .env
            .iter()
            .find(|(name, _)| name == "CARGO_TARGET_DIR");
        assert_eq!(target.unwrap().1.as_deref(), Some("/c/build/x".as_ref()));
    }

    #[test]
    fn go_keeps_everything_in_the_cache() {
        let go = Go {
            program: "go".into(),
            home: "/c/go".into(),
        };
        let command = go.command(Path::new("/src"), &["build", "tool"]);
        let shown: Vec<String> = command
            .env
            .iter()
            .map(|(name, value)| {
                format!(
                    "{}={}",
                    name.display(),
                    value.as_deref().unwrap_or_default().display()
                )
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        GOTOOLCHAIN=go1.26.8
        GOPATH=/c/go
        GOMODCACHE=/c/go/mod
        GOCACHE=/c/go/build
        GOFLAGS=-modcacherw
        GOWORK=off
        GOOS=linux
        GOARCH=amd64
        CGO_ENABLED=0
        ");
    }
}
