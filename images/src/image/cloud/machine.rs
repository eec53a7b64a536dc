//! The one boot of a cloud image with cloud-init, which makes a machine of this project of it.
//!
//! The machine has four disks and no network: its own, the seed, what goes in, what comes out. Kernel and
//! initrd are taken from the image, so no boot loader decides anything.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use podwire_process::ChildCommand;
use podwire_vm::Accelerator;

use super::super::build::{Build, CUSTOMISE_LIMIT};
use super::super::inquiry::Inquiry;
use super::super::lock::Lock;
use super::super::stored::PACKAGES;
use super::{CloudOrder, CloudRecipe, Pin, Published, disk};
use crate::command::{last_lines, run_guest, run_step};
use crate::host::auth;
use crate::{Error, SourceKey, Sources};

const MACHINE: &str = include_str!("../../../recipes/machine.sh");

/// The seed, as cloud-init's NoCloud source wants it.
const SEED: [(&str, &str); 3] = [
    ("meta-data", include_str!("meta-data")),
    ("network-config", include_str!("network-config")),
    ("user-data", include_str!("user-data")),
];

/// Everything here that decides what comes out, for the image's name.
pub(in crate::image) fn texts() -> impl Iterator<Item = &'static str> {
    let seed = SEED.iter().map(|(_, text)| *text);
    seed.chain([MACHINE])
}

/// How long packages may take to come.
const APT_LIMIT: Duration = Duration::from_secs(20 * 60);

/// What a boot with cloud-init and all packages takes at most. Under KVM it is a minute; emulated, and
/// beside other work, ten.
fn limit(accelerator: Accelerator) -> Duration {
    match accelerator {
        Accelerator::Kvm(_) => Duration::from_secs(10 * 60),
        Accelerator::Tcg => Duration::from_secs(40 * 60),
    }
}

/// What would be waited for in vain, or start what is removed anyway: there is no network.
const NOT_STARTED: [&str; 8] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "multipathd.service",
    "snapd.seeded.service",
    "snapd.service",
    "snapd.socket",
    "systemd-networkd-wait-online.service",
    "unattended-upgrades.service",
];

/// Room for what comes out: a kernel, an initrd and a list.
const OUT_BYTES: u64 = 256 << 20;

