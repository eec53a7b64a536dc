//! A second node, and static routes (chapter C).

pub(crate) mod address_filter;
pub(crate) mod joins;
pub(crate) mod kube_router;
pub(crate) mod masquerading;
pub(crate) mod network_daemon;
pub(crate) mod off_link;
pub(crate) mod pod_addresses;
pub(crate) mod static_routes;
pub(crate) mod unflattened;
pub(crate) mod without_kube_proxy;
