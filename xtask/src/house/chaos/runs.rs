//! Runs of the real program, from their beginning to the last of their processes.

use std::fs::File;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_cluster::Bootstrap;
use podwire_process::{ChildCommand, Stream};
use podwire_scenario::bare::OUTPUT_VARIABLE;
use rustix::process::{Pid, Signal, kill_process};

use super::full::Full;
use super::ground::Ground;
use super::own::{MARK, Own, Process};
use crate::command::interrupt::Expected;
use crate::command::session::Session;

/// How long after the end of a run its processes may still be there, and its locks.
const LINGER: Duration = Duration::from_secs(30);

/// How long a run gets to end by itself when the campaign is over.
const GRACE: Duration = Duration::from_secs(20);

/// What is waited for is looked at so often.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Whatever runs on a campaign's ground.
pub(super) struct Runs<'a> {
    pub(super) session: &'a Session,
    pub(super) ground: &'a Ground,
    pub(super) own: Own,
    pub(super) mark: String,
    /// The bootstrap, as every run gets it.
    pub(super) bootstrap: Bootstrap,
    /// Ctrl-C.
    pub(super) interrupted: &'a Expected,
}

/// Why there are no more rounds.
pub(super) enum End {
    /// What must hold does not.
    Violation(String),
    /// Ctrl-C.
    Interrupted,
    /// Something that is not podwire's fault.
    Error(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// A run of xtask that has ended.
pub(super) struct Ended {
    pub(super) pid: Pid,
    pub(super) status: ExitStatus,
    pub(super) log: String,
    pub(super) took: Duration,
}

/// A run of xtask.
pub(super) struct Running {
    child: Child,
    pub(super) pid: Pid,
    pub(super) started: Instant,
    pub(super) log: String,
}

impl Runs<'_> {
    pub(super) fn test(&self, filter: &str) -> Vec<String> {
        let bootstrap = self.bootstrap.to_string();
        let words = ["test", "--bootstrap", &bootstrap, "--filter", filter];
        words.map(String::from).to_vec()
    }

    /// A run from its beginning to its end, to which nothing is done.
    pub(super) fn run(
        &mut self,
        log: &str,
        arguments: &[String],
        full: Option<&Full>,
        limit: Duration,
    ) -> Result<Ended, End> {
        let mut running = self.start(log, arguments, full)?;
        let status = self.wait(&mut running, limit)?;
        Ok(running.ended(status))
    }

    pub(super) fn start(
        &self,
        log: &str,
        arguments: &[String],
        full: Option<&Full>,
    ) -> Result<Running, End> {
        // This very program, even if cargo has made another of it meanwhile.
        let program = format!("/proc/{}/exe", std::process::id());
        let mut command = match full {
            Some(full) => full.enter().args([program]),
            None => ChildCommand::new(program),
        };
        let path = self.ground.log(log);
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        command = command
            .args(arguments)
            .dir(&self.session.workspace.root)
            .env("PODWIRE_CACHE", self.ground.cache())
            .env(OUTPUT_VARIABLE, self.ground.output())
            .env(MARK, &self.mark);
        command.own_group = true;
        command.stdout = Stream::File(file.try_clone()?);
        command.stderr = Stream::File(file);
        let child = self.session.spawner.spawn(command)?;
        Ok(Running {
            pid: Pid::from_child(&child),
            child,
            started: Instant::now(),
            log: log.to_owned(),
        })
    }

    pub(super) fn wait(
        &mut self,
        running: &mut Running,
        limit: Duration,
    ) -> Result<ExitStatus, End> {
        loop {
            if let Some(status) = self.look(running, limit)? {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
    }

    /// How the run ended, if it has.
    pub(super) fn look(
        &mut self,
        running: &mut Running,
        limit: Duration,
    ) -> Result<Option<ExitStatus>, End> {
        if let Some(status) = running.child.try_wait()? {
            return Ok(Some(status));
        }
        if self.interrupted.has_come() {
            self.end(running);
            return Err(End::Interrupted);
        }
        if running.started.elapsed() > limit {
            self.end(running);
            return Err(End::Violation(format!(
                "the run {} had not ended after {} s",
                self.ground.log(&running.log).display(),
                limit.as_secs()
            )));
        }
        Ok(None)
    }

    /// Ends a run before its time.
    fn end(&mut self, running: &mut Running) {
        let since = Instant::now();
        let mut told = false;
        while since.elapsed() < GRACE && matches!(running.child.try_wait(), Ok(None)) {
            if !told {
                let _ = kill_process(running.pid, Signal::TERM);
                told = true;
            }
            thread::sleep(LOOK);
        }
        let _ = running.child.kill();
        let _ = running.child.wait();
        self.own.kill_all(&[]);
    }

    /// That nothing of a run is left: neither a process nor a lock.
    pub(super) fn aftermath(&mut self, full: Option<&Full>) -> Result<(), End> {
        let but: Vec<Pid> = full.iter().map(|full| full.holder()).collect();
        let since = Instant::now();
        loop {
            let running = self.own.running(&but);
            let locked = match running.is_empty() {
                true => self.ground.locked()?,
                false => Vec::new(),
            };
            if running.is_empty() && locked.is_empty() {
                return Ok(());
            }
            if since.elapsed() > LINGER {
                let running: Vec<String> = running.iter().map(Process::to_string).collect();
                self.own.kill_all(&but);
                return Err(End::Violation(format!(
                    "{} s after the run's end there are still:\n{}",
                    LINGER.as_secs(),
                    [running, locked].concat().join("\n")
                )));
            }
            thread::sleep(LOOK * 4);
        }
    }
}

impl Running {
    pub(super) fn ended(self, status: ExitStatus) -> Ended {
        Ended {
            pid: self.pid,
            status,
            took: self.started.elapsed(),
            log: self.log,
        }
    }
}

/// That something holds; else a violation.
pub(super) fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), End> {
    match holds {
        true => Ok(()),
        false => Err(End::Violation(otherwise())),
    }
}
