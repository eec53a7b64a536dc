//! More than a segment.

use podwire_scenario::{Break, Cause, Kind, Lab, Sabotage, Scenario, StageName, mib, secs, steps};

use crate::catalogue::F1;

/// F1: transfers over every ordered pair.
pub(crate) const TRANSFERS: Scenario = Scenario {
    about: "From every node and from a Pod of each a mebibyte gets to a Pod of every node and \
            another one back, by the Pod's address and by a ClusterIP, as it was sent",
    covers: &[F1],
    limit: secs(240),
    sabotages: &[
        Sabotage {
            name: "large-packets-vanish-on-one-node",
            about: "node 2 drops, silently, what is longer than 1400 octets and goes to its Pods",
            expects: Cause::TimedOut,
            inject: steps!(|lab| lab.node(2).drop_large_packets_to_its_pods(LARGE).await),
            check: steps!(transfers),
        },
        Sabotage {
            name: "large-packets-vanish-on-the-way",
            about: "what node 1 sends to node 2 or its Pods, in the tunnel where there is one, \
                    vanishes when it is longer than 1400 octets",
            expects: Cause::TimedOut,
            inject: steps!(|lab| {
                let (node1, node2) = (lab.node(1), lab.node(2));
                node1.drop_large_packets_on_the_way_to(node2, LARGE).await
            }),
            check: steps!(transfers),
        },
        Sabotage {
            name: "fragmentation-needed-is-not-told",
            about: "node 1's way to node 2's Pods carries 1300 octets, and node 1 keeps that to itself",
            expects: Cause::TimedOut,
            inject: steps!(|lab| {
                let (node1, node2) = (lab.node(1), lab.node(2));
                node1.hide_a_narrow_way_to_pods_of(node2, NARROW).await
            }),
            check: steps!(transfers),
        },
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new("transfers_over_every_pair", StageName::Workload, steps!(transfers))
};

/// Longer than what any small request sends, and shorter than a full packet in any tunnel.
const LARGE: u32 = 1400;
/// What IPv6 asks of every link at least is not much less.
const NARROW: u32 = 1300;

async fn transfers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Service of its own for a Pod of each node");
    let pods = lab.pod_of_each_node().await?;
    let mut targets = pods.clone();
    for pod in &pods {
        targets.push(lab.service(&pod.name).create_for(pod).await?);
    }
    let senders = lab.everybody().await?;
    lab.step("every Pod answers everybody, at its own address and at its Service's");
    lab.until_all_answer(&senders, &targets).await?;
    lab.step("a mebibyte there and another back, over every pair (F1)");
    let mesh = lab.mesh(&senders, &targets).by(Kind::both_ways(mib(1))).await?;
    Ok(mesh.all_answer("a mebibyte to get there, and another back, as they were sent")?)
}
