//! The parts that a cluster is put together from, as the commands need them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use podwire_admission::{Admission, Claim, Memory, Ticket};
use podwire_cluster::{Bootstrap, Cell, ClusterPlan, ImageFiles, Stages, host_cpu};
use podwire_images::bundle::Asked;
use podwire_images::image::{CloudOrder, ImageFrom, ImageManifest, System};
use podwire_images::{Bundle, BundleOrder, Error, Kind, NodeImage, Sources, bundle, image};
use podwire_process::{ChildCommand, Report, Stream};
use podwire_vm::Accelerator;
use podwire_vm::accelerator::{self, ProbeGuest, Verdict, VerdictKey};

use crate::command::cli::{ConfigArgs, FromArgs, SourceArgs};
use crate::command::session::Session;
use crate::plan::capacity::{Appetite, KEEP_FREE_MIB, at_once};
use crate::plan::outline::{Machine, Need, Plan};
use crate::plan::phase::Phase;
use crate::prepare::preparation::Wanted;
use crate::say::progress::Progress;
use crate::say::stop::Stop;

/// QEMU's programs, by their path.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) qemu: PathBuf,
    pub(crate) qemu_img: PathBuf,
}

impl Programs {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let find = |program, package| {
            which::which(program).with_context(|| {
                format!("{program} is missing: it comes with the package {package}")
            })
        };
        Ok(Self {
            qemu: find("qemu-system-x86_64", "qemu-system-x86")?,
            qemu_img: find("qemu-img", "qemu-utils")?,
        })
    }
}

/// How many processors this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The settings of where things come from: the project's, and the user's where a file of his is
/// named.
pub(crate) fn sources(session: &Session, args: &ConfigArgs) -> Result<Sources, Stop> {
    let variable = std::env::var_os("PODWIRE_CONFIG").filter(|path| !path.is_empty());
    let config = args.config.clone().or_else(|| variable.map(PathBuf::from));
    let sources = Sources::read(&session.workspace.root, config.as_deref());
    sources.map_err(|error| match config {
        // What is wrong with the project's own is nothing that the command line asked for.
        None => error.into(),
        Some(_) => Stop::Usage(format!("{:#}", anyhow::Error::new(error))),
    })
}

/// The Kubernetes that is meant.
pub(crate) fn bundle_order(session: &Session, args: &SourceArgs) -> Result<BundleOrder, Stop> {
    let sources = sources(session, &args.config)?;
    let asked = Asked {
        kubernetes: args.kubernetes.as_deref(),
        from: args.bundle_from.as_ref(),
        replace: &args.replace,
    };
    BundleOrder::take(&session.workspace.root, &sources, &asked).map_err(|error| match error {
        Error::UnknownVersion { .. } | Error::UnknownRelease { .. } | Error::OwnFile(_) => {
            Stop::Usage(error.to_string())
        }
        other => other.into(),
    })
}

/// The phase in which a bundle is had.
pub(crate) fn bundle_phase(session: &Session, order: &BundleOrder) -> Result<Phase, Stop> {
    Ok(
        match bundle::is_nearly_cached(&session.workshop(), order)? {
            true => Phase::OwnBundle,
            false => Phase::Bundle,
        },
    )
}

/// What the nodes run.
#[derive(Debug, Clone)]
pub(crate) struct NodeSystem {
    pub(crate) from: ImageFrom,
    sources: Sources,
}

impl NodeSystem {
    /// What was asked for, else what the settings say.
    pub(crate) fn take(
        session: &Session,
        from: FromArgs,
        config: &ConfigArgs,
    ) -> Result<Self, Stop> {
        let sources = sources(session, config)?;
        Ok(Self {
            from: from.from.unwrap_or(sources.image_from),
            sources,
        })
    }

    /// What an image has.
    pub(crate) fn of_image(session: &Session, image: &ImageManifest) -> Result<Self, Stop> {
        let from = image.from.parse::<ImageFrom>();
        Ok(Self {
            from: from.map_err(|error| Stop::setup(error.to_string()))?,
            sources: sources(session, &ConfigArgs::default())?,
        })
    }

