//! Room: what occupies the cache, what goes when space is needed, and whether there is enough of it.

use std::cmp::Reverse;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytesize::ByteSize;
use podwire_process::{Report, held_alone};

use super::{Aside, Cache, CacheError, SEAL, TEMPORARY, USED, children, file_name};

/// What podwire keeps in the cache folder and may be removed.
const GROUPS: [Group; 18] = [
    Group::evicted("tools"),
    Group::evicted("bundles"),
    Group::evicted("images"),
    Group::evicted("layers"),
    Group::evicted("downloads"),
    Group::evicted(PARTIAL),
    Group::evicted("pulled"),
    Group::evicted(STAGES),
    Group {
        each_child: false,
        ..Group::evicted("go")
    },
    Group {
        gives_way: false,
        ..Group::evicted(TEMPORARY)
    },
    Group::small("advisory-dbs"),
    Group::small("build"),
    Group::small("durations.json"),
    Group::small("keys"),
    Group::small("logs"),
    Group::small("pulled-images.json"),
    Group::small("requests"),
    Group::small("verdicts.json"),
];

/// A file or folder right in the cache folder.
#[derive(Debug, Clone, Copy)]
struct Group {
    name: &'static str,
    /// Whether each child is an entry of its own.
    each_child: bool,
    /// Whether it gives way when space is needed.
    gives_way: bool,
}

impl Group {
    /// Large things that can be made again one by one.
    const fn evicted(name: &'static str) -> Self {
        Self {
            name,
            each_child: true,
            gives_way: true,
        }
    }

    /// Of no size, or dear to make again.
    const fn small(name: &'static str) -> Self {
        Self {
            name,
            each_child: false,
            gives_way: false,
        }
    }

    fn named(name: &str) -> Option<Self> {
        GROUPS.into_iter().find(|group| group.name == name)
    }
}

/// The folder of downloads that were cut short and can be resumed.
pub(crate) const PARTIAL: &str = "partial-downloads";

const STAGES: &str = "stages";

/// The file that a stage's folder gets last.
const STAGE_MANIFEST: &str = "stage.json";

/// How the names of folders begin in which stages are being made.
const UNFINISHED: &str = ".building-";

/// Something in the cache that can be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The top-level folder: `images`, `bundles`, `stages`, `go`, ...
    pub group: String,
    /// The file or folder itself.
    pub path: PathBuf,
    /// Bytes that it occupies on disk; a file with holes counts what is allocated.
    pub bytes: u64,
    /// When it was last used, or else made.
    pub used: SystemTime,
    /// Whether a process has it in use, as far as that shows; see [`Cache::hold`].
    pub in_use: bool,
}

impl Entry {
    /// Whether it may give way when space is needed: it is large, and can be made again.
    pub fn is_evictable(&self) -> bool {
        Group::named(&self.group).is_some_and(|group| group.gives_way) && !self.is_unfinished()
    }

    /// Whether it is no more than what an interrupted build has left, or is being built just now.
    pub fn is_unfinished(&self) -> bool {
        self.group == TEMPORARY
            || self.group == STAGES && file_name(&self.path).starts_with(UNFINISHED)
    }
}

/// What became of an entry that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// A process has it in use; it is untouched.
    InUse,
}

/// How much room is wanted, and at whose cost.
pub struct Room<'a> {
    /// Bytes that the whole cache may occupy; see [`Cache::budget`].
    pub budget: u64,
    /// Bytes that are about to be written, and must fit in as well.
    pub needed: u64,
    /// What is needed now although nobody holds it yet.
    pub keep: &'a [PathBuf],
    /// When an entry counts as last used: [`Entry::used`], or earlier for what is worth less. The
    /// earliest goes first.
    pub counts_as_used: &'a dyn Fn(&Entry) -> SystemTime,
}

/// What making room gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What went, in this order.
    pub removed: Vec<Entry>,
    /// Bytes that the cache still occupies.
    pub occupied: u64,
    /// Bytes by which it is still too large, since all the rest is in use or needed.
    pub too_much: u64,
}

