//! Assertions: pure functions over what was observed, each returning a [`Failure`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use podwire_cluster::{SERVICES_V6, addresses};
use podwire_lan::Ipv4Net;
use podwire_probe::{Kind, Outcome, ResolveOutcome, TargetReport};

pub use crate::check::names::resolved;
pub use crate::check::typed::{passed_warning_of, refused, stopped_by};

use crate::check::balance::{Band, FALSE_ALARMS, REQUESTS_PER_BACKEND, Rounds};
use crate::check::failure::{Cause, Failure};
use crate::check::party::{LOOK_AT_CNI, Party};

impl From<Outcome> for Cause {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answered => Self::Answered,
            Outcome::Refused => Self::Refused,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::NoRoute => Self::NoRoute,
            Outcome::NameNotFound => Self::NameNotFound,
            Outcome::HttpStatus => Self::HttpStatus,
            Outcome::Corrupted => Self::Corrupted,
            Outcome::Reset | Outcome::Malformed | Outcome::Other => Self::Other,
        }
    }
}

impl From<ResolveOutcome> for Cause {
    fn from(outcome: ResolveOutcome) -> Self {
        match outcome {
            ResolveOutcome::Answered => Self::Answered,
            ResolveOutcome::NameNotFound => Self::NameNotFound,
            ResolveOutcome::NoData => Self::Absent,
            ResolveOutcome::TimedOut => Self::TimedOut,
            ResolveOutcome::Unreachable => Self::NoRoute,
            ResolveOutcome::ErrorCode | ResolveOutcome::Malformed | ResolveOutcome::Other => {
                Self::Other
            }
        }
    }
}

/// Whether an address is of the Services' range of its family.
pub fn is_of_services(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => addresses::SERVICES.contains(address),
        IpAddr::V6(address) => SERVICES_V6.contains(&address),
    }
}

/// The first Pod of each node, numbered from 1.
///
/// # Errors
/// A [`Failure`] that names the nodes without one: nobody would ask from there, and nobody miss it.
pub(crate) fn one_per_node(pods: &[Party], nodes: u32) -> Result<Vec<Party>, Failure> {
    let (mut first, mut without) = (Vec::new(), Vec::new());
    for node in 1..=nodes {
        match pods.iter().find(|pod| pod.node == node) {
            Some(pod) => first.push(pod.clone()),
            None => without.push(format!("node{node}")),
        }
    }
    if without.is_empty() {
        return Ok(first);
    }
    let seen = format!("no running Pod on {}", without.join(", "));
    let failure = Failure::new(Cause::Absent, "a running Pod on every node", seen);
    Err(failure.look("the Pods and events of the evidence"))
}

/// Each of the nodes, numbered from 1, has so many of these Pods, and there are no others.
///
/// # Errors
/// A [`Failure`] with the number of each.
pub fn spread_evenly(pods: &[Party], nodes: u32, on_each: u32) -> Result<(), Failure> {
    let mut counts: BTreeMap<u32, u32> = (1..=nodes).map(|node| (node, 0)).collect();
    for pod in pods {
        *counts.entry(pod.node).or_default() += 1;
    }
    let wanted = |(node, count): (&u32, &u32)| (1..=nodes).contains(node) && *count == on_each;
    if counts.iter().all(wanted) {
        return Ok(());
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(node, count)| format!("{count} on node{node}"))
        .collect();
    let expected = format!("{on_each} running Pods on each of {nodes} nodes");
    let failure = Failure::new(Cause::NotReady, expected, counts.join(", "));
    Err(failure.look("the Pods and events of the evidence"))
}

/// All requests to one target were sent, and ended the same way without an answer. An answer is somebody's,
/// and never what this asks for: see [`all_answered_by`].
///
/// # Errors
/// A [`Failure`] with what they did instead.
pub fn all_ended(expected: &str, report: &TargetReport, outcome: Outcome) -> Result<(), Failure> {
    each_ended(expected, report, outcome, |_| false)
}

