//! One party's requests to a Service, or to any target, as pairs.

use std::collections::BTreeMap;

use podwire_cluster::addresses::node_name;
use podwire_probe::{Outcome, TargetReport};

use crate::check::assert::somebody;
use crate::check::balance::Band;
use crate::check::pairs::{End, Pair, Pairs};
use crate::check::party::Party;

/// As many answers as there may be, one at least.
pub(crate) const ANY: Band = Band {
    low: 1,
    high: u64::MAX,
};

/// However many answers: who may give one is the question.
pub(crate) const WHOEVER: Band = Band {
    low: 0,
    high: u64::MAX,
};

/// Requests to one target, which all should have ended like this.
pub(crate) fn asked(from: &End, report: &TargetReport, how: Outcome) -> Pairs {
    let pair = to_target(from, report, format!("all {how}"), &|_| true);
    Pairs {
        all: Vec::from_iter(pair),
        lost: None,
    }
}

/// A question to a target that should have answered it, and did not.
pub(crate) fn unanswered(from: &End, target: &str) -> Pairs {
    let pair = Pair {
        from: from.clone(),
        to: End::named(target),
        expected: Outcome::Answered.to_string(),
        seen: Outcome::TimedOut.to_string(),
        wrong: true,
    };
    Pairs {
        all: vec![pair],
        lost: None,
    }
}

/// Requests to a Service, of which each of its Pods should have answered so many: those that nobody
/// answered come first, then its Pods, then whoever else answered.
pub(crate) fn shared(from: &End, report: &TargetReport, pods: &[Party], share: Band) -> Pairs {
    let hosts = report.hosts();
    let wanted = match share {
        ANY => "1 answered or more".to_owned(),
        WHOEVER => "any number answered".to_owned(),
        Band { low, high } => format!("{low} to {high} answered"),
    };
    let unanswered = |outcome: Outcome| outcome != Outcome::Answered;
    let unanswered = to_target(from, report, "all answered".to_owned(), &unanswered);
    let of_pod = |pod: &Party| {
        let count = hosts.get(pod.name.as_str()).copied().unwrap_or(0);
        Pair {
            from: from.clone(),
            to: End::from(pod),
            expected: wanted.clone(),
            seen: format!("{count} answered"),
            wrong: !share.contains(u64::from(count)),
        }
    };
    let is_pod = |name: &str| pods.iter().any(|pod| pod.name == name);
    let strangers = hosts.iter().filter(|(name, _)| !is_pod(name));
    let strangers = strangers.map(|(name, count)| Pair {
        from: from.clone(),
        to: End::named(somebody(name)),
        expected: "0 answered".to_owned(),
        seen: format!("{count} answered"),
        wrong: true,
    });
    let pods = pods.iter().map(of_pod);
    Pairs {
        all: unanswered
            .into_iter()
            .chain(pods)
            .chain(strangers)
            .collect(),
        lost: None,
    }
}

/// Whether the only Pod of a Service that did not answer is the one that asked.
pub(crate) fn is_silent_to_itself(pairs: &Pairs, from: &Party) -> bool {
    let of_pods = pairs.all.iter().filter(|pair| pair.to.node.is_some());
    let mut wrong = of_pods.filter(|pair| pair.wrong);
    from.pod && wrong.next().is_some_and(|pair| pair.to.name == from.name) && wrong.next().is_none()
}

/// What a Pod needs to reach itself through a Service: its frame leaves its bridge by the port that it came from
/// (bridge(8), "hairpin").
pub(crate) fn look_at_hairpin(from: &Party) -> String {
    format!(
        "{from} reaches every Pod of the Service but itself: has its port of the bridge hairpin mode? On {}: \
         `bridge -d link | grep -A2 veth`; then the CNI files (`hairpinMode` of the bridge plugin)",
        node_name(from.node)
    )
}

