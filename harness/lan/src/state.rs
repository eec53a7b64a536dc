//! A frozen segment as data.

use serde::{Deserialize, Serialize};

use crate::MacAddr;

/// All of a segment that a frozen cluster needs again: who is where, and which frames are under way.
/// Ports are named, so that machines find theirs when they attach again. Rules are no part of it: they
/// are what somebody does to the segment for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// The ports, in order.
    pub ports: Vec<PortState>,
    /// Learned stations, by address.
    pub stations: Vec<LearnedMac>,
    /// Frames that ports have sent and that are not switched yet, in order.
    pub held: Vec<HeldFrame>,
    /// Frames that are switched and wait for their port, in order. Those that a rule delays come last:
    /// without the rule, nothing is left for them to wait for.
    pub queued: Vec<HeldFrame>,
}

/// A port of a frozen segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// Its name.
    pub name: String,
    /// The index of its segment.
    #[serde(default, skip_serializing_if = "is_first")]
    pub segment: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_first(segment: &usize) -> bool {
    *segment == 0
}

/// A station of a frozen segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedMac {
    /// Its address.
    pub mac: MacAddr,
    /// The port it is behind.
    pub port: String,
    /// Milliseconds since it last sent.
    pub age_ms: u64,
}

/// A frame under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFrame {
    /// The port it came from (held) or goes to (queued).
    pub port: String,
    /// Its octets from the destination address on, in hexadecimal.
    #[serde(with = "hex")]
    pub frame: Vec<u8>,
}

mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let text: String = bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(DIGITS[usize::from(digit)]))
            .collect();
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || D::Error::custom("a frame is an even number of hexadecimal digits");
        let digits: Vec<u8> = text
            .chars()
            .map(|digit| {
                digit
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(wrong());
        }
        Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_state_reads_well() {
        let state = SegmentState {
            ports: vec![PortState {
                name: "node1".to_owned(),
                segment: 0,
            }],
            stations: vec![LearnedMac {
                mac: MacAddr([0x52, 0x54, 0, 0, 1, 1]),
                port: "node1".to_owned(),
                age_ms: 1500,
            }],
            held: vec![HeldFrame {
                port: "node1".to_owned(),
                frame: vec![0, 0xab],
            }],
            queued: Vec::new(),
        };
        insta::assert_snapshot!(serde_json::to_string(&state).unwrap(), @r#"{"ports":[{"name":"node1"}],"stations":[{"mac":"52:54:00:00:01:01","port":"node1","age_ms":1500}],"held":[{"port":"node1","frame":"00ab"}],"queued":[]}"#);
    }

    proptest! {
        #[test]
        fn frames_survive_serialisation(frame: Vec<u8>) {
            let held = HeldFrame { port: "p".to_owned(), frame };
            let json = serde_json::to_string(&held).unwrap();
            prop_assert_eq!(serde_json::from_str::<HeldFrame>(&json).unwrap(), held);
        }
    }

    #[test]
    fn half_an_octet_is_refused() {
        assert!(serde_json::from_str::<HeldFrame>(r#"{"port":"p","frame":"abc"}"#).is_err());
    }
}
