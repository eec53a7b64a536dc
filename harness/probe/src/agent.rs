//! The way into a guest that needs no network: commands and files over a virtio-serial port.
//!
//! One long-lived process in the guest, `probe agent`, serves the port ([`serve()`]); the
//! host speaks to it in the messages of [`wire`]. It starts nothing of its own, so a guest that has
//! just woken up answers with what is in its memory already.

mod child;
mod port;
mod serve;
pub mod wire;

pub use port::{PORT, PortError};
pub use serve::{AgentError, serve, serve_port};
