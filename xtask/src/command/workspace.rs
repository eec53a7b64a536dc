//! Where things are: the project, its target folder, the runs' folders.

use std::env;
use std::os::unix::fs::symlink;
use std::path::{self, Path, PathBuf};

use anyhow::{Context as _, bail};
use podwire_process::Spawner;
use podwire_scenario::bare::{self, RunFolder};
use time::OffsetDateTime;

use crate::command::git::git;

/// The project's own folders.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where runs are kept: `target/podwire`.
    pub(crate) output: PathBuf,
}

impl Workspace {
    /// The project that this program belongs to.
    pub(crate) fn find() -> anyhow::Result<Self> {
        // Cargo says where the package is; a program that was started bare lies in the project's
        // target folder, unless somebody moved it. Absolute, since the scenarios start elsewhere.
        let said = env::var_os("CARGO_MANIFEST_DIR").and_then(|dir| path::absolute(dir).ok());
        let own = env::current_exe().ok();
        let here = env::current_dir().ok();
        let Some(root) = [said, own, here].iter().flatten().find_map(|it| above(it)) else {
            bail!("this program is not inside podwire, nor are you; run `cargo xtask` there");
        };
        Ok(Self {
            output: bare::output(&root),
            root,
        })
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.output.join(bare::RUNS)
    }

    /// Where revisions of the user's repository are checked out.
    pub(crate) fn revisions(&self) -> PathBuf {
        self.output.join("revisions")
    }

    /// The project's revision as git knows it, and whether files differ from it; nothing without git.
    pub(crate) fn revision(&self, spawner: &Spawner) -> Option<String> {
        let git = |words: &[&str]| git(spawner, &self.root, words).ok();
        let revision = git(&["rev-parse", "HEAD"])?;
        match git(&["status", "--porcelain"])?.is_empty() {
            true => Some(revision),
            false => Some(format!("{revision}, with changes")),
        }
    }

    /// Link to the last run's folder.
    pub(crate) fn latest(&self) -> PathBuf {
        self.output.join("latest")
    }

    /// A path as a person in the project's folder would type it.
    pub(crate) fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    /// Makes a run's folder, see [`Workspace::new_folder`], and points `latest` to it.
    pub(crate) fn new_run(&self, now: OffsetDateTime) -> anyhow::Result<RunFolder> {
        let run = self.new_folder(now)?;
        let name = run.file_name().unwrap_or_default();
        point(&self.latest(), &Path::new("runs").join(name))?;
        Ok(run)
    }

    /// Makes a folder among those of the runs, named by the time and this process.
    pub(crate) fn new_folder(&self, now: OffsetDateTime) -> anyhow::Result<RunFolder> {
        Ok(bare::new_run(&self.runs(), now)?)
    }
}

/// The project that a path lies in.
fn above(path: &Path) -> Option<PathBuf> {
    let mut dirs = path.ancestors();
    let root = dirs.find(|dir| dir.join("images/bundle").is_dir());
    root.map(Path::to_owned)
}

/// Replaces a link in one step, so that it never points to nothing. What it is made as meanwhile has a name
/// that nobody else draws, not even a process with the same number in another container.
fn point(link: &Path, to: &Path) -> anyhow::Result<()> {
    let beside = tempfile::Builder::new()
        .prefix("latest.new-")
        .rand_bytes(12)
        .make_in(link.parent().unwrap_or(link), |beside| symlink(to, beside));
    let beside = beside.with_context(|| format!("cannot make a link beside {}", link.display()))?;
    let replaced = beside.persist(link);
    replaced.with_context(|| format!("cannot replace {}", link.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_program_in_the_target_folder_finds_its_project() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("target/debug/xtask");
        assert_eq!(above(&program), None);
        fs::create_dir_all(dir.path().join("images/bundle")).unwrap();
        assert_eq!(above(&program).as_deref(), Some(dir.path()));
    }

    #[test]
    fn latest_follows_the_newest_run() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace {
            root: dir.path().to_owned(),
            output: dir.path().join("target/podwire"),
        };
        let first = time::macros::datetime!(2026-11-21 13:05:00 UTC);
        workspace.new_run(first).unwrap();
        let run = workspace
            .new_run(first + time::Duration::seconds(61))
            .unwrap();
        let name = run.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("20261121T130601Z-"), "{name}");
        assert_eq!(
            fs::canonicalize(workspace.latest()).unwrap(),
            fs::canonicalize(&*run).unwrap()
        );
        assert_eq!(fs::read_dir(workspace.runs()).unwrap().count(), 2);
    }

    /// As two containers do that share a folder and give their processes the same numbers.
    #[test]
    fn two_that_point_at_once_do_not_meet_beside_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("latest");
        let many = |run: &'static str| {
            let link = link.clone();
            std::thread::spawn(move || (0..500).try_for_each(|_| point(&link, Path::new(run))))
        };
        for pointing in [many("runs/1"), many("runs/2")] {
            pointing.join().unwrap().unwrap();
        }
        let to = fs::read_link(&link).unwrap();
        assert!(to.starts_with("runs"), "{}", to.display());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
