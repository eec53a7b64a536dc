//! The parts that a cluster is put together from: a bundle, and what the nodes run.

use std::path::PathBuf;

use podwire_cluster::ImageFiles;
use podwire_images::bundle::Asked;
use podwire_images::image::{CloudOrder, ImageFrom, ImageManifest, OwnKernel, System};
use podwire_images::{Bundle, BundleOrder, Error, Kind, NodeImage, Sources, bundle, image};
use podwire_vm::Accelerator;

use crate::command::cli::change::{ConfigArgs, FromArgs, SourceArgs};
use crate::command::session::Session;
use crate::plan::phase::Phase;
use crate::say::stop::Stop;

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
        upgrade_to: args.upgrade_to.as_deref(),
    };
    BundleOrder::take(&session.workspace.root, &sources, &asked).map_err(|error| match error {
        Error::UnknownVersion { .. }
        | Error::UnknownRelease { .. }
        | Error::NoUpgrade { .. }
        | Error::OwnFile(_) => Stop::Usage(error.to_string()),
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
    /// The kernel that they boot instead of their system's own.
    pub(crate) kernel: Option<OwnKernel>,
    sources: Sources,
}

impl NodeSystem {
    /// What was asked for, else what the settings say.
    pub(crate) fn take(
        session: &Session,
        args: &FromArgs,
        config: &ConfigArgs,
    ) -> Result<Self, Stop> {
        let sources = sources(session, config)?;
        let kernel = OwnKernel::read(&args.kernel);
        let refused = |error| Stop::Usage(format!("--kernel {error}"));
        let kernel = kernel.map_err(refused)?;
        if let Some(kernel) = &kernel {
            kernel.check(&session.spawner).map_err(refused)?;
        }
        let from = args.from.unwrap_or(sources.image_from);
        if kernel.is_some() && from != ImageFrom::Debian {
            return Err(Stop::Usage(format!(
                "--kernel: the nodes' image of {from} is made in a machine that runs its own kernel, and stays \
                 with it; add --from debian"
            )));
        }
        Ok(Self {
            from,
            kernel,
            sources,
        })
    }

    /// What an image has.
    pub(crate) fn of_image(session: &Session, image: &ImageManifest) -> Result<Self, Stop> {
        let from = image.from.parse::<ImageFrom>();
        Ok(Self {
            from: from.map_err(|error| Stop::setup(error.to_string()))?,
            kernel: None,
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

impl std::fmt::Display for NodeSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.from)?;
        match &self.kernel {
            None => Ok(()),
            Some(kernel) => write!(f, " with the kernel of {kernel}"),
        }
    }
}

/// The newest Kubernetes whose modules are pinned.
pub(crate) fn newest_modules(session: &Session) -> Result<BundleOrder, Stop> {
    Ok(BundleOrder::modules(&session.workspace.root, None)?)
}

/// The base image when the cache has it; builds nothing.
pub(crate) fn cached_base(session: &Session) -> Result<Option<NodeImage>, Stop> {
    cached_image(session, System::Debian, image::BASE, (None, None))
}

/// The node image of such a system when the cache has it; builds nothing.
pub(crate) fn cached_node(
    session: &Session,
    system: &NodeSystem,
    bundle: &Bundle,
) -> Result<Option<NodeImage>, Stop> {
    let with = (Some(bundle), system.kernel.as_ref());
    cached_image(session, system.system(None), image::NODE, with)
}

fn cached_image(
    session: &Session,
    system: System<'_>,
    recipe: &str,
    (bundle, kernel): (Option<&Bundle>, Option<&OwnKernel>),
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
        kernel,
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
