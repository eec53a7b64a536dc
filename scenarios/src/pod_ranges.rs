//! Three nodes, and who gives their Pods addresses (chapter D).

pub(crate) mod isolated_networks;
pub(crate) mod kubelet_killed;
pub(crate) mod one_kubeconfig;
pub(crate) mod one_subnet;
pub(crate) mod pod_cidr_allocated;
pub(crate) mod pod_cidr_by_hand;
mod template;
