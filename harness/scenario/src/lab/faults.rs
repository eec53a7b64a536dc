//! Faults of a node's data path, and the routes of a network by hand.

use std::net::Ipv4Addr;

use podwire_cluster::{addresses, cni};
use podwire_lan::{Ipv4Net, MacAddr};

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
    pub(super) async fn addresses_of_pods(&self, node: Node<'_>) -> anyhow::Result<String> {
        if let Some(ranges) = self.cluster().pod_ranges().await? {
            let range = ranges.get(&node.number()).map(Ipv4Net::to_string);
            return range.with_context(|| format!("{node} has no range for its Pods"));
        }
        self.running_pods(node).await
    }

    /// The addresses of a node's running Pods, as nft(8) takes them. A node's own may be of their range.
    async fn running_pods(&self, node: Node<'_>) -> anyhow::Result<String> {
        let own = self.pods().on(node).running().await?;
        let own: Vec<String> = own.iter().map(|pod| pod.address.to_string()).collect();
        Ok(format!("{{ {} }}", own.join(", ")))
    }
}

/// To Cilium's programs a Pod that reaches itself by a Service has this address (its option
/// `ipv4-service-loopback-address`); its packets pass no hook of the node.
const CILIUMS_LOOPBACK: &str = "169.254.42.1";
/// Around a set of nft(8).
const BRACES: [char; 2] = ['{', '}'];

/// An Ethernet address that no machine has: one of those that nobody is given (IEEE 802, locally
/// administered).
const NOBODYS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// The device in what `ip -o route get` says: letters, digits and what else Linux's own have in their
/// names.
fn device_in(route: &str) -> Option<String> {
    after("dev", route).map(str::to_owned)
}

/// The next hop, if there is one, and the device of a route that `ip route get` tells, as `ip route` takes them.
fn way_in(route: &str) -> Option<String> {
    let device = after("dev", route)?;
    Some(match after("via", route) {
        Some(hop) => format!("via {hop} dev {device} onlink"),
        None => format!("dev {device}"),
    })
}

/// What follows a word of `ip route get`, where no shell takes it for anything else.
fn after<'route>(word: &str, route: &'route str) -> Option<&'route str> {
    let mut words = route.split_whitespace().skip_while(|it| *it != word);
    let next = words.nth(1)?;
    let plain = |each: char| each.is_ascii_alphanumeric() || ".-_".contains(each);
    next.chars().all(plain).then_some(next)
}

