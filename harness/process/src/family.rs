//! A program of the user's, and all that it starts.

use std::ffi::OsString;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

use crate::descendants::{LOOK, descendants, killed};
use crate::spawn::{ChildCommand, SpawnError, Spawner};

/// Why a program of the user's was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It could not be executed.
    #[error(
        "cannot run {program:?}: a program has to be for this machine, and a script names its interpreter \
         in the first line"
    )]
    Program {
        /// What was to be executed.
        program: OsString,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Nothing can be started any more.
    #[error(transparent)]
    Spawner(SpawnError),
}

/// A program of the user's and all that it has started, directly or not, whichever process group or session that is
/// in now. What is left of it is killed when the value is dropped.
///
/// That is whatever runs below this process and did not when the value was made: nobody may start anything else
/// meanwhile.
#[derive(Debug)]
pub struct Family {
    others: Vec<Pid>,
}

impl Family {
    /// One that has nobody yet. Orphans become children of this process from now on.
    ///
    /// # Errors
    /// The operating system's, when it makes this process no subreaper (Linux 3.4).
    pub fn to_come() -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        Ok(Self {
            others: descendants(),
        })
    }

    /// Starts the program. Reaping it is the caller's.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, spawner: &Spawner, program: ChildCommand) -> Result<Child, StartError> {
        spawner.spawn(program).map_err(|error| match error {
            SpawnError::Program { program, source } => StartError::Program { program, source },
            error => StartError::Spawner(error),
        })
    }

    /// Tells all of it to end (`SIGTERM`), and kills what has not after that long. Gives those that cannot be killed:
    /// they are somebody else's.
    pub fn end(&self, grace: Duration) -> Vec<Pid> {
        let told = Instant::now();
        for pid in self.members() {
            // Gone already, or root's through sudo.
            let _ = kill_process(pid, Signal::TERM);
        }
        while !self.members().is_empty() && told.elapsed() < grace {
            thread::sleep(LOOK);
        }
        killed(|| self.members())
    }

    fn members(&self) -> Vec<Pid> {
        let mut members = descendants();
        members.retain(|pid| !self.others.contains(pid));
        members
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        // What is left is somebody else's.
        let _ = killed(|| self.members());
    }
}

/// Tells how a child has ended, from a thread of its own, which may wait for ever: root's programs are not to be
/// killed.
///
/// # Errors
/// The operating system's, when it gives no thread.
pub fn when_ended(
    mut child: Child,
    tell: impl FnOnce(io::Result<ExitStatus>) + Send + 'static,
) -> io::Result<()> {
    let wait = move || tell(child.wait());
    thread::Builder::new().name("child".into()).spawn(wait)?;
    Ok(())
}
