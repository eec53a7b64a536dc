use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::{ChildCommand, run};
use serde::{Deserialize, Serialize};

use super::cloud::{self, CloudOrder, CloudRecipe, ImageFrom};
use super::contents::{self, Contents};
use super::lock::{Lock, LockDifference};
use super::privilege::{Privilege, privilege};
use super::recipe::{Recipe, RecipeFile, SANDBOX_IMAGE};
use crate::bundle::Bundle;
use crate::command::run_step;
use crate::digest::Inputs;
use crate::files::{link, place, read_json, write_json};
use crate::host::Host;
use crate::oci::Program;
use crate::probe::{self, Probe};
use crate::{Check, Error, Kind, SshKeys, Staging, Workshop};

const BOOTSTRAP: &str = include_str!("../../recipes/bootstrap.sh");
const ROOT: &str = include_str!("../../recipes/root.sh");
const TREE: &str = include_str!("../../recipes/tree.sh");
const CUSTOMISE: &str = include_str!("../../recipes/customise.sh");
const INITRD_INIT: &str = include_str!("../../recipes/initrd-init");

/// UUID and hash seed of every root file system: fixed, since nothing tells images by them and
/// random ones would be one more thing that differs between two builds.
const DISK_UUID: &str = "6f0d9f5e-0000-4000-8000-706f64776972";

/// How long Debian's packages may take to come and be installed.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(20 * 60);

/// How long the rest may take.
pub(super) const CUSTOMISE_LIMIT: Duration = Duration::from_secs(10 * 60);

const MANIFEST: &str = "manifest.json";
const DISK: &str = "disk.qcow2";
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
pub(super) const PACKAGES: &str = "packages";

/// What the root of kube-proxy's image is made of, see recipes/root.sh.
const ROOT_PACKAGES: [&str; 6] = [
    "conntrack",
    "ipset",
    "iptables",
    "kmod",
    "netbase",
    "nftables",
];

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
    /// The container images in it, by reference: containerd runs these without a registry.
    pub oci_images: Vec<String>,
    /// SHA-256 of the guest program in it.
    pub probe_sha256: String,
    /// The host key that its sshd shows: one line.
    pub ssh_host_key: String,
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

/// Which image a request led to: what makes a warm run need no network.
#[derive(Serialize, Deserialize)]
struct Known {
    name: String,
}

pub(super) struct Inquiry<'a> {
    recipe: Recipe,
    /// Package versions of Debian's, or the pin of a cloud image.
    pub(super) lock: Lock,
    from: ImageFrom,
    /// The cloud image that it is made of, if it is, and the text that says it.
    cloud: Option<(CloudRecipe, String)>,
    keys: SshKeys,
    probe: Probe,
    bundle: Option<&'a Bundle>,
    contents: Option<Contents>,
}

