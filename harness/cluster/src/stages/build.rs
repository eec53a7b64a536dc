//! From a stage to the next one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use futures::future::{join_all, try_join_all};
use podwire_lan::SegmentState;
use podwire_process::Report;
use podwire_vm::memory::{copy_sparse, punch_zeros};
use podwire_vm::{Machine, Ram, create_overlay};
use rustix::fs::statvfs;
use tempfile::TempDir;
use time::OffsetDateTime;

use super::quiet::quiet;
use super::stage::{MANIFEST, MachineFiles, Stage, StageManifest, sealed, under};
use crate::parts::credentials::Credentials;
use crate::parts::identity::NodeIdentity;
use crate::parts::pki::Pki;
use crate::plan::breaks::Break;
use crate::plan::cluster_plan::{ClusterPlan, ImageFiles};
use crate::plan::error::ClusterError;
use crate::plan::layout::Member;
use crate::plan::stage_name::StageName;
use crate::running::cluster::{Cluster, Frozen, restored_segment};
use crate::running::host::Host;
use crate::running::node::unanswered;
use crate::running::phase::Phase;
use crate::running::wake::{Waking, wake};
use crate::steps::of_stage::step;
use crate::steps::step::{Beginning, Boot, Plug, Step};

/// An ordinary command on a node.
const COMMAND: Duration = Duration::from_secs(10);
/// From power to the console's last line of a boot.
const BOOT: Duration = Duration::from_secs(30);
/// Until a cluster has little to do.
const QUIET: Duration = Duration::from_secs(3);
/// What an image writes to its console when nothing more is to start.
const IS_UP: &str = "podwire: the machine is up";
/// What is told of a cluster that failed, or has not settled, while its nodes are asked why.
const COLLECTING: &str = "collect the nodes' evidence";
/// Begins the names of folders in which a stage is being made.
pub(crate) const UNFINISHED: &str = ".building-";

/// What a stage is made with, whichever it is.
#[derive(Clone, Copy)]
pub(crate) struct Maker<'a> {
    pub(crate) host: &'a Host,
    pub(crate) plan: &'a ClusterPlan,
    pub(crate) image: &'a ImageFiles,
    /// Consoles, transcripts and captures go here and stay.
    pub(crate) logs: &'a Path,
    pub(crate) report: &'a dyn Report,
}

