//! Upstream's own end-to-end tests of a version of Kubernetes, and the program that their Pods run: built from the
//! published module, and part of no bundle, for they test one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::{ChildCommand, run};

use super::modules::{BUILD_LIMIT, Recipe, ldflags};
use super::versions;
use crate::command::run_step;
use crate::files::place;
use crate::tools::Go;
use crate::{Error, Workshop};

/// The folder of its pins, below a version's.
const E2E: &str = "e2e";

/// The names of the network conformance tests, a line for each, in that folder.
const LIST: &str = "network-conformance.txt";

/// The package whose tests they are.
const PACKAGE: &str = "k8s.io/kubernetes/test/e2e";

/// How long it may take to tell what there is.
const TELL_LIMIT: Duration = Duration::from_secs(60);

/// The module of both.
const MODULE: &str = "k8s.io/kubernetes";

/// The programs of a version's end-to-end tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndToEnd {
    /// The tests themselves, which ask the API server of the kubeconfig in `KUBECONFIG`.
    pub tests: PathBuf,
    /// What their Pods run.
    pub agnhost: PathBuf,
}

impl EndToEnd {
    fn in_folder(dir: &Path) -> Self {
        Self {
            tests: dir.join("bin/e2e.test"),
            agnhost: dir.join("bin/agnhost"),
        }
    }

    /// The folder of agnhost's sources: what its image has beside the program.
    ///
    /// # Errors
    /// [`Error::MissingProgram`] without Go, or when it cannot download the module.
    pub(crate) fn sources(workshop: &Workshop<'_>, version: &str) -> Result<PathBuf, Error> {
        let folder = pinned(workshop.source, version)?.sources(workshop, MODULE)?;
        Ok(folder.join("test/images/agnhost"))
    }

    /// The images that its tests name.
    ///
    /// # Errors
    /// When the program does not tell.
    pub(crate) fn images(&self, workshop: &Workshop<'_>) -> Result<Vec<String>, Error> {
        let told = self.told(workshop, "--list-images")?;
        Ok(told.lines().map(|line| line.trim().to_owned()).collect())
    }

    fn told(&self, workshop: &Workshop<'_>, flag: &str) -> Result<String, Error> {
        let command = ChildCommand::new(&self.tests).args([flag]);
        let shown = command.display();
        let told = run(workshop.spawner, command, TELL_LIMIT)?.success(&shown)?;
        Ok(told.stdout)
    }
}

/// The versions of Kubernetes whose end-to-end tests are pinned.
///
/// # Errors
/// [`Error::File`] when the folder of the pins cannot be read.
pub fn e2e_versions(source: &Path) -> Result<Vec<String>, Error> {
    let mut versions = versions(source)?;
    versions.retain(|version| list(source, version).exists());
    Ok(versions)
}

fn list(source: &Path, version: &str) -> PathBuf {
    let bundle = source.join("images/bundle").join(version);
    bundle.join(E2E).join(LIST)
}

