//! What a cluster is, before it exists: values, and what can go wrong with one.

pub mod addresses;
pub(crate) mod breaks;
pub(crate) mod cell;
pub(crate) mod cluster_plan;
pub(crate) mod configurations;
pub(crate) mod error;
pub(crate) mod ip_families;
pub(crate) mod layout;
pub(crate) mod node_tree;
pub(crate) mod pod_manifest;
pub(crate) mod settings;
pub(crate) mod stage_name;
