//! What a Pod network's daemon lays on a node for the Pods of another.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use podwire_cluster::{FlannelBackend, PodNetwork};
use podwire_lan::Ipv4Net;

use crate::check::failure::Cause;
use crate::lab::Lab;
use crate::lab::node::Node;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// The device of flannel's VXLAN.
const TUNNEL: &str = "flannel.1";
/// For a daemon to hear of a Node, and to lay what leads there.
const LAID: Duration = Duration::from_secs(30);

impl Lab {
    /// Waits until every node has what leads to every other's Pods, see [`Node::until_laid_for`].
    ///
    /// # Errors
    /// As [`Node::until_laid_for`] and [`Node::range_of_pods`].
    pub async fn until_laid_everywhere(&self) -> anyhow::Result<()> {
        for to in self.nodes() {
            let range = to.range_of_pods().await?;
            for on in self.nodes().filter(|on| on.number() != to.number()) {
                on.until_laid_for(to, range).await?;
            }
        }
        Ok(())
    }

    /// Waits until nobody else has anything that leads to the Pods of a node, whose range this was.
    ///
    /// # Errors
    /// As [`Node::until_nothing_laid_for`].
    pub async fn until_forgotten(&self, gone: Node<'_>, range: Ipv4Net) -> anyhow::Result<()> {
        for node in self.nodes().filter(|node| node.number() != gone.number()) {
            node.until_nothing_laid_for(gone, range).await?;
        }
        Ok(())
    }
}

impl Node<'_> {
    /// The range of its Pods: with routes by hand its own, else the one that its Node has been given.
    ///
    /// # Errors
    /// When it has no Node, or none with a range; where the Pod network keeps its ranges to itself.
    pub async fn range_of_pods(self) -> anyhow::Result<Ipv4Net> {
        let ranges = self.lab().cluster().pod_ranges().await?;
        let range = ranges.unwrap_or_default().get(&self.number()).copied();
        range.with_context(|| format!("{self} has no range for its Pods"))
    }

    /// What is laid on it for the Pods of another node, whose range this is, as ip(8) and bridge(8) show it:
    /// routes, and in flannel's tunnel neighbour and forwarding entries. The other may have left.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn laid_for(self, other: Node<'_>, range: Ipv4Net) -> anyhow::Result<Vec<String>> {
        let (front, address) = (front(range), other.address());
        let list = format!(
            "{{ ip -4 route; ip -4 neighbour show dev {TUNNEL}; bridge fdb show dev {TUNNEL}; }} \
             2>/dev/null | grep -F -e '{front}' -e 'dst {address}'; true"
        );
        let listed = self.run(list).await?;
        let lines = listed.text().lines();
        Ok(lines.map(|line| line.trim().to_owned()).collect())
    }

    /// Waits until its daemon has laid all that leads to another node's Pods, whose range this is: a route,
    /// and where flannel has a tunnel a neighbour and a forwarding entry with the hardware address that the
    /// other's end of it has now (flanneld may have made it anew).
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn until_laid_for(self, other: Node<'_>, range: Ipv4Net) -> anyhow::Result<()> {
        let expected = format!("what leads to {other}'s Pods on {self}");
        let network = self.lab().pod_network();
        let laid = self.lab().eventually(expected, LAID, async || {
            let laid = self.laid_for(other, range).await?;
            let end = match network {
                PodNetwork::Flannel(FlannelBackend::Vxlan) => Some(other.end_of_tunnel().await?),
                _ => None,
            };
            let lacks = lacking(&laid, range, other.address(), end.as_deref());
            let state = lacks.map(|lacks| format!("no {lacks}; there is {laid:?}"));
            let state = state.unwrap_or_default();
            Ok(Probe::when(lacks.is_none(), Cause::Absent, state).needs(self.needs_daemon()))
        });
        laid.await
    }

    /// The hardware address of its end of flannel's tunnel; empty while it has none.
    async fn end_of_tunnel(self) -> anyhow::Result<String> {
        let read = format!("cat /sys/class/net/{TUNNEL}/address 2>/dev/null; true");
        Ok(self.run(read).await?.text().to_owned())
    }

    /// Waits until nothing is laid on it for another node's Pods, whose range this is.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn until_nothing_laid_for(
        self,
        other: Node<'_>,
        range: Ipv4Net,
    ) -> anyhow::Result<()> {
        let expected = format!("nothing that leads to {other}'s Pods on {self}");
        let gone = self.lab().eventually(expected, LAID, async || {
            let left = self.laid_for(other, range).await?;
            let state = left.join("; ");
            Ok(Probe::when(left.is_empty(), Cause::Answered, state).needs(self.needs_daemon()))
        });
        gone.await
    }

    /// That what lays routes on it does so: flannel, or with routes by hand kube-router.
    fn needs_daemon(self) -> Needs {
        match self.lab().pod_network() {
            PodNetwork::Routes => self.needs_kube_router(),
            PodNetwork::Flannel(_) | PodNetwork::Published(_) | PodNetwork::Manifest => {
                self.needs_flannel()
            }
        }
    }

    /// That its flannel does what it is there for: what waits for it needs this.
    pub fn needs_flannel(self) -> Needs {
        Needs::Silence {
            node: self.number(),
            command: "grep -s -l '(flanneld) T ' /proc/[0-9]*/stat; true".to_owned(),
            means: "its flanneld is halted (SIGSTOP)".to_owned(),
        }
    }
}

