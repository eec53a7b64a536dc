//! Which clusters of two sides are the same place of a comparison.

use podwire_cluster::{Cell, Layout};

/// What two sides' clusters have in common where the rest of them is what differs.
pub(crate) fn cluster(cell: &str) -> String {
    match cell.parse::<Cell>() {
        Ok(cell) if cell.layout == Layout::Flat => cell.bootstrap.to_string(),
        Ok(cell) => format!("{}+{}", cell.bootstrap, cell.layout),
        Err(_) => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_the_same_that_differ_in_what_a_change_may_be() {
        for cell in ["by-hand/nftables/routes", "by-hand/iptables/flannel+dual"] {
            assert_eq!(cluster(cell), "by-hand");
        }
        assert_eq!(cluster("kubeadm/nftables/flannel+routed"), "kubeadm+routed");
        assert_eq!(cluster("of another version"), "of another version");
    }
}
