//! A running machine.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use podwire_process::{ChildCommand, Spawner, Stream};
use qapi::qmp::{self, QmpCommand};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::console::{CONSOLE_TAIL, Console};
use crate::error::VmError;
use crate::fault::{FaultKind, FaultWatch, MachineFault};
use crate::guest::Guest;
use crate::qmp::{Events, Qmp, QmpError};
use crate::scheduled::{Scheduled, cpu_time, scheduled};
use crate::spec::{
    Descriptors, MachineSpec, NIC_SLOT, NicDescriptor, Ram, netdev_id, nic_id, nic_properties,
};
use crate::transcript::Transcript;
use crate::words::{Words, bounded_log};

/// For one control command. QEMU answers in milliseconds whatever the guest does; only a host
/// short of memory or processors makes it slower.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// For writing or reading device state, about a megabyte.
const STATE_LIMIT: Duration = Duration::from_secs(120);

/// For what a dead QEMU leaves behind: its exit status and the rest of its console.
pub(crate) const REMAINS_LIMIT: Duration = Duration::from_secs(5);

/// A network card: its address, and QEMU's end of its port on the segment.
#[derive(Debug)]
pub struct Nic {
    /// MAC address, `52:54:00:00:01:01`.
    pub mac: String,
    /// A stream socket carrying each frame behind its length (4 bytes, big-endian).
    pub fd: OwnedFd,
    /// Whether it is in its slot from the start, or [`Machine::plug_nics`] puts it there.
    pub plugged: bool,
}

/// A QEMU process with its console, control channel and fate.
///
/// Dropping it kills QEMU; the kernel does so as well when this process ends.
#[derive(Debug)]
pub struct Machine {
    spec: MachineSpec,
    process: Process,
    qmp: Qmp,
    guest: Guest,
    console: Console,
    faults: FaultWatch,
    macs: Vec<String>,
    frozen: AtomicBool,
    // The children of a spawner die with its last clone.
    _spawner: Spawner,
}

impl Machine {
    /// Starts QEMU in `dir`, where `argv`, `console.log`, `qmp.log`, `agent.log` and `qemu.log` are
    /// written (all but the first are continued when they exist). The guest boots at once, or waits for
    /// [`Machine::load`] when the spec says `incoming`. Of several network cards all are plugged or none.
    ///
    /// # Errors
    /// [`VmError`]; when QEMU refuses its arguments, [`VmError::Fault`] with its words.
    pub async fn launch(
        spawner: &Spawner,
        qemu: &Path,
        spec: MachineSpec,
        nics: Vec<Nic>,
        dir: &Path,
    ) -> Result<Self, VmError> {
        let dir = absolute(dir)?;
        let spec = spec.absolute().map_err(|source| VmError::File {
            path: dir.clone(),
            source,
        })?;
        if let Some(missing) = spec.inputs().find(|path| !path.exists()) {
            return Err(VmError::Missing {
                machine: spec.name.clone(),
                path: missing.to_owned(),
            });
        }
        let host = |what: &'static str| {
            let machine = spec.name.clone();
            move |source: io::Error| VmError::Host {
                machine,
                what,
                source,
            }
        };

        fs::create_dir_all(&dir).map_err(|source| VmError::File {
            path: dir.clone(),
            source,
        })?;
        let (words, said) = Words::new(&dir.join("qemu.log"))?;
        let said_again = said.try_clone().map_err(host("a log"))?;

        let (qmp_ours, qmp_qemus) = UnixStream::pair().map_err(host("a control channel"))?;
        let (console_ours, console_qemus) = UnixStream::pair().map_err(host("a console"))?;
        let (agent_ours, agent_qemus) = UnixStream::pair().map_err(host("a way in"))?;
        let descriptors = Descriptors {
            qmp: qmp_qemus.as_raw_fd(),
            console: console_qemus.as_raw_fd(),
            agent: agent_qemus.as_raw_fd(),
            nics: (nics.iter())
                .map(|nic| NicDescriptor {
                    mac: nic.plugged.then(|| nic.mac.clone()),
                    fd: nic.fd.as_raw_fd(),
                })
                .collect(),
        };
        let mut command = ChildCommand::new(program(qemu)?)
            .args(spec.command_line(&descriptors))
            .dir(&dir);
        command.stdout = Stream::File(said_again);
        command.stderr = Stream::File(said);
        // Ctrl-C is ours to act on: evidence on disk is completed before QEMU goes.
        command.own_group = true;
        command.inherit = vec![qmp_qemus.into(), console_qemus.into(), agent_qemus.into()];
        let macs = nics.iter().map(|nic| nic.mac.clone()).collect();
        let ends = nics.into_iter().map(|nic| nic.fd);
        command.inherit.extend(ends);
        let argv_path = dir.join("argv");
        fs::write(&argv_path, command.display() + "\n").map_err(|source| VmError::File {
            path: argv_path,
            source,
        })?;
        let console_log = bounded_log(&dir.join("console.log"))?;
        let transcript = Transcript::new(bounded_log(&dir.join("qmp.log"))?);
        let agent_log = Transcript::new(bounded_log(&dir.join("agent.log"))?);

