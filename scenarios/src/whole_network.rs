//! What holds for the whole network, whoever made the cluster, and after a node was away (chapters E and F).

pub(crate) mod cluster_ip;
pub(crate) mod every_pair;
pub(crate) mod leave_and_return;
pub(crate) mod own_addresses;
pub(crate) mod rejoin_by_hand;
