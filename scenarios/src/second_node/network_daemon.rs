//! A Pod network whose daemon lays by itself what leads to other nodes' Pods.

use podwire_scenario::{
    Cause, Cells, Ipv4Net, Lab, Node, Party, Profile, Sabotage, Scenario, StageName, ensure, secs,
    steps,
};

use crate::catalogue::C11;

/// C11: flannel, by VXLAN and by host-gw.
///
/// host-gw looks every ten seconds whether its routes are there, VXLAN only when it starts: so what
/// "daemon stopped, a route deleted" shows is asked for twice, five seconds of time-outs each.
pub(crate) const NETWORK_DAEMON: Scenario = Scenario {
    about: "flannel lays on every node what leads to the others' Pods: a route, and in a tunnel a neighbour \
            and a forwarding entry. They go when a Node leaves, and come when it joins. While a node's \
            flannel is stopped a deleted route stays gone, with exactly the pairs that need it; once it is \
            started both are back",
    covers: &[C11],
    cells: Cells::WithFlannel,
    profile: Profile::Full,
    nodes: 3,
    limit: secs(420),
    sabotages: &[
        Sabotage::new("route-deleted")
            .about("node 1's flannel is stopped, and its route to node 2's Pods deleted")
            .inject(steps!(|lab| stop_and_delete(lab.node(1), lab.node(2)).await))
            .caught_by(steps!(laid_everywhere), Cause::Absent),
        Sabotage::new("half-of-it-deleted")
            .about(
                "node 1's flannel is stopped, and its route to node 2's Pods is there, but \
                 leads into a tunnel without a forwarding entry for node 2; where there is no \
                 tunnel the route is deleted",
            )
            .inject(steps!(|lab| {
                let (node, to) = (lab.node(1), lab.node(2));
                match node.run("ip link show flannel.1").may_fail().await?.succeeded() {
                    true => stop_and_delete_entry(node, to).await,
                    false => stop_and_delete(node, to).await,
                }
            }))
            .caught_by(steps!(laid_everywhere), Cause::Absent),
        Sabotage::new("stopped-meanwhile")
            .about("node 1's flannel is stopped when the Node leaves")
            .inject(steps!(|lab| {
                remember(lab).await?;
                lab.node(1).halt("flanneld").await?;
                lab.last_node().take_off().await
            }))
            .caught_by(steps!(forgotten_by_the_others), Cause::Answered),
        Sabotage::new("started-again")
            .about(
                "node 2's flannel, which was stopped when its route was deleted, is started again",
            )
            .inject(steps!(|lab| {
                stop_and_delete(lab.node(2), lab.node(1)).await?;
                lab.node(2).restart_flannel().await?;
                is_back(lab).await
            }))
            .caught_by(steps!(stays_gone), Cause::Answered),
        Sabotage::new("not-started")
            .about("node 2's flannel is not started again")
            .inject(steps!(|lab| stop_and_delete(lab.node(2), lab.node(1)).await))
            .caught_by(steps!(is_back), Cause::Absent),
    ],
    ..Scenario::new("network_daemon", StageName::Workload, steps!(network_daemon))
};

async fn network_daemon(lab: &Lab) -> anyhow::Result<()> {
    laid_everywhere(lab).await?;
    every_pair_answers(lab).await?;

    let (node, wanted) = (lab.last_node(), lab.pods().running().await?.len());
    remember(lab).await?;
    node.drain().await?;
    node.delete().await?;
    forgotten_by_the_others(lab).await?;

    node.wipe().await?;
    node.join_again().await?;
    laid_everywhere(lab).await?;
    node.takes_pods(wanted + 2).await?;
    every_pair_answers(lab).await?;

    stop_and_delete(lab.node(2), lab.node(1)).await?;
    stays_gone(lab).await?;

    lab.node(2).restart_flannel().await?;
    is_back(lab).await?;
    every_pair_answers(lab).await
}