impl<'a> Inquiry<'a> {
    fn make(workshop: &Workshop<'_>, request: &ImageRequest<'a>) -> Result<Self, Error> {
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
        let keys = workshop.cache.ssh_keys(workshop.report)?;
        let contents = bundle.map(Contents::of).transpose()?;
        if let Some(contents) = &contents {
            for file in &mut recipe.files {
                file.text = file.text.replace(SANDBOX_IMAGE, &contents.sandbox);
            }
        }
        Ok(Self {
            recipe,
            lock,
            from: request.system.from(),
            cloud,
            keys,
            probe: probe::build(workshop)?,
            bundle,
            contents,
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
        if let Some(contents) = &self.contents {
            inputs = inputs.with("contents", format!("{contents:?}"));
        }
        self.recipe
            .texts
            .iter()
            .fold(inputs, |inputs, text| inputs.with("recipe text", text))
    }

    fn requested(&self) -> String {
        self.inputs().with("lock", self.lock.text()).name()
    }

    fn named(&self, installed: &Lock) -> String {
        self.inputs().with("installed", installed.text()).name()
    }

    fn manifest(
        &self,
        installed: &Lock,
        differences: Vec<LockDifference>,
        disk_mib: u64,
    ) -> ImageManifest {
        let recipe = &self.recipe;
        let contents = self.contents.as_ref();
        ImageManifest {
            name: self.named(installed),
            recipe: recipe.name.clone(),
            from: self.from.to_string(),
            suite: recipe.suite.clone(),
            disk_mib,
            kernel_command_line: format!("root={} {}", recipe.root, recipe.kernel_command_line),
            kubernetes: self.bundle.map(|bundle| bundle.manifest.kubernetes.clone()),
            bundle: self.bundle.map(|bundle| bundle.name.clone()),
            oci_images: contents.map(Contents::references).unwrap_or_default(),
            probe_sha256: self.probe.sha256.clone(),
            ssh_host_key: self.keys.host_public.clone(),
            packages: installed.0.len(),
            differences,
        }
    }
}

/// The image of a request when it is in the cache, whole and unaltered; builds nothing but the
/// guest program, whose digest is part of the image's name.
///
/// # Errors
/// [`Error`] when inputs or cache cannot be read.
pub fn cached(
    workshop: &Workshop<'_>,
    request: &ImageRequest<'_>,
) -> Result<Option<NodeImage>, Error> {
    find(workshop, &Inquiry::make(workshop, request)?)
}

fn index_path(workshop: &Workshop<'_>, requested: &str) -> Result<PathBuf, Error> {
    Ok(workshop
        .cache
        .folder("requests")?
        .join(format!("{requested}.json")))
}

fn find(workshop: &Workshop<'_>, inquiry: &Inquiry<'_>) -> Result<Option<NodeImage>, Error> {
    let path = index_path(workshop, &inquiry.requested())?;
    // No entry, or one that was cut short: then the image is made again.
    let Some(known) = fs::read(path)
        .ok()
        .and_then(|t| serde_json::from_slice::<Known>(&t).ok())
    else {
        return Ok(None);
    };
    let found = workshop
        .cache
        .find(Kind::Image, &known.name, Check::Contents)?;
    let what = format_args!("{} image", inquiry.recipe.name);
    let dir = found.usable(what, workshop.report);
    dir.map(|dir| open(&dir)).transpose()
}

/// An image by its folder.
///
/// # Errors
/// [`Error::File`], [`Error::Malformed`] when there is none.
pub fn open(dir: &Path) -> Result<NodeImage, Error> {
    let manifest = read_json(dir.join(MANIFEST))?;
    Ok(NodeImage {
        disk: dir.join(DISK),
        kernel: dir.join(KERNEL),
        initrd: dir.join(INITRD),
        dir: dir.to_owned(),
        manifest,
    })
}

/// The image of a request, built when it is not in the cache or an input has changed.
///
/// # Errors
/// [`Error::LockOutdated`] when locked packages are gone and the request does not take others;
/// [`Error::NoPrivilege`]; [`Error::Step`] with the output of what failed.
pub fn get(workshop: &Workshop<'_>, request: &ImageRequest<'_>) -> Result<BuiltImage, Error> {
    let inquiry = Inquiry::make(workshop, request)?;
    let recipe = &inquiry.recipe;
    let _lock = workshop
        .cache
        .lock(&format!("image-{}", recipe.name), workshop.report)?;
    if let Some(image) = find(workshop, &inquiry)? {
        let differences = &image.manifest.differences;
        if matches!(request.outdated, Outdated::Refuse) && !differences.is_empty() {
            return Err(outdated(recipe, differences.clone()));
        }
        return Ok(BuiltImage {
            image,
            cached: true,
        });
    }
    if let (Some(bundle), Some(contents)) = (inquiry.bundle, &inquiry.contents) {
        contents::check(bundle, contents)?;
    }
    let build = Build::start(workshop, recipe)?;
    let (name, staging) = match (&request.system, &inquiry.cloud) {
        (System::Ubuntu(order), Some((cloud, _))) => {
            let installed = build.customise_cloud(&inquiry, cloud, order)?;
            build.finish(&inquiry, &installed, Vec::new())?
        }
        _ => {
            let installed = build.bootstrap(&inquiry.lock, &recipe.packages)?;
            let differences = inquiry.lock.differences(&installed);
            let accepted = differences.is_empty()
                || match request.outdated {
                    Outdated::Refuse => false,
                    Outdated::Accept => true,
                    Outdated::Ask(decide) => decide(&differences),
                };
            if !accepted {
                build.remove_tree()?;
                return Err(outdated(recipe, differences));
            }
            build.customise(&inquiry)?;
            build.finish(&inquiry, &installed, differences)?
        }
    };
    let dir = workshop.cache.publish(Kind::Image, &name, staging)?;
    let index = index_path(workshop, &inquiry.requested())?;
    let text = serde_json::to_vec(&Known { name })
        .map_err(|error| Error::file("write", &index)(error.into()))?;
    fs::write(&index, text).map_err(Error::file("write", index))?;
    Ok(BuiltImage {
        image: open(&dir)?,
        cached: false,
    })
}

fn outdated(recipe: &Recipe, differences: Vec<LockDifference>) -> Error {
    Error::LockOutdated {
        recipe: recipe.name.clone(),
        differences,
    }
}

/// Moves a recipe's lock to the archive's current versions, or the pin of a cloud image to the newest that
/// is published, and tells what changed.
///
/// # Errors
/// As [`get`]; the lock is unchanged then.
pub fn bump(
    workshop: &Workshop<'_>,
    system: &System<'_>,
    recipe: &str,
) -> Result<Vec<LockDifference>, Error> {
    if let System::Ubuntu(order) = system {
        return cloud::bump(workshop, order.sources);
    }
    let path = Recipe::path(workshop.source, recipe, "lock");
    let old = Lock::read(&path)?;
    let recipe = Recipe::read(workshop.source, recipe)?;
    let build = Build::start(workshop, &recipe)?;
    let installed = build.bootstrap(&Lock::default(), &recipe.packages)?;
    build.remove_tree()?;
    let differences = old.differences(&installed);
    if !differences.is_empty() {
        fs::write(&path, installed.text()).map_err(Error::file("write", path))?;
    }
    Ok(differences)
}

/// mmdebstrap's arguments.
fn mmdebstrap(suite: &str, packages: &[String], mirrors: &[String]) -> Vec<String> {
    let excluded = ["doc/*", "info/*", "locale/*", "man/*"];
    let mut args = vec!["--mode=root".to_owned(), "--variant=minbase".to_owned()];
    args.push(format!("--include={}", packages.join(",")));
    args.extend(excluded.map(|path| format!("--dpkgopt=path-exclude=/usr/share/{path}")));
    // A build that is cut short is thrown away, not repaired.
    args.push("--dpkgopt=force-unsafe-io".to_owned());
    args.push("--setup-hook=cp -r before/. \"$1\"/".to_owned());
    args.extend([suite.to_owned(), "tree".to_owned()]);
    args.extend(mirrors.iter().cloned());
    args
}

/// What the scripts read; every word was checked when the recipe was read.
fn settings(recipe: &Recipe, owner: (u32, u32)) -> String {
    format!(
        "ENABLE='{}'\nDISABLE='{}'\nMASK='{}'\nPURGE='{}'\nINITRD_MODULES='{}'\nDISK_MIB={}\nDISK_UUID={DISK_UUID}\nOWNER={}:{}\n",
        recipe.enable.join(" "),
        recipe.disable.join(" "),
        recipe.mask.join(" "),
        recipe.purge.join(" "),
        recipe.initrd_modules.join(" "),
        recipe.disk_mib,
        owner.0,
        owner.1,
    )
}

pub(super) struct Build<'a> {
    pub(super) workshop: &'a Workshop<'a>,
    pub(super) recipe: &'a Recipe,
    privilege: Privilege,
    pub(super) work: Staging,
    pub(super) log: PathBuf,
}

impl<'a> Build<'a> {
    fn start(workshop: &'a Workshop<'a>, recipe: &'a Recipe) -> Result<Self, Error> {
        let privilege = privilege(workshop.spawner)?;
        let work = workshop.cache.staging(&format!("image-{}", recipe.name))?;
        let log = workshop
            .cache
            .folder("logs")?
            .join(format!("image-{}.log", recipe.name));
        let build = Self {
            workshop,
            recipe,
            privilege,
            work,
            log,
        };
        let owner = match privilege {
            // Root of the namespace is this user.
            Privilege::UserNamespace => (0, 0),
            Privilege::Root | Privilege::Sudo => (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        };
        build.write("input/settings", settings(recipe, owner))?;
        Ok(build)
    }

    fn script(
        &self,
        text: &str,
        args: &[String],
        about: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        self.write("script.sh", text)?;
        let args = std::iter::once("script.sh").chain(args.iter().map(String::as_str));
        let command = self.privilege.command("sh", args).dir(self.work.path());
        run_step(self.workshop, about, command, &self.log, limit)
    }

    /// Installs the packages, the locked versions where there are any, and tells what came.
    fn bootstrap(&self, lock: &Lock, packages: &[String]) -> Result<Lock, Error> {
        let Self {
            recipe, privilege, ..
        } = self;
        self.workshop.report.step(&format!(
            "installing Debian for the {} image {privilege} (about half a minute)",
            recipe.name
        ));
        for file in &recipe.before {
            self.write_file("before", file)?;
        }
        let preferences = RecipeFile {
            path: "/etc/apt/preferences.d/podwire".to_owned(),
            text: lock.preferences(),
        };
        self.write_file("before", &preferences)?;
        self.folder("out")?;
        let suite = &recipe.debian_suite;
        let mirrors = Host::detect(self.workshop.spawner).debian_mirrors(suite);
        let about = format!("installing Debian for the {} image", recipe.name);
        self.script(
            BOOTSTRAP,
            &mmdebstrap(suite, packages, &mirrors),
            &about,
            BOOTSTRAP_LIMIT,
        )?;
        Lock::read(&self.work.path().join("out").join(PACKAGES))
    }

    /// Makes a machine of the tree, in `out`.
    fn customise(&self, inquiry: &Inquiry<'_>) -> Result<(), Error> {
        let about = format!("making the {} image", self.recipe.name);
        self.workshop.report.step(&about);
        self.add_input(inquiry)?;
        self.script(TREE, &[], &about, CUSTOMISE_LIMIT)
    }

    /// Fills the folder `input`, of which customise.sh makes a machine.
    pub(super) fn add_input(&self, inquiry: &Inquiry<'_>) -> Result<(), Error> {
        for file in &self.recipe.files {
            self.write_file("input/overlay", file)?;
        }
        self.write("input/customise.sh", CUSTOMISE)?;
        self.write("input/initrd-init", INITRD_INIT)?;
        self.add_keys(&inquiry.keys)?;
        self.add_programs(inquiry)
    }

    /// The image's folder, of what is in `out`.
    fn finish(
        &self,
        inquiry: &Inquiry<'_>,
        installed: &Lock,
        differences: Vec<LockDifference>,
    ) -> Result<(String, Staging), Error> {
        let out = self.work.path().join("out");
        let raw = out.join("disk.raw");
        let disk = fs::metadata(&raw).map_err(Error::file("read", &raw))?;
        let manifest = inquiry.manifest(installed, differences, disk.len() >> 20);
        let staging = self.workshop.cache.staging("image")?;
        let convert = ChildCommand::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2", "-W", "-m", "8"])
            .args([&raw, &staging.path().join(DISK)]);
        run_step(
            self.workshop,
            "converting the disk",
            convert,
            &self.log,
            CUSTOMISE_LIMIT,
        )?;
        for file in [KERNEL, INITRD, PACKAGES] {
            let from = out.join(file);
            fs::rename(&from, staging.path().join(file)).map_err(Error::file("take", from))?;
        }
        write_json(&staging.path().join(MANIFEST), &manifest)?;
        Ok((manifest.name, staging))
    }

    fn add_keys(&self, keys: &SshKeys) -> Result<(), Error> {
        let private = fs::read(&keys.host).map_err(Error::file("read", &keys.host))?;
        let files = [
            (
                "/root/.ssh/authorized_keys",
                format!("{}\n", keys.user_public).into_bytes(),
            ),
            ("/etc/ssh/ssh_host_ed25519_key", private),
            (
                "/etc/ssh/ssh_host_ed25519_key.pub",
                format!("{}\n", keys.host_public).into_bytes(),
            ),
        ];
        for (path, bytes) in files {
            self.write(&format!("input/overlay{path}"), bytes)?;
        }
        Ok(())
    }

    /// Puts programs, packages and container images where customise.sh takes them from.
    fn add_programs(&self, inquiry: &Inquiry<'_>) -> Result<(), Error> {
        let found = |program: &Program| match (program, inquiry.bundle) {
            (Program::Bundle(path), Some(bundle)) => {
                let facts = bundle.manifest.files.get(path);
                (bundle.dir.join(path), facts.map_or("", |f| &f.sha256))
            }
            _ => (inquiry.probe.path.clone(), inquiry.probe.sha256.as_str()),
        };
        let mut list = String::new();
        let mut add = |program: &Program, below: &str, to: &str| -> Result<(), Error> {
            let (from, sha256) = found(program);
            link(&from, &place(&self.work.path().join(below), to)?)?;
            list.push_str(&format!("{sha256}  {to}\n"));
            Ok(())
        };
        add(&Program::Probe, "input/programs", "usr/local/bin/probe")?;
        self.folder("input/debs")?;
        self.folder("input/oci")?;
        let Some(contents) = &inquiry.contents else {
            return self.write("input/programs.sha256", list).map(drop);
        };
        for (program, to) in &contents.programs {
            add(program, "input/programs", to)?;
        }
        for package in &contents.packages {
            let below = format!("input/debs/{}", package.name);
            for (program, to) in &package.programs {
                add(program, &below, to)?;
            }
            for (to, text) in &package.texts {
                self.write(&format!("{below}/{to}"), text)?;
            }
            self.write(&format!("{below}/DEBIAN/control"), package.control())?;
        }
        self.write("input/programs.sha256", list)?;
        if inquiry.cloud.is_some() {
            // The images that Kubernetes publishes have Debian's tools too, whatever runs on the node.
            let packages = ROOT_PACKAGES.map(str::to_owned);
            self.bootstrap(&Lock::default(), &packages)?;
        }
        self.script(
            ROOT,
            &[],
            "collecting the root of kube-proxy's image",
            CUSTOMISE_LIMIT,
        )?;
        let root = self.work.path().join("out/root.tar");
        let root = fs::read(&root).map_err(Error::file("read", root))?;
        for image in &contents.images {
            let read = |program: &Program| fs::read(found(program).0);
            let name = format!("input/oci/{}", image.file_name());
            let archive = image
                .archive(&root, read)
                .map_err(Error::file("pack", &name))?;
            self.write(&name, archive)?;
        }
        if inquiry.cloud.is_some() {
            self.remove_tree()?;
        }
        if let Some(bundle) = inquiry.bundle {
            for image in &contents.published {
                let from = bundle.dir.join(&image.archive);
                let name = Path::new(&image.archive).file_name().unwrap_or_default();
                link(&from, &self.work.path().join("input/oci").join(name))?;
            }
        }
        self.write("input/references", contents.references().join("\n") + "\n")?;
        Ok(())
    }

    /// What a short program printed.
    pub(super) fn output(&self, program: &str, args: &[&str]) -> Result<String, Error> {
        let path = crate::host::find_program(program).unwrap_or(program.into());
        let command = ChildCommand::new(path).args(args.iter().copied());
        let done = run(self.workshop.spawner, command, CUSTOMISE_LIMIT)?;
        Ok(done.success(program)?.stdout)
    }

    pub(super) fn folder(&self, name: &str) -> Result<(), Error> {
        let path = self.work.path().join(name);
        fs::create_dir_all(&path).map_err(Error::file("make", path))
    }

    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        let path = self.work.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::file("make", parent))?;
        }
        fs::write(&path, bytes).map_err(Error::file("write", &path))?;
        Ok(path)
    }

    fn write_file(&self, folder: &str, file: &RecipeFile) -> Result<(), Error> {
        self.write(&format!("{folder}{}", file.path), &file.text)?;
        Ok(())
    }

    /// The tree has owners that only the step's privilege can remove.
    fn remove_tree(&self) -> Result<(), Error> {
        self.script(
            "rm -rf --one-file-system tree\n",
            &[],
            "removing the tree",
            CUSTOMISE_LIMIT,
        )
    }
}

