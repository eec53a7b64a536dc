//! A scenario started bare, by `cargo nextest run` or `cargo test`: it uses what the newest run of
//! `cargo xtask test` has prepared, as long as that is still good.

use std::env;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use podwire_cluster::{Cell, ClusterError, StageManifest, host_cpu};
use podwire_process::{Spawner, held, held_alone};
use podwire_vm::accelerator::qemu_version;
use time::OffsetDateTime;

use crate::run::context::{CELL_VARIABLE, CellContext, ContextError};
use crate::run::program::Programs;
use crate::scenario::Scenario;

/// The folder of all runs, in [`output`].
pub const RUNS: &str = "runs";

/// Where [`output`] is instead, for a run that is to leave a person's runs alone: a campaign's.
pub const OUTPUT_VARIABLE: &str = "PODWIRE_OUTPUT";

/// The folder of a workspace in which podwire keeps its runs, and the link to the newest.
pub fn output(workspace: &Path) -> PathBuf {
    if let Some(output) = env::var_os(OUTPUT_VARIABLE) {
        return workspace.join(output);
    }
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target).join("podwire")
}

/// A run's folder, in use as long as this value lives: nobody removes it meanwhile.
///
/// It is in use by a lock on the folder itself (flock(2)), which ends with the process however that ends,
/// and is seen from another container that has the same folder; a process's number says nothing there.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _held: File,
}

impl Deref for RunFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// Whether somebody works in a run's folder, or in an attempt's.
pub fn in_use(folder: &Path) -> bool {
    matches!(held_alone(folder), Ok(None))
}