impl Maker<'_> {
    /// Makes a stage of its parent and moves it to `dir`, which must not exist. When anything fails,
    /// nothing but the logs is left.
    pub(crate) async fn make(
        &self,
        name: StageName,
        parent: Option<&Stage>,
        dir: &Path,
    ) -> Result<Stage, ClusterError> {
        let started = Instant::now();
        let beside = Beside::new(dir, self.plan)?;
        let mut manifest = StageManifest::new(name, self.plan.clone(), self.image.clone())?;
        manifest.based_on = match parent.map(|parent| &parent.manifest) {
            Some(parent) if parent.image == manifest.image => parent.based_on.clone(),
            _ => under(self.image)?,
        };
        let drawn = self.drawn(name, parent)?;
        let step = step(self.plan, name, &drawn)?;
        let (manifest, machines) = match (&step.begins, parent) {
            (Beginning::Boot(boot), _) => self.booted(boot, manifest, beside.path()).await?,
            (_, Some(parent)) => {
                self.derived(&step, drawn, manifest, parent, beside.path())
                    .await?
            }
            (_, None) => {
                return Err(ClusterError::Stage {
                    dir: dir.to_owned(),
                    reason: format!("{name} is made of nothing"),
                });
            }
        };
        published(manifest, &machines, beside, dir, started)
    }

    /// What the parent's machines prove themselves with, and what the step adds, drawn now.
    fn drawn(&self, name: StageName, parent: Option<&Stage>) -> Result<Credentials, ClusterError> {
        let before = parent.and_then(|parent| parent.manifest.credentials.clone());
        let mut credentials = before.unwrap_or_default();
        let plan = self.plan;
        if name == StageName::Identified {
            let identities = (1..=plan.nodes).map(NodeIdentity::new);
            credentials.nodes = identities.collect::<Result<_, _>>()?;
        }
        if name == StageName::ControlPlane {
            let now = OffsetDateTime::now_utc();
            credentials.pki = Some(Pki::new(&plan.addresses(), plan.broken, now)?);
        }
        Ok(credentials)
    }

    /// Machines that boot all at once.
    async fn booted(
        &self,
        boot: &Boot,
        mut manifest: StageManifest,
        dir: &Path,
    ) -> Result<(StageManifest, Vec<MachineFiles>), ClusterError> {
        let started = Instant::now();
        self.report.step("boot a machine of each size");
        let boots = boot.machines.iter().map(|(role, _)| async move {
            let files = MachineFiles::of(dir, role.name());
            fs::create_dir(files.dir()).map_err(ClusterError::file("make", files.dir()))?;
            create_overlay(&self.host.qemu_img, &self.image.disk, &files.disk())?;
            let spec = self.plan.machine(
                role.name(),
                self.plan.size(*role),
                &self.image.kernel,
                &self.image.initrd,
                files.disk(),
                Ram::Template(files.ram()),
                false,
            );
            let logs = self.logs.join(role.name());
            let machine = self.host.launch(spec, Vec::new(), &logs).await?;
            is_up(self.host, &machine).await?;
            let limit = self.host.limit(COMMAND);
            let closed = machine.guest().close(limit).await;
            closed.map_err(unanswered(role.name(), &machine))?;
            Ok::<_, ClusterError>((machine, files))
        });
        let (machines, files): (Vec<_>, Vec<_>) = try_join_all(boots).await?.into_iter().unzip();
        manifest.phases.push(Phase::since("boot", started));
        let freezing = Instant::now();
        try_join_all(machines.iter().map(Machine::pause)).await?;
        save_and_end(machines, &files).await?;
        manifest.phases.push(Phase::since("freeze", freezing));
        manifest.built = since_1970();
        Ok((manifest, files))
    }

    /// The parent's machines, one step further.
    async fn derived(
        &self,
        step: &Step,
        credentials: Credentials,
        mut manifest: StageManifest,
        parent: &Stage,
        dir: &Path,
    ) -> Result<(StageManifest, Vec<MachineFiles>), ClusterError> {
        let started = Instant::now();
        let (mut cluster, files) = match &step.begins {
            Beginning::Plug(plug) => {
                self.report.step("make nodes of the booted machines");
                self.plugged(plug, credentials, parent, dir).await?
            }
            Beginning::Boot(_) | Beginning::Wake => {
                self.report.step("wake the stage that it is made of");
                self.awake(credentials, parent, dir).await?
            }
        };
        manifest.phases.push(Phase::since("wake", started));
        manifest.phases.extend_from_slice(cluster.timings());

        let stepping = Instant::now();
        let stages = parent.dir.parent().unwrap_or(&parent.dir);
        let stepped = self.stepped(step, &mut cluster, stages).await;
        manifest.unsettled = explained(stepped, &cluster, self.report).await?;
        manifest.phases.push(Phase::since("step", stepping));
        if manifest.unsettled.is_some() {
            self.report.step(COLLECTING);
            cluster.leave_evidence().await;
        }

        self.report.step("freeze the cluster");
        freeze(self.host, cluster, &files, &mut manifest, self.report).await?;
        Ok((manifest, files))
    }

    /// Does what the step says with a cluster that has just begun: what had not settled by its end.
    async fn stepped(
        &self,
        step: &Step,
        cluster: &mut Cluster,
        stages: &Path,
    ) -> Result<Option<String>, ClusterError> {
        if matches!(step.begins, Beginning::Plug(_)) {
            cluster.on_the_segment().await?;
        }
        let clocks = Clocks::read(cluster).await?;
        let unsettled = cluster.carry_out(step, self.report).await?;
        clocks.run_as_here(&Clocks::read(cluster).await?, stages)?;
        Ok(unsettled)
    }

    /// Copies of these of a stage's machines, one for each machine of the plan: they may be written, the
    /// stage never.
    fn copies(
        &self,
        frozen: impl IntoIterator<Item = String>,
        parent: &Stage,
        dir: &Path,
        plugged: bool,
    ) -> Result<(Vec<Waking>, Vec<MachineFiles>), ClusterError> {
        let mut waking = Vec::new();
        let mut copies = Vec::new();
        for (member, frozen) in self.plan.members().zip(frozen) {
            let frozen = MachineFiles::of(&parent.dir, &frozen);
            let own = MachineFiles::of_member(dir, member);
            fs::create_dir(own.dir()).map_err(ClusterError::file("make", own.dir()))?;
            for (from, to) in [(frozen.disk(), own.disk()), (frozen.ram(), own.ram())] {
                copy_sparse(&from, &to).map_err(ClusterError::file("copy to", &to))?;
            }
            waking.push(Waking {
                member,
                ram: Ram::Template(own.ram()),
                disk: own.disk(),
                state: frozen.state(),
                logs: self.logs.join(member.name()),
                plugged,
            });
            copies.push(own);
        }
        Ok((waking, copies))
    }

    /// The parent's cluster, which goes on as one of this plan: its stage may have been made for
    /// another cell that is the same so far.
    async fn awake(
        &self,
        credentials: Credentials,
        parent: &Stage,
        dir: &Path,
    ) -> Result<(Cluster, Vec<MachineFiles>), ClusterError> {
        let frozen = self.plan.members().map(Member::name);
        let (waking, files) = self.copies(frozen, parent, dir, true)?;
        let frozen = Frozen {
            plan: self.plan,
            image: &parent.manifest.image,
            credentials,
            segment: parent.manifest.segment.clone(),
        };
        let broken = self.plan.broken;
        let cluster = Cluster::woken(self.host, frozen, waking, self.logs, broken).await?;
        Ok((cluster, files))
    }

    /// A cluster of booted machines: each gets its network cards, and with them its addresses and a host
    /// name from its leases.
    async fn plugged(
        &self,
        plug: &Plug,
        credentials: Credentials,
        parent: &Stage,
        dir: &Path,
    ) -> Result<(Cluster, Vec<MachineFiles>), ClusterError> {
        let router = plug.beyond.iter().filter_map(|it| it.router.as_ref());
        let frozen = plug.roles.iter().chain(router);
        let frozen = frozen.map(|role| role.name().to_owned());
        let (waking, files) = self.copies(frozen, parent, dir, false)?;
        let segment = restored_segment(plug.network(), self.logs, SegmentState::default())?;
        let (powered, _) = wake(self.host, self.plan, self.image, &segment, waking).await?;
        let cluster = Cluster::new_nodes(
            self.host,
            self.plan,
            credentials,
            powered,
            segment,
            self.logs,
        );
        Ok((cluster.await?, files))
    }
}

