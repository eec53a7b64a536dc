//! What a segment is to look like, and several of them together, as data.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{Ipv4Net, MacAddr};

/// One machine's address: what DHCP gives to its MAC address and DNS answers for its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The machine's Ethernet address.
    pub mac: MacAddr,
    /// Its IPv4 address, within the segment's subnet.
    pub address: Ipv4Addr,
    /// Its host name (DHCP option 12) and DNS name.
    pub host_name: String,
}

/// A way to somewhere beyond the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads; everywhere else for a prefix of 0.
    pub to: Ipv4Net,
    /// The router, which is on the segment.
    pub via: Ipv4Addr,
}

/// A host of another segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its DNS name.
    pub name: String,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
}

/// The segment's addresses and names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentPlan {
    /// The machines' subnet.
    pub subnet: Ipv4Net,
    /// The gateway's address in the subnet: DHCP and DNS server, and the default router unless a route
    /// says otherwise.
    pub gateway: Ipv4Addr,
    /// The gateway's Ethernet address.
    pub gateway_mac: MacAddr,
    /// The machines. One that is not listed gets no address.
    pub leases: Vec<Lease>,
    /// A host outside the subnet that the gateway plays: it answers ICMP echo, and HTTP on port 80
    /// with `{"client": "<the address it sees>"}`.
    pub outside: Ipv4Addr,
    /// The outside host's DNS name. Every name that is neither this nor a machine's is NXDOMAIN.
    pub outside_name: String,
    /// Ranges that the network is not supposed to route through the gateway (Pods, Services):
    /// packets for them are dropped and counted apart, see
    /// [`DropReason`](crate::DropReason).
    pub unrouted: Vec<Ipv4Net>,
    /// What DHCP gives to each machine beside its address, but to no machine a route by itself. One to
    /// 0.0.0.0/0 stands in for the default route by the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Whether it leads nowhere: DHCP names no default router.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_apart: bool,
    /// Whom else DNS knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
}

/// The segments of one switch, the first first. Between them only machines lead that are on both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// At least one. A machine with a card on several may have the same host name on each.
    pub segments: Vec<SegmentPlan>,
}

impl From<SegmentPlan> for NetworkPlan {
    fn from(segment: SegmentPlan) -> Self {
        NetworkPlan {
            segments: vec![segment],
        }
    }
}

impl NetworkPlan {
    /// Whether the plan makes sense.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.segments.is_empty() {
            return Err(PlanError::Empty);
        }
        for (index, segment) in self.segments.iter().enumerate() {
            segment.check()?;
            for before in &self.segments[..index] {
                let (one, other) = (before.subnet, segment.subnet);
                if one.contains(other.address) || other.contains(one.address) {
                    return Err(PlanError::Overlap { one, other });
                }
            }
        }
        Ok(())
    }
}

/// A plan contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An address that must be on the segment is not.
    #[error("the address {address} of {of} is not in the segment's subnet {subnet}")]
    OffSegment {
        /// Whose address.
        of: String,
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// There is no segment.
    #[error("a switch needs a segment")]
    Empty,
    /// Two segments share addresses.
    #[error("the segments {one} and {other} overlap: no machine would know on which an address is")]
    Overlap {
        /// One's subnet.
        one: Ipv4Net,
        /// The other's.
        other: Ipv4Net,
    },
    /// The outside host is on the segment.
    #[error(
        "the outside host {address} is within the segment's subnet {subnet}: machines would look for it on the segment"
    )]
    OutsideOnSegment {
        /// The outside host's address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// Two hosts share an address or name.
    #[error("{what} is given twice; every host of a segment needs its own")]
    Twice {
        /// The address or name.
        what: String,
    },
    /// An Ethernet address that names a group.
    #[error("the Ethernet address {mac} of {of} is a group address; the first octet must be even")]
    GroupAddress {
        /// Whose address.
        of: String,
        /// The address.
        mac: MacAddr,
    },
}

