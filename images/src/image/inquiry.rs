//! What an image is asked for, and the names that follow from it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cloud::{self, CloudOrder, CloudRecipe, ImageFrom};
use super::contents::{Contents, Upgrade};
use super::kernel::OwnKernel;
use super::lock::{Lock, LockDifference};
use super::recipe::{Recipe, SANDBOX_IMAGE};
use crate::bundle::Bundle;
use crate::digest::Inputs;
use crate::probe::{self, Probe};
use crate::{Error, SshKeys, Workshop};

pub(super) const BOOTSTRAP: &str = include_str!("../../recipes/bootstrap.sh");
pub(super) const ROOT: &str = include_str!("../../recipes/root.sh");
pub(super) const TREE: &str = include_str!("../../recipes/tree.sh");
pub(super) const CUSTOMISE: &str = include_str!("../../recipes/customise.sh");
pub(super) const KERNEL: &str = include_str!("../../recipes/kernel.sh");
pub(super) const INITRD_INIT: &str = include_str!("../../recipes/initrd-init");

/// What a machine's devices are found by: a part of the recipe's kernel, and a module of others.
const BUS: &str = "virtio_pci";

/// What to do where the archive no longer has a locked version.
#[derive(Clone, Copy)]
pub enum Outdated<'a> {
    /// Fail: `--locked`.
    Refuse,
    /// Take the current versions: `--yes`.
    Accept,
    /// Let someone decide.
    Ask(&'a dyn Fn(&[LockDifference]) -> bool),
}

/// What an image is made of.
#[derive(Clone, Copy)]
pub enum System<'a> {
    /// Debian's packages.
    Debian,
    /// Ubuntu's cloud image.
    Ubuntu(CloudOrder<'a>),
}

impl System<'_> {
    /// As `--from` says it.
    pub fn from(&self) -> ImageFrom {
        match self {
            Self::Debian => ImageFrom::Debian,
            Self::Ubuntu(_) => ImageFrom::Ubuntu2404,
        }
    }
}

/// Which image is wanted.
#[derive(Clone, Copy)]
pub struct ImageRequest<'a> {
    /// What it is made of.
    pub system: System<'a>,
    /// Name of the recipe: [`super::BASE`] or [`super::NODE`].
    pub recipe: &'a str,
    /// The bundle that goes in where the recipe takes one.
    pub bundle: Option<&'a Bundle>,
    /// What the nodes boot instead of their system's own kernel; only where that is Debian.
    pub kernel: Option<&'a OwnKernel>,
    /// What to do about dropped versions.
    pub outdated: Outdated<'a>,
}

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeImage {
    /// Its folder.
    pub dir: PathBuf,
    /// The root disk, qcow2: /dev/vda of the guest; never written, machines use overlays.
    pub disk: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
    /// What it is.
    pub manifest: ImageManifest,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageManifest {
    /// Its name: the digest of what was really installed and all other inputs.
    pub name: String,
    /// The recipe.
    pub recipe: String,
    /// What it was made of, as `--from` says it.
    pub from: String,
    /// The suite of its packages: `trixie`, `noble`.
    pub suite: String,
    /// Size of its disk.
    pub disk_mib: u64,
    /// What the kernel is to be started with.
    pub kernel_command_line: String,
    /// Version of Kubernetes in it, if any.
    pub kubernetes: Option<String>,
    /// Name of the bundle in it, if any.
    pub bundle: Option<String>,
    /// Name of the one that its clusters can be upgraded to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<String>,
    /// The container images in it, by reference: containerd runs these without a registry.
    pub oci_images: Vec<String>,
    /// SHA-256 of the guest program in it.
    pub probe_sha256: String,
    /// The host key that its sshd shows: one line.
    pub ssh_host_key: String,
    /// Of which of the user's packages its kernel is, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// How many packages are installed; the file `packages` beside this one lists them.
    pub packages: usize,
    /// Packages that differ from the lock.
    pub differences: Vec<LockDifference>,
}

/// An image, and how it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The image.
    pub image: NodeImage,
    /// Whether it was there already.
    pub cached: bool,
}

/// A request with everything that decides what the image becomes.
pub(super) struct Inquiry<'a> {
    pub(super) recipe: Recipe,
    /// Package versions of Debian's, or the pin of a cloud image.
    pub(super) lock: Lock,
    from: ImageFrom,
    /// The cloud image that it is made of, if it is, and the text that says it.
    pub(super) cloud: Option<(CloudRecipe, String)>,
    pub(super) keys: SshKeys,
    pub(super) probe: Probe,
    pub(super) kernel: Option<&'a OwnKernel>,
    pub(super) bundle: Option<&'a Bundle>,
    pub(super) contents: Option<Contents>,
    /// The newer bundle, and what is made of it.
    pub(super) upgrade: Option<(&'a Bundle, Upgrade)>,
}

