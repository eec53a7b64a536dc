//! The balancing rule, from everywhere.

use podwire_scenario::{
    Break, Cause, Families, Lab, Party, Place, Sabotage, Scenario, StageName, steps,
};

use crate::catalogue::E36;

/// E36: the balancing rule, from everywhere.
pub(crate) const CLUSTER_IP: Scenario = Scenario {
    about: "Requests to a ClusterIP with at least five Pods behind it spread evenly over them, from \
            every node and from a Pod; each crosses the wire once, by the direct way; so they do to the \
            ClusterIP of each family of IP that the cluster has",
    covers: &[E36],
    families: Families::Each,
    sabotages: &[
        Sabotage::new("session-affinity")
            .about("the Service sends each client to one Pod")
            .inject(steps!(|lab| {
                lab.service("blue").stick_clients_to_one_pod().await?;
                lab.service("blue").until_one_pod_answers(lab.node(1)).await
            }))
            .caught_by(steps!(spreads_from_everywhere), Cause::Unbalanced),
        // A client that repeats its first packet is sent to another Pod, and few requests end.
        Sabotage::new("dropped-on-one-node")
            .about("node 1 drops what goes to the Pods of node 2")
            .inject(steps!(|lab| {
                let (node1, node2) = (lab.node(1), lab.node(2));
                node1.drop_what_goes_to_pods_of(node2).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(spreads_from_everywhere), Cause::Unbalanced),
        Sabotage::new("first-packet-lost")
            .about(
                "node 2 loses the first packet of one connection in eight, which is answered \
                 when it comes again",
            )
            .inject(steps!(|lab| lab.node(2).lose_some_first_packets().await))
            .caught_by(steps!(spreads_from_everywhere), Cause::SentAgain),
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new("cluster_ip_from_everywhere", StageName::Workload, steps!(cluster_ip))
};

/// Fewer backends would hide a skew among few.
const BACKENDS: usize = 5;

async fn cluster_ip(lab: &Lab) -> anyhow::Result<()> {
    if lab.pods().running().await?.len() < BACKENDS {
        lab.step(format!("scale up to {BACKENDS} Pods"));
        lab.deployment("blue").scale(BACKENDS).await?;
        lab.pods().until_running(BACKENDS).await?;
    }
    every_sender_sees_every_pod(lab).await?;
    spreads_from_everywhere(lab).await
}

async fn senders(lab: &Lab) -> anyhow::Result<Vec<Party>> {
    let mut senders = lab.node_parties();
    senders.push(lab.pods().on(lab.last_node()).first().await?);
    Ok(senders)
}

/// Each node's kube-proxy has the same Pods behind the ClusterIP before anything is counted.
pub(super) async fn every_sender_sees_every_pod(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node's kube-proxy knows every Pod");
    let pods = lab.pods().running().await?.len();
    for from in senders(lab).await? {
        lab.service("blue").leads_to_all(pods, &from).await?;
    }
    Ok(())
}

pub(super) async fn spreads_from_everywhere(lab: &Lab) -> anyhow::Result<()> {
    for from in senders(lab).await? {
        lab.step(format!("requests from {from} spread over the Pods (E36)"));
        let sent = lab.service("blue").spreads_evenly(&from).await?;
        lab.wire().carried(sent)?;
    }
    Ok(())
}