/// Makes the run's folder of a new run in `runs`, named by the time and this process.
///
/// # Errors
/// [`ContextError::Access`].
pub fn new_run(runs: &Path, now: OffsetDateTime) -> Result<RunFolder, ContextError> {
    let (date, (hour, minute, second)) = (now.date(), now.to_hms());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let process = std::process::id();
    let name = format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z-{process}");
    // The same process again, or one of another container that has the same number.
    let names = (1..).map(|count| match count {
        1 => runs.join(&name),
        count => runs.join(format!("{name}-{count}")),
    });
    let make = || -> io::Result<RunFolder> {
        fs::create_dir_all(runs)?;
        for path in names {
            // Clones' disks and memory hold keys, and so does the evidence.
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let held = held(&path)?;
                    return Ok(RunFolder { path, _held: held });
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    };
    make().map_err(|source| ContextError::Access {
        path: runs.join(&name),
        source,
    })
}

/// Where the cell's folder is in the run's: what the scenarios' processes are told, and what they leave.
pub fn cell_dir(run_dir: &Path, cell: Cell) -> PathBuf {
    run_dir.join(cell.to_string().replace('/', "-"))
}

/// Makes the cell's folder in the run's.
///
/// # Errors
/// [`ContextError::Access`].
pub fn new_cell(run_dir: &Path, cell: Cell) -> Result<PathBuf, ContextError> {
    let cell_dir = cell_dir(run_dir, cell);
    match fs::create_dir(&cell_dir) {
        Ok(()) => Ok(cell_dir),
        Err(source) => Err(ContextError::Access {
            path: cell_dir,
            source,
        }),
    }
}

impl CellContext {
    /// The programs of the user's that are the scenarios of this process's run.
    ///
    /// # Errors
    /// [`ContextError`].
    pub(crate) fn programs_of_run() -> Result<Option<Programs>, ContextError> {
        match env::var_os(CELL_VARIABLE) {
            Some(cell_dir) => Ok(Self::read(Path::new(&cell_dir))?.programs),
            None => Ok(None),
        }
    }

    /// The cell's folder that a scenario's process belongs to, and its context: the one that the
    /// environment names. For one that was started bare, a cell's folder in a new run's, and what the
    /// newest run in the workspace has prepared; that run's folder is this process's own, to be held as
    /// long as it works there.
    ///
    /// # Errors
    /// [`ContextError`].
    pub(crate) fn find(
        scenario: &Scenario,
        workspace: &Path,
    ) -> Result<(PathBuf, Self, Option<RunFolder>), ContextError> {
        match env::var_os(CELL_VARIABLE) {
            Some(cell_dir) => {
                let cell_dir = PathBuf::from(cell_dir);
                let context = Self::read(&cell_dir)?;
                Ok((cell_dir, context, None))
            }
            None => Self::bare(scenario, &output(workspace).join(RUNS)),
        }
    }

    fn bare(
        scenario: &Scenario,
        runs: &Path,
    ) -> Result<(PathBuf, Self, Option<RunFolder>), ContextError> {
        let (cell, context) =
            prepared(runs, scenario).map_err(|reason| ContextError::Unprepared {
                scenario: scenario.name.to_owned(),
                reason,
            })?;
        let run_dir = new_run(runs, OffsetDateTime::now_utc())?;
        Ok((new_cell(&run_dir, cell)?, context, Some(run_dir)))
    }
}

/// What the newest run in `runs` has prepared for a scenario, on any of its clusters, and that one's
/// cell; else why none can be used.
fn prepared(runs: &Path, scenario: &Scenario) -> Result<(Cell, CellContext), String> {
    let contexts = newest(runs);
    let mut useless = "no run has prepared a whole cluster yet".to_owned();
    // What is said is about the first.
    for context in contexts.into_iter().rev() {
        let asked = || -> anyhow::Result<Now> {
            Ok(Now {
                qemu: qemu_version(&Spawner::start()?, &context.qemu)?,
                host_cpu: host_cpu()?,
            })
        };
        let now = asked().map_err(|error| format!("{error:#}"))?;
        match check(&context, scenario, &now) {
            Ok(cell) => {
                let context = CellContext {
                    // It was that run's person who wanted to look.
                    keep: None,
                    repeat: 1,
                    strict_wire: false,
                    ..context
                };
                return Ok((cell, context));
            }
            Err(reason) => useless = reason,
        }
    }
    Err(useless)
}

/// The contexts of the newest run whose clusters are whole, one for each of its cells. Most runs of
/// other commands have none.
fn newest(runs: &Path) -> Vec<CellContext> {
    // Runs' names begin with the time, cells' with the bootstrap.
    let whole = |run: &PathBuf| -> Vec<CellContext> {
        let cells = folders(run).into_iter();
        cells
            .filter_map(|cell| CellContext::read(&cell).ok())
            .filter(|context| context.broken.is_none())
            .collect()
    };
    let found = folders(runs)
        .iter()
        .rev()
        .map(whole)
        .find(|it| !it.is_empty());
    found.unwrap_or_default()
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// What stages are only good for as long as it does not change.
struct Now {
    qemu: String,
    host_cpu: String,
}

/// The cell of the cluster that a context is of, if it is still good for the scenario.
fn check(context: &CellContext, scenario: &Scenario, now: &Now) -> Result<Cell, String> {
    let stage = scenario.stage;
    let Some(dir) = context.stages.get(&stage) else {
        return Err(format!("the newest run had no use for the stage {stage}"));
    };
    if !dir.exists() {
        return Err(format!("the stage {stage} is not in the cache any more"));
    }
    let manifest = StageManifest::read(dir).map_err(|error| match error {
        ClusterError::Stage { reason, .. } => format!("the stage {stage} is damaged: {reason}"),
        other => other.to_string(),
    })?;
    if let Some(damage) = manifest.damage(dir) {
        return Err(format!("the stage {stage} is damaged: {damage}"));
    }
    // Its stage may have been made for another cell.
    let cell = context.plan.cell;
    if !scenario.fits(cell) {
        return Err(format!(
            "the newest run's cluster, {cell}, is nothing for it"
        ));
    }
    let plan = &manifest.plan;
    if scenario.upgrades && plan.upgrade_to.is_none() {
        return Err("the newest run's cluster has nothing to be upgraded to".to_owned());
    }
    if plan.qemu != now.qemu {
        let (was, is) = (&plan.qemu, &now.qemu);
        return Err(format!("QEMU is another now: {is} (it was {was})"));
    }
    if plan.host_cpu != now.host_cpu {
        return Err("the host's processor is another now".to_owned());
    }
    if plan.key(stage).map_err(|error| error.to_string())? != manifest.key {
        return Err(format!("podwire makes the stage {stage} differently now"));
    }
    if plan.nodes < scenario.nodes {
        let (has, needs) = (plan.nodes, scenario.nodes);
        return Err(format!(
            "the newest run's cluster had {has} nodes, and it needs {needs}"
        ));
    }
    Ok(cell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::context::Share;
    use crate::scenario::Profile;
    use crate::scenario::clusters::{Cells, Families};
    use podwire_cluster::{
        Bootstrap, Break, Cell, ClusterPlan, ImageFiles, Layout, ProxyMode, StageName,
    };
    use podwire_vm::Accelerator;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    fn scenario() -> Scenario {
        Scenario {
            name: "names",
            about: "",
            covers: &[],
            stage: StageName::Cni,
            cells: Cells::Any,
            layout: Layout::Flat,
            families: Families::Ipv4,
            profile: Profile::Default,
            nodes: 3,
            limit: Duration::from_secs(1),
            prepare: None,
            kube_router: false,
            upgrades: false,
            cores: 1,
            measures: &[],
            run: |_| Box::pin(async { Ok(()) }),
            sabotages: &[],
            red_when: &[],
        }
    }

    fn context(stage: &Path, broken: Option<Break>) -> CellContext {
        CellContext {
            plan: plan(3).0,
            stages: [(StageName::Cni, stage.to_owned())].into(),
            qemu: "no-qemu".into(),
            qemu_img: PathBuf::new(),
            accelerator: Accelerator::Tcg,
            speed_factor: 1.0,
            ssh_key: PathBuf::new(),
            broken,
            share: Share {
                folder: PathBuf::new(),
                slots: 1,
                clone_mib: 1,
                keep_free_mib: 1,
            },
            keep: Some("/run".into()),
            tested: String::new(),
            again: String::new(),
            repeat: 3,
            strict_wire: true,
            kube_router: None,
            programs: None,
        }
    }

    fn now() -> Now {
        Now {
            qemu: "10.0.2".into(),
            host_cpu: "CPU".into(),
        }
    }

    fn plan(nodes: u32) -> (ClusterPlan, ImageFiles) {
        let image = ImageFiles {
            name: "image".into(),
            disk: "/proc/version".into(),
            kernel: "/proc/version".into(),
            initrd: "/proc/version".into(),
            append: String::new(),
        };
        let (tcg, Now { qemu, host_cpu }) = (Accelerator::Tcg, now());
        let plan = ClusterPlan::new(
            nodes,
            Cell::usual(Bootstrap::ByHand),
            "1.36.4",
            &image,
            tcg,
            qemu,
            host_cpu,
            None,
        );
        (plan.unwrap(), image)
    }

    /// A stage without files in it.
    fn stage(dir: &Path, nodes: u32) {
        let (plan, image) = plan(nodes);
        let manifest = StageManifest::new(StageName::Cni, plan, image).unwrap();
        let text = serde_json::to_vec(&manifest).unwrap();
        fs::write(dir.join("stage.json"), text).unwrap();
    }

    #[test]
    fn a_runs_folder_is_in_use_as_long_as_it_is_held_and_nobody_elses() {
        let runs = tempfile::tempdir().unwrap();
        let now = time::macros::datetime!(2026-11-21 13:05:00 UTC);
        let first = new_run(runs.path(), now).unwrap();
        let second = new_run(runs.path(), now).unwrap();
        assert_ne!(*first, *second, "the same second, the same process");
        let mode = fs::metadata(&*first).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "guests' keys are in it");
        let path = first.to_owned();
        assert!(in_use(&path) && in_use(&second));
        drop(first);
        assert!(!in_use(&path) && in_use(&second));
        assert!(!in_use(&runs.path().join("none")));
    }

    #[test]
    fn the_newest_run_of_a_whole_cluster_counts() {
        let runs = tempfile::tempdir().unwrap();
        assert_eq!(newest(runs.path()), []);
        let run = |name: &str, context: Option<CellContext>| {
            let run_dir = runs.path().join(name);
            fs::create_dir(&run_dir).unwrap();
            let cell_dir = new_cell(&run_dir, Cell::usual(Bootstrap::Kubeadm)).unwrap();
            if let Some(context) = context {
                context.write(&cell_dir).unwrap();
            }
        };
        let (old, new) = (Path::new("/old"), Path::new("/new"));
        run("20261120T120000Z-9", Some(context(old, None)));
        run("20261121T120000Z-1", Some(context(new, None)));
        run("20261121T120500Z-1", Some(context(old, Some(Break::San))));
        run("20261121T121000Z-1", None);
        assert_eq!(newest(runs.path()), [context(new, None)]);
        assert_eq!(newest(&runs.path().join("missing")), []);
    }

    #[test]
    fn what_has_changed_since_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path(), None);
        let why = |now: &Now| check(&context, &scenario(), now).unwrap_err();
        insta::assert_snapshot!(why(&now()), @"the stage cni is damaged: stage.json cannot be read: No such file or directory (os error 2)");
        stage(dir.path(), 3);
        let cell = Cell::usual(Bootstrap::ByHand);
        assert_eq!(check(&context, &scenario(), &now()), Ok(cell));
        let qemu = Now {
            qemu: "11.0".into(),
            ..now()
        };
        insta::assert_snapshot!(why(&qemu), @"QEMU is another now: 11.0 (it was 10.0.2)");
        let host_cpu = Now {
            host_cpu: "other".into(),
            ..now()
        };
        insta::assert_snapshot!(why(&host_cpu), @"the host's processor is another now");
        stage(dir.path(), 2);
        insta::assert_snapshot!(why(&now()), @"the newest run's cluster had 2 nodes, and it needs 3");
        let kubeadm = Scenario {
            cells: Cells::Kubeadm,
            ..scenario()
        };
        let other = check(&context, &kubeadm, &now()).unwrap_err();
        insta::assert_snapshot!(other, @"the newest run's cluster, by-hand/nftables/routes, is nothing for it");
        // The cell is that of the run which found the stage, not of the one which made it.
        let mut found = context.clone();
        found.plan.cell.proxy = ProxyMode::Iptables;
        let fits = Scenario {
            nodes: 2,
            ..scenario()
        };
        assert_eq!(check(&found, &fits, &now()), Ok(found.plan.cell));
        let text = fs::read_to_string(dir.path().join("stage.json")).unwrap();
        let text = text.replace(r#""vcpus":2"#, r#""vcpus":1"#);
        fs::write(dir.path().join("stage.json"), text).unwrap();
        insta::assert_snapshot!(why(&now()), @"podwire makes the stage cni differently now");
        drop(dir);
        insta::assert_snapshot!(why(&now()), @"the stage cni is not in the cache any more");
        let later = Scenario {
            stage: StageName::Workload,
            ..scenario()
        };
        let unknown = check(&context, &later, &now()).unwrap_err();
        insta::assert_snapshot!(unknown, @"the newest run had no use for the stage workload");
    }

    #[test]
    fn a_scenario_without_anything_prepared_names_the_command() {
        let runs = tempfile::tempdir().unwrap();
        let error = CellContext::bare(&scenario(), runs.path()).unwrap_err();
        insta::assert_snapshot!(error, @"no run has prepared a whole cluster yet; `cargo xtask test --filter names` prepares what it needs, and runs it");
        assert_eq!(fs::read_dir(runs.path()).unwrap().count(), 0);
    }
}
