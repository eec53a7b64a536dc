//! A tunnel between the nodes that is laid by hand, and the way past one.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use futures::future::try_join_all;
use podwire_lan::Ipv4Net;

use crate::lab::Lab;
use crate::lab::node::Node;

/// The tunnel's device on each node.
const DEVICE: &str = "vxlan42";
/// Its network identifier, and its port: IANA's, not Linux's older one (RFC 7348).
const NUMBER: u32 = 42;
const PORT: u16 = 4789;

/// A node's address in the tunnel, `10.2.0.(10+N)`.
fn inside(node: Node<'_>) -> Ipv4Addr {
    let [.., last] = node.address().octets();
    Ipv4Addr::new(10, 2, 0, last)
}

impl Lab {
    /// Lays a VXLAN between the nodes by hand (RFC 7348; ip-link(8), bridge(8)): a device with an address
    /// on each, which sends what it knows no way for to all others; and the routes to the others' Pods lead
    /// by it.
    ///
    /// # Errors
    /// When a node does not carry it out, or nobody says which node's Pods have which addresses.
    pub async fn lay_vxlan(&self) -> anyhow::Result<()> {
        self.step("lay a VXLAN between the nodes, and the routes to all Pods in it");
        let laid = self.nodes().map(Node::lay_its_end);
        try_join_all(laid).await.map(drop)
    }
}

impl Node<'_> {
    async fn lay_its_end(self) -> anyhow::Result<()> {
        let others = self.lab().nodes().filter(|it| it.number() != self.number());
        let mut ends = Vec::new();
        for other in others {
            ends.push((other.address(), inside(other), other.range_of_pods().await?));
        }
        let first = ends.first().context("there is no other node")?;
        let card = self.device_to(first.0).await?;
        let commands = its_end(&card, self.address(), inside(self), &ends);
        self.run(commands).await.map(drop)
    }

    /// Sends what is for another node's Pods past a tunnel that leads there: as it is, by way of the other
    /// node.
    ///
    /// # Errors
    /// When it does not carry it out, or nobody says which node's Pods have which addresses.
    pub async fn send_past_the_tunnel(self, to: Node<'_>) -> anyhow::Result<()> {
        self.lab().step(format!(
            "{self} sends what is for {to}'s Pods past the tunnel"
        ));
        let range = to.range_of_pods().await?;
        let route = format!("ip route replace {range} via {}", to.address());
        self.run(route).await.map(drop)
    }
}

/// What lays a node's end: of each other its address, that in the tunnel, and its Pods' range.
fn its_end(
    card: &str,
    own: Ipv4Addr,
    inside: Ipv4Addr,
    others: &[(Ipv4Addr, Ipv4Addr, Ipv4Net)],
) -> String {
    let mut commands = vec![
        format!(
            "ip link add {DEVICE} type vxlan id {NUMBER} dstport {PORT} local {own} dev {card}"
        ),
        format!("ip address add {inside}/24 dev {DEVICE}"),
        format!("ip link set {DEVICE} up"),
    ];
    for (address, inside, range) in others {
        commands.push(format!(
            "bridge fdb append 00:00:00:00:00:00 dev {DEVICE} dst {address}"
        ));
        commands.push(format!("ip route replace {range} via {inside}"));
    }
    commands.join(" && ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_end_is_laid_as_one_types_it() {
        let other = (
            Ipv4Addr::new(172, 30, 0, 12),
            Ipv4Addr::new(10, 2, 0, 12),
            "10.1.2.0/24".parse().unwrap(),
        );
        let (own, inside) = (Ipv4Addr::new(172, 30, 0, 11), Ipv4Addr::new(10, 2, 0, 11));
        let typed = its_end("enp1s0", own, inside, &[other]).replace(" && ", "\n");
        insta::assert_snapshot!(typed, @r"
        ip link add vxlan42 type vxlan id 42 dstport 4789 local 172.30.0.11 dev enp1s0
        ip address add 10.2.0.11/24 dev vxlan42
        ip link set vxlan42 up
        bridge fdb append 00:00:00:00:00:00 dev vxlan42 dst 172.30.0.12
        ip route replace 10.1.2.0/24 via 10.2.0.12
        ");
    }
}