/// All requests to one target were sent, and each was answered by one of these, by its own name: any server
/// answers with 200. Nobody's name is in the reply to an echo ([`podwire_probe::Kind::Ping`]), nor in what
/// the host outside answers.
///
/// # Errors
/// A [`Failure`] with what they did instead, and who else answered: [`Cause::WrongAnswer`].
pub fn all_answered_by(
    expected: &str,
    report: &TargetReport,
    parties: impl AsRef<[Party]>,
) -> Result<(), Failure> {
    let parties = parties.as_ref();
    let asked = |host: &str| parties.iter().any(|it| it.name == host);
    each_ended(expected, report, Outcome::Answered, asked)
}

/// All requests of a kind to one target were answered, to this address and no other: as whom the host outside
/// saw its client, which has no name to tell it by. The reply to an echo
/// ([`Kind::Ping`](podwire_probe::Kind::Ping)) does not say.
///
/// # Errors
/// A [`Failure`] with what became of them, of the class of one that was not answered, or else of
/// [`Cause::WrongAnswer`].
pub fn all_answered_to(client: IpAddr, kind: Kind, report: &TargetReport) -> Result<(), Failure> {
    let expected = format!("{} to answer {client}", report.target);
    let answered = each_ended(&expected, report, Outcome::Answered, |_| true);
    let seen = report.clients().into_keys();
    let alone = kind == Kind::Ping || seen.eq([client.to_string().as_str()]);
    let judged = match answered {
        Ok(()) if !alone => Err(Failure::new(
            Cause::WrongAnswer,
            expected,
            report.to_string(),
        )),
        answered => answered,
    };
    judged.map_err(|failure| {
        failure.look(
            "`nft list ruleset` and `iptables-save` of the Pod's node: who translates what leaves the cluster, \
             and who drops it? Then the wire capture",
        )
    })
}

/// Each of these has answered, and nobody else has; requests beside that may have come to nothing.
///
/// # Errors
/// A [`Failure`] with whoever has not, of the class of the requests that came to nothing, or else
/// [`Cause::Unbalanced`]; with whoever has besides, of [`Cause::WrongAnswer`].
pub fn each_has_answered(
    expected: &str,
    report: &TargetReport,
    parties: &[Party],
) -> Result<(), Failure> {
    let hosts = report.hosts();
    let silent = parties
        .iter()
        .filter(|it| !hosts.contains_key(it.name.as_str()));
    let silent: Vec<String> = silent.map(ToString::to_string).collect();
    let strangers = hosts
        .keys()
        .filter(|host| !parties.iter().any(|it| it.name == **host));
    let strangers: Vec<&str> = strangers.map(|host| somebody(host)).collect();
    if silent.is_empty() && strangers.is_empty() {
        return Ok(());
    }
    let mut ends = report.results.iter().map(|result| result.outcome);
    let other = ends.find(|it| *it != Outcome::Answered);
    let mut seen = Vec::new();
    if !silent.is_empty() {
        seen.push(format!("no answer from {}", silent.join(", ")));
    }
    if !strangers.is_empty() {
        seen.push(format!(
            "answers of {}, who was not asked",
            strangers.join(", ")
        ));
    }
    if let Some(other) = other {
        seen.push(format!("other requests: {other}"));
    }
    let cause = match other {
        _ if silent.is_empty() => Cause::WrongAnswer,
        Some(other) => other.into(),
        None if strangers.is_empty() => Cause::Unbalanced,
        None => Cause::WrongAnswer,
    };
    Err(Failure::new(cause, expected, seen.join("; ")))
}

