//! A way into a running cluster for the person at the terminal.
//!
//! ```text
//! cargo xtask ssh, console, kubectl, ...     the process that runs the cluster
//!   find -> access.sock in the run's folder ──> Door ──> gateway ──> node's sshd, or another port
//!                                                   ├──> node's console.log
//!                                                   └──> segment's rules and frames
//! ```
//!
//! - [`Door`] serves a running cluster on a Unix socket in a folder, for as long as it lives;
//! - [`find`] finds the sockets that somebody serves;
//! - [`Link`] is a connection to one: one request, one answer, then bytes;
//! - [`Shell`] is an SSH session over it, with this process's terminal or streams;
//! - [`kubectl`] sends along the local files that kubectl is to read;
//! - [`Forward`] is a node's port on this host's loopback, for as long as it lives;
//! - [`Beside`] is what a program on this host has of the cluster that it runs beside;
//! - [`ended`] waits until such a program has, and leaves nothing of what it has started.
//!
//! But for a [`Forward`], nothing listens on a network. Each port's own authentication stays: the socket
//! only carries bytes.

mod administrator;
mod beside;
mod error;
pub mod find;
mod forward;
pub mod kubectl;
mod link;
mod program;
mod protocol;
mod server;
mod shell;
mod socket;
mod terminal;
#[cfg(test)]
mod tests;
mod wire;

pub use administrator::administrator;
pub use beside::{Beside, RUN_VARIABLE};
pub use error::AccessError;
pub use forward::Forward;
pub use link::Link;
pub use program::ended;
pub use protocol::{Description, NodeAddress};
pub use server::{Door, Room, Served};
pub use shell::{Exit, Shell, Streams};
pub use socket::FILE;
pub use terminal::Foreground;