/// Waits until a machine that was switched on has booted.
pub(crate) async fn is_up(host: &Host, machine: &Machine) -> Result<(), ClusterError> {
    let limit = host.limit(BOOT);
    let line = machine.console().wait_for(IS_UP, limit);
    match machine.faults().unless_faulted(line).await? {
        Some(_) => Ok(()),
        None => Err(ClusterError::NotBooted {
            machine: machine.name().to_owned(),
            limit,
            console: machine.console().tail(20).join("\n"),
        }),
    }
}

/// A stage's cluster that goes on to become a stage of its own.
pub struct Thawed {
    beside: Beside,
    files: Vec<MachineFiles>,
    manifest: StageManifest,
    dir: PathBuf,
    started: Instant,
}

impl Stage {
    /// Brings the stage to life in copies of its files, so that it can be frozen again, in `dir`,
    /// which must not exist. Consoles go to `logs`; `broken` alters what is done to it, see [`Break`].
    /// What comes of it is not for the cache: its key is this one's.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn thawed(
        &self,
        host: &Host,
        dir: &Path,
        logs: &Path,
        broken: Option<Break>,
        report: &dyn Report,
    ) -> Result<(Cluster, Thawed), ClusterError> {
        let started = Instant::now();
        let plan = ClusterPlan {
            broken,
            ..self.manifest.plan.clone()
        };
        let maker = Maker {
            host,
            plan: &plan,
            image: &self.manifest.image,
            logs,
            report,
        };
        let beside = Beside::new(dir, maker.plan)?;
        let credentials = self.manifest.credentials.clone();
        let credentials = credentials.ok_or(ClusterError::NoCluster {
            stage: self.manifest.name,
        })?;
        let (cluster, files) = maker.awake(credentials, self, beside.path()).await?;
        let thawed = Thawed {
            beside,
            files,
            manifest: StageManifest {
                phases: Vec::new(),
                ..self.manifest.clone()
            },
            dir: dir.to_owned(),
            started,
        };
        Ok((cluster, thawed))
    }
}