impl<'a> Inquiry<'a> {
    pub(super) fn make(workshop: &Workshop<'_>, request: &ImageRequest<'a>) -> Result<Self, Error> {
        let mut recipe = Recipe::read(workshop.source, request.recipe)?;
        let (lock, cloud) = match request.system {
            System::Debian => (request.recipe, None),
            System::Ubuntu(_) => {
                let cloud = CloudRecipe::read(workshop.source)?;
                recipe = cloud.0.changed(workshop.source, recipe)?;
                (cloud::UBUNTU, Some(cloud))
            }
        };
        let lock = Lock::read(&Recipe::path(workshop.source, lock, "lock"))?;
        let bundle = request.bundle.filter(|_| recipe.with_bundle);
        if recipe.with_bundle && bundle.is_none() {
            return Err(Error::Malformed {
                path: Recipe::path(workshop.source, request.recipe, "toml"),
                reason: "it takes a bundle, and none was given".to_owned(),
            });
        }
        if request.kernel.is_some() {
            recipe.initrd_modules.insert(0, BUS.to_owned());
        }
        let keys = workshop.cache.ssh_keys(workshop.report)?;
        let contents = bundle.map(Contents::of).transpose()?;
        let mut upgrade = None;
        if let Some(contents) = &contents {
            for file in &mut recipe.files {
                file.text = file.text.replace(SANDBOX_IMAGE, &contents.sandbox);
            }
            if let Some(newer) = bundle.and_then(|it| it.upgrade.as_deref()) {
                upgrade = Some((newer, Upgrade::of(newer, contents)?));
            }
        }
        Ok(Self {
            recipe,
            lock,
            from: request.system.from(),
            cloud,
            keys,
            probe: probe::build(workshop)?,
            kernel: request.kernel,
            bundle,
            contents,
            upgrade,
        })
    }

    /// Everything but the packages.
    fn inputs(&self) -> Inputs {
        let mut inputs = Inputs::of("image")
            .with("recipe", &self.recipe.name)
            .with("bootstrap", BOOTSTRAP)
            .with("root", ROOT)
            .with("tree", TREE)
            .with("customise", CUSTOMISE)
            .with("initrd", INITRD_INIT)
            .with("bundle", self.bundle.map_or("", |bundle| &bundle.name))
            .with("probe", &self.probe.sha256)
            .with("user key", &self.keys.user_public)
            .with("host key", &self.keys.host_public);
        if let Some((_, text)) = &self.cloud {
            inputs = cloud::texts().fold(inputs.with("cloud", text), |inputs, text| {
                inputs.with("cloud text", text)
            });
            // Which image it was is no package's version.
            inputs = inputs.with("pin", self.lock.text());
        }
        if let Some(kernel) = self.kernel {
            let packages = kernel.packages.iter();
            inputs = inputs.with("kernel", KERNEL).with("bus", BUS);
            inputs = packages.fold(inputs, |inputs, package| {
                inputs.with("kernel package", &package.sha256)
            });
        }
        if let Some(contents) = &self.contents {
            inputs = inputs.with("contents", format!("{contents:?}"));
        }
        if let Some((newer, upgrade)) = &self.upgrade {
            inputs = inputs
                .with("newer bundle", &newer.name)
                .with("upgrade", format!("{upgrade:?}"));
        }
        self.recipe
            .texts
            .iter()
            .fold(inputs, |inputs, text| inputs.with("recipe text", text))
    }

    pub(super) fn requested(&self) -> String {
        self.inputs().with("lock", self.lock.text()).name()
    }

    pub(super) fn named(&self, installed: &Lock) -> String {
        self.inputs().with("installed", installed.text()).name()
    }