/// All were sent and ended so, and whoever answered may.
fn each_ended(
    expected: &str,
    report: &TargetReport,
    outcome: Outcome,
    may_answer: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    let sent = report.count(outcome) > 0 && report.unsent == 0;
    let hosts = report.hosts();
    let mut strangers = hosts.keys().filter(|_| outcome == Outcome::Answered);
    let stranger = strangers.find(|host| !may_answer(host));
    if report.all(outcome) && sent && stranger.is_none() {
        return Ok(());
    }
    let other = report
        .results
        .iter()
        .find(|result| result.outcome != outcome);
    let wrong = stranger.map(|_| Cause::WrongAnswer);
    let cause = other.map(|other| other.outcome.into()).or(wrong);
    let cause = cause.unwrap_or(Cause::Absent);
    let seen = match stranger {
        Some(stranger) => {
            format!(
                "{} answered, who was not asked: {report}",
                somebody(stranger)
            )
        }
        None => report.to_string(),
    };
    let mut failure = Failure::new(cause, expected, seen).look(
        "the wire capture: does the request leave the asking node, for whom, and does a reply come \
         back? Then that node's `ip route` and `nft list ruleset`",
    );
    failure.also = wrong.filter(|wrong| *wrong != cause).into_iter().collect();
    Err(failure)
}

/// Who answered, in words: not everybody says who he is.
pub(crate) fn somebody(name: &str) -> &str {
    match name {
        "" => "somebody without a name",
        name => name,
    }
}

/// The balancing rule (docs/writing-a-scenario.md), after one round or several: every backend is seen,
/// nobody else answers, and each count lies inside the exact binomial band. Gives whether that is enough
/// to say so: otherwise another round is to be asked, and added, see [`Rounds`].
///
/// # Errors
/// A [`Failure`] with every backend's count and the band.
pub fn balanced(report: &TargetReport, backends: &[String]) -> Result<bool, Failure> {
    let expected = format!("the requests to spread evenly over {} Pods", backends.len());
    let hosts = report.hosts();
    if let Some(stranger) = hosts
        .keys()
        .find(|host| !backends.iter().any(|name| name == *host))
    {
        let seen = format!("{stranger:?} answered, which is no backend: {report}");
        return Err(Failure::new(Cause::WrongAnswer, expected, seen));
    }
    let rounds = Rounds::of(u32::try_from(backends.len()).unwrap_or(u32::MAX));
    let told = Told::of(report);
    let asked = u64::from(rounds.round());
    let asked = asked * (told.requests + told.unsent).div_ceil(asked.max(1)).max(1);
    told.all_of(asked, &expected, report)?;
    let Told {
        requests, answered, ..
    } = told;
    let unanswered = requests - answered;
    let band = rounds.fair(requests);
    let counts: BTreeMap<&str, u64> = backends
        .iter()
        .map(|name| {
            (
                name.as_str(),
                u64::from(hosts.get(name.as_str()).copied().unwrap_or(0)),
            )
        })
        .collect();
    // What was not answered may have been anybody's; when even that cannot make up for what one
    // lacks, its end is not the matter.
    if counts.values().all(|count| count + unanswered >= band.low) {
        each_ended(&expected, report, Outcome::Answered, |_| true)?;
    }
    if counts.values().all(|count| band.contains(*count)) {
        let clear = rounds.clear(requests);
        return Ok(counts.values().all(|count| clear.contains(*count)));
    }
    let shown: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("\n  {name}: {count}"))
        .collect();
    let lost = match unanswered {
        0 => String::new(),
        lost => format!("\n  not answered: {lost}"),
    };
    Err(Failure::new(
        Cause::Unbalanced,
        expected,
        format!(
            "{requests} requests, each Pod should get {} to {}:{}{lost}",
            band.low,
            band.high,
            shown.concat()
        ),
    )
    .look("kube-proxy's rules (`nft list ruleset` of the asking node) and the Service's session affinity"))
}

/// How many requests the balancing rule asks for in a round.
pub fn requests_for(backends: usize) -> u32 {
    u32::try_from(backends)
        .unwrap_or(u32::MAX)
        .saturating_mul(REQUESTS_PER_BACKEND)
}

