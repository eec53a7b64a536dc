//! What an attempt leaves to be read.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podwire_cluster::{Cluster, Stage};
use podwire_process::plain;

use crate::check::failure::Failure;
use crate::check::network::State;
use crate::check::reading::{Reading, mistaken};
use crate::check::twin::{Twin, compared, is_past};
use crate::check::wire;
use crate::lab::Lab;
use crate::run::account::Account;
use crate::run::attempt::{Attempt, judged, phase};
use crate::run::caught::{self, caught};
use crate::run::context::{self, HEALTHY_VARIABLE};
use crate::run::healthy;
use crate::run::page;
use crate::run::result::PhaseTime;
use crate::run::stopping::Stopping;

/// The lab of a healthy clone, in the attempt's folder.
const TWIN_LAB: &str = "twin-lab";

/// From one look at a healthy clone's steps to the next.
const LOOK: Duration = Duration::from_millis(50);

impl Attempt {
    /// Whether a second clone may tell something of this failure: it is a verdict on the cluster, and there is time
    /// left. What programs of the user's do cannot be followed step by step.
    pub(super) fn has_twin(&self, error: &anyhow::Error, stop: &Stopping) -> bool {
        let verdict = error.downcast_ref::<Failure>().is_some();
        verdict && !stop.is_told() && self.context.programs.is_none()
    }

    /// The same stage of the comparison's base, where this is the head; or why it is not to be had.
    fn stage_of_base(&self) -> Option<Result<Stage, String>> {
        let run = std::env::var_os(HEALTHY_VARIABLE)?;
        if self.scenario.prepare.is_some() {
            return Some(Err(
                "its own preparation makes what it begins with".to_owned()
            ));
        }
        let (own, stage) = (self.context.plan.cell, &self.scenario.stage);
        Some(healthy::stage_of_base(Path::new(&run), own, stage))
    }

    /// Has another clone do the same until it has passed the step at which the first one failed, and leaves in what
    /// the nodes of both are unlike: one of the comparison's base, or a second one of the same stage.
    pub(super) async fn twin(
        &self,
        stage: &Stage,
        stop: &Stopping,
        phases: &mut Vec<PhaseTime>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let of_base = self.stage_of_base();
        let (whose, stage) = match &of_base {
            Some(Ok(of_base)) => ("a clone of the base".to_owned(), of_base),
            Some(Err(why)) => (format!("a second clone of head's own, since {why}"), stage),
            None => ("a second clone".to_owned(), stage),
        };
        let steps = Account::read(&self.folder)?.steps;
        let steps: Vec<String> = steps.into_iter().map(|step| step.text).collect();
        let (dir, folder) = (self.folder.join(TWIN_LAB), self.folder.join(page::TWIN));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cluster = tokio::select! {
            cluster = Cluster::clone_of(&self.host, stage, &dir, None) => cluster?,
            stopped = stop.come() => return Err(self.cut_short(stopped)),
        };
        let lab = self.lab(cluster, &dir, Some(page::TWIN.to_owned()));
        let run = judged(&lab, &self.scenario, stage);
        let ended = tokio::select! {
            ended = self.carried_out(run, &lab, stop) => ended,
            () = past(&lab, &steps) => Ok(()),
        };
        let evidence = self.context.limits().evidence();
        if ended.is_ok() {
            let network = lab.cluster().network_evidence(&folder);
            // What is there when the limit passes has to do.
            let _ = tokio::time::timeout(evidence, network).await;
        }
        let nodes: Vec<String> = lab.nodes().map(|node| node.name().to_owned()).collect();
        lab.stop().await;
        // Only what its nodes have said is worth its disk.
        let _ = fs::remove_dir_all(&dir);
        let evidence = self.folder.join(page::EVIDENCE);
        let of_both = nodes.into_iter().map(|node| {
            let [failed, healthy] = [&evidence, &folder].map(|it| State::read(&it.join(&node)));
            (node, failed, healthy)
        });
        let (unlike, unheard) = match ended {
            Ok(()) => compared(of_both),
            Err(_) => Default::default(),
        };
        let twin = Twin {
            whose: plain::line(&whose),
            step: steps.last().cloned().unwrap_or_default(),
            unlike,
            unheard,
            failed: ended.err().map(|error| plain::text(&format!("{error:#}"))),
        };
        phases.push(phase(page::TWIN, began));
        Ok(context::write(&self.folder.join(Twin::FILE), &twin)?)
    }

