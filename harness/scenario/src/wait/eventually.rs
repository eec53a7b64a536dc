//! Looking until a condition holds.

use std::time::Duration;

use tokio::time::Instant;

use crate::wait::evidence::Evidence;
use crate::wait::history::History;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

const PAUSE: Duration = Duration::from_millis(500);

/// What would have to act is asked after this long, and not more often: each question is work for
/// the guest that is waited for.
pub(crate) const BETWEEN_QUESTIONS: Duration = Duration::from_secs(2);

/// Looks until the condition holds, a look finds it hopeless, `ask` finds that who would have to act does
/// not, or the limit has passed. One last look is taken after it.
pub(crate) async fn wait<T>(
    expected: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut(&Needs) -> anyhow::Result<Option<Evidence>>,
    mut look: impl AsyncFnMut() -> anyhow::Result<Probe<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut history = History::new(limit);
    let mut asked = started;
    loop {
        let began = started.elapsed();
        let mut lacking = match look().await? {
            Probe::Done(value) => return Ok(value),
            Probe::Lacking(lacking) => lacking,
        };
        let told = if lacking.evidence.is_some() {
            true
        } else if asked.elapsed() >= BETWEEN_QUESTIONS {
            // A node that cannot be asked must not turn a red verdict into none.
            lacking.evidence = ask(&lacking.needs).await.unwrap_or_default();
            asked = Instant::now();
            true
        } else {
            false
        };
        if let Some(why) = history.note(began, started.elapsed(), &lacking, told) {
            return Err(history.failure(expected, &lacking, &why).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::failure::{Cause, Failure};

    fn failure(error: &anyhow::Error) -> &Failure {
        error.downcast_ref().unwrap()
    }

    async fn eventually<T>(
        expected: &str,
        limit: Duration,
        look: impl AsyncFnMut() -> anyhow::Result<Probe<T>>,
    ) -> anyhow::Result<T> {
        wait(expected, limit, async |_| Ok(None), look).await
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

    #[tokio::test(start_paused = true)]
    async fn what_would_have_to_act_is_asked_now_and_then_and_ends_the_wait() {
        let started = Instant::now();
        let mut questions = Vec::new();
        let stopped = async |needs: &Needs| {
            assert_eq!(*needs, Needs::Kubelet(2));
            questions.push(started.elapsed().as_secs());
            Ok(Some(Evidence::unchanged_for(3, "the kubelet is stopped")))
        };
        let error = wait("ready", Duration::from_secs(600), stopped, async || {
            Ok(Probe::<()>::not_yet(Cause::NotReady, "no Node").needs(Needs::Kubelet(2)))
        })
        .await
        .unwrap_err();
        assert_eq!(questions, [2, 4, 6]);
        let seen = &failure(&error).seen;
        assert!(seen.contains("clear after 2.0 s, waited 6.0 s"), "{seen}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_asked_is_no_evidence() {
        let silent = async |_: &Needs| anyhow::bail!("the node does not answer");
        let error = wait("ready", Duration::from_secs(10), silent, async || {
            Ok(Probe::<()>::not_yet(Cause::NotReady, "no Node"))
        })
        .await
        .unwrap_err();
        assert_eq!(failure(&error).cause, Cause::NotReady);
    }
}
