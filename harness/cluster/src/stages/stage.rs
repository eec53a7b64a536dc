//! A running cluster, frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use podwire_lan::SegmentState;
use podwire_process::held;
use podwire_vm::memory::digest;
use serde::{Deserialize, Serialize};

use crate::parts::credentials::Credentials;
use crate::plan::cell::Cell;
use crate::plan::cluster_plan::{ClusterPlan, ImageFiles};
use crate::plan::error::ClusterError;
use crate::plan::layout::Member;
use crate::plan::stage_name::StageName;
use crate::running::phase::Phase;

/// Name of the manifest in a stage's folder; written last.
pub(crate) const MANIFEST: &str = "stage.json";
/// Its modification time says when the stage was last used.
const USED: &str = "used";

/// What a stage's folder holds: `stage.json`. It contains the cluster's keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageManifest {
    /// Which stage it is.
    pub name: StageName,
    /// [`ClusterPlan::key`] of the plan for it.
    pub key: String,
    /// The key of the stage that it was made of.
    pub parent: Option<String>,
    /// What the cluster is.
    pub plan: ClusterPlan,
    /// The image that the machines' disks are based on.
    pub image: ImageFiles,
    /// Keys, certificates and identities; none before the nodes have any.
    pub credentials: Option<Credentials>,
    /// The segment as it was, with the frames that were under way.
    pub segment: SegmentState,
    /// What was still missing when the time to settle ran out; nothing, usually.
    pub unsettled: Option<String>,
    /// When it was frozen, in seconds since 1970, by the host's clock.
    pub built: u64,
    /// Where the time went.
    pub phases: Vec<Phase>,
    /// Every file, by its path in the folder.
    pub files: BTreeMap<String, SealedFile>,
    /// The image's files as they were when the first stage was made of them, by their paths.
    pub based_on: BTreeMap<PathBuf, ImageFile>,
}

impl StageManifest {
    /// Of a stage of which nothing is made yet.
    ///
    /// # Errors
    /// As [`ClusterPlan::key`].
    pub fn new(
        name: StageName,
        plan: ClusterPlan,
        image: ImageFiles,
    ) -> Result<Self, ClusterError> {
        let parent = name.parent(plan.cell).map(|parent| plan.key(parent));
        Ok(Self {
            name,
            key: plan.key(name)?,
            parent: parent.transpose()?,
            plan,
            image,
            credentials: None,
            segment: SegmentState::default(),
            unsettled: None,
            built: 0,
            phases: Vec::new(),
            files: BTreeMap::new(),
            based_on: BTreeMap::new(),
        })
    }
}

/// A file as it was when its stage was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFile {
    /// Its length in bytes, holes included.
    pub size: u64,
    /// See [`podwire_vm::memory::digest`].
    pub digest: String,
}

/// A file of an image as it was when a stage was made of it.
///
/// An image that is made again has its name from what goes into it, and never the same bytes; what is in
/// a machine's memory and overlay fits those alone that it has run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its length and its digest.
    #[serde(flatten)]
    pub sealed: SealedFile,
    /// When it was written, in seconds since 1970: who makes it again writes it later.
    pub written: i64,
}

/// A frozen cluster in its folder. Its files are never written again: clones map and overlay them.
///
/// As long as a value of it lives, its folder and its image's are locked (flock(2), shared): whoever
/// makes room in the cache leaves them alone.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The folder.
    pub dir: PathBuf,
    /// What it holds.
    pub manifest: StageManifest,
    _in_use: Arc<(File, Vec<File>)>,
}

/// The files of one machine in a stage's or a clone's folder.
pub(crate) struct MachineFiles(PathBuf);

impl MachineFiles {
    pub(crate) fn of(dir: &Path, machine: &str) -> Self {
        Self(dir.join(machine))
    }

