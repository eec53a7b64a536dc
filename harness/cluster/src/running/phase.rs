//! How long parts of the work take.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// How long one part of the work took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

impl Phase {
    /// A clone's disks are laid over the stage's.
    pub const DISKS: &str = "disks";
    /// All QEMUs are started.
    pub const START: &str = "start QEMU";
    /// All have read their device state.
    pub const LOAD: &str = "load";
    /// All guests run, and the segment with them.
    pub const RESUME: &str = "resume";
    /// From the resumption until the first guest's agent answers.
    pub const FIRST_ANSWER: &str = "first guest answers";
    /// From the resumption until every guest does.
    pub const NODES_ANSWER: &str = "all guests answer";
    /// From the resumption until the API server says that it is ready.
    pub const API_READY: &str = "API ready";
    /// All of it.
    pub const CLONE: &str = "clone";

    pub(crate) fn since(name: &str, started: Instant) -> Self {
        Self {
            name: name.to_owned(),
            seconds: started.elapsed().as_secs_f64(),
        }
    }
}
