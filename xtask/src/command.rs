//! What every command begins with: its arguments, the project's folders, signals, and leave to
//! change the host.

pub(crate) mod again;
pub(crate) mod cli;
pub(crate) mod consent;
pub(crate) mod git;
pub(crate) mod interrupt;
pub(crate) mod session;
pub(crate) mod side;
pub(crate) mod workspace;
