//! The Kubernetes under test: programs, and the container images that come with an official release.
//!
//! Wherever it comes from, a bundle is a folder with the programs in `bin/`, the CNI plugins in
//! `cni/`, archives of container images in `images/`, and a manifest that says of each file where it
//! came from.

mod apart;
mod component;
mod directory;
mod e2e;
mod modules;
mod release;
mod replace;
#[cfg(test)]
pub(crate) mod test_publisher;
#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::{ChildCommand, run};
use serde::{Deserialize, Serialize};

use crate::digest::sha256_file;
use crate::files::{read_json, write_json};
use crate::sources::Sources;
use crate::{Check, Digest, Error, Kind, Staging, Workshop};

pub use apart::{Apart, CALICO, CILIUM, FLANNEL_CNI_PLUGIN, FLANNEL_PUBLISHED, KUBE_ROUTER};
pub use component::{Component, OwnFileError};
pub(crate) use component::{head as program_head, not_for_nodes};
pub use directory::BundleFrom;
pub(crate) use e2e::e2e_name;
pub use e2e::{EndToEnd, cached_e2e, e2e, e2e_versions, network_conformance};
pub use replace::{OwnFile, Replacement};
pub use version::{resolve, versions};

/// Counted up when the way in which bundles are put together changes.
const RECIPE: &str = "3";

const MANIFEST: &str = "manifest.json";

/// What a [`Provenance`] calls an official release.
const RELEASE: &str = "release";

/// How long kubeadm may take to list its images.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// A bundle in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Its name: the digest of its inputs.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// What is in it.
    pub manifest: BundleManifest,
    /// The newer one that its clusters can be upgraded to.
    pub upgrade: Option<Box<Bundle>>,
}

impl Bundle {
    /// The same, with what its clusters can be upgraded to.
    #[must_use]
    pub fn upgraded_to(self, newer: Self) -> Self {
        Self {
            upgrade: Some(Box::new(newer)),
            ..self
        }
    }
}

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleManifest {
    /// Version of Kubernetes, without `v`.
    pub kubernetes: String,
    /// Versions of what has its own, without `v`: `cni-plugins`, `crictl`, `flannel`.
    pub versions: BTreeMap<String, String>,
    /// The programs, by path in the bundle: `bin/kubelet`, `cni/bridge`.
    pub files: BTreeMap<String, BundleFile>,
    /// The container images that its kubeadm wants, by reference.
    pub kubeadm_images: Vec<String>,
    /// Those of them that are in the bundle, by reference; the others are made of the programs.
    pub images: BTreeMap<String, BundleImage>,
}

impl BundleManifest {
    /// Whether every program was built from pinned modules.
    pub fn is_of_modules(&self) -> bool {
        let mut files = self.files.values();
        files.all(|file| matches!(file.origin, Origin::Module { .. }))
    }
}

/// One program of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleFile {
    /// Where it came from.
    pub origin: Origin,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// One container image of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleImage {
    /// Its OCI archive: path in the bundle.
    pub archive: String,
    /// What the archive's bytes hash to.
    pub sha256: String,
    /// What it was pulled as.
    pub from: String,
}

/// Where a program came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Built here from a Go module.
    Module {
        /// Its main package.
        package: String,
        /// The module that this belongs to.
        module: String,
        /// The module's version.
        version: String,
        /// The Go release that built it.
        go: String,
    },
    /// Published as part of a release: the file itself, or the archive that has it.
    Release {
        /// Its address, as it is told.
        url: String,
        /// What is published about its contents.
        digest: Digest,
    },
    /// A file of the user's.
    File {
        /// As the user wrote it.
        path: PathBuf,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module {
                module, version, ..
            } => write!(f, "built from {module} {version}"),
            Self::Release { url, .. } => write!(f, "from {url}"),
            Self::File { path } => write!(f, "from {}", path.display()),
        }
    }
}

/// What a bundle is to be made of: settled, read and checked before anything is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleOrder {
    /// Version of Kubernetes, without `v`.
    pub kubernetes: String,
    base: Base,
    /// The folder of one's own files, as the user wrote it.
    dir: Option<PathBuf>,
    /// Those files, and replaced components, which come last.
    own: Vec<OwnFile>,
    /// What its clusters can be upgraded to.
    pub upgrade: Option<Box<BundleOrder>>,
}

