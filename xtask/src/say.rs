//! How xtask speaks to a person: lines, numbers and tables, progress, and how a command ends.

#[macro_use]
pub(crate) mod print;

pub(crate) mod progress;
pub(crate) mod stop;
pub(crate) mod text;
