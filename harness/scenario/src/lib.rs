//! What the author of a scenario imports.
//!
//! A [`Scenario`] is one async function with a name, the [`Claim`]s that it covers and its
//! [`Sabotage`]s. It gets a [`Lab`]: its own running clone of a frozen cluster, which it may break
//! as it likes. It does things to the lab, and asserts with the functions of [`mod@assert`], which
//! return a [`Failure`] that says what was expected, what was seen, and where to look.
//!
//! ```text
//! xtask ── context.json ──> nextest ──> one process per scenario
//!                                         run_main(scenarios)
//!                                           Lab (clone) -> run -> result.json
//!                                           Lab (fresh clone) -> sabotage -> caught?
//! ```
//!
//! docs/writing-a-scenario.md shows a real one, line by line.

pub mod assert;
mod balance;
pub mod bare;
mod claim;
mod context;
mod eventually;
mod failure;
mod lab;
mod limits;
mod page;
mod place;
mod proof;
mod record;
mod result;
mod runner;
mod scenario;
mod timeline;
mod tls;
mod traffic;

pub use balance::{Band, REQUESTS_PER_BACKEND, band};
pub use claim::Claim;
pub use context::{ANCESTOR_VARIABLE, CELL_VARIABLE, CellContext, ContextError, Share};
pub use eventually::{Evidence, Lacking, Probe, eventually, eventually_unless};
pub use failure::{Cause, Failure};
pub use lab::{Lab, STEPS};
pub use limits::Limits;
pub use place::{WAITING, awaited};
pub use record::{Clock, Gap, Mark, Record, Segment};
pub use result::{Outcome, PREPARATION, PhaseTime, SABOTAGE, SabotageResult, ScenarioResult};
pub use runner::run_main;
pub use scenario::{Cells, Future, Profile, Sabotage, Scenario};
pub use traffic::Traffic;
