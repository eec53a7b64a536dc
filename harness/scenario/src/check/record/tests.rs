//! What is said of traffic, on records that are drawn.

use super::*;
use crate::check::clock::ClockReading;
use podwire_probe::Octets;
use proptest::prelude::*;

/// One request every 100 ms: a small letter is who answered, after 10 ms; `R` refused, `T` timed
/// out after 5 s, `?` under way, `.` answered by somebody without a name.
pub(crate) fn record(requests: &str, marks: &[(u64, &str)]) -> Record {
    let end = |letter: char| {
        let (outcome, millis, host) = match letter {
            'R' => (Outcome::Refused, 1, None),
            'T' => (Outcome::TimedOut, 5000, None),
            '?' => return None,
            '.' => (Outcome::Answered, 10, None),
            host => (Outcome::Answered, 10, Some(format!("blue-{host}"))),
        };
        Some(Attempt {
            outcome,
            millis,
            host,
            client: None,
            octets: None,
            error: None,
        })
    };
    let requests: Vec<Sent> = (requests.chars().enumerate())
        .map(|(number, letter)| Sent {
            at_ms: number as u64 * 100,
            end: end(letter),
        })
        .collect();
    // It began when it was asked, to within 40 ms.
    let now = Instant::now();
    let reading = ClockReading {
        asked: now,
        elapsed_ms: 40,
        told: now + Duration::from_millis(80),
    };
    Record {
        from: "blue-f (10.1.1.9 on node1)".into(),
        began_ms: 12_300,
        sent: TrafficRecord {
            request: TrafficRequest::new("10.0.0.55:80"),
            started_unix_ms: 1_700_000_000_000,
            elapsed_ms: requests.len() as u64 * 100,
            missed: 0,
            ended: Some(TrafficEnd::Stopped),
            requests,
        },
        marks: marks
            .iter()
            .map(|(at_ms, text)| Mark {
                at_ms: *at_ms,
                text: (*text).into(),
            })
            .collect(),
        nodes: [("blue-a".into(), 1), ("blue-b".into(), 2)].into(),
        asked: ('a'..='z').map(|letter| format!("blue-{letter}")).collect(),
        clock: Clock::of(reading, &[]),
        until_ms: 0,
    }
}

/// The same after a second in which nothing was sent, from the request with this number on.
fn held_up(mut record: Record, from: usize) -> Record {
    for sent in &mut record.sent.requests[from..] {
        sent.at_ms += 1000;
    }
    record
}

#[test]
fn answers_follow_a_change_from_its_acceptance_on() {
    // One after each 100 ms, 10 ms later; two that were lost meanwhile.
    let record = record("aaaaTaRbabbbb", &[]);
    let accepted = record.clock.base + Duration::from_millis(350);
    let followed = record.followed("blue-a", "blue-b", accepted).unwrap();
    assert_eq!(followed.first_right, Duration::from_millis(360));
    assert_eq!(followed.last_stale, Duration::from_millis(460));
    assert_eq!(record.lost(), 2);
    assert!(record.last_answered_by("blue-b", 4));
    assert!(!record.last_answered_by("blue-b", 5) && !record.last_answered_by("blue-a", 1));
    assert!(!record.last_answered_by("blue-b", 14));
    assert_eq!(record.followed("blue-a", "blue-c", accepted), None);
    // Nothing of the old one comes after it, and the new one was there at once.
    let later = record.clock.base + Duration::from_secs(60);
    let at_once = record.followed("blue-a", "blue-b", later).unwrap();
    assert_eq!(
        (at_once.first_right, at_once.last_stale),
        Default::default()
    );
}

