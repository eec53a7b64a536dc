//! How many clones of a cluster a machine carries at once, agreed between processes that know
//! nothing of each other.
//!
//! Whoever is about to run a clone says what it may come to use ([`Claim`]) and waits for a
//! [`Ticket`] ([`Admission::enter`]). A ticket is a file locked with flock(2) in a folder that all
//! of them share: the kernel gives it back when its process ends, however it ends. What memory the
//! holders may still come to take counts as taken, so that nobody is admitted into memory that a
//! clone beside it has only not touched yet: the host neither swaps nor kills.
//!
//! The judgement is a pure function of plain data, [`decide`].

mod admission;
mod decision;
mod memory;
mod usage;

pub use admission::{Admission, AdmissionError, Ticket};
pub use decision::{Claim, Decision, Holder, Load, Never, Party, ProcessId, Wait, decide, slots};
pub use memory::{Memory, MemoryError};
