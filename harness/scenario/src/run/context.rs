//! What a run tells the processes of a cell's scenarios: a JSON file in the cell's folder, which is
//! one of those in the run's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use podwire_cluster::{Break, ClusterPlan, StageName};
use podwire_vm::Accelerator;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::run::limits::Limits;
use crate::run::program::Programs;

/// Variable that holds the cell's folder.
pub const CELL_VARIABLE: &str = "PODWIRE_CELL_FOLDER";

/// Where a run with healthy clusters of the same cells is: the base of a comparison.
pub const HEALTHY_VARIABLE: &str = "PODWIRE_HEALTHY";
/// Variable that holds the process id on whose behalf the scenario runs.
pub const ANCESTOR_VARIABLE: &str = "PODWIRE_ANCESTOR";

/// Why a scenario's process does not know its cell.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Started bare, without anything that could be used.
    #[error("{reason}; `cargo xtask test --filter {scenario}` prepares what it needs, and runs it")]
    Unprepared {
        /// The scenario.
        scenario: String,
        /// What is missing or has changed.
        reason: String,
    },
    /// A file of the cell's folder cannot be read or written.
    #[error("cannot access {path} of the run; was its folder removed meanwhile?")]
    Access {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file of the cell's folder does not parse.
    #[error(
        "cannot understand {path}; `cargo xtask test` writes it, with the same version of podwire"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// Everything a scenario's process needs to bring its cluster to life: `context.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellContext {
    /// What its cluster is. A stage in the cache may have been made for another cell.
    pub plan: ClusterPlan,
    /// Folder of each stage in the cache, by the stage's name.
    pub stages: BTreeMap<StageName, PathBuf>,
    /// The emulator.
    pub qemu: PathBuf,
    /// Its image tool.
    pub qemu_img: PathBuf,
    /// Judged by running a guest.
    pub accelerator: Accelerator,
    /// How many times slower a guest is than one under KVM on a usual machine; stretches limits.
    pub speed_factor: f64,
    /// Private key (OpenSSH PEM) that the guests accept for root.
    pub ssh_key: PathBuf,
    /// A fault that the whole run carries, `--break NAME`.
    pub broken: Option<Break>,
    /// How it agrees with other processes on the machine's memory.
    pub share: Share,
    /// The run's folder, if a failed scenario's cluster is kept running for a person to look at: the
    /// way into it opens there.
    pub keep: Option<PathBuf>,
    /// What is under test, in words: the cell, and where its Kubernetes came from.
    pub tested: String,
    /// The command that leads to such a cluster again; `--filter NAME` behind it is one scenario.
    pub again: String,
    /// How often a scenario runs, each time in a fresh clone, before its sabotages do; 1 at least.
    pub repeat: u32,
    /// Whether what stands out on the wire fails a scenario that has passed otherwise.
    pub strict_wire: bool,
    /// kube-router's program, where the run has a scenario that starts it.
    pub kube_router: Option<PathBuf>,
    /// The programs of the user's that are the run's scenarios, where it has any.
    pub programs: Option<Programs>,
}

/// A scenario's share of the machine, see [`podwire_admission`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The folder through which processes agree.
    pub folder: PathBuf,
    /// How many clones run at once.
    pub slots: usize,
    /// The most host memory that one may come to occupy, MiB.
    pub clone_mib: u64,
    /// What stays free, MiB.
    pub keep_free_mib: u64,
}

impl CellContext {
    /// Its name in the cell's folder.
    pub const FILE: &'static str = "context.json";

    /// The limits of the scenarios' processes.
    pub fn limits(&self) -> Limits {
        Limits {
            speed_factor: self.speed_factor,
            repeat: self.repeat,
        }
    }

    /// Reads a cell's context.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn read(cell_dir: &Path) -> Result<Self, ContextError> {
        read(&cell_dir.join(Self::FILE))
    }

    /// Writes it into the cell's folder.
    ///
    /// # Errors
    /// [`ContextError::Access`].
    pub fn write(&self, cell_dir: &Path) -> Result<(), ContextError> {
        write(&cell_dir.join(Self::FILE), self)
    }
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ContextError> {
    let text = fs::read(path).map_err(|source| ContextError::Access {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| ContextError::Malformed {
        path: path.to_owned(),
        source,
    })
}

/// Writes beside and renames, so that a reader sees a whole file or none.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), ContextError> {
    let access = |source| ContextError::Access {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec_pretty(value).map_err(|source| ContextError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    let beside = path.with_extension("json.new");
    fs::write(&beside, text).map_err(access)?;
    fs::rename(&beside, path).map_err(access)
}
