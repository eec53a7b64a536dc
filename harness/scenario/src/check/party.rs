//! Who asks and answers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::slice;

use podwire_cluster::{Family, addresses};

use crate::check::failure::{Cause, Failure};
use crate::check::pairs::End;

/// Where wrong addresses come from.
pub(crate) const LOOK_AT_CNI: &str =
    "the CNI files of the nodes (/etc/cni/net.d): whose `subnet` is it?";

/// Who asks or answers: a Node, or a Pod on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// The Pod's name, or the Node's.
    pub name: String,
    /// Number of the node that it is on, from 1.
    pub node: u32,
    /// Whether it is a Pod with an address of its own.
    pub pod: bool,
    /// Its own IPv4 address.
    pub address: Ipv4Addr,
    /// Its own IPv6 address, where the cluster is dual-stack.
    pub ipv6: Option<Ipv6Addr>,
    /// By which of them it asks and is asked.
    pub family: Family,
}

impl Party {
    /// One that asks and is asked by IPv4.
    pub fn new(
        name: impl Into<String>,
        node: u32,
        pod: bool,
        address: impl Into<Ipv4Addr>,
    ) -> Self {
        Self {
            name: name.into(),
            node,
            pod,
            address: address.into(),
            ipv6: None,
            family: Family::Ipv4,
        }
    }

    /// The same with an IPv6 address beside its other one.
    #[must_use]
    pub fn with_ipv6(self, ipv6: Option<Ipv6Addr>) -> Self {
        Self { ipv6, ..self }
    }

    /// The same, as it asks and is asked by a family.
    ///
    /// # Errors
    /// A [`Failure`] when it has no address of that.
    pub fn by(&self, family: Family) -> Result<Self, Failure> {
        if family == Family::Ipv6 && self.ipv6.is_none() {
            let expected = format!("{} to have an IPv6 address", self.name);
            let seen = format!("{self} has none");
            return Err(Failure::new(Cause::Absent, expected, seen).look(LOOK_AT_CNI));
        }
        Ok(Self {
            family,
            ..self.clone()
        })
    }

    /// The address by which it asks and is asked.
    pub fn ip(&self) -> IpAddr {
        match (self.family, self.ipv6) {
            (Family::Ipv6, Some(address)) => address.into(),
            _ => self.address.into(),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pod {
            write!(f, "{} ({} on node{})", self.name, self.ip(), self.node)
        } else {
            write!(f, "{} ({})", self.name, self.ip())
        }
    }
}

/// One of them is a list as well: `ask.all_answered_by(&pod, ..)`.
impl AsRef<[Party]> for Party {
    fn as_ref(&self) -> &[Party] {
        slice::from_ref(self)
    }
}

impl From<&Party> for Party {
    fn from(party: &Party) -> Self {
        party.clone()
    }
}

impl From<&Party> for End {
    fn from(party: &Party) -> Self {
        Self {
            node: Some(party.node),
            name: party.name.clone(),
            address: Some(party.ip()),
        }
    }
}

/// Who sends requests: a Node or a Pod, or the nodes' router, which is no part of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asker {
    /// One of the cluster's.
    Inside(Party),
    /// The client of [`Outside::ask`](crate::Outside::ask).
    Outside,
}

impl Asker {
    /// As an end of requests.
    pub(crate) fn end(&self) -> End {
        match self {
            Self::Inside(party) => End::from(party),
            Self::Outside => End {
                node: None,
                name: "outside".to_owned(),
                address: Some(addresses::GATEWAY.into()),
            },
        }
    }
}

impl From<&Party> for Asker {
    fn from(party: &Party) -> Self {
        Self::Inside(party.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_cluster::IpFamilies;

    #[test]
    fn a_party_is_known_by_its_address_of_a_family_or_said_to_have_none() {
        let one = Party::new("a", 1, true, [10, 1, 1, 2]);
        let lacks = one.by(Family::Ipv6).unwrap_err();
        assert_eq!(lacks.cause, Cause::Absent);
        insta::assert_snapshot!(lacks.seen, @"a (10.1.1.2 on node1) has none");
        let both = one.with_ipv6(Some("fd00:10:1:1::2".parse().unwrap()));
        let shown = IpFamilies::Dual.each().iter();
        let shown: Vec<String> = shown.map(|it| both.by(*it).unwrap().to_string()).collect();
        insta::assert_snapshot!(shown.join(", "), @"a (10.1.1.2 on node1), a (fd00:10:1:1::2 on node1)");
        assert_eq!(both.by(Family::Ipv6).unwrap().by(Family::Ipv4), Ok(both));
    }
}