/// The requests to a target that ended in one of these ways, if any did.
fn to_target(
    from: &End,
    report: &TargetReport,
    expected: String,
    of: &dyn Fn(Outcome) -> bool,
) -> Option<Pair> {
    let mut counts: BTreeMap<Outcome, u32> = BTreeMap::new();
    for result in report.results.iter().filter(|it| of(it.outcome)) {
        *counts.entry(result.outcome).or_default() += result.count;
    }
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let mut seen: Vec<String> = counts
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    if seen.is_empty() {
        return None;
    }
    if report.unsent > 0 {
        seen.push(format!("{} not sent any more", report.unsent));
    }
    Some(Pair {
        from: from.clone(),
        to: End::named(&report.target),
        expected,
        seen: seen.join(", "),
        wrong: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_probe::Counted;

    fn pod(name: &str) -> Party {
        Party::new(name, 1, true, [10, 1, 1, 2])
    }

    fn report(counts: &[(Outcome, &str, u32)]) -> TargetReport {
        let result = |(outcome, host, count): &(Outcome, &str, u32)| Counted {
            outcome: *outcome,
            host: (*outcome == Outcome::Answered).then(|| (*host).to_owned()),
            client: None,
            count: *count,
            octets: None,
            slowest_ms: None,
            error: None,
        };
        TargetReport {
            target: "10.0.0.42:80".into(),
            results: counts.iter().map(result).collect(),
            unsent: 0,
            attempts: vec![],
        }
    }

    fn told(pairs: &Pairs) -> String {
        let lines = pairs.all.iter().map(|it| {
            let wrong = if it.wrong { "WRONG " } else { "" };
            format!(
                "{wrong}{} -> {}: {} instead of {}\n",
                it.from.name, it.to, it.seen, it.expected
            )
        });
        lines.collect()
    }

    #[test]
    fn a_service_s_requests_are_told_by_who_answered_and_whoever_did_not() {
        let band = Band { low: 65, high: 135 };
        let report = report(&[
            (Outcome::Answered, "a", 90),
            (Outcome::Answered, "b", 20),
            (Outcome::Answered, "c", 1),
            (Outcome::TimedOut, "", 89),
        ]);
        let pairs = shared(
            &End::from(&pod("asker")),
            &report,
            &[pod("a"), pod("b")],
            band,
        );
        insta::assert_snapshot!(told(&pairs), @"
        WRONG asker -> 10.0.0.42:80: 89 timed out instead of all answered
        asker -> a (10.1.1.2 on node1): 90 answered instead of 65 to 135 answered
        WRONG asker -> b (10.1.1.2 on node1): 20 answered instead of 65 to 135 answered
        WRONG asker -> c: 1 answered instead of 0 answered
        ");
    }

    #[test]
    fn who_may_answer_may_do_so_any_number_of_times_and_nobody_else_once() {
        let report = report(&[(Outcome::Answered, "a", 7), (Outcome::Answered, "", 1)]);
        let pairs = shared(
            &End::from(&pod("asker")),
            &report,
            &[pod("a"), pod("b")],
            WHOEVER,
        );
        insta::assert_snapshot!(told(&pairs), @"
        asker -> a (10.1.1.2 on node1): 7 answered instead of any number answered
        asker -> b (10.1.1.2 on node1): 0 answered instead of any number answered
        WRONG asker -> somebody without a name: 1 answered instead of 0 answered
        ");
    }

    #[test]
    fn a_pod_that_alone_does_not_reach_itself_is_told_from_one_that_nobody_reaches() {
        let [a, b, c] = ["a", "b", "c"].map(pod);
        let silent = |from: &Party, answered: &[(Outcome, &str, u32)]| {
            let all = [a.clone(), b.clone(), c.clone()];
            let pairs = shared(&End::from(from), &report(answered), &all, ANY);
            is_silent_to_itself(&pairs, from)
        };
        let not_a = [
            (Outcome::Answered, "b", 7),
            (Outcome::Answered, "c", 7),
            (Outcome::TimedOut, "", 7),
        ];
        assert!(silent(&a, &not_a));
        assert!(!silent(&b, &not_a));
        assert!(!silent(&a, &not_a[..1]));
        assert!(!silent(
            &a,
            &[not_a[0], not_a[1], (Outcome::Answered, "a", 1)]
        ));
        let node = Party::new("a", 1, false, [172, 30, 0, 11]);
        assert!(!silent(&node, &not_a));
    }

    #[test]
    fn a_target_s_requests_are_one_pair_and_none_where_none_was_sent() {
        let both = report(&[(Outcome::TimedOut, "", 16), (Outcome::Answered, "a", 3)]);
        let pairs = asked(&End::from(&pod("asker")), &both, Outcome::Answered);
        insta::assert_snapshot!(told(&pairs), @"WRONG asker -> 10.0.0.42:80: 3 answered, 16 timed out instead of all answered");
        assert_eq!(
            asked(&End::from(&pod("asker")), &report(&[]), Outcome::Answered).all,
            []
        );
    }
}
