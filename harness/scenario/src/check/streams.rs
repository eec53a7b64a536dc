//! What is told of a connection that stays open.

use std::time::Duration;

use podwire_probe::{StreamReport, StreamRequest};

use crate::check::assert::somebody;
use crate::check::failure::{Cause, Failure};
use crate::check::party::Party;
use crate::check::record::A_YEAR;

/// Guests count time by clocks of their own; none is as fast as that.
const TWICE: u128 = 2;

/// A stream of this lab's, or one that it was begun with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// What was asked for, where this lab did.
    pub(crate) asked: Option<StreamRequest>,
    /// What was told last.
    pub(crate) before: Option<StreamReport>,
}

/// Where a sender's report of a stream is about something else than it was asked for, differs from what it has
/// told already, or makes no sense. It was opened so long ago by the host's clock, where that is known.
pub(crate) fn misreported(
    told: &Told,
    report: &StreamReport,
    age: Option<Duration>,
) -> Option<String> {
    let Told { asked, before } = told;
    if let Some(asked) = asked.filter(|asked| *asked != report.request) {
        return Some(format!("asked {asked:?}, reported {:?}", report.request));
    }
    if let Some(before) = before {
        let less = report.echoed < before.echoed || report.longest_ms < before.longest_ms;
        let over = before.failure.is_some() && before != report;
        // A connection leads to one and the same for as long as it lives.
        let other = (&before.request, &before.host) != (&report.request, &report.host);
        if less || over || other {
            return Some(format!("{before:?}, and then {report:?}"));
        }
    }
    let age = age.unwrap_or(A_YEAR);
    let most_ms = age.as_millis().saturating_mul(TWICE);
    let StreamReport {
        request,
        echoed,
        longest_ms,
        ..
    } = report;
    // The first one goes at once, and each when the one before it has been back for so long.
    let paces = u128::from(echoed.saturating_sub(1)) * u128::from(request.interval_ms);
    if paces > most_ms || u128::from(*longest_ms) > most_ms {
        return Some(format!(
            "{echoed} numbers came back, one every {} ms at most, and one was away for {longest_ms} ms, in {} ms",
            request.interval_ms,
            age.as_millis()
        ));
    }
    None
}

/// Who says the numbers of an open connection back is one of these, by its own name.
///
/// # Errors
/// A [`Failure`] of [`Cause::WrongAnswer`] with who it is.
pub fn said_back_by(report: &StreamReport, parties: impl AsRef<[Party]>) -> Result<(), Failure> {
    let parties = parties.as_ref();
    if parties.iter().any(|it| it.name == report.host) {
        return Ok(());
    }
    let names: Vec<String> = parties.iter().map(ToString::to_string).collect();
    let expected = format!("numbers to be said back by {}", names.join(" or "));
    let seen = format!(
        "{} says them back, who was not asked",
        somebody(&report.host)
    );
    let failure = Failure::new(Cause::WrongAnswer, expected, seen);
    Err(failure.look("`conntrack -L` of the asking node: where does the connection lead?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn report(echoed: u64, longest_ms: u64) -> StreamReport {
        StreamReport {
            request: StreamRequest {
                to: SocketAddr::from(([10, 1, 2, 2], 80)),
                interval_ms: 50,
            },
            host: "blue-b".into(),
            echoed,
            longest_ms,
            failure: None,
        }
    }

    fn fresh() -> Told {
        Told {
            asked: Some(report(0, 0).request),
            before: None,
        }
    }

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn a_report_is_about_what_was_asked_for() {
        assert_eq!(misreported(&fresh(), &report(20, 30), SECOND), None);
        let mut slower = report(20, 30);
        slower.request.interval_ms = 5000;
        let wrong = misreported(&fresh(), &slower, SECOND).unwrap();
        insta::assert_snapshot!(wrong, @"asked StreamRequest { to: 10.1.2.2:80, interval_ms: 50 }, reported StreamRequest { to: 10.1.2.2:80, interval_ms: 5000 }");
        // Of one that another lab opened only this is known.
        let older = Told {
            asked: None,
            before: None,
        };
        assert_eq!(misreported(&older, &slower, None), None);
    }

    #[test]
    fn numbers_said_back_by_somebody_else_are_a_wrong_answer() {
        let by =
            |name: &str| said_back_by(&report(7, 30), Party::new(name, 2, true, [10, 1, 2, 2]));
        assert_eq!(by("blue-b"), Ok(()));
        let failure = by("blue-a").unwrap_err();
        assert_eq!(failure.cause, Cause::WrongAnswer);
        insta::assert_snapshot!(failure.expected, @"numbers to be said back by blue-a (10.1.2.2 on node2)");
        insta::assert_snapshot!(failure.seen, @"blue-b says them back, who was not asked");
        assert!(said_back_by(&report(7, 30), []).is_err());
    }

    #[test]
    fn more_than_its_time_holds_has_not_come_back_nor_been_away() {
        let wrong = |echoed, longest_ms| {
            misreported(&fresh(), &report(echoed, longest_ms), SECOND).is_some()
        };
        assert!(!wrong(41, 0));
        assert!(wrong(42, 0));
        assert!(!wrong(1, 2000));
        assert!(wrong(1, 2001));
        assert!(wrong(u64::MAX, 0) && wrong(0, u64::MAX));
        let older = Told {
            asked: None,
            before: None,
        };
        assert!(misreported(&older, &report(u64::MAX, 0), None).is_some());
        assert!(misreported(&older, &report(0, u64::MAX), None).is_some());
        assert_eq!(misreported(&older, &report(9999, 9999), None), None);
    }

    #[test]
    fn what_came_back_once_has_come_back() {
        let after = |before: StreamReport, now: &StreamReport| {
            let told = Told {
                before: Some(before),
                ..fresh()
            };
            misreported(&told, now, SECOND)
        };
        assert_eq!(after(report(7, 30), &report(7, 30)), None);
        assert_eq!(after(report(7, 30), &report(8, 31)), None);
        assert!(after(report(7, 30), &report(6, 30)).is_some());
        assert!(after(report(7, 30), &report(8, 29)).is_some());
        let elsewhere = StreamReport {
            host: "nginx".into(),
            ..report(8, 31)
        };
        assert!(after(report(7, 30), &elsewhere).is_some());
        let ended = StreamReport {
            failure: Some("reset".into()),
            ..report(7, 30)
        };
        assert_eq!(after(report(7, 30), &ended), None);
        assert_eq!(after(ended.clone(), &ended), None);
        assert!(after(ended.clone(), &report(7, 30)).is_some());
        assert!(after(ended.clone(), &StreamReport { echoed: 8, ..ended }).is_some());
    }
}
