//! Where the faults of sabotages are: what a failure's page is measured by, `cargo xtask bench truth`.

use self::Place::{Last, Node};

/// A sabotage that loses packets on one node, and that node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The sabotage's.
    pub sabotage: &'static str,
    /// Whose rules, routes or bridge it changes.
    pub place: Place,
}

/// Which node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one with this number.
    Node(u32),
    /// The one with the highest.
    Last,
}

impl Place {
    /// Its number in a cluster of so many nodes.
    pub fn of(self, nodes: u32) -> u32 {
        match self {
            Node(number) => number,
            Last => nodes,
        }
    }
}

const fn on(scenario: &'static str, sabotage: &'static str, place: Place) -> Truth {
    Truth { scenario, sabotage, place }
}

/// All sabotages of which it is one node that loses requests between Pods and nodes, or their answers.
pub const TRUTH: [Truth; 19] = [
    on("static_routes", "a-route-is-missing", Node(1)),
    on("address_filter", "one-node-still-checked", Node(2)),
    on("network_daemon_without_kube_proxy", "route-deleted", Node(1)),
    on("isolated_networks", "rule-missing-on-node-2", Node(2)),
    on("cluster_ip", "kube-proxy-not-started", Node(1)),
    on("every_pair", "one-direction-dropped", Node(1)),
    on("leave_and_return_under_traffic", "cluster-ip-cut", Node(1)),
    on("transfers_over_every_pair", "large-packets-vanish-on-one-node", Node(2)),
    on("transfers_over_every_pair", "large-packets-vanish-on-the-way", Node(1)),
    on("transfers_over_every_pair", "fragmentation-needed-is-not-told", Node(1)),
    on("services_from_everywhere", "bridge-filtering-off-on-node-1", Node(1)),
    on("services_from_everywhere", "bridge-filtering-off-on-node-2", Node(2)),
    on("services_from_everywhere", "hairpin-off", Last),
    on("egress_from_every_node", "udp-dropped", Node(1)),
    on("egress_from_every_node", "questions-dropped", Node(2)),
    on("node_port", "one-node-drops", Node(1)),
    on("outer_addresses", "one-node-drops", Node(1)),
    on("daemons_under_traffic", "cluster-ip-cut", Last),
    on("ipv6_beside_ipv4", "ipv6-not-forwarded", Node(2)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_sabotage_of_a_scenario_once() {
        let all = crate::all();
        for truth in TRUTH {
            let Truth { scenario, sabotage, .. } = truth;
            let named = all.iter().find(|it| it.name == scenario);
            let named = named.unwrap_or_else(|| panic!("no scenario {scenario}"));
            let known = named.sabotages.iter().any(|it| it.name == sabotage);
            assert!(known, "{scenario} has no sabotage {sabotage}");
            let same = TRUTH.iter().filter(|it| (it.scenario, it.sabotage) == (scenario, sabotage));
            assert_eq!(same.count(), 1, "{scenario} {sabotage}");
        }
        assert_eq!((Node(2).of(3), Last.of(3)), (2, 3));
    }
}
