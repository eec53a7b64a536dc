//! Each node's own range.

use podwire_scenario::{
    Break, Cause, Lab, Party, Sabotage, Scenario, StageName, ensure, secs, steps,
};

use crate::catalogue::C4;

/// C4: Pod addresses are unique, each in its node's range.
pub(crate) const POD_ADDRESSES: Scenario = Scenario {
    about: "Every Pod has an address of its own, from the range of the node it runs on",
    covers: &[C4],
    limit: secs(90),
    sabotages: &[Sabotage::new("two-nodes-one-range")
        .about("node 2 hands out addresses from node 1's range")
        .inject(steps!(give_node2_the_range_of_node1))
        .caught_by(steps!(pod_addresses), Cause::NotUnique)],
    red_when: &[Break::PodRange],
    ..Scenario::new("pod_addresses", StageName::WorkloadBare, steps!(pod_addresses))
};

async fn pod_addresses(lab: &Lab) -> anyhow::Result<()> {
    let pods = lab.pods().all_running().await?;
    lab.step(format!("look at the addresses of {} Pods", pods.len()));
    for node in lab.nodes() {
        let some = pods.iter().any(|pod| pod.node == node.number());
        ensure!(some, Absent, "running Pods on every node", "none on {node}");
    }
    lab.pod_addresses_unique_and_in_range().await
}

async fn give_node2_the_range_of_node1(lab: &Lab) -> anyhow::Result<()> {
    lab.step("give node 2 the CNI range of node 1, and replace its Pods");
    let node2 = lab.node(2);
    node2.write_cni_file(lab.node(1).pod_range()).await?;
    // The bridge keeps its first address, and the plugin refuses another: it has to go as well.
    node2.run("ip link delete cni0").await?;
    let all = lab.pods().all_running().await?;
    let old = lab.pods().on(node2).running().await?;
    lab.pods().on(node2).delete_all().await?;
    let left = |pods: &[Party]| pods.iter().any(|pod| old.contains(pod));
    let new_ones = lab
        .pods()
        .until_running_and(all.len(), |pods| left(pods).then(|| "an old one is left".to_owned()));
    new_ones.await.map(drop)
}
