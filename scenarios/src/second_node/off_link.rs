//! Routes between nodes that do not share a segment.

use podwire_scenario::{
    Break, Cause, Lab, Layout, Node, Profile, RequestOutcome, Sabotage, Scenario, StageName,
    assert, steps,
};

use crate::catalogue::C10;

/// C10!: a node behind a router is no next hop; the router is.
pub(crate) const OFF_LINK: Scenario = Scenario {
    about: "With a router between the nodes the kernel refuses a route by way of the other node's address; \
            told to take it for a neighbour's all the same, it asks for it in vain: no route to host. By \
            way of the router, which has routes of its own, every pair answers",
    covers: &[C10],
    layout: Layout::Routed,
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("on-link-after-all")
            .about("node 1 has an address of the other segment's as well, as if that were its own")
            .inject(steps!(|lab| claim_the_other_segment(lab.node(1), lab.node(2)).await))
            .caught_by(steps!(no_way_off_the_link), Cause::Answered),
        Sabotage::new("router-answers-for-others")
            .about("the router answers ARP's questions for the other segment's machines")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                lab.router().answer_for_others().await
            }))
            .caught_by(steps!(no_way_off_the_link), Cause::Answered),
        Sabotage::new("router-lacks-a-route")
            .about("the router has no route to node 2's Pods")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                lab.router().delete_route_to(lab.node(2)).await
            }))
            .caught_by(steps!(every_pair_answers), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("off_link_routes", StageName::WorkloadBare, steps!(off_link))
};

async fn off_link(lab: &Lab) -> anyhow::Result<()> {
    no_way_off_the_link(lab).await?;
    lab.add_all_routes().await?;
    every_pair_answers(lab).await
}

async fn no_way_off_the_link(lab: &Lab) -> anyhow::Result<()> {
    let (node1, node2) = (lab.node(1), lab.node(2));
    let route = format!("{} via {}", node2.pod_range(), node2.address());
    lab.step("a route by way of an address of the other segment: the kernel refuses it");
    let typed = node1.run(format!("ip route replace {route}")).may_fail().await?;
    let expected = "the kernel to refuse a next hop that is on no segment of its own";
    let refused = assert::refused(&typed, "invalid gateway", expected);
    refused.map_err(|it| it.look("`ip address` and `ip route` of node1"))?;

    lab.step("the same as if it were a neighbour's: nobody answers for it");
    let card = node1.device_to(node2.address()).await?;
    node1.run(format!("ip route replace {route} dev {card} onlink")).await?;
    let pods = lab.pods().on(node2).running().await?;
    for pod in pods {
        let expected = format!("no route to {pod}, whose node is no neighbour");
        lab.ask(node1, pod.address).all_end(RequestOutcome::NoRoute, expected).await?;
    }
    node1.run(format!("ip route delete {route}")).await.map(drop)
}

async fn every_pair_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every ordered pair answers, by way of the router where segments differ");
    let mesh = lab.mesh_of_everybody().await?;
    Ok(mesh.all_answer("every ordered pair to answer")?)
}

/// Gives a node an address of another's segment, with its subnet.
async fn claim_the_other_segment(node: Node<'_>, other: Node<'_>) -> anyhow::Result<()> {
    let [a, b, c, _] = other.address().octets();
    let card = node.device_to(other.address()).await?;
    node.run(format!("ip address add {a}.{b}.{c}.200/24 dev {card}")).await.map(drop)
}
