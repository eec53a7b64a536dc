//! kubeadm (chapter E), in the order of its story.

pub(crate) mod boot;
pub(crate) mod choices;
pub(crate) mod core_dns;
pub(crate) mod deleted;
pub(crate) mod discovery;
pub(crate) mod drain;
pub(crate) mod headless;
pub(crate) mod host_names;
pub(crate) mod ignored;
pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod names;
pub(crate) mod old_bridge;
pub(crate) mod packages;
pub(crate) mod pods_of_a_node;
mod ports;
pub(crate) mod preflight;
pub(crate) mod rejoin;
pub(crate) mod static_pod;
pub(crate) mod taint;
pub(crate) mod tls_bootstrap;
pub(crate) mod token_ends;
mod token_secret;
pub(crate) mod tokens;
pub(crate) mod trust;
pub(crate) mod upgrade;
pub(crate) mod worker;
