//! The stages in a folder of the cache.

use std::fs;
use std::path::{Path, PathBuf};

use podwire_process::{Report, held_alone};

use super::build::{Maker, UNFINISHED};
use super::stage::{Stage, StageManifest};
use crate::plan::cluster_plan::{ClusterPlan, ImageFiles};
use crate::plan::error::ClusterError;
use crate::plan::stage_name::StageName;
use crate::running::evidence::FOLDER;
use crate::running::host::Host;

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
        let found = Stage::open(&self.dir(plan, name)?).ok();
        Ok(found.map(|stage| stage.as_of(plan)))
    }

    /// Where [`Stages::get`] leaves what the nodes of a stage had to say that could not be made, or was
    /// frozen before it had settled.
    pub fn evidence(logs: &Path, name: StageName) -> PathBuf {
        logs_of(logs, name).join(FOLDER)
    }

    /// The stage, and the ones it is made of as far as they are missing: each is made of its parent
    /// and moved into place when it is whole. Consoles and transcripts go to folders in `logs`, and so
    /// does [evidence](Stages::evidence).
    ///
    /// The caller sees to it that nobody else makes stages in the folder meanwhile: what others have
    /// left unfinished in it is removed.
    ///
    /// # Errors
    /// [`ClusterError`]. A cluster that does not settle in time is frozen all the same, see
    /// [`StageManifest::unsettled`](crate::stages::stage::StageManifest::unsettled).
    pub async fn get(
        &self,
        host: &Host,
        plan: &ClusterPlan,
        image: &ImageFiles,
        name: StageName,
        logs: &Path,
        report: &dyn Report,
    ) -> Result<Stage, ClusterError> {
        let (mut found, missing) = self.nearest(plan, name)?;
        if !missing.is_empty() {
            self.sweep(report)?;
        }
        for name in missing {
            let logs = logs_of(logs, *name);
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
            if dir.exists() {
                return Err(match StageManifest::read(&dir) {
                    Err(other @ ClusterError::OtherVersion { .. }) => other,
                    _ => ClusterError::DamagedInUse { dir },
                });
            }
            found = Some(maker.make(*name, found.as_ref(), &dir).await?);
        }
        found.ok_or_else(|| ClusterError::Stage {
            dir: self.root.clone(),
            reason: format!("{name} is made of nothing"),
        })
    }

    /// The stages that [`Stages::get`] would make for this one, in their order. What is on the way to
    /// one that is there is not needed any more, and may have gone.
    ///
    /// # Errors
    /// As [`Stages::find`].
    pub fn missing(
        &self,
        plan: &ClusterPlan,
        name: StageName,
    ) -> Result<&'static [StageName], ClusterError> {
        Ok(self.nearest(plan, name)?.1)
    }

    /// The last stage on the way to this one that is there, and what is missing from then on.
    fn nearest(
        &self,
        plan: &ClusterPlan,
        name: StageName,
    ) -> Result<(Option<Stage>, &'static [StageName]), ClusterError> {
        let line = name.line(plan.cell);
        for (index, name) in line.iter().enumerate().rev() {
            if let Some(stage) = self.find(plan, *name)? {
                return Ok((Some(stage), &line[index + 1..]));
            }
        }
        Ok((None, line))
    }

    /// Removes what was left unfinished, and what is in the place of a stage but damaged. What another
    /// version of podwire has made is neither, and stays; so does what is no folder, and so never was a stage.
    fn sweep(&self, report: &dyn Report) -> Result<(), ClusterError> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Ok(());
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if !path.is_dir() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let stays = || match StageManifest::read(&path) {
                Ok(manifest) => manifest.damage(&path).is_none(),
                Err(other @ ClusterError::OtherVersion { .. }) => {
                    report.step(&other.to_string());
                    true
                }
                Err(_) => false,
            };
            if !name.starts_with(UNFINISHED) && stays() {
                continue;
            }
            if let Ok(Some(_alone)) = held_alone(&path) {
                fs::remove_dir_all(&path).map_err(ClusterError::file("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Where the making of one stage keeps what it leaves.
fn logs_of(logs: &Path, name: StageName) -> PathBuf {
    logs.join(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cluster_plan::Size;
    use crate::stages::stage::tests::stage;
    use podwire_process::Spawner;
    use podwire_vm::Accelerator;
    use std::cell::RefCell;
    use std::fs::File;

    #[derive(Default)]
    struct Heard(RefCell<Vec<String>>);

    impl Report for Heard {
        fn step(&self, text: &str) {
            self.0.borrow_mut().push(text.to_owned());
        }
        fn waiting(&self, _: &str) {}
    }

    fn children(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    fn image() -> ImageFiles {
        ImageFiles {
            name: "image".into(),
            disk: "disk".into(),
            kernel: "kernel".into(),
            initrd: "initrd".into(),
            append: String::new(),
        }
    }

    /// Of a cluster whose memory finds room on no disk: nothing is ever started for it.
    fn absurd_plan() -> ClusterPlan {
        let plan = ClusterPlan::new(
            1,
            crate::plan::cell::Cell::usual(crate::plan::cell::Bootstrap::ByHand),
            "1.36.4",
            &image(),
            Accelerator::Tcg,
            "",
            "",
            None,
        );
        let memory_mib = 1 << 40;
        ClusterPlan {
            control_plane: Size {
                vcpus: 1,
                memory_mib,
            },
            ..plan.unwrap()
        }
    }

    /// Asks for the first stage of that cluster.
    async fn get(stages: &Stages) -> ClusterError {
        get_heard(stages, &Heard::default()).await
    }

    async fn get_heard(stages: &Stages, heard: &Heard) -> ClusterError {
        let host = Host {
            spawner: Spawner::start().unwrap(),
            qemu: "no-qemu".into(),
            qemu_img: "no-qemu-img".into(),
            accelerator: Accelerator::Tcg,
            speed_factor: 1.0,
            tsc_khz: None,
        };
        let logs = tempfile::tempdir().unwrap();
        let (plan, booted) = (absurd_plan(), StageName::Booted);
        let got = stages
            .get(&host, &plan, &image(), booted, logs.path(), heard)
            .await;
        got.unwrap_err()
    }

    #[test]
    fn a_stage_that_another_run_made_is_one_of_the_plan_that_asks() {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::at(dir.path());
        let broken = Some(crate::plan::breaks::Break::Route);
        let cell = crate::plan::cell::Cell::usual(crate::plan::cell::Bootstrap::ByHand);
        let tcg = Accelerator::Tcg;
        let asked = ClusterPlan::new(1, cell, "1.36.4", &image(), tcg, "", "", broken).unwrap();
        let place = stages.dir(&asked, StageName::Cni).unwrap();
        fs::create_dir(&place).unwrap();
        stage(&place);
        assert_eq!(Stage::open(&place).unwrap().manifest.plan.broken, None);
        let found = stages.find(&asked, StageName::Cni).unwrap().unwrap();
        assert_eq!(found.manifest.plan, asked);
    }

    #[tokio::test]
    async fn a_cluster_without_room_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("stages");
        match get(&Stages::at(&root)).await {
            ClusterError::NoRoom {
                dir,
                needed_mib,
                available_mib,
            } => {
                assert_eq!((dir, needed_mib), (root.clone(), 1 << 40));
                assert!(available_mib < needed_mib, "{available_mib}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(children(&root), [""; 0]);
    }

    #[tokio::test]
    async fn what_nobody_can_use_is_removed_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["whole", "damaged", "damaged-in-use"] {
            fs::create_dir(root.join(name)).unwrap();
            stage(&root.join(name));
        }
        let in_use = Stage::open(&root.join("damaged-in-use")).unwrap();
        for name in ["damaged", "damaged-in-use"] {
            fs::remove_file(root.join(name).join("node1/ram")).unwrap();
        }
        for name in [".building-left", ".building-now"] {
            fs::create_dir_all(root.join(name).join("node1")).unwrap();
        }
        // What a file manager leaves is none of ours.
        fs::write(root.join(".DS_Store"), "").unwrap();
        let being_made = File::open(root.join(".building-now")).unwrap();
        being_made.lock().unwrap();

        let refused = get(&Stages::at(root)).await;
        assert!(
            matches!(refused, ClusterError::NoRoom { .. }),
            "{refused:?}"
        );
        let left = [".DS_Store", ".building-now", "damaged-in-use", "whole"];
        assert_eq!(children(root), left);
        drop((in_use, being_made));
        get(&Stages::at(root)).await;
        assert_eq!(children(root), [".DS_Store", "whole"]);
    }

    #[tokio::test]
    async fn what_is_damaged_and_in_use_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::at(dir.path());
        let booted = stages.dir(&absurd_plan(), StageName::Booted).unwrap();
        fs::create_dir(&booted).unwrap();
        let in_use = File::open(&booted).unwrap();
        in_use.lock_shared().unwrap();
        let refused = get(&stages).await;
        assert!(
            matches!(&refused, ClusterError::DamagedInUse { dir } if *dir == booted),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn what_another_version_made_stays_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (root, stages) = (dir.path(), Stages::at(dir.path()));
        let other = root.join("0123");
        fs::create_dir(&other).unwrap();
        stage(&other);
        let manifest = other.join("stage.json");
        let text = fs::read_to_string(&manifest).unwrap();
        let text = text.replacen(r#""plan":"#, r#""plans":"#, 1);
        fs::write(&manifest, &text).unwrap();
        let heard = Heard::default();
        get_heard(&stages, &heard).await;
        assert_eq!(children(root), ["0123"]);
        let heard = heard.0.into_inner();
        let told = |text: &String| text.contains("0123") && text.contains("another version");
        assert!(heard.iter().any(told), "{heard:?}");

        // The same steps, kept in another form.
        let booted = stages.dir(&absurd_plan(), StageName::Booted).unwrap();
        fs::rename(&other, &booted).unwrap();
        let refused = get(&stages).await;
        assert!(
            matches!(&refused, ClusterError::OtherVersion { dir, .. } if *dir == booted),
            "{refused:?}"
        );
        // Half a manifest is nobody's.
        fs::write(booted.join("stage.json"), &text[..text.len() / 2]).unwrap();
        get(&stages).await;
        assert_eq!(children(root), [""; 0]);
    }
}
