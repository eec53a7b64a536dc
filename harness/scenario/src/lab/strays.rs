//! Faults that no answer shows: everybody answers, and the wire carries what it should not.

use std::net::Ipv4Addr;

use crate::lab::node::Node;

impl Node<'_> {
    /// Has each connection to another node's Pods opened twice: the first packet has a sequence number
    /// of its own and comes to nothing over there, as if who sent it had forgotten it, and what is sent
    /// again a second later opens the connection.
    ///
    /// # Errors
    /// When one of the nodes does not carry it out.
    pub async fn opens_connections_twice(self, to: Node<'_>) -> anyhow::Result<()> {
        self.lab()
            .step(format!("{self} opens its connections to {to}'s Pods twice"));
        let syn = "tcp dport 80 tcp flags & (syn | ack) == syn";
        let lost = format!("{syn} tcp sequence 1 drop");
        to.add_rule("type filter hook prerouting priority raw", &lost)
            .await?;
        let pods = self.lab().addresses_of_pods(to).await?;
        // Behind connection tracking, which so knows of one attempt alone.
        let rules = format!(
            "nft 'add table ip sabotage; \
             add set ip sabotage seen {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 1m; }}; \
             add chain ip sabotage it {{ type filter hook postrouting priority 300; }}; \
             add rule ip sabotage it ip daddr {pods} {syn} ip saddr . tcp sport != @seen \
             add @seen {{ ip saddr . tcp sport }} tcp sequence set 1'"
        );
        self.run(rules).await?;
        Ok(())
    }

    /// Sends a copy of what goes between its own Pods to another node, which drops it.
    ///
    /// # Errors
    /// When one of the nodes does not carry it out.
    pub async fn shows_another_what_stays_here(self, other: Node<'_>) -> anyhow::Result<()> {
        self.lab().step(format!(
            "{self} sends {other} a copy of what goes between its own Pods"
        ));
        let own = self.lab().addresses_of_pods(self).await?;
        let between = format!("ip saddr {own} ip daddr {own}");
        let chain = "type filter hook prerouting priority raw";
        other.add_rule(chain, &format!("{between} drop")).await?;
        let card = self.device_to(other.address()).await?;
        let copy = format!("{between} dup to {} device {card}", other.address());
        self.add_rule(chain, &copy).await
    }

    /// Goes on asking for a Service's address, past kube-proxy's rules: nobody translates that, and it
    /// goes to the gateway.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn asks_past_its_rules(self, service: Ipv4Addr) -> anyhow::Result<()> {
        self.lab().step(format!(
            "{self} asks for {service}, past kube-proxy's rules"
        ));
        let past = format!("ip daddr {service} notrack");
        self.add_rule("type filter hook output priority raw", &past)
            .await?;
        let ask = format!("systemd-run --quiet --collect ping -q -i 0.02 {service}");
        self.run(ask).await?;
        Ok(())
    }
}
