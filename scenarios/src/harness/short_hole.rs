//! A hole that no client has to notice is noticed.

use std::time::Instant;

use podwire_scenario::{
    Break, Cause, Cells, Ipv4Net, Kind, Lab, Needs, Packets, Party, Probe, Profile, Protocol,
    Sabotage, Scenario, StageName, Traffic, secs, steps,
};

use crate::catalogue::SHORT_HOLE as CLAIM;

/// How short a hole steady traffic shows. What is judged is on the wire, by the wire's clock: a guest that
/// stands still, emulated on a busy machine say, asks and answers late, but loses nothing. So what bounds the
/// gaps of a run in which all is well is not how fast it is: there are none, unless a datagram is lost, and a
/// socket's queue has room for seconds of these. Connections would hide the hole: whoever is not answered asks
/// again a second later.
pub(crate) const SHORT_HOLE: Scenario = Scenario {
    about: "The wire shows no gap of 200 ms in steady questions of a Pod to another on another node, or of \
            20 ms under KVM, however late guests ask and answer",
    covers: &[CLAIM],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(90),
    sabotages: &[Sabotage::new("hole")
        .about(
            "node 1's questions to node 2's Pod vanish on the wire for 200 ms, or for 20 ms \
                 under KVM",
        )
        .inject(steps!(|lab| {
            steady_questions(lab).await?;
            hole(lab).await
        }))
        .caught_by(steps!(no_gap), Cause::TimedOut)],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new(
        "short_hole_in_steady_traffic",
        StageName::Workload,
        steps!(|lab| {
            steady_questions(lab).await?;
            no_gap(lab).await
        }),
    )
};

/// So many questions fall into a hole.
const IN_A_HOLE: u32 = 4;
/// So many may be under way at once.
const UNDER_WAY: u32 = 100;

async fn steady_questions(lab: &Lab) -> anyhow::Result<()> {
    let (from, to) = ends(lab).await?;
    let pace = lab.shortest_hole() / IN_A_HOLE;
    let traffic = lab.start_traffic(&from, format!("{}:80", to.address), pace);
    let traffic = traffic.by(Kind::Udp).within(pace * UNDER_WAY).await?;
    some_answered(lab, &traffic).await
}

async fn ends(lab: &Lab) -> anyhow::Result<(Party, Party)> {
    let from = lab.pods().on(lab.node(1)).first().await?;
    let to = lab.pods().on(lab.node(2)).first().await?;
    Ok((from, to))
}

/// From now on.
async fn some_answered(lab: &Lab, traffic: &Traffic<'_>) -> anyhow::Result<()> {
    let now = Instant::now();
    let (from, to) = ends(lab).await?;
    traffic.until_answered_after(now, Needs::Way { from, to }).await
}

/// A sender that stands still meanwhile asks nothing: then there is another.
async fn hole(lab: &Lab) -> anyhow::Result<()> {
    let (_, to) = ends(lab).await?;
    let questions = Packets {
        protocol: Some(Protocol::Udp),
        destination: Some(Ipv4Net { address: to.address, prefix: 32 }),
        ..Packets::default()
    };
    lab.eventually("a hole to swallow a question", secs(20), async || {
        let cut = lab.impair(lab.node(1), lab.node(2)).only(questions).cut();
        let swallowed = lab.impair_for(lab.shortest_hole(), cut).await?;
        let some = swallowed.iter().any(|it| it.cut > 0);
        Ok(Probe::when(some, Cause::Absent, "nothing was asked meanwhile"))
    })
    .await
}

async fn no_gap(lab: &Lab) -> anyhow::Result<()> {
    let traffic = lab.running_traffic()?;
    some_answered(lab, &traffic).await?;
    traffic.stop().await?.all_accounted()?;
    lab.step("the wire shows no gap");
    let (from, to) = ends(lab).await?;
    lab.no_gap(&from, &to, lab.shortest_hole()).await
}
