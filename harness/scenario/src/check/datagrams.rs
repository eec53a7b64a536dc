//! Who got datagrams that nobody answers.

use std::fmt;

use podwire_probe::DatagramsReport;

use crate::check::failure::{Cause, Failure};
use crate::check::party::Party;

const LOOK: &str = "`conntrack -L -p udp` of the sender's node: whom does its flow still lead to? Then \
    kube-proxy's rules there";

/// What one Pod got of the datagrams of a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who.
    pub pod: Party,
    /// How many.
    pub count: u64,
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pod, self.count)
    }
}

/// How many somebody has got of a sender whose datagrams come from one port. Their address may have been
/// translated on the way; the port stays while nobody else has it. But what a Service leads back to its sender
/// has another: there kube-proxy has both translated (iptables(8), `--random-fully`; nft(8), `fully-random`).
pub(crate) fn of_one_sender(report: &DatagramsReport, port: u16, to_itself: bool) -> u64 {
    let received = report.received.iter();
    let own = received.filter(|it| it.from.port() == port || to_itself);
    own.map(|it| it.count).fold(0, u64::saturating_add)
}

/// What came between two looks; `sent` is all that was ever sent.
pub(crate) fn counted(
    pods: &[Party],
    before: &[u64],
    after: &[u64],
    sent: u64,
) -> anyhow::Result<Vec<Received>> {
    let counts = before.iter().zip(after);
    let pairs = pods.iter().zip(counts);
    pairs
        .map(|(pod, (before, after))| match after.checked_sub(*before) {
            Some(count) if *after <= sent => Ok(Received {
                pod: pod.clone(),
                count,
            }),
            _ => anyhow::bail!(
                "{pod} tells of {before} datagrams and then of {after}, and {sent} were sent"
            ),
        })
        .collect()
}

/// Some of these Pods got datagrams, and nobody else did.
///
/// # Errors
/// A [`Failure`] with what everybody got: [`Cause::WrongAnswer`] where somebody else got some,
/// [`Cause::Absent`] where nobody did.
pub fn received_by(received: &[Received], pods: &[Party]) -> Result<(), Failure> {
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    let expected = match names.as_slice() {
        [] => "nobody to get a datagram".to_owned(),
        names => format!(
            "the datagrams to reach {}, and nobody else",
            names.join(" or ")
        ),
    };
    let failed = |cause| {
        let seen: Vec<String> = received.iter().map(|it| format!("\n  {it}")).collect();
        Err(Failure::new(cause, &expected, seen.concat()).look(LOOK))
    };
    let got = |it: &&Received| it.count > 0;
    if received
        .iter()
        .filter(got)
        .any(|it| !pods.contains(&it.pod))
    {
        return failed(Cause::WrongAnswer);
    }
    match pods.is_empty() || received.iter().any(|it| got(&it)) {
        true => Ok(()),
        false => failed(Cause::Absent),
    }
}

#[cfg(test)]
mod tests {
    use podwire_probe::DatagramsReceived;

    use super::*;

    fn pod(last: u8) -> Party {
        Party::new(format!("green-{last}"), 1, true, [10, 1, 1, last])
    }

    fn received(counts: &[(u8, u64)]) -> Vec<Received> {
        let each = counts.iter().map(|(last, count)| Received {
            pod: pod(*last),
            count: *count,
        });
        each.collect()
    }

    #[test]
    fn what_came_back_to_its_sender_has_another_port() {
        let received = |from: &str, count| DatagramsReceived {
            from: from.parse().unwrap(),
            count,
            last: count,
            last_ms_ago: 0,
        };
        let report = DatagramsReport {
            received: vec![
                received("10.1.3.1:30000", 3),
                received("10.1.3.1:51234", 20),
            ],
            ..DatagramsReport::default()
        };
        assert_eq!(of_one_sender(&report, 30_000, false), 3);
        assert_eq!(of_one_sender(&report, 30_000, true), 23);
    }

    #[test]
    fn datagrams_reach_the_ones_they_should_and_nobody_else() {
        let of = |counts: &[(u8, u64)], pods: &[Party]| {
            received_by(&received(counts), pods).map_err(|failure| failure.cause)
        };
        assert_eq!(of(&[(2, 20), (3, 0)], &[pod(2)]), Ok(()));
        assert_eq!(of(&[(2, 20), (3, 0)], &[pod(2), pod(3)]), Ok(()));
        assert_eq!(of(&[(2, 20), (3, 1)], &[pod(2)]), Err(Cause::WrongAnswer));
        assert_eq!(of(&[(2, 0), (3, 0)], &[pod(2)]), Err(Cause::Absent));
        assert_eq!(of(&[(2, 0), (3, 0)], &[]), Ok(()));
        assert_eq!(of(&[(2, 1), (3, 0)], &[]), Err(Cause::WrongAnswer));
        let failure = received_by(&received(&[(2, 0), (3, 20)]), &[pod(2)]).unwrap_err();
        insta::assert_snapshot!(failure, @"
        expected the datagrams to reach green-2, and nobody else; seen (wrong answer): 
          green-2 (10.1.1.2 on node1): 0
          green-3 (10.1.1.3 on node1): 20
        ");
    }

    #[test]
    fn what_cannot_have_come_is_no_count() {
        let pods = [pod(2), pod(3)];
        let of = |before: [u64; 2], after: [u64; 2]| counted(&pods, &before, &after, 30);
        assert_eq!(of([5, 0], [25, 0]).unwrap(), received(&[(2, 20), (3, 0)]));
        assert!(of([5, 0], [31, 0]).is_err());
        assert!(of([5, 1], [6, 0]).is_err());
        assert!(of([0, 0], [u64::MAX, 0]).is_err());
    }
}
