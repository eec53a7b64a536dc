//! What a dual-stack cluster has beside IPv4, and how a node loses it.

use anyhow::Context as _;
use ipnet::Ipv6Net;
use podwire_cluster::{PodNetwork, ProxyMode, pod_range_v6};

use crate::lab::node::Node;

impl Node<'_> {
    /// The IPv6 range of its Pods: with routes by hand its own, else the one that its Node has been given.
    ///
    /// # Errors
    /// When it has no Node, or none with such a range.
    pub async fn range_of_pods_v6(self) -> anyhow::Result<Ipv6Net> {
        if self.lab().pod_network() == PodNetwork::Routes {
            return Ok(pod_range_v6(self.number()));
        }
        let listed = self.listed().await?;
        let ranges = listed.iter().flat_map(|node| node.pod_ranges());
        let range = ranges.filter_map(|it| it.parse().ok()).next();
        range.with_context(|| format!("{self} has no IPv6 range for its Pods"))
    }

    /// Loses its IPv6 route to the Pods of another node; the IPv4 one stays.
    ///
    /// # Errors
    /// When it has none.
    pub async fn lose_ipv6_route_to_pods_of(self, other: Node<'_>) -> anyhow::Result<()> {
        let range = other.range_of_pods_v6().await?;
        self.lab().step(format!(
            "{self} loses its IPv6 route to {range}, {other}'s Pods"
        ));
        self.run(format!("ip -6 route delete {range}")).await?;
        Ok(())
    }

    /// Forwards nothing by IPv6 from now on (ip-sysctl, `conf/all/forwarding`).
    ///
    /// # Errors
    /// When it does not carry it out.
    pub async fn forward_no_ipv6(self) -> anyhow::Result<()> {
        self.lab().step(format!("{self} forwards nothing by IPv6"));
        self.run("sysctl -q -w net.ipv6.conf.all.forwarding=0")
            .await?;
        Ok(())
    }

    /// Loses what its kube-proxy has written for IPv6; what it has for IPv4 stays.
    ///
    /// # Errors
    /// When it has nothing.
    pub async fn lose_ipv6_rules_of_kube_proxy(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("{self} loses kube-proxy's rules for IPv6"));
        self.run(match self.lab().kube_proxy_mode() {
            ProxyMode::Nftables => "nft delete table ip6 kube-proxy",
            ProxyMode::Iptables => "ip6tables -t nat -F KUBE-SERVICES",
        })
        .await?;
        Ok(())
    }
}
