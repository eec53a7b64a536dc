//! The catalogue, and the scenarios: a file for each or for a few that belong together, in a folder for
//! each part of the story.
//!
//! To add one: write an async function and its [`Scenario`] in a file there, and name it in [`all`].
//! docs/writing-a-scenario.md goes through a whole one.

pub mod catalogue;
mod control_plane;
mod field;
mod harness;
mod kubeadm;
pub mod measurements;
mod one_node;
mod pod_ranges;
mod second_node;
mod whole_network;

use podwire_scenario::Scenario;

/// Every scenario, in the order of the story that the documents tell.
pub fn all() -> Vec<Scenario> {
    vec![
        harness::identities::IDENTITIES,
        harness::open_connection::OPEN_CONNECTION,
        control_plane::first_start::FIRST_START,
        control_plane::requests::REQUESTS,
        control_plane::client_certificates::CLIENT_CERTIFICATES,
        control_plane::etcd_over_tls::ETCD_OVER_TLS,
        control_plane::first_deployment::FIRST_DEPLOYMENT,
        one_node::engine::ENGINE,
        one_node::cgroup_drivers::CGROUP_DRIVERS,
        one_node::standalone::STANDALONE,
        control_plane::all_addresses::ALL_ADDRESSES,
        control_plane::own_certificate::OWN_CERTIFICATE,
        control_plane::serving_names::SERVING_NAMES,
        control_plane::root_ca::ROOT_CA,
        control_plane::root_ca::SELF_MADE_ROOT_CA,
        control_plane::token_volume::TOKEN_VOLUME,
        one_node::first_node::FIRST_NODE,
        one_node::open_kubelet::OPEN_KUBELET,
        one_node::cni_file_order::CNI_FILE_ORDER,
        second_node::unflattened::UNFLATTENED,
        second_node::joins::JOINS,
        second_node::pod_addresses::POD_ADDRESSES,
        second_node::static_routes::STATIC_ROUTES,
        second_node::masquerading::MASQUERADING,
        second_node::address_filter::ADDRESS_FILTER,
        second_node::kube_router::KUBE_ROUTER,
        second_node::kube_router::KUBE_ROUTER_WITHOUT_KUBE_PROXY,
        second_node::off_link::OFF_LINK,
        pod_ranges::one_kubeconfig::ONE_KUBECONFIG,
        pod_ranges::one_subnet::ONE_SUBNET,
        pod_ranges::pod_cidr_by_hand::POD_CIDR_BY_HAND,
        pod_ranges::pod_cidr_allocated::POD_CIDR_ALLOCATED,
        pod_ranges::isolated_networks::ISOLATED_NETWORKS,
        pod_ranges::kubelet_killed::KUBELET_KILLED,
        whole_network::own_addresses::OWN_ADDRESSES,
        one_node::cluster_ip::CLUSTER_IP,
        one_node::outside_host::OUTSIDE_HOST,
        harness::evidence::WITHOUT_NETWORK,
        harness::short_hole::SHORT_HOLE,
        whole_network::rejoin_by_hand::REJOIN,
        whole_network::every_pair::EVERY_PAIR,
        whole_network::cluster_ip::CLUSTER_IP,
        whole_network::leave_and_return::LEAVE_AND_RETURN,
        second_node::address_filter::TUNNEL_AND_FILTER,
        second_node::network_daemon::NETWORK_DAEMON,
        second_node::without_kube_proxy::WITHOUT_KUBE_PROXY,
        field::transfers::TRANSFERS,
        field::direct_way::DIRECT_WAY,
        field::two_segments::TWO_SEGMENTS_APART,
        field::two_segments::HOST_GW_APART,
        field::second_card::SECOND_CARD,
        field::hairpin::FROM_EVERYWHERE,
        field::egress::EGRESS,
        field::udp::UDP,
        field::every_name::EVERY_NAME,
        field::affinity::AFFINITY,
        field::scale_to_zero::SCALE_TO_ZERO,
        field::node_port::NODE_PORT,
        field::outer_addresses::OUTER_ADDRESSES,
        field::host_port::HOST_PORT,
        field::ipv6::IPV6_BESIDE_IPV4,
        field::flushed_rules::FLUSHED_RULES,
        field::networkd::NETWORKD,
        field::daemons::DAEMONS,
        field::worker_boots::REBOOT,
        field::worker_boots::POWER_CUT,
        field::departed_node::DEPARTED_NODE,
        field::address_taken_over::ADDRESS_TAKEN_OVER,
        field::foreign_cni_file::FOREIGN_CNI_FILE,
        field::node_setup::NODE_SETUP,
        kubeadm::packages::PACKAGES,
        kubeadm::preflight::PREFLIGHT,
        kubeadm::choices::CHOICES,
        kubeadm::init::LEAVES,
        kubeadm::host_names::HOST_NAMES,
        kubeadm::tokens::TOKENS,
        kubeadm::token_ends::TOKEN_ENDS,
        kubeadm::join::JOIN,
        kubeadm::discovery::BY_FILE,
        kubeadm::trust::TRUST,
        kubeadm::tls_bootstrap::TLS_BOOTSTRAP,
        kubeadm::ignored::IGNORED,
        kubeadm::core_dns::CORE_DNS_WAITS,
        kubeadm::names::NAMES,
        kubeadm::headless::HEADLESS,
        kubeadm::worker::WORKER,
        kubeadm::pods_of_a_node::PODS_OF_A_NODE,
        kubeadm::static_pod::STATIC_POD,
        kubeadm::taint::TAINT,
        kubeadm::drain::DRAIN,
        kubeadm::deleted::DELETED,
        kubeadm::rejoin::REJOIN,
        kubeadm::taken_name::TAKEN_NAME,
        kubeadm::old_bridge::OLD_BRIDGE,
        kubeadm::boot::REBOOT,
        kubeadm::boot::POWER_CUT,
        kubeadm::upgrade::UPGRADED,
        kubeadm::control_planes::CONTROL_PLANES,
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use podwire_cluster::{Break, Cell};
    use podwire_scenario::Cells;

    use super::*;

    #[test]
    fn names_are_unique_and_every_scenario_can_fail() {
        let mut names = BTreeSet::new();
        for scenario in all() {
            assert!(names.insert(scenario.name), "{} twice", scenario.name);
            assert!(!scenario.covers.is_empty(), "{} covers nothing", scenario.name);
            assert!(!scenario.sabotages.is_empty(), "{} has no sabotage", scenario.name);
        }
    }

    #[test]
    fn no_scenario_says_what_its_stage_says_already() {
        for scenario in all().iter().filter(|it| it.cells != Cells::Any) {
            let of_any = Scenario { cells: Cells::Any, ..*scenario };
            let mut left_out =
                Cell::all().filter(|cell| of_any.fits(*cell) && !scenario.fits(*cell));
            let narrows = left_out.any(|cell| scenario.stage.is_of(cell));
            assert!(narrows, "{}: `cells` leaves out no cell with its stage", scenario.name);
        }
    }

    #[test]
    fn every_break_turns_something_red_and_leaves_something_green() {
        for broken in Break::ALL {
            let red = all().iter().filter(|s| s.red_when.contains(&broken)).count();
            assert!((1..all().len()).contains(&red), "{broken}: {red}");
        }
    }
}
