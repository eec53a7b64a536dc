//! What a campaign works on: a folder with a cache of its own, made of what the user's has, and with the
//! runs. What is in the user's cache is read, and nothing of it is ever written.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use podwire_process::{held, held_alone};
use rustix::fs::statvfs;

use super::draw::{Part, Target, Which};
use crate::say::text::size;

/// What takes long to make, and is the same in every cache: linked, where the file system can.
const LINKED: [&str; 3] = ["bundles", "images", "tools"];

/// What podwire writes to, and images are named by: copied.
const COPIED: [&str; 4] = ["keys", "requests", "durations.json", "verdicts.json"];

/// What podwire notes by itself, and can find out again within seconds.
const NOTES: [&str; 2] = ["durations.json", "verdicts.json"];

/// The file that says when something was used last.
const USED: &str = "used";

/// Files smaller than this are copied.
const SMALL: u64 = 1 << 20;

/// The most that is left of a file that is cut: it is written anew, and files with holes would lose them.
const MOST_LEFT: u64 = 64 << 20;

/// The folder of a campaign, in use as long as this value lives.
#[derive(Debug)]
pub(super) struct Ground {
    dir: PathBuf,
    _held: File,
}

/// A file that has lost its end, and where the whole one is.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) file: PathBuf,
    aside: PathBuf,
    pub(super) was: u64,
    pub(super) is: u64,
}

/// What making the cache takes, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    copied: u64,
    linked: u64,
}

