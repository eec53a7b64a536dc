//! A cluster that was frozen and brought back has not noticed.

use std::time::Duration;

use podwire_scenario::{
    Break, Cause, Lab, Needs, Probe, Sabotage, Scenario, StageName, said_back_by, secs, steps,
};

use crate::catalogue::CONNECTIONS;

/// A connection that is older than the clone.
pub(crate) const OPEN_CONNECTION: Scenario = Scenario {
    about: "A TCP connection between Pods of two nodes, open while the cluster is frozen, goes on \
            in its clones without losing a byte",
    covers: &[CONNECTIONS],
    limit: secs(90),
    prepare: Some(steps!(open_connection)),
    sabotages: &[Sabotage::new("connection-reset")
        .about("node 2 resets what comes for the Pod at the other end")
        .inject(steps!(reset_what_comes))
        .caught_by(steps!(goes_on), Cause::Died)],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new(
        "open_connection_outlives_the_freeze",
        StageName::Workload,
        steps!(|lab| {
            lab.step("the connection is as it was, and goes on");
            goes_on(lab).await
        }),
    )
};

/// How many numbers must have come back before the freeze, and how many more after it.
const NUMBERS: u64 = 20;
/// From one to the next.
const PACE: Duration = Duration::from_millis(50);

async fn open_connection(lab: &Lab) -> anyhow::Result<()> {
    let from = lab.pods().on(lab.node(1)).first().await?;
    let to = lab.pods().on(lab.node(2)).first().await?;
    lab.open_stream(&from, &to, PACE).await?;
    numbers_beyond(lab, NUMBERS).await.map(drop)
}

async fn reset_what_comes(lab: &Lab) -> anyhow::Result<()> {
    let node2 = lab.node(2);
    let to = lab.pods().on(node2).first().await?;
    lab.step(format!("reset connections to {to}"));
    let rule = format!("ip daddr {} reject with tcp reset", to.address);
    node2.add_rule("type filter hook forward priority -10", &rule).await
}

async fn goes_on(lab: &Lab) -> anyhow::Result<()> {
    let before = numbers_beyond(lab, NUMBERS).await?;
    numbers_beyond(lab, before + NUMBERS).await.map(drop)
}

/// Waits until more numbers than that have come back, and says how many; a connection that ended is
/// hopeless. Where no new one finds its way, the old one stands still for the same reason.
async fn numbers_beyond(lab: &Lab, count: u64) -> anyhow::Result<u64> {
    let from = lab.pods().on(lab.node(1)).first().await?;
    let to = lab.pods().on(lab.node(2)).first().await?;
    let way = Needs::Way { from: from.clone(), to: to.clone() };
    let expected = format!("more than {count} numbers to come back, each in its turn");
    lab.eventually(expected, secs(10), async || {
        let stream = lab.stream_between(&from, &to).await?;
        said_back_by(&stream, &to)?;
        let state = format!("{} came back", stream.echoed);
        if let Some(why) = stream.failure {
            return Ok(Probe::hopeless(Cause::Died, format!("{state}: {why}")));
        }
        let more = (stream.echoed > count).then_some(stream.echoed);
        Ok(Probe::of(more, Cause::TimedOut, state).needs(way.clone()))
    })
    .await
}
