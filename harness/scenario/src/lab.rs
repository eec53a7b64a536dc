//! What can be done to a scenario's own running cluster, in the documents' words.

pub(crate) mod ask;
mod begins;
mod clone;
pub(crate) mod command;
mod components;
pub(crate) mod curl;
pub(crate) mod datagrams;
mod faults;
mod gateway;
pub(crate) mod impair;
mod ipam;
pub(crate) mod kubeadm;
mod leaving;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod objects;
mod open_mode;
pub(crate) mod pods;
mod prospects;
mod senders;
mod service;
mod serving;
mod stream;
mod tls;
pub(crate) mod traffic;
mod watch;
pub(crate) mod wire;

pub use clone::{Lab, STEPS};
