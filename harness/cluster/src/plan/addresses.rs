//! Who has which address and name. Fixed: clusters with the same addresses run side by side,
//! because each has a segment of its own.

use std::net::Ipv4Addr;

use podwire_lan::{Ipv4Net, Lease, MacAddr, SegmentPlan};

/// The nodes' subnet: that of the first segment.
pub const SEGMENT: Ipv4Net = net([172, 30, 0, 0], 24);
/// That of the second one, where there is one.
pub const SECOND_SEGMENT: Ipv4Net = net([172, 30, 1, 0], 24);
/// Every address there is.
pub(crate) const EVERYWHERE: Ipv4Net = net([0, 0, 0, 0], 0);
/// The name of the machine between the segments.
pub const ROUTER: &str = "router";
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

/// The API server's address: node 1 is on the first segment, however the nodes are laid out.
pub fn api_address() -> Ipv4Addr {
    node_address_on(0, 1)
}

/// `172.30.0.(10+N)` on the first segment, `172.30.1.(10+N)` on the second.
pub(crate) fn node_address_on(segment: usize, number: u32) -> Ipv4Addr {
    on_segment(segment, 10 + octet(number))
}

/// The address on the segment with an index that ends with this octet.
pub(crate) fn on_segment(index: usize, last: u8) -> Ipv4Addr {
    let subnet = if index == 0 { SEGMENT } else { SECOND_SEGMENT };
    let [a, b, c, _] = subnet.address.octets();
    Ipv4Addr::new(a, b, c, last)
}

/// The gateway's addresses on the segment with an index.
pub(crate) fn gateway_on(index: usize) -> (Ipv4Addr, MacAddr) {
    let MacAddr([a, b, c, d, e, last]) = GATEWAY_MAC;
    let [.., octet] = GATEWAY.octets();
    let mac = MacAddr([a, b, c, d, e, last + u8::from(index > 0)]);
    (on_segment(index, octet), mac)
}

/// The port of a node's second card: `node2-2`.
pub(crate) fn second_port(node: u32) -> String {
    format!("{}-2", node_name(node))
}

/// `52:54:00:00:03:NN`.
pub(crate) fn second_mac(node: u32) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 3, octet(node)])
}

/// The router's port on the segment with an index: `router-1`.
pub fn router_port(segment: usize) -> String {
    format!("{ROUTER}-{}", segment + 1)
}

/// The Ethernet address of a node or the router at a port.
pub fn mac_at(port: &str) -> Option<MacAddr> {
    let segments = [0, 1].into_iter();
    let mut routers = segments.filter(|segment| router_port(*segment) == port);
    let router = routers.next().map(router_mac);
    node_number(port).map(node_mac).or(router)
}

/// `52:54:00:00:02:01` on the first segment, `:02` on the second.
pub(crate) fn router_mac(segment: usize) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 2, 1 + u8::from(segment > 0)])
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
        api_address().to_string(),
        KUBERNETES_SERVICE.to_string(),
        Ipv4Addr::LOCALHOST.to_string(),
    ];
    service.chain(dialled).collect()
}

/// The Service's names: only workloads would use them, no component dials them.
pub(crate) const SERVICE_NAMES: [&str; 3] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// A segment with these machines.
pub(crate) fn segment_plan(
    subnet: Ipv4Net,
    (gateway, gateway_mac): (Ipv4Addr, MacAddr),
    leases: Vec<Lease>,
) -> SegmentPlan {
    SegmentPlan {
        subnet,
        gateway,
        gateway_mac,
        leases,
        outside: OUTSIDE,
        outside_name: OUTSIDE_NAME.to_owned(),
        unrouted: vec![PODS, SERVICES],
        routes: Vec::new(),
        is_apart: false,
        hosts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_its_number_everywhere() {
        let all = format!("{} {} {}", node_name(3), node_mac(3), pod_range(3));
        insta::assert_snapshot!(all, @"node3 52:54:00:00:01:03 10.1.3.0/24");
        assert_eq!(node_number("node3"), Some(3));
        assert_eq!(node_number("node0"), None);
        assert_eq!(node_number("gateway"), None);
    }
}
