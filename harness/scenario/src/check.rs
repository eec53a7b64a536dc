//! Pure functions over what was observed: each holds, or says what was expected and what was seen.

pub mod assert;
pub(crate) mod balance;
pub(crate) mod clock;
pub(crate) mod datagrams;
pub(crate) mod failure;
pub(crate) mod gaps;
pub(crate) mod load;
pub(crate) mod mesh;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod nodes;
pub(crate) mod pairs;
pub(crate) mod party;
pub(crate) mod reading;
pub(crate) mod record;
pub(crate) mod rules;
pub(crate) mod shares;
pub(crate) mod streams;
mod timeline;
pub(crate) mod twin;
pub(crate) mod typed;
pub(crate) mod wire;
