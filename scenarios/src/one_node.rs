//! ClusterIPs, and the way outside, on the workload's nodes (chapter B).

pub(crate) mod cluster_ip;
pub(crate) mod outside_host;
