//! Faults of a node's data path, and the routes of a network by hand.

use podwire_cluster::{addresses, cni};
use podwire_lan::Ipv4Net;

use anyhow::Context as _;

use crate::lab::Lab;
use crate::lab::node::Node;

impl Lab {
    /// Adds all N x (N-1) routes.
    ///
    /// # Errors
    /// When a node does not carry it out.
    pub async fn add_all_routes(&self) -> anyhow::Result<()> {
        self.step("add the routes of every node to every other's Pods");
        Ok(self.cluster().add_all_routes().await?)
    }

    /// Starts kube-proxy on every node.
    ///
    /// # Errors
    /// When systemd refuses to start it.
    pub async fn start_kube_proxy(&self) -> anyhow::Result<()> {
        self.step("start kube-proxy on every node");
        Ok(self.cluster().start_kube_proxy().await?)
    }

    /// The addresses of a node's Pods, as nft(8) takes them: the node's range, or those of the
    /// workload's Pods where the Pod network keeps its ranges to itself.
    async fn addresses_of_pods(&self, node: Node<'_>) -> anyhow::Result<String> {
        if let Some(ranges) = self.cluster().pod_ranges().await? {
            let range = ranges.get(&node.number()).map(Ipv4Net::to_string);
            return range.with_context(|| format!("{node} has no range for its Pods"));
        }
        let own = self.pods().on(node).running().await?;
        let own: Vec<String> = own.iter().map(|pod| pod.address.to_string()).collect();
        Ok(format!("{{ {} }}", own.join(", ")))
    }
}

impl Node<'_> {
    /// `ip route replace 10.1.TO.0/24 via ADDRESS-OF-TO`, as the documents type it with `add`; one that
    /// is there stays.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn add_route_to(self, to: u32) -> anyhow::Result<()> {
        self.lab()
            .step(format!("add the route to node{to}'s Pods on {self}"));
        Ok(self.lab().cluster().add_route(self.number(), to).await?)
    }

    /// Deletes that route.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn delete_route_to(self, to: u32) -> anyhow::Result<()> {
        self.lab()
            .step(format!("delete the route to node{to}'s Pods on {self}"));
        Ok(self.lab().cluster().delete_route(self.number(), to).await?)
    }

    /// Takes away the rule that hides its Pods from the outside (C11's ipMasq).
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn remove_masquerade(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("take the masquerade rule off {self}"));
        self.run(cni::REMOVE_MASQUERADE).await?;
        Ok(())
    }

    /// Hides its Pods from other nodes as well, as the bridge plugin's ipMasq=true does.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn masquerade_between_nodes(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("masquerade what leaves {self}'s Pods"));
        let own = self.lab().addresses_of_pods(self).await?;
        let rule = format!("ip saddr {own} ip daddr != {own} masquerade");
        self.add_rule("type nat hook postrouting priority 100", &rule)
            .await
    }

    /// Drops what it and its Pods send to the Pods of another, also within a tunnel.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn drop_what_goes_to_pods_of(self, other: Node<'_>) -> anyhow::Result<()> {
        self.lab()
            .step(format!("drop what {self} sends to {other}'s Pods"));
        let addresses = self.lab().addresses_of_pods(other).await?;
        let rule = format!("ip daddr {addresses} drop");
        self.add_rule("type filter hook postrouting priority 0", &rule)
            .await
    }

    /// Drops every request to a Pod's port 80 that it forwards: those of its own Pods to others, and
    /// those that come for them.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn drop_forwarded_requests(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("drop the requests to Pods that {self} forwards"));
        let rule = format!("ip daddr {} tcp dport 80 drop", addresses::PODS);
        self.add_rule("type filter hook forward priority 0", &rule)
            .await
    }

    /// Has what it sends to a node go to a third one first, by a wrong entry among its neighbours; the
    /// third hands it on, so that everybody answers.
    ///
    /// # Errors
    /// When one of the nodes does not carry it out.
    pub async fn send_by_a_detour(self, over: Node<'_>, to: Node<'_>) -> anyhow::Result<()> {
        self.lab()
            .step(format!("send what goes from {self} to {to} over {over}"));
        over.hand_on_half_connections(self).await?;
        let (address, wrong) = (to.address(), addresses::node_mac(over.number()));
        let card = format!("$(ip -o route get {address} | sed -n 's/.* dev \\([^ ]*\\) .*/\\1/p')");
        self.run(format!(
            "ip neighbour replace {address} lladdr {wrong} nud permanent dev {card}"
        ))
        .await?;
        Ok(())
    }

    /// Has what it sends to a node's Pods go to a third one first, by its routes; the third hands it on,
    /// so that everybody answers.
    ///
    /// # Errors
    /// When one of the nodes does not carry it out.
    pub async fn route_by_a_detour(self, over: Node<'_>, to: Node<'_>) -> anyhow::Result<()> {
        self.lab().step(format!(
            "route what goes from {self} to {to}'s Pods over {over}"
        ));
        over.hand_on_half_connections(self).await?;
        let ranges = self.lab().cluster().pod_ranges().await?;
        let range = ranges.and_then(|ranges| ranges.get(&to.number()).copied());
        let targets = match range {
            Some(range) => vec![range.to_string()],
            None => {
                let pods = self.lab().pods().on(to).running().await?;
                pods.iter().map(|pod| pod.address.to_string()).collect()
            }
        };
        for target in targets {
            self.run(format!("ip route replace {target} via {}", over.address()))
                .await?;
        }
        Ok(())
    }

    /// Hands on what another sends over it, although it sees one direction of each connection only: to
    /// the kernel's connection tracking that is invalid, and kube-proxy's rules drop it.
    async fn hand_on_half_connections(self, of: Node<'_>) -> anyhow::Result<()> {
        let own = self.lab().addresses_of_pods(self).await?;
        let rule = format!(
            "ether saddr {} ip daddr != {} ip daddr != {own} notrack",
            addresses::node_mac(of.number()),
            self.address()
        );
        self.add_rule("type filter hook prerouting priority raw", &rule)
            .await
    }

    /// Loses the first packet of each connection to one of its Pods' port 80, once it has come.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn lose_first_packets(self) -> anyhow::Result<()> {
        self.lab().step(format!(
            "lose the first packet of each connection to {self}'s Pods"
        ));
        let own = self.lab().addresses_of_pods(self).await?;
        let rules = format!(
            "nft 'add table ip sabotage; \
             add set ip sabotage seen {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 1m; }}; \
             add chain ip sabotage it {{ type filter hook prerouting priority raw; }}; \
             add rule ip sabotage it ip daddr {own} tcp dport 80 tcp flags & (syn | ack) == syn \
             ip saddr . tcp sport != @seen add @seen {{ ip saddr . tcp sport }} drop'"
        );
        self.run(rules).await?;
        Ok(())
    }

    /// Adds a rule of nft(8) at a hook of the kernel, before or beside everybody else's: `type filter
    /// hook forward priority 0`, `ip daddr 10.1.2.2 drop`.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn add_rule(self, chain: &str, rule: &str) -> anyhow::Result<()> {
        let rules = format!(
            "nft 'add table ip sabotage; \
             add chain ip sabotage it {{ {chain}; }}; \
             add rule ip sabotage it {rule}'"
        );
        self.run(rules).await?;
        Ok(())
    }
}