/// The command that adds a rule at a hook of the kernel.
fn added(chain: &str, rule: &str) -> String {
    format!(
        "nft 'add table ip sabotage; \
         add chain ip sabotage it {{ {chain}; }}; \
         add rule ip sabotage it {rule}'"
    )
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

    /// Sends on what goes to this address, or comes from it, under the addresses that are in it: no rule
    /// translates what conntrack does not see (nft(8), "notrack").
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn leave_untranslated(self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.lab().step(format!(
            "{self} translates nothing that goes to {address} or comes from it"
        ));
        for direction in ["daddr", "saddr"] {
            let rule = format!("ip {direction} {address} notrack");
            self.add_rule("type filter hook prerouting priority -300", &rule)
                .await?;
        }
        Ok(())
    }

    /// Has what its Pods answer each other get past the kernel's rules, so that what went through a
    /// Service comes back untranslated (`bridge-nf-call-iptables`, bridge-netfilter of the kernel's
    /// docs); where no bridge carries its Pods' packets, these answers are dropped.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn lose_answers_between_its_pods(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("{self}'s Pods answer each other past the rules"));
        let bridges = self.run("ls -d /sys/class/net/*/bridge").may_fail().await?;
        if bridges.succeeded() {
            self.run("sysctl -w net.bridge.bridge-nf-call-iptables=0")
                .await?;
            return Ok(());
        }
        let own = self.lab().running_pods(self).await?;
        let rule = format!("ip saddr {own} ip daddr {own} tcp sport 80 drop");
        self.add_rule_in_its_pods("type filter hook output priority 0", &rule)
            .await
    }

    /// Gives no Pod of its own back what it has sent, as a bridge's port without hairpin mode does
    /// (bridge(8)); where no bridge carries its Pods' packets, rules drop them.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn forbid_hairpins(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("no Pod of {self} gets back what it has sent"));
        let ports = self.run("ls /sys/class/net/*/brport/hairpin_mode");
        if ports.may_fail().await?.succeeded() {
            self.run("for port in /sys/class/net/*/brport/hairpin_mode; do echo 0 > $port; done")
                .await?;
            return Ok(());
        }
        let own = self.lab().pods().on(self).running().await?;
        let own: Vec<String> = own
            .iter()
            .map(|pod| format!("{0} . {0}", pod.address))
            .collect();
        let rule = format!("ip saddr . ip daddr {{ {} }} drop", own.join(", "));
        self.add_rule("type filter hook forward priority 0", &rule)
            .await?;
        let rule = format!("ip saddr {CILIUMS_LOOPBACK} drop");
        self.add_rule_in_its_pods("type filter hook input priority 0", &rule)
            .await
    }

    /// Drops what it forwards to its own Pods when it is longer than so many octets, IP header
    /// included, and tells nobody: a hole in the path's MTU.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn drop_large_packets_to_its_pods(self, longest: u32) -> anyhow::Result<()> {
        self.lab().step(format!(
            "drop what is longer than {longest} octets on its way to {self}'s Pods"
        ));
        let own = self.lab().addresses_of_pods(self).await?;
        let rule = format!("ip daddr {own} ip length > {longest} drop");
        self.add_rule("type filter hook forward priority 0", &rule)
            .await
    }

    /// Drops what leaves it for another node or that node's Pods when it is longer than so many octets,
    /// IP header included, and tells nobody. Where a tunnel carries the Pods' packets these are the
    /// tunnel's.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn drop_large_packets_on_the_way_to(
        self,
        other: Node<'_>,
        longest: u32,
    ) -> anyhow::Result<()> {
        self.lab().step(format!(
            "drop what is longer than {longest} octets on its way from {self} to {other}"
        ));
        let card = self.device_to(other.address()).await?;
        let pods = self.lab().addresses_of_pods(other).await?;
        let there = format!("{{ {}, {} }}", other.address(), pods.trim_matches(BRACES));
        let rule = format!("oifname {card} ip daddr {there} ip length > {longest} drop");
        self.add_rule("type filter hook postrouting priority 0", &rule)
            .await
    }

    /// Has its routes to another node's Pods carry packets of so many octets, IP header included, and
    /// keeps from telling those who send longer ones (RFC 1191: "fragmentation needed"). A route, for a
    /// network's daemon gives a device's MTU to its Pods.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn hide_a_narrow_way_to_pods_of(
        self,
        other: Node<'_>,
        mtu: u32,
    ) -> anyhow::Result<()> {
        self.lab().step(format!(
            "{self}'s way to {other}'s Pods carries {mtu} octets, and {self} does not tell"
        ));
        self.add_rule(
            "type filter hook output priority 0",
            "icmp type destination-unreachable icmp code 4 drop",
        )
        .await?;
        for pod in self.lab().pods().on(other).running().await? {
            let way = self.route_to(pod.address, way_in).await?;
            // Locked, the route's MTU counts for what is forwarded too (ip-route(8)).
            self.run(format!(
                "ip route replace {} {way} mtu lock {mtu}",
                pod.address
            ))
            .await?;
        }
        Ok(())
    }

    /// The device by which it sends to an address.
    ///
    /// # Errors
    /// When it does not answer, or has no way there.
    pub async fn device_to(self, address: Ipv4Addr) -> anyhow::Result<String> {
        self.route_to(address, device_in).await
    }

    /// What a reader finds in its route to an address.
    async fn route_to(
        self,
        address: Ipv4Addr,
        read: fn(&str) -> Option<String>,
    ) -> anyhow::Result<String> {
        let route = self.run(format!("ip -o route get {address}")).await?;
        let found = read(route.text());
        found.with_context(|| format!("{self} names no device in {:?}", route.text()))
    }

    /// Drops every request to a Pod's port 80 that it forwards: those of its own Pods to others, and
    /// those that come for them. Pods have the addresses that no machine has, inside or outside, whatever
    /// the network's range.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn drop_forwarded_requests(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("drop the requests to Pods that {self} forwards"));
        let others = format!("{}, {}", addresses::SEGMENT, addresses::OUTSIDE);
        let rule = format!("ip daddr != {{ {others} }} tcp dport 80 drop");
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
        self.takes_for_neighbour(to.address(), addresses::node_mac(over.number()))
            .await
    }

    /// Has it believe for good that an address, on whatever device it is, has this Ethernet address.
    async fn takes_for_neighbour(self, address: Ipv4Addr, mac: MacAddr) -> anyhow::Result<()> {
        let device = self.device_to(address).await?;
        let entry = format!("{address} lladdr {mac} nud permanent dev {device}");
        self.run(format!("ip neighbour replace {entry}")).await?;
        Ok(())
    }

    /// Has it believe for good that an address, on whatever device it is, has an Ethernet address that
    /// no machine has: what it sends there is lost.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn takes_for_nobody(self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.takes_for_neighbour(address, NOBODYS).await
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
        let targets = match self.lab().pod_network().is_of_a_manifest() {
            false => vec![to.range_of_pods().await?.to_string()],
            // Its daemon may lay the route to a range again, and lays none to single Pods of other nodes.
            true => {
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
        self.lose_first_of("").await
    }

    /// The same of one connection in eight, by its client's port: whoever asks hundreds of times need not wait
    /// for a second packet each time.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn lose_some_first_packets(self) -> anyhow::Result<()> {
        self.lab().step(format!(
            "lose the first packet of one connection in eight to {self}'s Pods"
        ));
        self.lose_first_of("tcp sport & 7 == 0").await
    }

    async fn lose_first_of(self, connections: &str) -> anyhow::Result<()> {
        let own = self.lab().addresses_of_pods(self).await?;
        let rules = format!(
            "nft 'add table ip sabotage; \
             add set ip sabotage seen {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 1m; }}; \
             add chain ip sabotage it {{ type filter hook prerouting priority raw; }}; \
             add rule ip sabotage it ip daddr {own} tcp dport 80 {connections} tcp flags & (syn | ack) == syn \
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
        self.run(added(chain, rule)).await?;
        Ok(())
    }

    /// The same in the network namespace of each of its Pods, where every packet of a Pod passes, whatever carries it
    /// from there.
    async fn add_rule_in_its_pods(self, chain: &str, rule: &str) -> anyhow::Result<()> {
        let rules = format!(
            "pods=$(ip netns list | cut -d' ' -f1) && [ \"$pods\" ] && for pod in $pods; do \
             ip netns exec $pod {} || exit; done",
            added(chain, rule)
        );
        self.run(rules).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_names_its_device() {
        let of = |text: &str| device_in(text);
        let by_card = "10.1.2.2 via 172.30.0.12 dev enp1s0 src 172.30.0.11 uid 0 \\    cache";
        assert_eq!(of(by_card).as_deref(), Some("enp1s0"));
        let by_tunnel = "10.1.2.2 via 10.1.2.0 dev flannel.1 src 10.1.1.0 uid 0";
        assert_eq!(of(by_tunnel).as_deref(), Some("flannel.1"));
        assert_eq!(of("unreachable 10.1.2.2"), None);
        assert_eq!(of("10.1.2.2 dev"), None);
        assert_eq!(of("10.1.2.2 dev $(reboot)"), None);
    }

    #[test]
    fn a_way_is_a_next_hop_and_a_device() {
        let by_tunnel = "10.1.2.2 via 10.1.2.0 dev flannel.1 src 10.1.1.0 uid 0";
        assert_eq!(
            way_in(by_tunnel).as_deref(),
            Some("via 10.1.2.0 dev flannel.1 onlink")
        );
        assert_eq!(
            way_in("10.1.1.2 dev cali1 src 10.1.1.0").as_deref(),
            Some("dev cali1")
        );
        assert_eq!(way_in("unreachable 10.1.2.2"), None);
    }
}
