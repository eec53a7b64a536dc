//! Pod networks that are known by name: a manifest as published, and an image of the daemon that it runs, built
//! from its Go module over Debian's packages.

mod parts;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::debian_root::DebianRoot;
use super::lock::LockDifference;
use super::recipe::NODE;
use super::stored::archives;
use crate::digest::Inputs;
use crate::files::files_below;
use crate::oci::{OciFile, OciImage, Program};
use crate::{Check, Error, Kind, Workshop};
use parts::Parts;

/// A Pod network that others publish and that nodes get by its name: its manifest, adapted, is in `images/networks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedNetwork {
    /// kube-router beside kube-proxy: routes by BGP, and a firewall for NetworkPolicies.
    KubeRouter,
    /// Calico beside kube-proxy: routes where nodes share a segment and VXLAN elsewhere, rules for NetworkPolicies,
    /// and addresses of its own choice.
    Calico,
    /// Cilium beside kube-proxy: programs of the kernel's own (eBPF) at each Pod, routes, and addresses of the Node's
    /// range.
    Cilium,
    /// flannel (VXLAN) beside kube-proxy, with the program, the CNI plugin and the manifest that it publishes.
    FlannelPublished,
}

impl NamedNetwork {
    /// Each of them.
    pub const ALL: [Self; 4] = [
        Self::KubeRouter,
        Self::Calico,
        Self::Cilium,
        Self::FlannelPublished,
    ];

    /// Its manifest, below the project's root.
    pub fn manifest(self, source: &Path) -> PathBuf {
        source.join(format!("images/networks/{self}.yaml"))
    }

    /// The recipe's name whose lock pins the packages of its image, where they are not all among the nodes'.
    pub fn lock(self) -> Option<&'static str> {
        match self {
            Self::KubeRouter | Self::FlannelPublished => None,
            Self::Calico => Some("calico"),
            Self::Cilium => Some("cilium"),
        }
    }
}

/// As a person writes it: `kube-router`.
impl fmt::Display for NamedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KubeRouter => "kube-router",
            Self::Calico => "calico",
            Self::Cilium => "cilium",
            Self::FlannelPublished => "flannel-published",
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
        let parts = Parts::read(workshop, network)?;
        let root = DebianRoot::read(
            workshop,
            &network.to_string(),
            &parts.packages,
            network.lock().unwrap_or(NODE),
        )?;
        let mut inputs = Inputs::of("network images").with("images", format!("{:?}", parts.images));
        for programs in parts.programs {
            inputs = inputs.with("programs", programs.name(workshop)?);
        }
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
    let built = plan
        .parts
        .programs
        .iter()
        .map(|programs| programs.built(workshop));
    let built: Vec<PathBuf> = built.collect::<Result<_, _>>()?;
    let _lock = (workshop.cache).lock(&format!("image-{network}"), workshop.report)?;
    if let Some(archives) = plan.cached(workshop)? {
        return Ok(archives);
    }
    let sources = plan.parts.sources(workshop)?;
    let root = plan.root.pack(workshop)?;
    let staging = workshop.cache.staging(&format!("image-{network}"))?;
    for image in &plan.parts.images {
        let path = staging.path().join(image.file_name());
        let image = with_sources(image, &sources)?;
        let archive = image.archive(&root, |program| match program {
            Program::Source(path) => fs::read(sources.join(path)),
            Program::Text(text) => Ok(text.as_bytes().to_vec()),
            Program::Apart(path) => {
                let mut found = built.iter().map(|folder| folder.join(path));
                let found = found.find(|path| path.exists());
                fs::read(found.unwrap_or_else(|| path.into()))
            }
            Program::Probe | Program::Bundle(_) | Program::Newer(_) | Program::Sources(_) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        });
        let archive = archive.map_err(Error::file("pack", &path))?;
        fs::write(&path, archive).map_err(Error::file("write", path))?;
    }
    let dir = (workshop.cache).publish(Kind::Tool, &plan.name, staging)?;
    archives(&dir)
}

/// An image with each file of the sources' folders that it names.
fn with_sources(image: &OciImage, sources: &Path) -> Result<OciImage, Error> {
    let mut files = Vec::new();
    for file in &image.files {
        let Program::Sources(folder) = &file.program else {
            files.push(file.clone());
            continue;
        };
        let mut found = BTreeSet::new();
        files_below(sources, Path::new(folder), &mut found)?;
        for from in found {
            let from = from.display().to_string();
            files.push(OciFile {
                path: from.replacen(folder, &file.path, 1).into(),
                program: Program::Source(from),
                capability: None,
            });
        }
    }
    Ok(OciImage {
        files,
        ..image.clone()
    })
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
    use super::*;
    use crate::Cache;
    use crate::image::inquiry::tests::source;
    use crate::pod_network::{PodNetworkManifest, Terms};
    use crate::test_host::Loud;
    use podwire_process::Spawner;

    #[test]
    fn a_folder_of_the_sources_is_each_file_in_it() {
        let sources = tempfile::tempdir().unwrap();
        let lib = sources.path().join("bpf/lib");
        fs::create_dir_all(lib.join("bpf")).unwrap();
        for name in ["common.h", "bpf/map.h"] {
            fs::write(lib.join(name), "").unwrap();
        }
        let folder = OciFile {
            path: "/var/lib/bpf/lib".into(),
            program: Program::Sources("bpf/lib".to_owned()),
            capability: None,
        };
        let image = OciImage {
            reference: "net:1".to_owned(),
            files: vec![folder],
            debian: false,
            entrypoint: vec!["/daemon"],
            user: None,
        };
        let image = with_sources(&image, sources.path()).unwrap();
        let shown = image.files.iter().map(|file| (&*file.path, &file.program));
        insta::assert_debug_snapshot!(shown.collect::<Vec<_>>(), @r#"
        [
            (
                "/var/lib/bpf/lib/bpf/map.h",
                Source(
                    "bpf/lib/bpf/map.h",
                ),
            ),
            (
                "/var/lib/bpf/lib/common.h",
                Source(
                    "bpf/lib/common.h",
                ),
            ),
        ]
        "#);
        let none = with_sources(&image, Path::new("/nowhere")).unwrap();
        assert_eq!(none, image, "nothing of it is a folder any more");
    }

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
            by_hand: true,
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
