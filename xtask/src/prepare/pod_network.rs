//! A Pod network of the user's: read before anything is done, whole before any machine boots.

use std::path::Path;

use ipnet::Ipv4Net;
use podwire_cluster::addresses::PODS;
use podwire_cluster::{
    Controller, ControllerKind, Host, ImageFiles, ImageName, LayerImages, PodManifest,
};
use podwire_images::image::{self, NamedNetwork};
use podwire_images::pod_network::{
    ControllerKind as Kind, ImageArchive, PodNetworkError, PodNetworkFiles, PodNetworkManifest,
    Terms,
};
use podwire_images::{Check, Found, Kind as Artefact, NodeImage};

use crate::command::cli::change::{AskedNetwork, NetworkArgs};
use crate::command::session::Session;
use crate::prepare::{parts, tickets};
use crate::say::stop::Stop;

/// `--pod-network FILE --pod-images ARCHIVE ...` as far as files say it, or `--pod-network kube-router`.
#[derive(Debug)]
pub(crate) struct Given {
    manifest: PodNetworkManifest,
    archives: Vec<ImageArchive>,
    /// Whose image is to be built.
    named: Option<NamedNetwork>,
}

/// What a person wrote, or gave, is wrong.
fn usage(error: PodNetworkError) -> Stop {
    Stop::Usage(format!("{:#}", anyhow::Error::from(error)))
}

impl Given {
    /// What the command line names; nothing where it names no file.
    pub(crate) fn read(session: &Session, args: &NetworkArgs) -> Result<Option<Self>, Stop> {
        let (path, named) = match &args.pod_network {
            Some(AskedNetwork::Manifest(path)) => (path.clone(), None),
            Some(AskedNetwork::Named(network))
                if args.pod_images.is_empty() && !args.pull_policy_as_present =>
            {
                let path = network.manifest(session.workshop().source);
                (path, Some(*network))
            }
            _ => {
                let flag = match (args.pod_images.is_empty(), args.pull_policy_as_present) {
                    (true, false) => return Ok(None),
                    (false, _) => "--pod-images: these images are",
                    (true, true) => "--pull-policy-as-present: it is",
                };
                return Err(Stop::Usage(format!(
                    "{flag} for the Pod network of --pod-network FILE, and there is none"
                )));
            }
        };
        let terms = Terms {
            pods: Ipv4Net::new_assert(PODS.address, PODS.prefix),
            pull_policy_as_present: args.pull_policy_as_present,
        };
        let manifest = PodNetworkManifest::read(&path, terms).map_err(usage)?;
        let archives = args.pod_images.iter().map(|path| {
            session
                .progress
                .step(&format!("reading {}", path.display()));
            ImageArchive::read(path).map_err(usage)
        });
        let archives: Result<_, Stop> = archives.collect();
        session.progress.idle();
        let archives: Vec<_> = archives?;
        manifest.check(&path, &archives).map_err(usage)?;
        Ok(Some(Self {
            manifest,
            archives,
            named,
        }))
    }

    /// Whether its image is built by this host, of a Go module and Debian's packages.
    pub(crate) fn is_built(&self) -> bool {
        self.named.is_some()
    }

    /// Everything that it needs, if nothing has to be pulled or built.
    pub(crate) fn at_hand(&self, session: &Session) -> Result<Option<PodNetworkFiles>, Stop> {
        let built = match self.named {
            None => self.archives.clone(),
            Some(network) => match image::cached_network(&session.workshop(), network)? {
                None => return Ok(None),
                Some(archive) => vec![ImageArchive::read(&archive).map_err(usage)?],
            },
        };
        PodNetworkFiles::at_hand(&session.cache, &self.manifest, &built).map_err(usage)
    }

    /// Everything that it needs, and whether it was all there.
    pub(crate) fn gathered(&self, session: &Session) -> Result<(PodNetworkFiles, bool), Stop> {
        if let Some(files) = self.at_hand(session)? {
            return Ok((files, true));
        }
        let archives = match self.named {
            None => self.archives.clone(),
            Some(network) => {
                let archive = image::network(&session.workshop(), network)?;
                vec![ImageArchive::read(&archive).map_err(usage)?]
            }
        };
        let progress = &session.progress;
        let gather = PodNetworkFiles::gather(&session.cache, progress, &self.manifest, &archives);
        let files = session.wait_for(gather)?;
        for image in &files.images {
            progress.line(&format!("{} is {}", image.reference, image.digest));
        }
        Ok((files, false))
    }
}

/// What of the user's Pod network shapes a cluster of a node image, where there is one.
pub(crate) fn on(
    files: Option<&PodNetworkFiles>,
    node: &NodeImage,
) -> Result<Option<PodManifest>, Stop> {
    let Some(files) = files else {
        return Ok(None);
    };
    files.check(&node.manifest.oci_images).map_err(usage)?;
    let images = files.images.iter();
    let controllers = files.manifest.controllers.iter();
    Ok(Some(PodManifest {
        name: files.manifest.name.clone(),
        text: files.manifest.text.clone(),
        images: images
            .map(|image| (image.reference.clone(), image.digest.to_string()))
            .collect(),
        layer: files.layer_name(&node.manifest.name),
        controllers: controllers
            .map(|controller| Controller {
                kind: match controller.kind {
                    Kind::DaemonSet => ControllerKind::DaemonSet,
                    Kind::Deployment => ControllerKind::Deployment,
                },
                namespace: controller.namespace.clone(),
                name: controller.name.clone(),
            })
            .collect(),
    }))
}

/// The layer's name, where nothing is left to do for it.
pub(crate) fn cached_layer(
    session: &Session,
    node: &NodeImage,
    files: &PodNetworkFiles,
) -> Result<Option<String>, Stop> {
    let Some(name) = files.layer_name(&node.manifest.name) else {
        return Ok(Some("the node image has all images".to_owned()));
    };
    let found = session.cache.find(Artefact::Layer, &name, Check::Sizes)?;
    Ok(matches!(found, Found::Intact(_)).then_some(name))
}

/// The node image with the Pod network's images in a layer, and whether that was there; the node
/// image itself where there is nothing to add.
pub(crate) fn layered(
    session: &Session,
    host: &Host,
    node: &NodeImage,
    files: &PodNetworkFiles,
    logs: &Path,
) -> Result<(ImageFiles, bool), Stop> {
    let image = parts::image_files(node);
    let Some(name) = files.layer_name(&image.name) else {
        return Ok((image, true));
    };
    let cache = &session.cache;
    let _lock = cache.lock("layer", &session.progress)?;
    if let Found::Intact(dir) = cache.find(Artefact::Layer, &name, Check::Sizes)? {
        return Ok((image.with_layer(&dir)?, true));
    }
    let images = LayerImages {
        archives: files.archives.iter().map(|it| it.path.clone()).collect(),
        names: files
            .images
            .iter()
            .map(|image| ImageName {
                wanted: image.reference.clone(),
                imported: image.name.clone(),
            })
            .collect(),
    };
    let staging = cache.staging("layer")?;
    let plan = image.layer_plan(host.accelerator)?;
    let _ticket = tickets::ticket(session, "importing container images", &plan)?;
    session.wait_for(image.make_layer(host, &images, staging.path(), logs, &session.progress))?;
    let dir = cache.publish(Artefact::Layer, &name, staging)?;
    Ok((image.with_layer(&dir)?, false))
}
