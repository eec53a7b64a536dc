//! One node by hand: the first one, CNI files, ClusterIPs, and the way outside (chapter B).

pub(crate) mod cluster_ip;
pub(crate) mod cni_file_order;
mod first_cni_file;
pub(crate) mod first_node;
pub(crate) mod open_kubelet;
pub(crate) mod outside_host;
