//! How soon answers follow a change.

use podwire_scenario::{Families, Lab, Metric, Scenario, StageName, Worse, steps};

use super::restart::steadily;

/// The EndpointSlice is written by hand, so that nobody but kube-proxy is in between.
pub(crate) const CHANGE: Scenario = Scenario {
    about: "A Service comes to lead to another Pod: how long after the API has accepted that the new one answers \
            for the first time by IPv4, and the old one for the last",
    families: Families::Each,
    measures: &[&FIRST_RIGHT, &LAST_STALE],
    ..Scenario::new("measure_change", StageName::Workload, steps!(change))
};

const FIRST_RIGHT: Metric = Metric {
    name: "first right answer after a change",
    unit: "s",
    worse: Worse::More,
    grain: 0.01,
    how: "from the API's answer to the first one of the Pod that a Service now leads to, where a Pod asks \
          all the time",
};

const LAST_STALE: Metric = Metric {
    name: "last stale answer after a change",
    unit: "s",
    worse: Worse::More,
    grain: 0.01,
    how: "from the API's answer to the last one of the Pod that it led to before; 0 where none came later",
};

async fn change(lab: &Lab) -> anyhow::Result<()> {
    let last = lab.last_node();
    let beside = lab.node(last.number() - 1);
    let from = lab.pods().on(beside).first().await?;
    let two = lab.pods().on(last).running().await?;
    let [old, new, ..] = two.as_slice() else {
        anyhow::bail!("two Pods on {last} are needed, {} run", two.len());
    };
    let service = lab.service("measured");
    lab.step(format!("a Service for {old} alone"));
    let reached = service.create_for(old).await?;
    lab.until_all_answer(std::slice::from_ref(&from), std::slice::from_ref(&reached)).await?;
    let traffic = steadily(lab, &from, reached.address).await?;
    let needs = service.needs_from(beside).await?;
    traffic.until_only_answered_by(old, needs).await?;

    lab.step(format!("it leads to {new} instead"));
    let accepted = service.lead_to(new).await?;
    let needs = service.needs_from(beside).await?;
    traffic.until_only_answered_by(new, needs).await?;
    let record = traffic.stop().await?;
    record.all_accounted()?;
    let Some(followed) = record.followed(&old.name, &new.name, accepted) else {
        anyhow::bail!("{new} has not answered");
    };
    lab.reading(&FIRST_RIGHT, followed.first_right.as_secs_f64())?;
    lab.reading(&LAST_STALE, followed.last_stale.as_secs_f64())
}
