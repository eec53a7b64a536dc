//! How soon answers follow a change.

use podwire_scenario::{
    Families, Lab, Metric, Party, Profile, Scenario, StageName, Worse, secs, steps,
};

use super::restart::steadily;

/// The EndpointSlice is written by hand, so that nobody but kube-proxy is in between.
pub(crate) const CHANGE: Scenario = Scenario {
    about: "A Service comes to lead to another Pod: how long after the API has accepted that the new one answers \
            for the first time by IPv4, and the old one for the last",
    families: Families::Each,
    measures: &[&FIRST_RIGHT, &LAST_STALE],
    ..Scenario::new("measure_change", StageName::Workload, steps!(change))
};

pub(crate) const AMONG_1000: Scenario = Scenario {
    about: "The same among a thousand other Services",
    profile: Profile::Full,
    limit: secs(300),
    measures: &[&FIRST_RIGHT_OF_1000, &LAST_STALE_OF_1000],
    ..Scenario::new("measure_change_among_1000", StageName::Workload, steps!(change_among_1000))
};

/// kube-proxy has the same rules for five thousand ports, whosever they are; an emulated API server takes
/// five thousand Services in more than twenty minutes.
pub(crate) const AMONG_5000: Scenario = Scenario {
    about: "The same among five thousand ports of a hundred other Services, each of which has rules of its own",
    profile: Profile::Full,
    limit: secs(300),
    measures: &[&FIRST_RIGHT_OF_5000, &LAST_STALE_OF_5000],
    ..Scenario::new("measure_change_among_5000", StageName::Workload, steps!(change_among_5000))
};

const FIRST_RIGHT: Metric = seconds("first right answer after a change", FIRST);
const FIRST_RIGHT_OF_1000: Metric =
    seconds("first right answer after a change, among 1000 Services", FIRST);
const FIRST_RIGHT_OF_5000: Metric =
    seconds("first right answer after a change, among 5000 ports of Services", FIRST);
const FIRST: &str = "from the API's answer to the first one of the Pod that a Service now leads to, where a Pod \
                     asks all the time";

const LAST_STALE: Metric = seconds("last stale answer after a change", LAST);
const LAST_STALE_OF_1000: Metric =
    seconds("last stale answer after a change, among 1000 Services", LAST);
const LAST_STALE_OF_5000: Metric =
    seconds("last stale answer after a change, among 5000 ports of Services", LAST);
const LAST: &str = "from the API's answer to the last one of the Pod that it led to before; 0 where none came later";

const fn seconds(name: &'static str, how: &'static str) -> Metric {
    Metric { name, unit: "s", worse: Worse::More, grain: 0.01, how }
}

async fn change(lab: &Lab) -> anyhow::Result<()> {
    followed(lab, &FIRST_RIGHT, &LAST_STALE).await
}

async fn change_among_1000(lab: &Lab) -> anyhow::Result<()> {
    beside_a_crowd(lab, 1000, 1).await?;
    followed(lab, &FIRST_RIGHT_OF_1000, &LAST_STALE_OF_1000).await
}

async fn change_among_5000(lab: &Lab) -> anyhow::Result<()> {
    beside_a_crowd(lab, 100, 50).await?;
    followed(lab, &FIRST_RIGHT_OF_5000, &LAST_STALE_OF_5000).await
}

async fn beside_a_crowd(lab: &Lab, services: u32, ports: u16) -> anyhow::Result<()> {
    let (from, to) = (who_asks(lab).await?, lab.pods().on(lab.last_node()).first().await?);
    lab.crowd_of_services(services, ports, &to, &from).await
}

/// A Pod of the node before the last, whose Pods it asks.
async fn who_asks(lab: &Lab) -> anyhow::Result<Party> {
    let beside = lab.node(lab.last_node().number() - 1);
    lab.pods().on(beside).first().await
}

async fn followed(lab: &Lab, first_right: &Metric, last_stale: &Metric) -> anyhow::Result<()> {
    let (from, last) = (who_asks(lab).await?, lab.last_node());
    let beside = lab.node(from.node);
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
    lab.reading(first_right, followed.first_right.as_secs_f64())?;
    lab.reading(last_stale, followed.last_stale.as_secs_f64())
}