impl Build<'_> {
    /// Customises the pinned cloud image: `out` gets disk, kernel, initrd and the packages' list, which
    /// is returned.
    pub(in crate::image) fn customise_cloud(
        &self,
        inquiry: &Inquiry<'_>,
        cloud: &CloudRecipe,
        order: &CloudOrder<'_>,
    ) -> Result<Lock, Error> {
        let work = self.work.path();
        let report = self.workshop.report;
        let keys = keys(self.workshop.source)?;
        let pin = Pin::of(&inquiry.lock, self.workshop.source)?;
        let image = Published::new(self.workshop, order.sources, cloud)?.image(&pin)?;

        report.step(&format!("unpacking the image of {}", cloud.name));
        self.folder("out")?;
        self.folder("boot")?;
        let disk = work.join("out/disk.raw");
        let convert = ChildCommand::new("qemu-img")
            .args(["convert", "-O", "raw"])
            .args([&image, &disk]);
        self.step("unpacking the cloud image", convert, CUSTOMISE_LIMIT)?;
        let boot = disk::extract(self.workshop.spawner, work, "out/disk.raw", "boot")?;
        let file = File::options().write(true).open(&disk);
        let file = file.map_err(Error::file("open", &disk))?;
        let published = file.metadata().map_err(Error::file("read", &disk))?.len();
        // What the recipe's packages need comes to what the image has.
        file.set_len(published + (self.recipe.disk_mib << 20))
            .map_err(Error::file("enlarge", &disk))?;

        report.step(&format!("fetching packages for {}", cloud.name));
        self.fetch_packages(cloud, order.sources, &keys)?;
        self.add_input(inquiry)?;
        self.write("input/machine.sh", MACHINE)?;
        self.input_volume()?;
        let seed = work.join("seed.img");
        write_seed(&seed).map_err(Error::file("write", &seed))?;
        let out = work.join("out.img");
        File::create(&out)
            .and_then(|file| file.set_len(OUT_BYTES))
            .map_err(Error::file("make", &out))?;

        report.step(&format!(
            "customising {} in a machine under {}",
            cloud.name, order.accelerator
        ));
        let step = format!("customising {}", cloud.name);
        let command = qemu(work, &boot, order.accelerator);
        run_guest(
            self.workshop,
            &step,
            command,
            &self.log,
            limit(order.accelerator),
        )?;
        let came = unpack(&out, &work.join("out")).map_err(Error::file("unpack", &out))?;
        if !came.iter().any(|name| name == "done") {
            return Err(Error::Step {
                step,
                ended: "the machine went down before everything was done".to_owned(),
                log: self.log.clone(),
                tail: last_lines(&self.log, 25),
            });
        }
        Lock::read(&work.join("out").join(PACKAGES))
    }

    /// Puts the recipe's packages, and all that they need beside what is in the image, into the folder
    /// `input/archives`: resolved and verified by apt on this host, in a root of its own, with the keyrings in
    /// `keys`.
    pub(super) fn fetch_packages(
        &self,
        cloud: &CloudRecipe,
        sources: &Sources,
        keys: &Path,
    ) -> Result<(), Error> {
        for program in ["apt-get", "debugfs"] {
            if crate::host::find_program(program).is_none() {
                return Err(Error::MissingProgram {
                    program: program.to_owned(),
                    package: if program == "apt-get" {
                        "apt"
                    } else {
                        "e2fsprogs"
                    }
                    .to_owned(),
                });
            }
        }
        let work = self.work.path();
        let list = source_list(cloud, sources, &keys.join(&cloud.archive_keyring));
        let list = self.write("apt/sources.list", list)?;
        self.write("apt/auth.conf", credentials(sources))?;
        for folder in ["apt/lists/partial", "input/archives/partial"] {
            self.folder(folder)?;
        }
        let common = apt_options(work, &list);
        let apt = |args: &[&str]| {
            ChildCommand::new("apt-get")
                .args(["-q", "-y"])
                .args(common.iter())
                .args(args)
                .env("LC_ALL", "C.UTF-8")
                .env("DEBIAN_FRONTEND", "noninteractive")
        };
        let about = format!(
            "fetching packages for {} (sources `{}` and `{}`)",
            cloud.name,
            SourceKey::UbuntuArchive,
            SourceKey::UbuntuSecurity
        );
        self.step(&about, apt(&["update"]), APT_LIMIT)?;
        let mut install = vec!["--download-only", "--no-install-recommends", "install"];
        install.extend(self.recipe.packages.iter().map(String::as_str));
        self.step(&about, apt(&install), APT_LIMIT)?;
        for leftover in ["input/archives/partial", "input/archives/lock"] {
            let path = work.join(leftover);
            if path.is_dir() {
                fs::remove_dir_all(&path).map_err(Error::file("remove", path))?;
            } else if path.exists() {
                fs::remove_file(&path).map_err(Error::file("remove", path))?;
            }
        }
        Ok(())
    }

    /// Makes the volume `input.img` of the folder `input`.
    fn input_volume(&self) -> Result<(), Error> {
        let work = self.work.path();
        let bytes = size(&work.join("input")).map_err(Error::file("read", work.join("input")))?;
        let mib = (bytes + bytes / 8) / (1 << 20) + 64;
        let make =
            ChildCommand::new(crate::host::find_program("mke2fs").unwrap_or("mke2fs".into()))
                .args([
                    "-q",
                    "-F",
                    "-t",
                    "ext4",
                    "-m",
                    "0",
                    "-d",
                    "input",
                    "input.img",
                ])
                .args([format!("{mib}M")])
                .dir(work);
        self.step("making the volume of what goes in", make, CUSTOMISE_LIMIT)
    }

    fn step(&self, about: &str, command: ChildCommand, limit: Duration) -> Result<(), Error> {
        run_step(self.workshop, about, command, &self.log, limit)
    }
}

/// The folder of the keyrings, whose path apt's entries take for one word.
pub(super) fn keys(source: &Path) -> Result<PathBuf, Error> {
    let path = source.join("images/keys");
    match path.to_string_lossy().contains(char::is_whitespace) {
        true => Err(Error::Blank { path }),
        false => Ok(path),
    }
}

/// apt's entries: signed by the given keyring, or not taken.
pub(super) fn source_list(cloud: &CloudRecipe, sources: &Sources, keyring: &Path) -> String {
    let (suite, components) = (&cloud.suite, cloud.components.join(" "));
    [
        (SourceKey::UbuntuArchive, suite.clone()),
        (SourceKey::UbuntuArchive, format!("{suite}-updates")),
        (SourceKey::UbuntuSecurity, format!("{suite}-security")),
    ]
    .map(|(key, suite)| {
        format!(
            "deb [arch=amd64 signed-by={}] {} {suite} {components}\n",
            keyring.display(),
            sources.address(key).open()
        )
    })
    .concat()
}

