//! What a part of a comparison on several machines says of the whole.

use serde::{Deserialize, Serialize};

use crate::report::results::Results;

/// `part` of `compare.json`: which part it is, and what all have in common. Where two differ in that, their
/// verdicts are about two things.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// `1/3`.
    pub(crate) shard: String,
    /// Podwire's own revision, and whether something was changed since; nothing without git.
    pub(crate) podwire: Option<String>,
    /// The command's arguments, without those that are about the machine alone.
    pub(crate) arguments: Vec<String>,
    /// What all parts together compare, in the catalogue's order.
    pub(crate) scenarios: Vec<String>,
    /// What base and head are made of; nothing before a run has said it.
    pub(crate) made_of: [Option<String>; 2],
}

/// What a side is made of, but for its clusters, as its runs say: each part has some of these.
pub(crate) fn made_of(results: &Results) -> String {
    format!(
        "Kubernetes {} on {}, {}",
        results.kubernetes, results.system, results.provenance
    )
}
