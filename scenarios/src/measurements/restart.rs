//! What the restart of a daemon costs those who use what it has made.

use std::net::Ipv4Addr;
use std::time::Instant;

use podwire_scenario::{
    Families, Lab, Metric, Party, Record, Scenario, StageName, Traffic, Worse, secs, steps,
};

pub(crate) const RESTART: Scenario = Scenario {
    about: "A Pod asks a Service all the time, by IPv4 and each time on a fresh connection, while its node's \
            kube-proxy is restarted: how many requests are lost, and for how long",
    families: Families::Each,
    limit: secs(150),
    measures: &[&LOST, &GAP],
    ..Scenario::new("measure_restart", StageName::Workload, steps!(restart))
};

const LOST: Metric = Metric {
    name: "requests lost in kube-proxy's restart",
    unit: "",
    worse: Worse::More,
    grain: 0.5,
    how: "those of a Pod to a ClusterIP that were not answered, until kube-proxy has written its rules anew",
};

const GAP: Metric = Metric {
    name: "longest gap in kube-proxy's restart",
    unit: "s",
    worse: Worse::More,
    grain: 0.01,
    how: "of these, from the first that was lost to the next one that was answered; 0 where none was lost",
};

async fn restart(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    let from = lab.pods().on(node).first().await?;
    let record = asked_meanwhile(lab, &from, async || node.restart_kube_proxy().await).await?;
    read(lab, &record, &LOST, &GAP)
}

/// A Pod asks the Service of the workload's Pods until this has been done, and then until it is answered.
pub(super) async fn asked_meanwhile(
    lab: &Lab,
    from: &Party,
    does: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Record> {
    let blue = lab.service("blue");
    let traffic = steadily(lab, from, blue.address().await?).await?;
    let needs = blue.needs_from(lab.node(from.node)).await?;
    traffic.until_answered_after(Instant::now(), needs).await?;
    does().await?;
    let needs = blue.needs_from(lab.node(from.node)).await?;
    traffic.until_answered_after(Instant::now(), needs).await?;
    let record = traffic.stop().await?;
    record.all_accounted()?;
    Ok(record)
}

/// Steady requests, so many that half of the shortest hole that is looked for shows.
pub(super) async fn steadily<'lab>(
    lab: &'lab Lab,
    from: &Party,
    to: Ipv4Addr,
) -> anyhow::Result<Traffic<'lab>> {
    lab.start_traffic(from, format!("{to}:80"), lab.shortest_hole() / 2).await
}

pub(super) fn read(lab: &Lab, record: &Record, lost: &Metric, gap: &Metric) -> anyhow::Result<()> {
    let longest = record.longest_gap();
    let longest = longest.map_or(0.0, |gap| gap.length().as_secs_f64());
    lab.reading(lost, f64::from(u32::try_from(record.lost())?))?;
    lab.reading(gap, longest)
}
