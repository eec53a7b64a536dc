//! What gives way in the cache when space is needed, and for what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use podwire_cluster::{StageManifest, StageName};
use podwire_images::{Entry, Made, Room};

use crate::command::session::Session;
use crate::plan::capacity::disk_needed;
use crate::prepare::stage_cache::{self, STAGES, is_outdated};
use crate::prepare::wanted::StageOrder;
use crate::say::stop::Stop;
use crate::say::text::{ago, name, size};

/// Groups of the cache's entries: images, layers over images, and bundles.
const IMAGES: &str = "images";
const LAYERS: &str = "layers";
const BUNDLES: &str = "bundles";

/// How much earlier a stage counts as used from which no scenario starts: it only saves time when
/// another is made of it.
const INTERMEDIATE: Duration = Duration::from_hours(24);

/// How much later a bundle counts as used: to build it takes ten times as long as a stage, and it
/// occupies a third.
const BUNDLE: Duration = Duration::from_hours(7 * 24);

/// What the stages in the cache tell about what is worth keeping when space is needed.
#[derive(Debug, Default)]
pub(crate) struct Worth {
    /// By their folders.
    stages: BTreeMap<PathBuf, Value>,
    /// When a stage on it was last used, by the image's folder.
    images: BTreeMap<PathBuf, SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// Scenarios start from it.
    Start,
    /// It is only good for making others of it.
    Intermediate,
    /// Nothing that is made today is like it, or it cannot be read.
    None,
}

impl Worth {
    /// Of the entries of a cache; `starts` are the stages that scenarios start from.
    pub(crate) fn of(entries: &[Entry], starts: &BTreeSet<StageName>) -> Self {
        let mut worth = Self::default();
        for entry in entries.iter().filter(|entry| entry.group == STAGES) {
            let manifest = StageManifest::read(&entry.path).ok();
            let manifest = manifest.filter(|it| is_outdated(it).is_ok_and(|outdated| !outdated));
            let value = match &manifest {
                None => Value::None,
                Some(it) if starts.contains(&it.name) => Value::Start,
                Some(_) => Value::Intermediate,
            };
            worth.stages.insert(entry.path.clone(), value);
            // A layer's disk is based on that of the image, where the kernel is.
            let image = manifest
                .as_ref()
                .map(|it| [&it.image.disk, &it.image.kernel]);
            for folder in image.into_iter().flatten().filter_map(|file| file.parent()) {
                let used = worth.images.entry(folder.to_owned()).or_insert(entry.used);
                *used = entry.used.max(*used);
            }
        }
        worth
    }

    /// When something counts as last used, see [`Room::counts_as_used`].
    pub(crate) fn counts_as_used(&self, entry: &Entry) -> SystemTime {
        let early = SystemTime::UNIX_EPOCH;
        match entry.group.as_str() {
            STAGES => match self.stages.get(&entry.path) {
                Some(Value::Start) | None => entry.used,
                Some(Value::Intermediate) => entry.used.checked_sub(INTERMEDIATE).unwrap_or(early),
                Some(Value::None) => early,
            },
            // Without its image a stage is worth nothing: it goes first.
            IMAGES | LAYERS => match self.images.get(&entry.path) {
                Some(used) => entry.used.max(*used + Duration::from_secs(1)),
                None => entry.used,
            },
            BUNDLES => entry.used + BUNDLE,
            _ => entry.used,
        }
    }
}

/// The stages that scenarios start from.
pub(crate) fn starts() -> BTreeSet<StageName> {
    podwire_scenarios::all()
        .iter()
        .map(|scenario| scenario.stage)
        .collect()
}