/// Connections to a ClusterIP of which only some of its Pods can be reached, `reachable` of so many
/// `backends`: of as many as [`requests_for`] says those succeed that chance has led there. Nobody else
/// answers, every other times out, and how many succeed lies inside the exact binomial band for that
/// share. A false alarm has a probability of 1e-6 at most.
///
/// # Errors
/// A [`Failure`] with the band and who answered.
pub fn answered_by_share(
    report: &TargetReport,
    reachable: &[String],
    backends: usize,
) -> Result<(), Failure> {
    let expected = format!(
        "connections to succeed with {} of {backends} Pods, and the others to time out",
        reachable.len()
    );
    let hosts = report.hosts();
    let known = |host: &&str| reachable.iter().any(|name| name == host);
    if let Some(other) = hosts.keys().find(|host| !known(host)) {
        let seen = format!("{other:?} answered, which cannot be reached: {report}");
        let failure = Failure::new(Cause::Answered, expected, seen);
        return Err(failure.look("`ip route` of the asking node"));
    }
    let told = Told::of(report);
    told.all_of(u64::from(requests_for(backends)), &expected, report)?;
    let mut ends = report.results.iter().map(|result| result.outcome);
    let silent = [Outcome::Answered, Outcome::TimedOut];
    if let Some(other) = ends.find(|outcome| !silent.contains(outcome)) {
        return Err(Failure::new(other.into(), expected, report.to_string()));
    }
    let share = reachable.len() as f64 / backends.max(1) as f64;
    let Band { low, high } = Band::of(told.requests, share, FALSE_ALARMS / 2.0);
    if (low..=high).contains(&told.answered) {
        return Ok(());
    }
    let seen = format!(
        "{} of {} connections succeeded, and {low} to {high} should: {report}",
        told.answered, told.requests
    );
    let failure = Failure::new(Cause::Unbalanced, expected, seen);
    Err(failure.look("kube-proxy's rules (`nft list ruleset` of the asking node): to which Pods?"))
}

/// What a report tells of, in numbers.
#[derive(Clone, Copy)]
struct Told {
    requests: u64,
    answered: u64,
    unsent: u64,
}

impl Told {
    fn of(report: &TargetReport) -> Self {
        let requests = report.results.iter().map(|result| u64::from(result.count));
        Self {
            requests: requests.sum(),
            answered: report.count(Outcome::Answered).into(),
            unsent: report.unsent.into(),
        }
    }

    /// It tells of as many as were asked for, sent or not.
    fn all_of(self, asked: u64, expected: &str, report: &TargetReport) -> Result<(), Failure> {
        let told = self.requests + self.unsent;
        if told >= asked {
            return Ok(());
        }
        let seen = format!("only {told} of {asked} requests are told of: {report}");
        Err(Failure::new(Cause::Absent, expected, seen))
    }
}

/// Every Pod's address is its own.
///
/// # Errors
/// A [`Failure`] that names the Pods in question.
pub fn addresses_unique(pods: &[Party]) -> Result<(), Failure> {
    let mut by_address: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for pod in pods {
        by_address
            .entry(pod.ip())
            .or_default()
            .push(pod.to_string());
    }
    let shared: Vec<String> = by_address
        .values()
        .filter(|pods| pods.len() > 1)
        .map(|pods| format!("\n  {}", pods.join(" and ")))
        .collect();
    if shared.is_empty() {
        return Ok(());
    }
    let seen = format!("Pods that share one address:{}", shared.concat());
    let expected = "every Pod to have an address of its own";
    Err(Failure::new(Cause::NotUnique, expected, seen).look(LOOK_AT_CNI))
}