impl Ground {
    /// Makes the folder, under a name that nobody has.
    pub(super) fn new(parent: &Path, name: &str) -> anyhow::Result<Self> {
        let dir = parent.join(name);
        let make = || {
            fs::create_dir_all(parent)?;
            // Guests' keys come to it.
            fs::DirBuilder::new().mode(0o700).create(&dir)?;
            for below in ["cache", "output", "logs", "aside"] {
                fs::create_dir(dir.join(below))?;
            }
            held(&dir)
        };
        let held = make().with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir, _held: held })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// Where its runs are, as in `target/podwire`.
    pub(super) fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// Makes the cache of another one. Nobody removes anything there meanwhile. It is refused where the
    /// disk is too small for what is copied and for so many bytes of stages.
    pub(super) fn plant(&self, from: &Path, stages: u64) -> anyhow::Result<Weight> {
        let cannot = || format!("cannot make a cache of what {} has", from.display());
        let device = |path: &Path| fs::metadata(path).map(|it| it.dev());
        let links = device(from).with_context(cannot)? == device(&self.dir)?;
        let mut pairs = Vec::new();
        for group in LINKED {
            for entry in children(&from.join(group))? {
                let to = self.cache().join(group).join(name(&entry));
                pairs.push((entry, to));
            }
        }
        let notes = COPIED
            .iter()
            .map(|it| (from.join(it), self.cache().join(it)));
        pairs.extend(notes.filter(|(from, _)| from.exists()));
        let weight = pairs.iter().map(|(from, _)| Weight::of(from, links));
        let weight: Weight = weight.sum();
        let disk = statvfs(&self.dir).with_context(cannot)?;
        let (needed, free) = (weight.copied + stages, disk.f_bavail * disk.f_frsize);
        ensure!(
            needed < free,
            "the campaign's own cache comes to need {} in {}, where {} are free; --dir names another place",
            size(needed),
            self.dir.display(),
            size(free)
        );
        for (from, to) in pairs {
            let _held = held(&from).with_context(cannot)?;
            copy(&from, &to, links).with_context(cannot)?;
        }
        Ok(weight)
    }

    /// Removes so many of the stages that were made last.
    pub(super) fn remove_newest(&self, count: u16) -> anyhow::Result<Vec<String>> {
        let mut stages: Vec<(SystemTime, PathBuf)> = Vec::new();
        for dir in self.stages()? {
            if let Ok(made) = fs::metadata(dir.join("stage.json")) {
                stages.push((made.modified()?, dir));
            }
        }
        stages.sort();
        let newest = stages.into_iter().rev().take(count.into());
        newest
            .map(|(_, dir)| {
                fs::remove_dir_all(&dir)
                    .with_context(|| format!("cannot remove {}", dir.display()))?;
                Ok(name(&dir))
            })
            .collect()
    }

    fn stages(&self) -> anyhow::Result<Vec<PathBuf>> {
        let stages = children(&self.cache().join("stages"))?.into_iter();
        Ok(stages.filter(|dir| !name(dir).starts_with('.')).collect())
    }

    /// The files of that kind, in an order that only their names give.
    fn files(&self, target: Target) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        match target {
            Target::StageManifest => {
                files.extend(self.stages()?.iter().map(|dir| dir.join("stage.json")));
            }
            Target::StageFile => {
                for node in self.stages()?.iter().map(|dir| children(dir)) {
                    for dir in node?.into_iter().filter(|path| path.is_dir()) {
                        files.extend(children(&dir)?);
                    }
                }
            }
            Target::Note => {
                for note in NOTES.map(|note| self.cache().join(note)) {
                    all_files(&note, &mut files)?;
                }
            }
            Target::Sealed => {
                for group in LINKED.map(|group| self.cache().join(group)) {
                    for entry in children(&group)? {
                        // What no run of the campaign has used is nothing that one looks at.
                        if entry.join(USED).exists() {
                            all_files(&entry, &mut files)?;
                        }
                    }
                }
            }
        }
        files.retain(|file| {
            name(file) != USED && fs::metadata(file).is_ok_and(|it| it.is_file() && it.len() > 0)
        });
        files.sort();
        Ok(files)
    }

    /// Cuts one of the files of a kind; nothing when there is none. The file itself is put aside and what
    /// is left of it is another: one that is linked is the user's as well.
    pub(super) fn cut(
        &self,
        target: Target,
        which: Which,
        left: Part,
    ) -> anyhow::Result<Option<Cut>> {
        let files = self.files(target)?;
        let Some(file) = which.of(&files) else {
            return Ok(None);
        };
        let cut = || -> io::Result<Cut> {
            let whole = fs::metadata(file)?;
            let aside = self.dir.join("aside").join(name(file));
            let is = left.of(whole.len()).min(MOST_LEFT);
            fs::rename(file, &aside)?;
            let mut beginning = File::open(&aside)?.take(is);
            let mut short = File::create_new(file)?;
            io::copy(&mut beginning, &mut short)?;
            short.set_permissions(whole.permissions())?;
            Ok(Cut {
                file: file.clone(),
                aside,
                was: whole.len(),
                is,
            })
        };
        let cut = cut().with_context(|| format!("cannot cut {}", file.display()))?;
        Ok(Some(cut))
    }

    /// Removes what the runs have left.
    pub(super) fn clear_runs(&self) -> anyhow::Result<()> {
        let output = self.output();
        fs::remove_dir_all(&output)
            .and_then(|()| fs::create_dir(&output))
            .with_context(|| format!("cannot clear {}", output.display()))
    }

    /// What of the cache is locked, and by that in use.
    pub(super) fn locked(&self) -> anyhow::Result<Vec<String>> {
        let groups = [
            "locks",
            "admission",
            "stages",
            "images",
            "bundles",
            "tools",
            "tmp",
        ];
        let mut locked = Vec::new();
        for group in groups.map(|group| self.cache().join(group)) {
            for path in children(&group)? {
                match held_alone(&path) {
                    Ok(Some(_)) => {}
                    Ok(None) => locked.push(path.display().to_string()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("cannot lock {}", path.display()));
                    }
                }
            }
        }
        Ok(locked)
    }

    /// Removes the folder.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.dir)
            .with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

impl Cut {
    /// Puts the whole file into its place again.
    pub(super) fn put_back(self) -> anyhow::Result<()> {
        fs::rename(&self.aside, &self.file)
            .with_context(|| format!("cannot put {} back", self.file.display()))
    }

