//! A running cluster, frozen.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use podwire_lan::{Segment, SegmentOptions, SegmentState};
use podwire_process::Report;
use podwire_vm::{Ram, create_overlay};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::addresses::{self, node_name};
use crate::bootstrap::{Bootstrapped, bootstrap};
use crate::pki::Pki;
use crate::plan::ImageFiles;
use crate::{ClusterError, ClusterPlan, Host};

/// Name of the manifest in a stage's folder; written last.
const MANIFEST: &str = "stage.json";
const COMMAND: Duration = Duration::from_secs(10);

/// How long one part of the work took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

impl Phase {
    pub(crate) fn since(name: &str, started: Instant) -> Self {
        Self {
            name: name.to_owned(),
            seconds: started.elapsed().as_secs_f64(),
        }
    }
}

/// What a stage's folder holds: `stage.json`. It contains the cluster's keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageManifest {
    /// [`ClusterPlan::key`] of the plan.
    pub key: String,
    /// What the cluster is.
    pub plan: ClusterPlan,
    /// The image that the nodes' disks are based on.
    pub image: ImageFiles,
    /// Keys and certificates.
    pub pki: Pki,
    /// The segment as it was, with the frames that were under way.
    pub segment: SegmentState,
    /// What was still missing when the time to settle ran out; nothing, usually.
    pub unsettled: Option<String>,
    /// The guests' time at the freeze, in seconds since 1970. Their clocks go on from here.
    pub guest_time: i64,
    /// Where the time went.
    pub phases: Vec<Phase>,
    /// Size in bytes of each file, by its path in the folder.
    pub files: BTreeMap<String, u64>,
}

/// A frozen cluster in its folder. Its files are never written again: clones map and overlay them.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The folder.
    pub dir: PathBuf,
    /// What it holds.
    pub manifest: StageManifest,
}

/// The files of one node in a stage's or a clone's folder.
pub(crate) struct NodeFiles(PathBuf);

impl NodeFiles {
    pub(crate) fn of(dir: &Path, number: u32) -> Self {
        Self(dir.join(node_name(number)))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }

    pub(crate) fn ram(&self) -> PathBuf {
        self.0.join("ram")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Stage {
    /// Reads a stage's manifest and checks that its files, and its image's disk, are there with
    /// the sizes that it says.
    ///
    /// # Errors
    /// [`ClusterError::Stage`].
    pub fn open(dir: &Path) -> Result<Self, ClusterError> {
        let unusable = |reason: String| ClusterError::Stage {
            dir: dir.to_owned(),
            reason,
        };
        let text = fs::read(dir.join(MANIFEST))
            .map_err(|error| unusable(format!("{MANIFEST} cannot be read: {error}")))?;
        let manifest: StageManifest = serde_json::from_slice(&text)
            .map_err(|error| unusable(format!("{MANIFEST} makes no sense: {error}")))?;
        for (name, size) in &manifest.files {
            match fs::metadata(dir.join(name)) {
                Ok(metadata) if metadata.len() == *size => {}
                Ok(metadata) => {
                    let now = metadata.len();
                    return Err(unusable(format!(
                        "{name} has {now} bytes instead of {size}"
                    )));
                }
                Err(error) => return Err(unusable(format!("{name}: {error}"))),
            }
        }
        for path in [
            &manifest.image.disk,
            &manifest.image.kernel,
            &manifest.image.initrd,
        ] {
            if !path.exists() {
                return Err(unusable(format!("its image's {} is gone", path.display())));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
        })
    }

    /// Boots a cluster cold, brings it up by hand, lets it settle, freezes it, and moves it to
    /// `dir`, which must not exist. Consoles and transcripts go to `logs` and stay there; when
    /// anything fails, nothing else is left.
    ///
    /// # Errors
    /// [`ClusterError`]. A cluster that does not settle in time is frozen all the same, see
    /// [`StageManifest::unsettled`].
    pub async fn build(
        host: &Host,
        plan: &ClusterPlan,
        image: &ImageFiles,
        dir: &Path,
        logs: &Path,
        report: &dyn Report,
    ) -> Result<Self, ClusterError> {
        let parent = dir.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(ClusterError::file("make the folder", parent))?;
        // Beside its final place, so that a rename suffices. Removed with all its content on drop.
        let beside = tempfile::Builder::new()
            .prefix(".building-")
            .tempdir_in(parent)
            .map_err(ClusterError::file("make a folder in", parent))?;
        let mut manifest = cold_and_frozen(host, plan, image, beside.path(), logs, report).await?;
        manifest.files = sealed(beside.path(), plan.nodes)?;

        let text = serde_json::to_vec_pretty(&manifest).map_err(|source| ClusterError::Json {
            what: "the stage's manifest",
            source,
        })?;
        let path = beside.path().join(MANIFEST);
        fs::write(&path, text).map_err(ClusterError::file("write", &path))?;
        fs::rename(beside.path(), dir).map_err(ClusterError::file("move the stage to", dir))?;
        // There is nothing at the old place to remove any more.
        let _ = beside.keep();
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
        })
    }
}

