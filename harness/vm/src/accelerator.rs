//! Which accelerator works here, judged by running a guest.
//!
//! A `/dev/kvm` that opens proves nothing: there are hosts on which a guest dies under it, or QEMU
//! itself does.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podwire_process::{ChildCommand, Spawner, run};
use serde::{Deserialize, Serialize};

use crate::error::VmError;
use crate::fault::MachineFault;
use crate::machine::Machine;
use crate::memory::digest;
use crate::processor::{Accelerator, KvmProcessor, cpuinfo_field};
use crate::spec::{MachineSpec, Ram};

/// Printed by the probe when the guest's first process runs, and when its work is done.
const MARKS: (&str, &str) = ("podwire-probe-begin", "podwire-probe-end");

/// The guest does nothing for so long between its first mark and the work, so that however late the
/// mark is read on a busy host, none of the work is done by then.
const PAUSE: &str = "sleep 0.5";

/// What the guest does, and the host too, for comparison: computing and starting processes.
const WORK: &str = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; \
                    for i in 0 1 2 3 4 5 6 7 8 9; do for j in 0 1 2; do /bin/sh -c :; done; done";

/// How often the host does the work in one measurement: some 50 ms each, which the operating system
/// counts in hundredths of a second.
const ROUNDS: u32 = 20;

/// A kernel that works is up within 2 s on KVM and within 20 s emulated; a busy host gets tenfold.
const LIMITS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(240));

/// The host's part takes a second, and much longer where many want its processors.
const HOST_LIMIT: Duration = Duration::from_secs(300);

/// What was found out about this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What machines run on.
    pub accelerator: Accelerator,
    /// Why, in words for the report.
    pub reason: String,
    /// How many times more processor time the same work takes in a guest than on the host, 1 at least:
    /// not by the clock, so that it is the same beside a busy neighbour. Waits on the host for
    /// something in a guest are stretched by it.
    pub speed_factor: f64,
    /// From QEMU's start to the guest's first process, by the clock.
    pub boot_seconds: f64,
}