    /// As an image's request says it. Where nothing has been judged yet, the machine is emulated.
    pub(crate) fn system(&self, accelerator: Option<Accelerator>) -> System<'_> {
        match self.from {
            ImageFrom::Debian => System::Debian,
            ImageFrom::Ubuntu2404 => System::Ubuntu(CloudOrder {
                sources: &self.sources,
                accelerator: accelerator.unwrap_or(Accelerator::Tcg),
            }),
        }
    }
}

/// The newest Kubernetes whose modules are pinned.
pub(crate) fn newest_modules(session: &Session) -> Result<BundleOrder, Stop> {
    Ok(BundleOrder::modules(&session.workspace.root, None)?)
}

/// An image when the cache has it; builds nothing.
pub(crate) fn cached_image(
    session: &Session,
    system: System<'_>,
    recipe: &str,
    bundle: Option<&Bundle>,
) -> Result<Option<NodeImage>, Stop> {
    // Looking for an image compiles the guest program that is part of its name: not worth it, and
    // not what a plan should do, when there is no image at all.
    if !session.cache.path(Kind::Image, "").exists() {
        return Ok(None);
    }
    let request = image::ImageRequest {
        system,
        recipe,
        bundle,
        outdated: image::Outdated::Refuse,
    };
    Ok(image::cached(&session.workshop(), &request)?)
}

pub(crate) fn image_files(image: &NodeImage) -> ImageFiles {
    ImageFiles {
        name: image.manifest.name.clone(),
        disk: image.disk.clone(),
        kernel: image.kernel.clone(),
        initrd: image.initrd.clone(),
        append: image.manifest.kernel_command_line.clone(),
    }
}

/// What clusters of a size take of this machine; it does not depend on what is in the image.
pub(crate) fn appetite(
    nodes: u32,
    kubernetes: &str,
    accelerator: Accelerator,
) -> anyhow::Result<Appetite> {
    let image = ImageFiles {
        name: String::new(),
        disk: PathBuf::new(),
        kernel: PathBuf::new(),
        initrd: PathBuf::new(),
        append: String::new(),
    };
    let cell = Cell::usual(Bootstrap::ByHand);
    let plan = ClusterPlan::new(nodes, cell, kubernetes, &image, accelerator, "", "", None)?;
    Ok(Appetite {
        guests_mib: plan.memory_mib(),
        clone_mib: plan.host_memory_mib(),
    })
}

/// How many clones this machine runs at once, and what each may come to take: agreed with all other
/// processes that run some.
pub(crate) fn claim(what: &str, plan: &ClusterPlan) -> Claim {
    Claim {
        what: what.to_owned(),
        // By the cores alone: what memory allows, those who hold tickets considered, is decided
        // when the claim is made.
        slots: at_once(cores(), u64::MAX, plan.accelerator, plan.host_memory_mib()),
        memory_mib: plan.host_memory_mib(),
        keep_free_mib: KEEP_FREE_MIB,
    }
}

/// Says at once for whom it waits: that may take long.
struct Queue<'a>(&'a Progress);

impl Report for Queue<'_> {
    fn step(&self, what: &str) {
        self.0.step(what);
    }

    fn waiting(&self, whom: &str) {
        self.0.step(&format!("waiting for {whom}"));
    }
}

/// Waits until the machine carries one more cluster.
pub(crate) fn ticket(session: &Session, what: &str, plan: &ClusterPlan) -> Result<Ticket, Stop> {
    let admission = Admission::at(&session.cache.folder(ADMISSION)?)?;
    let claim = claim(what, plan);
    Ok(session.wait_for(admission.enter(&claim, &Queue(&session.progress)))?)
}

/// The folder of the cache in which clones agree on the machine's memory.
pub(crate) const ADMISSION: &str = "admission";

