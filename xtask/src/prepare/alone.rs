//! `cargo xtask bundle` and `image`: one part of a cluster, made alone.

use podwire_images::image::{ImageFrom, LockDifference, NamedNetwork};
use podwire_images::{Error, bundle, image};

use crate::command::cli::house::{BundleArgs, ImageAction, ImageArgs, ImageBuildArgs};
use crate::command::consent;
use crate::command::session::Session;
use crate::prepare::parts::{self, NodeSystem};
use crate::prepare::preparation::Preparation;
use crate::prepare::wanted::Wanted;
use crate::say::stop::Stop;
use crate::say::text;

/// `cargo xtask bundle`.
pub(crate) fn bundle(session: &Session, args: &BundleArgs) -> Result<(), Stop> {
    let order = parts::bundle_order(session, &args.sources)?;
    consent::host_packages(session, args.yes)?;
    session.progress.phase("bundle");
    let bundle = bundle::get(&session.workshop(), &order);
    session.progress.idle();
    let bundle = bundle?;
    outln!("{}", order.provenance());
    outln!("{}", bundle.dir.display());
    for (path, file) in &bundle.manifest.files {
        outln!(
            "  {path}  {}  sha256 {}  {}",
            text::size(file.size),
            file.sha256,
            file.origin
        );
    }
    for (reference, image) in &bundle.manifest.images {
        outln!(
            "  {reference}  sha256 {}  pulled as {}",
            image.sha256,
            image.from
        );
    }
    Ok(())
}

/// `cargo xtask image`, and `image bump`.
pub(crate) fn image(session: &Session, args: &ImageArgs) -> Result<(), Stop> {
    let system = NodeSystem::take(session, &args.from, &args.build.sources.config)?;
    if matches!(args.action, Some(ImageAction::Bump)) && system.kernel.is_some() {
        return Err(Stop::Usage(
            "--kernel: a lock is of the archive's packages, and a kernel of yours is none of them"
                .into(),
        ));
    }
    consent::host_packages(session, args.build.yes)?;
    match args.action {
        Some(ImageAction::Bump) => bump(session, &system),
        None => node_image(session, &system, &args.build),
    }
}

fn node_image(session: &Session, system: &NodeSystem, args: &ImageBuildArgs) -> Result<(), Stop> {
    let order = parts::bundle_order(session, &args.sources)?;
    let workshop = session.workshop();
    let accelerator = match system.from {
        ImageFrom::Debian => None,
        // It is customised in a machine.
        ImageFrom::Ubuntu2404 => {
            let wanted = Wanted {
                yes: args.yes,
                locked: args.locked,
                ..Wanted::cluster(&order, 1)
            };
            let judged = Preparation::new(session, wanted).judge()?;
            Some(judged.verdict.accelerator)
        }
    };
    session.progress.phase("bundle");
    let bundle = bundle::get(&workshop, &order)?;
    session.progress.phase("node image");
    let outdated = consent::outdated(session, args.yes, args.locked);
    let request = image::ImageRequest {
        system: system.system(accelerator),
        recipe: image::NODE,
        bundle: Some(&bundle),
        kernel: system.kernel.as_ref(),
        outdated: outdated.as_request(),
    };
    let built = image::get(&workshop, &request);
    session.progress.idle();
    let built = built?;
    let manifest = &built.image.manifest;
    let how = if built.cached { "cached" } else { "built" };
    outln!(
        "{} ({how}, {} packages)",
        built.image.dir.display(),
        manifest.packages
    );
    outln!("{}", order.provenance());
    if let Some(kernel) = &manifest.kernel {
        outln!("the kernel is of {kernel}");
    }
    for difference in &manifest.differences {
        outln!("  not as locked: {difference}");
    }
    if !manifest.differences.is_empty() {
        outln!("`cargo xtask image bump` moves the lock");
    }
    Ok(())
}

fn bump(session: &Session, system: &NodeSystem) -> Result<(), Stop> {
    let (locks, what): (&[(&str, &str)], _) = match system.from {
        ImageFrom::Debian => (
            &[(image::BASE, image::BASE), (image::NODE, image::NODE)],
            "packages",
        ),
        // One cloud image for both recipes.
        ImageFrom::Ubuntu2404 => (&[(image::UBUNTU, image::NODE)], "settings"),
    };
    let told = |lock: &str, differences: Result<Vec<LockDifference>, Error>| {
        session.progress.idle();
        let differences = differences?;
        outln!(
            "images/recipes/{lock}.lock: {} {what} changed",
            differences.len()
        );
        for difference in differences {
            outln!("  {difference}");
        }
        Ok::<_, Stop>(())
    };
    let phase = |lock: &str| session.progress.phase(&format!("lock of the {lock} image"));
    for (lock, recipe) in locks {
        phase(lock);
        let system = system.system(None);
        told(lock, image::bump(&session.workshop(), &system, recipe))?;
    }
    if system.from == ImageFrom::Debian {
        phase(image::CONFORMANCE);
        let differences = image::bump_conformance(&session.workshop());
        told(image::CONFORMANCE, differences)?;
        for network in NamedNetwork::ALL {
            if let Some(lock) = network.lock() {
                phase(lock);
                told(lock, image::bump_network(&session.workshop(), network))?;
            }
        }
    }
    Ok(())
}