        let mut child = spawner.spawn(command)?;
        let pid = child.id();
        // Taken before anybody waits for the child, so the number still means this process.
        let handle = Pid::from_raw(pid.cast_signed())
            .ok_or(Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let handle = match handle {
            Ok(handle) => handle,
            Err(error) => {
                // Nothing else could end it later.
                let _ = child.kill();
                return Err(host("a process handle")(error.into()));
            }
        };
        let (ended, exited) = watch::channel(None);
        let process = Process {
            pid,
            handle,
            exited,
            expected: Arc::new(AtomicBool::new(false)),
        };
        thread::Builder::new()
            .name(format!("wait {pid}"))
            .spawn(move || {
                // A failed wait means that there is nothing to wait for any more.
                let status = child.wait().unwrap_or_default();
                ended.send_replace(Some(status));
            })
            .map_err(host("a thread"))?;

        let faults = FaultWatch::new(&spec.name);
        let console_stream = tokio_stream(console_ours).map_err(host("a console"))?;
        let (console, recorded) = Console::record(console_stream, console_log, faults.clone());
        tokio::spawn(report_exit(
            process.exited.clone(),
            Arc::clone(&process.expected),
            recorded,
            console.clone(),
            faults.clone(),
            {
                let words = Arc::clone(&words);
                move || words.last()
            },
        ));

        let qmp_stream = tokio_stream(qmp_ours).map_err(host("a control channel"))?;
        let qmp = match Qmp::connect(qmp_stream, transcript, COMMAND_LIMIT).await {
            Ok(qmp) => qmp,
            Err(source) => {
                return Err(explained(&spec.name, &process, &faults, "start QEMU", source).await);
            }
        };
        tokio::spawn(report_stop(
            qmp.clone(),
            console.clone(),
            faults.clone(),
            move || words.last(),
        ));
        let agent_stream = tokio_stream(agent_ours).map_err(host("a way in"))?;
        let guest = Guest::over(agent_stream, agent_log, faults.clone());
        Ok(Self {
            spec,
            process,
            qmp,
            guest,
            console,
            faults,
            macs,
            frozen: AtomicBool::new(false),
            _spawner: spawner.clone(),
        })
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What it was started from, with absolute paths.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Processor time that QEMU has used so far, that of the guest included (proc_pid_stat(5), utime
    /// and stime).
    ///
    /// # Errors
    /// [`VmError::File`] when the process has ended.
    pub fn cpu_time(&self) -> Result<Duration, VmError> {
        let path = PathBuf::from(format!("/proc/{}/stat", self.pid()));
        match fs::read_to_string(&path) {
            Ok(stat) => Ok(cpu_time(&stat)),
            Err(source) => Err(VmError::File { path, source }),
        }
    }

    /// What the host's scheduler says of QEMU's threads so far; of one that has ended nothing.
    ///
    /// # Errors
    /// [`VmError::File`] when the process has ended, or where the kernel keeps no such account.
    pub fn scheduled(&self) -> Result<Scheduled, VmError> {
        let path = PathBuf::from(format!("/proc/{}/task", self.pid()));
        scheduled(&path).map_err(|source| VmError::File { path, source })
    }

    /// The recorded serial line.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The control channel.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The way into the guest, once its agent answers ([`Guest::up`]); there is none in a machine
    /// without podwire's image.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// A watch on the machine's faults that outlives borrows of the machine.
    pub fn faults(&self) -> FaultWatch {
        self.faults.clone()
    }

    /// The first fault, if there was one.
    pub fn fault(&self) -> Option<MachineFault> {
        self.faults.fault()
    }

    /// Resolves with the first fault as soon as it happens.
    pub async fn faulted(&self) -> MachineFault {
        self.faults.faulted().await
    }

    /// Stops the guest's processors and clock.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn pause(&self) -> Result<(), VmError> {
        self.command("pause", qmp::stop {}).await?;
        Ok(())
    }

    /// Lets the guest run (on).
    ///
    /// # Errors
    /// [`VmError::Frozen`] after [`Machine::save`].
    pub async fn resume(&self) -> Result<(), VmError> {
        if self.frozen.load(Ordering::Relaxed) {
            return Err(VmError::Frozen {
                machine: self.spec.name.clone(),
            });
        }
        self.command("resume", qmp::cont {}).await?;
        Ok(())
    }

    /// Cuts the guest's power and switches it on again, as far as the guest can tell: processors and
    /// devices are reset, what was only in its memory is lost, its clock goes on (QEMU QMP
    /// reference, `system_reset`).
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn reset(&self) -> Result<(), VmError> {
        self.command("cut the power of", qmp::system_reset {})
            .await?;
        Ok(())
    }

    /// Cuts the guest's power, and leaves it off: its processors stop, and then all of it is reset, so that nothing is
    /// left of what was only in its memory (QEMU QMP reference, `stop` and `system_reset`).
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn cut_power(&self) -> Result<(), VmError> {
        self.pause().await?;
        self.reset().await
    }

    /// Takes the link of its first network card away, or gives it back (QEMU QMP reference, `set_link`):
    /// the guest's card has no carrier.
    ///
    /// # Errors
    /// What QEMU says, for a machine without a card.
    pub async fn set_link(&self, up: bool) -> Result<(), VmError> {
        let name = nic_id(0);
        self.command("set the link of", qmp::set_link { name, up })
            .await?;
        Ok(())
    }

    /// Plugs in the cards of a machine that was started with them unplugged. The guest sees them some
    /// seconds later, all at once.
    ///
    /// # Errors
    /// What QEMU says, for a machine with one in its slot already.
    pub async fn plug_nics(&self) -> Result<(), VmError> {
        // A guest looks at a slot when function 0 of what is in it comes (QEMU, docs/pcie.txt).
        for (index, mac) in self.macs.iter().enumerate().rev() {
            let card = [
                ("netdev", netdev_id(index).into()),
                ("mac", mac.clone().into()),
            ];
            let card = card.into_iter();
            let card = card.chain(nic_properties(index, self.macs.len()));
            let plug = qmp::device_add {
                driver: "virtio-net-pci".into(),
                id: Some(nic_id(index)),
                bus: Some(NIC_SLOT.into()),
                arguments: card.map(|(key, value)| (key.to_owned(), value)).collect(),
            };
            self.command("plug in its network card", plug).await?;
        }
        Ok(())
    }

    /// Freezes the machine: stops it and writes its device state to `state`; its memory is in the
    /// file of [`Ram::Template`], its disk in its overlay. From then on it can only be killed, and
    /// must be before a clone starts.
    ///
    /// Machines that talk to each other are paused together before any of them is saved.
    ///
    /// # Errors
    /// [`VmError::NotATemplate`], or what QEMU says.
    pub async fn save(&self, state: &Path) -> Result<(), VmError> {
        if !matches!(self.spec.ram, Ram::Template(_)) {
            return Err(VmError::NotATemplate {
                machine: self.spec.name.clone(),
            });
        }
        self.pause().await?;
        let state = absolute(state)?;
        let doing = "save its state to";
        self.set_capabilities(doing).await?;
        let events = self.qmp.events();
        let start = qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some(format!("file:{}", state.display())),
        };
        self.command(doing, start).await?;
        self.migrated(events, doing, &state).await?;
        self.frozen.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Brings back device state written by [`Machine::save`]; the machine stays paused.
    ///
    /// # Errors
    /// What QEMU says; it ends itself when the state does not fit ([`VmError::Fault`]).
    pub async fn load(&self, state: &Path) -> Result<(), VmError> {
        let state = absolute(state)?;
        if !state.exists() {
            return Err(VmError::Missing {
                machine: self.spec.name.clone(),
                path: state,
            });
        }
        let doing = "load its state from";
        self.set_capabilities(doing).await?;
        let events = self.qmp.events();
        let start = qmp::migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: Some(format!("file:{}", state.display())),
        };
        self.command(doing, start).await?;
        self.migrated(events, doing, &state).await
    }