async fn laid_everywhere(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node has what leads to every other's Pods; nobody has typed it");
    lab.until_laid_everywhere().await
}

/// The range of the node that leaves, which goes with its Node.
#[derive(Clone, Copy)]
struct Leaving(Ipv4Net);

async fn remember(lab: &Lab) -> anyhow::Result<()> {
    lab.keep(Leaving(lab.last_node().range_of_pods().await?));
    Ok(())
}

async fn forgotten_by_the_others(lab: &Lab) -> anyhow::Result<()> {
    let (gone, Leaving(range)) = (lab.last_node(), lab.kept()?);
    lab.step(format!("the others have nothing that leads to {gone}'s Pods any more"));
    lab.until_forgotten(gone, range).await
}

pub(super) async fn stop_and_delete(node: Node<'_>, to: Node<'_>) -> anyhow::Result<()> {
    node.halt("flanneld").await?;
    let range = to.range_of_pods().await?;
    node.run(format!("ip route delete {range}")).await.map(drop)
}

/// The tunnel's entry that says at which address node 2's end of it is.
async fn stop_and_delete_entry(node: Node<'_>, to: Node<'_>) -> anyhow::Result<()> {
    node.halt("flanneld").await?;
    let address = to.address();
    let delete = format!(
        "mac=$(bridge fdb show dev flannel.1 | sed -n 's/ dst {address} .*//p') && [ \"$mac\" ] && \
         bridge fdb delete $mac dev flannel.1 dst {address}"
    );
    node.run(delete).await.map(drop)
}

pub(super) async fn stays_gone(lab: &Lab) -> anyhow::Result<()> {
    let (node, to) = (lab.node(2), lab.node(1));
    let range = to.range_of_pods().await?;
    let in_a_tunnel = node.run("ip link show flannel.1").may_fail().await?.succeeded();
    for again in ["", ", and still"] {
        lab.step(format!("exactly the pairs that need the deleted route time out{again}"));
        let mesh = lab.mesh_of_everybody().await?;
        let expected = "all pairs but those that need node 2's route to node 1's Pods";
        mesh.exactly_dead(expected, |from, to| needs_route(in_a_tunnel, from, to))?;
    }
    let route = node.run(format!("ip -4 route show {range}")).await?;
    let (gone, route) = (route.text().is_empty(), route.text());
    ensure!(gone, Answered, "no route to {to}'s Pods on {node}", "{route}");
    Ok(())
}

/// Whether a request or its answer takes node 2's route to node 1's Pods. In a tunnel a node has an address
/// of its Pods' range, under which it asks.
fn needs_route(in_a_tunnel: bool, from: &Party, to: &Party) -> bool {
    let request = (from.node, to.node) == (2, 1);
    let answer = (from.node, to.node) == (1, 2) && (from.pod || in_a_tunnel);
    request || answer
}

pub(super) async fn is_back(lab: &Lab) -> anyhow::Result<()> {
    let (node, to) = (lab.node(2), lab.node(1));
    lab.step(format!("what leads from {node} to {to}'s Pods is back"));
    node.until_laid_for(to, to.range_of_pods().await?).await
}

pub(super) async fn every_pair_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every ordered pair answers");
    let mesh = lab.mesh_of_everybody().await?;
    Ok(mesh.all_answer("every ordered pair to answer")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_tunnel_a_node_s_own_requests_need_the_way_back_as_well() {
        let party = |node: u32, pod| Party::new("", node, pod, [10, 1, 1, 1]);
        let needs = |tunnel, from: (u32, bool), to| {
            needs_route(tunnel, &party(from.0, from.1), &party(to, true))
        };
        for tunnel in [false, true] {
            assert!(needs(tunnel, (2, false), 1) && needs(tunnel, (2, true), 1));
            assert!(needs(tunnel, (1, true), 2));
            assert_eq!(needs(tunnel, (1, false), 2), tunnel);
            assert!(!needs(tunnel, (3, true), 2) && !needs(tunnel, (1, true), 1));
        }
    }
}
