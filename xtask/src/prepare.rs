//! What a cluster is made of here, found in the cache or made.

pub(crate) mod alone;
pub(crate) mod configurations;
#[cfg(test)]
pub(crate) mod fixture;
mod given;
pub(crate) mod machine;
pub(crate) mod node_tree;
pub(crate) mod parts;
pub(crate) mod pod_network;
pub(crate) mod preparation;
pub(crate) mod space;
pub(crate) mod stage_cache;
pub(crate) mod tickets;
pub(crate) mod wanted;
