//! Pod networks that are known by name: a manifest as published, and an image of the daemon that it runs, built
//! from its Go module over Debian's packages.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::debian_root::DebianRoot;
use super::lock::LockDifference;
use super::recipe::NODE;
use super::stored::archives;
use crate::bundle::{Apart, CALICO, KUBE_ROUTER};
use crate::digest::Inputs;
use crate::oci::{OciFile, OciImage, Program};
use crate::{Check, Error, Kind, Workshop};

/// A Pod network that nodes get by a manifest of podwire's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedNetwork {
    /// kube-router beside kube-proxy: routes by BGP, and a firewall for NetworkPolicies.
    KubeRouter,
    /// Calico beside kube-proxy: routes where nodes share a segment and VXLAN elsewhere, rules for NetworkPolicies,
    /// and addresses of its own choice.
    Calico,
}

/// What the images of one are made of.
struct Parts {
    programs: Apart,
    /// What its daemon runs, beside a shell: Debian's packages.
    packages: Vec<&'static str>,
    images: Vec<OciImage>,
}

/// What rules and routes are written with, and a shell.
const TOOLS: [&str; 6] = [
    "conntrack",
    "ipset",
    "iproute2",
    "iptables",
    "kmod",
    "netbase",
];

/// What starts Calico's daemons and looks after them.
const SUPERVISOR: &str = "runit";

/// What Calico's image has beside its program, where its Dockerfile has it, and where its sources do. Those that write
/// their words to files are not among them: the manifest has them on the daemon's output.
const OF_CALICO: [(&str, &str); 8] = [
    ("/etc/calico/felix.cfg", "etc/calico/felix.cfg"),
    ("/etc/rc.local", "etc/rc.local"),
    (
        "/etc/service/available/allocate-tunnel-addrs/run",
        "etc/service/available/allocate-tunnel-addrs/run",
    ),
    (
        "/etc/service/available/cni/run",
        "etc/service/available/cni/run",
    ),
    (
        "/etc/service/available/felix/run",
        "etc/service/available/felix/run",
    ),
    (
        "/etc/service/available/monitor-addresses/run",
        "etc/service/available/monitor-addresses/run",
    ),
    (
        "/etc/service/available/node-status-reporter/run",
        "etc/service/available/node-status-reporter/run",
    ),
    ("/usr/sbin/start_runit", "sbin/start_runit"),
];

fn file(path: &'static str, program: Program) -> OciFile {
    OciFile {
        path,
        program,
        capability: None,
    }
}

/// A program that was built apart.
fn built(path: &'static str, from: &str) -> OciFile {
    file(path, Program::Apart(from.to_owned()))
}

/// An image with no more than these files.
fn bare(reference: String, starts: &'static str, files: Vec<OciFile>) -> OciImage {
    OciImage {
        reference,
        files,
        debian: false,
        entrypoint: vec![starts],
        user: None,
    }
}

impl NamedNetwork {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::KubeRouter, Self::Calico];

    /// Its manifest, below the project's root.
    pub fn manifest(self, source: &Path) -> PathBuf {
        source.join(format!("images/networks/{self}.yaml"))
    }

    /// The recipe's name whose lock pins the packages of its image, where they are not all among the nodes'.
    pub fn lock(self) -> Option<&'static str> {
        match self {
            Self::KubeRouter => None,
            Self::Calico => Some("calico"),
        }
    }

    fn programs(self) -> Apart {
        match self {
            Self::KubeRouter => KUBE_ROUTER,
            Self::Calico => CALICO,
        }
    }

    /// What its images of this tag are made of.
    fn parts(self, tag: &str) -> Parts {
        let programs = self.programs();
        match self {
            Self::KubeRouter => {
                let program = "/usr/local/bin/kube-router";
                let reference = format!("docker.io/cloudnativelabs/kube-router:{tag}");
                let files = vec![built(program, "bin/kube-router")];
                Parts {
                    programs,
                    packages: TOOLS.to_vec(),
                    images: vec![OciImage {
                        debian: true,
                        ..bare(reference, program, files)
                    }],
                }
            }
            Self::Calico => {
                let reference = |name: &str| format!("docker.io/calico/{name}:{tag}");
                let source = |(path, from): (&'static str, &str)| {
                    file(path, Program::Source(format!("node/filesystem/{from}")))
                };
                let daemon = [built("/usr/bin/calico-node", "bin/calico-node")];
                let node = OciImage {
                    debian: true,
                    ..bare(
                        reference("node"),
                        "/usr/sbin/start_runit",
                        daemon.into_iter().chain(OF_CALICO.map(source)).collect(),
                    )
                };
                // Its installer copies all that is beside it onto the node.
                let plugins = bare(
                    reference("cni"),
                    "/opt/cni/bin/install",
                    vec![
                        built("/opt/cni/bin/bandwidth", "cni/bandwidth"),
                        built("/opt/cni/bin/calico", "bin/calico"),
                        built("/opt/cni/bin/calico-ipam", "bin/calico"),
                        built("/opt/cni/bin/install", "bin/install"),
                    ],
                );
                let controllers = bare(
                    reference("kube-controllers"),
                    "/usr/bin/kube-controllers",
                    vec![
                        // They write how they are into it, and make no folder for it.
                        file("/status/status.json", Program::Text("")),
                        built("/usr/bin/check-status", "bin/check-status"),
                        built("/usr/bin/kube-controllers", "bin/kube-controllers"),
                    ],
                );
                Parts {
                    programs,
                    packages: [TOOLS.as_slice(), &[SUPERVISOR]].concat(),
                    images: vec![node, plugins, controllers],
                }
            }
        }
    }
}

