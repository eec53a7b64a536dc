//! Finding the clusters that somebody serves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{AccessError, Description, FILE, Link};

/// A cluster that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its run's folder.
    pub dir: PathBuf,
    /// Its run's name: that of the folder.
    pub run: String,
    /// What it says of itself.
    pub description: Description,
}

/// The clusters served in the folders of `runs`, newest first. What a killed process left behind
/// is skipped, and so is a process that does not answer.
///
/// # Errors
/// [`AccessError::Folder`] when `runs` is there and cannot be listed.
pub async fn running(runs: &Path) -> Result<Vec<Running>, AccessError> {
    let listed = match fs::read_dir(runs) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(AccessError::Folder {
                doing: "list the folder",
                path: runs.to_owned(),
                source,
            });
        }
    };
    let mut found = Vec::new();
    // An entry that cannot be read is one that goes away just now.
    for entry in listed.flatten() {
        found.extend(at(&entry.path()).await);
    }
    found.sort_by(|a, b| {
        let age = |running: &Running| (running.description.started, running.run.clone());
        age(b).cmp(&age(a))
    });
    Ok(found)
}

/// The cluster served in a folder; nothing where nobody answers.
pub async fn at(dir: &Path) -> Option<Running> {
    if !dir.join(FILE).exists() {
        return None;
    }
    let link = Link::open(dir).await.ok()??;
    let name = dir.file_name().unwrap_or_default();
    Some(Running {
        run: name.to_string_lossy().into_owned(),
        dir: dir.to_owned(),
        description: link.describe().await.ok()?,
    })
}

/// Which of them is meant: the newest whose run's name begins with `prefix`.
pub fn choose<'a>(running: &'a [Running], prefix: Option<&str>) -> Option<&'a Running> {
    let prefix = prefix.unwrap_or_default();
    running
        .iter()
        .find(|running| running.run.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_project_without_runs_has_nothing_running() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(&dir.path().join("runs")).await.unwrap(), []);
        assert_eq!(running(dir.path()).await.unwrap(), []);
    }

    #[test]
    fn a_prefix_chooses_and_nothing_chooses_the_newest() {
        let run = |name: &str| Running {
            dir: name.into(),
            run: name.into(),
            description: Description {
                what: String::new(),
                started: 0,
                pid: 1,
                nodes: Vec::new(),
                router: None,
            },
        };
        let running = [
            run("20261122T1-9"),
            run("20261121T1-8"),
            run("20261121T0-7"),
        ];
        let chosen = |prefix| choose(&running, prefix).map(|running| running.run.as_str());
        assert_eq!(chosen(None), Some("20261122T1-9"));
        assert_eq!(chosen(Some("20261121")), Some("20261121T1-8"));
        assert_eq!(chosen(Some("20261121T0-7")), Some("20261121T0-7"));
        assert_eq!(chosen(Some("x")), None);
    }
}