/// Where everything comes from that is not one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    Modules,
    Release(Box<release::Release>),
}

/// What the user asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `--kubernetes`.
    pub kubernetes: Option<&'a str>,
    /// `--bundle-from`; else what the settings say.
    pub from: Option<&'a BundleFrom>,
    /// `--replace`.
    pub replace: &'a [Replacement],
    /// `--upgrade-to`.
    pub upgrade_to: Option<&'a str>,
}

impl BundleOrder {
    /// Settles what is asked for: reads the versions that there are and the user's own files, of which a newer
    /// Kubernetes that clusters are upgraded to has none.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] and its like for a version that is not to be had so;
    /// [`Error::NoUpgrade`] where kubeadm would not upgrade to it; [`Error::OwnFile`] for a file of the user's that no node could run.
    pub fn take(source: &Path, sources: &Sources, asked: &Asked<'_>) -> Result<Self, Error> {
        let default = &sources.bundle_from;
        let from = asked.from.unwrap_or(default);
        let (base, dir) = match (from, default) {
            (BundleFrom::Directory(dir), BundleFrom::Directory(_)) => {
                (&BundleFrom::Modules, Some(dir))
            }
            (BundleFrom::Directory(dir), default) => (default, Some(dir)),
            (from, _) => (from, None),
        };
        let known = versions(source)?;
        let (kubernetes, base) = match base {
            BundleFrom::Release => {
                let version = version::of_release(&known, asked.kubernetes)?;
                let release = release::Release::read(source, sources, &version)?;
                (version, Base::Release(Box::new(release)))
            }
            _ => (resolve(&known, asked.kubernetes)?, Base::Modules),
        };
        let mut own = match dir {
            Some(dir) => directory::read(dir)?,
            None => Vec::new(),
        };
        for (index, replacement) in asked.replace.iter().enumerate() {
            let component = replacement.component;
            let mut before = asked.replace.iter().take(index);
            if before.any(|other| other.component == component) {
                let reason = format!("{component} is replaced twice");
                return Err(OwnFileError::new(&replacement.path, reason).into());
            }
            let file = replacement.read()?;
            own.retain(|other| other.component != file.component);
            own.push(file);
        }
        let settled = Self {
            kubernetes,
            base,
            dir: dir.cloned(),
            own,
            upgrade: None,
        };
        let Some(to) = asked.upgrade_to else {
            return Ok(settled);
        };
        let release = BundleFrom::Release;
        let newer = Asked {
            kubernetes: Some(to),
            from: matches!(settled.base, Base::Release(_)).then_some(&release),
            replace: &[],
            upgrade_to: None,
        };
        settled.upgraded_to(Self::take(source, sources, &newer)?.without_own())
    }

    /// The same, with what its clusters can be upgraded to.
    ///
    /// # Errors
    /// [`Error::NoUpgrade`] where kubeadm would not upgrade to it.
    pub fn upgraded_to(self, newer: Self) -> Result<Self, Error> {
        if !version::can_be_upgraded(&self.kubernetes, &newer.kubernetes) {
            return Err(Error::NoUpgrade {
                from: self.kubernetes,
                to: newer.kubernetes,
            });
        }
        Ok(Self {
            upgrade: Some(Box::new(newer)),
            ..self
        })
    }

    /// The same without anything of one's own.
    fn without_own(&self) -> Self {
        Self {
            dir: None,
            own: Vec::new(),
            ..self.clone()
        }
    }

    /// The same for clusters that stay as they are.
    fn without_upgrade(&self) -> Self {
        Self {
            upgrade: None,
            ..self.clone()
        }
    }

    /// The pinned modules of a version, or of the newest, and nothing of one's own.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`].
    pub fn modules(source: &Path, version: Option<&str>) -> Result<Self, Error> {
        Ok(Self {
            kubernetes: resolve(&versions(source)?, version)?,
            base: Base::Modules,
            dir: None,
            own: Vec::new(),
            upgrade: None,
        })
    }

