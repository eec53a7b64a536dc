//! By which way requests go.

use podwire_scenario::{Break, Cause, Lab, Sabotage, Scenario, StageName, steps};

use crate::catalogue::F2;

/// F2: the path.
pub(crate) const DIRECT_WAY: Scenario = Scenario {
    about: "A request between two nodes crosses the wire once, from its sender's node to its \
            receiver's and no third one's, and one within a node not at all; nothing for Pods or \
            Services goes to the gateway",
    covers: &[F2],
    nodes: 3,
    sabotages: &[
        Sabotage::new("wrong-neighbour")
            .about(
                "node 1 has node 2's Ethernet address for the last node, and node 2 hands on \
                 what it gets",
            )
            .inject(steps!(|lab| lab.node(1).send_by_a_detour(lab.node(2), lab.last_node()).await))
            .caught_by(steps!(direct_way), Cause::WrongPath),
        Sabotage::new("route-over-a-third-node")
            .about("node 1 routes what goes to the last node's Pods over node 2")
            .inject(steps!(|lab| lab.node(1).route_by_a_detour(lab.node(2), lab.last_node()).await))
            .caught_by(steps!(direct_way), Cause::WrongPath),
        Sabotage::new("opened-twice")
            .about(
                "the first packet of each connection from node 1 to node 2's Pods is forgotten: \
                 a second one opens it",
            )
            .inject(steps!(|lab| lab.node(1).opens_connections_twice(lab.node(2)).await))
            .caught_by(steps!(direct_way), Cause::SecondSyn),
        Sabotage::new("copies-on-the-wire")
            .about("node 1 sends node 2 a copy of what goes between its own Pods")
            .inject(steps!(|lab| lab.node(1).shows_another_what_stays_here(lab.node(2)).await))
            .caught_by(steps!(direct_way), Cause::WrongPath),
        Sabotage::new("asked-past-kube-proxy")
            .about(
                "node 1 asks for a Service's address past kube-proxy's rules, which goes to the \
                 gateway",
            )
            .inject(steps!(|lab| {
                let service = lab.service("blue").address().await?;
                lab.node(1).asks_past_its_rules(service).await
            }))
            .caught_by(steps!(direct_way), Cause::WrongPath),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("direct_way", StageName::Workload, steps!(direct_way))
};

async fn direct_way(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every ordered pair, and the way that its frames take (F2)");
    let mesh = lab.mesh_of_everybody().await?;
    mesh.all_answer("every ordered pair to answer")?;
    lab.wire().carried(&mesh)
}
