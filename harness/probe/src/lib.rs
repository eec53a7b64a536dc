//! What the guests' own small program, `probe`, says and is told.
//!
//! Starting a process in an emulated guest costs up to a second, so a hundred `curl`s are out of
//! the question: one `probe fetch` sends many requests, each on a fresh connection, and answers in
//! JSON. The same program is the workload (`probe serve`), which answers with its host name and
//! with the address that it saw the client come from, and the sandbox's first process
//! (`probe pause`).
//!
//! This library holds the JSON types, which the harness shares with the program, and the client
//! and server themselves. Nothing here is asynchronous: the program must stay small and static.

mod client;
mod dns;
mod http;
mod ping;
mod report;
mod server;
mod stream;
mod traffic;

pub use client::{ViaError, fetch, fetch_via};
pub use ping::ping;
pub use report::{
    Attempt, Counted, FetchReport, FetchRequest, Identity, Outcome, StreamReport, TargetReport,
};
pub use server::{Server, host_name};
pub use traffic::{MAX_REQUESTS, Sent, TrafficEnd, TrafficRecord, TrafficRequest};
