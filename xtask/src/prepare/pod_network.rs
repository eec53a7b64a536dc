//! A Pod network of the user's, and images of Pods: read before anything is done, whole before any machine boots.

use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use podwire_cluster::addresses::PODS;
use podwire_cluster::{
    Bootstrap, Cell, ClusterPlan, Controller, ControllerKind, Host, ImageFiles, ImageName,
    LayerImages, PodImages, PodManifest, PodNetwork, Published,
};
use podwire_images::image::{self, NamedNetwork};
use podwire_images::pod_network::{
    BroughtFiles, ControllerKind as Kind, ImageArchive, PodNetworkError, PodNetworkManifest, Terms,
};
use podwire_images::{Check, Digest, Error, Found, Kind as Artefact, NodeImage};

use crate::command::cli::change::{AskedNetwork, NetworkArgs};
use crate::command::session::Session;
use crate::prepare::{parts, tickets};
use crate::say::stop::Stop;

/// `--pod-network FILE` or `--pod-network calico`, `--pod-images ARCHIVE ...`, and what the conformance tests run,
/// as far as files say it.
#[derive(Debug)]
pub(crate) struct Given {
    manifest: Option<PodNetworkManifest>,
    archives: Vec<ImageArchive>,
    /// Whose image is to be built.
    named: Option<NamedNetwork>,
    /// The version whose conformance tests' images are to be built.
    conformance: Option<String>,
}

/// The network's manifest and images, as podwire makes them.
fn made_here(network: Published) -> NamedNetwork {
    match network {
        Published::KubeRouter => NamedNetwork::KubeRouter,
        Published::Calico => NamedNetwork::Calico,
        Published::Cilium => NamedNetwork::Cilium,
        Published::Flannel => NamedNetwork::FlannelPublished,
    }
}

/// `net.yaml (sha256 0123456789ab)`.
fn recognised(name: &str, sha256: &str) -> String {
    let digits = sha256.trim_start_matches("sha256:");
    let digits: String = digits.chars().take(12).collect();
    format!("{name} (sha256 {digits})")
}

/// What a person wrote, or gave, is wrong.
fn usage(error: PodNetworkError) -> Stop {
    Stop::Usage(format!("{:#}", anyhow::Error::from(error)))
}

/// What to say of images for which a Pod asks a registry unless it says otherwise: Kubernetes' own default for
/// the tag `latest`, and for none at all. What a manifest names has its policy.
fn asking(manifest: Option<&PodNetworkManifest>, archives: &[ImageArchive]) -> Vec<String> {
    let held = archives.iter().flat_map(|archive| &archive.held);
    let latest = held.filter(|image| {
        let named = manifest.is_some_and(|it| it.images.contains_key(&image.reference));
        image.reference.ends_with(":latest") && !named
    });
    let said = latest.map(|image| {
        format!(
            "{}: a Pod of it starts only with imagePullPolicy: IfNotPresent, for with this tag Kubernetes asks a \
             registry, and nodes reach none",
            image.reference
        )
    });
    said.collect()
}

impl Given {
    /// What the command line names for these cells, and the images of a version's conformance tests where they run;
    /// nothing where there is nothing.
    pub(crate) fn read(
        session: &Session,
        args: &NetworkArgs,
        cells: &[Cell],
        conformance: Option<&str>,
    ) -> Result<Option<Self>, Stop> {
        let (path, named) = match &args.pod_network {
            Some(AskedNetwork::Manifest(path)) => (Some(path.clone()), None),
            Some(AskedNetwork::Known(PodNetwork::Published(network))) => {
                let named = made_here(*network);
                let path = named.manifest(session.workshop().source);
                (Some(path), Some(named))
            }
            Some(AskedNetwork::Known(_)) | None => (None, None),
        };
        if args.pull_policy_as_present && (path.is_none() || named.is_some()) {
            return Err(Stop::Usage(
                "--pull-policy-as-present: it is for the manifest of --pod-network FILE, and there is none"
                    .to_owned(),
            ));
        }
        if path.is_none() && args.pod_images.is_empty() && conformance.is_none() {
            return Ok(None);
        }
        let terms = Terms {
            pods: Ipv4Net::new_assert(PODS.address, PODS.prefix),
            pull_policy_as_present: args.pull_policy_as_present,
            by_hand: cells.iter().any(|cell| cell.bootstrap == Bootstrap::ByHand),
        };
        let read = path
            .as_deref()
            .map(|path| PodNetworkManifest::read(path, terms));
        let manifest = read.transpose().map_err(usage)?;
        let archives = args.pod_images.iter().map(|path| {
            session
                .progress
                .step(&format!("reading {}", path.display()));
            ImageArchive::read(path).map_err(usage)
        });
        let archives: Result<_, Stop> = archives.collect();
        session.progress.idle();
        let archives: Vec<_> = archives?;
        if let (Some(manifest), Some(path)) = (&manifest, &path) {
            manifest.check(path, &archives).map_err(usage)?;
        }
        for line in asking(manifest.as_ref(), &archives) {
            session.progress.line(&line);
        }
        Ok(Some(Self {
            manifest,
            archives,
            named,
            conformance: conformance.map(str::to_owned),
        }))
    }