    /// Has the guest shut itself down, as an administrator does, and waits until QEMU has ended.
    /// The ACPI power button is not used: a guest needs a daemon that listens to it, which costs
    /// an emulated one seconds at every boot.
    ///
    /// # Errors
    /// [`VmError::StillOn`] when the guest does not come to its end in time: it keeps running.
    pub async fn power_off(&self, limit: Duration) -> Result<(), VmError> {
        self.process.expected.store(true, Ordering::Relaxed);
        let shut_down = async {
            tokio::select! {
                // The guest may end before the answer does: what counts is the end of QEMU.
                _ = self.guest.run("systemctl poweroff", limit) => {}
                () = self.process.ended() => {}
            }
            self.process.ended().await;
        };
        if timeout(limit, shut_down).await.is_ok() {
            return Ok(());
        }
        self.process.expected.store(false, Ordering::Relaxed);
        Err(VmError::StillOn {
            machine: self.spec.name.clone(),
            limit,
            console: self.console.tail(CONSOLE_TAIL).join("\n"),
        })
    }

    /// Ends QEMU at once, as a power cut would, and waits until it is gone.
    pub async fn kill(self) {
        self.process.kill();
        // A process that survives SIGKILL is stuck in the kernel: nothing here can help it.
        let _ = timeout(REMAINS_LIMIT, self.process.ended()).await;
    }

