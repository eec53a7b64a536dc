//! One node by hand: the kubelet and its container engine, one at a time; then ClusterIPs, and the way
//! outside, on the workload's nodes (chapter B).

pub(crate) mod cgroup_drivers;
pub(crate) mod cluster_ip;
pub(crate) mod engine;
pub(crate) mod outside_host;
pub(crate) mod standalone;

use podwire_scenario::{Component, Lab};

/// A command line that exits with 0 while a node's kubelet serves.
const KUBELET_SERVES: &str = "curl -sf http://localhost:10248/healthz";

/// Node 1's kubelet as the document starts it.
fn kubelet(lab: &Lab) -> Component {
    lab.node(1).kubelet().without_flags()
}