    pub(super) fn manifest(
        &self,
        installed: &Lock,
        differences: Vec<LockDifference>,
        disk_mib: u64,
    ) -> ImageManifest {
        let recipe = &self.recipe;
        let contents = self.contents.as_ref();
        let newer = self.upgrade.as_ref();
        let mut oci_images = contents.map(Contents::references).unwrap_or_default();
        oci_images.extend(newer.into_iter().flat_map(|(_, it)| it.references()));
        ImageManifest {
            name: self.named(installed),
            recipe: recipe.name.clone(),
            from: self.from.to_string(),
            suite: recipe.suite.clone(),
            disk_mib,
            kernel_command_line: format!("root={} {}", recipe.root, recipe.kernel_command_line),
            kubernetes: self.bundle.map(|bundle| bundle.manifest.kubernetes.clone()),
            bundle: self.bundle.map(|bundle| bundle.name.clone()),
            upgrade: newer.map(|(bundle, _)| bundle.name.clone()),
            oci_images,
            probe_sha256: self.probe.sha256.clone(),
            ssh_host_key: self.keys.host_public.clone(),
            kernel: self.kernel.map(ToString::to_string),
            packages: installed.0.len(),
            differences,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::cache::tests_support::Silent;
    use crate::image::{BASE, NODE, cached};
    use crate::{BundleManifest, Cache};

    pub(in crate::image) fn source() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn bundle() -> Bundle {
        let versions = [
            ("cni-plugins", "1.9.1"),
            ("crictl", "1.36.0"),
            ("flannel", "0.28.9"),
        ];
        let manifest = BundleManifest {
            kubernetes: "1.36.4".to_owned(),
            versions: versions.map(|(of, v)| (of.to_owned(), v.to_owned())).into(),
            files: BTreeMap::new(),
            kubeadm_images: vec![
                "registry.k8s.io/kube-proxy:v1.36.4".to_owned(),
                "registry.k8s.io/pause:3.10.2".to_owned(),
            ],
            images: BTreeMap::new(),
        };
        Bundle {
            name: "bundle-a".to_owned(),
            dir: "/b".into(),
            manifest,
            upgrade: None,
        }
    }

    fn kernel() -> OwnKernel {
        let package = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&package, "!<arch>\ndebian-binary   ").unwrap();
        let files = [package.path().to_owned()];
        OwnKernel::read(&files).unwrap().unwrap()
    }

    pub(in crate::image) fn inquiry(
        cache: &Cache,
        bundle: Option<&'static Bundle>,
    ) -> Inquiry<'static> {
        let name = if bundle.is_some() { NODE } else { BASE };
        Inquiry {
            recipe: Recipe::read(source(), name).unwrap(),
            from: ImageFrom::Debian,
            cloud: None,
            lock: Lock::read(&Recipe::path(source(), name, "lock")).unwrap(),
            keys: cache.ssh_keys(&Silent).unwrap(),
            probe: Probe {
                path: "/p".into(),
                sha256: "p".to_owned(),
            },
            bundle,
            kernel: None,
            contents: bundle.map(|bundle| Contents::of(bundle).unwrap()),
            upgrade: None,
        }
    }

    #[test]
    fn the_name_follows_what_was_installed_and_every_other_input() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let bundle: &'static Bundle = Box::leak(Box::new(bundle()));
        let first = inquiry(&cache, Some(bundle));
        let installed = Lock::parse("a=1\n").unwrap();
        let name = first.named(&installed);
        assert_eq!(inquiry(&cache, Some(bundle)).named(&installed), name);
        let changes: [fn(&mut Inquiry<'static>); 7] = [
            |inquiry| inquiry.kernel = Some(Box::leak(Box::new(kernel()))),
            |inquiry| {
                let (bundle, contents) = (inquiry.bundle.unwrap(), inquiry.contents.as_ref());
                let upgrade = Upgrade::of(bundle, contents.unwrap()).unwrap();
                inquiry.upgrade = Some((bundle, upgrade));
            },
            |inquiry| inquiry.probe.sha256 = "q".to_owned(),
            |inquiry| inquiry.recipe.texts[0].push('#'),
            |inquiry| inquiry.keys.host_public.push('x'),
            |inquiry| inquiry.bundle = None,
            |inquiry| inquiry.contents.as_mut().unwrap().images[0].user = Some("1:1"),
        ];
        for change in changes {
            let mut changed = inquiry(&cache, Some(bundle));
            change(&mut changed);
            assert_ne!(changed.named(&installed), name);
            assert_ne!(changed.requested(), first.requested());
        }
        assert_ne!(first.named(&Lock::parse("a=2\n").unwrap()), name);
        // The lock decides what is asked for, not what an image is called.
        let mut other = inquiry(&cache, Some(bundle));
        other.lock = installed.clone();
        assert_eq!(other.named(&installed), name);
        assert_ne!(other.requested(), first.requested());
    }

    #[test]
    fn an_image_that_takes_a_bundle_is_not_made_without() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let spawner = podwire_process::Spawner::start().unwrap();
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &Silent,
            source: source(),
        };
        let request = ImageRequest {
            system: System::Debian,
            recipe: NODE,
            bundle: None,
            kernel: None,
            outdated: Outdated::Refuse,
        };
        let error = cached(&workshop, &request).unwrap_err().to_string();
        assert!(
            error.ends_with("it takes a bundle, and none was given"),
            "{error}"
        );
    }
}