impl SegmentPlan {
    /// Whether the plan makes sense.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), PlanError> {
        let mut seen = HashSet::new();
        let mut once = |what: String| {
            if seen.insert(what.clone()) {
                Ok(())
            } else {
                Err(PlanError::Twice { what })
            }
        };
        let hosts = [("the gateway", self.gateway, self.gateway_mac)]
            .into_iter()
            .chain(
                self.leases
                    .iter()
                    .map(|lease| (lease.host_name.as_str(), lease.address, lease.mac)),
            );
        for (of, address, mac) in hosts {
            if !self.subnet.contains(address) {
                return Err(PlanError::OffSegment {
                    of: of.to_owned(),
                    address,
                    subnet: self.subnet,
                });
            }
            if mac.is_group() {
                return Err(PlanError::GroupAddress {
                    of: of.to_owned(),
                    mac,
                });
            }
            once(of.to_ascii_lowercase())?;
            once(address.to_string())?;
            once(mac.to_string())?;
        }
        once(self.outside_name.to_ascii_lowercase())?;
        for host in &self.hosts {
            once(host.name.to_ascii_lowercase())?;
        }
        for Route { to, via } in &self.routes {
            if !self.subnet.contains(*via) {
                return Err(PlanError::OffSegment {
                    of: format!("the router to {to}"),
                    address: *via,
                    subnet: self.subnet,
                });
            }
        }
        if self.subnet.contains(self.outside) {
            return Err(PlanError::OutsideOnSegment {
                address: self.outside,
                subnet: self.subnet,
            });
        }
        Ok(())
    }

    /// The address of a name, whatever its case.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<Ipv4Addr> {
        if name.eq_ignore_ascii_case(&self.outside_name) {
            return Some(self.outside);
        }
        let leases = self.leases.iter();
        let leases = leases.map(|lease| (&lease.host_name, lease.address));
        let hosts = self.hosts.iter().map(|host| (&host.name, host.address));
        let mut known = leases.chain(hosts);
        known
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, address)| address)
    }

    /// The default router of a machine with this address; none of one that is the default router, and
    /// where there is none.
    pub(crate) fn default_router(&self, of: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.is_apart {
            return None;
        }
        let default = self.routes.iter().find(|route| route.to.prefix == 0);
        let router = default.map_or(self.gateway, |route| route.via);
        (router != of).then_some(router)
    }

    /// The routes of a machine with this address beside the default one.
    pub(crate) fn routes_of(&self, of: Ipv4Addr) -> impl Iterator<Item = &Route> {
        let routes = self.routes.iter();
        routes.filter(move |route| route.to.prefix > 0 && route.via != of)
    }
}

/// A segment with three machines, for tests, for fuzzing and for the bench.
pub(crate) fn example() -> SegmentPlan {
    let lease = |n: u8| Lease {
        mac: MacAddr([0x52, 0x54, 0, 0, 1, n]),
        address: Ipv4Addr::new(172, 30, 0, 10 + n),
        host_name: format!("node{n}"),
    };
    SegmentPlan {
        subnet: Ipv4Net {
            address: Ipv4Addr::new(172, 30, 0, 0),
            prefix: 24,
        },
        gateway: Ipv4Addr::new(172, 30, 0, 1),
        gateway_mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        leases: (1..=3).map(lease).collect(),
        outside: Ipv4Addr::new(192, 0, 2, 10),
        outside_name: "outside.test".to_owned(),
        unrouted: vec![
            Ipv4Net {
                address: Ipv4Addr::new(10, 1, 0, 0),
                prefix: 16,
            },
            Ipv4Net {
                address: Ipv4Addr::new(10, 0, 0, 0),
                prefix: 24,
            },
        ],
        routes: Vec::new(),
        is_apart: false,
        hosts: Vec::new(),
    }
}

