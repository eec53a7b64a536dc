//! Waiting for a condition, with a named limit and a memory.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::{Cause, Failure};

/// What one look at the condition found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe<T> {
    /// It holds.
    Done(T),
    /// Not yet, and why.
    NotYet(Cause, String),
    /// It never will, and why: waiting on would only hide the reason.
    Hopeless(Cause, String),
}

const PAUSE: Duration = Duration::from_millis(500);

/// Looks until the condition holds, is hopeless, or the limit has passed.
///
/// An event to wait for is better where there is one; this is for the rest. The limit is in host
/// time, already stretched for the machine's speed (see [`Lab::limit`](crate::Lab::limit)). One
/// last look is taken after the limit, so that a slow probe is not mistaken for a dead cluster.
///
/// # Errors
/// A [`Failure`] with the last state and the history of distinct states with their times; an error
/// of `look` itself ends the wait at once.
pub async fn eventually<T>(
    expected: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Probe<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut history: Vec<(Duration, String)> = Vec::new();
    let mut looks = 0_u32;
    loop {
        let last = started.elapsed() >= limit;
        looks += 1;
        let (cause, state, hopeless) = match look().await? {
            Probe::Done(value) => return Ok(value),
            Probe::NotYet(cause, state) => (cause, state, false),
            Probe::Hopeless(cause, state) => (cause, state, true),
        };
        if history.last().is_none_or(|(_, known)| *known != state) {
            history.push((started.elapsed(), state.clone()));
        }
        if hopeless || last {
            let waited = if hopeless {
                format!("hopeless after {:.1} s", started.elapsed().as_secs_f64())
            } else {
                format!(
                    "still so after the limit of {:.0} s, {looks} looks",
                    limit.as_secs_f64()
                )
            };
            return Err(Failure::new(cause, expected, story(&state, &waited, &history)).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn story(state: &str, waited: &str, history: &[(Duration, String)]) -> String {
    let mut text = format!("{state} ({waited})");
    if history.len() > 1 {
        text.push_str("; states on the way:");
        for (at, state) in history {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {:6.1} s  {state}", at.as_secs_f64());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: &anyhow::Error) -> &Failure {
        error.downcast_ref().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_ends_the_wait() {
        let mut looks = 0;
        let value = eventually("three looks", Duration::from_secs(10), async || {
            looks += 1;
            Ok(if looks == 3 {
                Probe::Done(looks)
            } else {
                Probe::NotYet(Cause::Absent, "too early".into())
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
            Ok(Probe::<()>::NotYet(Cause::NotReady, state.into()))
        })
        .await
        .unwrap_err();
        insta::assert_snapshot!(failure(&error), @"
        expected ready; seen (not ready): b (still so after the limit of 2 s, 5 looks); states on the way:
             0.0 s  a
             1.0 s  b
        ");
    }

    #[tokio::test(start_paused = true)]
    async fn hopeless_does_not_wait_for_the_limit() {
        let started = Instant::now();
        let error = eventually("ready", Duration::from_secs(600), async || {
            Ok(Probe::<()>::Hopeless(Cause::Died, "kubelet exited".into()))
        })
        .await
        .unwrap_err();
        assert_eq!(failure(&error).cause, Cause::Died);
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
}
