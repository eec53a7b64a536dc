//! What the way from a Pod to another carries, and what is counted on it.

use std::net::Ipv4Addr;

use podwire_scenario::{
    Families, Lab, Load, LoadReport, Metric, Party, Scenario, StageName, Worse, assert, mib, secs,
    steps,
};

/// Between two nodes that the API server is not on, where there are so many.
pub(crate) const WAY: Scenario = Scenario {
    about: "What a Pod gets to a Pod of another node and back by IPv4, by its address and by a ClusterIP: \
            requests on fresh and on kept connections, octets, and what is counted meanwhile",
    families: Families::Each,
    limit: secs(150),
    measures: &[
        &POD.fresh_rate,
        &POD.fresh_latency,
        &POD.kept_rate,
        &POD.kept_latency,
        &POD.throughput,
        &SERVICE.fresh_rate,
        &SERVICE.fresh_latency,
        &SERVICE.kept_rate,
        &SERVICE.kept_latency,
        &SERVICE.throughput,
        &FRAMES,
        &INSTRUCTIONS,
        &SENT_AGAIN,
        &RULES,
        &ELEMENTS,
    ],
    ..Scenario::new("measure_way", StageName::Workload, steps!(way))
};

/// Requests at once where it is counted how many there are in a second.
const AT_ONCE: u32 = 8;
/// Of a transfer.
const OCTETS: u64 = mib(8);
/// Requests whose frames are counted.
const COUNTED: u32 = 20;

/// What is read of a way.
struct Metrics {
    fresh_rate: Metric,
    fresh_latency: Metric,
    kept_rate: Metric,
    kept_latency: Metric,
    throughput: Metric,
}

const fn rate(name: &'static str) -> Metric {
    Metric {
        name,
        unit: "1/s",
        worse: Worse::Less,
        grain: 0.01,
        how: "requests that were answered in two seconds of the sender's clock, eight at once",
    }
}

const fn latency(name: &'static str) -> Metric {
    Metric {
        name,
        unit: "ms",
        worse: Worse::More,
        grain: 0.001,
        how: "the median of the requests of two seconds, one after the other",
    }
}

const fn throughput(name: &'static str) -> Metric {
    Metric {
        name,
        unit: "MiB/s",
        worse: Worse::Less,
        grain: 0.001,
        how: "transfers of 8 MiB, one after the other for two seconds at least, and the last to its end",
    }
}

const POD: Metrics = Metrics {
    fresh_rate: rate("requests on fresh connections to a Pod"),
    fresh_latency: latency("latency on fresh connections to a Pod"),
    kept_rate: rate("requests on kept connections to a Pod"),
    kept_latency: latency("latency on kept connections to a Pod"),
    throughput: throughput("throughput to a Pod"),
};

const SERVICE: Metrics = Metrics {
    fresh_rate: rate("requests on fresh connections to a ClusterIP"),
    fresh_latency: latency("latency on fresh connections to a ClusterIP"),
    kept_rate: rate("requests on kept connections to a ClusterIP"),
    kept_latency: latency("latency on kept connections to a ClusterIP"),
    throughput: throughput("throughput to a ClusterIP"),
};

const FRAMES: Metric = Metric {
    name: "frames of a request to a Pod",
    unit: "",
    worse: Worse::More,
    grain: 0.05,
    how: "frames between both nodes while twenty requests went over fresh connections, by twenty",
};

const INSTRUCTIONS: Metric = Metric {
    name: "instructions of a request to a Pod",
    unit: "",
    worse: Worse::More,
    grain: 1000.0,
    how: "those of the host's processors for both nodes' machines in two seconds of requests on fresh connections, \
          eight at once, by how many there were; where the host's kernel counts them",
};

const SENT_AGAIN: Metric = Metric {
    name: "segments sent again",
    unit: "",
    worse: Worse::More,
    grain: 0.5,
    how: "RetransSegs of the sending Pod's kernel, from the first request to the last octet",
};

const RULES: Metric = Metric {
    name: "rules of a node",
    unit: "",
    worse: Worse::More,
    grain: 0.5,
    how: "rules in `nft -j list ruleset` of the sender's node, of all tables",
};

const ELEMENTS: Metric = Metric {
    name: "elements of a node's sets and maps",
    unit: "",
    worse: Worse::More,
    grain: 0.5,
    how: "elements of sets and maps in `nft -j list ruleset` of the sender's node, of all tables",
};

async fn way(lab: &Lab) -> anyhow::Result<()> {
    let last = lab.last_node();
    let beside = lab.node(last.number() - 1);
    let (from, to) = (lab.pods().on(beside).first().await?, lab.pods().on(last).first().await?);
    lab.step(format!("a Service for {to} alone"));
    let service = lab.service("measured").create_for(&to).await?;
    lab.until_all_answer(std::slice::from_ref(&from), std::slice::from_ref(&service)).await?;
    lab.step(
        "what an emulated guest does for the first time takes longer: a load that is not read",
    );
    lab.load(&from, (service.address, &to), Load::Fresh, AT_ONCE).await?;

    let before = lab.segments_sent_again(&from).await?;
    read(lab, &from, (to.address, &to), &POD).await?;
    read(lab, &from, (service.address, &to), &SERVICE).await?;
    let after = lab.segments_sent_again(&from).await?;
    lab.reading(&SENT_AGAIN, whole(after.saturating_sub(before)))?;

    let since = lab.wire().now()?;
    let asked = lab.ask(&from, to.address).times(COUNTED).await?;
    assert::all_answered_by("requests whose frames are counted to be answered", &asked, &to)?;
    let frames = lab.wire().frames_between(beside, last, since)?;
    lab.reading(&FRAMES, whole(frames.try_into()?) / f64::from(COUNTED))?;

    let counting = lab.count_instructions(&[beside, last]);
    let many = lab.load(&from, (to.address, &to), Load::Fresh, AT_ONCE).await?;
    match counting.and_then(|mut counting| counting.so_far()) {
        Ok(carried_out) => lab.reading(&INSTRUCTIONS, whole(carried_out) / whole(many.answered))?,
        Err(why) => lab.no_reading(&INSTRUCTIONS, why),
    }

    let rules = beside.rules().await?;
    lab.reading(&RULES, whole(rules.rules.try_into()?))?;
    lab.reading(&ELEMENTS, whole(rules.elements.try_into()?))
}

async fn read(
    lab: &Lab,
    from: &Party,
    to: (Ipv4Addr, &Party),
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let loads = [
        (Load::Fresh, &metrics.fresh_rate, &metrics.fresh_latency),
        (Load::Kept, &metrics.kept_rate, &metrics.kept_latency),
    ];
    for (by, rate, latency) in loads {
        let many = lab.load(from, to, by, AT_ONCE).await?;
        lab.reading(rate, a_second(&many))?;
        let one = lab.load(from, to, by, 1).await?;
        lab.reading(latency, whole(one.median_us) / 1000.0)?;
    }
    let transfers = lab.load(from, to, Load::Transfer { octets: OCTETS }, 1).await?;
    lab.reading(&metrics.throughput, a_second(&transfers) * whole(OCTETS / mib(1)))
}

/// How many were answered in a second.
fn a_second(load: &LoadReport) -> f64 {
    whole(load.answered) / (whole(load.elapsed_us) / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "counts, and microseconds of minutes")]
fn whole(count: u64) -> f64 {
    count as f64
}