    async fn set_capabilities(&self, doing: &'static str) -> Result<(), VmError> {
        use qmp::MigrationCapability::{events, x_ignore_shared};
        let capabilities = [x_ignore_shared, events]
            .map(|capability| qmp::MigrationCapabilityStatus {
                capability,
                state: true,
            })
            .to_vec();
        self.command(doing, qmp::migrate_set_capabilities { capabilities })
            .await?;
        Ok(())
    }

    async fn migrated(
        &self,
        mut events: Events,
        doing: &'static str,
        state: &Path,
    ) -> Result<(), VmError> {
        let failed = |reason| VmError::Migration {
            machine: self.spec.name.clone(),
            doing,
            state: state.to_owned(),
            reason,
        };
        let done = async {
            while let Some(event) = events.next().await {
                if event.name == "MIGRATION" {
                    match event.data.get("status").and_then(Value::as_str) {
                        Some("completed") => return Ok(()),
                        Some(status @ ("failed" | "cancelled")) => {
                            return Err(Some(status.to_owned()));
                        }
                        _ => {}
                    }
                }
            }
            Err(None)
        };
        match timeout(STATE_LIMIT, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Some(status))) => {
                let info = self.command(doing, qmp::query_migrate {}).await?;
                Err(failed(info.error_desc.unwrap_or(status)))
            }
            Ok(Err(None)) => {
                let lost = QmpError::Lost { command: "migrate" };
                Err(self.explained(doing, lost).await)
            }
            Err(_) => Err(failed(format!("not done after {STATE_LIMIT:?}"))),
        }
    }

    async fn command<C: QmpCommand>(
        &self,
        doing: &'static str,
        command: C,
    ) -> Result<C::Ok, VmError> {
        match self.qmp.execute(command, COMMAND_LIMIT).await {
            Ok(done) => Ok(done),
            Err(source) => Err(self.explained(doing, source).await),
        }
    }

    async fn explained(&self, doing: &'static str, source: QmpError) -> VmError {
        explained(&self.spec.name, &self.process, &self.faults, doing, source).await
    }
}

/// QEMU's death where that is why the control channel failed; else the failure itself.
async fn explained(
    machine: &str,
    process: &Process,
    faults: &FaultWatch,
    doing: &'static str,
    source: QmpError,
) -> VmError {
    let lost = matches!(source, QmpError::Lost { .. });
    if lost
        && !process.expected.load(Ordering::Relaxed)
        && let Ok(fault) = timeout(REMAINS_LIMIT, faults.faulted()).await
    {
        return VmError::Fault {
            doing,
            fault: Box::new(fault),
        };
    }
    VmError::Qmp {
        machine: machine.to_owned(),
        doing,
        source,
    }
}

#[derive(Debug)]
struct Process {
    pid: u32,
    handle: OwnedFd,
    exited: watch::Receiver<Option<ExitStatus>>,
    /// Whether an end of QEMU is what somebody asked for.
    expected: Arc<AtomicBool>,
}

