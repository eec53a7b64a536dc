//! As whom a client is seen by who answers it.

use std::net::IpAddr;

use podwire_probe::{Kind, Outcome, TargetReport};

use crate::check::failure::{Cause, Failure};

/// All requests of a kind to one target were answered, to this address and no other: as whom the host outside
/// saw its client, which has no name to tell it by. The reply to an echo
/// ([`Kind::Ping`](podwire_probe::Kind::Ping)) does not say.
///
/// # Errors
/// A [`Failure`] with what became of them, of the class of one that was not answered, or else of
/// [`Cause::WrongAnswer`].
pub fn all_answered_to(client: IpAddr, kind: Kind, report: &TargetReport) -> Result<(), Failure> {
    let cause = if report.all(Outcome::Answered) {
        let seen = report.clients().into_keys();
        let alone = kind == Kind::Ping || seen.eq([client.to_string().as_str()]);
        (!alone).then_some(Cause::WrongAnswer)
    } else {
        let mut ends = report.results.iter().map(|result| result.outcome);
        let other = ends.find(|outcome| *outcome != Outcome::Answered);
        Some(other.map_or(Cause::Absent, Cause::from))
    };
    let Some(cause) = cause else {
        return Ok(());
    };
    let expected = format!("{} to answer {client}", report.target);
    Err(Failure::new(cause, expected, report.to_string()).look(
        "`nft list ruleset` and `iptables-save` of the Pod's node: who translates what leaves the cluster, and \
         who drops it? Then the wire capture",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 12));

    fn report(results: &[(Outcome, Option<&str>)]) -> TargetReport {
        let results = results.iter().map(|(outcome, client)| {
            serde_json::json!({ "outcome": outcome, "client": client, "count": 1 })
        });
        let results: Vec<_> = results.collect();
        let report = serde_json::json!({ "target": "192.0.2.10:80", "results": results });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn all_are_answered_and_by_one_who_saw_the_node() {
        use Outcome::{Answered, TimedOut};
        let of = |kind, results: &[_]| {
            all_answered_to(NODE, kind, &report(results)).map_err(|failure| failure.cause)
        };
        assert_eq!(of(Kind::Udp, &[(Answered, Some("172.30.0.12"))]), Ok(()));
        let pod = (Answered, Some("10.1.2.2"));
        assert_eq!(of(Kind::Udp, &[pod]), Err(Cause::WrongAnswer));
        let both = [(Answered, Some("172.30.0.12")), pod];
        assert_eq!(of(Kind::Http, &both), Err(Cause::WrongAnswer));
        assert_eq!(of(Kind::Http, &[(Answered, None)]), Err(Cause::WrongAnswer));
        assert_eq!(of(Kind::Ping, &[(Answered, None)]), Ok(()));
        let lost = [(Answered, Some("172.30.0.12")), (TimedOut, None)];
        assert_eq!(of(Kind::Udp, &lost), Err(Cause::TimedOut));
        assert_eq!(of(Kind::Ping, &[]), Err(Cause::Absent));
    }
}