/// Which of the entries have to go, the first first, so that the rest and what is needed fit into
/// the budget. What is in use, unfinished, to be kept, or small does not go.
pub fn victims(entries: &[Entry], room: &Room<'_>) -> Vec<Entry> {
    let mut occupied: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let limit = room.budget.saturating_sub(room.needed);
    let mut candidates: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.is_evictable() && !entry.in_use && !room.keep.contains(&entry.path))
        .collect();
    candidates.sort_by_key(|entry| ((room.counts_as_used)(entry), Reverse(entry.bytes)));
    candidates
        .into_iter()
        .take_while(|entry| {
            let over = occupied > limit;
            occupied = occupied.saturating_sub(entry.bytes);
            over
        })
        .cloned()
        .collect()
}

impl Cache {
    /// Everything of podwire's in the cache that can be removed, largest first. Lock files are not
    /// among it: two processes that do not see the same one are not kept apart by it.
    ///
    /// # Errors
    /// [`CacheError::Io`] when a folder cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let mut entries = Vec::new();
        for path in children(self.root())? {
            // The folder may have other uses, which are nobody's business here.
            let Some(group) = Group::named(&file_name(&path)) else {
                continue;
            };
            let below = match group.each_child {
                true => children(&path)?,
                false => vec![path],
            };
            entries.extend(below.into_iter().filter_map(|path| {
                Some(Entry {
                    group: group.name.to_owned(),
                    bytes: allocated(&path),
                    used: last_used(&path)?,
                    in_use: is_locked(&path),
                    path,
                })
            }));
        }
        entries.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        Ok(entries)
    }

    /// Removes one entry unless it is in use: first out of its place in one step, so that no other
    /// process can pick up half of it.
    ///
    /// # Errors
    /// [`CacheError::Io`] with the path that could not be removed, for example for what an
    /// interrupted `sudo` step left behind.
    pub fn remove_entry(&self, entry: &Entry) -> Result<Removal, CacheError> {
        let placing = self.placing()?;
        let alone = match held_alone(&entry.path) {
            Ok(Some(alone)) => Some(alone),
            Ok(None) => return Ok(Removal::InUse),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removal::Removed),
            // Not this user's: nobody can have locked it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(CacheError::io("hold", &entry.path)(error)),
        };
        let aside = self.set_aside(&entry.path)?;
        drop(placing);
        aside.map_or(Ok(()), Aside::remove)?;
        // Until here nobody else could take it for his own.
        drop(alone);
        Ok(Removal::Removed)
    }

    /// Bytes that the cache may occupy: what was asked for, or what its entries occupy and what is free
    /// on its file system, less a twentieth of that file system (2 GiB at least, 20 at most) which
    /// stays free for others.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the file system cannot be measured.
    pub fn budget(&self, asked: Option<u64>, entries: &[Entry]) -> Result<u64, CacheError> {
        if let Some(asked) = asked {
            return Ok(asked);
        }
        let disk = self.disk()?;
        let occupied: u64 = entries.iter().map(|entry| entry.bytes).sum();
        Ok((occupied + disk.available).saturating_sub(reserve(disk.total)))
    }

    /// Makes room: what was not used for longest goes first, as far as it is neither in use nor to
    /// be kept. That even this does not suffice is no error, see [`Made::too_much`].
    ///
    /// # Errors
    /// [`CacheError::Io`] when something cannot be listed or removed.
    pub fn make_room(&self, room: &Room<'_>, report: &dyn Report) -> Result<Made, CacheError> {
        // Two who measure at once would both remove what suffices for one.
        let _lock = self.lock("room", report)?;
        report.step("look at what the cache occupies");
        self.sweep()?;
        let mut entries = self.entries()?;
        let mut removed = Vec::new();
        while let Some(victim) = victims(&entries, room).into_iter().next() {
            // Hundreds of thousands of files may be in it.
            report.step(&format!(
                "make room: remove {} of {}, {}",
                file_name(&victim.path),
                victim.group,
                ByteSize(victim.bytes)
            ));
            let gone = self.remove_entry(&victim)? == Removal::Removed;
            if gone {
                entries.retain(|entry| *entry != victim);
                removed.push(victim);
            } else {
                for entry in entries.iter_mut().filter(|entry| **entry == victim) {
                    entry.in_use = true;
                }
            }
        }
        let occupied = entries.iter().map(|entry| entry.bytes).sum();
        Ok(Made {
            removed,
            occupied,
            too_much: (occupied + room.needed).saturating_sub(room.budget),
        })
    }

    /// Refuses to begin with what will not fit on the disk.
    ///
    /// # Errors
    /// [`CacheError::NoSpace`] with both numbers; [`CacheError::Io`] when the file system cannot be
    /// measured.
    pub fn require(&self, bytes: u64) -> Result<(), CacheError> {
        let available = self.disk()?.available;
        if available >= bytes {
            return Ok(());
        }
        Err(CacheError::NoSpace {
            path: self.root().to_owned(),
            needed: ByteSize(bytes),
            available: ByteSize(available),
        })
    }
}

