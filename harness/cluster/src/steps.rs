//! How a cluster is made, as data: each step from a stage to the next, and the key that it gives its
//! stage.

pub(crate) mod by_hand;
pub(crate) mod common;
mod configured;
pub(crate) mod key;
pub(crate) mod network;
pub(crate) mod of_stage;
pub(crate) mod step;
pub(crate) mod with_kubeadm;