impl Thawed {
    /// Freezes its cluster as soon as it has little to do, and moves it to its place.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn freeze(
        self,
        host: &Host,
        cluster: Cluster,
        report: &dyn Report,
    ) -> Result<Stage, ClusterError> {
        let Self {
            beside,
            files,
            mut manifest,
            dir,
            started,
        } = self;
        freeze(host, cluster, &files, &mut manifest, report).await?;
        published(manifest, &files, beside, &dir, started)
    }
}

/// A folder beside a stage's final place, so that a rename suffices. Removed with all its content on
/// drop; one that nobody has locked is the leftover of a process that was killed.
struct Beside {
    folder: TempDir,
    held: File,
}

impl Beside {
    fn new(dir: &Path, plan: &ClusterPlan) -> Result<Self, ClusterError> {
        let parent = dir.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(ClusterError::file("make the folder", parent))?;
        // Guests whose memory finds no room on the disk would be ended by the kernel.
        let needed = plan.memory_mib() << 20;
        let disk = statvfs(parent)
            .map_err(|error| ClusterError::file("measure the disk of", parent)(error.into()))?;
        let available = disk.f_bavail * disk.f_frsize;
        if available < needed {
            return Err(ClusterError::NoRoom {
                dir: parent.to_owned(),
                needed_mib: needed >> 20,
                available_mib: available >> 20,
            });
        }
        let folder = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(ClusterError::file("make a folder in", parent))?;
        let held = File::open(folder.path()).and_then(|held| held.lock().map(|()| held));
        let held = held.map_err(ClusterError::file("lock", folder.path()))?;
        Ok(Self { folder, held })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Moves it to its place.
    fn keep_as(self, dir: &Path) -> Result<(), ClusterError> {
        fs::rename(self.path(), dir).map_err(ClusterError::file("move the stage to", dir))?;
        // There is nothing at the old place to remove any more.
        let _ = self.folder.keep();
        drop(self.held);
        Ok(())
    }
}

/// Gives back what the machines' files hold of zeros, seals them, and moves all of it to its place.
fn published(
    mut manifest: StageManifest,
    machines: &[MachineFiles],
    beside: Beside,
    dir: &Path,
    started: Instant,
) -> Result<Stage, ClusterError> {
    let giving_back = Instant::now();
    for files in machines {
        let ram = files.ram();
        punch_zeros(&ram).map_err(ClusterError::file("give back what is free in", &ram))?;
    }
    let given_back = Phase::since("give back free memory", giving_back);
    let sealing = Instant::now();
    manifest.files = sealed(beside.path(), machines)?;
    let phases = &mut manifest.phases;
    phases.push(given_back);
    phases.push(Phase::since("seal the files", sealing));
    phases.push(Phase::since("in all", started));
    write_private(&beside.path().join(MANIFEST), &manifest)?;
    beside.keep_as(dir)?;
    Stage::open(dir)
}

/// What came of a stage's cluster; see [`Cluster::explained`].
async fn explained<T>(
    done: Result<T, ClusterError>,
    cluster: &Cluster,
    report: &dyn Report,
) -> Result<T, ClusterError> {
    if done.is_err() {
        report.step(COLLECTING);
    }
    cluster.explained(done).await
}

/// Once the nodes have little to do, stops all of them together with the switch held, writes their
/// state into their files, and ends them. What is known of the cluster then goes into the manifest.
async fn freeze(
    host: &Host,
    cluster: Cluster,
    files: &[MachineFiles],
    manifest: &mut StageManifest,
    report: &dyn Report,
) -> Result<(), ClusterError> {
    let freezing = Instant::now();
    let limit = host.limit(COMMAND);
    let synced = cluster.machines();
    let synced = try_join_all(synced.map(|node| node.run_ok("sync", limit))).await;
    explained(synced, &cluster, report).await?;
    manifest.credentials = Some(cluster.credentials());
    let (machines, segment) = cluster.taken_apart();
    let machines = machines.into_iter().map(|node| node.hang_up(host));
    let machines = try_join_all(machines).await?;
    manifest.phases.push(Phase::since("hang up", freezing));

    let waiting = Instant::now();
    quiet(&machines, host.limit(QUIET), report).await;
    manifest.phases.push(Phase::since("rest", waiting));

    let stopping = Instant::now();
    segment.hold()?;
    try_join_all(machines.iter().map(Machine::pause)).await?;
    manifest.segment = segment.state()?;
    let phases = &mut manifest.phases;
    phases.push(Phase::since("stop the cluster", stopping));
    let saving = Instant::now();
    save_and_end(machines, files).await?;
    phases.push(Phase::since("save the cluster", saving));
    manifest.built = since_1970();
    Ok(())
}

async fn save_and_end(machines: Vec<Machine>, files: &[MachineFiles]) -> Result<(), ClusterError> {
    let states: Vec<PathBuf> = files.iter().map(MachineFiles::state).collect();
    let saves = machines.iter().zip(&states);
    try_join_all(saves.map(|(machine, state)| machine.save(state))).await?;
    join_all(machines.into_iter().map(Machine::kill)).await;
    Ok(())
}

/// The nodes' clocks at a moment of the host's.
struct Clocks {
    at: Instant,
    /// Seconds since 1970, by node.
    nodes: Vec<(String, f64)>,
}

/// A reading waits for a busy guest: what two differ by without anything being wrong, seconds.
const CLOCK_SLACK: f64 = 10.0;
/// By which factor a clock may be faster or slower than the host's.
const CLOCK_RATE: f64 = 1.1;

impl Clocks {
    async fn read(cluster: &Cluster) -> Result<Self, ClusterError> {
        let limit = cluster.host().limit(COMMAND);
        let read = cluster.machines().map(|node| async move {
            let said = node.run_ok("date -u +%s.%N", limit).await?;
            let seconds = said.trim().parse();
            let seconds = seconds.map_err(|_| ClusterError::Unreadable {
                node: node.name().to_owned(),
                what: "time",
                said,
            })?;
            Ok::<_, ClusterError>((node.name().to_owned(), seconds))
        });
        let nodes = try_join_all(read).await?;
        Ok(Self {
            at: Instant::now(),
            nodes,
        })
    }

