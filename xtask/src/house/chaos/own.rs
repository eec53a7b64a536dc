//! The processes of a campaign: found in /proc by a mark in their environment, which a child inherits
//! whoever its parent is by now, and by who is below them. No other process is ever looked at twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, waitpid,
};

use super::draw::Victim;

/// The variable by which a campaign knows its own.
pub(super) const MARK: &str = "PODWIRE_CHAOS";

/// `PF_KTHREAD` of the flags in proc_pid_stat(5): one of the kernel's own, which has no environment.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Looks at an environment that is empty, a millisecond apart: what is so all of its life is believed.
const LOOKS: usize = 300;

/// Octets of an environment that are looked at: what Linux gives to arguments and environment together
/// (execve(2), a quarter of a stack of 8 MiB).
const ENVIRONMENT: usize = 2 << 20;

/// A campaign's processes.
#[derive(Debug)]
pub(super) struct Own {
    /// `PODWIRE_CHAOS=...`, as it stands in an environment.
    mark: Vec<u8>,
    proc: PathBuf,
    /// Those that were seen below others of them. When they end after their parents, they are this
    /// process's to reap.
    grandchildren: BTreeSet<i32>,
}

/// A process as /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: Pid,
    parent: i32,
    /// It has ended, and waits for its parent to notice.
    ended: bool,
    marked: bool,
    /// Its command line.
    pub(super) words: Vec<OsString>,
}

impl Process {
    fn number(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// What it is in a run of that xtask.
    pub(super) fn role(&self, xtask: Pid) -> Option<Victim> {
        if self.pid == xtask {
            return Some(Victim::Xtask);
        }
        let program = Path::new(self.words.first()?).file_name()?.to_str()?;
        match program {
            "cargo-nextest" if self.parent == xtask.as_raw_nonzero().get() => Some(Victim::Nextest),
            // One that has a machine, and none that is asked for its version.
            _ if program.starts_with("qemu-system-") => {
                let machine = self.words.iter().any(|word| word == "-machine");
                machine.then_some(Victim::Qemu)
            }
            // The catalogue's test program, with cargo's digest; nextest asks it for a list before.
            _ if program.starts_with("scenarios-") => self.scenario().map(|_| Victim::Scenario),
            _ => None,
        }
    }

    /// The scenario whose process it is, as nextest asks for it: `--exact NAME`.
    pub(super) fn scenario(&self) -> Option<String> {
        let mut words = self.words.iter();
        let _ = words.find(|word| *word == "--exact")?;
        words
            .find(|word| !word.as_encoded_bytes().starts_with(b"-"))
            .and_then(|name| name.to_str())
            .map(str::to_owned)
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = self
            .words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        let line: String = words.join(" ").chars().take(160).collect();
        write!(f, "{} {line}", self.pid.as_raw_nonzero())
    }
}

impl Own {
    /// Those with this mark.
    pub(super) fn marked(mark: &str) -> Self {
        Self {
            mark: format!("{MARK}={mark}").into_bytes(),
            proc: "/proc".into(),
            grandchildren: BTreeSet::new(),
        }
    }

    /// All that run, but neither this process nor those named. Orphans that have ended are reaped on the
    /// way.
    pub(super) fn running(&mut self, but: &[Pid]) -> Vec<Process> {
        let all = self.all();
        let here = getpid();
        let is_child = |it: &Process| it.parent == here.as_raw_nonzero().get();
        for orphan in all.values().filter(|it| it.ended && is_child(it)) {
            if self.grandchildren.remove(&orphan.number()) {
                // It has ended: nobody waits here.
                let _ = waitpid(Some(orphan.pid), WaitOptions::NOHANG);
            }
        }
        let of = own(&all, here, but);
        let running: Vec<Process> = all
            .into_values()
            .filter(|it| of.contains(&it.number()) && !it.ended)
            .collect();
        let below = running.iter().filter(|it| !is_child(it));
        self.grandchildren.extend(below.map(Process::number));
        running
    }

