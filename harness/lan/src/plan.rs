//! What a segment is to look like, as data.

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

/// The segment's addresses and names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentPlan {
    /// The machines' subnet.
    pub subnet: Ipv4Net,
    /// The gateway's address in the subnet: default router, DHCP and DNS server.
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
        self.leases
            .iter()
            .find(|lease| lease.host_name.eq_ignore_ascii_case(name))
            .map(|lease| lease.address)
    }
}

/// A segment with three machines, for tests and for fuzzing.
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
