//! Pods see each other's own address.

use podwire_scenario::{
    Break, Cause, Lab, Sabotage, Scenario, StageName, ensure_none, secs, steps,
};

use crate::catalogue::E7;

/// E7: Pods see each other's own address.
pub(crate) const OWN_ADDRESSES: Scenario = Scenario {
    about: "A Pod that is asked by another sees that Pod's own address: nothing is translated on the \
            way; it is of the Pods' range, except over a manifest of the user's",
    covers: &[E7],
    limit: secs(60),
    sabotages: &[Sabotage::new("masquerade-between-nodes")
        .about("node 2 masquerades its Pods' traffic to other nodes, as ipMasq=true does")
        .inject(steps!(|lab| lab.node(2).masquerade_between_nodes().await))
        .caught_by(steps!(own_addresses), Cause::WrongAnswer)],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("pods_see_own_addresses", StageName::Workload, steps!(own_addresses))
};

async fn own_addresses(lab: &Lab) -> anyhow::Result<()> {
    lab.step("each Pod has an address of the Pods' range");
    let (network, pods) = (lab.pod_network(), lab.pods().await?);
    let outside = pods.iter().filter(|pod| !pod.has_pod_address(network));
    ensure_none!(outside, OutsideRange, "addresses of the Pods' range");
    lab.step("ask every Pod from one Pod of each node: whom do they see?");
    Ok(lab.mesh_of_pods().await?.senders_seen_as_themselves()?)
}
