//! The action, and the workflow that others call, as GitHub carries them out: under act, which is built on
//! first use. With an xtask that is a script, in seconds; and with real machines, in about an hour.
//!
//! `cargo test -p xtask --test act -- --ignored --test-threads 1`

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod github;
mod machines;
#[path = "../programs/mod.rs"]
mod programs;
mod scripted;
