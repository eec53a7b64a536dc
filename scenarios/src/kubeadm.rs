//! Chapter E: kubeadm, as a person types it.

pub(crate) mod boot;
pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod node_life;
pub(crate) mod reset;
pub(crate) mod steps;
