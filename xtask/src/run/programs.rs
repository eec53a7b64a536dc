//! `--tests`: programs that are scenarios, of the user's own or Kubernetes' conformance tests.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{self, Path, PathBuf};
use std::{fs, io};

use podwire_images::bundle::{self, EndToEnd};
use podwire_images::{Bundle, BundleOrder};
use podwire_scenario::{Program, Programs, Scenario, program};

use crate::command::cli::run::AskedTests;
use crate::command::session::Session;
use crate::say::stop::Stop;

/// What there is to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The programs, by the scenarios' names. Kubernetes' own have no path before they are built.
    pub(crate) programs: BTreeMap<String, Program>,
    /// Files that nobody could run, by name.
    pub(crate) others: Vec<String>,
}

impl Found {
    /// Each as a scenario; says which files are none.
    pub(crate) fn scenarios(&self, session: &Session) -> Vec<Scenario> {
        if !self.others.is_empty() {
            let others = self.others.join(", ");
            session.progress.line(&format!(
                "no tests, since they are not executable: {others}"
            ));
        }
        program::scenarios(&self.programs)
    }

    /// With the kubectl of the bundle that is under test, and Kubernetes' tests where these are meant.
    pub(crate) fn ready(mut self, bundle: &Bundle, built: Option<&EndToEnd>) -> Programs {
        if let Some(EndToEnd { tests, .. }) = built {
            for program in self.programs.values_mut() {
                program.path.clone_from(tests);
            }
        }
        Programs {
            programs: self.programs,
            kubectl: bundle.dir.join("bin/kubectl"),
        }
    }
}

/// What `--tests` asks for, of the Kubernetes of a run.
pub(crate) fn find(
    session: &Session,
    asked: &AskedTests,
    order: &BundleOrder,
) -> Result<Found, Stop> {
    match asked {
        AskedTests::Folder(folder) => in_folder(folder),
        AskedTests::Conformance => conformance(&session.workspace.root, &order.kubernetes),
    }
}

/// Kubernetes' network conformance tests, one program each.
fn conformance(source: &Path, version: &str) -> Result<Found, Stop> {
    let versions = bundle::e2e_versions(source)?;
    if !versions.iter().any(|known| known == version) {
        return Err(Stop::Usage(format!(
            "--tests conformance: the tests are built of Kubernetes {}, and this would be {version}; \
             --kubernetes names one of them",
            versions.join(", ")
        )));
    }
    let tests = bundle::network_conformance(source, version)?;
    let programs = tests.into_iter().map(|test| {
        let program = Program {
            path: PathBuf::new(),
            arguments: arguments(&test),
            called: test.clone(),
            // Its framework forgets under which name the server is to be verified.
            by_proxy: true,
        };
        (scenario_name(&test), program)
    });
    Ok(Found {
        programs: programs.collect(),
        others: Vec::new(),
    })
}

/// Before each of their names, and behind it.
const OF_THE_NETWORK: &str = "[sig-network] ";
const CONFORMANCE: &str = "[Conformance]";

/// `dns_should_provide_dns_for_the_cluster` of `[sig-network] DNS should provide DNS for the cluster [Conformance]`.
pub(crate) fn scenario_name(test: &str) -> String {
    let test = test.strip_prefix(OF_THE_NETWORK).unwrap_or(test);
    let test = test.replace(CONFORMANCE, "").to_ascii_lowercase();
    let words = test.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("_")
}

/// By which e2e.test runs this test and no other (Ginkgo's command line; test/e2e/framework/test_context.go).
fn arguments(test: &str) -> Vec<String> {
    // Matched against the suite's name, a space, and the test's.
    let focus = format!("--ginkgo.focus= {}$", quoted(test));
    let all = [
        &focus,
        // Of a name that is nobody's, nothing would fail.
        "--ginkgo.fail-on-empty",
        "--ginkgo.no-color",
        // Else a letter for each of the thousands of other tests.
        "--ginkgo.silence-skips",
        "--ginkgo.timeout=3h",
        // No cloud's.
        "--provider=skeleton",
        // The evidence has that.
        "--dump-logs-on-failure=false",
    ];
    all.map(str::to_owned).to_vec()
}

/// What matches nothing but this text (Go's regexp/syntax).
fn quoted(text: &str) -> String {
    let meaning = |c: char| r"\.+*?()|[]{}^$".contains(c);
    let each = text.chars().map(|c| match meaning(c) {
        true => format!("\\{c}"),
        false => c.to_string(),
    });
    each.collect()
}

