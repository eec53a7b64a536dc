//! What a request is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::Outcome;

/// The most octets of a transfer in each direction: 16 MiB.
pub const MAX_OCTETS: u64 = 16 << 20;

/// Octets that a transfer carries within its limit at least, or it is not worth waiting for.
const SLOWEST: u64 = 256 << 10;

/// What kind of request is sent to a target.
///
/// ```
/// use podwire_probe::Kind;
/// let kind: Kind = serde_json::from_str(r#"{"transfer":{"up":1,"down":1048576}}"#).unwrap();
/// assert_eq!(kind, Kind::Transfer { up: 1, down: 1 << 20 });
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// An HTTP request in a segment, and an answer in another.
    #[default]
    Http,
    /// Octets there, and then octets back, each way compared with what was sent by a digest.
    Transfer {
        /// Octets to the server, `MAX_OCTETS` at most.
        up: u64,
        /// Octets from the server, `MAX_OCTETS` at most.
        down: u64,
    },
    /// A question in a UDP datagram, and its answer in another.
    Udp,
    /// An ICMP echo request (RFC 792), whose reply names nobody; the target's port does not matter.
    Ping,
}

impl Kind {
    /// A transfer of so many octets in each direction.
    pub fn both_ways(octets: u64) -> Self {
        Self::Transfer {
            up: octets,
            down: octets,
        }
    }

    pub(crate) fn is_http(&self) -> bool {
        *self == Self::Http
    }

    /// Whether `count` requests of this kind that ended so can have carried what is told of them: all of
    /// it where they were answered, and no more than that where they were not. What was never sent tells
    /// of nothing.
    pub fn can_have_carried(self, outcome: Outcome, count: u32, told: Option<Octets>) -> bool {
        let answered = outcome == Outcome::Answered;
        match (self, told) {
            (Self::Transfer { up, down }, Some(told)) => {
                let of_all = |octets: u64| octets.saturating_mul(count.into());
                let (up, down) = (of_all(up), of_all(down));
                match answered {
                    true => (told.sent, told.received) == (up, down),
                    false => told.sent <= up && told.received <= down,
                }
            }
            (Self::Transfer { .. }, None) => !answered,
            (Self::Http | Self::Udp | Self::Ping, told) => told.is_none(),
        }
    }

    /// The longest that a request with this limit takes. A transfer's limit is for a time without an
    /// octet that arrives.
    pub fn longest(self, limit: Duration) -> Duration {
        match self {
            Self::Http | Self::Udp | Self::Ping => limit,
            Self::Transfer { up, down } => {
                let times = 1 + up.saturating_add(down).div_ceil(SLOWEST);
                limit.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
            }
        }
    }
}

/// What a transfer has carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Octets {
    /// Octets that the other side's kernel has acknowledged.
    pub sent: u64,
    /// Octets that came back.
    pub received: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_may_take_longer_the_larger_it_is_and_never_for_ever() {
        let second = Duration::from_secs(1);
        assert_eq!(Kind::Http.longest(second), second);
        assert_eq!(Kind::both_ways(1).longest(second), 2 * second);
        assert_eq!(Kind::both_ways(1 << 20).longest(second), 9 * second);
        assert_eq!(Kind::both_ways(MAX_OCTETS).longest(second), 129 * second);
        Kind::both_ways(u64::MAX).longest(Duration::MAX);
    }

    #[test]
    fn what_is_told_of_requests_is_what_they_can_have_carried() {
        let kind = Kind::Transfer { up: 7, down: 1000 };
        let of = |outcome, sent, received| {
            kind.can_have_carried(outcome, 2, Some(Octets { sent, received }))
        };
        assert!(of(Outcome::Answered, 14, 2000));
        assert!(!of(Outcome::Answered, 14, 1999) && !of(Outcome::Answered, 13, 2000));
        assert!(of(Outcome::TimedOut, 14, 3) && of(Outcome::TimedOut, 0, 0));
        assert!(!of(Outcome::TimedOut, 15, 0) && !of(Outcome::Reset, 0, u64::MAX));
        assert!(!kind.can_have_carried(Outcome::Answered, 1, None));
        assert!(kind.can_have_carried(Outcome::Other, 1, None));
        let none = Some(Octets::default());
        for kind in [Kind::Http, Kind::Udp, Kind::Ping] {
            assert!(kind.can_have_carried(Outcome::Answered, 1, None));
            assert!(!kind.can_have_carried(Outcome::Answered, 1, none));
        }
    }

    #[test]
    fn a_field_that_no_kind_has_is_an_error() {
        for text in [
            r#"{"transfer":{"up":1,"down":1,"left":1}}"#,
            r#"{"transfer":{"up":1}}"#,
            r#"{"transfer":{"up":-1,"down":1}}"#,
            r#""transfer""#,
        ] {
            assert!(serde_json::from_str::<Kind>(text).is_err(), "{text}");
        }
    }
}
