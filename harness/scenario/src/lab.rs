//! What can be done to a scenario's own running cluster, in the documents' words.

pub(crate) mod ask;
mod begins;
mod clone;
pub(crate) mod command;
mod components;
pub(crate) mod curl;
mod daemons;
pub(crate) mod datagrams;
mod faults;
mod gateway;
mod holes;
pub(crate) mod impair;
pub(crate) mod init;
mod ipam;
pub(crate) mod kubeadm;
mod leaving;
mod met;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod objects;
mod open_mode;
pub(crate) mod pods;
mod prospects;
pub(crate) mod router;
mod senders;
mod service;
mod serving;
mod strays;
mod stream;
mod tls;
pub(crate) mod traffic;
pub(crate) mod troubles;
mod watch;
pub(crate) mod wire;

pub use clone::{Lab, STEPS};
