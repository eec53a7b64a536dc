//! Nodes that do not share a segment.

use podwire_scenario::{
    Break, Cause, Cells, Lab, Layout, Party, Profile, Sabotage, Scenario, StageName, secs, steps,
};

use crate::catalogue::{HOST_GW, TWO_SEGMENTS};

/// Every pair over a router: nodes in two zones.
pub(crate) const TWO_SEGMENTS_APART: Scenario = Scenario {
    about: "Nodes on two segments with a router between them: every ordered pair answers, and each packet \
            crosses each segment once, by the router",
    covers: &[TWO_SEGMENTS],
    layout: Layout::Routed,
    cells: Cells::Routable,
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("router-forwards-nothing")
            .about("the router's kernel forwards nothing")
            .inject(steps!(|lab| lab.router().forward_nothing().await))
            .caught_by(steps!(every_pair_by_the_router), Cause::TimedOut),
        Sabotage::new("pods-and-tunnels-dropped")
            .about(
                "the router lets nodes reach each other, and neither Pods' packets nor VXLAN \
                 through",
            )
            .inject(steps!(|lab| lab.router().drop_pods_and_tunnels().await))
            .caught_by(steps!(every_pair_by_the_router), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::PodRange],
    limit: secs(120),
    ..Scenario::new("two_segments", StageName::Workload, steps!(two_segments))
};

/// A network that needs a shared segment, where there is none.
pub(crate) const HOST_GW_APART: Scenario = Scenario {
    about: "flannel's host-gw finds no next hop on the other segment: exactly the pairs of different \
            segments time out, and answer once there are routes by way of the router",
    covers: &[HOST_GW],
    layout: Layout::Routed,
    cells: Cells::HostGw,
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("routes-are-there-already")
            .about("nodes and the router have all routes before the first look")
            .inject(steps!(|lab| lab.router().lead_to_all_pods().await))
            .caught_by(steps!(segments_are_apart), Cause::Answered),
        Sabotage::new("router-forwards-nothing")
            .about("there are routes by way of the router, whose kernel forwards nothing")
            .inject(steps!(|lab| {
                lab.router().lead_to_all_pods().await?;
                lab.router().forward_nothing().await
            }))
            .caught_by(steps!(every_pair_by_the_router), Cause::TimedOut),
    ],
    ..Scenario::new("host_gw_on_two_segments", StageName::Workload, steps!(host_gw))
};

async fn host_gw(lab: &Lab) -> anyhow::Result<()> {
    segments_are_apart(lab).await?;
    lab.router().lead_to_all_pods().await?;
    every_pair_by_the_router(lab).await
}

async fn segments_are_apart(lab: &Lab) -> anyhow::Result<()> {
    lab.step("exactly the pairs of different segments time out");
    let segment = |party: &Party| lab.layout().segment_of(party.node);
    let mesh = lab.mesh_of_everybody().await?;
    let expected = "pairs of one segment to answer, and all others to time out";
    Ok(mesh.exactly_dead(expected, |from, to| segment(from) != segment(to))?)
}

async fn two_segments(lab: &Lab) -> anyhow::Result<()> {
    lab.step("all Nodes are Ready, each with the address of its own segment");
    lab.all_nodes_ready().await?;
    every_pair_by_the_router(lab).await
}

async fn every_pair_by_the_router(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every ordered pair, node to Pod and Pod to Pod");
    let mesh = lab.mesh_of_everybody().await?;
    mesh.all_answer("every ordered pair to answer, over the router as well")?;
    lab.wire().carried(&mesh)
}