/// Every Pod's address is its own and lies in the range of its node.
///
/// # Errors
/// A [`Failure`] that names the Pods in question.
pub fn addresses_unique_and_in_range(
    pods: &[Party],
    range_of: impl Fn(u32) -> Ipv4Net,
) -> Result<(), Failure> {
    addresses_unique(pods)?;
    let outside: Vec<String> = pods
        .iter()
        .filter(|pod| !range_of(pod.node).contains(pod.address))
        .map(|pod| format!("\n  {pod}, whose node has {}", range_of(pod.node)))
        .collect();
    if outside.is_empty() {
        return Ok(());
    }
    let seen = format!("Pods with an address from elsewhere:{}", outside.concat());
    Err(Failure::new(
        Cause::OutsideRange,
        "every Pod's address to lie in its node's range",
        seen,
    )
    .look(LOOK_AT_CNI))
}

/// Restarts of each container's Pod, by the Pod's name and UID.
pub type Restarts = BTreeMap<(String, String), u32>;

/// No container restarted meanwhile (docs/writing-a-scenario.md, "Afterwards").
///
/// # Errors
/// A [`Failure`] that names the Pods.
pub fn nothing_restarted(before: &Restarts, after: &Restarts) -> Result<(), Failure> {
    let restarted: Vec<String> = after
        .iter()
        .filter_map(|(pod, count)| {
            let known = before.get(pod).copied().unwrap_or(0);
            (*count > known).then(|| format!("{} {} times", pod.0, count - known))
        })
        .collect();
    if restarted.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Cause::Died,
        "no container to restart meanwhile",
        format!("restarted: {}", restarted.join(", ")),
    )
    .look("`crictl ps -a` of the Pod's node, and its container's log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use podwire_cluster::Family;
    use podwire_probe::Counted;

    fn pod(name: &str, node: u32, last: u8) -> Party {
        Party::new(name, node, true, [10, 1, u8::try_from(node).unwrap(), last])
    }

    #[test]
    fn two_pods_may_share_an_address_of_no_family() {
        let by_ipv6 = |name: &str, last: u8, address: &str| {
            let both = pod(name, 1, last).with_ipv6(Some(address.parse().unwrap()));
            both.by(Family::Ipv6).unwrap()
        };
        let apart = [by_ipv6("a", 2, "fd00::2"), by_ipv6("b", 3, "fd00::3")];
        assert_eq!(addresses_unique(&apart), Ok(()));
        let shared = [by_ipv6("a", 2, "fd00::2"), by_ipv6("b", 3, "fd00::2")];
        let cause = addresses_unique(&shared).map_err(|failure| failure.cause);
        assert_eq!(cause, Err(Cause::NotUnique));
    }

    #[test]
    fn services_are_known_by_their_ranges() {
        let of = |address: &str| is_of_services(address.parse().unwrap());
        assert!(of("10.0.0.42") && of("fd00:10::2a"));
        assert!(!of("10.1.1.2") && !of("fd00:10::1:2a") && !of("fd00:10:1:1::2"));
    }

    fn range(node: u32) -> Ipv4Net {
        Ipv4Net {
            address: Ipv4Addr::new(10, 1, u8::try_from(node).unwrap(), 0),
            prefix: 24,
        }
    }

    #[test]
    fn an_answer_that_names_nobody_is_not_that_of_the_one_asked() {
        let mut report = answers(&[("a", 1)]);
        assert_eq!(all_answered_by("all", &report, pod("a", 1, 2)), Ok(()));
        report.results[0].host = None;
        let failure = all_answered_by("all", &report, pod("a", 1, 2)).unwrap_err();
        assert_eq!(failure.cause, Cause::WrongAnswer);
        insta::assert_snapshot!(failure.seen, @"somebody without a name answered, who was not asked: 10.0.0.42:80: 1 answered");
    }

    /// As an nginx does, or another Pod's server.
    #[test]
    fn an_answer_of_somebody_else_is_not_that_of_the_one_asked() {
        let asked = [pod("a", 1, 2), pod("b", 2, 2)];
        let by = |counts: &[(&str, u32)]| all_answered_by("all", &answers(counts), &asked);
        assert_eq!(by(&[("b", 8)]), Ok(()), "a verdict on who, not on how many");
        assert_eq!(by(&[("a", 3), ("b", 5)]), Ok(()));
        let failure = by(&[("a", 7), ("nginx", 1)]).unwrap_err();
        assert_eq!(failure.cause, Cause::WrongAnswer);
        insta::assert_snapshot!(failure.seen, @"nginx answered, who was not asked: 10.0.0.42:80: 7 answered by a, 1 answered by nginx");
        let nobody = all_answered_by("all", &answers(&[("a", 1)]), Vec::new());
        assert_eq!(nobody.unwrap_err().cause, Cause::WrongAnswer);
        // Who would have to answer is not said: whoever does is the wrong one.
        let any = all_ended("all", &answers(&[("a", 1)]), Outcome::Answered);
        assert_eq!(any.unwrap_err().cause, Cause::WrongAnswer);

        let mut report = answers(&[("nginx", 1)]);
        report.results.push(Counted {
            outcome: Outcome::TimedOut,
            host: None,
            ..report.results[0].clone()
        });
        let failure = all_answered_by("all", &report, &asked).unwrap_err();
        assert_eq!(
            (failure.cause, &*failure.also),
            (Cause::TimedOut, &[Cause::WrongAnswer][..])
        );
        let failure = all_ended("none", &report, Outcome::TimedOut).unwrap_err();
        assert_eq!((failure.cause, &*failure.also), (Cause::Answered, &[][..]));
    }

    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 12));

    fn report_of(results: &[(Outcome, Option<&str>)]) -> TargetReport {
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
            all_answered_to(NODE, kind, &report_of(results)).map_err(|failure| failure.cause)
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

    #[test]
    fn each_has_to_answer_and_nobody_beside_them() {
        let asked = [pod("a", 1, 2), pod("b", 2, 2)];
        let by = |report: &TargetReport| each_has_answered("both", report, &asked);
        assert_eq!(by(&answers(&[("a", 1), ("b", 7)])), Ok(()));
        let said = |report: &TargetReport| {
            let failure = by(report).unwrap_err();
            format!("{:?}: {}", failure.cause, failure.seen)
        };
        let mut report = answers(&[("a", 8)]);
        insta::assert_snapshot!(said(&report), @"Unbalanced: no answer from b (10.1.2.2 on node2)");
        report.results.push(Counted {
            outcome: Outcome::Refused,
            host: None,
            ..report.results[0].clone()
        });
        insta::assert_snapshot!(said(&report), @"Refused: no answer from b (10.1.2.2 on node2); other requests: refused");
        let all = answers(&[("a", 4), ("b", 3), ("nginx", 1)]);
        insta::assert_snapshot!(said(&all), @"WrongAnswer: answers of nginx, who was not asked");
        let instead = answers(&[("a", 4), ("nginx", 4)]);
        insta::assert_snapshot!(said(&instead), @"WrongAnswer: no answer from b (10.1.2.2 on node2); answers of nginx, who was not asked");
    }

    #[test]
    fn what_was_never_sent_has_not_ended_as_it_should() {
        let by_a = |report: &TargetReport| all_answered_by("all", report, pod("a", 1, 2));
        let failure = by_a(&answers(&[("a", 0)])).unwrap_err();
        assert_eq!(failure.cause, Cause::Absent);
        let given_up = TargetReport {
            unsent: 3,
            ..answers(&[("a", 2)])
        };
        let failure = by_a(&given_up).unwrap_err();
        assert_eq!(failure.cause, Cause::Absent);
        let backends = ["a".to_owned(), "b".to_owned()];
        let few = balanced(&answers(&[("a", 3), ("b", 3)]), &backends).unwrap_err();
        assert_eq!(few.cause, Cause::Absent);
        assert!(few.seen.starts_with("only 6 of 200 requests"), "{few}");
    }

    fn answers(counts: &[(&str, u32)]) -> TargetReport {
        TargetReport {
            target: "10.0.0.42:80".into(),
            results: counts
                .iter()
                .map(|(host, count)| Counted {
                    outcome: Outcome::Answered,
                    host: Some((*host).into()),
                    client: None,
                    octets: None,
                    slowest_ms: None,
                    count: *count,
                    error: None,
                })
                .collect(),
            unsent: 0,
            attempts: vec![],
        }
    }

    #[test]
    fn balancing_wants_everybody_nobody_else_and_the_band() {
        let backends = ["a".to_owned(), "b".to_owned()];
        let open = balanced(&answers(&[("a", 120), ("b", 80)]), &backends);
        assert_eq!(open, Ok(false), "it takes another round");
        let all = Rounds::of(2).most() * 100;
        let even = balanced(&answers(&[("a", all + 4), ("b", all - 4)]), &backends);
        assert_eq!(even, Ok(true));
        let short = balanced(&answers(&[("a", 151), ("b", 149)]), &backends).unwrap_err();
        assert!(
            short.seen.starts_with("only 300 of 400 requests"),
            "{short}"
        );
        let skewed = balanced(&answers(&[("a", 150), ("b", 50)]), &backends).unwrap_err();
        insta::assert_snapshot!(skewed, @"
        expected the requests to spread evenly over 2 Pods; seen (unbalanced): 200 requests, each Pod should get 63 to 137:
          a: 150
          b: 50
        ");
        let cause =
            |counts: &[(&str, u32)]| balanced(&answers(counts), &backends).unwrap_err().cause;
        assert_eq!(cause(&[("a", 200)]), Cause::Unbalanced);
        assert_eq!(
            cause(&[("a", 100), ("b", 99), ("c", 1)]),
            Cause::WrongAnswer
        );
        assert_eq!(cause(&[]), Cause::Absent);
    }

    #[test]
    fn connections_succeed_by_the_share_of_those_that_can_be_reached() {
        let reachable = ["a".to_owned(), "b".to_owned()];
        let with = |counts: &[(&str, u32)], how: Outcome, lost: u32| {
            let mut report = answers(counts);
            report.results.push(Counted {
                outcome: how,
                host: None,
                client: None,
                octets: None,
                slowest_ms: None,
                count: lost,
                error: None,
            });
            answered_by_share(&report, &reachable, 5)
        };
        let lost = |counts: &[(&str, u32)], lost| with(counts, Outcome::TimedOut, lost);
        assert_eq!(lost(&[("a", 104), ("b", 99)], 297), Ok(()));
        let failed = |result: Result<(), Failure>| result.unwrap_err();
        let fewer = failed(lost(&[("a", 98), ("b", 2)], 400));
        insta::assert_snapshot!(fewer, @"expected connections to succeed with 2 of 5 Pods, and the others to time out; seen (unbalanced): 100 of 500 connections succeeded, and 147 to 254 should: 10.0.0.42:80: 98 answered by a, 2 answered by b, 400 timed out");
        let cause = |result| failed(result).cause;
        assert_eq!(cause(lost(&[("a", 250), ("b", 250)], 0)), Cause::Unbalanced);
        assert_eq!(cause(lost(&[], 500)), Cause::Unbalanced);
        let remote = lost(&[("a", 100), ("b", 99), ("c", 1)], 300);
        assert_eq!(cause(remote), Cause::Answered);
        let refused = with(&[("a", 100), ("b", 100)], Outcome::Refused, 300);
        assert_eq!(cause(refused), Cause::Refused);
        assert_eq!(cause(lost(&[("a", 100), ("b", 100)], 299)), Cause::Absent);
    }

    #[test]
    fn a_lost_request_is_the_matter_unless_the_rest_is_skewed_without_it() {
        let backends = ["a".to_owned(), "b".to_owned()];
        let with_lost = |counts: &[(&str, u32)], lost: u32| {
            let mut report = answers(counts);
            report.results.push(Counted {
                outcome: Outcome::TimedOut,
                host: None,
                client: None,
                octets: None,
                slowest_ms: None,
                count: lost,
                error: None,
            });
            balanced(&report, &backends).unwrap_err()
        };
        assert_eq!(
            with_lost(&[("a", 100), ("b", 99)], 1).cause,
            Cause::TimedOut
        );
        assert_eq!(with_lost(&[("a", 100)], 100).cause, Cause::TimedOut);
        assert_eq!(with_lost(&[], 200).cause, Cause::TimedOut);
        let skewed = with_lost(&[("a", 199)], 1);
        insta::assert_snapshot!(skewed, @"
        expected the requests to spread evenly over 2 Pods; seen (unbalanced): 200 requests, each Pod should get 63 to 137:
          a: 199
          b: 0
          not answered: 1
        ");
    }

    #[test]
    fn addresses_are_unique_and_from_the_nodes_range() {
        let good = [pod("a", 1, 2), pod("b", 2, 2)];
        assert!(addresses_unique_and_in_range(&good, range).is_ok());
        let mut stray = pod("b", 1, 3);
        stray.node = 2;
        let failure = addresses_unique_and_in_range(&[pod("a", 1, 2), stray], range).unwrap_err();
        assert_eq!(failure.cause, Cause::OutsideRange);
        let mut twin = pod("b", 1, 2);
        twin.node = 2;
        let failure = addresses_unique_and_in_range(&[pod("a", 1, 2), twin], range).unwrap_err();
        insta::assert_snapshot!(failure, @"
        expected every Pod to have an address of its own; seen (not unique): Pods that share one address:
          a (10.1.1.2 on node1) and b (10.1.1.2 on node2)
        ");
    }

    #[test]
    fn a_node_without_a_pod_is_named_instead_of_left_out() {
        let pods = [pod("a", 1, 2), pod("b", 1, 3), pod("c", 2, 2)];
        let names = |first: Vec<Party>| first.into_iter().map(|pod| pod.name).collect::<Vec<_>>();
        assert_eq!(one_per_node(&pods, 2).map(names).unwrap(), ["a", "c"]);
        let failure = one_per_node(&pods, 3).unwrap_err();
        insta::assert_snapshot!(failure, @"expected a running Pod on every node; seen (absent): no running Pod on node3");
    }

    #[test]
    fn a_share_of_pods_that_is_not_what_was_asked_for_is_told_with_every_node_s() {
        let pods = [
            pod("a", 1, 2),
            pod("b", 2, 2),
            pod("c", 1, 3),
            pod("d", 2, 3),
        ];
        assert_eq!(spread_evenly(&pods, 2, 2), Ok(()));
        let failure = spread_evenly(&pods[..3], 2, 2).unwrap_err();
        assert_eq!(failure.cause, Cause::NotReady);
        insta::assert_snapshot!(failure, @"expected 2 running Pods on each of 2 nodes; seen (not ready): 2 on node1, 1 on node2");
        assert!(spread_evenly(&pods, 3, 2).is_err());
        // One that is bound to no node that there is.
        assert!(spread_evenly(&pods, 1, 2).is_err());
    }

    #[test]
    fn a_restart_is_told_from_an_old_one_and_from_a_new_pod() {
        let of = |name: &str, count| ((name.to_owned(), "uid".to_owned()), count);
        let before = Restarts::from([of("old", 2)]);
        assert!(nothing_restarted(&before, &Restarts::from([of("old", 2), of("new", 0)])).is_ok());
        let failure = nothing_restarted(&before, &Restarts::from([of("old", 3)])).unwrap_err();
        assert!(failure.seen.contains("old 1 times"), "{failure}");
    }
}
