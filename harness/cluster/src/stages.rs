//! The stages in a folder of the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use podwire_process::Report;

use crate::build::{Maker, UNFINISHED};
use crate::plan::ImageFiles;
use crate::{ClusterError, ClusterPlan, Host, Stage, StageManifest, StageName};

/// A folder with one folder per stage, named by its key.
#[derive(Debug, Clone)]
pub struct Stages {
    root: PathBuf,
}

impl Stages {
    /// The stages in this folder; it is made with the first of them.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where a stage is, or would be.
    ///
    /// # Errors
    /// [`ClusterError::Json`].
    pub fn dir(&self, plan: &ClusterPlan, name: StageName) -> Result<PathBuf, ClusterError> {
        Ok(self.root.join(plan.key(name)?))
    }

    /// The stage, if it is there and whole.
    ///
    /// # Errors
    /// [`ClusterError::Json`].
    pub fn find(&self, plan: &ClusterPlan, name: StageName) -> Result<Option<Stage>, ClusterError> {
        Ok(Stage::open(&self.dir(plan, name)?).ok())
    }

    /// The stage, and the ones it is made of as far as they are missing: each is made of its parent
    /// and moved into place when it is whole. Consoles and transcripts go to folders in `logs`.
    ///
    /// The caller sees to it that nobody else makes stages in the folder meanwhile: what others have
    /// left unfinished in it is removed.
    ///
    /// # Errors
    /// [`ClusterError`]. A cluster that does not settle in time is frozen all the same, see
    /// [`StageManifest::unsettled`](crate::StageManifest::unsettled).
    pub async fn get(
        &self,
        host: &Host,
        plan: &ClusterPlan,
        image: &ImageFiles,
        name: StageName,
        logs: &Path,
        report: &dyn Report,
    ) -> Result<Stage, ClusterError> {
        let line = name.line();
        let mut found = None;
        let mut missing = line.as_slice();
        for (index, name) in line.iter().enumerate().rev() {
            if let Some(stage) = self.find(plan, *name)? {
                found = Some(stage);
                missing = &line[index + 1..];
                break;
            }
        }
        if !missing.is_empty() {
            self.sweep()?;
        }
        for name in missing {
            let logs = logs.join(name.to_string());
            fs::create_dir_all(&logs).map_err(ClusterError::file("make the folder", &logs))?;
            report.step(&format!("stage {name}: {}", name.about()));
            let maker = Maker {
                host,
                plan,
                image,
                logs: &logs,
                report,
            };
            let dir = self.dir(plan, *name)?;
            found = Some(maker.make(*name, found.as_ref(), &dir).await?);
        }
        found.ok_or_else(|| ClusterError::Stage {
            dir: self.root.clone(),
            reason: format!("{name} is made of nothing"),
        })
    }

    /// Removes what was left unfinished, and what is in the place of a stage but damaged.
    fn sweep(&self) -> Result<(), ClusterError> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Ok(());
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let whole = || StageManifest::read(&path).is_ok_and(|it| it.damage(&path).is_none());
            if !name.starts_with(UNFINISHED) && whole() {
                continue;
            }
            let unused = File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok());
            if unused {
                fs::remove_dir_all(&path).map_err(ClusterError::file("remove", &path))?;
            }
        }
        Ok(())
    }
}
