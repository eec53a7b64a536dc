//! Which machines a cluster has and how large they are, which segments they are on, and by which way they
//! reach each other.

use std::fmt;
use std::net::Ipv4Addr;

use podwire_lan::{Host, Lease, NetworkPlan, Route, SegmentPlan};
use serde::{Deserialize, Serialize};

use super::addresses::{
    EVERYWHERE, ROUTER, SECOND_SEGMENT, SEGMENT, gateway_on, node_address_on, node_mac, node_name,
    on_segment, router_mac, router_port, second_mac, second_port, segment_plan,
};

/// The last octet of the router's addresses.
const ROUTER_OCTET: u8 = 2;

/// Which nodes share a segment, and which have room for a control plane.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// All of them: one segment.
    #[default]
    Flat,
    /// Those with odd numbers, and those with even ones on a second segment, as nodes are spread over two
    /// zones. Between them leads a router, a machine of its own without Kubernetes.
    Routed,
    /// All of them; node 2 has a second card and a second address, on a segment that leads nowhere, as a
    /// network for storage does.
    SecondCard,
    /// All of them; each has as much memory as node 1, so that it has room for a control plane.
    ControlPlanes,
}

/// The node with a second card, of [`Layout::SecondCard`].
const WITH_SECOND_CARD: u32 = 2;

/// A machine of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    /// The node with this number.
    Node(u32),
    /// What leads from one segment to another.
    Router,
}

