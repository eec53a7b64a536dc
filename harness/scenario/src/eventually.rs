//! Waiting for a condition, with a named limit, a memory, and an eye for what will never come.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::{Cause, Failure};

/// What one look at the condition found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe<T> {
    /// It holds.
    Done(T),
    /// It does not.
    Lacking(Lacking),
}

/// What a look found instead of the condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    cause: Cause,
    state: String,
    look: Option<String>,
    evidence: Option<Evidence>,
}

/// Why what is waited for is not on its way.
///
/// That a state stays as it is proves nothing on a slow machine. Evidence names what would have to
/// act and does not, or has acted already: a process that does not run, rules that are complete, an
/// answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    why: String,
    looks: u32,
    look: Option<String>,
}

impl Evidence {
    /// One look that finds this is enough: nothing can change it.
    pub fn certain(why: impl Into<String>) -> Self {
        Self::unchanged_for(1, why)
    }

    /// So many looks in a row must find this: something might still act in between.
    pub fn unchanged_for(looks: u32, why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            looks,
            look: None,
        }
    }

    /// The same, saying where to look first.
    #[must_use]
    pub fn look(mut self, at: impl Into<String>) -> Self {
        self.look = Some(at.into());
        self
    }

    /// Why, in words.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl<T> Probe<T> {
    /// Not yet, and what there is instead.
    pub fn not_yet(cause: Cause, state: impl Into<String>) -> Self {
        Self::Lacking(Lacking {
            cause,
            state: state.into(),
            look: None,
            evidence: None,
        })
    }

    /// It never will, as the state itself says: waiting on would only hide the reason.
    pub fn hopeless(cause: Cause, state: impl Into<String>) -> Self {
        Self::not_yet(cause, state).given(Some(Evidence::certain("")))
    }

    /// The same, with what was found out about its prospects.
    #[must_use]
    fn given(mut self, found: Option<Evidence>) -> Self {
        if let Self::Lacking(lacking) = &mut self {
            lacking.evidence = found;
        }
        self
    }

    /// The same, saying where to look first. What its evidence says comes before that.
    #[must_use]
    pub fn look(mut self, at: impl Into<String>) -> Self {
        if let Self::Lacking(lacking) = &mut self {
            lacking.look = Some(at.into());
        }
        self
    }
}

const PAUSE: Duration = Duration::from_millis(500);

/// Looks until the condition holds, a look finds it hopeless, or the limit has passed.
///
/// An event to wait for is better where there is one; this is for the rest. The limit is in host
/// time, already stretched for the machine's speed (see [`Lab::limit`](crate::Lab::limit)). One
/// last look is taken after the limit, so that a slow probe is not mistaken for a dead cluster.
///
/// # Errors
/// A [`Failure`] with the last state, since when it was so, and the history of distinct states with
/// their times; an error of `look` itself ends the wait at once.
pub async fn eventually<T>(
    expected: &str,
    limit: Duration,
    look: impl AsyncFnMut() -> anyhow::Result<Probe<T>>,
) -> anyhow::Result<T> {
    wait(expected, limit, Duration::ZERO, async || Ok(None), look).await
}

/// What would have to act is asked after this long, and not more often: each question is work for
/// the guest that is waited for.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(2);

/// As [`eventually`], and ends as well when `prospects` says so: it looks at what would have to act
/// for the condition to hold, and is asked from time to time while the condition does not.
///
/// # Errors
/// As [`eventually`]; an error of `prospects` is no evidence.
pub async fn eventually_unless<T>(
    expected: &str,
    limit: Duration,
    prospects: impl AsyncFnMut() -> anyhow::Result<Option<Evidence>>,
    look: impl AsyncFnMut() -> anyhow::Result<Probe<T>>,
) -> anyhow::Result<T> {
    wait(expected, limit, BETWEEN_QUESTIONS, prospects, look).await
}

