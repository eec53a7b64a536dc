//! The router of a cluster whose nodes do not share a segment.

use std::time::Duration;

use anyhow::{Context as _, bail};
use podwire_cluster::addresses;
use podwire_vm::Output;

use crate::lab::Lab;
use crate::lab::node::Node;

/// What an ordinary command may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What leads from one segment to the other, where nodes are laid out so; a machine with a card on each
/// that forwards, and runs nothing of Kubernetes.
#[derive(Clone, Copy)]
pub struct Router<'lab> {
    lab: &'lab Lab,
}

impl Lab {
    /// The router between the segments of a cluster that is laid out
    /// [`Routed`](podwire_cluster::Layout::Routed); no other has one.
    pub fn router(&self) -> Router<'_> {
        Router { lab: self }
    }
}

impl Router<'_> {
    /// Forwards nothing from now on (ip-sysctl, `ip_forward`).
    ///
    /// # Errors
    /// When it does not carry it out, or there is none.
    pub async fn forward_nothing(self) -> anyhow::Result<()> {
        self.lab.step("the router forwards nothing");
        let command = "echo 0 >/proc/sys/net/ipv4/ip_forward";
        self.run(command).await.map(drop)
    }

    /// Answers ARP's questions for whatever it knows a way to on another card (ip-sysctl, `proxy_arp`).
    ///
    /// # Errors
    /// As [`Router::forward_nothing`].
    pub async fn answer_for_others(self) -> anyhow::Result<()> {
        self.lab
            .step("the router answers ARP for the other segment's machines");
        let command = "echo 1 >/proc/sys/net/ipv4/conf/all/proxy_arp";
        self.run(command).await.map(drop)
    }

    /// Deletes its route to a node's Pods, of a network by hand.
    ///
    /// # Errors
    /// As [`Router::forward_nothing`].
    pub async fn delete_route_to(self, to: Node<'_>) -> anyhow::Result<()> {
        self.lab
            .step(format!("delete the router's route to {to}'s Pods"));
        let command = format!("ip route delete {}", to.pod_range());
        self.run(&command).await.map(drop)
    }

    /// Lets nodes reach each other, and neither Pods nor VXLAN through, as a cloud's rules do that nobody
    /// has told of a Pod network.
    ///
    /// # Errors
    /// As [`Router::forward_nothing`].
    pub async fn drop_pods_and_tunnels(self) -> anyhow::Result<()> {
        self.lab
            .step("the router lets neither Pods' packets nor VXLAN through");
        let pods = addresses::PODS;
        // The port of Linux's VXLAN, which flannel takes: 8472.
        let command = format!(
            "nft 'add table ip sabotage; \
             add chain ip sabotage it {{ type filter hook forward priority 0; }}; \
             add rule ip sabotage it ip saddr {pods} drop; \
             add rule ip sabotage it ip daddr {pods} drop; \
             add rule ip sabotage it udp dport 8472 drop'"
        );
        self.run(&command).await.map(drop)
    }

    /// Leads to every node's Pods, and every node leads there by way of it: what a network needs whose
    /// nodes know a way to their neighbours alone.
    ///
    /// # Errors
    /// As [`Router::forward_nothing`]; where the Pod network keeps its ranges to itself.
    pub async fn lead_to_all_pods(self) -> anyhow::Result<()> {
        self.lab
            .step("routes to the Pods of the other segment, by way of the router");
        let ranges = self.lab.cluster().pod_ranges().await?;
        let ranges = ranges.context("nobody says which node's Pods have which addresses")?;
        let layout = self.lab.layout();
        for (to, range) in ranges {
            let via = self.lab.node(to).address();
            self.run(&format!("ip route replace {range} via {via}"))
                .await?;
            let others = self.lab.nodes();
            let beyond = |it: &Node<'_>| layout.segment_of(it.number()) != layout.segment_of(to);
            for node in others.filter(beyond) {
                let via = layout.next_hop(node.number(), to);
                node.run(format!("ip route replace {range} via {via}"))
                    .await?;
            }
        }
        Ok(())
    }

    async fn run(self, command: &str) -> anyhow::Result<Output> {
        let router = self.lab.cluster().router();
        let router = router.context("the nodes share a segment: there is no router")?;
        let answer = router.run(command, self.lab.limit(LIMIT)).await?;
        if !answer.succeeded() {
            bail!("`{command}` on the router failed: {answer}");
        }
        Ok(answer)
    }
}