async fn cold_and_frozen(
    host: &Host,
    plan: &ClusterPlan,
    image: &ImageFiles,
    dir: &Path,
    logs: &Path,
    report: &dyn Report,
) -> Result<StageManifest, ClusterError> {
    fs::create_dir_all(logs).map_err(ClusterError::file("make the folder", logs))?;
    let pki = Pki::new(plan.nodes, plan.broken, OffsetDateTime::now_utc())?;
    let options = SegmentOptions {
        capture: Some(logs.join("segment.pcapng")),
        ..SegmentOptions::default()
    };
    let segment = Segment::start(addresses::segment(plan.nodes), options)?;
    let mut specs = Vec::new();
    for number in 1..=plan.nodes {
        let files = NodeFiles::of(dir, number);
        fs::create_dir(files.dir()).map_err(ClusterError::file("make", files.dir()))?;
        create_overlay(&host.qemu_img, &image.disk, &files.disk())?;
        let ram = Ram::Template(files.ram());
        let spec = plan.machine(number, &image.kernel, &image.initrd, files.disk(), ram);
        specs.push((spec, logs.join(node_name(number))));
    }
    let bootstrapped = bootstrap(host, plan, &pki, &segment, specs, report).await?;

    report.step("freeze the cluster");
    let Bootstrapped {
        nodes,
        api,
        unsettled,
        mut phases,
    } = bootstrapped;
    let freezing = Instant::now();
    let limit = host.limit(COMMAND);
    let times = nodes
        .iter()
        .map(|node| node.run_ok("sync; date -u +%s", limit));
    let times = try_join_all(times).await?;
    let guest_time = times
        .iter()
        .filter_map(|time| time.trim().parse().ok())
        .max();
    drop(api);
    let machines = join_all(nodes.into_iter().map(|node| node.hang_up())).await;
    segment.hold()?;
    try_join_all(machines.iter().map(|machine| machine.pause())).await?;
    let state = segment.state()?;
    phases.push(Phase::since("stop the cluster", freezing));
    let saving = Instant::now();
    let states: Vec<PathBuf> = (1..=plan.nodes)
        .map(|number| NodeFiles::of(dir, number).state())
        .collect();
    let saves = machines.iter().zip(&states);
    try_join_all(saves.map(|(machine, state)| machine.save(state))).await?;
    join_all(machines.into_iter().map(|machine| machine.kill())).await;
    phases.push(Phase::since("save the cluster", saving));
    Ok(StageManifest {
        key: plan.key()?,
        plan: plan.clone(),
        image: image.clone(),
        pki,
        segment: state,
        unsettled,
        guest_time: guest_time.unwrap_or_default(),
        phases,
        files: BTreeMap::new(),
    })
}

/// Makes the nodes' files read-only and gives their sizes.
fn sealed(dir: &Path, nodes: u32) -> Result<BTreeMap<String, u64>, ClusterError> {
    let mut sizes = BTreeMap::new();
    for number in 1..=nodes {
        let files = NodeFiles::of(dir, number);
        for path in [files.disk(), files.ram(), files.state()] {
            let failed = || ClusterError::file("seal", &path);
            fs::set_permissions(&path, Permissions::from_mode(0o400)).map_err(failed())?;
            let file = File::open(&path).map_err(failed())?;
            let size = file.metadata().map_err(failed())?.len();
            let name = path.strip_prefix(dir).unwrap_or(&path);
            sizes.insert(name.to_string_lossy().into_owned(), size);
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_vm::Accelerator;

    /// A stage of one node without a guest in it.
    fn stage(dir: &Path) {
        let image = ImageFiles {
            name: "image".into(),
            disk: dir.join("image"),
            kernel: dir.join("image"),
            initrd: dir.join("image"),
            append: String::new(),
        };
        fs::write(&image.disk, "image").unwrap();
        let plan = ClusterPlan::new(1, "1.36.4", &image, Accelerator::Tcg, "", "", None).unwrap();
        let files = NodeFiles::of(dir, 1);
        fs::create_dir(files.dir()).unwrap();
        for path in [files.disk(), files.ram(), files.state()] {
            fs::write(path, "content").unwrap();
        }
        let manifest = StageManifest {
            key: plan.key().unwrap(),
            pki: Pki::placeholder(1),
            plan,
            image,
            segment: SegmentState::default(),
            unsettled: None,
            guest_time: 0,
            phases: Vec::new(),
            files: sealed(dir, 1).unwrap(),
        };
        let text = serde_json::to_vec(&manifest).unwrap();
        fs::write(dir.join(MANIFEST), text).unwrap();
        assert_eq!(Stage::open(dir).unwrap().manifest, manifest);
    }

    fn reason(dir: &Path) -> String {
        match Stage::open(dir) {
            Err(ClusterError::Stage { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whatever_a_stage_lacks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        stage(dir.path());
        let ram = NodeFiles::of(dir.path(), 1).ram();
        fs::remove_file(&ram).unwrap();
        assert!(reason(dir.path()).starts_with("node1/ram: No such file"));
        fs::write(&ram, "cut").unwrap();
        assert_eq!(reason(dir.path()), "node1/ram has 3 bytes instead of 7");
        fs::write(&ram, "content").unwrap();
        fs::remove_file(dir.path().join("image")).unwrap();
        assert!(reason(dir.path()).ends_with("image is gone"));
        fs::write(dir.path().join(MANIFEST), "{").unwrap();
        assert!(reason(dir.path()).starts_with("stage.json makes no sense"));
        fs::remove_file(dir.path().join(MANIFEST)).unwrap();
        assert!(reason(dir.path()).starts_with("stage.json cannot be read"));
    }

    #[test]
    fn a_sealed_file_is_for_its_owner_to_read() {
        let dir = tempfile::tempdir().unwrap();
        stage(dir.path());
        let ram = fs::metadata(NodeFiles::of(dir.path(), 1).ram()).unwrap();
        assert_eq!(ram.permissions().mode() & 0o777, 0o400);
    }
}
