//! Which accelerator works here, judged by running a guest.
//!
//! A `/dev/kvm` that opens proves nothing: there are hosts on which a guest dies under it, or QEMU
//! itself does.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podwire_process::{ChildCommand, Spawner, run};
use serde::{Deserialize, Serialize};

use crate::fault::MachineFault;
use crate::machine::{Machine, VmError};
use crate::spec::{Accelerator, MachineSpec, Ram};

/// Printed by the probe when the guest's first process runs, and when its work is done.
const MARKS: (&str, &str) = ("podwire-probe-begin", "podwire-probe-end");

/// What the guest does, and the host too, for comparison: computing and starting processes.
const WORK: &str = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; \
                    for i in 0 1 2 3 4 5 6 7 8 9; do for j in 0 1 2; do /bin/sh -c :; done; done";

/// A kernel that works is up within 2 s on KVM and within 20 s emulated; a busy host gets tenfold.
const LIMITS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(240));

/// What was found out about this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What machines run on.
    pub accelerator: Accelerator,
    /// Why, in words for the report.
    pub reason: String,
    /// How many times longer the same work takes in a guest than on the host; at least 1. Waits on
    /// the host for something in a guest are stretched by it.
    pub speed_factor: f64,
    /// From QEMU's start to the guest's first process.
    pub boot_seconds: f64,
}

/// What a verdict depends on: it is void when any of it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictKey {
    /// The host's boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// `qemu --version`, first line.
    pub qemu: String,
    /// The probed kernel: path, size in bytes, time of change.
    pub kernel: String,
}

/// The parts of the small base image that the probe boots. Its disk is not among them: the work
/// is done by the shell of the initial RAM disk, which every initrd has.
#[derive(Debug, Clone)]
pub struct ProbeGuest {
    /// Linux kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk with a shell as `/bin/sh`.
    pub initrd: PathBuf,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// A machine could not even be tried.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A guest does not run under emulation either.
    #[error("no guest runs here, not even emulated: {emulated}; with KVM: {kvm}")]
    Nothing {
        /// What happened under KVM.
        kvm: String,
        /// What happened under emulation.
        emulated: String,
    },
    /// A verdict or what it depends on cannot be read or written.
    #[error("cannot use {path:?}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The host's side of the comparison could not run.
    #[error("cannot run a command on the host")]
    Host(#[from] podwire_process::RunError),
}

impl VerdictKey {
    /// The key for this host, QEMU and kernel.
    ///
    /// # Errors
    /// [`JudgeError`] when one of them cannot be asked.
    pub fn here(spawner: &Spawner, qemu: &Path, kernel: &Path) -> Result<Self, JudgeError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| JudgeError::File { path, source }
        };
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        let metadata = fs::metadata(kernel).map_err(file(kernel))?;
        Ok(Self {
            boot_id: fs::read_to_string(boot)
                .map_err(file(boot))?
                .trim()
                .to_owned(),
            qemu: qemu_version(spawner, qemu)?,
            kernel: format!(
                "{} {} {}.{}",
                kernel.display(),
                metadata.size(),
                metadata.mtime(),
                metadata.mtime_nsec()
            ),
        })
    }
}

/// The first line of `qemu --version`.
///
/// # Errors
/// [`JudgeError::Host`].
pub fn qemu_version(spawner: &Spawner, qemu: &Path) -> Result<String, JudgeError> {
    let command = ChildCommand::new(qemu).args(["--version"]);
    let shown = command.display();
    let done = run(spawner, command, Duration::from_secs(30))?.success(&shown)?;
    Ok(done.stdout.lines().next().unwrap_or_default().to_owned())
}

#[derive(Serialize, Deserialize)]
struct Stored {
    key: VerdictKey,
    verdict: Verdict,
}

fn stored_at(cache_dir: &Path) -> PathBuf {
    cache_dir.join("accelerator.json")
}

/// The verdict stored in `cache_dir`, if it was made under the same key.
pub fn cached_verdict(cache_dir: &Path, key: &VerdictKey) -> Option<Verdict> {
    let text = fs::read(stored_at(cache_dir)).ok()?;
    let stored: Stored = serde_json::from_slice(&text).ok()?;
    (stored.key == *key).then_some(stored.verdict)
}

/// Stores a verdict in `cache_dir`, replacing any other.
///
/// # Errors
/// [`JudgeError::File`].
pub fn store_verdict(
    cache_dir: &Path,
    key: &VerdictKey,
    verdict: &Verdict,
) -> Result<(), JudgeError> {
    let path = stored_at(cache_dir);
    let stored = Stored {
        key: key.clone(),
        verdict: verdict.clone(),
    };
    let write = || -> io::Result<()> {
        let mut beside = tempfile::NamedTempFile::new_in(cache_dir)?;
        serde_json::to_writer_pretty(&mut beside, &stored)?;
        beside.persist(&path)?;
        Ok(())
    };
    write().map_err(|source| JudgeError::File {
        path: path.clone(),
        source,
    })
}

