//! `cargo xtask stages`: the frozen clusters in the cache.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use podwire_cluster::{
    Bootstrap, Break, Cell, ClusterError, ClusterPlan, Configurations, ImageFiles, NodeTree,
    PodNetwork, ProxyMode, StageManifest, StageName, host_cpu,
};
use podwire_images::image::NodeImage;
use podwire_images::{Bundle, BundleOrder, Entry, Removal, bundle, image};
use podwire_process::held;
use podwire_vm::{Accelerator, accelerator};
use serde::Serialize;

use crate::command::cli::house::StagesArgs;
use crate::command::session::Session;
use crate::prepare::machine::{self, Programs};
use crate::prepare::parts::{self, NodeSystem};
use crate::prepare::stage_cache::{STAGES, is_outdated};
use crate::say::stop::Stop;
use crate::say::text::{ago, name, size, table};

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
    /// Whether another version of podwire has made it, and this one cannot say what it is.
    other_version: bool,
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
    /// Digest of the user's files over its nodes', where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_files: Option<String>,
    /// Digest of the user's configurations of components, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    configurations: Option<String>,
    /// Whether it is by hand and was made for a DNS of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cluster_dns: bool,
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
    let found: Vec<(Entry, Result<StageManifest, ClusterError>)> = entries
        .into_iter()
        .filter(|entry| entry.group == STAGES)
        .map(|mut entry| {
            entry.in_use |= making && entry.is_unfinished();
            let manifest = StageManifest::read(&entry.path);
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
    match held(&entry.path) {
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
        let base = parts::cached_base(session)?;
        let verdict = match base.filter(|_| qemu.is_some()) {
            Some(base) => machine::known_verdict(session, &base)?,
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

/// What the order of a bundle gives today.
enum Known {
    /// It cannot be told: its version is pinned no more.
    Unknown,
    /// This, if it is in the cache.
    Now(Option<Bundle>),
}

/// The node image that the order of this one gives today, if it is in the cache; nothing when it
/// cannot be told what was ordered.
fn ordered_again(session: &Session, image: &NodeImage) -> Result<Option<Option<NodeImage>>, Stop> {
    let manifest = &image.manifest;
    // Nobody knows where the user's kernel is now.
    let (Some(name), None) = (&manifest.bundle, &manifest.kernel) else {
        return Ok(None);
    };
    let workshop = session.workshop();
    let had = |name: &str| bundle::named(&workshop, name);
    let (first, newer) = (
        had(name)?,
        manifest.upgrade.as_deref().map(had).transpose()?,
    );
    let (Some(first), true) = (first, newer.as_ref().is_none_or(Option::is_some)) else {
        return Ok(None);
    };
    let root = &session.workspace.root;
    let known = bundle::versions(root)?;
    let again = |had: Bundle| -> Result<Known, Stop> {
        let version = &had.manifest.kubernetes;
        Ok(match had.manifest.is_of_modules() {
            false => Known::Now(Some(had)),
            true if !known.contains(version) => Known::Unknown,
            true => {
                let order = BundleOrder::modules(root, Some(version))?;
                Known::Now(bundle::cached(&workshop, &order)?)
            }
        })
    };
    let mut bundle = match again(first)? {
        Known::Unknown => return Ok(None),
        Known::Now(None) => return Ok(Some(None)),
        Known::Now(Some(bundle)) => bundle,
    };
    if let Some(newer) = newer.flatten() {
        bundle = match again(newer)? {
            Known::Unknown => return Ok(None),
            Known::Now(None) => return Ok(Some(None)),
            Known::Now(Some(newer)) => bundle.upgraded_to(newer),
        };
    }
    let system = NodeSystem::of_image(session, manifest)?;
    Ok(Some(parts::cached_node(session, &system, &bundle)?))
}

impl Listed {
    fn of(
        entry: &Entry,
        manifest: Result<&StageManifest, &ClusterError>,
        today: &Today,
    ) -> anyhow::Result<Self> {
        let unfinished = entry.is_unfinished();
        let (content, damage, rebuilt_because) = match manifest {
            _ if unfinished => (None, None, Vec::new()),
            Err(ClusterError::OtherVersion { .. }) => (None, None, Vec::new()),
            Err(ClusterError::Stage { reason, .. }) => (None, Some(reason.clone()), Vec::new()),
            Err(other) => (None, Some(other.to_string()), Vec::new()),
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
            other_version: !unfinished
                && matches!(manifest, Err(ClusterError::OtherVersion { .. })),
            content,
            damage: Vec::from_iter(damage),
            rebuilt_because,
        })
    }
}

impl Content {
    fn of(manifest: &StageManifest) -> anyhow::Result<Self> {
        let plan = &manifest.plan;
        // A stage from before the kubelets, or of kubeadm, is the same without.
        let without_dns = plan.clone().with_cluster_dns(false).key(manifest.name)?;
        Ok(Self {
            stage: manifest.name,
            cells: plan.cells_with(manifest.name)?,
            key: manifest.key.clone(),
            parent: manifest.parent.clone(),
            nodes: plan.nodes,
            kubernetes: plan.kubernetes.clone(),
            accelerator: plan.accelerator,
            broken: plan.broken,
            node_files: plan.node_tree.as_ref().map(NodeTree::digest),
            configurations: Some(&plan.configurations)
                .filter(|it| !it.is_empty())
                .map(Configurations::digest),
            cluster_dns: manifest.key != without_dns && plan.cluster_dns,
            built: manifest.built,
        })
    }
}

/// Cells in one word: for each part what there is of it, an asterisk for all.
fn in_one_word(cells: &[Cell]) -> String {
    // Those of a manifest have stages of their own.
    let own = PodNetwork::ALL.into_iter();
    let networks = own.filter(|it| !it.is_of_a_manifest()).count();
    let part = |all: usize, name: &dyn Fn(&Cell) -> String| {
        let mut names: Vec<String> = cells.iter().map(name).collect();
        names.sort_unstable();
        names.dedup();
        match names.len() == all {
            true => "*".to_owned(),
            false => names.join(","),
        }
    };
    let named = [
        part(Bootstrap::ALL.len(), &|cell| cell.bootstrap.to_string()),
        part(ProxyMode::ALL.len(), &|cell| cell.proxy.to_string()),
        part(networks, &|cell| cell.network.to_string()),
    ]
    .join("/");
    match cells.iter().all(|cell| cell.ip_families.is_dual()) {
        true => format!("{named}+dual"),
        false => named,
    }
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
        let (was, is) = (was.accelerator.id(), accelerator.id());
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
        let content = listed.content.as_ref();
        if let Some(digest) = content.and_then(|it| it.node_files.as_ref()) {
            text += &format!("  with files over its nodes': sha256 {digest}\n");
        }
        if let Some(digest) = content.and_then(|it| it.configurations.as_ref()) {
            text += &format!("  with configurations of yours: sha256 {digest}\n");
        }
        if content.is_some_and(|it| it.cluster_dns) {
            text += "  with a DNS of its own (--cluster-dns)\n";
        }
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
        if self.other_version {
            state.push("another version's");
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

#[cfg(test)]
mod tests {
    use podwire_vm::KvmProcessor;

    use super::*;
    use crate::prepare::fixture::{HOUR, cache_entry, cluster_plan, image_files, stage_manifest};
    use podwire_cluster::SealedFile;

    fn today() -> Today {
        Today {
            qemu: Some("8.2.2".into()),
            host_cpu: Some("Some CPU".into()),
            accelerator: Some(Accelerator::Tcg),
            images: BTreeMap::from([("image-a".to_owned(), Some(image_files("image-a")))]),
        }
    }

    #[test]
    fn a_stage_of_today_s_inputs_stays_and_of_unknown_ones_too() {
        let stage = stage_manifest(cluster_plan(), StageName::Workload);
        assert_eq!(differences(&stage, &today()).unwrap(), Vec::<String>::new());
        let unknown = Today::default();
        assert_eq!(differences(&stage, &unknown).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn whatever_differs_is_named() {
        let mut stage = stage_manifest(cluster_plan(), StageName::Workload);
        let other = Today {
            qemu: Some("10.0.2".into()),
            host_cpu: Some("Other CPU".into()),
            accelerator: Some(Accelerator::Kvm(KvmProcessor::HOST)),
            images: BTreeMap::from([("image-a".to_owned(), Some(image_files("image-b")))]),
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
        stage.plan = cluster_plan();
        stage.key = "0123".into();
        insta::assert_snapshot!(differences(&stage, &today()).unwrap().join("\n"), @"podwire makes this stage, or one before it, differently now");
    }

    #[test]
    fn stages_are_listed_with_what_they_cost_and_what_becomes_of_them() {
        let now = SystemTime::UNIX_EPOCH + HOUR * 1000;
        let listed = |entry: Entry, manifest: Result<StageManifest, ClusterError>| {
            Listed::of(&entry, manifest.as_ref(), &today()).unwrap()
        };
        let whole = |plan, name| {
            let mut manifest = stage_manifest(plan, name);
            manifest.built = 3600 * 900;
            manifest
        };
        let old = ClusterPlan {
            qemu: "7.2".into(),
            broken: Some(Break::PodRange),
            ..cluster_plan()
        };
        let with_dns = || cluster_plan().with_cluster_dns(true);
        let mut damaged = whole(with_dns(), StageName::Booted);
        let sealed = SealedFile {
            size: 7,
            digest: String::new(),
        };
        damaged.files.insert("control-plane/ram".into(), sealed);
        let unusable = |reason: &str| ClusterError::Stage {
            dir: "d".into(),
            reason: reason.into(),
        };
        let used = Entry {
            in_use: true,
            ..cache_entry(STAGES, "a", 2)
        };
        let all = [
            listed(used, Ok(whole(with_dns(), StageName::Workload))),
            listed(cache_entry(STAGES, "b", 50), Ok(whole(old, StageName::Cni))),
            listed(cache_entry(STAGES, "c", 3), Ok(damaged)),
            listed(
                cache_entry(STAGES, "d", 0),
                Err(unusable("stage.json makes no sense")),
            ),
            listed(
                cache_entry(STAGES, ".building-e", 0),
                Err(unusable("no stage.json yet")),
            ),
            listed(
                cache_entry(STAGES, "f", 4),
                Err(ClusterError::OtherVersion {
                    dir: "f".into(),
                    source: serde_json::from_str::<StageManifest>("{}").unwrap_err(),
                }),
            ),
        ];
        insta::assert_snapshot!(text(&all, now), @"
        stage        cell                     nodes  Kubernetes  guests  fault      on disk  built       used
        workload     by-hand/nftables/routes  3      1.36.4      tcg                1.5 GiB  4 days ago  2 h 0 min ago  in use
          with a DNS of its own (--cluster-dns)
        cni          by-hand/nftables/routes  3      1.36.4      tcg     pod-range  1.5 GiB  4 days ago  2 days ago     would be made again
          QEMU is another: 8.2.2 (it was made with 7.2)
        booted       */*/*                    3      1.36.4      tcg                1.5 GiB  4 days ago  3 h 0 min ago  would be made again
          damaged: control-plane/ram: No such file or directory (os error 2)
        d                                                                           1.5 GiB              1 s ago        would be made again
          damaged: stage.json makes no sense
        .building-e                                                                 1.5 GiB              1 s ago        left by an interrupted run
        f                                                                           1.5 GiB              4 h 0 min ago  another version's
        9.0 GiB in all; `cargo xtask clean --older-than 7d` or `--max-size 10GiB` removes what was not used for long
        ");
        let json = serde_json::to_value(&all[1]).unwrap();
        assert_eq!(json["stage"], "cni");
        assert_eq!(json["break"], "pod-range");
        assert_eq!(json["used"], 3600 * 950);
        assert!(json["rebuilt_because"][0].as_str().unwrap().contains("7.2"));
        assert!(text(&[], now).starts_with("no stages"));
    }
}
