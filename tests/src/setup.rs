//! Where the guest comes from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use podwire_process::Spawner;
use podwire_vm::accelerator::ProbeGuest;
use podwire_vm::{Accelerator, MachineSpec, Ram};
use tempfile::TempDir;

/// Longer than the 107 bytes of a Unix socket's path: every test runs below it.
const LONG_FOLDER: &str = "a-folder-as-deep-as-some-continuous-integration-systems-have-them-\
    which-is-longer-than-the-path-of-a-unix-socket-may-be-\
    so-that-nothing-here-can-depend-on-such-a-path-without-failing-right-away-in-every-single-test";

/// The programs, the guest's files and the accelerator.
#[derive(Debug)]
pub struct Setup {
    /// Starts QEMU.
    pub spawner: Spawner,
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// `qemu-img`.
    pub qemu_img: PathBuf,
    /// What guests run on.
    pub accelerator: Accelerator,
    /// The base image's kernel and initrd.
    pub image: ProbeGuest,
    /// Its disk.
    pub disk: PathBuf,
    /// What it is said to be.
    pub manifest: Manifest,
    /// Cargo's folder for the files of tests.
    pub tmp: PathBuf,
}

/// What an image's `manifest.json` says of it, as far as a booted machine can tell.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Manifest {
    /// `debian`, `ubuntu:24.04`.
    pub from: String,
    /// Size of its disk.
    pub disk_mib: u64,
    /// What its kernel is to be started with.
    pub kernel_command_line: String,
    /// Version of Kubernetes in it, if any.
    pub kubernetes: Option<String>,
    /// SHA-256 of the guest program in it.
    pub probe_sha256: String,
    /// The host key that its sshd shows: one line.
    pub ssh_host_key: String,
    /// How many packages are installed.
    pub packages: usize,
}

impl Setup {
    /// Reads the environment; `tmp` is Cargo's `CARGO_TARGET_TMPDIR`.
    ///
    /// # Errors
    /// Says which variable is missing and who sets it.
    pub fn from_env(tmp: &str) -> Result<Self> {
        let folder = PathBuf::from(variable("PODWIRE_TEST_IMAGE")?);
        let accelerator: Accelerator = variable("PODWIRE_ACCELERATOR")?
            .parse()
            .context("PODWIRE_ACCELERATOR")?;
        let program = |name, default: &str| {
            std::env::var_os(name).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        let manifest = folder.join("manifest.json");
        let text = std::fs::read(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        let manifest = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not understood", manifest.display()))?;
        Ok(Self {
            manifest,
            spawner: Spawner::start()?,
            qemu: program("PODWIRE_QEMU", "qemu-system-x86_64"),
            qemu_img: program("PODWIRE_QEMU_IMG", "qemu-img"),
            accelerator,
            image: ProbeGuest {
                kernel: folder.join("kernel"),
                initrd: folder.join("initrd"),
            },
            disk: folder.join("disk.qcow2"),
            tmp: PathBuf::from(tmp),
        })
    }

    /// A small machine that boots the image's kernel from `disk`.
    pub fn machine(&self, name: &str, disk: PathBuf, ram: Ram) -> MachineSpec {
        MachineSpec {
            name: name.to_owned(),
            vcpus: 1,
            memory_mib: 512,
            accelerator: self.accelerator,
            cpu_model: self.accelerator.cpu_model().to_owned(),
            kernel: self.image.kernel.clone(),
            initrd: Some(self.image.initrd.clone()),
            append: format!("{} rw mitigations=off audit=0 net.ifnames=0", self.root()),
            disk: Some(disk),
            incoming: matches!(ram, Ram::Clone(_)),
            ram,
            rtc_base: None,
            no_reboot: false,
            tsc_khz: podwire_vm::clock::tsc_khz(),
        }
    }

    /// Where the image's root file system is: `root=/dev/vda`.
    fn root(&self) -> &str {
        let words = self.manifest.kernel_command_line.split(' ');
        let mut root = words.filter(|word| word.starts_with("root="));
        root.next().unwrap_or("root=/dev/vda")
    }

    /// A folder for one test.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> Result<Scratch> {
        let parent = self.tmp.join(LONG_FOLDER);
        std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {parent:?}"))?;
        let dir = TempDir::with_prefix_in("test-", &parent)?;
        Ok(Scratch(Some(dir)))
    }
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| {
        format!(
            "{name} is not set: tests against real QEMU need a guest image; \
             `cargo xtask test` makes it and runs them"
        )
    })
}

/// A test's folder, kept when the test fails: consoles and transcripts are in it.
#[derive(Debug)]
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new("."), TempDir::path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take()
            && std::thread::panicking()
        {
            eprintln!("consoles and transcripts are kept in {:?}", dir.keep());
        }
    }
}