    pub(crate) fn of_member(dir: &Path, member: Member) -> Self {
        Self::of(dir, &member.name())
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
    /// Reads a stage's manifest, locks the folder, and checks that its files, and its image's, are
    /// there with the sizes that it says.
    ///
    /// # Errors
    /// [`ClusterError::Stage`]; [`ClusterError::OtherVersion`].
    pub fn open(dir: &Path) -> Result<Self, ClusterError> {
        let unusable = |reason: String| ClusterError::Stage {
            dir: dir.to_owned(),
            reason,
        };
        let folder = held(dir).map_err(|error| unusable(error.to_string()))?;
        let manifest = StageManifest::read(dir)?;
        // A layer over the image is beside it; its disk is based on the image's.
        let image = [&manifest.image.disk, &manifest.image.kernel];
        let folders: BTreeSet<&Path> = image.into_iter().filter_map(|file| file.parent()).collect();
        let image = folders
            .into_iter()
            .map(held)
            .collect::<io::Result<Vec<File>>>()
            .map_err(|error| unusable(format!("its image: {error}")))?;
        if let Some(damage) = manifest.damage(dir) {
            return Err(unusable(damage));
        }
        let now = FileTimes::new().set_modified(SystemTime::now());
        // When it was used only decides what goes first when space is needed.
        let _ = File::create(dir.join(USED)).and_then(|used| used.set_times(now));
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
            _in_use: Arc::new((folder, image)),
        })
    }
}

impl Stage {
    /// The same stage as one of this plan, which leads to it as well: it may have been made for another
    /// cell whose steps were the same so far. Its clones then go on as clusters of this one.
    #[must_use]
    pub fn as_of(self, plan: &ClusterPlan) -> Self {
        Self {
            manifest: StageManifest {
                plan: plan.clone(),
                ..self.manifest
            },
            ..self
        }
    }

    /// Bytes that its machines' files occupy on disk; holes count nothing.
    pub fn disk(&self) -> u64 {
        self.manifest.disk(&self.dir)
    }
}

impl StageManifest {
    /// That it did not settle, in words for every report about it, as one of this cell; nothing,
    /// usually.
    pub fn not_settled(&self, cell: Cell) -> Option<String> {
        let (name, lacking) = (self.name, self.unsettled.as_ref()?);
        Some(format!(
            "the stage {name} of {cell} was frozen before it had settled: {lacking}"
        ))
    }

    /// Bytes that the files of the stage in that folder occupy on disk; holes count nothing.
    pub fn disk(&self, dir: &Path) -> u64 {
        let files = self.files.keys();
        files
            .filter_map(|name| fs::metadata(dir.join(name)).ok())
            .map(|file| file.blocks() * 512)
            .sum()
    }

    /// Reads the manifest of the stage in a folder, and looks at nothing else.
    ///
    /// # Errors
    /// [`ClusterError::Stage`]; [`ClusterError::OtherVersion`].
    pub fn read(dir: &Path) -> Result<Self, ClusterError> {
        let unusable = |reason: String| ClusterError::Stage {
            dir: dir.to_owned(),
            reason,
        };
        let text = fs::read(dir.join(MANIFEST))
            .map_err(|error| unusable(format!("{MANIFEST} cannot be read: {error}")))?;
        serde_json::from_slice(&text).map_err(|error| match error.is_data() {
            // What was cut short or altered is no JSON.
            true => ClusterError::OtherVersion {
                dir: dir.to_owned(),
                source: error,
            },
            false => unusable(format!("{MANIFEST} makes no sense: {error}")),
        })
    }

    /// What of the stage in that folder, or of its image, is missing or has another size, or was
    /// written again; nothing when it is whole. The first that is found: it takes no time.
    pub fn damage(&self, dir: &Path) -> Option<String> {
        let mut files = self.files.iter();
        files
            .find_map(|(name, sealed)| sealed.wrong_size(&dir.join(name), name))
            .or_else(|| self.image_damage(ImageFile::changed))
    }

    /// All that is missing or altered: it reads every file.
    pub fn damage_by_content(&self, dir: &Path) -> Vec<String> {
        let files = self.files.iter();
        files
            .filter_map(|(name, sealed)| sealed.altered(&dir.join(name), name))
            .chain(self.image_damage(ImageFile::altered))
            .collect()
    }

    /// The first that such a look finds.
    fn image_damage(&self, look: fn(&ImageFile, &Path) -> Option<String>) -> Option<String> {
        let mut files = self.based_on.iter();
        let damage = files.find_map(|(path, file)| look(file, path))?;
        Some(format!("its image's {damage}"))
    }
}

