//! A second node, and static routes (chapter C).

pub(crate) mod joins;
pub(crate) mod off_link;
pub(crate) mod pod_addresses;
pub(crate) mod static_routes;
pub(crate) mod unflattened;