/// What all addresses of a range of 256 begin with.
fn front(range: Ipv4Net) -> String {
    let [a, b, c, _] = range.address.octets();
    format!("{a}.{b}.{c}.")
}

/// What is missing of what leads to the Pods of a node with this range and address, whose end of a tunnel has
/// this hardware address, where there is a tunnel.
fn lacking(
    laid: &[String],
    range: Ipv4Net,
    address: Ipv4Addr,
    tunnel: Option<&str>,
) -> Option<&'static str> {
    let has = |words: &str| {
        let mut lines = laid.iter();
        lines.any(|line| format!("{line} ").starts_with(words))
    };
    let via = tunnel.map_or(address, |_| range.address);
    if !has(&format!("{range} via {via} ")) {
        return Some("route");
    }
    match tunnel {
        None => None,
        Some("") => Some("other end of the tunnel"),
        Some(end) if !has(&format!("{} lladdr {end} PERMANENT ", range.address)) => {
            Some("neighbour")
        }
        Some(end) => (!has(&format!("{end} dst {address} "))).then_some("forwarding entry"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_s_addresses_begin_alike() {
        assert_eq!(front("10.1.3.0/24".parse().unwrap()), "10.1.3.");
    }

    #[test]
    fn what_leads_to_a_node_s_pods_is_a_route_and_in_a_tunnel_two_entries() {
        let of = |tunnel: Option<&str>, lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            let range = "10.1.2.0/24".parse().unwrap();
            lacking(&lines, range, Ipv4Addr::new(172, 30, 0, 12), tunnel)
        };
        let vxlan = Some("1e:08:6f:2a:94:5f");
        let direct = "10.1.2.0/24 via 172.30.0.12 dev enp1s0";
        let route = "10.1.2.0/24 via 10.1.2.0 dev flannel.1 onlink";
        let neighbour = "10.1.2.0 lladdr 1e:08:6f:2a:94:5f PERMANENT";
        let forwarding = "1e:08:6f:2a:94:5f dst 172.30.0.12 self permanent";
        assert_eq!(of(None, &[direct]), None);
        assert_eq!(of(None, &[route]), Some("route"));
        assert_eq!(of(vxlan, &[route, neighbour, forwarding]), None);
        assert_eq!(of(vxlan, &[direct, neighbour, forwarding]), Some("route"));
        assert_eq!(of(vxlan, &[route, forwarding]), Some("neighbour"));
        let other = "1e:08:6f:2a:94:5f dst 172.30.0.123 self permanent";
        assert_eq!(
            of(vxlan, &[route, neighbour, other]),
            Some("forwarding entry")
        );
        let stale = "10.1.2.0 lladdr 1e:08:6f:2a:94:5f STALE";
        assert_eq!(of(vxlan, &[route, stale, forwarding]), Some("neighbour"));
        assert_eq!(of(vxlan, &[]), Some("route"));
        // The other has booted since.
        let (none, anew) = (Some(""), Some("d2:4c:01:90:11:02"));
        assert_eq!(
            of(none, &[route, neighbour, forwarding]),
            Some("other end of the tunnel")
        );
        assert_eq!(of(anew, &[route, neighbour, forwarding]), Some("neighbour"));
    }
}