/// Removes a folder that an interrupted step left behind with owners that only the step's privilege
/// can touch.
///
/// # Errors
/// [`Error::NoPrivilege`], or [`Error::Step`] when even that cannot remove it.
pub fn remove_leftover(workshop: &Workshop<'_>, path: &Path) -> Result<(), Error> {
    let log = workshop.cache.folder("logs")?.join("clean.log");
    let command = privilege(workshop.spawner)?
        .command("rm", ["-rf", "--one-file-system", "--"])
        .args([path]);
    run_step(
        workshop,
        "removing a leftover",
        command,
        &log,
        CUSTOMISE_LIMIT,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests_support::Silent;
    use crate::image::{BASE, NODE};
    use crate::{BundleManifest, Cache};
    use std::collections::BTreeMap;

    fn source() -> &'static Path {
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
        }
    }

    fn inquiry(cache: &Cache, bundle: Option<&'static Bundle>) -> Inquiry<'static> {
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
            contents: bundle.map(|bundle| Contents::of(bundle).unwrap()),
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
        let changes: [fn(&mut Inquiry<'static>); 5] = [
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
    fn both_locks_pin_every_package_that_their_recipe_asks_for() {
        for name in [BASE, NODE] {
            let recipe = Recipe::read(source(), name).unwrap();
            let lock = Lock::read(&Recipe::path(source(), name, "lock")).unwrap();
            for package in &recipe.packages {
                assert!(lock.0.contains_key(package), "{name}: {package}");
            }
        }
    }

    #[test]
    fn mmdebstrap_is_given_the_recipe_and_the_hosts_mirror() {
        let recipe = Recipe::read(source(), BASE).unwrap();
        let mirrors = ["deb http://mirror.example/debian trixie main".to_owned()];
        insta::assert_snapshot!(mmdebstrap(&recipe.suite, &recipe.packages, &mirrors).join("\n"), @r#"
        --mode=root
        --variant=minbase
        --include=busybox-static,dbus,iproute2,iputils-ping,kmod,linux-image-amd64,openssh-server,procps,systemd,systemd-sysv,udev
        --dpkgopt=path-exclude=/usr/share/doc/*
        --dpkgopt=path-exclude=/usr/share/info/*
        --dpkgopt=path-exclude=/usr/share/locale/*
        --dpkgopt=path-exclude=/usr/share/man/*
        --dpkgopt=force-unsafe-io
        --setup-hook=cp -r before/. "$1"/
        trixie
        tree
        deb http://mirror.example/debian trixie main
        "#);
    }

    #[test]
    fn the_script_is_given_what_the_recipe_says() {
        let mut recipe = Recipe::read(source(), BASE).unwrap();
        recipe.mask.truncate(2);
        insta::assert_snapshot!(settings(&recipe, (1000, 100)), @r"
        ENABLE='announce.service lease-hostname.path ssh.service systemd-networkd.service'
        DISABLE='e2scrub_reap.service getty@tty1.service remote-fs.target systemd-pstore.service'
        MASK='ldconfig.service sshd-keygen.service'
        PURGE=''
        INITRD_MODULES='virtio_blk virtio_net ext4'
        DISK_MIB=2048
        DISK_UUID=6f0d9f5e-0000-4000-8000-706f64776972
        OWNER=1000:100
        ");
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
            outdated: Outdated::Refuse,
        };
        let error = cached(&workshop, &request).unwrap_err().to_string();
        assert!(
            error.ends_with("it takes a bundle, and none was given"),
            "{error}"
        );
    }

    #[derive(Default)]
    struct Heard(std::cell::RefCell<Vec<String>>);
    impl podwire_process::Report for Heard {
        fn step(&self, text: &str) {
            self.0.borrow_mut().push(text.to_owned());
        }
        fn waiting(&self, _: &str) {}
    }

    #[test]
    fn a_known_request_leads_to_its_image_until_that_is_altered() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let (spawner, heard) = (podwire_process::Spawner::start().unwrap(), Heard::default());
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &heard,
            source: source(),
        };
        let inquiry = inquiry(&cache, None);
        assert_eq!(find(&workshop, &inquiry).unwrap(), None);
        let manifest = ImageManifest {
            name: "n".to_owned(),
            recipe: BASE.to_owned(),
            from: "debian".to_owned(),
            suite: "trixie".to_owned(),
            disk_mib: 2048,
            kernel_command_line: "root=/dev/vda".to_owned(),
            kubernetes: None,
            bundle: None,
            oci_images: Vec::new(),
            probe_sha256: "p".to_owned(),
            ssh_host_key: "k".to_owned(),
            packages: 1,
            differences: Vec::new(),
        };
        let staging = cache.staging("image").unwrap();
        let text = serde_json::to_vec(&manifest).unwrap();
        fs::write(staging.path().join(MANIFEST), text).unwrap();
        fs::write(staging.path().join(DISK), "disk").unwrap();
        cache.publish(Kind::Image, "n", staging).unwrap();
        let index = index_path(&workshop, &inquiry.requested()).unwrap();
        fs::write(&index, r#"{"name":"n"}"#).unwrap();
        let image = find(&workshop, &inquiry).unwrap().unwrap();
        assert_eq!(image.manifest, manifest);
        fs::write(&image.disk, "dask").unwrap();
        assert_eq!(find(&workshop, &inquiry).unwrap(), None);
        insta::assert_snapshot!(heard.0.borrow().join("\n"), @"the cached base image is damaged and is made again: disk.qcow2 has other contents than when it was built");
    }
}
