//! Chapter E, as far as it holds for a cluster by hand: the Pod network's promise, and a node that
//! leaves and comes back.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{EvictParams, ListParams};
use podwire_cluster::{Break, StageName, addresses};
use podwire_scenario::{Cause, Cells, Failure, Lab, Profile, Sabotage, Scenario, assert};

use crate::steps::{all_nodes_ready, mesh_of_everybody, nodes, on, pods_running};

/// E7: Pods see each other's own address.
pub(crate) const OWN_ADDRESSES: Scenario = Scenario {
    name: "pods_see_own_addresses",
    about: "A Pod that is asked by another sees that Pod's own address: nothing is translated on \
            the way",
    covers: &["E7"],
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
                lab.step("masquerade what leaves node 2's Pods");
                let range = lab.pod_range(2).await?;
                on(
                    lab,
                    2,
                    &format!(
                        "nft 'add table ip sabotage; \
                         add chain ip sabotage post {{ type nat hook postrouting priority 100; }}; \
                         add rule ip sabotage post ip saddr {range} ip daddr != {range} masquerade'"
                    ),
                )
                .await?;
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
    covers: &["E27 by hand", "E28 by hand", "E33 by hand"],
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
                joined_again(lab, leaving).await
            })
        },
    }],
    red_when: &[Break::Route, Break::PodRange],
};

async fn rejoin(lab: &Lab) -> anyhow::Result<()> {
    let leaving = lab.nodes();
    let name = addresses::node_name(leaving);
    let wanted = lab.pods().await?.len();

    lab.step(format!("drain {name}: cordon it and evict its Pods"));
    drain(lab, leaving).await?;
    pods_running(lab, wanted, |pods| {
        let left = pods.iter().filter(|pod| pod.node == leaving).count();
        (left > 0).then(|| format!("{left} Pods still on {name}"))
    })
    .await?;

    lab.step(format!(
        "delete {name}, stop its daemons and wipe what they kept"
    ));
    nodes(lab).delete(&name, &Default::default()).await?;
    if nodes(lab).get_opt(&name).await?.is_some() {
        return Err(Failure::new(
            Cause::Answered,
            format!("{name} off the list"),
            "it is listed",
        )
        .into());
    }
    on(
        lab,
        leaving,
        "systemctl stop kubelet containerd && rm -rf /var/lib/kubelet/* /var/lib/cni/* && \
         { ip link delete cni0 || true; }",
    )
    .await?;

    lab.step("start its daemons again: it joins with its own kubeconfig");
    on(lab, leaving, "systemctl start containerd kubelet").await?;
    joined_again(lab, leaving).await?;

    lab.step("scale up: the node takes Pods again, with unique addresses, reached from everywhere");
    let wanted = wanted + 2;
    lab.cluster().scale_workload(u32::try_from(wanted)?).await?;
    pods_running(lab, wanted, |pods| {
        let back = pods.iter().any(|pod| pod.node == leaving);
        (!back).then(|| format!("no Pod on {name} yet"))
    })
    .await?;
    let pods = lab.pods().await?;
    assert::addresses_unique_and_in_range(&pods, addresses::pod_range)?;
    mesh_of_everybody(lab)
        .await?
        .all_answer("every pair to answer after the rejoin")?;
    Ok(())
}

/// What `kubectl drain` does: cordon, then an eviction for every Pod of the node.
async fn drain(lab: &Lab, number: u32) -> anyhow::Result<()> {
    let name = addresses::node_name(number);
    nodes(lab).cordon(&name).await?;
    let pods: Api<Pod> = Api::default_namespaced(lab.cluster().api());
    let of_node = ListParams::default().fields(&format!("spec.nodeName={name}"));
    for pod in pods.list(&of_node).await?.items {
        let pod_name = pod.metadata.name.unwrap_or_default();
        pods.evict(&pod_name, &EvictParams::default()).await?;
    }
    Ok(())
}

async fn joined_again(lab: &Lab, number: u32) -> anyhow::Result<()> {
    all_nodes_ready(lab, async || {
        let state = on(lab, number, "systemctl is-active kubelet || true").await?;
        let down = state.trim() == "inactive";
        Ok(down.then(|| (Cause::Absent, "its kubelet is not running".to_owned())))
    })
    .await
}
