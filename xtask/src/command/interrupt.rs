//! Ctrl-C, SIGTERM and SIGHUP: everything that this process started, directly or not, ends at once.

use std::fs;
use std::process::{self, Child};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_process::{descendants, kill_descendants};
use podwire_scenario::Ending;
use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process, set_child_subreaper};
use rustix::termios::tcgetpgrp;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::say::stop::INTERRUPTED;

/// How long the scenarios' processes get to leave by themselves.
const GRACE: Duration = Duration::from_millis(1000);

/// What happens at a signal. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Interrupts {
    /// The process that is told first, because it tells others: nextest.
    first: Arc<Mutex<Option<Pid>>>,
    awaited: Arc<watch::Sender<Awaited>>,
    /// Held while a program is started that signals are for.
    starting: Arc<Mutex<()>>,
}

/// Whether a signal is what somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// No: it ends everything.
    No,
    /// Yes, and none has come.
    Yes,
    /// It has come; another one ends everything.
    Came,
    /// It is for this program, and so are all that come from a person at the terminal.
    For(Pid),
    /// The program was told to end; being told so once more ends everything.
    Told(Pid),
}

/// A time in which the first signal is the ordinary way to end something; see [`Interrupts::expect`].
#[derive(Debug)]
pub(crate) struct Expected(Arc<watch::Sender<Awaited>>);

impl Expected {
    /// Whether it has come.
    pub(crate) fn has_come(&self) -> bool {
        *self.0.borrow() == Awaited::Came
    }

    /// Resolves when it comes.
    pub(crate) async fn come(&self) {
        // The sender is here: the channel does not close.
        let _ = self
            .0
            .subscribe()
            .wait_for(|awaited| *awaited == Awaited::Came)
            .await;
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.send_replace(Awaited::No);
    }
}

/// A time in which signals are for a program; see [`Interrupts::leave_to`].
#[derive(Debug)]
pub(crate) struct LeftTo(Arc<watch::Sender<Awaited>>);

impl Drop for LeftTo {
    fn drop(&mut self) {
        self.0.send_replace(Awaited::No);
    }
}

impl Interrupts {
    /// Nothing is listened to.
    pub(crate) fn deaf() -> Self {
        Self {
            first: Arc::default(),
            awaited: Arc::new(watch::Sender::new(Awaited::No)),
            starting: Arc::default(),
        }
    }

    /// Listens from now on.
    ///
    /// Orphans of whatever is started become children of this process: so they are found.
    pub(crate) fn listen(runtime: &Runtime) -> anyhow::Result<Self> {
        set_child_subreaper(Some(getpid())).context("cannot become the parent of orphans")?;
        let interrupts = Self::deaf();
        let mine = interrupts.clone();
        let (mut interrupt, mut ending) = {
            let _guard = runtime.enter();
            (signal(SignalKind::interrupt())?, Ending::listen()?)
        };
        runtime.spawn(async move {
            loop {
                let passed_on = tokio::select! {
                    _ = interrupt.recv() => mine.was_for_a_program(Signal::INT),
                    () = ending.come() => mine.was_for_a_program(Signal::TERM),
                };
                if !passed_on && !mine.was_expected() {
                    mine.end()
                }
            }
        });
        Ok(interrupts)
    }

