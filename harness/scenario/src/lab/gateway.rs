//! The host outside the cluster, which the segment's gateway plays.

use std::net::Ipv4Addr;

use podwire_cluster::addresses;
use podwire_lan::ContactProtocol;

use crate::lab::Lab;

/// The host outside the cluster, which the gateway plays.
pub struct Outside<'lab> {
    lab: &'lab Lab,
}

impl Lab {
    /// The host outside the cluster.
    pub fn outside(&self) -> Outside<'_> {
        Outside { lab: self }
    }
}

impl Outside<'_> {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        addresses::OUTSIDE
    }

    /// How many echo requests it got from this address.
    pub fn pings_from(&self, source: Ipv4Addr) -> u64 {
        let log = self.lab.cluster().segment().gateway().outside_log();
        let pings = log
            .iter()
            .filter(|contact| contact.protocol == ContactProtocol::Icmp);
        let own = pings.filter(|contact| contact.source == source);
        own.map(|contact| contact.count).sum()
    }

    /// Who contacted it, and how often, in one line.
    pub fn contacts(&self) -> String {
        let log = self.lab.cluster().segment().gateway().outside_log();
        let lines = log.iter().map(|it| format!("{} x{}", it.source, it.count));
        lines.collect::<Vec<_>>().join(", ")
    }
}
