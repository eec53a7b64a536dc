//! What a part of a comparison on several machines says of the whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// What base and head are made of, as the first run of each says, see [`Results::made_of`](crate::report::results::Results::made_of):
    /// what it is, and which. Nothing of what no run has said yet.
    pub(crate) made_of: [BTreeMap<String, String>; 2],
}