    /// The program that making it runs on this host, and for which no more is known than a digest from
    /// the same server.
    pub fn unverified_program(&self) -> Option<&'static str> {
        let newer = || self.upgrade.as_ref()?.unverified_program();
        match &self.base {
            Base::Modules => newer(),
            Base::Release(_) => Some("kubeadm"),
        }
    }

    /// Where its parts come from.
    pub fn provenance(&self) -> Provenance {
        let base = match &self.base {
            Base::Modules => "modules",
            Base::Release(_) => RELEASE,
        };
        Provenance {
            kubernetes: self.kubernetes.clone(),
            source: base.to_owned(),
            directory: self.dir.as_ref().map(|dir| OwnFolder {
                path: dir.clone(),
                files: self
                    .own
                    .iter()
                    .filter(|file| !file.replaces)
                    .map(|file| (file.component.to_string(), file.sha256.clone()))
                    .collect(),
            }),
            replaced: self
                .own
                .iter()
                .filter(|file| file.replaces)
                .map(|file| Replaced {
                    component: file.component.to_string(),
                    path: file.path.clone(),
                    sha256: file.sha256.clone(),
                })
                .collect(),
            upgrade_to: self.upgrade.as_ref().map(|it| it.kubernetes.clone()),
        }
    }
}

/// Where a bundle's parts come from, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of Kubernetes.
    pub kubernetes: String,
    /// `modules` or `release`: where everything comes from that is not one's own.
    pub source: String,
    /// A folder of one's own files.
    pub directory: Option<OwnFolder>,
    /// Single components of one's own.
    pub replaced: Vec<Replaced>,
    /// The newer version that clusters can be upgraded to, from the same source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_to: Option<String>,
}

/// A folder of one's own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnFolder {
    /// As the user wrote it.
    pub path: PathBuf,
    /// Components from it, with the SHA-256 of each.
    pub files: BTreeMap<String, String>,
}

/// A component of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Which: `kube-proxy`, `cni/bridge`.
    pub component: String,
    /// As the user wrote it.
    pub path: PathBuf,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl fmt::Display for Provenance {
    /// `kubernetes 1.36.4 from modules; kube-proxy from ./out/kube-proxy (sha256 ...)`. Of a release it is
    /// said that its digests come from where its programs do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kubernetes {} from {}", self.kubernetes, self.source)?;
        if self.source == RELEASE {
            f.write_str(" (nobody but its own servers vouches for it)")?;
        }
        if let Some(OwnFolder { path, files }) = &self.directory {
            let names: Vec<&str> = files.keys().map(String::as_str).collect();
            write!(f, "; {} from {}", names.join(", "), path.display())?;
        }
        for one in &self.replaced {
            let path = one.path.display();
            write!(f, "; {} from {path} (sha256 {})", one.component, one.sha256)?;
        }
        if let Some(newer) = &self.upgrade_to {
            write!(f, "; to be upgraded to {newer}")?;
        }
        Ok(())
    }
}

/// The bundle of an order when it is in the cache, whole and unaltered; builds and asks nothing.
///
/// # Errors
/// [`Error`] when pins or cache cannot be read.
pub fn cached(workshop: &Workshop<'_>, order: &BundleOrder) -> Result<Option<Bundle>, Error> {
    let base = match &order.base {
        Base::Modules => modules::name(workshop.source, &order.kubernetes)?,
        Base::Release(release) => release.name(workshop.source)?,
    };
    let found = match order.own.is_empty() {
        true => named(workshop, &base)?,
        false => {
            let name = replace::name(&base, &order.own);
            let found = named(workshop, &name)?;
            found.map(|bundle| replace::with_paths(bundle, &order.own))
        }
    };
    let (Some(found), Some(newer)) = (&found, &order.upgrade) else {
        return Ok(found);
    };
    let newer = cached(workshop, newer)?;
    Ok(newer.map(|newer| found.clone().upgraded_to(newer)))
}

/// Whether the cache has everything of an order but the bundle itself: one's own programs have only
/// to be put among those that are there.
///
/// # Errors
/// As [`cached`].
pub fn is_nearly_cached(workshop: &Workshop<'_>, order: &BundleOrder) -> Result<bool, Error> {
    if let Some(newer) = &order.upgrade
        && cached(workshop, newer)?.is_none()
    {
        return Ok(false);
    }
    Ok(!order.own.is_empty()
        && cached(workshop, order)?.is_none()
        && cached(workshop, &order.without_own())?.is_some())
}

