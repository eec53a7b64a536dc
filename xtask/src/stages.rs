//! `cargo xtask stages`: the frozen clusters in the cache, and what they are worth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use podwire_cluster::{
    Bootstrap, Break, Cell, ClusterError, ClusterPlan, ImageFiles, PodNetwork, ProxyMode,
    StageManifest, StageName, host_cpu,
};
use podwire_images::image::{NodeImage, System};
use podwire_images::{BundleOrder, Entry, Made, Removal, Room, bundle, image};
use podwire_vm::{Accelerator, accelerator};
use serde::Serialize;

use crate::cli::StagesArgs;
use crate::parts::{self, NodeSystem, Programs};
use crate::prepare::StageOrder;
use crate::session::Session;
use crate::stop::Stop;
use crate::text::{ago, size, table};

/// The groups of the cache's entries: stages, images, layers over images, and bundles.
const STAGES: &str = "stages";
const IMAGES: &str = "images";
const LAYERS: &str = "layers";
const BUNDLES: &str = "bundles";

/// How much earlier a stage counts as used from which no scenario starts: it only saves time when
/// another is made of it.
const INTERMEDIATE: Duration = Duration::from_hours(24);

/// How much later a bundle counts as used: to build it takes ten times as long as a stage, and it
/// occupies a third.
const BUNDLE: Duration = Duration::from_hours(7 * 24);

/// A stage in the cache, as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Listed {
    /// Its folder.
    dir: PathBuf,
    /// What it occupies on disk.
    bytes: u64,
    /// When it was last used, in seconds since 1970.
    used: u64,
    in_use: bool,
    /// Whether it is being made, or was when its run was interrupted.
    unfinished: bool,
    /// What is in it; nothing when its manifest cannot be read.
    #[serde(flatten)]
    content: Option<Content>,
    /// What of it is missing or altered.
    damage: Vec<String>,
    /// What differs today from when it was made: then it is made again when it is needed.
    rebuilt_because: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Content {
    stage: StageName,
    /// The cells of which it is a stage.
    cells: Vec<Cell>,
    key: String,
    parent: Option<String>,
    nodes: u32,
    kubernetes: String,
    accelerator: Accelerator,
    #[serde(rename = "break")]
    broken: Option<Break>,
    /// In seconds since 1970.
    built: u64,
}

/// What a stage that is made now would be made of, as far as that is known.
#[derive(Debug, Clone, Default)]
struct Today {
    /// As QEMU prints its version; unknown where it is not installed.
    qemu: Option<String>,
    host_cpu: Option<String>,
    /// Unknown until it is judged.
    accelerator: Option<Accelerator>,
    /// By the name of a stage's node image: the one that the same order gives now, if it is in the
    /// cache. Unknown where it is not known what was ordered.
    images: BTreeMap<String, Option<ImageFiles>>,
}

/// The whole command.
pub(crate) fn stages(session: &Session, args: &StagesArgs) -> Result<(), Stop> {
    session.progress.phase("looking at the stages");
    let listed = list(session, args.verify);
    session.progress.idle();
    let listed = listed?;
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&listed)?);
    } else {
        out!("{}", text(&listed, SystemTime::now()));
    }
    match args.verify {
        true => remove_damaged(session, &listed),
        false => Ok(()),
    }
}

/// Removes the stages that are damaged. It is a set-up problem that there were any.
fn remove_damaged(session: &Session, listed: &[Listed]) -> Result<(), Stop> {
    let mut damaged = 0;
    let entries = session.cache.entries()?;
    for stage in listed.iter().filter(|listed| !listed.damage.is_empty()) {
        damaged += 1;
        let dir = stage.dir.display();
        // Whoever uses stages may have removed it meanwhile.
        let Some(entry) = entries.iter().find(|entry| entry.path == stage.dir) else {
            continue;
        };
        session.progress.line(&match session.cache.remove_entry(entry)? {
            Removal::Removed => format!("removed {dir}: the next run that needs it makes it again"),
            Removal::InUse => format!(
                "{dir} is in use, and stays: what its clones say cannot be trusted. Run this again \
                 when they have ended"
            ),
        });
    }
    match damaged {
        0 => {
            session.progress.line("nothing is damaged");
            Ok(())
        }
        1 => Err(Stop::setup("a stage was damaged, see above")),
        count => Err(Stop::setup(format!(
            "{count} stages were damaged, see above"
        ))),
    }
}

