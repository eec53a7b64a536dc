//! The catalogue, and the scenarios, a module per chapter of it.
//!
//! To add one: write an async function and its [`Scenario`] in the chapter's module, and name it in
//! [`all`]. docs/writing-a-scenario.md goes through a real one.

pub mod catalogue;
mod clones;
mod control_plane;
mod evidence;
mod kubeadm;
mod leaving;
mod one_node;
mod pod_network;
mod prospects;
mod second_node;
mod steps;
mod under_traffic;
mod whole_network;

use podwire_scenario::Scenario;

/// Every scenario, in the order of the story that the documents tell.
pub fn all() -> Vec<Scenario> {
    vec![
        clones::IDENTITIES,
        clones::OPEN_CONNECTION,
        control_plane::SERVING_NAMES,
        second_node::JOINS,
        second_node::POD_ADDRESSES,
        second_node::STATIC_ROUTES,
        pod_network::OWN_ADDRESSES,
        one_node::CLUSTER_IP,
        one_node::OUTSIDE_HOST,
        evidence::WITHOUT_NETWORK,
        pod_network::REJOIN,
        whole_network::EVERY_PAIR,
        whole_network::CLUSTER_IP,
        under_traffic::LEAVE_AND_RETURN,
        kubeadm::init::PACKAGES,
        kubeadm::init::LEAVES,
        kubeadm::join::JOIN,
        kubeadm::init::CORE_DNS_WAITS,
        kubeadm::init::NAMES,
        kubeadm::join::WORKER,
        kubeadm::node_life::PODS_OF_A_NODE,
        kubeadm::node_life::STATIC_POD,
        kubeadm::node_life::TAINT,
        kubeadm::node_life::DRAIN,
        kubeadm::node_life::DELETED,
        kubeadm::reset::REJOIN,
        kubeadm::reset::OLD_BRIDGE,
        kubeadm::boot::REBOOT,
        kubeadm::boot::POWER_CUT,
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use podwire_cluster::Break;

    use super::*;

    #[test]
    fn names_are_unique_and_every_scenario_can_fail() {
        let mut names = BTreeSet::new();
        for scenario in all() {
            assert!(names.insert(scenario.name), "{} twice", scenario.name);
            assert!(
                !scenario.covers.is_empty(),
                "{} covers nothing",
                scenario.name
            );
            assert!(
                !scenario.sabotages.is_empty(),
                "{} has no sabotage",
                scenario.name
            );
        }
    }

    #[test]
    fn every_break_turns_something_red_and_leaves_something_green() {
        for broken in Break::ALL {
            let red = all()
                .iter()
                .filter(|s| s.red_when.contains(&broken))
                .count();
            assert!((1..all().len()).contains(&red), "{broken}: {red}");
        }
    }
}