/// Two segments, each with three machines, and one more that is on both: a router.
#[cfg(test)]
pub(crate) fn routed_example() -> NetworkPlan {
    let lease = |segment: u8, n: u8| Lease {
        mac: MacAddr([0x52, 0x54, 0, 0, segment + 1, n]),
        address: Ipv4Addr::new(172, 30, segment, 10 + n),
        host_name: format!("node{}", 3 * segment + n),
    };
    let router = |segment: u8| Lease {
        mac: MacAddr([0x52, 0x54, 0, 0, 3, segment + 1]),
        address: Ipv4Addr::new(172, 30, segment, 2),
        host_name: "router".to_owned(),
    };
    let subnet = |segment: u8| Ipv4Net {
        address: Ipv4Addr::new(172, 30, segment, 0),
        prefix: 24,
    };
    let everywhere = Ipv4Net {
        address: Ipv4Addr::UNSPECIFIED,
        prefix: 0,
    };
    let segment = |segment: u8, to: Ipv4Net, other: u8| SegmentPlan {
        subnet: subnet(segment),
        gateway: Ipv4Addr::new(172, 30, segment, 1),
        gateway_mac: MacAddr([0x52, 0x54, 0, 0, 0, segment + 1]),
        leases: (1..=3)
            .map(|n| lease(segment, n))
            .chain([router(segment)])
            .collect(),
        routes: vec![Route {
            to,
            via: Ipv4Addr::new(172, 30, segment, 2),
        }],
        hosts: (1..=3)
            .map(|n| lease(other, n))
            .map(|lease| Host {
                name: lease.host_name,
                address: lease.address,
            })
            .collect(),
        ..example()
    };
    NetworkPlan {
        segments: vec![segment(0, subnet(1), 1), segment(1, everywhere, 0)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_whatever_their_case() {
        let plan = example();
        assert_eq!(plan.resolve("NODE2"), Some(Ipv4Addr::new(172, 30, 0, 12)));
        assert_eq!(plan.resolve("Outside.Test"), Some(plan.outside));
        assert_eq!(plan.resolve("node4"), None);
    }

    #[test]
    fn hosts_of_another_segment_have_names_too() {
        let network = routed_example();
        assert_eq!(network.check(), Ok(()));
        let second = &network.segments[1];
        assert_eq!(second.resolve("node1"), Some(Ipv4Addr::new(172, 30, 0, 11)));
        assert_eq!(second.resolve("node4"), Some(Ipv4Addr::new(172, 30, 1, 11)));
    }

    #[test]
    fn contradictions_between_segments_are_named() {
        let message = |change: fn(&mut NetworkPlan)| {
            let mut plan = routed_example();
            change(&mut plan);
            plan.check().unwrap_err().to_string()
        };
        insta::assert_snapshot!(message(|plan| plan.segments.clear()), @"a switch needs a segment");
        insta::assert_snapshot!(message(|plan| plan.segments[0].subnet.prefix = 16), @"the segments 172.30.0.0/16 and 172.30.1.0/24 overlap: no machine would know on which an address is");
        insta::assert_snapshot!(message(|plan| plan.segments[0].routes[0].via = Ipv4Addr::new(172, 30, 1, 2)), @"the address 172.30.1.2 of the router to 172.30.1.0/24 is not in the segment's subnet 172.30.0.0/24");
        insta::assert_snapshot!(message(|plan| plan.segments[0].hosts[0].name = "node2".into()), @"node2 is given twice; every host of a segment needs its own");
    }

    #[test]
    fn contradictions_are_named() {
        let message = |change: fn(&mut SegmentPlan)| {
            let mut plan = example();
            change(&mut plan);
            plan.check()
                .map_or_else(|error| error.to_string(), |()| "none".to_owned())
        };
        insta::assert_snapshot!(message(|_| ()), @"none");
        insta::assert_snapshot!(message(|plan| plan.leases[0].address = Ipv4Addr::new(172, 31, 0, 11)), @"the address 172.31.0.11 of node1 is not in the segment's subnet 172.30.0.0/24");
        insta::assert_snapshot!(message(|plan| plan.leases[0].mac.0[0] = 1), @"the Ethernet address 01:54:00:00:01:01 of node1 is a group address; the first octet must be even");
        insta::assert_snapshot!(message(|plan| plan.leases[1].mac = plan.leases[0].mac), @"52:54:00:00:01:01 is given twice; every host of a segment needs its own");
        insta::assert_snapshot!(message(|plan| plan.leases[1].host_name = "Node1".to_owned()), @"node1 is given twice; every host of a segment needs its own");
        insta::assert_snapshot!(message(|plan| plan.outside = Ipv4Addr::new(172, 30, 0, 99)), @"the outside host 172.30.0.99 is within the segment's subnet 172.30.0.0/24: machines would look for it on the segment");
    }
}
