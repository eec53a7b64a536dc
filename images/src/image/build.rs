//! An image's build, step by step.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::ChildCommand;

use super::cloud;
use super::contents::{self, Contents};
use super::deb::Package;
use super::inquiry::{
    BOOTSTRAP, BuiltImage, CUSTOMISE, INITRD_INIT, ImageRequest, Inquiry, KERNEL as OWN_KERNEL,
    Outdated, ROOT, System, TREE,
};
use super::kernel::OwnKernel;
use super::lock::{Lock, LockDifference};
use super::privilege::{Privilege, privilege};
use super::recipe::{Recipe, RecipeFile};
use super::stored::{DISK, INITRD, KERNEL, MANIFEST, PACKAGES, find, open, remember};
use crate::bundle::Bundle;
use crate::command::run_step;
use crate::files::{link, place, write_json};
use crate::host::{DEBIAN_KEYRING, Host};
use crate::oci::Program;
use crate::{Error, Kind, SshKeys, Staging, Workshop};

/// UUID and hash seed of every root file system: fixed, since nothing tells images by them and
/// random ones would be one more thing that differs between two builds.
const DISK_UUID: &str = "6f0d9f5e-0000-4000-8000-706f64776972";

/// How long Debian's packages may take to come and be installed.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(20 * 60);

/// How long the rest may take.
pub(super) const CUSTOMISE_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What the root of kube-proxy's image is made of, see recipes/root.sh.
const ROOT_PACKAGES: [&str; 6] = [
    "conntrack",
    "ipset",
    "iptables",
    "kmod",
    "netbase",
    "nftables",
];

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
        if let Some(newer) = bundle.upgrade.as_deref() {
            contents::check(newer, &Contents::of(newer)?)?;
        }
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
            if let Some(kernel) = inquiry.kernel {
                build.take_kernel(kernel)?;
            }
            build.customise(&inquiry)?;
            build.finish(&inquiry, &installed, differences)?
        }
    };
    let dir = workshop.cache.publish(Kind::Image, &name, staging)?;
    remember(workshop, &inquiry, name)?;
    Ok(BuiltImage {
        image: open(&dir)?,
        cached: false,
    })
}

/// Where a program of a bundle is, and its digest.
fn in_bundle<'a>(bundle: &'a Bundle, path: &str) -> (PathBuf, &'a str) {
    let facts = bundle.manifest.files.get(path);
    (bundle.dir.join(path), facts.map_or("", |it| &it.sha256))
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
    bump_lock(workshop, &Recipe::read(workshop.source, recipe)?, &path)
}

/// Moves the lock at `path` to what a recipe's packages are in the archive today, and tells what changed.
pub(super) fn bump_lock(
    workshop: &Workshop<'_>,
    recipe: &Recipe,
    path: &Path,
) -> Result<Vec<LockDifference>, Error> {
    let old = Lock::read(path)?;
    let build = Build::start(workshop, recipe)?;
    let installed = build.bootstrap(&Lock::default(), &recipe.packages)?;
    build.remove_tree()?;
    let differences = old.differences(&installed);
    if !differences.is_empty() {
        fs::write(path, installed.text()).map_err(Error::file("write", path))?;
    }
    Ok(differences)
}

/// Where apt is told what the mirrors' servers want to hear, while the packages come.
const AUTH: &str = "/etc/apt/auth.conf.d/podwire.conf";

/// mmdebstrap's arguments; `auth` is whether there is such a file, which is not to stay.
fn mmdebstrap(suite: &str, packages: &[String], mirrors: &[String], auth: bool) -> Vec<String> {
    let excluded = ["doc/*", "info/*", "locale/*", "man/*"];
    let mut args = vec!["--mode=root".to_owned(), "--variant=minbase".to_owned()];
    args.push(format!("--include={}", packages.join(",")));
    args.extend(excluded.map(|path| format!("--dpkgopt=path-exclude=/usr/share/{path}")));
    // A build that is cut short is thrown away, not repaired.
    args.push("--dpkgopt=force-unsafe-io".to_owned());
    args.push("--setup-hook=cp -r before/. \"$1\"/".to_owned());
    if auth {
        args.push(format!("--customize-hook=rm \"$1\"{AUTH}"));
    }
    if mirrors.is_empty() {
        // It finds the keys for its own sources only where gpg is installed.
        args.push(format!("--keyring={DEBIAN_KEYRING}"));
    }
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
    pub(super) privilege: Privilege,
    pub(super) work: Staging,
    pub(super) log: PathBuf,
}

