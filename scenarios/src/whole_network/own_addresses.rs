//! Pods see each other's own address.

use podwire_scenario::{Break, Cause, Lab, Sabotage, Scenario, StageName, secs, steps};

use crate::catalogue::E7;

/// E7: Pods see each other's own address.
pub(crate) const OWN_ADDRESSES: Scenario = Scenario {
    about: "A Pod that is asked by another sees that Pod's own address: nothing is translated on \
            the way",
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
    lab.step("ask every Pod from one Pod of each node: whom do they see?");
    Ok(lab.mesh_of_pods().await?.senders_seen_as_themselves()?)
}
