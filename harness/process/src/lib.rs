//! Host processes that never outlive whoever started them.
//!
//! What every crate needs that starts a program on the host and waits for it:
//!
//! - [`Spawner`]: a permanent thread that starts children which the kernel kills when this process
//!   ends, however it ends (`PR_SET_PDEATHSIG`, prctl(2));
//! - [`Family`]: a program of the user's and all that it starts, ended as one;
//! - [`descendants`], [`kill_descendants`]: all processes below this one;
//! - [`run()`]: one host command with a time limit and its output kept;
//! - [`Kept`], [`BoundedLog`], [`Tail`]: what somebody else prints, with a bound;
//! - [`watch_ancestors`]: the opposite direction, a process that goes when one of those above it goes;
//! - [`held`], [`held_alone`]: folders that are in use as long as they are locked;
//! - [`hangup_is_ignored`]: whether a terminal's end is to be outlived;
//! - [`Report`]: what a long job tells whoever watches it;
//! - [`plain`]: what others said, as it may be shown to him.

mod ancestors;
mod descendants;
mod environment;
mod family;
mod folder;
mod hangup;
mod kept;
pub mod plain;
mod report;
mod run;
mod spawn;

pub use ancestors::{AncestorError, watch_ancestors};
pub use descendants::{descendants, kill_descendants};
pub use family::{Family, StartError, when_ended};
pub use folder::{held, held_alone};
pub use hangup::hangup_is_ignored;
pub use kept::{BoundedLog, Kept, Tail};
pub use report::Report;
pub use run::{Finished, RunError, run};
pub use spawn::{ChildCommand, SpawnError, Spawner, Stream};