/// User names and passwords for those addresses (apt_auth.conf(5)): apt quotes its list in errors.
fn credentials(sources: &Sources) -> String {
    let keys = [SourceKey::UbuntuArchive, SourceKey::UbuntuSecurity];
    let lines = keys.into_iter().filter_map(|key| {
        let address = sources.address(key);
        let (user, password) = address.credentials()?;
        Some(auth(address.open(), &user, &password))
    });
    lines.collect()
}

/// A root of its own for apt, with the image's packages as those installed. Of the host's settings only
/// those in /etc/apt/apt.conf.d hold: its proxies.
fn apt_options(work: &Path, list: &Path) -> Vec<String> {
    let path = |name: &str| work.join(name).display().to_string();
    [
        ("Dir::Etc::sourcelist", list.display().to_string()),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::Etc::netrc", path("apt/auth.conf")),
        ("Dir::Etc::netrcparts", "/dev/null".to_owned()),
        ("Dir::Etc::preferences", "/dev/null".to_owned()),
        ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
        ("Dir::State", path("apt")),
        ("Dir::State::lists", path("apt/lists")),
        ("Dir::State::status", path("boot/status")),
        ("Dir::State::extended_states", path("apt/extended_states")),
        ("Dir::Cache", path("apt")),
        ("Dir::Cache::archives", path("input/archives")),
        ("Dir::Log", path("apt")),
        ("APT::Architecture", "amd64".to_owned()),
        ("APT::Architectures", "amd64".to_owned()),
        ("APT::Default-Release", String::new()),
        // The folder is closed to apt's own user.
        ("APT::Sandbox::User", String::new()),
        ("APT::Update::Error-Mode", "any".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        ("Debug::NoLocking", "1".to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
    .collect()
}

/// Writes the seed: a FAT volume with the label by which cloud-init finds it.
fn write_seed(path: &Path) -> io::Result<()> {
    const BYTES: u64 = 1 << 20;
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)?;
    file.set_len(BYTES)?;
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat12)
        .volume_label(*b"CIDATA     ");
    fatfs::format_volume(&mut file, options)?;
    let volume = FileSystem::new(file, FsOptions::new())?;
    for (name, text) in SEED {
        volume
            .root_dir()
            .create_file(name)?
            .write_all(text.as_bytes())?;
    }
    volume.unmount()
}

fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        // Each takes whole blocks, and an inode.
        bytes += 8192;
        bytes += if about.is_dir() {
            size(&entry.path())?
        } else {
            about.len()
        };
    }
    Ok(bytes)
}

fn qemu(work: &Path, boot: &disk::Found, accelerator: Accelerator) -> ChildCommand {
    let masks = NOT_STARTED
        .map(|unit| format!(" systemd.mask={unit}"))
        .concat();
    // What the kernel does not know goes to systemd's environment: the console is quoted as text.
    let append = format!(
        "root=LABEL=cloudimg-rootfs ro console=ttyS0 net.ifnames=0 panic=-1 mitigations=off audit=0 SYSTEMD_COLORS=0{masks}"
    );
    let machine = match accelerator {
        Accelerator::Kvm(_) => "kvm",
        Accelerator::Tcg => "tcg,thread=multi",
    };
    let mut command = ChildCommand::new("qemu-system-x86_64")
        .args(["-machine", "q35", "-accel", machine])
        .args(["-cpu", accelerator.cpu_model()])
        .args(["-m", "2048", "-smp", "2", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-nic", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-device", "virtio-rng-pci"])
        .args(["-append", &append])
        .dir(work);
    command = command
        .args(["-kernel".to_owned(), format!("boot/{}", boot.kernel)])
        .args(["-initrd".to_owned(), format!("boot/{}", boot.initrd)]);
    let disks = [
        (
            "root",
            "out/disk.raw",
            "discard=unmap,detect-zeroes=unmap,cache=unsafe",
        ),
        ("seed", "seed.img", "readonly=on"),
        ("input", "input.img", "readonly=on"),
        ("out", "out.img", "cache=unsafe"),
    ];
    for (name, file, options) in disks {
        let drive = format!("if=none,id={name},format=raw,file={file},{options}");
        let device = format!("virtio-blk-pci,drive={name},serial={name}");
        command = command.args(["-drive", &drive, "-device", &device]);
    }
    command
}

