//! Nodes that do not share a segment.

use podwire_scenario::{
    Break, Cause, Cells, Lab, Layout, Profile, Sabotage, Scenario, StageName, secs, steps,
};

use crate::catalogue::TWO_SEGMENTS;

/// Every pair over a router: nodes in two zones.
pub(crate) const TWO_SEGMENTS_APART: Scenario = Scenario {
    about: "Nodes on two segments with a router between them: every ordered pair answers, and each packet \
            crosses each segment once, by the router",
    covers: &[TWO_SEGMENTS],
    layout: Layout::Routed,
    cells: Cells::Routable,
    profile: Profile::Full,
    sabotages: &[
        Sabotage {
            name: "router-forwards-nothing",
            about: "the router's kernel forwards nothing",
            expects: Cause::TimedOut,
            inject: steps!(|lab| lab.router().forward_nothing().await),
            check: steps!(every_pair_by_the_router),
        },
        Sabotage {
            name: "pods-and-tunnels-dropped",
            about: "the router lets nodes reach each other, and neither Pods' packets nor VXLAN through",
            expects: Cause::TimedOut,
            inject: steps!(|lab| lab.router().drop_pods_and_tunnels().await),
            check: steps!(every_pair_by_the_router),
        },
    ],
    red_when: &[Break::Route, Break::PodRange],
    limit: secs(120),
    ..Scenario::new("two_segments", StageName::Workload, steps!(two_segments))
};

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