    /// Whether the clocks have run as the host's has until the later reading. In a cluster whose
    /// clocks run several times too fast, whatever waits gives up too early, in every clone.
    fn run_as_here(&self, later: &Self, stages: &Path) -> Result<(), ClusterError> {
        let here = later.at.duration_since(self.at).as_secs_f64();
        for ((node, before), (_, after)) in self.nodes.iter().zip(&later.nodes) {
            let there = after - before;
            let fits =
                there < here * CLOCK_RATE + CLOCK_SLACK && there > here / CLOCK_RATE - CLOCK_SLACK;
            if !fits {
                return Err(ClusterError::Clock {
                    node: node.clone(),
                    there,
                    here,
                    stages: stages.to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// It holds keys: for its owner only.
fn write_private(path: &Path, manifest: &StageManifest) -> Result<(), ClusterError> {
    let text = serde_json::to_vec_pretty(manifest).map_err(|source| ClusterError::Json {
        what: "the stage's manifest",
        source,
    })?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(&text))
        .map_err(ClusterError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cell::{Bootstrap, Cell};
    use podwire_vm::Accelerator;

    #[test]
    fn a_stage_is_for_its_owner_only_from_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let image = ImageFiles {
            name: "image".into(),
            disk: "disk".into(),
            kernel: "kernel".into(),
            initrd: "initrd".into(),
            append: String::new(),
        };
        let cell = Cell::usual(Bootstrap::ByHand);
        let plan = ClusterPlan::new(1, cell, "1.36.4", &image, Accelerator::Tcg, "", "", None);
        let mut plan = plan.unwrap();
        plan.control_plane.memory_mib = 1;
        let beside = Beside::new(&dir.path().join("stage"), &plan).unwrap();
        let mode = fs::metadata(beside.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_clock_that_runs_too_fast_or_too_slow_is_told() {
        let at = Instant::now();
        let clocks = |seconds: u64, time: f64| Clocks {
            at: at + Duration::from_secs(seconds),
            nodes: vec![("node1".to_owned(), time)],
        };
        let stages = Path::new("/cache/stages");
        let judged = |there: f64| clocks(0, 1e9).run_as_here(&clocks(60, 1e9 + there), stages);
        assert!(judged(60.0).is_ok() && judged(70.0).is_ok() && judged(52.0).is_ok());
        assert!(judged(20.0).is_err());
        insta::assert_snapshot!(judged(210.0).unwrap_err(), @r#"the clock of node1 has run 210 s while the host's ran 60 s: it took the rate of its time stamp counter wrong when it booted, and every stage made of that machine keeps it; remove "/cache/stages" and run again on a less loaded host"#);
    }
}