impl<'a> Build<'a> {
    pub(super) fn start(workshop: &'a Workshop<'a>, recipe: &'a Recipe) -> Result<Self, Error> {
        let privilege = privilege(workshop.spawner)?;
        let work = workshop.cache.staging(&format!("image-{}", recipe.name))?;
        let log = workshop.cache.log(&format!("image-{}.log", recipe.name))?;
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

    pub(super) fn script(
        &self,
        text: &str,
        args: &[String],
        about: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        self.write("script.sh", text)?;
        // As long as anything of the step is alive, nobody takes its folder for a leftover: flock(1) of
        // util-linux, like unshare(1).
        let script = ["--shared", "--no-fork", ".", "sh", "script.sh"];
        let args = script.into_iter().chain(args.iter().map(String::as_str));
        let command = self.privilege.command("flock", args).dir(self.work.path());
        run_step(self.workshop, about, command, &self.log, limit)
    }

    /// Installs the packages, the locked versions where there are any, and tells what came.
    pub(super) fn bootstrap(&self, lock: &Lock, packages: &[String]) -> Result<Lock, Error> {
        let Self {
            recipe, privilege, ..
        } = self;
        self.workshop.report.step(&format!(
            "installing Debian for the {} image {privilege} (about half a minute)",
            recipe.name
        ));
        let host = Host::detect(self.workshop.spawner);
        let args = self.mmdebstrap(&host, lock, packages)?;
        let about = format!("installing Debian for the {} image", recipe.name);
        self.script(BOOTSTRAP, &args, &about, BOOTSTRAP_LIMIT)?;
        Lock::read(&self.work.path().join("out").join(PACKAGES))
    }

    /// Fills the folder `before`, which the tree begins as; gives mmdebstrap's arguments.
    fn mmdebstrap(
        &self,
        host: &Host,
        lock: &Lock,
        packages: &[String],
    ) -> Result<Vec<String>, Error> {
        let added = |path: &str, text| RecipeFile {
            path: path.to_owned(),
            text,
        };
        let mut before = self.recipe.before.clone();
        before.push(added("/etc/apt/preferences.d/podwire", lock.preferences()));
        let auth = host.debian_auth();
        let closed = !auth.is_empty();
        if closed {
            before.push(added(AUTH, auth));
        }
        for file in &before {
            self.write_file("before", file)?;
        }
        self.folder("out")?;
        let suite = &self.recipe.debian_suite;
        let mirrors = host.debian_mirrors(suite);
        Ok(mmdebstrap(suite, packages, &mirrors, closed))
    }

    /// Puts a kernel of the user's in the place of the tree's own.
    fn take_kernel(&self, kernel: &OwnKernel) -> Result<(), Error> {
        let about = format!("taking the kernel of {kernel}");
        self.workshop.report.step(&about);
        for (number, package) in kernel.packages.iter().enumerate() {
            let to = place(self.work.path(), &format!("kernel/{number}.deb"))?;
            link(&package.path, &to)?;
        }
        self.script(OWN_KERNEL, &[], &about, CUSTOMISE_LIMIT)
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
            (Program::Bundle(path), Some(bundle)) => in_bundle(bundle, path),
            (Program::Newer(path), Some(bundle)) => {
                in_bundle(bundle.upgrade.as_deref().unwrap_or(bundle), path)
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
        for folder in ["debs", "upgrade", "oci"] {
            self.folder(&format!("input/{folder}"))?;
        }
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
            self.add_texts(&below, package)?;
        }
        self.write("input/programs.sha256", list)?;
        let upgrade = inquiry.upgrade.as_ref();
        for package in upgrade.into_iter().flat_map(|(_, it)| &it.packages) {
            let below = format!("input/upgrade/{}", package.name);
            for (program, to) in &package.programs {
                let (from, _) = found(program);
                link(&from, &place(&self.work.path().join(&below), to)?)?;
            }
            self.add_texts(&below, package)?;
        }
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
        let newer = upgrade.into_iter().flat_map(|(_, it)| &it.images);
        for image in contents.images.iter().chain(newer) {
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
        let first = inquiry.bundle.map(|bundle| (bundle, &contents.published));
        let newer = upgrade.map(|(bundle, it)| (*bundle, &it.published));
        for (bundle, published) in first.into_iter().chain(newer) {
            for image in published {
                let from = bundle.dir.join(&image.archive);
                let name = Path::new(&image.archive).file_name().unwrap_or_default();
                link(&from, &self.work.path().join("input/oci").join(name))?;
            }
        }
        let mut references = contents.references();
        references.extend(upgrade.into_iter().flat_map(|(_, it)| it.references()));
        self.write("input/references", references.join("\n") + "\n")?;
        Ok(())
    }

    /// What of a package is no program.
    fn add_texts(&self, below: &str, package: &Package) -> Result<(), Error> {
        for (to, text) in &package.texts {
            self.write(&format!("{below}/{to}"), text)?;
        }
        self.write(&format!("{below}/DEBIAN/control"), package.control())?;
        Ok(())
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
    let log = workshop.cache.log("clean.log")?;
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
mod outlives;
#[cfg(test)]
mod stand_in;

#[cfg(test)]
mod tests {
    use super::super::inquiry::tests::source;
    use super::*;
    use crate::Cache;
    use crate::image::{BASE, NODE};
    use crate::test_host::Loud;
    use podwire_process::Spawner;

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
        insta::assert_snapshot!(mmdebstrap(&recipe.suite, &recipe.packages, &mirrors, false).join("\n"), @r#"
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
        let keyring = format!("--keyring={DEBIAN_KEYRING}");
        assert!(mmdebstrap(&recipe.suite, &recipe.packages, &[], false).contains(&keyring));
    }

    /// Of the base image, where nothing has been done yet.
    pub(super) fn of_base<'a>(
        workshop: &'a Workshop<'a>,
        recipe: &'a Recipe,
        privilege: Privilege,
    ) -> Build<'a> {
        Build {
            workshop,
            recipe,
            privilege,
            work: workshop.cache.staging("image-base").unwrap(),
            log: workshop.cache.log("image-base.log").unwrap(),
        }
    }

    #[test]
    fn a_mirrors_password_is_for_apt_alone_and_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let apt = dir.path().join("apt");
        fs::create_dir(&apt).unwrap();
        let list = "deb http://me:s3cr%40t@mirror.example/debian bookworm main\n";
        fs::write(apt.join("sources.list"), list).unwrap();
        let (cache, spawner) = (Cache::at(&dir.path().join("cache")), Spawner::start());
        let (cache, spawner) = (cache.unwrap(), spawner.unwrap());
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &Loud,
            source: source(),
        };
        let recipe = Recipe::read(source(), BASE).unwrap();
        let build = of_base(&workshop, &recipe, Privilege::Root);
        let host = Host::debian_12(&apt);
        let args = build.mmdebstrap(&host, &Lock::default(), &recipe.packages);
        let args = args.unwrap();
        assert!(!args.concat().contains("s3cr"), "{args:?}");
        let mirror = "deb http://mirror.example/debian trixie main";
        assert_eq!(args.last().unwrap(), mirror);
        let auth = |tree: &Path| tree.join(AUTH.trim_start_matches('/'));
        let before = build.work.path().join("before");
        assert_eq!(
            fs::read_to_string(auth(&before)).unwrap(),
            "machine http://mirror.example/debian login me password s3cr@t\n"
        );

        // As mmdebstrap does with a hook and the folder of the tree.
        let hooks = args
            .iter()
            .filter_map(|it| it.strip_prefix("--customize-hook="));
        for hook in hooks {
            let hook = ChildCommand::new("sh").args(["-c", hook, "exec"]);
            let limit = Duration::from_secs(60);
            let done = podwire_process::run(&spawner, hook.args([&before]), limit).unwrap();
            assert!(done.status.success(), "{done:?}");
        }
        assert!(!auth(&before).exists());

        fs::write(apt.join("sources.list"), list.replace("me:s3cr%40t@", "")).unwrap();
        let open = Host::debian_12(&apt);
        let args = build.mmdebstrap(&open, &Lock::default(), &recipe.packages);
        assert!(!args.unwrap().concat().contains(AUTH));
        assert!(!auth(&before).exists());
    }

    #[test]
    fn the_script_is_given_what_the_recipe_says() {
        let mut recipe = Recipe::read(source(), BASE).unwrap();
        recipe.mask.truncate(2);
        insta::assert_snapshot!(settings(&recipe, (1000, 100)), @r"
        ENABLE='announce.service lease-hostname.path podwire-agent.service ssh.service systemd-networkd.service'
        DISABLE='e2scrub_reap.service getty@tty1.service remote-fs.target systemd-pstore.service'
        MASK='ldconfig.service sshd-keygen.service'
        PURGE=''
        INITRD_MODULES='virtio_blk virtio_net virtio_console ext4'
        DISK_MIB=2048
        DISK_UUID=6f0d9f5e-0000-4000-8000-706f64776972
        OWNER=1000:100
        ");
    }
}
