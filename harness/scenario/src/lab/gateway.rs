//! What the segment's gateway saw: packets that nobody took, and a host outside.

use std::net::Ipv4Addr;

use podwire_cluster::addresses;
use podwire_lan::ContactProtocol;

use crate::lab::Lab;

/// What left the nodes by their default route and went nowhere.
pub struct Wire<'lab> {
    lab: &'lab Lab,
}

/// The host outside the cluster, which the gateway plays.
pub struct Outside<'lab> {
    lab: &'lab Lab,
}

impl Lab {
    /// The wire's end, where a packet without a route shows.
    pub fn wire(&self) -> Wire<'_> {
        Wire { lab: self }
    }

    /// The host outside the cluster.
    pub fn outside(&self) -> Outside<'_> {
        Outside { lab: self }
    }
}

impl Wire<'_> {
    /// How many packets to Pods and Services the gateway got, and dropped.
    pub fn dropped(&self) -> u64 {
        self.lab
            .cluster()
            .segment()
            .gateway()
            .counters()
            .dropped_unrouted
    }

    /// How many of them were for this address.
    pub fn dropped_for(&self, address: Ipv4Addr) -> u64 {
        let flows = self.lab.cluster().segment().gateway().dropped();
        let flows = flows.iter().filter(|flow| flow.destination == address);
        flows.map(|flow| flow.packets).sum()
    }
}

impl Outside<'_> {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        addresses::OUTSIDE
    }

    /// Its name in the DNS that nodes ask.
    pub fn name(&self) -> &'static str {
        addresses::OUTSIDE_NAME
    }

    /// How often it was contacted so from this address: echo requests, connections, datagrams. Questions
    /// to the gateway's DNS are counted here, too.
    pub fn contacts_from(&self, source: Ipv4Addr, protocol: ContactProtocol) -> u64 {
        let log = self.lab.cluster().segment().gateway().outside_log();
        let alike = log.iter().filter(|contact| contact.protocol == protocol);
        let own = alike.filter(|contact| contact.source == source);
        own.map(|contact| contact.count).sum()
    }

    /// Who contacted it, and how often, in one line.
    pub fn contacts(&self) -> String {
        let log = self.lab.cluster().segment().gateway().outside_log();
        let lines = log
            .iter()
            .map(|it| format!("{} {:?} x{}", it.source, it.protocol, it.count));
        lines.collect::<Vec<_>>().join(", ")
    }
}