impl ImageFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            written: fs::metadata(path)?.mtime(),
            sealed: SealedFile::of(path)?,
        })
    }

    fn changed(&self, path: &Path) -> Option<String> {
        let name = path.display().to_string();
        let wrong_size = self.sealed.wrong_size(path, &name);
        wrong_size.or_else(|| match fs::metadata(path) {
            Ok(metadata) if metadata.mtime() == self.written => None,
            Ok(_) => Some(format!("{name} was written again after it was made")),
            Err(error) => Some(format!("{name}: {error}")),
        })
    }

    fn altered(&self, path: &Path) -> Option<String> {
        let changed = self.changed(path);
        changed.or_else(|| self.sealed.altered(path, &path.display().to_string()))
    }
}

/// What of an image is under a stage from now on.
pub(crate) fn under(image: &ImageFiles) -> Result<BTreeMap<PathBuf, ImageFile>, ClusterError> {
    let files = [&image.disk, &image.kernel, &image.initrd];
    let files = files.into_iter().map(|path| {
        let file = ImageFile::of(path).map_err(ClusterError::file("read", path))?;
        Ok((path.clone(), file))
    });
    files.collect()
}

impl SealedFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            size: fs::metadata(path)?.len(),
            digest: digest(path)?,
        })
    }

    fn wrong_size(&self, path: &Path, name: &str) -> Option<String> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.len() == self.size => None,
            Ok(metadata) => {
                let (now, size) = (metadata.len(), self.size);
                Some(format!("{name} has {now} bytes instead of {size}"))
            }
            Err(error) => Some(format!("{name}: {error}")),
        }
    }

    fn altered(&self, path: &Path, name: &str) -> Option<String> {
        let wrong_size = self.wrong_size(path, name);
        if wrong_size.is_some() {
            return wrong_size;
        }
        match digest(path) {
            Ok(digest) if digest == self.digest => None,
            Ok(_) => Some(format!("{name} has other contents than when it was made")),
            Err(error) => Some(format!("{name}: {error}")),
        }
    }
}

