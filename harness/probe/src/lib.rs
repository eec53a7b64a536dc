//! What the guests' own small program, `probe`, says and is told.
//!
//! Starting a process in an emulated guest costs up to a second, so a hundred `curl`s are out of
//! the question: one `probe fetch` sends many requests, each on a fresh connection, and answers in
//! JSON. `probe resolve` asks the DNS for a name in the same way, and says all that was answered. The
//! same program is the workload (`probe serve`), which answers with its host name and
//! with the address that it saw the client come from, and the sandbox's first process
//! (`probe pause`).
//!
//! Beside that it is the way in: `probe agent` serves a virtio-serial port, by which the host runs
//! commands in the guest whatever its network does ([`agent`]).
//!
//! This library holds the types that the harness shares with the program, and the client, server and
//! agent themselves. Nothing here is asynchronous: the program must stay small and static.

pub mod agent;
mod client;
mod datagrams;
mod dns;
mod http;
mod kind;
mod load;
mod ping;
mod report;
mod resolve;
mod server;
mod socket;
mod stream;
mod target;
mod traffic;
mod transfer;
mod udp;

pub use client::{ViaError, fetch, fetch_via, resolve_via};
pub use datagrams::{DatagramsReceived, DatagramsReport, DatagramsRequest, DatagramsSent};
pub use dns::{Record, RecordData, RecordKind};
pub use kind::{Kind, MAX_OCTETS, Octets};
pub use load::{Load, LoadReport, LoadRequest};
pub use ping::ping;
pub use report::{Attempt, Counted, FetchReport, FetchRequest, Identity, Outcome, TargetReport};
pub use resolve::{ResolveOutcome, ResolveReport, ResolveRequest, resolve};
pub use server::{Server, host_name};
pub use stream::{StreamReport, StreamRequest};
pub use traffic::{MAX_REQUESTS, Sent, TrafficEnd, TrafficRecord, TrafficRequest};