impl Process {
    fn kill(&self) {
        self.expected.store(true, Ordering::Relaxed);
        // It fails only when the process has ended already.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    async fn ended(&self) {
        let mut exited = self.exited.clone();
        // A closed channel means that the waiting thread is gone, and with it the process.
        let _ = exited.wait_for(Option::is_some).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn report_exit(
    mut exited: watch::Receiver<Option<ExitStatus>>,
    expected: Arc<AtomicBool>,
    recorded: tokio::task::JoinHandle<()>,
    console: Console,
    faults: FaultWatch,
    last_words: impl FnOnce() -> String,
) {
    let Ok(status) = exited.wait_for(Option::is_some).await.map(|status| *status) else {
        return;
    };
    // The console may hold the very reason: read it to its end first.
    let _ = timeout(REMAINS_LIMIT, recorded).await;
    if !expected.load(Ordering::Relaxed) {
        let kind = FaultKind::Exited {
            status: status.map(|status| status.to_string()).unwrap_or_default(),
            last_words: last_words(),
        };
        faults.report(kind, || console.tail(CONSOLE_TAIL));
    }
}

async fn report_stop(
    qmp: Qmp,
    console: Console,
    faults: FaultWatch,
    last_words: impl FnOnce() -> String,
) {
    if let Some(state) = qmp.gave_up(COMMAND_LIMIT).await {
        let kind = FaultKind::Stopped {
            state: state.to_owned(),
            last_words: last_words(),
        };
        faults.report(kind, || console.tail(CONSOLE_TAIL));
    }
}

fn absolute(path: &Path) -> Result<PathBuf, VmError> {
    std::path::absolute(path).map_err(|source| VmError::File {
        path: path.to_owned(),
        source,
    })
}

/// A bare name is looked up in `PATH`; anything else must not depend on QEMU's own folder.
fn program(qemu: &Path) -> Result<PathBuf, VmError> {
    if qemu.components().count() > 1 {
        absolute(qemu)
    } else {
        Ok(qemu.to_owned())
    }
}

fn tokio_stream(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::Accelerator;
    use std::os::unix::fs::PermissionsExt as _;

    /// A QEMU that only says this, as a shell's script.
    async fn said(dir: &Path, script: &str) -> MachineFault {
        let (qemu, kernel) = (dir.join("qemu"), dir.join("kernel"));
        // By a process of its own: whoever another test starts meanwhile inherits what is open here (execve(2),
        // ETXTBSY).
        fs::write(dir.join("script"), format!("#!/bin/sh\n{script}\n")).unwrap();
        let copied = std::process::Command::new("cp")
            .args([dir.join("script"), qemu.clone()])
            .status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&kernel, "").unwrap();
        let spec = MachineSpec {
            name: "node1".into(),
            vcpus: 1,
            memory_mib: 64,
            accelerator: Accelerator::Tcg,
            cpu_model: "max".into(),
            kernel,
            initrd: None,
            append: String::new(),
            disk: None,
            ram: Ram::Anonymous,
            incoming: false,
            rtc_base: None,
            no_reboot: true,
            tsc_khz: None,
        };
        let spawner = Spawner::start().unwrap();
        match Machine::launch(&spawner, &qemu, spec, Vec::new(), &dir.join("logs")).await {
            Err(VmError::Fault { fault, .. }) => *fault,
            other => panic!("{other:?}"),
        }
    }

    fn last(fault: &MachineFault) -> &str {
        match &fault.kind {
            FaultKind::Exited { last_words, .. } => last_words,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_qemu_says_is_in_its_log_and_in_its_fault_each_time() {
        let dir = tempfile::tempdir().unwrap();
        for word in ["first", "second"] {
            let fault = said(dir.path(), &format!("echo {word}; echo why >&2; exit 1")).await;
            assert_eq!(last(&fault), format!("{word}\nwhy"));
        }
        let log = fs::read_to_string(dir.path().join("logs/qemu.log")).unwrap();
        assert_eq!(log, "first\nwhy\nsecond\nwhy\n");
    }

    #[tokio::test]
    async fn a_guest_that_makes_qemu_talk_without_end_fills_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let fault = said(dir.path(), "head -c 70000000 /dev/zero >&2; exit 1").await;
        let end = "(cut: no more than 64 MiB are kept)";
        assert!(last(&fault).ends_with(end), "{fault}");
        let log = fs::metadata(dir.path().join("logs/qemu.log")).unwrap();
        assert_eq!(log.len(), (64 << 20) + end.len() as u64 + 2);
    }
}