/// Makes the files of these machines read-only, and takes down what they hold.
pub(crate) fn sealed(
    dir: &Path,
    machines: &[MachineFiles],
) -> Result<BTreeMap<String, SealedFile>, ClusterError> {
    let mut sealed = BTreeMap::new();
    for files in machines {
        for path in [files.disk(), files.ram(), files.state()] {
            let failed = || ClusterError::file("seal", &path);
            fs::set_permissions(&path, Permissions::from_mode(0o400)).map_err(failed())?;
            let file = SealedFile::of(&path).map_err(failed())?;
            let name = path.strip_prefix(dir).unwrap_or(&path);
            sealed.insert(name.to_string_lossy().into_owned(), file);
        }
    }
    Ok(sealed)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::cell::Bootstrap;
    use podwire_vm::Accelerator;
    use std::time::Duration;

    /// A stage of one node without a guest in it.
    pub(crate) fn stage(dir: &Path) {
        let image = ImageFiles {
            name: "image".into(),
            disk: dir.join("image"),
            kernel: dir.join("image"),
            initrd: dir.join("image"),
            append: String::new(),
        };
        fs::write(&image.disk, "image").unwrap();
        let plan = ClusterPlan::new(
            1,
            Cell::usual(Bootstrap::ByHand),
            "1.36.4",
            &image,
            Accelerator::Tcg,
            "",
            "",
            None,
        )
        .unwrap();
        let files = MachineFiles::of_member(dir, Member::Node(1));
        fs::create_dir(files.dir()).unwrap();
        for path in [files.disk(), files.ram(), files.state()] {
            fs::write(path, "content").unwrap();
        }
        let mut manifest = StageManifest::new(StageName::Cni, plan, image).unwrap();
        manifest.files = sealed(dir, &[files]).unwrap();
        manifest.based_on = under(&manifest.image).unwrap();
        let text = serde_json::to_vec(&manifest).unwrap();
        fs::write(dir.join(MANIFEST), text).unwrap();
        assert_eq!(Stage::open(dir).unwrap().manifest, manifest);
        assert!(dir.join(USED).exists());
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
        let ram = MachineFiles::of_member(dir.path(), Member::Node(1)).ram();
        fs::remove_file(&ram).unwrap();
        assert!(reason(dir.path()).starts_with("node1/ram: No such file"));
        fs::write(&ram, "cut").unwrap();
        assert_eq!(reason(dir.path()), "node1/ram has 3 bytes instead of 7");
        fs::write(&ram, "content").unwrap();
        fs::remove_file(dir.path().join("image")).unwrap();
        let gone = reason(dir.path());
        assert!(gone.starts_with("its image's /"), "{gone}");
        assert!(gone.contains("/image: No such file"), "{gone}");
        fs::write(dir.path().join(MANIFEST), "{").unwrap();
        assert!(reason(dir.path()).starts_with("stage.json makes no sense"));
        fs::remove_file(dir.path().join(MANIFEST)).unwrap();
        assert!(reason(dir.path()).starts_with("stage.json cannot be read"));
    }

    #[test]
    fn a_flipped_bit_is_found_by_reading_and_not_by_the_size() {
        let dir = tempfile::tempdir().unwrap();
        stage(dir.path());
        let manifest = Stage::open(dir.path()).unwrap().manifest;
        let whole: [&str; 0] = [];
        assert_eq!(manifest.damage_by_content(dir.path()), whole);
        let files = MachineFiles::of_member(dir.path(), Member::Node(1));
        fs::remove_file(files.ram()).unwrap();
        fs::write(files.ram(), "bontent").unwrap();
        fs::remove_file(files.state()).unwrap();
        fs::write(files.state(), "cut").unwrap();
        let found = manifest.damage_by_content(dir.path());
        let expected = [
            "node1/ram has other contents than when it was made",
            "node1/state has 3 bytes instead of 7",
        ];
        assert_eq!(found, expected);
        fs::write(files.state(), "content").unwrap();
        assert_eq!(manifest.damage(dir.path()), None);
    }

    #[test]
    fn an_image_is_the_one_that_the_stage_was_made_of() {
        let dir = tempfile::tempdir().unwrap();
        stage(dir.path());
        let manifest = StageManifest::read(dir.path()).unwrap();
        let image = dir.path().join("image");
        let written = fs::metadata(&image).unwrap().modified().unwrap();
        let again = |text: &str, later: u64| {
            fs::write(&image, text).unwrap();
            let time = FileTimes::new().set_modified(written + Duration::from_secs(later));
            let file = File::options().write(true).open(&image).unwrap();
            file.set_times(time).unwrap();
            let named = |text: String| text.replace(&image.display().to_string(), "IMAGE");
            let read = manifest.damage_by_content(dir.path()).into_iter();
            (
                manifest.damage(dir.path()).map(named),
                read.map(named).collect::<Vec<_>>(),
            )
        };
        let cut = "its image's IMAGE has 3 bytes instead of 5".to_owned();
        assert_eq!(again("ima", 0), (Some(cut.clone()), vec![cut]));
        // As a rule whoever makes it again makes one of the same size.
        let later = "its image's IMAGE was written again after it was made".to_owned();
        assert_eq!(again("other", 60), (Some(later.clone()), vec![later]));
        // A disk that forgets notes no time: that takes reading.
        let rotten = "its image's IMAGE has other contents than when it was made".to_owned();
        assert_eq!(again("imaGe", 0), (None, vec![rotten]));
        assert_eq!(again("image", 0), (None, Vec::new()));
        // Opened, it is refused.
        again("other", 60);
        assert!(reason(dir.path()).ends_with("was written again after it was made"));
    }

    #[test]
    fn what_did_not_settle_says_so_and_of_what() {
        let dir = tempfile::tempdir().unwrap();
        stage(dir.path());
        let mut manifest = StageManifest::read(dir.path()).unwrap();
        let cell = Cell::usual(Bootstrap::ByHand);
        assert_eq!(manifest.not_settled(cell), None);
        manifest.unsettled = Some("5 of 6 Pods app=blue run".into());
        let said = manifest.not_settled(cell).unwrap();
        assert_eq!(
            said,
            "the stage cni of by-hand/nftables/routes was frozen before it had settled: \
             5 of 6 Pods app=blue run"
        );
    }

    #[test]
    fn a_sealed_file_is_for_its_owner_to_read() {
        let dir = tempfile::tempdir().unwrap();
        stage(dir.path());
        let ram = fs::metadata(MachineFiles::of_member(dir.path(), Member::Node(1)).ram()).unwrap();
        assert_eq!(ram.permissions().mode() & 0o777, 0o400);
    }
}