    /// Forgets the whole file.
    pub(super) fn forget(self) -> anyhow::Result<()> {
        fs::remove_file(&self.aside)
            .with_context(|| format!("cannot remove {}", self.aside.display()))
    }
}

impl Weight {
    fn of(path: &Path, links: bool) -> Self {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return Self::default();
        };
        if metadata.is_dir() {
            let below = children(path).unwrap_or_default();
            return below.iter().map(|it| Self::of(it, links)).sum();
        }
        let bytes = metadata.blocks() * 512;
        match links && metadata.len() >= SMALL {
            true => Self {
                copied: 0,
                linked: bytes,
            },
            false => Self {
                copied: bytes,
                linked: 0,
            },
        }
    }
}

impl std::iter::Sum for Weight {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            copied: sum.copied + one.copied,
            linked: sum.linked + one.linked,
        })
    }
}

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} copied, {} linked",
            size(self.copied),
            size(self.linked)
        )
    }
}

/// A file or a folder at another place. Large files are linked if that can be.
fn copy(from: &Path, to: &Path, links: bool) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::metadata(from)?.permissions())?;
        for entry in children(from)? {
            if name(&entry) != USED {
                copy(&entry, &to.join(name(&entry)), links)?;
            }
        }
        return Ok(());
    }
    if links && fs::metadata(from)?.len() >= SMALL {
        return fs::hard_link(from, to);
    }
    fs::copy(from, to).map(drop)
}