/// A network card of a machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    /// The index of its segment.
    pub(crate) segment: usize,
    /// Its port there.
    pub(crate) port: String,
    /// Its addresses, and the machine's name.
    pub(crate) lease: Lease,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Flat,
        Self::Routed,
        Self::SecondCard,
        Self::ControlPlanes,
    ];

    /// Whether it is the usual one.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(crate) fn is_flat(&self) -> bool {
        *self == Self::Flat
    }

    /// The index of the segment that a node shares with others.
    pub fn segment_of(self, node: u32) -> usize {
        match self {
            Self::Routed if node.is_multiple_of(2) => 1,
            Self::Flat | Self::Routed | Self::SecondCard | Self::ControlPlanes => 0,
        }
    }

    /// A node's address: `172.30.0.(10+N)`, or `172.30.1.(10+N)` on the second segment.
    pub fn address(self, node: u32) -> Ipv4Addr {
        node_address_on(self.segment_of(node), node)
    }

    /// The address of a node's second card, where it has one.
    pub fn second_address(self, node: u32) -> Option<Ipv4Addr> {
        let has = self == Self::SecondCard && node == WITH_SECOND_CARD;
        has.then(|| node_address_on(1, node))
    }

    /// The address by which packets from one node to another's Pods go next: the other's, or the
    /// router's on their way to the other segment.
    pub fn next_hop(self, from: u32, to: u32) -> Ipv4Addr {
        let on = self.segment_of(from);
        match self.segment_of(to) == on {
            true => self.address(to),
            false => router_address(on),
        }
    }

    /// All machines of a cluster, the nodes first.
    pub(crate) fn members(self, nodes: u32) -> impl Iterator<Item = Member> {
        let router = (self == Self::Routed).then_some(Member::Router);
        (1..=nodes).map(Member::Node).chain(router)
    }

    /// The cards of one of its machines.
    pub(crate) fn cards(self, member: Member) -> Vec<Card> {
        match member {
            Member::Node(number) => {
                let first = Card {
                    segment: self.segment_of(number),
                    port: node_name(number),
                    lease: Lease {
                        mac: node_mac(number),
                        address: self.address(number),
                        host_name: node_name(number),
                    },
                };
                let second = self.second_address(number).map(|address| Card {
                    segment: 1,
                    port: second_port(number),
                    lease: Lease {
                        mac: second_mac(number),
                        address,
                        host_name: node_name(number),
                    },
                });
                [first].into_iter().chain(second).collect()
            }
            Member::Router => [0, 1].map(router_card).to_vec(),
        }
    }

    /// The first segment of a cluster with so many nodes.
    pub(crate) fn first_segment(self, nodes: u32) -> SegmentPlan {
        let routes = match self {
            Self::Flat | Self::SecondCard | Self::ControlPlanes => Vec::new(),
            Self::Routed => vec![Route {
                to: SECOND_SEGMENT,
                via: router_address(0),
            }],
        };
        self.segment(nodes, 0, routes)
    }

    /// The second one, where there is one: a router leads from it to everywhere else, to the world as well,
    /// or nothing does.
    pub(crate) fn second_segment(self, nodes: u32) -> Option<SegmentPlan> {
        let route = Route {
            to: EVERYWHERE,
            via: router_address(1),
        };
        match self {
            Self::Flat | Self::ControlPlanes => None,
            Self::Routed => Some(self.segment(nodes, 1, vec![route])),
            Self::SecondCard => Some(SegmentPlan {
                is_apart: true,
                ..self.segment(nodes, 1, Vec::new())
            }),
        }
    }

    fn segment(self, nodes: u32, index: usize, routes: Vec<Route>) -> SegmentPlan {
        let cards = self.members(nodes).flat_map(|member| self.cards(member));
        let (here, beyond): (Vec<Card>, Vec<Card>) = cards.partition(|it| it.segment == index);
        let known = |name: &String| here.iter().any(|card| card.lease.host_name == *name);
        let hosts = beyond.into_iter().map(|card| Host {
            name: card.lease.host_name,
            address: card.lease.address,
        });
        SegmentPlan {
            routes,
            hosts: hosts.filter(|host| !known(&host.name)).collect(),
            ..segment_plan(
                if index == 0 { SEGMENT } else { SECOND_SEGMENT },
                gateway_on(index),
                here.iter().map(|card| card.lease.clone()).collect(),
            )
        }
    }

    /// The segments of a cluster with so many nodes.
    pub fn network(self, nodes: u32) -> NetworkPlan {
        let segments = [Some(self.first_segment(nodes)), self.second_segment(nodes)];
        NetworkPlan {
            segments: segments.into_iter().flatten().collect(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Routed => "routed",
            Self::SecondCard => "second-card",
            Self::ControlPlanes => "control-planes",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Member {
    /// Host name, and the name of its files.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Node(number) => node_name(number),
            Self::Router => ROUTER.to_owned(),
        }
    }
}

/// The router's address on the segment with an index.
pub(crate) fn router_address(segment: usize) -> Ipv4Addr {
    on_segment(segment, ROUTER_OCTET)
}

fn router_card(segment: usize) -> Card {
    Card {
        segment,
        port: router_port(segment),
        lease: Lease {
            mac: router_mac(segment),
            address: router_address(segment),
            host_name: ROUTER.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::addresses::MAX_NODES;

    #[test]
    fn the_segments_of_the_largest_clusters_make_sense() {
        for layout in Layout::ALL {
            layout.network(MAX_NODES).check().unwrap();
        }
    }

    #[test]
    fn each_is_found_by_the_name_it_shows_and_serialises_to() {
        for each in Layout::ALL {
            assert_eq!(each.to_string().parse(), Ok(each));
            assert_eq!(serde_json::to_value(each).unwrap(), each.to_string());
        }
    }

    /// Every machine's cards, and what each segment tells its machines.
    fn shown(layout: Layout) -> String {
        let mut lines = Vec::new();
        for member in layout.members(3) {
            for Card {
                segment,
                port,
                lease,
            } in layout.cards(member)
            {
                let (mac, address, name) = (lease.mac, lease.address, lease.host_name);
                lines.push(format!("{segment} {port}: {name} {address} {mac}"));
            }
        }
        for SegmentPlan {
            subnet,
            gateway,
            routes,
            is_apart,
            hosts,
            ..
        } in layout.network(3).segments
        {
            let routes = routes
                .iter()
                .map(|it| format!("; {} via {}", it.to, it.via));
            let hosts = hosts
                .iter()
                .map(|it| format!("; {} {}", it.name, it.address));
            let apart = is_apart.then(|| "; leads nowhere".to_owned());
            let said: String = routes.chain(hosts).chain(apart).collect();
            lines.push(format!("{subnet} with {gateway}{said}"));
        }
        lines.join("\n")
    }

    #[test]
    fn each_machine_has_its_cards_and_is_told_the_ways_from_its_segment() {
        insta::assert_snapshot!(shown(Layout::Flat), @r"
        0 node1: node1 172.30.0.11 52:54:00:00:01:01
        0 node2: node2 172.30.0.12 52:54:00:00:01:02
        0 node3: node3 172.30.0.13 52:54:00:00:01:03
        172.30.0.0/24 with 172.30.0.1
        ");
        assert_eq!(shown(Layout::ControlPlanes), shown(Layout::Flat));
        insta::assert_snapshot!(shown(Layout::SecondCard), @r"
        0 node1: node1 172.30.0.11 52:54:00:00:01:01
        0 node2: node2 172.30.0.12 52:54:00:00:01:02
        1 node2-2: node2 172.30.1.12 52:54:00:00:03:02
        0 node3: node3 172.30.0.13 52:54:00:00:01:03
        172.30.0.0/24 with 172.30.0.1
        172.30.1.0/24 with 172.30.1.1; node1 172.30.0.11; node3 172.30.0.13; leads nowhere
        ");
        insta::assert_snapshot!(shown(Layout::Routed), @r"
        0 node1: node1 172.30.0.11 52:54:00:00:01:01
        1 node2: node2 172.30.1.12 52:54:00:00:01:02
        0 node3: node3 172.30.0.13 52:54:00:00:01:03
        0 router-1: router 172.30.0.2 52:54:00:00:02:01
        1 router-2: router 172.30.1.2 52:54:00:00:02:02
        172.30.0.0/24 with 172.30.0.1; 172.30.1.0/24 via 172.30.0.2; node2 172.30.1.12
        172.30.1.0/24 with 172.30.1.1; 0.0.0.0/0 via 172.30.1.2; node1 172.30.0.11; node3 172.30.0.13
        ");
    }

    #[test]
    fn pods_of_the_other_segment_are_behind_the_router() {
        let hop = |from, to| Layout::Routed.next_hop(from, to).to_string();
        assert_eq!(hop(1, 3), "172.30.0.13");
        assert_eq!(hop(1, 2), "172.30.0.2");
        assert_eq!(hop(2, 1), "172.30.1.2");
        assert_eq!(Layout::Flat.next_hop(1, 2).to_string(), "172.30.0.12");
    }
}
