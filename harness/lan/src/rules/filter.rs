//! What a cloud lets through to and from a machine: its own addresses.

use serde::{Deserialize, Serialize};

use super::headers::Headers;
use crate::frame::addresses;
use crate::{Ipv4Net, MacAddr};

/// Drops at a port what does not carry the machine's own address, as a cloud does: the source and
/// destination check of Amazon's VPC, the port security of OpenStack's Neutron.
///
/// The frame's own packet counts, whatever it carries inside. Frames that are neither IPv4 nor ARP
/// pass: IPv6, for one. The check comes before all [rules](crate::Rule).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressFilter {
    /// The port's name.
    pub port: String,
    /// What is the machine's own: its address as `/32`, and whatever else it may carry (Neutron's allowed
    /// address pairs).
    pub own: Vec<Ipv4Net>,
    /// In which direction.
    pub check: Check,
}

/// In which direction an [`AddressFilter`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// What the machine sends must come from an address of its own: IPv4's source, or ARP's sender. An
    /// unspecified one (0.0.0.0, of a machine that asks for its address) passes.
    Source,
    /// What the machine gets must be for an address of its own: IPv4's destination. ARP passes, and what
    /// is for a group of stations.
    Destination,
    /// Both of these.
    Both,
}

/// What an [`AddressFilter`] saw and dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterReport {
    /// The filter.
    pub filter: AddressFilter,
    /// Frames that it looked at.
    pub seen: u64,
    /// Frames from the machine that carried another's source.
    pub dropped_source: u64,
    /// Frames for the machine that were for another address.
    pub dropped_destination: u64,
}

impl FilterReport {
    pub(super) fn new(filter: AddressFilter) -> Self {
        FilterReport {
            filter,
            seen: 0,
            dropped_source: 0,
            dropped_destination: 0,
        }
    }

    /// Whether a frame from the machine goes on.
    pub(super) fn passes_from(&mut self, headers: &Headers) -> bool {
        if self.filter.check == Check::Destination {
            return true;
        }
        self.seen += 1;
        let ends = headers.outer.ipv4_ends();
        let passes = ends.is_none_or(|(source, _)| source.is_unspecified() || self.is_own(source));
        self.dropped_source += u64::from(!passes);
        passes
    }

    /// Whether a frame for the machine goes on.
    pub(super) fn passes_to(&mut self, headers: &Headers, frame: &[u8]) -> bool {
        if self.filter.check == Check::Source {
            return true;
        }
        self.seen += 1;
        let for_a_group = addresses(frame).is_some_and(|(station, _)| MacAddr::is_group(station));
        let ends = headers.outer.ipv4_ends();
        let passes = for_a_group
            || headers.outer.is_arp
            || ends.is_none_or(|(_, destination)| self.is_own(destination));
        self.dropped_destination += u64::from(!passes);
        passes
    }

    fn is_own(&self, address: std::net::Ipv4Addr) -> bool {
        self.filter.own.iter().any(|own| own.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers::tests::{udp, vxlan};
    use super::*;

    const NODE: [u8; 4] = [172, 30, 0, 11];
    const OTHER: [u8; 4] = [172, 30, 0, 12];
    const POD: [u8; 4] = [10, 1, 1, 2];
    const OTHER_POD: [u8; 4] = [10, 1, 2, 2];

    fn filter(check: Check) -> FilterReport {
        FilterReport::new(AddressFilter {
            port: "node1".to_owned(),
            own: vec!["172.30.0.11/32".parse().unwrap()],
            check,
        })
    }

    fn from(filter: &mut FilterReport, source: [u8; 4]) -> bool {
        filter.passes_from(&Headers::of(&udp(source, OTHER, (1, 2), b"")))
    }

    fn to(filter: &mut FilterReport, destination: [u8; 4]) -> bool {
        let frame = udp(OTHER, destination, (1, 2), b"");
        filter.passes_to(&Headers::of(&frame), &frame)
    }

    #[test]
    fn a_pod_s_address_passes_only_inside_a_tunnel() {
        let mut both = filter(Check::Both);
        assert!(from(&mut both, NODE));
        assert!(from(&mut both, [0; 4]));
        assert!(!from(&mut both, POD));
        assert!(to(&mut both, NODE));
        assert!(!to(&mut both, POD));
        let tunnelled = vxlan(8472, &udp(POD, OTHER_POD, (1, 2), b""));
        assert!(both.passes_from(&Headers::of(&tunnelled)));
        assert_eq!((both.dropped_source, both.dropped_destination), (1, 1));
        assert_eq!(both.seen, 6);
    }

    #[test]
    fn each_direction_is_checked_alone() {
        let mut source = filter(Check::Source);
        assert!(!from(&mut source, POD));
        assert!(to(&mut source, POD));
        let mut destination = filter(Check::Destination);
        assert!(from(&mut destination, POD));
        assert!(!to(&mut destination, POD));
    }

    #[test]
    fn groups_and_arp_reach_the_machine() {
        let mut filter = filter(Check::Destination);
        let mut broadcast = udp(OTHER, [255; 4], (67, 68), b"");
        broadcast[..6].fill(0xff);
        assert!(filter.passes_to(&Headers::of(&broadcast), &broadcast));
        let arp = super::super::headers::tests::arp(OTHER, POD);
        assert!(filter.passes_to(&Headers::of(&arp), &arp));
        assert!(filter.passes_from(&Headers::of(&arp)));
    }

    #[test]
    fn an_arp_sender_must_be_its_own() {
        let mut filter = filter(Check::Source);
        let arp = super::super::headers::tests::arp;
        assert!(filter.passes_from(&Headers::of(&arp(NODE, OTHER))));
        assert!(!filter.passes_from(&Headers::of(&arp(POD, OTHER))));
    }
}