/// The bundle of an order, made when it is not in the cache or its inputs have changed.
///
/// # Errors
/// [`Error::MissingProgram`] without Go, [`Error::Step`] when something does not build;
/// [`Error::Download`] and [`Error::Pull`] when something does not come; [`Error::UnfitBundle`] when
/// its parts do not fit together.
pub fn get(workshop: &Workshop<'_>, order: &BundleOrder) -> Result<Bundle, Error> {
    get_with(workshop, order, &|workshop, release| {
        release.make_with(workshop, |dir| modules::build_flannel(workshop, dir))
    })
}

/// The same with another way to make the bundle of a release.
fn get_with(
    workshop: &Workshop<'_>,
    order: &BundleOrder,
    make_release: &dyn Fn(&Workshop<'_>, &release::Release) -> Result<Bundle, Error>,
) -> Result<Bundle, Error> {
    if let Some(newer) = &order.upgrade {
        let bundle = get_with(workshop, &order.without_upgrade(), make_release)?;
        let newer = get_with(workshop, newer, make_release)?;
        return Ok(bundle.upgraded_to(newer));
    }
    let _lock = workshop.cache.lock("bundle", workshop.report)?;
    if let Some(bundle) = cached(workshop, order)? {
        return Ok(bundle);
    }
    let make_base = || match &order.base {
        Base::Modules => modules::make(workshop, &order.kubernetes),
        Base::Release(release) => make_release(workshop, release),
    };
    if order.own.is_empty() {
        return make_base();
    }
    let base = match cached(workshop, &order.without_own())? {
        Some(base) => base,
        None => make_base()?,
    };
    replace::make(workshop, &base, &order.own)
}

/// A bundle of the cache by its name.
///
/// # Errors
/// [`Error::Cache`], [`Error::Malformed`].
pub fn named(workshop: &Workshop<'_>, name: &str) -> Result<Option<Bundle>, Error> {
    workshop.report.waiting("the digests of the cached bundle");
    let found = workshop.cache.find(Kind::Bundle, name, Check::Contents)?;
    workshop.report.waiting("");
    let Some(dir) = found.usable("bundle", workshop.report) else {
        return Ok(None);
    };
    Ok(Some(Bundle {
        name: name.to_owned(),
        manifest: read_json(dir.join(MANIFEST))?,
        dir,
        upgrade: None,
    }))
}

/// Seals what is in `staging` as the bundle `name`.
fn publish(
    workshop: &Workshop<'_>,
    name: String,
    staging: Staging,
    manifest: BundleManifest,
) -> Result<Bundle, Error> {
    write_json(&staging.path().join(MANIFEST), &manifest)?;
    let dir = workshop.cache.publish(Kind::Bundle, &name, staging)?;
    Ok(Bundle {
        name,
        dir,
        manifest,
        upgrade: None,
    })
}

/// What there is to say about a program that has been put into a bundle.
fn described(program: &Path, origin: Origin) -> Result<BundleFile, Error> {
    let size = fs::metadata(program)
        .map_err(Error::file("look at", program))?
        .len();
    let sha256 = sha256_file(program).map_err(Error::file("read", program))?;
    Ok(BundleFile {
        origin,
        size,
        sha256,
    })
}

/// The images that the kubeadm of a bundle's folder wants for a version.
fn kubeadm_images(
    workshop: &Workshop<'_>,
    dir: &Path,
    version: &str,
) -> Result<Vec<String>, Error> {
    // A version that is given is not asked for on the network.
    let command = ChildCommand::new(dir.join("bin/kubeadm")).args([
        "config",
        "images",
        "list",
        "--kubernetes-version",
        &format!("v{version}"),
    ]);
    let shown = command.display();
    let listed = run(workshop.spawner, command, LIST_LIMIT)?.success(&shown)?;
    let images: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    match images.is_empty() {
        false => Ok(images),
        true => Err(Error::UnfitBundle {
            dir: dir.to_owned(),
            version: version.to_owned(),
            reason: "its kubeadm lists no images".to_owned(),
        }),
    }
}
