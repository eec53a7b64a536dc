//! What the looks at a condition have found, with times, and when it was clear.

use std::fmt::Write as _;
use std::time::Duration;

use crate::check::failure::Failure;
use crate::wait::evidence::Evidence;
use crate::wait::probe::Lacking;

/// What the looks at a condition have found, by times since the first one began.
#[derive(Debug)]
pub(crate) struct History {
    limit: Duration,
    looks: u32,
    /// Distinct states, and when each was seen first.
    history: Vec<(Duration, String)>,
    /// The evidence of the last looks, when it was found first, and in how many of them.
    evidence: Option<(String, Duration, u32)>,
}

impl History {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            looks: 0,
            history: Vec::new(),
            evidence: None,
        }
    }

    /// Takes note of a look; why it was the last one, if it was. `asked` tells one without evidence
    /// from one that did not ask for any.
    pub(crate) fn note(
        &mut self,
        began: Duration,
        ended: Duration,
        lacking: &Lacking,
        asked: bool,
    ) -> Option<String> {
        self.looks += 1;
        let state = &lacking.state;
        if self.history.last().is_none_or(|(_, known)| known != state) {
            self.history.push((ended, state.clone()));
        }
        if asked {
            let known = self.evidence.take();
            self.evidence = lacking.evidence.as_ref().map(|found| {
                match known.filter(|(why, ..)| *why == found.why()) {
                    Some((why, since, looks)) => (why, since, looks + 1),
                    None => (found.why().to_owned(), ended, 1),
                }
            });
        }
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        if let (Some((_, since, looks)), Some(found)) = (&self.evidence, &lacking.evidence)
            && *looks >= found.looks()
        {
            let clear = seconds(*since);
            return Some(if found.looks() == 1 {
                format!("hopeless, clear after {clear}")
            } else {
                let now = seconds(ended);
                format!("unchanged for {looks} looks, clear after {clear}, waited {now}")
            });
        }
        (began >= self.limit).then(|| {
            let since = self.history.last().map_or(ended, |(at, _)| *at);
            format!(
                "so since {}, still after the limit of {:.0} s, {} looks",
                seconds(since),
                self.limit.as_secs_f64(),
                self.looks
            )
        })
    }

    pub(crate) fn failure(&self, expected: &str, last: &Lacking, why: &str) -> Failure {
        let mut seen = format!("{} ({why})", last.text());
        if self.history.len() > 1 {
            seen.push_str("; states on the way:");
            for (at, state) in &self.history {
                // Writing to a String cannot fail.
                let _ = write!(seen, "\n  {:6.1} s  {state}", at.as_secs_f64());
            }
        }
        let mut failure = Failure::new(last.cause, expected, seen);
        failure.pairs.clone_from(&last.pairs);
        let of_evidence = last.evidence.as_ref().and_then(Evidence::place);
        match of_evidence.or(last.look.as_ref()) {
            Some(at) => failure.look(at),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::failure::Cause;
    use crate::wait::probe::Probe;

    fn lacking(state: &str, evidence: Option<Evidence>) -> Lacking {
        let Probe::<()>::Lacking(lacking) = Probe::not_yet(Cause::NotReady, state).given(evidence)
        else {
            unreachable!()
        };
        lacking
    }

    /// The looks, one a second, until one was the last: its number from 1, and the failure.
    fn watched(looks: &[Lacking]) -> Option<(usize, Failure)> {
        let mut history = History::new(Duration::from_secs(60));
        looks.iter().zip(1..).find_map(|(lacking, number)| {
            let began = Duration::from_secs(number);
            let ended = began + Duration::from_millis(200);
            let why = history.note(began, ended, lacking, true)?;
            let failure = history.failure("it to work", lacking, &why);
            Some((usize::try_from(number).unwrap(), failure))
        })
    }

    #[test]
    fn evidence_that_stays_ends_the_wait_and_says_since_when() {
        let stands_still = || Some(Evidence::unchanged_for(3, "kube-proxy does not run"));
        let early = lacking("no answer", None);
        // What varies from look to look beside the evidence does not matter.
        let looks = [
            early,
            lacking("no answer", stands_still()),
            lacking("no answer from a", stands_still()),
            lacking("no answer from b", stands_still()),
        ];
        let (last, failure) = watched(&looks).unwrap();
        assert_eq!(last, 4);
        insta::assert_snapshot!(failure, @"
        expected it to work; seen (not ready): no answer from b: kube-proxy does not run (unchanged for 3 looks, clear after 2.2 s, waited 4.2 s); states on the way:
             1.2 s  no answer
             3.2 s  no answer from a
             4.2 s  no answer from b
        ");
    }

    #[test]
    fn a_state_that_stays_without_evidence_ends_nothing() {
        assert_eq!(watched(&vec![lacking("no answer", None); 50]), None);
    }

    #[test]
    fn evidence_that_goes_or_changes_is_counted_anew() {
        let of = |why: &str| lacking("no answer", Some(Evidence::unchanged_for(2, why)));
        let looks = [
            of("a"),
            lacking("no answer", None),
            of("a"),
            of("b"),
            of("b"),
        ];
        assert_eq!(watched(&looks).map(|(last, _)| last), Some(5));
    }

    #[test]
    fn the_evidence_says_where_to_look_before_the_look_does() {
        let own = |evidence| {
            let probe = Probe::<()>::not_yet(Cause::Absent, "none").look("the events");
            let Probe::Lacking(lacking) = probe.given(evidence) else {
                unreachable!()
            };
            History::new(Duration::ZERO)
                .failure("x", &lacking, "y")
                .look
        };
        assert_eq!(own(None), "the events");
        assert_eq!(own(Some(Evidence::certain("dead"))), "the events");
        let evidence = Evidence::certain("dead").look("its journal");
        assert_eq!(own(Some(evidence)), "its journal");
    }
}