    fn all(&self) -> BTreeMap<i32, Process> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let process = self.look(Pid::from_raw(pid)?)?;
                Some((pid, process))
            })
            .collect()
    }

    /// A process; nothing when there is none (any more).
    fn look(&self, pid: Pid) -> Option<Process> {
        let dir = self.proc.join(pid.as_raw_nonzero().to_string());
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        // The name stands in parentheses and may hold blanks and parentheses itself (proc_pid_stat(5)).
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let ended = ["Z", "X"].contains(&fields.next()?);
        let parent = fields.next()?.parse().ok()?;
        let flags: u32 = fields.nth(4)?.parse().ok()?;
        let has_memory = !ended && flags & KERNEL_THREAD == 0;
        let environment = if has_memory {
            environment(&dir)
        } else {
            Vec::new()
        };
        let words = fs::read(dir.join("cmdline")).unwrap_or_default();
        let mut words: Vec<_> = words.split(|byte| *byte == 0).collect();
        // Each word ends with a zero byte.
        words.pop();
        let words = words.into_iter().map(|it| OsString::from_vec(it.to_vec()));
        Some(Process {
            pid,
            parent,
            ended,
            marked: environment
                .split(|byte| *byte == 0)
                .any(|it| it == self.mark),
            words: words.collect(),
        })
    }

    /// Sends a signal to a process, if it is still this campaign's: its number may be another's by now.
    ///
    /// # Errors
    /// The operating system's; `ESRCH` when it has ended.
    pub(super) fn send(&self, to: &Process, signal: Signal) -> io::Result<()> {
        let handle = pidfd_open(to.pid, PidfdFlags::empty())?;
        // The handle is on whoever has the number now.
        let same = self.look(to.pid).is_some_and(|now| {
            !now.ended && now.marked == to.marked && (now.marked || now.parent == to.parent)
        });
        if !same {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(pidfd_send_signal(&handle, signal)?)
    }

    /// Kills all of them, and whatever they start meanwhile.
    pub(super) fn kill_all(&mut self, but: &[Pid]) {
        for _ in 0..50 {
            let running = self.running(but);
            if running.is_empty() {
                return;
            }
            for process in running {
                // Gone already.
                let _ = self.send(&process, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A process's environment. One that takes another program (execve(2)) has none for a moment, and is
/// looked at until it has.
fn environment(dir: &Path) -> Vec<u8> {
    let mut bytes = vec![0; ENVIRONMENT];
    for _ in 0..LOOKS {
        // In one call: between two, another program's environment may have taken the place of this one.
        let read = File::open(dir.join("environ")).and_then(|mut file| file.read(&mut bytes));
        match read {
            Ok(0) => std::thread::sleep(Duration::from_millis(1)),
            // Another user's is not to be read, and nobody's here; nor is that of one that is gone.
            read => {
                bytes.truncate(read.unwrap_or(0));
                return bytes;
            }
        }
    }
    Vec::new()
}

/// The marked, and all below them and below `here`; neither `here` itself nor those named and what is
/// below these alone.
fn own(all: &BTreeMap<i32, Process>, here: Pid, but: &[Pid]) -> BTreeSet<i32> {
    let others = |it: &&Process| it.pid != here && !but.contains(&it.pid);
    let marked = all.values().filter(others).filter(|it| it.marked);
    let mut of: BTreeSet<i32> = marked.map(Process::number).collect();
    let here = here.as_raw_nonzero().get();
    loop {
        let all = all.values().filter(others);
        let more: Vec<i32> = all
            .filter(|it| it.parent == here || of.contains(&it.parent))
            .map(Process::number)
            .filter(|number| !of.contains(number))
            .collect();
        if more.is_empty() {
            return of;
        }
        of.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    fn process(number: i32, parent: i32, marked: bool, line: &str) -> Process {
        Process {
            pid: pid(number),
            parent,
            ended: false,
            marked,
            words: line.split(' ').map(OsString::from).collect(),
        }
    }

    #[test]
    fn whoever_lost_parent_or_mark_is_found_and_nobody_else() {
        let all: BTreeMap<i32, Process> = [
            process(1, 0, false, "init"),
            process(10, 1, false, "xtask chaos"),
            process(11, 10, true, "xtask test"),
            process(12, 11, true, "cargo-nextest"),
            // An orphan, and one without the mark below it.
            process(20, 1, true, "qemu-system-x86_64"),
            process(21, 20, false, "sh"),
            process(13, 10, false, "orphan without a mark"),
            // The campaign's own helper, and another campaign.
            process(14, 10, false, "sleep"),
            process(30, 1, false, "xtask chaos"),
            process(31, 30, false, "xtask test"),
        ]
        .map(|it| (it.number(), it))
        .into();
        let found = own(&all, pid(10), &[pid(14)]);
        assert_eq!(Vec::from_iter(found), [11, 12, 13, 20, 21]);
    }

    #[test]
    fn processes_are_told_by_their_programs() {
        let role = |process: Process| process.role(pid(11));
        assert_eq!(
            role(process(11, 10, true, "/proc/10/exe test")),
            Some(Victim::Xtask)
        );
        let nextest = "/c/tools/x/bin/cargo-nextest nextest run";
        assert_eq!(role(process(12, 11, true, nextest)), Some(Victim::Nextest));
        // The one that nextest starts tests with.
        assert_eq!(role(process(13, 12, true, nextest)), None);
        let qemu = process(14, 13, true, "/usr/bin/qemu-system-x86_64 -machine q35");
        assert_eq!(role(qemu), Some(Victim::Qemu));
        let asked = process(14, 11, true, "/usr/bin/qemu-system-x86_64 --version");
        assert_eq!(role(asked), None);
        let line = "/t/debug/deps/scenarios-0a1b --nocapture --exact outside_host";
        let scenario = process(15, 12, true, line);
        assert_eq!(scenario.scenario().as_deref(), Some("outside_host"));
        assert_eq!(role(scenario), Some(Victim::Scenario));
        let line = "/t/debug/deps/scenarios-0a1b --exact outside_host --nocapture";
        let name = process(15, 12, true, line).scenario();
        assert_eq!(name.as_deref(), Some("outside_host"));
        let list = process(16, 12, true, "/t/debug/deps/scenarios-0a1b --list");
        assert_eq!((list.scenario(), role(list)), (None, None));
    }

    #[test]
    fn who_takes_another_program_bears_the_mark_all_the_while() {
        let mark = format!("programs-{}", std::process::id());
        let own = Own::marked(&mark);
        // A shell that is a new program each time, until it is ended.
        let script = "test $1 -gt 20000 || exec sh -c \"$0\" \"$0\" $(($1+1))";
        let mut child = Command::new("sh")
            .env(MARK, &mark)
            .args(["-c", script, script, "0"])
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let unmarked = (0..3000)
            .filter(|_| own.look(pid).is_some_and(|it| !it.ended && !it.marked))
            .count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(unmarked, 0);
    }

    #[test]
    fn a_mark_is_inherited_and_who_bears_it_is_ended_and_nobody_else() {
        let mark = format!("test-{}", std::process::id());
        let mut own = Own::marked(&mark);
        let sleep = |mark: Option<&str>| {
            let mut command = Command::new("sh");
            if let Some(mark) = mark {
                command.env(MARK, mark);
            }
            command
                .args(["-c", "echo; exec sleep 600"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut mine = sleep(Some(&mark));
        let mut other = sleep(Some("another"));
        // They run what they are to run.
        for child in [&mut mine, &mut other] {
            let mut byte = [0];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut byte)
                .unwrap();
        }
        let but = [Pid::from_child(&other)];
        let running = own.running(&but).into_iter();
        let found: Vec<Process> = running.filter(|it| it.marked).collect();
        assert!(
            found.iter().any(|it| it.pid == Pid::from_child(&mine)),
            "{found:?}"
        );
        for process in &found {
            own.send(process, Signal::KILL).unwrap();
        }
        mine.wait().unwrap();
        assert!(other.try_wait().unwrap().is_none());
        for process in found {
            let error = own.send(&process, Signal::KILL);
            assert!(error.is_err() || process.pid != Pid::from_child(&mine));
        }
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