    /// For reports, of a manifest of the user's: the file and what it is recognised by. Cells say the others' names.
    pub(crate) fn network(&self) -> Option<String> {
        let manifest = self.manifest.as_ref().filter(|_| self.named.is_none())?;
        let digest = Digest::sha256_of(manifest.text.as_bytes());
        Some(recognised(&manifest.name, &digest.to_string()))
    }

    /// The archives of the user's, likewise.
    pub(crate) fn images(&self) -> Vec<String> {
        let archives = self.archives.iter();
        let named = archives.map(|it| {
            let name = it.path.file_name().unwrap_or_default().to_string_lossy();
            recognised(&name, &it.sha256)
        });
        named.collect()
    }

    /// Whether registries may be asked for some of it.
    pub(crate) fn is_pulled(&self) -> bool {
        self.manifest.is_some() && self.named.is_none()
    }

    /// Whether some of it is built by this host, of Go modules and Debian's packages.
    pub(crate) fn is_built(&self) -> bool {
        self.named.is_some() || self.conformance.is_some()
    }

    /// The archives that are given, and those that are built here; nothing while one of these is missing.
    fn archives(
        &self,
        network: impl Fn(NamedNetwork) -> Result<Option<Vec<PathBuf>>, Error>,
        conformance: impl Fn(&str) -> Result<Option<Vec<PathBuf>>, Error>,
    ) -> Result<Option<Vec<ImageArchive>>, Stop> {
        let mut built = Vec::new();
        if let Some(named) = self.named {
            match network(named)? {
                Some(paths) => built.extend(paths),
                None => return Ok(None),
            }
        }
        if let Some(version) = &self.conformance {
            match conformance(version)? {
                Some(paths) => built.extend(paths),
                None => return Ok(None),
            }
        }
        let built = built
            .iter()
            .map(|path| ImageArchive::read(path).map_err(usage));
        let built: Vec<ImageArchive> = built.collect::<Result<_, _>>()?;
        Ok(Some([self.archives.clone(), built].concat()))
    }

    /// Everything that it needs, if nothing has to be pulled or built.
    pub(crate) fn at_hand(&self, session: &Session) -> Result<Option<BroughtFiles>, Stop> {
        let workshop = session.workshop();
        let archives = self.archives(
            |network| image::cached_network(&workshop, network),
            |version| image::cached_conformance(&workshop, version),
        )?;
        let Some(archives) = archives else {
            return Ok(None);
        };
        BroughtFiles::at_hand(&session.cache, self.manifest.as_ref(), &archives).map_err(usage)
    }

    /// Everything that it needs, and whether it was all there.
    pub(crate) fn gathered(&self, session: &Session) -> Result<(BroughtFiles, bool), Stop> {
        if let Some(files) = self.at_hand(session)? {
            return Ok((files, true));
        }
        let workshop = session.workshop();
        let archives = self.archives(
            |network| image::network(&workshop, network).map(Some),
            |version| image::conformance(&workshop, version).map(Some),
        )?;
        let archives = archives.unwrap_or_default();
        let (cache, progress) = (&session.cache, &session.progress);
        let gather = BroughtFiles::gather(cache, progress, self.manifest.as_ref(), &archives);
        let files = session.wait_for(gather)?;
        for image in &files.images {
            progress.line(&format!("{} is {}", image.reference, image.digest));
        }
        Ok((files, false))
    }
}

/// What shapes the clusters of a node image, of all that is brought onto nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    pub(crate) manifest: Option<PodManifest>,
    pub(crate) images: Option<PodImages>,
}

