//! From nextest's command line to a result file and a failure's first page.

pub(crate) mod account;
mod attempt;
pub mod bare;
pub mod cases;
mod caught;
pub(crate) mod context;
pub(crate) mod ending;
mod evidence;
mod healthy;
pub(crate) mod limits;
mod page;
pub(crate) mod place;
pub mod program;
mod proof;
pub(crate) mod result;
pub(crate) mod runner;
mod stopping;