/// The executable files that lie directly in a folder; folders, and names that begin with a dot, count for
/// nothing.
fn in_folder(folder: &Path) -> Result<Found, Stop> {
    let refused = |said: String| Stop::Usage(format!("--tests {}: {said}", folder.display()));
    let folder_there = path::absolute(folder).map_err(|error| refused(error.to_string()))?;
    let listed = fs::read_dir(&folder_there).map_err(|error| refused(error.to_string()))?;
    let paths: io::Result<Vec<PathBuf>> = listed.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|error| refused(error.to_string()))?;
    paths.sort();
    let mut found = Found::default();
    for path in paths {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // An editor's lock is a link that leads nowhere.
        if file.starts_with('.') {
            continue;
        }
        let Ok(meta) = fs::metadata(&path) else {
            return Err(refused(format!("{file} leads nowhere")));
        };
        if !meta.is_file() {
            continue;
        }
        if meta.permissions().mode() & 0o111 == 0 {
            found.others.push(file);
            continue;
        }
        let name = name(&file).ok_or_else(|| {
            refused(format!(
                "{file}: the name before the first dot becomes the scenario's; it may have letters of \
                 ASCII, digits, - and _"
            ))
        })?;
        let program = Program {
            called: path.display().to_string(),
            arguments: Vec::new(),
            by_proxy: false,
            path,
        };
        if let Some(other) = found.programs.insert(name.clone(), program) {
            let other = other
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            return Err(refused(format!("{other} and {file} would both be {name}")));
        }
    }
    if found.programs.is_empty() {
        return Err(refused(
            "there is no executable file directly in it".to_owned(),
        ));
    }
    Ok(found)
}

/// The scenario's name of a file's: `dns-answers.sh` is `dns_answers`.
fn name(file: &str) -> Option<String> {
    let stem = file.split('.').next().unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (!stem.is_empty() && stem.chars().all(fits)).then(|| stem.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(dir: &Path, name: &str, mode: u32) {
        let path = dir.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refused(dir: &Path) -> String {
        match in_folder(dir) {
            Err(Stop::Usage(said)) => said.replace(&dir.display().to_string(), "DIR"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_executable_file_is_a_scenario_and_the_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        insta::assert_snapshot!(refused(dir.path()), @"--tests DIR: there is no executable file directly in it");
        file(dir.path(), "dns-answers.sh", 0o755);
        file(dir.path(), "Policy_2", 0o700);
        file(dir.path(), "forgotten.sh", 0o644);
        file(dir.path(), ".hidden", 0o755);
        fs::create_dir(dir.path().join("lib")).unwrap();
        let nowhere = "user@host.1:2";
        symlink(nowhere, dir.path().join(".#dns-answers.sh")).unwrap();
        let found = in_folder(dir.path()).unwrap();
        let names: Vec<&String> = found.programs.keys().collect();
        assert_eq!(names, ["Policy_2", "dns_answers"]);
        assert!(
            found.programs["dns_answers"]
                .path
                .ends_with("dns-answers.sh")
        );
        assert_eq!(found.others, ["forgotten.sh"]);
        file(dir.path(), "dns_answers.py", 0o755);
        insta::assert_snapshot!(refused(dir.path()), @"--tests DIR: dns-answers.sh and dns_answers.py would both be dns_answers");
        fs::remove_file(dir.path().join("dns_answers.py")).unwrap();
        file(dir.path(), "two words", 0o755);
        insta::assert_snapshot!(refused(dir.path()), @"--tests DIR: two words: the name before the first dot becomes the scenario's; it may have letters of ASCII, digits, - and _");
        symlink(nowhere, dir.path().join("link.sh")).unwrap();
        insta::assert_snapshot!(refused(dir.path()), @"--tests DIR: link.sh leads nowhere");
        insta::assert_snapshot!(refused(&dir.path().join("none")), @"--tests DIR: No such file or directory (os error 2)");
    }

    #[test]
    fn each_conformance_test_of_the_network_is_a_scenario() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let found = conformance(source, "1.36.4").unwrap();
        let all = bundle::network_conformance(source, "1.36.4").unwrap();
        // No two of them would have one name.
        assert_eq!(found.programs.len(), all.len());
        let name = "networking_granular_checks_pods_should_function_for_node_pod_communication_udp";
        let found = found.programs.keys().find(|it| it.starts_with(name));
        assert!(found.is_some());
        let shown = arguments("[sig-network] DNS should provide /etc/hosts entries [Conformance]");
        insta::assert_snapshot!(shown.join(" "), @r"--ginkgo.focus= \[sig-network\] DNS should provide /etc/hosts entries \[Conformance\]$ --ginkgo.fail-on-empty --ginkgo.no-color --ginkgo.silence-skips --ginkgo.timeout=3h --provider=skeleton --dump-logs-on-failure=false");
        let Err(Stop::Usage(refused)) = conformance(source, "1.33.13") else {
            panic!("1.33.13 has some");
        };
        insta::assert_snapshot!(refused, @"--tests conformance: the tests are built of Kubernetes 1.34.4, 1.35.4, 1.36.4, and this would be 1.33.13; --kubernetes names one of them");
    }
}