/// The cluster that a run is about.
pub(crate) fn cluster_plan(
    session: &Session,
    wanted: &Wanted<'_>,
    cell: Cell,
    image: &NodeImage,
    accelerator: Accelerator,
) -> anyhow::Result<ClusterPlan> {
    let qemu = accelerator::qemu_version(&session.spawner, &Programs::find()?.qemu)?;
    let files = image_files(image);
    Ok(ClusterPlan::new(
        wanted.nodes,
        cell,
        &wanted.bundle.kubernetes,
        &files,
        accelerator,
        qemu,
        host_cpu()?,
        wanted.broken,
    )?)
}

/// Those that the default run's scenarios start from, two for each bootstrap, and two on the way.
const FRESH_STAGES: usize = 6;

/// The plan of a default run on this machine with an empty cache.
pub(crate) fn fresh_plan(session: &Session, kubernetes: &str) -> Result<Plan, Stop> {
    let appetite = appetite(3, kubernetes, Accelerator::Tcg)?;
    let machine = Machine {
        cores: cores(),
        memory_available: Memory::of_host()?.available,
        disk_available: session.cache.disk()?.available,
        disk_giving_way: 0,
        accelerator: None,
    };
    Ok(Plan {
        machine,
        phases: Phase::ALL
            .into_iter()
            .map(|phase| (phase, Need::Missing(String::new())))
            .collect(),
        appetite,
        stages: FRESH_STAGES,
        scenarios: Vec::new(),
        at_once: 1,
    })
}

/// Where the cache keeps stages.
pub(crate) fn stages(session: &Session) -> anyhow::Result<Stages> {
    Ok(Stages::at(&session.cache.folder("stages")?))
}

fn verdict_key(session: &Session, qemu: &Path, base: &NodeImage) -> anyhow::Result<VerdictKey> {
    Ok(VerdictKey::here(&session.spawner, qemu, &base.kernel)?)
}

/// The accelerator's verdict if it was made since the host's boot.
pub(crate) fn known_verdict(
    session: &Session,
    base: &NodeImage,
) -> anyhow::Result<Option<Verdict>> {
    let key = verdict_key(session, &Programs::find()?.qemu, base)?;
    Ok(accelerator::cached_verdict(session.cache.root(), &key))
}

/// The accelerator's verdict, and whether it was known already.
pub(crate) fn verdict(
    session: &Session,
    programs: &Programs,
    base: &NodeImage,
) -> Result<(Verdict, bool), Stop> {
    let _lock = session.cache.lock("accelerator", &session.progress)?;
    let key = verdict_key(session, &programs.qemu, base)?;
    if let Some(verdict) = accelerator::cached_verdict(session.cache.root(), &key) {
        return Ok((verdict, true));
    }
    session
        .progress
        .step("booting a small guest to judge the accelerator");
    let guest = ProbeGuest {
        kernel: base.kernel.clone(),
        initrd: base.initrd.clone(),
    };
    let dir = session.cache.staging("accelerator")?;
    let judged = accelerator::judge(&session.spawner, &programs.qemu, &guest, dir.path());
    let verdict = session.wait_for(judged)?;
    accelerator::store_verdict(session.cache.root(), &key, &verdict)?;
    Ok((verdict, false))
}

/// Runs a build; its last line is shown as what is waited for, all of them go to `log`.
pub(crate) fn build(
    session: &Session,
    mut command: ChildCommand,
    log: &Path,
) -> anyhow::Result<()> {
    /// Lines that a failure quotes.
    const TAIL: usize = 60;
    let shown = command.display();
    session.progress.step("compiling the tests and scenarios");
    command.stderr = Stream::Piped;
    let mut child = session.spawner.spawn(command)?;
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut tail = VecDeque::new();
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|stream| BufReader::new(stream).lines())
    {
        let line = line?;
        writeln!(file, "{line}")?;
        session.progress.waiting(line.trim());
        tail.push_back(line);
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let tail = tail.into_iter().collect::<Vec<_>>().join("\n");
    anyhow::bail!(
        "`{shown}` ended with {status}:\n{tail}\n(all of it: {})",
        log.display()
    )
}