#[test]
fn what_was_not_asked_is_no_answer() {
    let limit = Duration::from_millis(800);
    let record = record("aaaa", &[(50, "drain")]);
    assert_eq!(record.gap_at_most(limit), Ok(()));
    let silent = held_up(record.clone(), 2);
    let failure = silent.gap_at_most(limit).unwrap_err();
    assert_eq!(failure.cause, Cause::Absent);
    insta::assert_snapshot!(failure, @r#"expected no gap longer than 0.8 s; seen (absent): nothing was sent for 1.0 s from +0.1 s on, after "drain": whether anybody would have answered is not known"#);
    assert!(silent.disturbed_at_most(limit, SECOND).is_err());
    assert_eq!(silent.gap_at_most(SECOND), Ok(()));
    // At its beginning and at its end.
    assert!(held_up(record.clone(), 0).gap_at_most(limit).is_err());
    let stopped_early = Record {
        until_ms: 1400,
        ..record
    };
    let failure = stopped_early.gap_at_most(limit).unwrap_err();
    assert!(
        failure
            .seen
            .starts_with("nothing was sent for 1.0 s from +0.3 s on")
    );
}

#[test]
fn an_answer_that_names_nobody_counts_for_nobody() {
    let record = record("aa.a", &[]);
    let wrong = |failure: Result<(), Failure>| failure.unwrap_err().cause == Cause::WrongAnswer;
    assert!(wrong(record.all_accounted()));
    assert!(wrong(record.gap_at_most(SECOND)));
    let moment = record.clock.base;
    assert!(wrong(record.nobody_after(&[pod("blue-b")], moment)));
}

#[test]
fn an_answer_of_somebody_else_is_none_of_the_target_s() {
    let mut record = record("aabba", &[]);
    assert_eq!(record.gap_at_most(SECOND), Ok(()));
    record.asked.remove("blue-b");
    let failure = record.gap_at_most(SECOND).unwrap_err();
    assert_eq!(failure.cause, Cause::WrongAnswer);
    assert!(record.disturbed_at_most(SECOND, SECOND).is_err());
    let cause = record.all_accounted().map_err(|failure| failure.cause);
    assert_eq!(cause, Err(Cause::WrongAnswer));
    assert_eq!(record.right_after(record.clock.base), 2);
    record.asked = ["blue-x".to_owned(), "blue-y".to_owned()].into();
    insta::assert_snapshot!(record.all_accounted().unwrap_err().seen, @r"
    10.0.0.55:80 leads to blue-x, blue-y, and others answered:
      blue-a: 3 times
      blue-b: 2 times
    ");
    assert_eq!(record.right_after(record.clock.base), 0);
}

#[test]
fn a_record_that_makes_no_sense_or_is_another_s_is_none() {
    let good = || {
        let mut sent = record("aTa", &[]).sent;
        sent.elapsed_ms = 6000;
        sent
    };
    let request = good().request;
    assert_eq!(misrecorded(&request, &good()), None);
    let wrong = |change: &dyn Fn(&mut TrafficRecord)| {
        let mut record = good();
        change(&mut record);
        misrecorded(&request, &record).is_some()
    };
    assert!(wrong(&|it| it.request.interval_ms = 60_000));
    assert!(wrong(&|it| it.elapsed_ms = u64::MAX));
    assert!(wrong(&|it| it.elapsed_ms = 5000));
    assert!(wrong(&|it| it.requests[0].at_ms = 150));
    assert!(wrong(&|it| it.requests[2].at_ms = u64::MAX));
    assert!(wrong(&|it| {
        let end = it.requests[0].end.as_mut().unwrap();
        end.octets = Some(Octets::default());
    }));
}

fn pod(name: &str) -> Party {
    Party::new(name, 2, true, [10, 1, 2, 2])
}

fn spans(gaps: &[Gap]) -> Vec<(u64, u64, usize)> {
    let span = |gap: &Gap| (millis(gap.from), millis(gap.to), gap.requests());
    gaps.iter().map(span).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_gap_lasts_until_the_next_request_that_is_answered() {
    let record = record("aRRaaTRaR", &[]);
    assert_eq!(
        spans(&record.gaps()),
        [(100, 300, 2), (500, 700, 2), (800, 801, 1)]
    );
    // Of two as long, the first one.
    assert_eq!(
        record.longest_gap().unwrap().from,
        Duration::from_millis(100)
    );
    assert_eq!(spans(&record.disturbances(SECOND)), [(100, 801, 5)]);
    let short = Duration::from_millis(201);
    assert_eq!(spans(&record.disturbances(short)).len(), 2);
}

#[test]
fn nothing_is_said_of_what_is_under_way() {
    let record = record("aRaR??", &[]);
    assert_eq!(spans(&record.gaps()), [(100, 200, 1), (300, 301, 1)]);
    assert_eq!(
        record.totals(),
        "6 sent = 2 answered + 2 refused + 2 without an end"
    );
}

#[test]
fn a_segment_lasts_from_step_to_step() {
    let record = record("aabRRb", &[(200, "drain"), (401, "join")]);
    let of = |segment: &Segment| {
        let answered: usize = segment.answered.values().sum();
        let failed: usize = segment.failed.values().sum();
        (segment.step.clone().unwrap_or_default(), answered, failed)
    };
    let segments: Vec<_> = record.segments().iter().map(of).collect();
    let expected = [("", 2, 0), ("drain", 1, 2), ("join", 1, 0)];
    assert_eq!(
        segments,
        expected.map(|(step, a, f)| (step.to_owned(), a, f))
    );
    assert_eq!(record.segments()[0].answered["blue-a"], 2);
}

#[test]
fn accounting_wants_an_end_of_every_request() {
    assert!(record("aRT", &[]).all_accounted().is_ok());
    let open = record("a?b", &[]).all_accounted().unwrap_err();
    insta::assert_snapshot!(open, @r"
    expected every request of the steady traffic to be accounted for; seen (absent): 1 of 3 requests have no end:
      number 1, sent at +0.1 s
    ");
    assert_eq!(
        record("", &[]).all_accounted().unwrap_err().cause,
        Cause::Absent
    );
    let mut full = record("ab", &[]);
    full.sent.ended = Some(TrafficEnd::Full);
    assert!(full.all_accounted().unwrap_err().seen.contains("was full"));
}

#[test]
fn the_longest_gap_decides_and_is_told_with_the_step_before_it() {
    let record = record("aRaRTTTa", &[(250, "drain node3")]);
    let limit = Duration::from_millis;
    assert!(record.gap_at_most(limit(400)).is_ok());
    let failure = record.gap_at_most(limit(399)).unwrap_err();
    assert_eq!(failure.cause, Cause::TimedOut);
    insta::assert_snapshot!(failure, @r#"expected no gap longer than 0.4 s; seen (timed out): 0.4 s from +0.3 s to +0.7 s: 4 requests (1 refused, 3 timed out), after "drain node3"; the longest of 2"#);
    assert!(record.disturbed_at_most(limit(600), SECOND).is_ok());
    assert!(record.disturbed_at_most(limit(599), SECOND).is_err());
}

#[test]
fn without_an_answer_no_gap_is_short_enough() {
    let dead = record("RR", &[]).gap_at_most(SECOND).unwrap_err();
    assert_eq!(dead.cause, Cause::Refused);
    assert_eq!(
        record("", &[]).gap_at_most(SECOND).unwrap_err().cause,
        Cause::Absent
    );
}

#[test]
fn how_requests_ended_after_a_moment_is_told_in_order() {
    let record = record("aaRb?", &[]);
    let after = |ms| record.outcomes_after(record.clock.base + Duration::from_millis(ms));
    assert_eq!(after(159), [Outcome::Refused, Outcome::Answered]);
    // The clocks may be 40 ms apart.
    assert_eq!(after(160), [Outcome::Answered]);
}

#[test]
fn who_answers_after_a_moment_counts_only_when_it_was_surely_after() {
    let record = record("aabbab", &[]);
    let at = |ms| record.clock.base + Duration::from_millis(ms);
    let (a, b) = (pod("blue-a"), pod("blue-b"));
    // The last answer of a is to the request of 400 ms, and the clocks may be 40 ms apart.
    assert!(
        record
            .nobody_after(std::slice::from_ref(&a), at(361))
            .is_ok()
    );
    let late = record
        .nobody_after(&[a.clone(), b.clone()], at(359))
        .unwrap_err();
    assert_eq!(late.cause, Cause::WrongAnswer);
    insta::assert_snapshot!(late, @r"
    expected none of 2 Pods to answer after +0.4 s; seen (wrong answer): answered all the same:
      blue-a: 1 times, last at +0.4 s
      blue-b: 1 times, last at +0.5 s
    ");
    assert!(record.each_after(&[a.clone(), b.clone()], at(0)).is_ok());
    let silent = record.each_after(&[a, b], at(361)).unwrap_err();
    assert_eq!(silent.cause, Cause::Absent);
    insta::assert_snapshot!(silent, @r"
    expected each of 2 Pods to answer after +0.4 s; seen (absent): no answer from:
      blue-a (10.1.2.2 on node2)
    ");
}

proptest! {
    #[test]
    fn every_failure_is_in_one_gap_and_every_request_in_one_segment(
        requests in "[abRT?]{0,80}",
        mut steps in prop::collection::vec(0_u64..9000, 0..6),
        quiet in 1_u64..3000,
    ) {
        steps.sort_unstable();
        let marks: Vec<(u64, &str)> = steps.iter().map(|at| (*at, "step")).collect();
        let record = record(&requests, &marks);
        let failed = record.count(Outcome::Refused) + record.count(Outcome::TimedOut);
        let answered: usize = record.backends().values().sum();
        prop_assert_eq!(record.sent.requests.len(), failed + answered + record.sent.in_flight());
        for gaps in [record.gaps(), record.disturbances(Duration::from_millis(quiet))] {
            prop_assert_eq!(gaps.iter().map(Gap::requests).sum::<usize>(), failed);
            for pair in gaps.windows(2) {
                prop_assert!(pair[0].from < pair[1].from);
            }
        }
        for pair in record.gaps().windows(2) {
            prop_assert!(pair[0].to < pair[1].from);
        }
        let segments = record.segments();
        prop_assert_eq!(segments.len(), marks.len() + 1);
        for pair in segments.windows(2) {
            prop_assert_eq!(pair[0].to, pair[1].from);
        }
        let in_segments = |segment: &Segment| {
            segment.answered.values().sum::<usize>() + segment.failed.values().sum::<usize>()
        };
        prop_assert_eq!(segments.iter().map(in_segments).sum::<usize>(), failed + answered);
    }
}
