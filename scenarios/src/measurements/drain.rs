//! What a node's drain costs those who use what runs on it.

use podwire_scenario::{Families, Lab, Metric, Profile, Scenario, StageName, Worse, secs, steps};

use super::restart::{asked_meanwhile, read};

pub(crate) const DRAIN: Scenario = Scenario {
    about: "A Pod asks a Service all the time, by IPv4 and each time on a fresh connection, while a node with \
            some of its Pods is drained: how many requests are lost, and for how long",
    families: Families::Each,
    profile: Profile::Full,
    limit: secs(240),
    measures: &[&LOST, &GAP],
    ..Scenario::new("measure_drain", StageName::Workload, steps!(drain))
};

const LOST: Metric = Metric {
    name: "requests lost in a drain",
    unit: "",
    worse: Worse::More,
    grain: 0.5,
    how: "those of a Pod of another node to a ClusterIP that were not answered, until all Pods run elsewhere",
};

const GAP: Metric = Metric {
    name: "longest gap in a drain",
    unit: "s",
    worse: Worse::More,
    grain: 0.01,
    how: "of these, from the first that was lost to the next one that was answered; 0 where none was lost",
};

async fn drain(lab: &Lab) -> anyhow::Result<()> {
    let from = lab.pods().on(lab.node(1)).first().await?;
    let drained = async || {
        lab.last_node().drain().await?;
        lab.step("all of its Pods run elsewhere");
        lab.pods().within(secs(90)).all_running().await.map(drop)
    };
    let record = asked_meanwhile(lab, &from, drained).await?;
    read(lab, &record, &LOST, &GAP)
}