/// What is in a folder; nothing where there is none.
fn children(of: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(of) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn all_files(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    children(path)?
        .iter()
        .try_for_each(|below| all_files(below, files))
}

fn name(path: &Path) -> String {
    crate::say::text::name(path)
}

#[cfg(test)]
mod tests {
    use super::super::draw::{Act, rounds};
    use super::*;

    const LARGE: usize = SMALL as usize;

    /// Somebody's cache, with what a campaign takes and what it does not.
    fn cache(dir: &Path) -> PathBuf {
        let root = dir.join("cache");
        for (path, text) in [
            ("images/i/disk.qcow2", vec![b'd'; 2 * LARGE]),
            ("images/i/seal.json", b"{}".to_vec()),
            ("images/i/used", Vec::new()),
            ("tools/t/bin/tool", b"tool".to_vec()),
            ("keys/user", b"secret".to_vec()),
            ("durations.json", b"{\"a\":1}".to_vec()),
            ("stages/s/stage.json", b"{}".to_vec()),
            ("locks/stage.lock", Vec::new()),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn planted(dir: &Path) -> (PathBuf, Ground, Weight) {
        let from = cache(dir);
        let ground = Ground::new(&dir.join("chaos"), "1").unwrap();
        let weight = ground.plant(&from, 0).unwrap();
        (from, ground, weight)
    }

    #[test]
    fn the_cache_has_what_takes_long_and_stages_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (from, ground, weight) = planted(dir.path());
        let inode = |root: &Path, file: &str| fs::metadata(root.join(file)).unwrap().ino();
        let same = |file: &str| inode(&from, file) == inode(&ground.cache(), file);
        assert!(same("images/i/disk.qcow2"));
        assert!(!same("keys/user") && !same("durations.json") && !same("tools/t/bin/tool"));
        assert!(
            weight.linked >= 2 * SMALL && weight.copied < SMALL,
            "{weight:?}"
        );
        let mut all = Vec::new();
        all_files(&ground.cache(), &mut all).unwrap();
        let mut all: Vec<String> = all
            .iter()
            .map(|it| {
                it.strip_prefix(ground.cache())
                    .unwrap()
                    .display()
                    .to_string()
            })
            .collect();
        all.sort();
        let expected = [
            "durations.json",
            "images/i/disk.qcow2",
            "images/i/seal.json",
            "keys/user",
            "tools/t/bin/tool",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_disk_without_room_for_the_stages_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let from = cache(dir.path());
        let ground = Ground::new(&dir.path().join("chaos"), "1").unwrap();
        let error = ground.plant(&from, 1 << 60).unwrap_err().to_string();
        assert!(error.contains("--dir names another place"), "{error}");
        assert_eq!(fs::read_dir(ground.cache()).unwrap().count(), 0);
    }

    /// How something is cut, as the draw gives it.
    fn how() -> (Which, Part) {
        let mut acts = rounds(5);
        loop {
            if let Some(Act::Cut { which, left, .. }) = acts.next() {
                return (which, left);
            }
        }
    }

    #[test]
    fn what_is_cut_is_never_the_user_s() {
        let dir = tempfile::tempdir().unwrap();
        let (from, ground, _) = planted(dir.path());
        let (which, left) = how();
        // No run has used anything yet.
        assert!(ground.cut(Target::Sealed, which, left).unwrap().is_none());
        fs::write(ground.cache().join("images/i/used"), "").unwrap();
        fs::remove_file(ground.cache().join("images/i/seal.json")).unwrap();
        let disk = ground.cache().join("images/i/disk.qcow2");
        let cut = ground.cut(Target::Sealed, which, left).unwrap().unwrap();
        assert_eq!((&cut.file, cut.was), (&disk, 2 * SMALL));
        assert!(cut.is < cut.was);
        assert_eq!(fs::metadata(&disk).unwrap().len(), cut.is);
        let whole = fs::read(from.join("images/i/disk.qcow2")).unwrap();
        assert_eq!(whole, vec![b'd'; 2 * LARGE]);
        cut.put_back().unwrap();
        assert_eq!(fs::read(&disk).unwrap(), whole);

        let cut = ground.cut(Target::Note, which, left).unwrap().unwrap();
        assert_eq!(cut.file, ground.cache().join("durations.json"));
        assert_eq!(fs::read(from.join("durations.json")).unwrap(), b"{\"a\":1}");
        cut.forget().unwrap();
        assert_eq!(fs::read_dir(ground.dir.join("aside")).unwrap().count(), 0);
    }

    #[test]
    fn stages_are_found_cut_and_removed_from_the_newest_on() {
        let dir = tempfile::tempdir().unwrap();
        let (_, ground, _) = planted(dir.path());
        let stages = ground.cache().join("stages");
        let day = std::time::Duration::from_hours(24);
        for (days, stage) in ["c", "a", "b", ".building-x"].into_iter().enumerate() {
            let node = stages.join(stage).join("node1");
            fs::create_dir_all(&node).unwrap();
            fs::write(node.join("ram"), "memory").unwrap();
            fs::write(stages.join(stage).join("stage.json"), "{}").unwrap();
            let manifest = File::open(stages.join(stage).join("stage.json")).unwrap();
            let made = SystemTime::UNIX_EPOCH + day * u32::try_from(days).unwrap();
            manifest.set_modified(made).unwrap();
        }
        let names = |target| -> Vec<String> {
            let files = ground.files(target).unwrap().into_iter();
            let below = |it: PathBuf| it.strip_prefix(&stages).unwrap().display().to_string();
            files.map(below).collect()
        };
        assert_eq!(
            names(Target::StageFile),
            ["a/node1/ram", "b/node1/ram", "c/node1/ram"]
        );
        let manifests = ["a/stage.json", "b/stage.json", "c/stage.json"];
        assert_eq!(names(Target::StageManifest), manifests);
        assert_eq!(ground.remove_newest(2).unwrap(), ["b", "a"]);
        assert_eq!(names(Target::StageManifest), ["c/stage.json"]);
    }

    #[test]
    fn what_is_locked_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (_, ground, _) = planted(dir.path());
        assert_eq!(ground.locked().unwrap(), [""; 0]);
        let locks = ground.cache().join("locks");
        fs::create_dir(&locks).unwrap();
        let lock = File::create(locks.join("stage.lock")).unwrap();
        lock.lock().unwrap();
        let _used = held(&ground.cache().join("images/i")).unwrap();
        let locked = ground.locked().unwrap();
        assert_eq!(locked.len(), 2, "{locked:?}");
        assert!(locked[0].ends_with("locks/stage.lock"), "{locked:?}");
    }
}