/// What stays free on a file system of that size.
fn reserve(total: u64) -> u64 {
    (total / 20).clamp(2 << 30, 20 << 30)
}

/// When something was last used: noted, or when it was finished; nothing when it has just gone.
fn last_used(path: &Path) -> Option<SystemTime> {
    [USED, SEAL, STAGE_MANIFEST]
        .iter()
        .map(|name| fs::symlink_metadata(path.join(name)))
        .find_map(Result::ok)
        .or_else(|| fs::symlink_metadata(path).ok())?
        .modified()
        .ok()
}

/// Whether somebody has a lock on it. Whoever takes a shared one waits for the moment that this takes.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Bytes that a tree occupies on disk, as far as it can be looked at: others may be at work in it,
/// and an interrupted step may have left what only root can read.
pub fn allocated(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    own + below.map(|entry| allocated(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests_support::Silent;
    use crate::test_host::Heard;
    use crate::{Check, Found, Kind};
    use proptest::prelude::*;
    use std::fs::FileTimes;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    fn at(hours_ago: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(100_000 - hours_ago)
    }

    /// A megabyte that somebody else's run made and used.
    fn stage(cache: &Cache, name: &str, hours_ago: u64) -> PathBuf {
        let path = cache.folder("stages").unwrap().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("ram"), vec![1; 1 << 20]).unwrap();
        let used = File::create(path.join(USED)).unwrap();
        used.set_times(FileTimes::new().set_modified(at(hours_ago)))
            .unwrap();
        path
    }

    fn plain(entry: &Entry) -> SystemTime {
        entry.used
    }

    fn room(budget: u64) -> Room<'static> {
        Room {
            budget,
            needed: 0,
            keep: &[],
            counts_as_used: &plain,
        }
    }

    fn names(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| file_name(&entry.path)).collect()
    }

    /// Another process that has a shared lock on a folder; util-linux's flock(1).
    fn holder(folder: &Path) -> Child {
        let mut child = Command::new("flock")
            .args(["--shared", "--no-fork"])
            .arg(folder)
            .args(["sh", "-c", "echo held; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(&said, b"held\n");
        child
    }

    /// Waits until nobody uses an entry. A process that another of these tests starts has all that is
    /// open here, locks too, until it has become its program (execve(2)).
    fn until_free(look: impl Fn() -> Entry) {
        let started = Instant::now();
        while look().in_use {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "it stays in use"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn entries_are_what_podwire_has_made_with_what_it_occupies() {
        let (_dir, cache) = cache();
        stage(&cache, "a", 5);
        let sparse = cache.folder("go").unwrap().join("sparse");
        File::create(&sparse).unwrap().set_len(1 << 30).unwrap();
        cache.folder("Documents").unwrap();
        cache.lock("image", &Silent).unwrap();
        let entries = cache.entries().unwrap();
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| (entry.group.as_str(), entry.bytes >> 20, entry.in_use))
            .collect();
        assert_eq!(shown, [("stages", 1, false), ("go", 0, false)]);
        assert_eq!(entries[0].used, at(5));
    }

    #[test]
    fn the_least_recently_used_goes_first_and_only_as_much_as_needed() {
        let (_dir, cache) = cache();
        for (name, hours) in [("old", 9), ("older", 10), ("new", 1), ("newer", 0)] {
            stage(&cache, name, hours);
        }
        let whole: u64 = cache
            .entries()
            .unwrap()
            .iter()
            .map(|entry| entry.bytes)
            .sum();
        let made = cache.make_room(&room(whole), &Silent).unwrap();
        assert_eq!((made.removed.len(), made.occupied), (0, whole));
        let heard = Heard::default();
        let made = cache.make_room(&room(whole - (1 << 20)), &heard).unwrap();
        assert_eq!(names(&made.removed), ["older"]);
        // It may take minutes.
        let told = heard.0.into_inner();
        assert!(
            told.iter()
                .any(|text| text.contains("remove older of stages")),
            "{told:?}"
        );
        // What is about to be written has to fit in too.
        let wanted = Room {
            needed: 1 << 20,
            ..room(made.occupied)
        };
        let made = cache.make_room(&wanted, &Silent).unwrap();
        assert_eq!(
            (names(&made.removed), made.too_much),
            (vec!["old".to_owned()], 0)
        );
        assert_eq!(children(&cache.root().join(TEMPORARY)).unwrap().len(), 0);
    }

    #[test]
    fn what_is_in_use_needed_or_small_stays_and_the_rest_is_told() {
        let (_dir, cache) = cache();
        let held = stage(&cache, "held", 9);
        let kept = stage(&cache, "kept", 8);
        let building = stage(&cache, ".building-x", 7);
        let keys = cache.ssh_keys(&Silent).unwrap().user;
        let mut child = holder(&held);
        let keep = [kept.clone()];
        let none = Room {
            keep: &keep,
            ..room(0)
        };
        let made = cache.make_room(&none, &Silent).unwrap();
        assert_eq!(made.removed, []);
        assert!(made.too_much == made.occupied && made.occupied > 3 << 20);
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel has released it.
        let made = cache.make_room(&none, &Silent).unwrap();
        assert_eq!(names(&made.removed), ["held"]);
        assert!(!held.exists() && kept.exists() && building.exists() && keys.exists());
    }

    #[test]
    fn what_counts_as_older_goes_first() {
        let (_dir, cache) = cache();
        let intermediate = stage(&cache, "intermediate", 1);
        stage(&cache, "wanted", 2);
        let earlier = |entry: &Entry| {
            if entry.path == intermediate {
                entry.used - Duration::from_hours(24)
            } else {
                entry.used
            }
        };
        let entries = cache.entries().unwrap();
        let first = |counts_as_used: &dyn Fn(&Entry) -> SystemTime| {
            let one = entries.iter().map(|entry| entry.bytes).sum::<u64>() - 1;
            names(&victims(
                &entries,
                &Room {
                    counts_as_used,
                    ..room(one)
                },
            ))
        };
        assert_eq!(first(&plain), ["wanted"]);
        assert_eq!(first(&earlier), ["intermediate"]);
    }

    #[test]
    fn the_logs_of_a_build_at_work_stay() {
        let (_dir, cache) = cache();
        fs::write(cache.log("bundle.log").unwrap(), "building").unwrap();
        let other = Cache::at(cache.root()).unwrap();
        let logs = |cache: &Cache| {
            let mut entries = cache.entries().unwrap().into_iter();
            entries.find(|entry| entry.group == "logs").unwrap()
        };
        assert!(logs(&other).in_use);
        assert_eq!(other.remove_entry(&logs(&other)).unwrap(), Removal::InUse);
        drop(cache);
        until_free(|| logs(&other));
        assert_eq!(other.remove_entry(&logs(&other)).unwrap(), Removal::Removed);
    }

    #[test]
    fn what_was_found_is_in_use_as_long_as_its_cache_lives() {
        let (dir, cache) = cache();
        let staging = cache.staging("bundle").unwrap();
        fs::write(staging.path().join("kubelet"), vec![1; 1 << 20]).unwrap();
        let path = cache.publish(Kind::Bundle, "k", staging).unwrap();
        let other = Cache::at(cache.root()).unwrap();
        let bundle = |cache: &Cache| cache.entries().unwrap().remove(0);
        assert!(bundle(&other).in_use);
        assert_eq!(other.remove_entry(&bundle(&other)).unwrap(), Removal::InUse);
        let used = File::create(path.join(USED)).unwrap();
        used.set_times(FileTimes::new().set_modified(at(5)))
            .unwrap();
        let clone = cache.clone();
        drop(cache);
        assert!(bundle(&other).in_use);
        drop(clone);
        until_free(|| bundle(&other));
        let found = other.find(Kind::Bundle, "k", Check::Contents).unwrap();
        assert_eq!(found, Found::Intact(path));
        assert!(bundle(&other).in_use);
        assert!(bundle(&other).used > at(5));
        drop(other);
        let last = Cache::at(&dir.path().join("cache")).unwrap();
        until_free(|| bundle(&last));
        assert_eq!(last.make_room(&room(0), &Silent).unwrap().removed.len(), 1);
        let found = last.find(Kind::Bundle, "k", Check::Sizes).unwrap();
        assert_eq!(found, Found::Absent);
    }

    #[test]
    fn what_has_come_to_the_place_of_what_was_to_go_stays() {
        let (_dir, cache) = cache();
        let place = stage(&cache, "made", 5);
        let entry = cache.entries().unwrap().remove(0);
        let placing = cache.placing().unwrap();
        let other = cache.clone();
        let removing = std::thread::spawn(move || other.remove_entry(&entry).unwrap());
        // One that begins only later finds what is there then: nothing is shown, nothing fails.
        std::thread::sleep(Duration::from_millis(200));
        fs::rename(&place, cache.root().join("old")).unwrap();
        stage(&cache, "made", 0);
        assert!(cache.hold(&place).unwrap());
        drop(placing);
        assert_eq!(removing.join().unwrap(), Removal::InUse);
        assert!(place.exists());
    }

    #[test]
    fn what_a_killed_removal_left_goes_with_the_next() {
        let (_dir, cache) = cache();
        let left = cache.root().join(TEMPORARY).join("removed-stage-1-0");
        fs::create_dir(&left).unwrap();
        cache.make_room(&room(u64::MAX), &Silent).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn too_little_space_is_an_error_with_both_numbers() {
        let (_dir, cache) = cache();
        cache.require(1).unwrap();
        let error = cache.require(5 << 60).unwrap_err().to_string();
        assert!(error.contains(": 5.0 EiB needed, "), "{error}");
        assert!(error.contains("cargo xtask clean"), "{error}");
    }

    #[test]
    fn a_part_of_the_disk_stays_free() {
        let (_dir, cache) = cache();
        assert_eq!(cache.budget(Some(7), &[]).unwrap(), 7);
        let disk = cache.disk().unwrap();
        let empty = cache.budget(None, &[]).unwrap();
        let expected = disk.available.saturating_sub(reserve(disk.total));
        // Others write to the disk meanwhile.
        assert!(empty.abs_diff(expected) < 1 << 30, "{empty} {expected}");
        let gib = |total: u64| reserve(total << 30) >> 30;
        assert_eq!([10, 100, 1000].map(gib), [2, 5, 20]);
    }

    proptest! {
        /// Never more than needed, never too little while something may go, never the newer first.
        #[test]
        fn victims_suffice_and_are_the_oldest(
            facts in proptest::collection::vec((1_u64..50, 0_u64..20, 0_usize..7, any::<bool>()), 0..12),
            budget in 0_u64..200,
            needed in 0_u64..50,
        ) {
            let groups = ["tools", "bundles", "images", "stages", "go", "keys", "tmp"];
            let entries: Vec<Entry> = facts
                .iter()
                .enumerate()
                .map(|(index, (bytes, hours, group, in_use))| Entry {
                    group: groups[*group].to_owned(),
                    path: format!("{index}").into(),
                    bytes: *bytes,
                    used: at(*hours),
                    in_use: *in_use,
                })
                .collect();
            let room = Room { needed, ..room(budget) };
            let gone = victims(&entries, &room);
            let (left, may_go): (Vec<&Entry>, Vec<&Entry>) = {
                let left: Vec<&Entry> = entries.iter().filter(|entry| !gone.contains(entry)).collect();
                let may = |entry: &&Entry| !entry.in_use && entry.is_evictable();
                let may_go = left.iter().copied().filter(may).collect();
                (left, may_go)
            };
            let bytes = |entries: &[&Entry]| entries.iter().map(|entry| entry.bytes).sum::<u64>();
            let limit = budget.saturating_sub(needed);
            prop_assert!(gone.iter().all(|entry| !entry.in_use));
            prop_assert!(bytes(&left) <= limit || may_go.is_empty());
            if let Some(last) = gone.last() {
                prop_assert!(bytes(&left) + last.bytes > limit);
                prop_assert!(may_go.iter().all(|entry| entry.used >= last.used));
            }
        }
    }
}