/// What a verdict depends on: another host's boot, QEMU or kernel has another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictKey {
    /// The host's boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// `qemu --version`, first line.
    pub qemu: String,
    /// [`digest`] of the probed kernel, wherever it is: images that have the same share a verdict.
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
    /// The host's shell does not tell its processor time.
    #[error("/bin/sh tells no processor time: its `times` (POSIX) said {said:?}")]
    Times {
        /// What it printed instead of two lines like `0m0.03s 0m0.01s`.
        said: String,
    },
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
        Ok(Self {
            boot_id: fs::read_to_string(boot)
                .map_err(file(boot))?
                .trim()
                .to_owned(),
            qemu: qemu_version(spawner, qemu)?,
            kernel: digest(kernel).map_err(file(kernel))?,
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
    cache_dir.join("verdicts.json")
}

/// All of the file; nothing where there is none, or none that makes sense.
fn stored(cache_dir: &Path) -> Vec<Stored> {
    let text = fs::read(stored_at(cache_dir)).ok();
    let stored = text.and_then(|text| serde_json::from_slice(&text).ok());
    stored.unwrap_or_default()
}

/// The verdict stored in `cache_dir` under this key.
pub fn cached_verdict(cache_dir: &Path, key: &VerdictKey) -> Option<Verdict> {
    let mut stored = stored(cache_dir).into_iter();
    let found = stored.find(|it| it.key == *key);
    found.map(|it| it.verdict)
}

/// Stores a verdict in `cache_dir`. Those under other keys stay: another checkout, whose kernel or
/// QEMU is another, uses the same cache. Those of an earlier boot go.
///
/// The caller sees to it that nobody else stores one meanwhile.
///
/// # Errors
/// [`JudgeError::File`].
pub fn store_verdict(
    cache_dir: &Path,
    key: &VerdictKey,
    verdict: &Verdict,
) -> Result<(), JudgeError> {
    let path = stored_at(cache_dir);
    let mut stored = stored(cache_dir);
    stored.retain(|it| it.key.boot_id == key.boot_id && it.key != *key);
    stored.push(Stored {
        key: key.clone(),
        verdict: verdict.clone(),
    });
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

/// Boots `guest` under KVM where `/dev/kvm` opens: as the host's processor, without what QEMU then says
/// that it cannot set, as a named model; and under emulation if nothing of that works. Files of the
/// attempts are left in `dir`.
///
/// # Errors
/// [`JudgeError::Nothing`] when no guest runs at all.
pub async fn judge(
    spawner: &Spawner,
    qemu: &Path,
    guest: &ProbeGuest,
    dir: &Path,
) -> Result<Verdict, JudgeError> {
    // On both sides of the guest: what slows this processor down meanwhile slows both.
    let before = processor_time(spawner, &host_work())?;
    let (accelerator, reason, measured) = first_that_works(spawner, qemu, guest, dir).await?;
    let after = processor_time(spawner, &host_work())?;
    let native = (before + after) / (2 * ROUNDS);
    Ok(measured.verdict(accelerator, reason, native))
}

async fn first_that_works(
    spawner: &Spawner,
    qemu: &Path,
    guest: &ProbeGuest,
    dir: &Path,
) -> Result<(Accelerator, String, Measured), JudgeError> {
    let attempt = async |accelerator: Accelerator| {
        let dir = dir.join(format!("probe-{}", accelerator.id().replace(',', "-")));
        probe(spawner, qemu, guest, accelerator, &dir).await
    };
    let kvm = match File::options().read(true).write(true).open("/dev/kvm") {
        Err(error) => closed(&error, &host_processor()),
        Ok(_) => {
            let on = host_processor();
            let as_processor = async |processor| attempt(Accelerator::Kvm(processor)).await;
            match first_processor(&on, as_processor).await? {
                Ok((processor, reason, measured)) => {
                    return Ok((Accelerator::Kvm(processor), reason, measured));
                }
                Err(reason) => reason,
            }
        }
    };
    match attempt(Accelerator::Tcg).await? {
        Ok(measured) => Ok((Accelerator::Tcg, kvm, measured)),
        Err(emulated) => Err(JudgeError::Nothing { kvm, emulated }),
    }
}

/// Why nothing was tried under KVM, on this processor.
fn closed(error: &io::Error, on: &str) -> String {
    format!("/dev/kvm cannot be opened on {on} ({error})")
}

/// The first processor as which a guest runs under KVM, on this one, with what came of it; or nothing.
/// What was tried is said in either case.
async fn first_processor<T>(
    on: &str,
    attempt: impl AsyncFn(KvmProcessor) -> Result<Result<T, String>, JudgeError>,
) -> Result<Result<(KvmProcessor, String, T), String>, JudgeError> {
    let mut tried = String::new();
    let mut next = Some(KvmProcessor::HOST);
    while let Some(processor) = next {
        let model = processor.model();
        let failed = match attempt(processor).await? {
            Ok(came) => {
                let reason = format!("a guest booted under KVM on {on}, as {model}{tried}");
                return Ok(Ok((processor, reason, came)));
            }
            Err(failed) => failed,
        };
        next = processor.after(&failed);
        tried.push_str(&format!("; as {model}, {failed}"));
    }
    Ok(Err(format!(
        "/dev/kvm opens, but no guest runs under it on {on}{tried}"
    )))
}

struct Measured {
    boot: Duration,
    /// QEMU's processor time.
    work: Duration,
}

impl Measured {
    fn verdict(&self, accelerator: Accelerator, reason: String, native: Duration) -> Verdict {
        // Never zero: it divides.
        let native = native.max(Duration::from_millis(1));
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

fn host_work() -> String {
    format!("r=0; while [ $r -lt {ROUNDS} ]; do {WORK}; r=$((r+1)); done")
}

/// What a script takes of the host's processors, the processes that it starts included.
fn processor_time(spawner: &Spawner, script: &str) -> Result<Duration, JudgeError> {
    let command = ChildCommand::new("/bin/sh")
        .args(["-c", &format!("{script}; times")])
        .env("LC_ALL", "C");
    let said = run(spawner, command, HOST_LIMIT)?
        .success("/bin/sh")?
        .stdout;
    times(&said).ok_or(JudgeError::Times { said })
}

/// The sum of what a shell's `times` prints: user and system time, its own and its children's.
fn times(said: &str) -> Option<Duration> {
    let seconds = said.split_whitespace().map(|word| {
        let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    });
    let seconds: Vec<f64> = seconds.collect::<Option<_>>()?;
    if seconds.len() != 4 {
        return None;
    }
    Duration::try_from_secs_f64(seconds.iter().sum()).ok()
}

/// The model of the host's processor, as /proc/cpuinfo has it.
fn host_processor() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo_field(&cpuinfo, "model name");
    model.unwrap_or("an unknown processor").to_owned()
}

/// A fault in one line; the attempt's folder holds the rest.
fn brief(fault: &MachineFault) -> String {
    fault.kind.to_string().replace('\n', " ")
}

/// What the guest took, or in words why it did not get there.
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
        append: format!(
            "rdinit=/bin/sh -- -c \"echo {begin}; {PAUSE}; {WORK}; echo {end}; read x\""
        ),
        disk: None,
        ram: Ram::Anonymous,
        incoming: false,
        rtc_base: None,
        no_reboot: true,
        tsc_khz: None,
    };
    let limit = match accelerator {
        Accelerator::Kvm(_) => LIMITS.0,
        Accelerator::Tcg => LIMITS.1,
    };
    let started = Instant::now();
    let machine = match Machine::launch(spawner, qemu, spec, Vec::new(), dir).await {
        Ok(machine) => machine,
        Err(VmError::Fault { fault, .. }) => return Ok(Err(brief(&fault))),
        Err(error) => return Err(error.into()),
    };
    let work = async {
        let mark = async |mark| machine.console().wait_for(mark, limit).await.is_some();
        if !mark(begin).await {
            return Ok(None);
        }
        let (boot, used) = (started.elapsed(), machine.cpu_time()?);
        if !mark(end).await {
            return Ok(None);
        }
        let work = machine.cpu_time()?.saturating_sub(used);
        Ok::<_, VmError>(Some(Measured { boot, work }))
    };
    let outcome = match machine.faults().unless_faulted(work).await {
        Ok(Ok(Some(measured))) => Ok(measured),
        Ok(Ok(None)) => {
            let lines = machine.console().tail(3).join(" | ");
            Err(format!(
                "the guest was not up within {limit:?} (its last lines: {lines})"
            ))
        }
        Ok(Err(error)) => Err(format!("QEMU was gone: {error}")),
        Err(fault) => Err(brief(&fault)),
    };
    machine.kill().await;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn key() -> VerdictKey {
        VerdictKey {
            boot_id: "one".into(),
            qemu: "QEMU emulator version 10.0.2".into(),
            kernel: "0123".into(),
        }
    }

    fn verdict(speed_factor: f64) -> Verdict {
        Verdict {
            accelerator: Accelerator::Tcg,
            reason: "/dev/kvm cannot be opened".into(),
            speed_factor,
            boot_seconds: 6.0,
        }
    }

    /// What a nested KVM was seen to do: it names a register, and then runs a plainer processor only.
    #[tokio::test]
    async fn each_processor_is_tried_in_its_turn_and_all_that_came_of_it_is_said() {
        const MSR: &str = "QEMU ended: failed to set MSR 0x10a to 0xc000069";
        let tried = async |works: Option<&str>| {
            let models = RefCell::new(Vec::new());
            let attempt = async |processor: KvmProcessor| {
                let model = processor.model();
                models.borrow_mut().push(model);
                Ok(match model {
                    works_as if works == Some(works_as) => Ok(()),
                    "host" => Err(MSR.to_owned()),
                    _ => Err("the guest was stopped: internal-error".to_owned()),
                })
            };
            let came = first_processor("Some CPU", attempt).await.unwrap();
            (models.into_inner(), came)
        };
        let (models, came) = tried(Some("Nehalem")).await;
        assert_eq!(models, ["host", "host,arch-capabilities=off", "Nehalem"]);
        let (processor, reason, ()) = came.unwrap();
        assert_eq!(processor, KvmProcessor::Named);
        insta::assert_snapshot!(reason, @"a guest booted under KVM on Some CPU, as Nehalem; as host, QEMU ended: failed to set MSR 0x10a to 0xc000069; as host,arch-capabilities=off, the guest was stopped: internal-error");
        let (models, came) = tried(Some("host")).await;
        assert_eq!(models, ["host"]);
        assert_eq!(
            came.unwrap().1,
            "a guest booted under KVM on Some CPU, as host"
        );
        let (models, came) = tried(None).await;
        assert_eq!(models.len(), 3);
        insta::assert_snapshot!(came.unwrap_err(), @"/dev/kvm opens, but no guest runs under it on Some CPU; as host, QEMU ended: failed to set MSR 0x10a to 0xc000069; as host,arch-capabilities=off, the guest was stopped: internal-error; as Nehalem, the guest was stopped: internal-error");
    }

    #[test]
    fn where_kvm_is_closed_it_is_said_why_and_on_which_processor() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let said = closed(&error, "Some CPU");
        insta::assert_snapshot!(said, @"/dev/kvm cannot be opened on Some CPU (permission denied)");
    }

    #[test]
    fn a_stored_verdict_is_that_of_its_host_qemu_and_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let key = key();
        assert_eq!(cached_verdict(dir.path(), &key), None);
        store_verdict(dir.path(), &key, &verdict(12.5)).unwrap();
        assert_eq!(cached_verdict(dir.path(), &key), Some(verdict(12.5)));
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
                kernel: "4567".into(),
                ..key.clone()
            },
        ] {
            assert_eq!(cached_verdict(dir.path(), &other), None);
        }
        fs::write(stored_at(dir.path()), "{").unwrap();
        assert_eq!(cached_verdict(dir.path(), &key), None);
        store_verdict(dir.path(), &key, &verdict(13.0)).unwrap();
        assert_eq!(cached_verdict(dir.path(), &key), Some(verdict(13.0)));
    }

    #[test]
    fn a_verdict_outlives_those_of_other_checkouts_but_not_the_host_s_boot() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (
            key(),
            VerdictKey {
                kernel: "4567".into(),
                ..key()
            },
        );
        store_verdict(dir.path(), &one, &verdict(12.0)).unwrap();
        store_verdict(dir.path(), &other, &verdict(14.0)).unwrap();
        assert_eq!(cached_verdict(dir.path(), &one), Some(verdict(12.0)));
        assert_eq!(cached_verdict(dir.path(), &other), Some(verdict(14.0)));
        store_verdict(dir.path(), &one, &verdict(13.0)).unwrap();
        assert_eq!(cached_verdict(dir.path(), &one), Some(verdict(13.0)));
        let next = VerdictKey {
            boot_id: "two".into(),
            ..key()
        };
        store_verdict(dir.path(), &next, &verdict(13.0)).unwrap();
        assert_eq!(cached_verdict(dir.path(), &one), None);
        assert_eq!(cached_verdict(dir.path(), &other), None);
    }

    #[test]
    fn the_same_kernel_has_the_same_key_in_every_image() {
        let dir = tempfile::tempdir().unwrap();
        let spawner = Spawner::start().unwrap();
        let key = |name: &str, content: &str| {
            let kernel = dir.path().join(name);
            fs::write(&kernel, content).unwrap();
            VerdictKey::here(&spawner, Path::new("/bin/echo"), &kernel).unwrap()
        };
        assert_eq!(key("one", "Linux"), key("other", "Linux"));
        assert_ne!(key("one", "Linux"), key("one", "Linus"));
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
        assert_eq!(factor(Duration::ZERO), 100.0);
    }

    #[test]
    fn the_host_s_work_is_counted_by_processor_time_and_not_by_the_clock() {
        let spawner = Spawner::start().unwrap();
        let slept = processor_time(&spawner, "sleep 1").unwrap();
        assert!(slept < Duration::from_millis(500), "{slept:?}");
        // A child's counts too, however long it takes to get it.
        let computing = "/bin/sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'";
        assert!(processor_time(&spawner, computing).unwrap() > Duration::ZERO);
        assert!(processor_time(&spawner, &host_work()).unwrap() > Duration::ZERO);
    }

    #[test]
    fn shells_print_their_times_with_more_or_fewer_digits() {
        let sum = |said| times(said).map(|it| it.as_millis());
        assert_eq!(
            sum("0m0.030000s 0m0.010000s\n0m1.200000s 1m0.000000s\n"),
            Some(61240)
        );
        assert_eq!(sum("0m0.03s 0m0.01s\n0m0.02s 0m0.00s\n"), Some(60));
        assert_eq!(sum("0m0.03s 0m0.01s\n"), None);
        assert_eq!(sum("sh: times: not found"), None);
        assert_eq!(sum(""), None);
    }
}