/// Boots `guest` under KVM where `/dev/kvm` opens, and under emulation if that does not work.
/// Files of the attempts are left in `dir`.
///
/// # Errors
/// [`JudgeError::Nothing`] when no guest runs at all.
pub async fn judge(
    spawner: &Spawner,
    qemu: &Path,
    guest: &ProbeGuest,
    dir: &Path,
) -> Result<Verdict, JudgeError> {
    let native = host_time(spawner)?;
    let attempt = async |accelerator| {
        let dir = dir.join(format!("probe-{accelerator}"));
        probe(spawner, qemu, guest, accelerator, &dir).await
    };
    let kvm = match File::options().read(true).write(true).open("/dev/kvm") {
        Err(error) => format!("/dev/kvm cannot be opened ({error})"),
        Ok(_) => match attempt(Accelerator::Kvm).await? {
            Ok(measured) => {
                let reason = "a guest booted under KVM".to_owned();
                return Ok(measured.verdict(Accelerator::Kvm, reason, native));
            }
            Err(reason) => format!("/dev/kvm opens, but {reason}"),
        },
    };
    match attempt(Accelerator::Tcg).await? {
        Ok(measured) => Ok(measured.verdict(Accelerator::Tcg, kvm, native)),
        Err(emulated) => Err(JudgeError::Nothing { kvm, emulated }),
    }
}

struct Measured {
    boot: Duration,
    work: Duration,
}

impl Measured {
    fn verdict(&self, accelerator: Accelerator, reason: String, native: Duration) -> Verdict {
        let factor = self.work.as_secs_f64() / native.as_secs_f64();
        Verdict {
            accelerator,
            reason,
            speed_factor: hundredths(factor.clamp(1.0, 100.0)),
            boot_seconds: hundredths(self.boot.as_secs_f64()),
        }
    }
}

/// As precise as the measurement is; more digits would not even survive the way through JSON.
fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The host's time for the work when nothing else keeps it busy: the best of five.
fn host_time(spawner: &Spawner) -> Result<Duration, JudgeError> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let command = ChildCommand::new("/bin/sh").args(["-c", WORK]);
        run(spawner, command, LIMITS.0)?.success("/bin/sh")?;
        best = best.min(started.elapsed());
    }
    // Never zero: it divides.
    Ok(best.max(Duration::from_millis(1)))
}

/// A fault in one line; the attempt's folder holds the rest.
fn brief(fault: &MachineFault) -> String {
    fault.kind.to_string().replace('\n', " ")
}

/// The guest's times, or in words why it did not get there.
async fn probe(
    spawner: &Spawner,
    qemu: &Path,
    guest: &ProbeGuest,
    accelerator: Accelerator,
    dir: &Path,
) -> Result<Result<Measured, String>, JudgeError> {
    let (begin, end) = MARKS;
    let spec = MachineSpec {
        name: format!("probe-{accelerator}"),
        vcpus: 1,
        memory_mib: 512,
        accelerator,
        cpu_model: accelerator.cpu_model().into(),
        kernel: guest.kernel.clone(),
        initrd: Some(guest.initrd.clone()),
        append: format!("rdinit=/bin/sh -- -c \"echo {begin}; {WORK}; echo {end}; read x\""),
        disk: None,
        ram: Ram::Anonymous,
        incoming: false,
        rtc_base: None,
        no_reboot: true,
        tsc_khz: None,
    };
    let limit = match accelerator {
        Accelerator::Kvm => LIMITS.0,
        Accelerator::Tcg => LIMITS.1,
    };
    let started = Instant::now();
    let machine = match Machine::launch(spawner, qemu, spec, None, dir).await {
        Ok(machine) => machine,
        Err(VmError::Fault { fault, .. }) => return Ok(Err(brief(&fault))),
        Err(error) => return Err(error.into()),
    };
    let work = async {
        machine.console().wait_for(begin, limit).await?;
        let boot = started.elapsed();
        machine.console().wait_for(end, limit).await?;
        Some(Measured {
            boot,
            work: started.elapsed() - boot,
        })
    };
    let outcome = match machine.faults().unless_faulted(work).await {
        Ok(Some(measured)) => Ok(measured),
        Ok(None) => {
            let lines = machine.console().tail(3).join(" | ");
            Err(format!(
                "the guest was not up within {limit:?} (its last lines: {lines})"
            ))
        }
        Err(fault) => Err(brief(&fault)),
    };
    machine.kill().await;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_verdict_holds_until_the_host_qemu_or_kernel_changes() {
        let dir = tempfile::tempdir().unwrap();
        let key = VerdictKey {
            boot_id: "one".into(),
            qemu: "QEMU emulator version 10.0.2".into(),
            kernel: "/kernel 1 2".into(),
        };
        assert_eq!(cached_verdict(dir.path(), &key), None);
        let verdict = Verdict {
            accelerator: Accelerator::Tcg,
            reason: "/dev/kvm cannot be opened".into(),
            speed_factor: 12.5,
            boot_seconds: 6.0,
        };
        store_verdict(dir.path(), &key, &verdict).unwrap();
        assert_eq!(cached_verdict(dir.path(), &key), Some(verdict));
        for other in [
            VerdictKey {
                boot_id: "two".into(),
                ..key.clone()
            },
            VerdictKey {
                qemu: "newer".into(),
                ..key.clone()
            },
            VerdictKey {
                kernel: "/kernel 1 3".into(),
                ..key.clone()
            },
        ] {
            assert_eq!(cached_verdict(dir.path(), &other), None);
        }
        fs::write(stored_at(dir.path()), "{").unwrap();
        assert_eq!(cached_verdict(dir.path(), &key), None);
    }

    #[test]
    fn the_speed_factor_is_the_ratio_to_the_host_and_never_below_one() {
        let measured = Measured {
            boot: Duration::from_secs(5),
            work: Duration::from_secs(2),
        };
        let factor = |native| {
            let verdict = measured.verdict(Accelerator::Tcg, String::new(), native);
            verdict.speed_factor
        };
        assert_eq!(factor(Duration::from_millis(100)), 20.0);
        assert_eq!(factor(Duration::from_secs(4)), 1.0);
        assert_eq!(factor(Duration::from_millis(300)), 6.67);
    }
}
