//! What a scenario's process leaves behind: one `result.json` per attempt.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::run::context::{self, ContextError};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every assertion held and every sabotage was caught.
    Passed,
    /// An assertion did not hold, a sabotage was not caught, or it could not be carried out.
    Failed,
}

/// Whether the assertion noticed a fault injected on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SabotageResult {
    /// The sabotage's name.
    pub name: String,
    /// Whether the assertion failed, and for the stated reason.
    pub caught: bool,
    /// What the assertion said, or why the sabotage proves nothing.
    pub reason: String,
}

/// The phase in which what a scenario and its sabotages start from is made.
pub const PREPARATION: &str = "preparation";

/// How the names of the phases begin that are a sabotage's.
pub const SABOTAGE: &str = "sabotage ";

/// How long a part of the attempt took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which part.
    pub name: String,
    /// Host seconds.
    pub seconds: f64,
}

impl PhaseTime {
    /// The part of a sabotage's run from the fault's injection to the verdict.
    pub fn to_red(sabotage: &str) -> String {
        format!("sabotage {sabotage}: from the fault to the verdict")
    }
}

/// One attempt of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// The scenario's name.
    pub name: String,
    /// Ids of what it covers.
    pub covers: Vec<String>,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in one paragraph; empty when it passed.
    pub reason: String,
    /// Host seconds, sabotages included; without the wait for a place.
    pub seconds: f64,
    /// Each sabotage's verdict.
    pub sabotages: Vec<SabotageResult>,
    /// Where the time went.
    pub phases: Vec<PhaseTime>,
    /// What stood out on the wire between nodes, a line for each kind and pair of ports, as the first page
    /// has it; of the last run where it is repeated, and of no sabotage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wire: Vec<String>,
    /// Folder with the evidence, relative to the cell's; only after a failure.
    pub evidence: Option<PathBuf>,
}

impl ScenarioResult {
    /// Its name in the attempt's folder.
    pub const FILE: &'static str = "result.json";

    /// An attempt's folder in the cell's.
    pub fn folder(cell_dir: &Path, scenario: &str, attempt: u32) -> PathBuf {
        cell_dir
            .join("scenarios")
            .join(scenario)
            .join(format!("attempt-{attempt}"))
    }

    /// Reads what an attempt left; `None` when it left nothing.
    ///
    /// # Errors
    /// [`ContextError`] when there is a file that cannot be read or understood.
    pub fn read(
        cell_dir: &Path,
        scenario: &str,
        attempt: u32,
    ) -> Result<Option<Self>, ContextError> {
        let path = Self::folder(cell_dir, scenario, attempt).join(Self::FILE);
        if !path.exists() {
            return Ok(None);
        }
        context::read(&path).map(Some)
    }

    /// Writes it into the attempt's folder.
    ///
    /// # Errors
    /// [`ContextError::Access`].
    pub fn write(&self, cell_dir: &Path) -> Result<(), ContextError> {
        context::write(
            &Self::folder(cell_dir, &self.name, self.attempt).join(Self::FILE),
            self,
        )
    }
}
