//! All that can go wrong with a machine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use podwire_process::{RunError, SpawnError};

use crate::fault::MachineFault;
use crate::qmp::QmpError;

/// What went wrong with a machine.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A process could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A file or folder of the machine cannot be used.
    #[error("cannot use {path:?}")]
    File {
        /// Which one.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file that the machine starts from is not there.
    #[error(
        "machine {machine} needs {path:?}, which does not exist; is its image or stage complete?"
    )]
    Missing {
        /// The machine's name.
        machine: String,
        /// Which one.
        path: PathBuf,
    },
    /// The operating system gave no descriptor, thread or process handle.
    #[error("cannot set up {what} for machine {machine}")]
    Host {
        /// The machine's name.
        machine: String,
        /// What was wanted.
        what: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The control channel failed while QEMU lives.
    #[error("machine {machine}: cannot {doing}")]
    Qmp {
        /// The machine's name.
        machine: String,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: QmpError,
    },
    /// The machine failed.
    #[error("cannot {doing}: {fault}")]
    Fault {
        /// What was being done.
        doing: &'static str,
        /// Why and with what last words.
        fault: Box<MachineFault>,
    },
    /// Freezing or bringing back did not work.
    #[error("machine {machine}: cannot {doing} {state:?}: {reason}")]
    Migration {
        /// The machine's name.
        machine: String,
        /// What was being done.
        doing: &'static str,
        /// The file of device state.
        state: PathBuf,
        /// QEMU's explanation.
        reason: String,
    },
    /// The machine's memory is not in a file of its own.
    #[error(
        "machine {machine} cannot be frozen: its memory is not in a file of its own; \
         start it from a copy of the memory file (`Ram::Template`)"
    )]
    NotATemplate {
        /// The machine's name.
        machine: String,
    },
    /// The machine was frozen: to run on would change what its clones see.
    #[error("machine {machine} is frozen and must not run on; start a clone of it")]
    Frozen {
        /// The machine's name.
        machine: String,
    },
    /// The guest did not power itself off in time.
    #[error(
        "machine {machine} did not power off within {limit:?}; its last console lines:\n{console}"
    )]
    StillOn {
        /// The machine's name.
        machine: String,
        /// What was allowed.
        limit: Duration,
        /// The console's end.
        console: String,
    },
    /// A disk could not be made.
    #[error("cannot make the disk {overlay:?} over {base:?}")]
    Overlay {
        /// What was to be made.
        overlay: PathBuf,
        /// What it was to be based on.
        base: PathBuf,
        /// What qemu-img said.
        source: RunError,
    },
}
