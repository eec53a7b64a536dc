//! What ends a machine before its time, told at once to everyone who waits for it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A machine that failed: why, and what it last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFault {
    /// The machine's name.
    pub machine: String,
    /// What happened.
    pub kind: FaultKind,
    /// The last lines of its console, oldest first.
    pub console: Vec<String>,
}

/// How a machine failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FaultKind {
    /// QEMU ended although nobody asked it to; with `exit status: 0` the guest powered itself off.
    Exited {
        /// `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: String,
        /// The end of QEMU's standard error.
        last_words: String,
    },
    /// QEMU stopped the guest and cannot go on with it.
    Stopped {
        /// QEMU's word for it (QMP reference, `RunState`): `internal-error`, `io-error`.
        state: String,
        /// The end of QEMU's standard error.
        last_words: String,
    },
    /// The guest's kernel gave up.
    Panic {
        /// The kernel's message.
        message: String,
    },
    /// A processor of the guest stayed in the kernel for too long.
    SoftLockup {
        /// The kernel's message.
        message: String,
    },
    /// The guest's kernel killed a process for want of memory.
    OutOfMemory {
        /// The kernel's message.
        message: String,
    },
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { status, last_words } if last_words.is_empty() => {
                write!(f, "QEMU ended with {status} and without a word")
            }
            Self::Exited { status, last_words } => {
                write!(f, "QEMU ended with {status}; its last words:\n{last_words}")
            }
            Self::Stopped { state, last_words } => {
                let why = match state.as_str() {
                    "io-error" => "its disk's file cannot be written: is the host's disk full?",
                    _ => "neither it nor the accelerator can execute what the guest does",
                };
                write!(f, "QEMU stopped the guest ({state}): {why}")?;
                match last_words.lines().find(|line| !line.contains("warning:")) {
                    Some(first) => write!(f, "; it said: {first}"),
                    None => Ok(()),
                }
            }
            Self::Panic { message } => write!(f, "the guest's kernel panicked ({message})"),
            Self::SoftLockup { message } => write!(f, "the guest is stuck ({message})"),
            Self::OutOfMemory { message } => {
                write!(f, "the guest ran out of memory ({message})")
            }
        }
    }
}

impl fmt::Display for MachineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "machine {}: {}", self.machine, self.kind)?;
        if self.console.is_empty() {
            return f.write_str("\nits console is empty");
        }
        f.write_str("\nits last console lines:")?;
        for line in &self.console {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for MachineFault {}

/// Tells whether and when a machine failed. Cheap to clone; outlives the machine.
#[derive(Debug, Clone)]
pub struct FaultWatch {
    machine: Arc<str>,
    first: watch::Sender<Option<MachineFault>>,
}

impl FaultWatch {
    pub(crate) fn new(machine: &str) -> Self {
        Self {
            machine: machine.into(),
            first: watch::Sender::new(None),
        }
    }

    /// Records a fault. The first one counts: what follows is its consequence.
    pub(crate) fn report(&self, kind: FaultKind, console: impl FnOnce() -> Vec<String>) {
        self.first.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            *first = Some(MachineFault {
                machine: self.machine.as_ref().to_owned(),
                kind,
                console: console(),
            });
            true
        });
    }

    /// The machine's first fault, if there was one.
    pub fn fault(&self) -> Option<MachineFault> {
        self.first.borrow().clone()
    }

    /// Resolves with the machine's first fault as soon as it happens; never if none does.
    pub async fn faulted(&self) -> MachineFault {
        let mut first = self.first.subscribe();
        loop {
            if let Some(fault) = first.borrow_and_update().clone() {
                return fault;
            }
            // The sender is in `self`, so the channel cannot close while this waits.
            let _ = first.changed().await;
        }
    }

    /// The result of `work`, unless the machine fails first.
    ///
    /// # Errors
    /// The [`MachineFault`].
    pub async fn unless_faulted<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, MachineFault> {
        tokio::select! {
            biased;
            fault = self.faulted() => Err(fault),
            done = work => Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_qemu_stopped_is_told_with_the_reason_and_without_warnings() {
        let stopped = |state: &str| FaultKind::Stopped {
            state: state.into(),
            last_words: "qemu: warning: no such feature\nKVM internal error. Suberror: 1\nRAX=0"
                .into(),
        };
        insta::assert_snapshot!(stopped("internal-error"), @"QEMU stopped the guest (internal-error): neither it nor the accelerator can execute what the guest does; it said: KVM internal error. Suberror: 1");
        let full = stopped("io-error").to_string();
        assert!(full.contains("is the host's disk full?"), "{full}");
    }

    #[tokio::test]
    async fn the_first_fault_reaches_whoever_waits() {
        let watch = FaultWatch::new("node2");
        assert_eq!(watch.fault(), None);
        let waiting = tokio::spawn({
            let watch = watch.clone();
            async move { watch.unless_faulted(std::future::pending::<()>()).await }
        });
        tokio::task::yield_now().await;
        let message = "Kernel panic - not syncing: sysrq".to_owned();
        watch.report(FaultKind::Panic { message }, || {
            vec!["a".into(), "b".into()]
        });
        let status = "signal: 9 (SIGKILL)".to_owned();
        watch.report(
            FaultKind::Exited {
                status,
                last_words: String::new(),
            },
            Vec::new,
        );
        let fault = waiting.await.unwrap().unwrap_err();
        insta::assert_snapshot!(fault, @r"
        machine node2: the guest's kernel panicked (Kernel panic - not syncing: sysrq)
        its last console lines:
          a
          b
        ");
        assert_eq!(watch.faulted().await, fault);
    }

    #[test]
    fn the_end_of_qemu_is_told_with_its_last_words() {
        let fault = MachineFault {
            machine: "node1".into(),
            kind: FaultKind::Exited {
                status: "exit status: 1".into(),
                last_words: "qemu: no such device".into(),
            },
            console: Vec::new(),
        };
        insta::assert_snapshot!(fault, @r"
        machine node1: QEMU ended with exit status: 1; its last words:
        qemu: no such device
        its console is empty
        ");
    }
}