/// All stages; with `verify`, each file of theirs is read.
fn list(session: &Session, verify: bool) -> Result<Vec<Listed>, Stop> {
    // Whoever holds it is making a stage.
    let making = session.cache.try_lock("stage")?.is_none();
    let entries = session.cache.entries()?;
    let found: Vec<(Entry, Result<StageManifest, String>)> = entries
        .into_iter()
        .filter(|entry| entry.group == STAGES)
        .map(|mut entry| {
            entry.in_use |= making && entry.is_unfinished();
            let manifest = StageManifest::read(&entry.path).map_err(|error| match error {
                ClusterError::Stage { reason, .. } => reason,
                other => other.to_string(),
            });
            (entry, manifest)
        })
        .collect();
    let manifests = found
        .iter()
        .filter_map(|(_, manifest)| manifest.as_ref().ok());
    let images: BTreeMap<&str, &ImageFiles> = manifests
        .map(|it| (it.plan.image.as_str(), &it.image))
        .collect();
    let today = match images.is_empty() {
        true => Today::default(),
        false => Today::find(session, &images)?,
    };
    let mut listed = found
        .into_iter()
        .map(|(entry, manifest)| {
            let mut listed = Listed::of(&entry, manifest.as_ref(), &today)?;
            if let (true, false, Ok(manifest)) = (verify, listed.unfinished, &manifest) {
                listed.damage = read_all(session, &entry, manifest);
            }
            Ok(listed)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    listed.sort_by(|a, b| {
        let key = |listed: &Listed| {
            let content = listed.content.clone()?;
            Some((
                content.kubernetes,
                content.nodes,
                content.stage,
                content.built,
            ))
        };
        // What cannot be read comes last.
        (key(a).is_none(), key(a), &a.dir).cmp(&(key(b).is_none(), key(b), &b.dir))
    });
    Ok(listed)
}

/// What of a stage's content is damaged; it cannot be removed meanwhile, and does not count as used.
fn read_all(session: &Session, entry: &Entry, manifest: &StageManifest) -> Vec<String> {
    session.progress.step(&format!(
        "read {} of the stage {} ({})",
        size(entry.bytes),
        manifest.name,
        name(&entry.path)
    ));
    let held = File::open(&entry.path).and_then(|folder| folder.lock_shared().map(|()| folder));
    match held {
        Ok(_held) => manifest.damage_by_content(&entry.path),
        Err(error) => vec![error.to_string()],
    }
}

impl Today {
    fn find(session: &Session, used: &BTreeMap<&str, &ImageFiles>) -> Result<Self, Stop> {
        let qemu = Programs::find()
            .ok()
            .map(|programs| accelerator::qemu_version(&session.spawner, &programs.qemu))
            .transpose()?;
        let base = parts::cached_image(session, System::Debian, image::BASE, None)?;
        let verdict = match base.filter(|_| qemu.is_some()) {
            Some(base) => parts::known_verdict(session, &base)?,
            None => None,
        };
        let mut images = BTreeMap::new();
        for (name, files) in used {
            // An image that is gone is damage of the stage's.
            if let Some(dir) = files.kernel.parent()
                && let Ok(image) = image::open(dir)
                && let Some(now) = ordered_again(session, &image)?
            {
                images.insert((*name).to_owned(), now.as_ref().map(parts::image_files));
            }
        }
        Ok(Self {
            qemu,
            host_cpu: Some(host_cpu()?),
            accelerator: verdict.map(|verdict| verdict.accelerator),
            images,
        })
    }
}

/// The node image that the order of this one gives today, if it is in the cache; nothing when it
/// cannot be told what was ordered.
fn ordered_again(session: &Session, image: &NodeImage) -> Result<Option<Option<NodeImage>>, Stop> {
    let manifest = &image.manifest;
    let (Some(version), Some(name)) = (&manifest.kubernetes, &manifest.bundle) else {
        return Ok(None);
    };
    let workshop = session.workshop();
    let bundle = match bundle::named(&workshop, name)? {
        None => return Ok(None),
        Some(had) if !had.manifest.is_of_modules() => Some(had),
        Some(_) => {
            let root = &session.workspace.root;
            if !bundle::versions(root)?.contains(version) {
                return Ok(None);
            }
            let order = BundleOrder::modules(root, Some(version))?;
            bundle::cached(&workshop, &order)?
        }
    };
    let Some(bundle) = bundle else {
        return Ok(Some(None));
    };
    let system = NodeSystem::of_image(session, manifest)?;
    let now = parts::cached_image(session, system.system(None), image::NODE, Some(&bundle))?;
    Ok(Some(now))
}

impl Listed {
    fn of(
        entry: &Entry,
        manifest: Result<&StageManifest, &String>,
        today: &Today,
    ) -> anyhow::Result<Self> {
        let unfinished = entry.is_unfinished();
        let (content, damage, rebuilt_because) = match manifest {
            _ if unfinished => (None, None, Vec::new()),
            Err(why) => (None, Some(why.clone()), Vec::new()),
            Ok(manifest) => {
                let damage = manifest.damage(&entry.path);
                let because = differences(manifest, today)?;
                (Some(Content::of(manifest)?), damage, because)
            }
        };
        let used = entry.used.duration_since(SystemTime::UNIX_EPOCH);
        Ok(Self {
            dir: entry.path.clone(),
            bytes: entry.bytes,
            used: used.unwrap_or_default().as_secs(),
            in_use: entry.in_use,
            unfinished,
            content,
            damage: Vec::from_iter(damage),
            rebuilt_because,
        })
    }
}

impl Content {
    fn of(manifest: &StageManifest) -> anyhow::Result<Self> {
        let plan = &manifest.plan;
        Ok(Self {
            stage: manifest.name,
            cells: plan.cells_with(manifest.name)?,
            key: manifest.key.clone(),
            parent: manifest.parent.clone(),
            nodes: plan.nodes,
            kubernetes: plan.kubernetes.clone(),
            accelerator: plan.accelerator,
            broken: plan.broken,
            built: manifest.built,
        })
    }
}

/// Cells in one word: for each part what there is of it, an asterisk for all.
fn in_one_word(cells: &[Cell]) -> String {
    // The user's network has stages of its own.
    let networks = PodNetwork::ALL.len() - 1;
    let part = |all: usize, name: &dyn Fn(&Cell) -> String| {
        let mut names: Vec<String> = cells.iter().map(name).collect();
        names.sort_unstable();
        names.dedup();
        match names.len() == all {
            true => "*".to_owned(),
            false => names.join(","),
        }
    };
    [
        part(Bootstrap::ALL.len(), &|cell| cell.bootstrap.to_string()),
        part(ProxyMode::ALL.len(), &|cell| cell.proxy.to_string()),
        part(networks, &|cell| cell.network.to_string()),
    ]
    .join("/")
}

/// What would be different about the stage if it were made today. Nodes, version and fault are what
/// somebody asked for, and no difference.
fn differences(manifest: &StageManifest, today: &Today) -> anyhow::Result<Vec<String>> {
    let was = &manifest.plan;
    let mut found = Vec::new();
    let mut compare = |what: &str, was: &str, is: &str| {
        if was != is {
            found.push(format!("{what}: {is} (it was made with {was})"));
        }
    };
    if let Some(qemu) = &today.qemu {
        compare("QEMU is another", &was.qemu, qemu);
    }
    if let Some(cpu) = &today.host_cpu {
        compare("the host's processor is another", &was.host_cpu, cpu);
    }
    if let Some(accelerator) = today.accelerator {
        let (was, is) = (was.accelerator.to_string(), accelerator.to_string());
        compare("guests run differently", &was, &is);
    }
    let image = today.images.get(&was.image);
    match image {
        Some(Some(image)) => {
            compare("the node image is another", &was.image, &image.name);
            let usual = ClusterPlan::new(
                was.nodes,
                was.cell,
                &was.kubernetes,
                image,
                was.accelerator,
                &was.qemu,
                &was.host_cpu,
                was.broken,
            )?;
            if was.image == image.name {
                compare(
                    "the kernel is started otherwise",
                    &was.append,
                    &usual.append,
                );
            }
            if (usual.control_plane, usual.worker) != (was.control_plane, was.worker) {
                found.push("the machines have another size".to_owned());
            }
        }
        Some(None) => found.push(format!(
            "the node image with Kubernetes {} is another today, and not in the cache",
            was.kubernetes
        )),
        None => {}
    }
    if is_outdated(manifest)? {
        found.push("podwire makes this stage, or one before it, differently now".to_owned());
    }
    Ok(found)
}

/// Whether the same plan leads to another stage today.
fn is_outdated(manifest: &StageManifest) -> anyhow::Result<bool> {
    Ok(manifest.plan.key(manifest.name)? != manifest.key)
}

fn text(listed: &[Listed], now: SystemTime) -> String {
    if listed.is_empty() {
        return "no stages; `cargo xtask test` and `cargo xtask up` make what they need\n".into();
    }
    let heads = [
        "stage",
        "cell",
        "nodes",
        "Kubernetes",
        "guests",
        "fault",
        "on disk",
        "built",
        "used",
        "",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(listed.iter().map(|listed| listed.row(now)));
    let table = table(&rows);
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, listed) in lines.zip(listed) {
        text += &format!("{line}\n");
        for damage in &listed.damage {
            text += &format!("  damaged: {damage}\n");
        }
        for why in &listed.rebuilt_because {
            text += &format!("  {why}\n");
        }
    }
    let bytes = listed.iter().map(|listed| listed.bytes).sum();
    text += &format!(
        "{} in all; `cargo xtask clean --older-than 7d` or `--max-size 10GiB` removes what was not \
         used for long\n",
        size(bytes)
    );
    text
}

impl Listed {
    fn row(&self, now: SystemTime) -> Vec<String> {
        let since = |seconds: u64| {
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            ago(now.duration_since(then).unwrap_or_default())
        };
        let [
            mut what,
            mut cells,
            mut nodes,
            mut kubernetes,
            mut guests,
            mut fault,
            mut built,
        ] = [const { String::new() }; 7];
        if let Some(content) = &self.content {
            what = content.stage.to_string();
            cells = in_one_word(&content.cells);
            nodes = content.nodes.to_string();
            kubernetes.clone_from(&content.kubernetes);
            guests = content.accelerator.to_string();
            fault = content.broken.map(|it| it.to_string()).unwrap_or_default();
            built = since(content.built);
        } else if let Some(name) = self.dir.file_name() {
            what = name.to_string_lossy().into_owned();
        }
        let mut state = Vec::new();
        match (self.unfinished, self.in_use) {
            (true, true) => state.push("being made"),
            (true, false) => state.push("left by an interrupted run"),
            (false, true) => state.push("in use"),
            (false, false) => {}
        }
        if !self.damage.is_empty() || !self.rebuilt_because.is_empty() {
            state.push("would be made again");
        }
        vec![
            what,
            cells,
            nodes,
            kubernetes,
            guests,
            fault,
            size(self.bytes),
            built,
            since(self.used),
            state.join(", "),
        ]
    }
}

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
    podwire_scenarios::catalogue()
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
    let stages = parts::stages(session)?;
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

/// Room for so many new stages, in the unit of `guests`: each keeps about two fifths of its machines'
/// memory (measured: 7 % for booted machines, by hand 45 % with the workload, by kubeadm 62 %), the
/// last one all of it while it is being made.
pub(crate) fn disk_needed(guests: u64, stages: u64) -> u64 {
    if stages == 0 {
        return 0;
    }
    guests * 2 / 5 * stages + guests * 3 / 5
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_cluster::SealedFile;

    const HOUR: Duration = Duration::from_hours(1);

    fn files(name: &str) -> ImageFiles {
        ImageFiles {
            name: name.into(),
            disk: "/cache/images/i/disk.qcow2".into(),
            kernel: "/cache/images/i/kernel".into(),
            initrd: "/cache/images/i/initrd".into(),
            append: "root=/dev/vda".into(),
        }
    }

    fn plan() -> ClusterPlan {
        let tcg = Accelerator::Tcg;
        ClusterPlan::new(
            3,
            Cell::usual(Bootstrap::ByHand),
            "1.36.4",
            &files("image-a"),
            tcg,
            "8.2.2",
            "Some CPU",
            None,
        )
        .unwrap()
    }

    fn manifest(plan: ClusterPlan, name: StageName) -> StageManifest {
        let text = serde_json::json!({
            "name": name,
            "key": plan.key(name).unwrap(),
            "parent": null,
            "plan": plan,
            "image": files("image-a"),
            "credentials": null,
            "segment": podwire_lan::SegmentState::default(),
            "unsettled": null,
            "built": 0,
            "guest_time": 0,
            "phases": [],
            "files": {},
        });
        serde_json::from_value(text).unwrap()
    }

    fn today() -> Today {
        Today {
            qemu: Some("8.2.2".into()),
            host_cpu: Some("Some CPU".into()),
            accelerator: Some(Accelerator::Tcg),
            images: BTreeMap::from([("image-a".to_owned(), Some(files("image-a")))]),
        }
    }

    fn entry(group: &str, name: &str, hours_ago: u64) -> Entry {
        Entry {
            group: group.into(),
            path: Path::new("/cache").join(group).join(name),
            bytes: 3 << 29,
            used: SystemTime::UNIX_EPOCH + HOUR * 1000 - HOUR * u32::try_from(hours_ago).unwrap(),
            in_use: false,
        }
    }

    #[test]
    fn a_stage_of_today_s_inputs_stays_and_of_unknown_ones_too() {
        let stage = manifest(plan(), StageName::Workload);
        assert_eq!(differences(&stage, &today()).unwrap(), Vec::<String>::new());
        let unknown = Today::default();
        assert_eq!(differences(&stage, &unknown).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn whatever_differs_is_named() {
        let mut stage = manifest(plan(), StageName::Workload);
        let other = Today {
            qemu: Some("10.0.2".into()),
            host_cpu: Some("Other CPU".into()),
            accelerator: Some(Accelerator::Kvm),
            images: BTreeMap::from([("image-a".to_owned(), Some(files("image-b")))]),
        };
        insta::assert_snapshot!(differences(&stage, &other).unwrap().join("\n"), @r"
        QEMU is another: 10.0.2 (it was made with 8.2.2)
        the host's processor is another: Other CPU (it was made with Some CPU)
        guests run differently: kvm (it was made with tcg)
        the node image is another: image-b (it was made with image-a)
        ");
        let gone = Today {
            images: BTreeMap::from([("image-a".to_owned(), None)]),
            ..today()
        };
        insta::assert_snapshot!(differences(&stage, &gone).unwrap().join("\n"), @"the node image with Kubernetes 1.36.4 is another today, and not in the cache");
        stage.plan.worker.memory_mib = 512;
        stage.key = stage.plan.key(stage.name).unwrap();
        insta::assert_snapshot!(differences(&stage, &today()).unwrap().join("\n"), @"the machines have another size");
        stage.plan = plan();
        stage.key = "0123".into();
        insta::assert_snapshot!(differences(&stage, &today()).unwrap().join("\n"), @"podwire makes this stage, or one before it, differently now");
    }

    #[test]
    fn stages_are_listed_with_what_they_cost_and_what_becomes_of_them() {
        let now = SystemTime::UNIX_EPOCH + HOUR * 1000;
        let listed = |entry: Entry, manifest: Result<StageManifest, String>| {
            Listed::of(&entry, manifest.as_ref(), &today()).unwrap()
        };
        let whole = |plan, name| {
            let mut manifest = manifest(plan, name);
            let there = Path::new("/proc/version");
            let image = &mut manifest.image;
            for file in [&mut image.disk, &mut image.kernel, &mut image.initrd] {
                there.clone_into(file);
            }
            manifest.built = 3600 * 900;
            manifest
        };
        let old = ClusterPlan {
            qemu: "7.2".into(),
            broken: Some(Break::PodRange),
            ..plan()
        };
        let mut damaged = whole(plan(), StageName::Booted);
        let sealed = SealedFile {
            size: 7,
            digest: String::new(),
        };
        damaged.files.insert("control-plane/ram".into(), sealed);
        let used = Entry {
            in_use: true,
            ..entry(STAGES, "a", 2)
        };
        let all = [
            listed(used, Ok(whole(plan(), StageName::Workload))),
            listed(entry(STAGES, "b", 50), Ok(whole(old, StageName::Cni))),
            listed(entry(STAGES, "c", 3), Ok(damaged)),
            listed(
                entry(STAGES, "d", 0),
                Err("stage.json makes no sense".into()),
            ),
            listed(
                entry(STAGES, ".building-e", 0),
                Err("no stage.json yet".into()),
            ),
        ];
        insta::assert_snapshot!(text(&all, now), @"
        stage        cell                     nodes  Kubernetes  guests  fault      on disk  built       used
        workload     by-hand/nftables/routes  3      1.36.4      tcg                1.5 GiB  4 days ago  2 h 0 min ago  in use
        cni          by-hand/nftables/routes  3      1.36.4      tcg     pod-range  1.5 GiB  4 days ago  2 days ago     would be made again
          QEMU is another: 8.2.2 (it was made with 7.2)
        booted       */*/*                    3      1.36.4      tcg                1.5 GiB  4 days ago  3 h 0 min ago  would be made again
          damaged: control-plane/ram: No such file or directory (os error 2)
        d                                                                           1.5 GiB              1 s ago        would be made again
          damaged: stage.json makes no sense
        .building-e                                                                 1.5 GiB              1 s ago        left by an interrupted run
        7.5 GiB in all; `cargo xtask clean --older-than 7d` or `--max-size 10GiB` removes what was not used for long
        ");
        let json = serde_json::to_value(&all[1]).unwrap();
        assert_eq!(json["stage"], "cni");
        assert_eq!(json["break"], "pod-range");
        assert_eq!(json["used"], 3600 * 950);
        assert!(json["rebuilt_because"][0].as_str().unwrap().contains("7.2"));
        assert!(text(&[], now).starts_with("no stages"));
    }

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
            let mut manifest = manifest(plan(), stage);
            if outdated {
                manifest.key = "0123".into();
            }
            let text = serde_json::to_vec(&manifest).unwrap();
            std::fs::write(path.join("stage.json"), text).unwrap();
            entries.push(Entry {
                path,
                ..entry(STAGES, name, 10)
            });
        }
        entries.push(entry(IMAGES, "i", 12));
        entries.push(entry(IMAGES, "j", 12));
        entries.push(entry(BUNDLES, "b", 100));
        let worth = Worth::of(&entries, &BTreeSet::from([StageName::Workload]));
        let mut order: Vec<&Entry> = entries.iter().collect();
        order.sort_by_key(|entry| worth.counts_as_used(entry));
        let order: Vec<String> = order.iter().map(|entry| name(&entry.path)).collect();
        assert_eq!(order, ["outdated", "intermediate", "j", "start", "i", "b"]);
    }

    #[test]
    fn nothing_to_make_needs_no_room() {
        assert_eq!(disk_needed(4 << 30, 0), 0);
        assert_eq!(disk_needed(5 << 30, 1), 5 << 30);
        assert_eq!(disk_needed(5 << 30, 2), 7 << 30);
    }
}