    /// Leaves the evidence of a failure. It never changes the verdict.
    pub(super) async fn collect(&self, lab: &Lab, error: &anyhow::Error) {
        let evidence = async {
            self.evidence(lab, error).await;
            Ok(())
        };
        self.leave(lab, "the evidence", evidence).await;
    }

    /// Leaves each part of it, as far as it gets.
    async fn evidence(&self, lab: &Lab, error: &anyhow::Error) {
        let account = Account::of(self.scenario.about, error, lab.steps(), lab.age());
        // Collecting takes a while: whoever watches learns of the failure at once.
        lab.step(format!("failed: {error:#}"));
        let limit = self.context.limits().evidence();
        let nodes = async { anyhow::Ok(lab.leave_node_troubles(&self.folder).await?) };
        let cluster = async {
            let folder = self.folder.join(page::EVIDENCE);
            lab.cluster().evidence(&folder).await;
            Ok(())
        };
        let all = futures::future::join4(
            self.leave(lab, "the timeline", self.timeline(lab)),
            self.leave(lab, "what stands out on the nodes", nodes),
            self.leave(lab, "the failure as data", self.account(lab, account)),
            self.leave(lab, "what the nodes have to say", cluster),
        );
        // What is there when the limit passes has to do.
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Leaves one part of what is to be read; what is lost of it is a step as well.
    pub(super) async fn leave(
        &self,
        lab: &Lab,
        what: &str,
        part: impl Future<Output = anyhow::Result<()>>,
    ) {
        if let Some(lost) = caught::leave(&self.folder, what, part).await {
            lab.step(lost);
        }
    }

    /// Leaves what stood out on the wire. Where the run wants nothing to, what has passed fails by it.
    pub(super) async fn what_stood_out(
        &self,
        lab: &Lab,
        verdict: anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let strict = self.context.strict_wire && verdict.is_ok();
        let told = async { lab.wire().leave_what_stood_out(&self.folder) };
        match caught("whoever reads the capture", told).await {
            Ok(Some(told)) if strict => Err(wire::too_unusual(&told).into()),
            Err(error) if strict => Err(error),
            Ok(_) => verdict,
            Err(error) => {
                let lost = async { Err(error) };
                self.leave(lab, "what stood out on the wire", lost).await;
                verdict
            }
        }
    }

    /// Leaves what it saw as data, then once more with what nodes have to tell: what a lost packet met, and when their
    /// rules changed.
    async fn account(&self, lab: &Lab, mut account: Account) -> anyhow::Result<()> {
        account.write(&self.folder)?;
        let lost = account.pairs.as_ref().and_then(|pairs| pairs.lost.clone());
        if let Some(trace) = lost {
            account.met = lab.met(&trace).await;
            account.write(&self.folder)?;
        }
        account.rules = lab.rule_changes().await;
        Ok(account.write(&self.folder)?)
    }

    /// Leaves what a measurement has read in the attempt's folder, once that is all.
    pub(super) fn readings(&self, lab: &Lab) -> anyhow::Result<()> {
        let (metrics, taken) = (self.scenario.measures, lab.readings());
        if let Some(wrong) = mistaken(metrics, &taken) {
            bail!("{wrong}");
        }
        if metrics.is_empty() {
            return Ok(());
        }
        Reading::write(&taken, &self.folder).context("cannot keep the readings")
    }

    /// Leaves the timeline of the traffic that the lab had, if it had any.
    pub(super) async fn timeline(&self, lab: &Lab) -> anyhow::Result<()> {
        Ok(lab.leave_timeline(&self.folder).await?)
    }
}

/// Returns when a lab has passed the last of these steps of another one's.
async fn past(lab: &Lab, steps: &[String]) {
    loop {
        let done: Vec<String> = lab.steps().into_iter().map(|(_, step)| step).collect();
        if is_past(&done, steps) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
