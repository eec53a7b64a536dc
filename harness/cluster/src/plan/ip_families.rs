//! Which families of IP a cluster has, and its addresses of the second one.
//!
//! They have the digits of their IPv4 neighbours: node 12 is `172.30.0.22` and `fd00:172:30::22`. All are
//! unique local ones (RFC 4193).

use std::fmt;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use super::addresses::MAX_NODES;

/// Which families of IP nodes, Pods and Services have addresses of.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum IpFamilies {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// Both, IPv4 first (Kubernetes docs, "IPv4/IPv6 dual-stack").
    Dual,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// The first one of every cluster.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// The second one of a dual-stack cluster.
    #[serde(rename = "IPv6")]
    Ipv6,
}

/// As Kubernetes writes it in `spec.ipFamilies` of a Service.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl IpFamilies {
    /// Both kinds of clusters.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Dual];

    /// Whether it is the usual one.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(crate) fn is_ipv4(&self) -> bool {
        *self == Self::Ipv4
    }

    /// Whether there are two.
    pub fn is_dual(self) -> bool {
        self == Self::Dual
    }

    /// Those that there are, the first one first.
    pub fn each(self) -> &'static [Family] {
        match self {
            Self::Ipv4 => &[Family::Ipv4],
            Self::Dual => &[Family::Ipv4, Family::Ipv6],
        }
    }

    /// What a cluster has of the first family, and where it has two of the second as well, as Kubernetes'
    /// flags and files list them: `10.1.0.0/16,fd00:10:1::/48`.
    pub(crate) fn listed(self, first: impl fmt::Display, second: impl fmt::Display) -> String {
        match self {
            Self::Ipv4 => first.to_string(),
            Self::Dual => format!("{first},{second}"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Dual => "dual",
        }
    }
}

impl fmt::Display for IpFamilies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The nodes' IPv6 subnet. Nothing leads out of it.
pub(crate) const SEGMENT_V6: Ipv6Net = net([0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0], SUBNET);
/// All Pods: node N has `fd00:10:1:N::/64` of it, or what the controller manager gives it.
pub const PODS_V6: Ipv6Net = net([0xfd00, 0x10, 1, 0, 0, 0, 0, 0], 48);
/// All Services. The API server takes no more than 2^20 of them.
pub const SERVICES_V6: Ipv6Net = net([0xfd00, 0x10, 0, 0, 0, 0, 0, 0], 112);
/// Of a subnet (RFC 4291, 2.5.4), and of each node's Pods: the controller manager's own default.
const SUBNET: u8 = 64;

const fn net(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// The hexadecimal number that has the decimal digits of this one.
fn digits(number: u32) -> u16 {
    let number = number.min(10 + MAX_NODES);
    let [hundreds, tens, ones] = [number / 100, number / 10 % 10, number % 10];
    u16::try_from(hundreds * 0x100 + tens * 0x10 + ones).unwrap_or(u16::MAX)
}

/// `fd00:172:30::(10+N)`, in decimal digits.
pub fn node_address_v6(number: u32) -> Ipv6Addr {
    let mut segments = SEGMENT_V6.addr().segments();
    segments[7] = digits(10 + number.min(MAX_NODES));
    segments.into()
}

/// `fd00:10:1:N::/64`, in decimal digits.
pub fn pod_range_v6(number: u32) -> Ipv6Net {
    let mut segments = PODS_V6.addr().segments();
    segments[3] = digits(number.min(MAX_NODES));
    net(segments, SUBNET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::addresses::{node_address_on, pod_range};

    #[test]
    fn each_is_found_by_the_name_it_shows_and_serialises_to() {
        for each in IpFamilies::ALL {
            assert_eq!(each.to_string().parse(), Ok(each));
            assert_eq!(serde_json::to_value(each).unwrap(), each.to_string());
        }
        for each in IpFamilies::Dual.each() {
            assert_eq!(serde_json::to_value(each).unwrap(), each.to_string());
        }
    }

    #[test]
    fn a_node_has_the_same_digits_in_both_families() {
        let of = |number| {
            let nodes = (node_address_on(0, number), node_address_v6(number));
            let pods = (pod_range(number), pod_range_v6(number));
            format!("{} {} {} {}", nodes.0, nodes.1, pods.0, pods.1)
        };
        insta::assert_snapshot!(of(2), @"172.30.0.12 fd00:172:30::12 10.1.2.0/24 fd00:10:1:2::/64");
        insta::assert_snapshot!(of(MAX_NODES), @"172.30.0.210 fd00:172:30::210 10.1.200.0/24 fd00:10:1:200::/64");
    }

    #[test]
    fn no_range_is_part_of_another() {
        let all = [SEGMENT_V6, PODS_V6, SERVICES_V6];
        for one in all {
            for other in all {
                assert_eq!(one.contains(&other), one == other, "{one} {other}");
            }
        }
        for number in [1, MAX_NODES] {
            assert!(SEGMENT_V6.contains(&node_address_v6(number)));
            assert!(PODS_V6.contains(&pod_range_v6(number)));
        }
    }
}