/// Takes what the machine wrote to its last disk, and names it. One that wrote nothing gave nothing.
fn unpack(from: &Path, to: &Path) -> io::Result<Vec<PathBuf>> {
    let mut archive = tar::Archive::new(File::open(from)?);
    let mut names = Vec::new();
    for member in archive.entries()? {
        let mut member = member?;
        let path = member.path()?.into_owned();
        // Nothing else is meant to come, and nothing whose size is not that of what is there.
        let meant = ["kernel", "initrd", "packages", "done"];
        let is_file = member.header().entry_type().is_file();
        if !is_file || !meant.iter().any(|it| path == Path::new(it)) {
            return Err(io::Error::other(format!(
                "{path:?} came out of the machine"
            )));
        }
        let to = to.join(&path);
        // The list of the packages from which the images' tools came may be there, and be root's.
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        io::copy(&mut member, &mut File::create(to)?)?;
        names.push(path);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_takes_the_place_of_what_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, out) = (dir.path().join("out.img"), dir.path().join("out"));
        fs::create_dir(&out).unwrap();
        // Also for root, who may write what belongs to others.
        std::os::unix::fs::symlink("/dev/full", out.join("packages")).unwrap();
        let mut archive = tar::Builder::new(File::create(&disk).unwrap());
        for (name, text) in [("kernel", "k"), ("packages", "bash=5\n"), ("done", "")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_cksum();
            archive
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
        }
        archive.into_inner().unwrap().set_len(1 << 20).unwrap();
        let came = unpack(&disk, &out).unwrap();
        assert_eq!(came, ["kernel", "packages", "done"].map(PathBuf::from));
        assert_eq!(
            fs::read_to_string(out.join("packages")).unwrap(),
            "bash=5\n"
        );
    }

    #[test]
    fn what_nobody_asked_for_is_not_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("out.img");
        for (name, kind) in [
            ("disk.raw", tar::EntryType::Regular),
            ("kernel", tar::EntryType::Directory),
            // Of few bytes it would make as many zeros as it likes.
            ("kernel", tar::EntryType::GNUSparse),
        ] {
            let mut archive = tar::Builder::new(File::create(&disk).unwrap());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            if let Some(sparse) = header.as_gnu_mut().filter(|_| kind.is_gnu_sparse()) {
                sparse.sparse[0].offset = *b"00000001000\0";
                sparse.sparse[0].numbytes = *b"00000000000\0";
                sparse.realsize = *b"00000001000\0";
            }
            archive.append_data(&mut header, name, &b""[..]).unwrap();
            archive.finish().unwrap();
            let refused = unpack(&disk, dir.path()).unwrap_err().to_string();
            assert_eq!(refused, format!("{name:?} came out of the machine"));
        }
    }

    #[test]
    fn a_folder_that_apt_would_take_for_several_words_is_refused() {
        for folder in ["/home/me/my podwire", "/home/me/pod\twire"] {
            let refused = keys(Path::new(folder)).unwrap_err();
            assert!(matches!(refused, Error::Blank { .. }), "{refused}");
            let keys = format!("{:?}", Path::new(folder).join("images/keys"));
            assert!(refused.to_string().contains(&keys), "{refused}");
        }
        let keys = keys(Path::new("/home/me/podwire")).unwrap();
        assert_eq!(keys, Path::new("/home/me/podwire/images/keys"));
    }

    #[test]
    fn apt_is_told_addresses_without_a_secret_and_secrets_apart() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("mine.toml");
        let mine = "[sources]\nubuntu-archive = 'http://me:s3cr%40t@m.example:8080/ubuntu/'\n\
                    ubuntu-security = 'https://m.example/%5Btrusted=yes%5D%20x'\n";
        fs::write(&config, mine).unwrap();
        let sources = Sources::read(root, Some(&config)).unwrap();
        let (cloud, _) = CloudRecipe::read(root).unwrap();
        insta::assert_snapshot!(source_list(&cloud, &sources, Path::new("/k.gpg")), @r#"
        deb [arch=amd64 signed-by=/k.gpg] http://m.example:8080/ubuntu noble main universe
        deb [arch=amd64 signed-by=/k.gpg] http://m.example:8080/ubuntu noble-updates main universe
        deb [arch=amd64 signed-by=/k.gpg] https://m.example/%5Btrusted=yes%5D%20x noble-security main universe
        "#);
        insta::assert_snapshot!(credentials(&sources), @"machine http://m.example:8080/ubuntu login me password s3cr@t");
    }
}
