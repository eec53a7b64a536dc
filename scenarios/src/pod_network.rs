//! Chapter E, as far as it holds for a cluster by hand: the Pod network's promise, and a node that
//! leaves and comes back.

use std::time::Duration;

use podwire_cluster::{Break, StageName, addresses};
use podwire_scenario::{Cause, Cells, Lab, Profile, Sabotage, Scenario};

use crate::catalogue::{E7, E27_BY_HAND, E28_BY_HAND, E33_BY_HAND};
use crate::leaving::{back_again, delete, drain, join_again, takes_pods, wipe};
use crate::steps::{
    addresses_unique_and_in_range, masquerade_between_nodes, mesh_of_everybody, pods_running,
};

/// E7: Pods see each other's own address.
pub(crate) const OWN_ADDRESSES: Scenario = Scenario {
    name: "pods_see_own_addresses",
    about: "A Pod that is asked by another sees that Pod's own address: nothing is translated on \
            the way",
    covers: &[E7],
    stage: StageName::Workload,
    cells: Cells::Any,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(60),
    prepare: None,
    run: |lab| Box::pin(own_addresses(lab)),
    sabotages: &[Sabotage {
        name: "masquerade-between-nodes",
        about: "node 2 masquerades its Pods' traffic to other nodes, as ipMasq=true does",
        expects: Cause::WrongAnswer,
        run: |lab| {
            Box::pin(async {
                masquerade_between_nodes(lab).await?;
                lab.injected();
                own_addresses(lab).await
            })
        },
    }],
    red_when: &[Break::Route, Break::PodRange],
};

async fn own_addresses(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask every Pod from one Pod of each node: whom do they see?");
    let senders = lab.one_pod_per_node().await?;
    lab.mesh(&senders, &lab.pods().await?)
        .await?
        .senders_seen_as_themselves()?;
    Ok(())
}

/// By hand: drain, delete, wipe, join again.
pub(crate) const REJOIN: Scenario = Scenario {
    name: "node_drained_deleted_rejoined",
    about: "A drained and deleted node leaves no Pod behind; wiped and joined again it is Ready, \
            takes Pods, and they are reached from everywhere",
    covers: &[E27_BY_HAND, E28_BY_HAND, E33_BY_HAND],
    stage: StageName::Workload,
    cells: Cells::ByHand,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(240),
    prepare: None,
    run: |lab| Box::pin(rejoin(lab)),
    sabotages: &[Sabotage {
        name: "kubelet-not-started",
        about: "the kubelet of the wiped node is not started again",
        expects: Cause::Absent,
        run: |lab| {
            Box::pin(async {
                let leaving = lab.nodes();
                crate::steps::take_off(lab, leaving).await?;
                lab.injected();
                back_again(lab).await
            })
        },
    }],
    red_when: &[Break::Route, Break::PodRange],
};

async fn rejoin(lab: &Lab) -> anyhow::Result<()> {
    let leaving = lab.nodes();
    let name = addresses::node_name(leaving);
    let wanted = lab.pods().await?.len();

    drain(lab, leaving).await?;
    pods_running(lab, wanted, |pods| {
        let left = pods.iter().filter(|pod| pod.node == leaving).count();
        (left > 0).then(|| format!("{left} Pods still on {name}"))
    })
    .await?;
    delete(lab, leaving).await?;
    wipe(lab, leaving).await?;
    join_again(lab, leaving).await?;

    lab.step("scale up: the node takes Pods again, with unique addresses, reached from everywhere");
    takes_pods(lab, leaving, wanted + 2).await?;
    addresses_unique_and_in_range(lab).await?;
    mesh_of_everybody(lab)
        .await?
        .all_answer("every pair to answer after the rejoin")?;
    Ok(())
}
