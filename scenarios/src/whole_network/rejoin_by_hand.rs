//! By hand, a node leaves and comes back.

use podwire_scenario::{Break, Cause, Cells, Lab, Sabotage, Scenario, StageName, secs, steps};

use crate::catalogue::{E27_BY_HAND, E28_BY_HAND, E33_BY_HAND};

/// By hand: drain, delete, wipe, join again.
pub(crate) const REJOIN: Scenario = Scenario {
    about: "A drained and deleted node leaves no Pod behind; wiped and joined again it is Ready, \
            takes Pods, and they are reached from everywhere",
    covers: &[E27_BY_HAND, E28_BY_HAND, E33_BY_HAND],
    cells: Cells::ByHand,
    limit: secs(240),
    sabotages: &[Sabotage::new("kubelet-not-started")
        .about("the kubelet of the wiped node is not started again")
        .inject(steps!(|lab| lab.last_node().take_off().await))
        .caught_by(steps!(Lab::all_nodes_ready), Cause::Absent)],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("node_drained_deleted_rejoined", StageName::Workload, steps!(rejoin))
};

async fn rejoin(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    let wanted = lab.pods().running().await?.len();

    node.drain().await?;
    let moved = lab.pods().until_running_and(wanted, |pods| {
        let left = pods.iter().filter(|pod| pod.node == node.number()).count();
        (left > 0).then(|| format!("{left} Pods still on {node}"))
    });
    moved.await?;
    node.delete().await?;
    node.wipe().await?;
    node.join_again().await?;

    lab.step("scale up: the node takes Pods again, with unique addresses, reached from everywhere");
    node.takes_pods(wanted + 2).await?;
    lab.pod_addresses_unique_and_in_range().await?;
    let mesh = lab.mesh_of_everybody().await?;
    Ok(mesh.all_answer("every pair to answer after the rejoin")?)
}
