//! The control plane by hand (chapter A).

pub(crate) mod all_addresses;
mod authority;
pub(crate) mod client_certificates;
pub(crate) mod etcd_over_tls;
pub(crate) mod first_deployment;
pub(crate) mod first_start;
pub(crate) mod own_certificate;
pub(crate) mod requests;
pub(crate) mod root_ca;
pub(crate) mod serving_names;
pub(crate) mod token_volume;
