//! What the gateway remembers of the traffic it saw, for assertions.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Flows listed at most, so that a scan of a range does not fill memory.
const FLOWS: usize = 4096;

/// What reached the gateway since the segment started, in packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayCounters {
    /// ARP requests for the gateway that were answered.
    pub arp_answered: u64,
    /// ICMP echo requests answered, the outside host's included.
    pub icmp_answered: u64,
    /// DHCP messages answered.
    pub dhcp_answered: u64,
    /// DHCP messages from machines without a lease, to another server, or that need no answer.
    pub dhcp_ignored: u64,
    /// DNS queries answered, NXDOMAIN included.
    pub dns_answered: u64,
    /// TCP segments for the gateway or the outside host.
    pub tcp_segments: u64,
    /// Packets for a range of [`unrouted`](crate::SegmentPlan::unrouted), dropped.
    pub dropped_unrouted: u64,
    /// Packets for any other address beyond the gateway, dropped.
    pub dropped_elsewhere: u64,
    /// Fragments, which the gateway does not put together, dropped.
    pub dropped_fragments: u64,
    /// Packets that are not valid, dropped.
    pub dropped_malformed: u64,
    /// Dropped packets whose flow is not in [`GatewayHandle::dropped`](crate::GatewayHandle),
    /// because there are too many flows.
    pub dropped_unlisted: u64,
}

/// Why a packet was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// It is for a range that the plan names as unrouted: a machine lacks a route or a translation.
    Unrouted,
    /// It is for somewhere else; nothing is beyond the gateway but the outside host.
    Elsewhere,
}

/// Packets of one kind that a machine sent to the gateway to be forwarded, and that were dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedFlow {
    /// Where they came from.
    pub source: Ipv4Addr,
    /// Where they were to go.
    pub destination: Ipv4Addr,
    /// The IP protocol's number: 1 ICMP, 6 TCP, 17 UDP (IANA protocol numbers).
    pub protocol: u8,
    /// The destination port, of TCP and UDP.
    pub destination_port: Option<u16>,
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub packets: u64,
}

/// How somebody talked to the outside host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContactProtocol {
    /// ICMP echo.
    Icmp,
    /// A TCP connection that was accepted.
    Tcp,
    /// A UDP datagram that was answered.
    Udp,
    /// A question to the gateway's DNS, which is counted here as well.
    Dns,
}

/// Who talked to the outside host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideContact {
    /// The address the outside host sees.
    pub source: Ipv4Addr,
    /// How.
    pub protocol: ContactProtocol,
    /// Echo requests, connections, datagrams or questions.
    pub count: u64,
}

type FlowKey = (Ipv4Addr, Ipv4Addr, u8, Option<u16>, DropReason);

#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) counters: GatewayCounters,
    flows: HashMap<FlowKey, u64>,
    contacts: HashMap<(Ipv4Addr, ContactProtocol), u64>,
}

impl Records {
    pub(super) fn drop_flow(&mut self, flow: FlowKey) {
        match flow.4 {
            DropReason::Unrouted => self.counters.dropped_unrouted += 1,
            DropReason::Elsewhere => self.counters.dropped_elsewhere += 1,
        }
        if self.flows.len() < FLOWS || self.flows.contains_key(&flow) {
            *self.flows.entry(flow).or_default() += 1;
        } else {
            self.counters.dropped_unlisted += 1;
        }
    }

    pub(super) fn contact(&mut self, source: Ipv4Addr, protocol: ContactProtocol) {
        if self.contacts.len() < FLOWS || self.contacts.contains_key(&(source, protocol)) {
            *self.contacts.entry((source, protocol)).or_default() += 1;
        }
    }

    /// In the order of their addresses.
    pub(super) fn flows(&self) -> Vec<DroppedFlow> {
        let mut flows: Vec<_> = self.flows.iter().collect();
        flows.sort_unstable();
        flows
            .into_iter()
            .map(
                |(&(source, destination, protocol, destination_port, reason), &packets)| {
                    DroppedFlow {
                        source,
                        destination,
                        protocol,
                        destination_port,
                        reason,
                        packets,
                    }
                },
            )
            .collect()
    }

    /// In the order of their addresses.
    pub(super) fn contacts(&self) -> Vec<OutsideContact> {
        let mut contacts: Vec<_> = self.contacts.iter().collect();
        contacts.sort_unstable();
        contacts
            .into_iter()
            .map(|(&(source, protocol), &count)| OutsideContact {
                source,
                protocol,
                count,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_beyond_the_bound_are_counted_without_being_listed() {
        let mut records = Records::default();
        let flow = |port| {
            let source = Ipv4Addr::new(10, 1, 1, 2);
            let destination = Ipv4Addr::new(10, 1, 2, 2);
            (source, destination, 6, Some(port), DropReason::Unrouted)
        };
        for port in 0..5000 {
            records.drop_flow(flow(port));
        }
        records.drop_flow(flow(7));
        assert_eq!(records.flows().len(), FLOWS);
        assert_eq!(records.flows()[7].packets, 2);
        assert_eq!(records.counters.dropped_unrouted, 5001);
        assert_eq!(records.counters.dropped_unlisted, 5000 - FLOWS as u64);
    }
}