/// The names of a version's network conformance tests: what "Certified Kubernetes" means for the network
/// (kubernetes/test/conformance/testdata/conformance.yaml, `[sig-network]`).
///
/// # Errors
/// [`Error::File`] for a version without pins.
pub fn network_conformance(source: &Path, version: &str) -> Result<BTreeSet<String>, Error> {
    let path = list(source, version);
    let text = fs::read_to_string(&path).map_err(Error::file("read", path))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Those of them in what `e2e.test --list-tests` prints: `test/e2e/network/dns.go:51: [sig-network] DNS should ...`.
fn network_conformance_among(listed: &str) -> BTreeSet<String> {
    let names = listed.lines().filter_map(|line| line.split_once(": "));
    let names = names.map(|(_, name)| name.to_owned());
    let network =
        |name: &String| name.starts_with("[sig-network]") && name.contains("[Conformance]");
    names.filter(network).collect()
}

fn pinned(source: &Path, version: &str) -> Result<Recipe, Error> {
    Recipe::read(source, version, &[E2E])
}

/// Names the programs of a version among the tools, by all that goes into them.
///
/// # Errors
/// [`Error::File`] for a version without pins.
pub(crate) fn e2e_name(source: &Path, version: &str) -> Result<String, Error> {
    Ok(pinned(source, version)?.tool_name(E2E))
}

/// The programs, when they have been built from today's pins.
///
/// # Errors
/// [`Error`] when pins or cache cannot be read.
pub fn cached_e2e(workshop: &Workshop<'_>, version: &str) -> Result<Option<EndToEnd>, Error> {
    let dir = pinned(workshop.source, version)?.cached_tool(workshop, E2E)?;
    Ok(dir.map(|dir| EndToEnd::in_folder(&dir)))
}

/// The programs, built on first use.
///
/// # Errors
/// [`Error::MissingProgram`] without Go, [`Error::Step`] when they do not build, [`Error::Malformed`] for a list of
/// names that is not the program's.
pub fn e2e(workshop: &Workshop<'_>, version: &str) -> Result<EndToEnd, Error> {
    let recipe = pinned(workshop.source, version)?;
    let dir = recipe.tool(workshop, E2E, |go, dir| {
        build_tests(workshop, version, go, dir)
    })?;
    Ok(EndToEnd::in_folder(&dir))
}

/// Builds the tests into a folder, and finds out whether the list of names is theirs.
fn build_tests(workshop: &Workshop<'_>, version: &str, go: &Go, dir: &Path) -> Result<(), Error> {
    let built = EndToEnd::in_folder(dir);
    let about = "building Kubernetes' end-to-end tests";
    (workshop.report).step(&format!("{about} (about 5 minutes on 2 cores, once)"));
    let (flags, out) = (ldflags(version), place(dir, "bin/e2e.test")?);
    let out = out.display().to_string();
    let args = [
        "test",
        "-c",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        &flags,
        "-o",
        &out,
        PACKAGE,
    ];
    let module = workshop.source.join("images/bundle").join(version);
    let command = go.command(&module.join(E2E), &args);
    let log = workshop.cache.log("bundle.log")?;
    run_step(workshop, about, command, &log, BUILD_LIMIT)?;
    let there = network_conformance_among(&built.told(workshop, "--list-tests")?);
    let named = network_conformance(workshop.source, version)?;
    if let Some(odd) = there.symmetric_difference(&named).next() {
        return Err(Error::Malformed {
            path: list(workshop.source, version),
            reason: format!("it and what e2e.test lists are at odds: one of them lacks {odd:?}"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn every_list_is_of_network_conformance_tests_of_its_version() {
        let versions = e2e_versions(source()).unwrap();
        assert!(versions.contains(&"1.36.4".to_owned()), "{versions:?}");
        for version in &versions {
            let recipe = pinned(source(), version).unwrap();
            assert_eq!(recipe.version_of("k8s.io/kubernetes"), *version);
            let names = network_conformance(source(), version).unwrap();
            assert!(names.len() > 40, "{version}: {}", names.len());
            let listed: String = names.iter().map(|it| format!("a.go:1: {it}\n")).collect();
            assert_eq!(network_conformance_among(&listed), names, "{version}");
        }
    }

    #[test]
    fn of_all_that_is_listed_the_network_s_conformance_tests_count() {
        let listed = "The following spec names can be used with 'ginkgo run --focus/skip':\n    \
            test/e2e/network/dns.go:51: [sig-network] DNS should provide DNS for the cluster [Conformance]\n    \
            test/e2e/network/dns.go:99: [sig-network] DNS should work with a stub resolver\n    \
            test/e2e/apps/job.go:1: [sig-apps] Job should delete a job [Conformance]\n";
        let found = network_conformance_among(listed);
        let name = "[sig-network] DNS should provide DNS for the cluster [Conformance]";
        assert_eq!(found, [name.to_owned()].into());
    }

    #[test]
    fn a_version_without_pins_has_none() {
        assert!(cached_name("1.2.3").is_err());
        assert_ne!(
            cached_name("1.36.4").unwrap(),
            cached_name("1.35.4").unwrap()
        );
    }

    fn cached_name(version: &str) -> Result<String, Error> {
        e2e_name(source(), version)
    }
}
