//! Link and network addresses as values that print, parse and serialise as people write them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet (EUI-48) address; prints and parses as `52:54:00:00:01:02`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address every station listens to.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Whether this addresses a group (the low bit of the first octet, IEEE 802-2014 section 8.2).
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || AddressError::Mac {
            text: text.to_owned(),
        };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        match parts.next() {
            None => Ok(MacAddr(octets)),
            Some(_) => Err(wrong()),
        }
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// An IPv4 range; prints and parses as `172.30.0.0/24`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Ipv4Net {
    /// Any address of the range.
    pub address: Ipv4Addr,
    /// Leading bits that all addresses of the range share, at most 32.
    pub prefix: u8,
}

impl Ipv4Net {
    /// The range's mask, `255.255.255.0` for a prefix of 24.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(
            u32::MAX
                .checked_shl(32 - u32::from(self.prefix.min(32)))
                .unwrap_or(0),
        )
    }

    /// Whether `address` is in the range.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.address & self.mask()
    }

    /// The range's last address, to which all its hosts listen.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        self.address | !self.mask()
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ipv4Net {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('/')
            .and_then(|(address, prefix)| {
                let prefix = prefix.parse().ok().filter(|&prefix| prefix <= 32)?;
                Some(Ipv4Net {
                    address: address.parse().ok()?,
                    prefix,
                })
            })
            .ok_or_else(|| AddressError::Net {
                text: text.to_owned(),
            })
    }
}

impl From<Ipv4Net> for String {
    fn from(net: Ipv4Net) -> String {
        net.to_string()
    }
}

impl TryFrom<String> for Ipv4Net {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A text is not an address of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an Ethernet address.
    #[error("{text:?} is not an Ethernet address; write it as 52:54:00:00:01:02")]
    Mac {
        /// What was given.
        text: String,
    },
    /// Not an IPv4 range.
    #[error("{text:?} is not an IPv4 range; write it as 172.30.0.0/24")]
    Net {
        /// What was given.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_contain_what_their_prefix_says() {
        let net: Ipv4Net = "10.1.0.0/16".parse().unwrap();
        assert!(net.contains(Ipv4Addr::new(10, 1, 255, 255)));
        assert!(!net.contains(Ipv4Addr::new(10, 2, 0, 0)));
        assert_eq!(net.mask(), Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(net.broadcast(), Ipv4Addr::new(10, 1, 255, 255));
        let all: Ipv4Net = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST));
        let one: Ipv4Net = "192.0.2.10/32".parse().unwrap();
        assert!(one.contains(Ipv4Addr::new(192, 0, 2, 10)));
        assert!(!one.contains(Ipv4Addr::new(192, 0, 2, 11)));
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in [
            "",
            "52:54",
            "52:54:00:00:00:0g",
            "52:54:00:00:00:01:02",
            "+2:54:00:00:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Ipv4Net>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(octets: [u8; 6], address: u32, prefix in 0u8..=32) {
            let mac = MacAddr(octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            let net = Ipv4Net { address: Ipv4Addr::from_bits(address), prefix };
            prop_assert_eq!(net.to_string().parse(), Ok(net));
            let json = serde_json::to_string(&(mac, net)).unwrap();
            prop_assert_eq!(serde_json::from_str::<(MacAddr, Ipv4Net)>(&json).unwrap(), (mac, net));
        }
    }
}