impl Shape {
    /// Of what is given, with these files, on nodes of this image.
    pub(crate) fn on(
        node: &NodeImage,
        given: Option<&Given>,
        files: Option<&BroughtFiles>,
    ) -> Result<Self, Stop> {
        let Some(files) = files else {
            return Ok(Self::default());
        };
        for archive in given.iter().flat_map(|given| &given.archives) {
            let present = &node.manifest.oci_images;
            archive.replaces_none(present).map_err(usage)?;
        }
        files.check(&node.manifest.oci_images).map_err(usage)?;
        let images = files.images.iter();
        let digests = images.map(|image| (image.reference.clone(), image.digest.to_string()));
        let layer = files.layer_name(&node.manifest.name);
        Ok(Self {
            manifest: files.manifest.as_ref().map(pod_manifest),
            images: layer.map(|layer| PodImages {
                digests: digests.collect(),
                layer,
            }),
        })
    }

    /// A plan of which the same holds otherwise.
    pub(crate) fn of(&self, plan: ClusterPlan) -> ClusterPlan {
        plan.with_pod_manifest(self.manifest.clone())
            .with_pod_images(self.images.clone())
    }
}

fn pod_manifest(manifest: &PodNetworkManifest) -> PodManifest {
    let controllers = manifest.controllers.iter();
    PodManifest {
        name: manifest.name.clone(),
        text: manifest.text.clone(),
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
    }
}

/// The layer's name, where nothing is left to do for it.
pub(crate) fn cached_layer(
    session: &Session,
    node: &NodeImage,
    files: &BroughtFiles,
) -> Result<Option<String>, Stop> {
    let Some(name) = files.layer_name(&node.manifest.name) else {
        return Ok(Some("the node image has all images".to_owned()));
    };
    let found = session.cache.find(Artefact::Layer, &name, Check::Sizes)?;
    Ok(matches!(found, Found::Intact(_)).then_some(name))
}

/// The node image with images of Pods in a layer, and whether that was there; the node image itself
/// where there is nothing to add.
pub(crate) fn layered(
    session: &Session,
    host: &Host,
    node: &NodeImage,
    files: &BroughtFiles,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use podwire_images::pod_network::{HeldImage, Place};

    use super::*;

    #[test]
    fn a_network_of_the_user_s_is_recognised_by_its_file_and_archives_by_theirs() {
        let given = |named| Given {
            manifest: Some(PodNetworkManifest {
                name: "net.yaml".into(),
                text: "kind: Pod\n".into(),
                images: BTreeMap::new(),
                controllers: Vec::new(),
            }),
            archives: vec![ImageArchive {
                path: "/mine/web.tar".into(),
                sha256: "0123456789abcdef".into(),
                held: Vec::new(),
                nameless: 0,
            }],
            named,
            conformance: None,
        };
        let own = given(None);
        let network = own.network().unwrap();
        assert_eq!(network, "net.yaml (sha256 af0e5d10555f)");
        assert_eq!(own.images(), ["web.tar (sha256 0123456789ab)"]);
        assert_eq!(given(Some(NamedNetwork::Calico)).network(), None);
    }

    #[test]
    fn a_pod_that_would_ask_a_registry_by_itself_is_told_of() {
        let held = |reference: &str| HeldImage {
            name: reference.to_owned(),
            reference: reference.to_owned(),
            digest: Digest::sha256_of(b""),
        };
        let archive = |reference: &str| ImageArchive {
            path: "/mine/web.tar".into(),
            sha256: "0123456789abcdef".into(),
            held: vec![held(reference)],
            nameless: 0,
        };
        let [web, agent] = ["docker.io/library/web:latest", "quay.io/agent:latest"];
        let archives = [archive(web), archive(agent), archive("quay.io/other:1")];
        let place = Place {
            path: "net.yaml".into(),
            line: 1,
        };
        let manifest = PodNetworkManifest {
            name: "net.yaml".into(),
            text: "kind: Pod\n".into(),
            images: [(agent.to_owned(), place)].into(),
            controllers: Vec::new(),
        };
        let said = asking(Some(&manifest), &archives);
        assert_eq!(
            said,
            [
                "docker.io/library/web:latest: a Pod of it starts only with imagePullPolicy: IfNotPresent, for with \
                 this tag Kubernetes asks a registry, and nodes reach none"
            ]
        );
        assert_eq!(asking(None, &archives).len(), 2);
    }

    #[test]
    fn a_network_has_one_name_in_cells_and_among_what_is_made_here() {
        for network in Published::ALL {
            let cell = PodNetwork::Published(network).to_string();
            assert_eq!(made_here(network).to_string(), cell);
        }
    }
}
