//! More than a segment.

use podwire_scenario::{
    Break, Cause, Families, Kind, Lab, Party, Place, Sabotage, Scenario, StageName, mib, secs,
    steps,
};

use crate::catalogue::F1;

/// F1: transfers over every ordered pair.
pub(crate) const TRANSFERS: Scenario = Scenario {
    about: "From every node and from a Pod of each a mebibyte gets to a Pod of every node and \
            another one back, by the Pod's address and by a ClusterIP, as it was sent; by each family of \
            IP that the cluster has",
    covers: &[F1],
    families: Families::Each,
    limit: secs(240),
    prepare: Some(steps!(services)),
    sabotages: &[
        Sabotage::new("large-packets-vanish-on-one-node")
            .about("node 2 drops, silently, what is longer than 1400 octets and goes to its Pods")
            .inject(steps!(|lab| lab.node(2).drop_large_packets_to_its_pods(LARGE).await))
            .at(Place::Node(2))
            .caught_by(steps!(transfers_with_node_2), Cause::TimedOut),
        Sabotage::new("large-packets-vanish-on-the-way")
            .about(
                "what node 1 sends to node 2 or its Pods, in the tunnel where there is one, \
                 vanishes when it is longer than 1400 octets",
            )
            .inject(steps!(|lab| {
                let (node1, node2) = (lab.node(1), lab.node(2));
                node1.drop_large_packets_on_the_way_to(node2, LARGE).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(transfers_with_node_2), Cause::TimedOut),
        Sabotage::new("fragmentation-needed-is-not-told")
            .about(
                "node 1's way to node 2's Pods carries 1300 octets, and node 1 keeps that to \
                 itself",
            )
            .inject(steps!(|lab| {
                let (node1, node2) = (lab.node(1), lab.node(2));
                node1.hide_a_narrow_way_to_pods_of(node2, NARROW).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(transfers_with_node_2), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new("transfers_over_every_pair", StageName::Workload, steps!(transfers))
};

/// Longer than what any small request sends, and shorter than a full packet in any tunnel.
const LARGE: u32 = 1400;
/// What IPv6 asks of every link at least is not much less.
const NARROW: u32 = 1300;

async fn services(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Service of its own for a Pod of each node, until every node knows all of them");
    let mut services = Vec::new();
    for pod in lab.pod_of_each_node().await? {
        services.push(lab.service(&pod.name).create_for(&pod).await?);
    }
    lab.until_all_answer(&lab.everybody().await?, &services).await
}

async fn transfers(lab: &Lab) -> anyhow::Result<()> {
    there_and_back(lab, &lab.pod_of_each_node().await?).await
}

async fn transfers_with_node_2(lab: &Lab) -> anyhow::Result<()> {
    let mut pods = lab.pod_of_each_node().await?;
    pods.retain(|pod| pod.node == 2);
    there_and_back(lab, &pods).await
}

async fn there_and_back(lab: &Lab, pods: &[Party]) -> anyhow::Result<()> {
    let mut targets = pods.to_vec();
    for pod in pods {
        targets.push(lab.service(&pod.name).leading_to(pod).await?);
    }
    lab.step("a mebibyte there and another back, over every pair (F1)");
    let asked = lab.mesh(&lab.everybody().await?, &targets).by(Kind::both_ways(mib(1)));
    let mesh = asked.by_each_family().await?;
    Ok(mesh.all_answer("a mebibyte to get there, and another back, as they were sent")?)
}
