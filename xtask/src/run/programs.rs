//! `--tests`: a folder of the user's programs, each a scenario of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{self, Path, PathBuf};

use podwire_images::Bundle;
use podwire_scenario::{Programs, Scenario, program};

use crate::command::session::Session;
use crate::say::stop::Stop;

/// What is in the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The programs, by the scenarios' names.
    pub(crate) programs: BTreeMap<String, PathBuf>,
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

    /// With the kubectl of the bundle that is under test.
    pub(crate) fn with_kubectl(self, bundle: &Bundle) -> Programs {
        Programs {
            programs: self.programs,
            kubectl: bundle.dir.join("bin/kubectl"),
        }
    }
}

/// The executable files that lie directly in a folder; folders, and names that begin with a dot, count for
/// nothing.
pub(crate) fn find(folder: &Path) -> Result<Found, Stop> {
    let refused = |said: String| Stop::Usage(format!("--tests {}: {said}", folder.display()));
    let folder_there = path::absolute(folder).map_err(|error| refused(error.to_string()))?;
    let listed = fs::read_dir(&folder_there).map_err(|error| refused(error.to_string()))?;
    let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Found::default();
    for path in paths {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Ok(meta) = fs::metadata(&path) else {
            return Err(refused(format!("{file} leads nowhere")));
        };
        if file.starts_with('.') || !meta.is_file() {
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
        if let Some(other) = found.programs.insert(name.clone(), path) {
            let other = other
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
    use super::*;

    fn file(dir: &Path, name: &str, mode: u32) {
        let path = dir.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refused(dir: &Path) -> String {
        match find(dir) {
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
        let found = find(dir.path()).unwrap();
        let names: Vec<&String> = found.programs.keys().collect();
        assert_eq!(names, ["Policy_2", "dns_answers"]);
        assert!(found.programs["dns_answers"].ends_with("dns-answers.sh"));
        assert_eq!(found.others, ["forgotten.sh"]);
        file(dir.path(), "dns_answers.py", 0o755);
        insta::assert_snapshot!(refused(dir.path()), @"--tests DIR: dns-answers.sh and dns_answers.py would both be dns_answers");
        fs::remove_file(dir.path().join("dns_answers.py")).unwrap();
        file(dir.path(), "two words", 0o755);
        insta::assert_snapshot!(refused(dir.path()), @"--tests DIR: two words: the name before the first dot becomes the scenario's; it may have letters of ASCII, digits, - and _");
        insta::assert_snapshot!(refused(&dir.path().join("none")), @"--tests DIR: No such file or directory (os error 2)");
    }
}
