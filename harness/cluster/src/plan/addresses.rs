//! Who has which address and name. Fixed: clusters with the same addresses run side by side,
//! because each has a segment of its own.

use std::net::Ipv4Addr;

use podwire_lan::{Ipv4Net, Lease, MacAddr, SegmentPlan};

/// The nodes' subnet.
pub const SEGMENT: Ipv4Net = net([172, 30, 0, 0], 24);
/// The nodes' default router, name server and DHCP server: the harness itself.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// Its Ethernet address.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
/// A host outside the segment and the cluster (TEST-NET-1, RFC 5737).
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// Its DNS name.
pub const OUTSIDE_NAME: &str = "outside.test";
/// All Pods: node N has `10.1.N.0/24` of it.
pub const PODS: Ipv4Net = net([10, 1, 0, 0], 16);
/// All Services.
pub const SERVICES: Ipv4Net = net([10, 0, 0, 0], 24);
/// The Service `kubernetes`: the first address of the range, by the API server's own rule.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The name under which the components know the API server.
pub const API_NAME: &str = "node1";
/// The API server's port.
pub const API_PORT: u16 = 6443;
/// Node numbers go from 1 to this: the last octet of their addresses and of their Pod ranges.
pub const MAX_NODES: u32 = 200;

const fn net(address: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = address;
    Ipv4Net {
        address: Ipv4Addr::new(a, b, c, d),
        prefix,
    }
}

/// The number of a node as an octet; numbers beyond [`MAX_NODES`] are refused when a plan is made.
fn octet(number: u32) -> u8 {
    u8::try_from(number.min(MAX_NODES)).unwrap_or(u8::MAX)
}

/// `node1`, `node2`, ...: host name, DNS name and Node name.
pub fn node_name(number: u32) -> String {
    format!("node{number}")
}

/// The number in a node's name.
pub fn node_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("node")?.parse().ok()?;
    (1..=MAX_NODES).contains(&number).then_some(number)
}

/// `172.30.0.(10+N)`.
pub fn node_address(number: u32) -> Ipv4Addr {
    let [a, b, c, _] = SEGMENT.address.octets();
    Ipv4Addr::new(a, b, c, 10 + octet(number))
}

/// `52:54:00:00:01:NN`.
pub fn node_mac(number: u32) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 1, octet(number)])
}

/// `10.1.N.0/24`.
pub fn pod_range(number: u32) -> Ipv4Net {
    let [a, b, _, _] = PODS.address.octets();
    net([a, b, octet(number), 0], 24)
}

/// The names and addresses under which clients may verify the API server.
pub fn serving_names() -> Vec<String> {
    let service = SERVICE_NAMES.iter().map(|name| (*name).to_owned());
    let dialled = [
        "localhost".to_owned(),
        API_NAME.to_owned(),
        node_address(1).to_string(),
        KUBERNETES_SERVICE.to_string(),
        Ipv4Addr::LOCALHOST.to_string(),
    ];
    service.chain(dialled).collect()
}

/// The Service's names: only workloads would use them, no component dials them.
pub(crate) const SERVICE_NAMES: [&str; 3] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// The segment of a cluster with `nodes` machines.
pub fn segment(nodes: u32) -> SegmentPlan {
    let lease = |number| Lease {
        mac: node_mac(number),
        address: node_address(number),
        host_name: node_name(number),
    };
    SegmentPlan {
        subnet: SEGMENT,
        gateway: GATEWAY,
        gateway_mac: GATEWAY_MAC,
        leases: (1..=nodes).map(lease).collect(),
        outside: OUTSIDE,
        outside_name: OUTSIDE_NAME.to_owned(),
        unrouted: vec![PODS, SERVICES],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_its_number_everywhere() {
        let all = format!(
            "{} {} {} {}",
            node_name(3),
            node_address(3),
            node_mac(3),
            pod_range(3)
        );
        insta::assert_snapshot!(all, @"node3 172.30.0.13 52:54:00:00:01:03 10.1.3.0/24");
        assert_eq!(node_number("node3"), Some(3));
        assert_eq!(node_number("node0"), None);
        assert_eq!(node_number("gateway"), None);
    }

    #[test]
    fn the_segment_of_the_largest_cluster_makes_sense() {
        segment(MAX_NODES).check().unwrap();
    }
}
