//! Where things are: the project, its target folder, a run's folder.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use podwire_scenario::bare;
use time::OffsetDateTime;

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
        // Cargo says where the package is; a program that was moved or started bare looks around.
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => env::current_dir().context("there is no working directory")?,
        };
        let Some(root) = start
            .ancestors()
            .find(|dir| dir.join("images/bundle").is_dir())
        else {
            bail!(
                "{} is not inside podwire; run `cargo xtask` there",
                start.display()
            );
        };
        Ok(Self {
            root: root.to_owned(),
            output: bare::output(root),
        })
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.output.join(bare::RUNS)
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
    pub(crate) fn new_run(&self, now: OffsetDateTime) -> anyhow::Result<PathBuf> {
        let run = self.new_folder(now)?;
        let name = run.file_name().unwrap_or_default();
        point(&self.latest(), &Path::new("runs").join(name))?;
        Ok(run)
    }

    /// Makes a folder among those of the runs, named by the time and this process.
    pub(crate) fn new_folder(&self, now: OffsetDateTime) -> anyhow::Result<PathBuf> {
        Ok(bare::new_run(&self.runs(), now)?)
    }
}

/// Replaces a link in one step, so that it never points to nothing.
fn point(link: &Path, to: &Path) -> anyhow::Result<()> {
    let beside = link.with_extension(format!("new-{}", std::process::id()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    symlink(to, &beside).with_context(|| format!("cannot make {}", beside.display()))?;
    fs::rename(&beside, link).with_context(|| format!("cannot replace {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            fs::canonicalize(&run).unwrap()
        );
        assert_eq!(fs::read_dir(workspace.runs()).unwrap().count(), 2);
    }
}
