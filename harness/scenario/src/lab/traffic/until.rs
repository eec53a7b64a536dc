//! Waiting for what steady traffic shows.

use std::time::{Duration, Instant};

use podwire_probe::Outcome;

use crate::check::failure::Cause;
use crate::check::party::Party;
use crate::lab::traffic::Traffic;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// For answers to come, before stretching.
const ANSWERS: Duration = Duration::from_secs(20);

/// Enough requests to tell something.
const ENOUGH: usize = 20;

impl Traffic<'_> {
    /// Waits until twenty requests that were sent after this moment have ended, with an answer among
    /// them, of somebody whom the target leads to. Where so many have ended and none was answered, an answer `needs` this.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that, of the class of the last request.
    pub async fn until_answered_after(&self, moment: Instant, needs: Needs) -> anyhow::Result<()> {
        let expected = "answers to the steady traffic";
        self.lab
            .eventually(expected, ANSWERS, async || {
                let record = self.so_far().await?;
                let ended = record.outcomes_after(moment);
                let count = ended.len();
                Ok(match ended.last() {
                    Some(last) if count >= ENOUGH => {
                        let cause = match last {
                            Outcome::Answered => Cause::WrongAnswer,
                            other => (*other).into(),
                        };
                        let answered = record.right_after(moment) > 0;
                        Probe::when(answered, cause, "none of them answered by whom it asks")
                            .needs(needs.clone())
                    }
                    _ => Probe::not_yet(Cause::Absent, format!("{count} requests")),
                })
            })
            .await
    }

    /// Waits until each of these Pods has answered a request that was sent after this moment, which
    /// `needs` this: it takes its time until chance has met each of them.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with the Pods that stayed silent, when it does not come to that.
    pub async fn until_each_answers_after(
        &self,
        pods: &[Party],
        moment: Instant,
        needs: Needs,
    ) -> anyhow::Result<()> {
        let expected = format!("each of {} Pods to answer the steady traffic", pods.len());
        self.lab
            .eventually(expected, ANSWERS, async || {
                let judged = self.so_far().await?.each_after(pods, moment);
                Ok(Probe::judged(judged).needs(needs.clone()))
            })
            .await
    }

    /// Waits until twenty requests, one after the other, were answered by this Pod, which `needs` this.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn until_only_answered_by(&self, pod: &Party, needs: Needs) -> anyhow::Result<()> {
        let expected = format!("{pod} alone to answer the steady traffic");
        self.lab
            .eventually(expected, ANSWERS, async || {
                let record = self.so_far().await?;
                let only = record.last_answered_by(&pod.name, ENOUGH);
                let state = format!("answers so far: {:?}", record.backends());
                Ok(Probe::when(only, Cause::WrongAnswer, state).needs(needs.clone()))
            })
            .await
    }

    /// Waits until nobody who asked was answered for longer than `length`, stretched, and three times
    /// as long at most.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when somebody is answered in between all the time.
    pub async fn until_unanswered_for(&self, length: Duration) -> anyhow::Result<()> {
        let longer = self.lab.limit(length);
        let expected = "failures for longer than that";
        self.lab
            .eventually(expected, length * 3, async || {
                let longest = self.so_far().await?.longest_gap();
                let lasted = longest.map_or(Duration::ZERO, |gap| gap.length());
                let state = format!("{:.0} s", lasted.as_secs_f64());
                Ok(Probe::when(lasted > longer, Cause::Answered, state))
            })
            .await
    }
}