    /// Names the process that is told first; `None` once it has ended.
    pub(crate) fn tell_first(&self, pid: Option<Pid>) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = pid;
        // A signal that came while it was being started has reached nobody.
        if *self.awaited.borrow() == Awaited::Came {
            self.tell();
        }
    }

    /// From now on, until the value is dropped, the first signal is the ordinary way to end what
    /// the caller does; whoever is to be told first is told. Another signal ends everything.
    pub(crate) fn expect(&self) -> Expected {
        self.awaited.send_replace(Awaited::Yes);
        Expected(Arc::clone(&self.awaited))
    }

    /// Starts a program in this process's group. From then on, until the value is dropped, signals are the
    /// program's: each Ctrl-C, which it may take as it likes, and the first SIGTERM or SIGHUP. Being told to end
    /// once more ends everything. A signal that comes while it starts waits for it.
    ///
    /// # Errors
    /// Those of `start`.
    pub(crate) fn leave_to<E>(
        &self,
        start: impl FnOnce() -> Result<Child, E>,
    ) -> Result<(Child, LeftTo), E> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let child = start()?;
        let program = Awaited::For(Pid::from_child(&child));
        self.awaited.send_replace(program);
        drop(starting);
        Ok((child, LeftTo(Arc::clone(&self.awaited))))
    }

    /// Passes a signal on to the program that signals are left to, if there is one.
    fn was_for_a_program(&self, signal: Signal) -> bool {
        drop(self.starting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut to = None;
        self.awaited.send_if_modified(|awaited| {
            to = match *awaited {
                Awaited::For(program) => Some(program),
                Awaited::Told(program) if signal == Signal::INT => Some(program),
                _ => None,
            };
            let told = to.filter(|_| signal != Signal::INT);
            if let Some(program) = told {
                *awaited = Awaited::Told(program);
            }
            told.is_some()
        });
        let Some(program) = to else {
            return false;
        };
        // A terminal's Ctrl-C has reached all of this group, and twice means something else to many.
        if signal != Signal::INT || !is_in_front() {
            let _ = kill_process(program, signal);
        }
        true
    }

    /// What a signal is, as far as somebody expects it: that it has come. Whether somebody did.
    pub(crate) fn was_expected(&self) -> bool {
        let expected = self.awaited.send_if_modified(|awaited| {
            let expected = *awaited == Awaited::Yes;
            if expected {
                *awaited = Awaited::Came;
            }
            expected
        });
        if expected {
            self.tell();
        }
        expected
    }

    /// Whether a signal has come that somebody [expects](Self::expect).
    pub(crate) fn have_come(&self) -> bool {
        *self.awaited.borrow() == Awaited::Came
    }

    fn tell(&self) {
        if let Some(pid) = self.first() {
            // It may have ended by itself; then there is nobody to tell.
            let _ = kill_process(pid, Signal::INT);
        }
    }

    fn first(&self) -> Option<Pid> {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> ! {
        errln!("\ninterrupted: ending all machines; what is already on disk is kept");
        if let Some(pid) = self.first() {
            self.tell();
            let started = Instant::now();
            while started.elapsed() < GRACE && descendants().contains(&pid) {
                thread::sleep(Duration::from_millis(20));
            }
        }
        if let Some(told) = left_running(&kill_descendants()) {
            errln!("{told}");
        }
        process::exit(INTERRUPTED.into())
    }
}

/// What is said of the processes that are still there after all were killed; nothing where there are none.
fn left_running(left: &[Pid]) -> Option<String> {
    let left: Vec<String> = left.iter().map(|pid| pid.to_string()).collect();
    (!left.is_empty()).then(|| {
        format!(
            "root's, and not to be ended from here: {}; a step of an image's build ends with this \
             command, packages are installed to the end, and the next run waits for that",
            left.join(" ")
        )
    })
}

/// Whether a terminal's Ctrl-C goes to this process's group.
fn is_in_front() -> bool {
    let terminal = fs::File::open("/dev/tty").ok();
    let in_front = terminal.and_then(|terminal| tcgetpgrp(terminal).ok());
    in_front == Some(getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn an_expected_signal_ends_nothing_but_the_next_one_does() {
        let interrupts = Interrupts::deaf();
        assert!(!interrupts.was_expected());
        let expected = interrupts.expect();
        assert!(!expected.has_come());
        assert!(interrupts.was_expected());
        expected.come().await;
        assert!(interrupts.have_come());
        assert!(!interrupts.was_expected());
        drop(expected);
        assert!(!interrupts.have_come());
        let expected = interrupts.expect();
        assert!(!expected.has_come());
    }

    #[test]
    fn signals_that_are_for_a_program_end_nothing_else_until_it_is_told_twice_to_end() {
        let interrupts = Interrupts::deaf();
        assert!(!interrupts.was_for_a_program(Signal::INT));
        let script =
            "trap 'echo int' INT; trap 'echo term' TERM; echo ready; while :; do sleep 0.05; done";
        let start = || {
            // A shell traps no signal that was ignored when it began, as in a job of another one.
            Command::new("env")
                .args(["--default-signal=INT,TERM", "sh", "-c", script])
                .stdout(std::process::Stdio::piped())
                .spawn()
        };
        let (mut child, left) = interrupts.leave_to(start).unwrap();
        let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(stdout).map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "ready");
        let in_front = is_in_front();
        for _ in 0..2 {
            assert!(interrupts.was_for_a_program(Signal::INT));
            assert!(in_front || lines.next().unwrap() == "int");
        }
        assert!(interrupts.was_for_a_program(Signal::TERM));
        assert_eq!(lines.next().unwrap(), "term");
        assert!(interrupts.was_for_a_program(Signal::INT));
        assert!(in_front || lines.next().unwrap() == "int");
        assert!(!interrupts.was_for_a_program(Signal::TERM));
        assert!(!interrupts.was_expected());
        drop(left);
        assert!(!interrupts.was_for_a_program(Signal::INT));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_cannot_be_ended_is_named_and_what_has_ended_is_not() {
        assert_eq!(left_running(&[]), None);
        let left = [4711, 7].map(|pid| Pid::from_raw(pid).unwrap());
        insta::assert_snapshot!(left_running(&left).unwrap(), @"root's, and not to be ended from here: 4711 7; a step of an image's build ends with this command, packages are installed to the end, and the next run waits for that");
    }
}