async fn wait<T>(
    expected: &str,
    limit: Duration,
    between_questions: Duration,
    mut prospects: impl AsyncFnMut() -> anyhow::Result<Option<Evidence>>,
    mut look: impl AsyncFnMut() -> anyhow::Result<Probe<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut watch = Watch::new(limit);
    let mut asked = started;
    loop {
        let began = started.elapsed();
        let mut lacking = match look().await? {
            Probe::Done(value) => return Ok(value),
            Probe::Lacking(lacking) => lacking,
        };
        let told = if lacking.evidence.is_some() {
            true
        } else if asked.elapsed() >= between_questions {
            // A node that cannot be asked must not turn a red verdict into none.
            lacking.evidence = prospects().await.unwrap_or_default();
            asked = Instant::now();
            true
        } else {
            false
        };
        if let Some(why) = watch.note(began, started.elapsed(), &lacking, told) {
            return Err(watch.failure(expected, &lacking, &why).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What the looks at a condition have found, by times since the first one began.
#[derive(Debug)]
struct Watch {
    limit: Duration,
    looks: u32,
    /// Distinct states, and when each was seen first.
    history: Vec<(Duration, String)>,
    /// The evidence of the last looks, when it was found first, and in how many of them.
    evidence: Option<(String, Duration, u32)>,
}

impl Watch {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            looks: 0,
            history: Vec::new(),
            evidence: None,
        }
    }

    /// Takes note of a look; why it was the last one, if it was. `asked` tells one without evidence
    /// from one that did not ask for any.
    fn note(
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
                match known.filter(|(why, ..)| *why == found.why) {
                    Some((why, since, looks)) => (why, since, looks + 1),
                    None => (found.why.clone(), ended, 1),
                }
            });
        }
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        if let (Some((_, since, looks)), Some(found)) = (&self.evidence, &lacking.evidence)
            && *looks >= found.looks
        {
            let clear = seconds(*since);
            return Some(if found.looks == 1 {
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

    fn failure(&self, expected: &str, last: &Lacking, why: &str) -> Failure {
        let mut seen = format!("{} ({why})", last.text());
        if self.history.len() > 1 {
            seen.push_str("; states on the way:");
            for (at, state) in &self.history {
                // Writing to a String cannot fail.
                let _ = write!(seen, "\n  {:6.1} s  {state}", at.as_secs_f64());
            }
        }
        let failure = Failure::new(last.cause, expected, seen);
        let of_evidence = last.evidence.as_ref().and_then(|found| found.look.as_ref());
        match of_evidence.or(last.look.as_ref()) {
            Some(at) => failure.look(at),
            None => failure,
        }
    }
}

impl Lacking {
    fn text(&self) -> String {
        match self.evidence.as_ref().map(Evidence::why) {
            None | Some("") => self.state.clone(),
            Some(why) => format!("{}: {why}", self.state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: &anyhow::Error) -> &Failure {
        error.downcast_ref().unwrap()
    }

    fn lacking(state: &str, evidence: Option<Evidence>) -> Lacking {
        let Probe::<()>::Lacking(lacking) = Probe::not_yet(Cause::NotReady, state).given(evidence)
        else {
            unreachable!()
        };
        lacking
    }

    /// The looks, one a second, until one was the last: its number from 1, and the failure.
    fn watched(looks: &[Lacking]) -> Option<(usize, Failure)> {
        let mut watch = Watch::new(Duration::from_secs(60));
        looks.iter().zip(1..).find_map(|(lacking, number)| {
            let began = Duration::from_secs(number);
            let ended = began + Duration::from_millis(200);
            let why = watch.note(began, ended, lacking, true)?;
            let failure = watch.failure("it to work", lacking, &why);
            Some((usize::try_from(number).unwrap(), failure))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_ends_the_wait() {
        let mut looks = 0;
        let value = eventually("three looks", Duration::from_secs(10), async || {
            looks += 1;
            Ok(if looks == 3 {
                Probe::Done(looks)
            } else {
                Probe::not_yet(Cause::Absent, "too early")
            })
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_out_tells_the_distinct_states_with_times() {
        let started = Instant::now();
        let error = eventually("ready", Duration::from_secs(2), async || {
            let state = if started.elapsed() < Duration::from_secs(1) {
                "a"
            } else {
                "b"
            };
            Ok(Probe::<()>::not_yet(Cause::NotReady, state))
        })
        .await
        .unwrap_err();
        insta::assert_snapshot!(failure(&error), @"
        expected ready; seen (not ready): b (so since 1.0 s, still after the limit of 2 s, 5 looks); states on the way:
             0.0 s  a
             1.0 s  b
        ");
    }

    #[tokio::test(start_paused = true)]
    async fn hopeless_does_not_wait_for_the_limit() {
        let started = Instant::now();
        let error = eventually("ready", Duration::from_secs(600), async || {
            Ok(Probe::<()>::hopeless(Cause::Died, "kubelet exited"))
        })
        .await
        .unwrap_err();
        assert_eq!(failure(&error).cause, Cause::Died);
        insta::assert_snapshot!(failure(&error).seen, @"kubelet exited (hopeless, clear after 0.0 s)");
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_look_is_no_failure_of_the_cluster() {
        let error = eventually::<()>("x", Duration::from_secs(1), async || {
            anyhow::bail!("the node is gone")
        })
        .await
        .unwrap_err();
        assert!(error.downcast_ref::<Failure>().is_none());
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

    #[tokio::test(start_paused = true)]
    async fn what_would_have_to_act_is_asked_now_and_then_and_ends_the_wait() {
        let started = Instant::now();
        let mut questions = Vec::new();
        let stopped = async || {
            questions.push(started.elapsed().as_secs());
            Ok(Some(Evidence::unchanged_for(3, "the kubelet is stopped")))
        };
        let error = eventually_unless("ready", Duration::from_secs(600), stopped, async || {
            Ok(Probe::<()>::not_yet(Cause::NotReady, "no Node"))
        })
        .await
        .unwrap_err();
        assert_eq!(questions, [2, 4, 6]);
        let seen = &failure(&error).seen;
        assert!(seen.contains("clear after 2.0 s, waited 6.0 s"), "{seen}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_asked_is_no_evidence() {
        let silent = async || anyhow::bail!("the node does not answer");
        let error = eventually_unless("ready", Duration::from_secs(10), silent, async || {
            Ok(Probe::<()>::not_yet(Cause::NotReady, "no Node"))
        })
        .await
        .unwrap_err();
        assert_eq!(failure(&error).cause, Cause::NotReady);
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
            Watch::new(Duration::ZERO).failure("x", &lacking, "y").look
        };
        assert_eq!(own(None), "the events");
        assert_eq!(own(Some(Evidence::certain("dead"))), "the events");
        let evidence = Evidence::certain("dead").look("its journal");
        assert_eq!(own(Some(evidence)), "its journal");
    }
}
