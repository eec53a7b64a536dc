//! What breaks in the field (chapter F): reported faults of real clusters, in every cell that can have
//! them.

pub(crate) mod address_taken_over;
pub(crate) mod affinity;
pub(crate) mod daemons;
pub(crate) mod departed_node;
pub(crate) mod direct_way;
pub(crate) mod egress;
pub(crate) mod every_name;
pub(crate) mod flushed_rules;
pub(crate) mod foreign_cni_file;
pub(crate) mod hairpin;
pub(crate) mod host_port;
pub(crate) mod ipv6;
pub(crate) mod networkd;
pub(crate) mod node_port;
pub(crate) mod node_setup;
pub(crate) mod outer_addresses;
pub(crate) mod scale_to_zero;
pub(crate) mod second_card;
pub(crate) mod transfers;
pub(crate) mod two_segments;
pub(crate) mod udp;
pub(crate) mod used_services;
pub(crate) mod worker_boots;