/// As a person writes it: `kube-router`.
impl fmt::Display for NamedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KubeRouter => "kube-router",
            Self::Calico => "calico",
        })
    }
}

/// What images of one are made of, as its pins have it.
struct Plan {
    name: String,
    parts: Parts,
    root: DebianRoot,
}

impl Plan {
    fn read(workshop: &Workshop<'_>, network: NamedNetwork) -> Result<Self, Error> {
        let programs = network.programs();
        let parts = network.parts(&programs.tag(workshop)?);
        let root = DebianRoot::read(
            workshop,
            &network.to_string(),
            &parts.packages,
            network.lock().unwrap_or(NODE),
        )?;
        let inputs = Inputs::of("network images")
            .with("programs", programs.name(workshop)?)
            .with("images", format!("{:?}", parts.images));
        Ok(Self {
            name: format!("{network}-images-{}", root.among(inputs).name()),
            parts,
            root,
        })
    }

    fn cached(&self, workshop: &Workshop<'_>) -> Result<Option<Vec<PathBuf>>, Error> {
        let found = (workshop.cache).find(Kind::Tool, &self.name, Check::Sizes)?;
        let dir = found.usable(&self.name, workshop.report);
        dir.map(|dir| archives(&dir)).transpose()
    }
}

/// The archives of a network's images, when they have been built from today's pins.
///
/// # Errors
/// [`Error`] when pins or cache cannot be read.
pub fn cached_network(
    workshop: &Workshop<'_>,
    network: NamedNetwork,
) -> Result<Option<Vec<PathBuf>>, Error> {
    Plan::read(workshop, network)?.cached(workshop)
}

/// The archives of a network's images, built on first use: its programs, and Debian's packages beneath its daemon.
///
/// # Errors
/// [`Error::NoPrivilege`]; [`Error::Step`] with the output of what failed.
pub fn network(workshop: &Workshop<'_>, network: NamedNetwork) -> Result<Vec<PathBuf>, Error> {
    let plan = Plan::read(workshop, network)?;
    let programs = plan.parts.programs.built(workshop)?;
    let _lock = (workshop.cache).lock(&format!("image-{network}"), workshop.report)?;
    if let Some(archives) = plan.cached(workshop)? {
        return Ok(archives);
    }
    let sources = plan.parts.programs.sources(workshop)?;
    let root = plan.root.pack(workshop)?;
    let staging = workshop.cache.staging(&format!("image-{network}"))?;
    for image in &plan.parts.images {
        let path = staging.path().join(image.file_name());
        let archive = image.archive(&root, |program| match program {
            Program::Source(path) => fs::read(sources.join(path)),
            Program::Text(text) => Ok(text.as_bytes().to_vec()),
            Program::Apart(path) | Program::Bundle(path) | Program::Newer(path) => {
                fs::read(programs.join(path))
            }
            Program::Probe => Err(std::io::ErrorKind::Unsupported.into()),
        });
        let archive = archive.map_err(Error::file("pack", &path))?;
        fs::write(&path, archive).map_err(Error::file("write", path))?;
    }
    let dir = (workshop.cache).publish(Kind::Tool, &plan.name, staging)?;
    archives(&dir)
}

/// Moves the lock of a network's packages to the archive's current versions, and tells what changed.
///
/// # Errors
/// As [`network`]; the lock is unchanged then.
pub fn bump_network(
    workshop: &Workshop<'_>,
    network: NamedNetwork,
) -> Result<Vec<LockDifference>, Error> {
    Plan::read(workshop, network)?.root.bump(workshop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
            let named: BTreeSet<&String> = manifest.images.keys().collect();
            let made = plan.parts.images.iter().map(|image| &image.reference);
            assert_eq!(named, made.collect(), "{network}");
            for package in &plan.root.recipe.packages {
                let locked = plan.root.lock.0.contains_key(package);
                assert!(locked, "{network}: {package}");
            }
            assert_eq!(cached_network(&workshop, network).unwrap(), None);
        }
    }
}
