//! Three nodes, and who gives their Pods addresses (chapter D).

pub(crate) mod isolated_networks;
pub(crate) mod kubelet_killed;
