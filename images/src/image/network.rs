//! Pod networks that are known by name: a manifest as published, and an image of the daemon that it runs, built
//! from its Go module over Debian's packages.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::debian_root::DebianRoot;
use super::recipe::NODE;
use crate::digest::Inputs;
use crate::oci::{OciFile, OciImage, Program};
use crate::{Check, Error, Kind, Workshop, bundle};

/// The image's archive, in its folder of the cache.
const ARCHIVE: &str = "image.tar";

/// A Pod network that nodes get by a manifest of podwire's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedNetwork {
    /// kube-router beside kube-proxy: routes by BGP, and a firewall for NetworkPolicies.
    KubeRouter,
}

impl NamedNetwork {
    /// Each of them.
    pub const ALL: [Self; 1] = [Self::KubeRouter];

    /// Its manifest, below the project's root.
    pub fn manifest(self, source: &Path) -> PathBuf {
        source.join(format!("images/networks/{self}.yaml"))
    }

    /// What its program runs, beside a shell: Debian's packages.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::KubeRouter => &[
                "conntrack",
                "ipset",
                "iproute2",
                "iptables",
                "kmod",
                "netbase",
            ],
        }
    }

    fn image(self, reference: String) -> OciImage {
        match self {
            Self::KubeRouter => OciImage {
                reference,
                files: vec![OciFile {
                    path: "/usr/local/bin/kube-router",
                    program: Program::Alone,
                    capability: None,
                }],
                debian: true,
                entrypoint: vec!["/usr/local/bin/kube-router"],
                user: None,
            },
        }
    }
}

/// As a person writes it: `kube-router`.
impl fmt::Display for NamedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KubeRouter => "kube-router",
        })
    }
}

/// What an image of one is made of.
struct Plan {
    name: String,
    reference: String,
    root: DebianRoot,
}

impl Plan {
    fn read(workshop: &Workshop<'_>, network: NamedNetwork) -> Result<Self, Error> {
        // Its tools are those of the nodes.
        let root = DebianRoot::read(workshop, &network.to_string(), network.packages(), NODE)?;
        let pinned = bundle::kube_router_pinned(workshop)?;
        let reference = format!("docker.io/cloudnativelabs/kube-router:v{}", pinned.version);
        let inputs = Inputs::of("network image")
            .with("program", &pinned.name)
            .with("reference", &reference);
        Ok(Self {
            name: format!("{network}-image-{}", root.among(inputs).name()),
            reference,
            root,
        })
    }

    fn cached(&self, workshop: &Workshop<'_>) -> Result<Option<PathBuf>, Error> {
        let found = (workshop.cache).find(Kind::Tool, &self.name, Check::Sizes)?;
        let dir = found.usable(&self.name, workshop.report);
        Ok(dir.map(|dir| dir.join(ARCHIVE)))
    }
}

/// The archive of a network's image, when it has been built from today's pins.
///
/// # Errors
/// [`Error`] when pins or cache cannot be read.
pub fn cached_network(
    workshop: &Workshop<'_>,
    network: NamedNetwork,
) -> Result<Option<PathBuf>, Error> {
    Plan::read(workshop, network)?.cached(workshop)
}

/// The archive of a network's image, built on first use: its program, and Debian's packages beneath it, of the
/// versions that the node image has.
///
/// # Errors
/// [`Error::NoPrivilege`]; [`Error::Step`] with the output of what failed.
pub fn network(workshop: &Workshop<'_>, network: NamedNetwork) -> Result<PathBuf, Error> {
    let plan = Plan::read(workshop, network)?;
    let program = match network {
        NamedNetwork::KubeRouter => bundle::kube_router(workshop)?,
    };
    let _lock = (workshop.cache).lock(&format!("image-{network}"), workshop.report)?;
    if let Some(archive) = plan.cached(workshop)? {
        return Ok(archive);
    }
    let root = plan.root.pack(workshop)?;
    let image = network.image(plan.reference);
    let archive = image.archive(&root, |_| fs::read(&program));
    let staging = workshop.cache.staging(&format!("image-{network}"))?;
    let path = staging.path().join(ARCHIVE);
    let archive = archive.map_err(Error::file("pack", &path))?;
    fs::write(&path, archive).map_err(Error::file("write", path))?;
    let dir = (workshop.cache).publish(Kind::Tool, &plan.name, staging)?;
    Ok(dir.join(ARCHIVE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;
    use crate::image::inquiry::tests::source;
    use crate::pod_network::{PodNetworkManifest, Terms};
    use crate::test_host::Loud;
    use podwire_process::Spawner;

    #[test]
    fn each_manifest_runs_the_image_that_is_built_for_it_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, spawner) = (Cache::at(&dir.path().join("cache")), Spawner::start());
        let (cache, spawner) = (cache.unwrap(), spawner.unwrap());
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &Loud,
            source: source(),
        };
        let terms = Terms {
            pods: ipnet::Ipv4Net::new_assert([10, 1, 0, 0].into(), 16),
            pull_policy_as_present: false,
        };
        for network in NamedNetwork::ALL {
            let manifest = PodNetworkManifest::read(&network.manifest(source()), terms).unwrap();
            let plan = Plan::read(&workshop, network).unwrap();
            let images: Vec<&String> = manifest.images.keys().collect();
            assert_eq!(images, [&plan.reference], "{network}");
            for package in &plan.root.recipe.packages {
                let locked = plan.root.lock.0.contains_key(package);
                assert!(locked, "{network}: {package}");
            }
            assert_eq!(cached_network(&workshop, network).unwrap(), None);
        }
    }
}
