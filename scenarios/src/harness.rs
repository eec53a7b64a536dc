//! What every other scenario relies on: the harness's own promises.

pub(crate) mod evidence;
pub(crate) mod identities;
pub(crate) mod open_connection;
pub(crate) mod short_hole;
