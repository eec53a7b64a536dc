//! Which pairs a route connects.

use podwire_scenario::{
    Break, Cause, Lab, Party, Place, Sabotage, Scenario, StageName, ensure, steps,
};

use crate::catalogue::{C6, C7, C8};

/// C6!, C7, C8: which pairs a route connects, and which its absence cuts.
pub(crate) const STATIC_ROUTES: Scenario = Scenario {
    about: "Without routes a Pod on another node times out; one route connects one direction, all \
            routes every pair, and deleting one cuts exactly its pairs",
    covers: &[C6, C7, C8],
    sabotages: &[
        Sabotage::new("a-route-is-missing")
            .about("the route from node 1 to node 2's Pods is missing")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                lab.node(1).delete_route_to(2).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(every_pair_answers), Cause::TimedOut),
        Sabotage::new("no-route-added")
            .about("node 1 has not been given its route to node 2's Pods")
            .at(Place::Node(1))
            .caught_by(steps!(node1_reaches_node2), Cause::TimedOut),
        Sabotage::new("no-route-deleted")
            .about("all routes are still there")
            .inject(steps!(Lab::add_all_routes))
            .caught_by(steps!(pairs_of_the_route_fail), Cause::Answered),
        Sabotage::new("node-1-drops-by-itself")
            .about("node 1 drops what it would send to the gateway for node 2's Pods")
            .inject(steps!(|lab| lab.node(1).drop_what_goes_to_pods_of(lab.node(2)).await))
            .caught_by(steps!(remote_pods_time_out), Cause::Absent),
        Sabotage::new("the-routes-are-there-already")
            .about("all routes exist before the first look")
            .inject(steps!(|lab| lab.add_all_routes().await))
            .caught_by(steps!(remote_pods_time_out), Cause::Answered),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("static_routes", StageName::WorkloadBare, steps!(static_routes))
};

async fn static_routes(lab: &Lab) -> anyhow::Result<()> {
    remote_pods_time_out(lab).await?;

    lab.node(1).add_route_to(2).await?;
    node1_reaches_node2(lab).await?;

    lab.add_all_routes().await?;
    every_pair_answers(lab).await?;

    lab.node(1).delete_route_to(2).await?;
    pairs_of_the_route_fail(lab).await
}

async fn remote_pods_time_out(lab: &Lab) -> anyhow::Result<()> {
    lab.step("no route: node 1 reaches its own Pods only, the rest goes to the gateway (C6)");
    let (node1, pods) = (lab.node(1).party(), lab.pods().all_running().await?);
    let dropped = |pod: &Party| lab.wire().dropped_for(pod.address);
    let before: Vec<u64> = pods.iter().map(dropped).collect();
    lab.mesh(&[node1], &pods)
        .await?
        .exactly_dead("node 1 to reach its own Pods only", |from, to| from.node != to.node)?;
    for (pod, before) in pods.iter().zip(before).filter(|(pod, _)| pod.node != 1) {
        let counted = dropped(pod) > before;
        ensure!(
            counted,
            Absent,
            "the request for {pod} to take the default route to the gateway, which drops it",
            "the gateway dropped none"
        );
    }
    Ok(())
}

async fn node1_reaches_node2(lab: &Lab) -> anyhow::Result<()> {
    lab.step("node 1 reaches node 2's Pods now; nothing else changed (C7)");
    let pods = lab.pods().all_running().await?;
    let mut senders: Vec<Party> = [1, 2].map(|number| lab.node(number).party()).into();
    senders.push(lab.pods().on(lab.node(1)).first().await?);
    let mesh = lab.mesh(&senders, &pods).await?;
    let expected = "node 1 to reach the Pods of node 2, and no other node's Pods but its own; nor do \
                    its Pods, to which no route leads back";
    Ok(mesh.exactly_dead(expected, |from, to| {
        from.node != to.node && (from.pod || (from.node, to.node) != (1, 2))
    })?)
}

async fn pairs_of_the_route_fail(lab: &Lab) -> anyhow::Result<()> {
    lab.step("exactly the pairs of that route fail (C8)");
    let mesh = lab.mesh_of_everybody().await?;
    let expected = "all pairs but those that need node 1's route to node 2's Pods";
    Ok(mesh.exactly_dead(expected, |from, to| needs_route(from, to, (1, 2)))?)
}

async fn every_pair_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every ordered pair answers, node to Pod and Pod to Pod (C8)");
    let mesh = lab.mesh_of_everybody().await?;
    Ok(mesh.all_answer("every ordered pair to answer")?)
}

/// Whether a request or its reply takes a route: with ipMasq=false both keep the Pods' addresses.
fn needs_route(from: &Party, to: &Party, route: (u32, u32)) -> bool {
    let request = (from.node, to.node) == route;
    let reply = from.pod && (to.node, from.node) == route;
    request || reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(node: u32, pod: bool) -> Party {
        Party::new("", node, pod, [10, 1, 1, 1])
    }

    #[test]
    fn a_deleted_route_takes_its_direction_and_the_replies_to_pods() {
        let dead = |from: (u32, bool), to: u32| {
            needs_route(&party(from.0, from.1), &party(to, true), (1, 2))
        };
        assert!(dead((1, false), 2), "node 1 -> Pods of node 2");
        assert!(dead((1, true), 2), "Pods of node 1 -> Pods of node 2");
        assert!(dead((2, true), 1), "the reply to a Pod of node 2 needs it too");
        assert!(!dead((2, false), 1), "the reply to node 2 itself does not");
        assert!(!dead((1, false), 1) && !dead((3, true), 2) && !dead((1, true), 3));
    }
}
