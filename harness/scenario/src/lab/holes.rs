//! Short holes in the network between nodes, and whether the wire shows any.

use std::time::{Duration, Instant};

use podwire_lan::Realised;
use podwire_lan::witness::Moment;

use crate::check::failure::Cause;
use crate::check::gaps;
use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::impair::Impairing;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// For the answer to what was asked last, before stretching.
const ANSWER: Duration = Duration::from_secs(20);

impl Lab {
    /// How short a hole in steady traffic is to be noticed: 200 ms where guests are emulated, 20 ms under
    /// KVM. A time of the host, and of the wire.
    pub fn shortest_hole(&self) -> Duration {
        match self.cluster().plan().accelerator.is_kvm() {
            true => Duration::from_millis(20),
            false => Duration::from_millis(200),
        }
    }

    /// Impairs for so long, by the host's clock, and gives what came of it. A busy host may be late to end it,
    /// and is never early; the step log says how long it was.
    ///
    /// # Errors
    /// When the segment has ended.
    pub async fn impair_for(
        &self,
        length: Duration,
        what: Impairing<'_>,
    ) -> anyhow::Result<Vec<Realised>> {
        let impaired = what.await?;
        let began = Instant::now();
        tokio::time::sleep(length).await;
        let realised = impaired.heal().await?;
        let lasted = began.elapsed().as_millis();
        self.step(format!("it lasted {lasted} ms"));
        Ok(realised)
    }

    /// The steady questions of one Pod to another on another node (datagrams, `Kind::Udp`) were answered
    /// without a gap as long as that, since the clone's beginning and by the wire's own clock. A gap lasts from
    /// an answered question to the next answered one, where some between them were lost. That a guest is
    /// slow makes none; what was not asked is none either.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with the longest gap, of the class `TimedOut`; when what was asked last is
    /// not answered.
    pub async fn no_gap(
        &self,
        from: &Party,
        to: &Party,
        as_long_as: Duration,
    ) -> anyhow::Result<()> {
        let needs = Needs::Way {
            from: from.clone(),
            to: to.clone(),
        };
        let expected = "what was asked last to be answered";
        let questions = self.eventually(expected, ANSWER, async || {
            let wire = self.wire();
            let seen = wire.between(from.address, to.address, Moment::default())?;
            anyhow::ensure!(
                seen.forgotten == 0,
                "the wire is asked too late: {} frames are forgotten",
                seen.forgotten
            );
            let questions = gaps::questions(&seen.frames, from, to);
            let state = format!("{} questions were asked", questions.len());
            let done = questions.last().is_some_and(|last| last.answered);
            let found = Probe::of(done.then_some(questions), Cause::TimedOut, state);
            Ok(found.needs(needs.clone()))
        });
        Ok(gaps::no_gap(&questions.await?, from, to, as_long_as)?)
    }
}
