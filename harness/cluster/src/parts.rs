//! What a cluster is made of, as data: keys, files, units, configurations, API objects.

pub mod cni;
pub mod component;
pub mod config;
pub(crate) mod credentials;
pub(crate) mod file;
pub mod flannel;
pub(crate) mod identity;
pub(crate) mod ipv6;
pub mod kubeadm;
pub mod kubeconfig;
pub(crate) mod manifest;
pub(crate) mod merge;
pub mod node_files;
pub mod pki;
pub mod units;
pub mod workload;