/// Makes room in the cache for the stages that are still to be made, within `max_size` bytes or
/// what [`podwire_images::Cache::budget`] gives, and says what goes. What is made of a stage of this
/// plan keeps it.
pub(crate) fn make_room(
    session: &Session,
    max_size: Option<u64>,
    orders: &[StageOrder],
) -> Result<(), Stop> {
    let stages = stage_cache::stages(session)?;
    let mut keep = Vec::new();
    let mut missing = BTreeSet::new();
    for StageOrder { plan, names } in orders {
        for name in names {
            for name in name.line(plan.cell).iter().rev() {
                let dir = stages.dir(plan, *name)?;
                if dir.exists() {
                    keep.push(dir);
                    break;
                }
                missing.insert(dir);
            }
        }
    }
    let guests = orders.iter().map(|order| order.plan.memory_mib()).max();
    let guests = guests.unwrap_or_default() << 20;
    let entries = session.cache.entries()?;
    let worth = Worth::of(&entries, &starts());
    let room = Room {
        budget: session.cache.budget(max_size, &entries)?,
        needed: disk_needed(guests, missing.len() as u64),
        keep: &keep,
        counts_as_used: &|entry| worth.counts_as_used(entry),
    };
    let made = session.cache.make_room(&room, &session.progress)?;
    say_removed(session, &made);
    if max_size.is_some() && made.too_much > 0 {
        session.progress.line(&format!(
            "the cache will be about {} larger than --max-size: what is left in it is in use or \
             needed by this run",
            size(made.too_much)
        ));
    }
    if !missing.is_empty() {
        // The one that is being made occupies all of its machines' memory until it is frozen.
        session.cache.require(guests)?;
    }
    Ok(())
}

/// What there must be on the disk before a run begins.
pub(crate) struct Demand<'a> {
    /// Bytes.
    pub(crate) needed: u64,
    /// The stages that the run is going to use.
    pub(crate) uses: &'a [PathBuf],
}

impl Demand<'_> {
    /// Bytes that give way because less is free than needed: of stages that are of no use to the run.
    pub(crate) fn giving_way(&self, session: &Session) -> Result<u64, Stop> {
        if session.cache.disk()?.available >= self.needed {
            return Ok(0);
        }
        let entries = session.cache.entries()?;
        let free = |entry: &&Entry| {
            entry.group == STAGES
                && entry.is_evictable()
                && !entry.in_use
                && !self.uses.contains(&entry.path)
        };
        Ok(entries.iter().filter(free).map(|entry| entry.bytes).sum())
    }

    /// Removes so many of them that what is needed is free, and says which.
    pub(crate) fn make_room(&self, session: &Session) -> Result<(), Stop> {
        let available = session.cache.disk()?.available;
        if available >= self.needed {
            return Ok(());
        }
        let entries = session.cache.entries()?;
        let others = entries.iter().filter(|entry| entry.group != STAGES);
        let keep: Vec<PathBuf> = others
            .map(|entry| entry.path.clone())
            .chain(self.uses.iter().cloned())
            .collect();
        let worth = Worth::of(&entries, &starts());
        let occupied: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let room = Room {
            budget: occupied + available,
            needed: self.needed,
            keep: &keep,
            counts_as_used: &|entry| worth.counts_as_used(entry),
        };
        say_removed(session, &session.cache.make_room(&room, &session.progress)?);
        Ok(())
    }
}

fn say_removed(session: &Session, made: &Made) {
    for entry in &made.removed {
        let unused = entry.used.elapsed().unwrap_or_default();
        session.progress.line(&format!(
            "made room: removed {} of {} ({}, last used {})",
            name(&entry.path),
            entry.group,
            size(entry.bytes),
            ago(unused)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::fixture::{cache_entry, cluster_plan, stage_manifest};

    #[test]
    fn what_is_worth_less_goes_first_and_an_image_after_its_stages() {
        let dir = tempfile::tempdir().unwrap();
        let mut entries = Vec::new();
        for (name, stage, outdated) in [
            ("start", StageName::Workload, false),
            ("intermediate", StageName::Joined, false),
            ("outdated", StageName::Workload, true),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let mut manifest = stage_manifest(cluster_plan(), stage);
            if outdated {
                manifest.key = "0123".into();
            }
            let text = serde_json::to_vec(&manifest).unwrap();
            std::fs::write(path.join("stage.json"), text).unwrap();
            entries.push(Entry {
                path,
                ..cache_entry(STAGES, name, 10)
            });
        }
        entries.push(cache_entry(IMAGES, "i", 12));
        entries.push(cache_entry(IMAGES, "j", 12));
        entries.push(cache_entry(BUNDLES, "b", 100));
        let worth = Worth::of(&entries, &BTreeSet::from([StageName::Workload]));
        let mut order: Vec<&Entry> = entries.iter().collect();
        order.sort_by_key(|entry| worth.counts_as_used(entry));
        let order: Vec<String> = order.iter().map(|entry| name(&entry.path)).collect();
        assert_eq!(order, ["outdated", "intermediate", "j", "start", "i", "b"]);
    }
}
