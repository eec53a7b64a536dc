//! Pod CIDRs from the controller manager, on nodes whose container engine follows them.

use std::collections::BTreeMap;

use podwire_scenario::{
    Cause, Cells, Evidence, Failure, Ipv4Net, Lab, Needs, Node, Probe, Profile, Sabotage, Scenario,
    StageName, ensure, secs, steps,
};

use super::template::{
    ANOTHER, files_are_made_of_a_template, net, new_pod_is_in, range_of, ready_with_another_range,
    set_pod_cidr,
};
use crate::catalogue::D5c;

/// D5c. The kubelet's flag is for standalone mode, by its reference. But every kubelet tells containerd of
/// it when it starts, and when it hears of the Node's range containerd has a file, and makes no other.
pub(crate) const POD_CIDR_ALLOCATED: Scenario = Scenario {
    about: "The controller manager gives every Node a Pod CIDR of its own within the cluster's, and the \
            Node's Pods get addresses from it; but for a node whose kubelet is told another by a flag",
    covers: &[D5c],
    cells: Cells::ByHandWithRoutes,
    profile: Profile::Full,
    limit: secs(300),
    prepare: Some(steps!(files_are_made_of_a_template)),
    sabotages: &[
        Sabotage::new("range-too-small")
            .about("the cluster's range is that of one node")
            .inject(steps!(|lab| allocate(lab, "10.1.128.0/24").await))
            .caught_by(steps!(ranges_are_disjoint_and_inside), Cause::Absent),
        Sabotage::new("another-cluster-range")
            .about("the controller manager is told another range of the cluster's")
            .inject(steps!(|lab| allocate(lab, "10.1.64.0/20").await))
            .caught_by(steps!(ranges_are_disjoint_and_inside), Cause::OutsideRange),
        Sabotage::new("same-range-by-hand")
            .about("two Nodes have been given one range by hand before")
            .inject(steps!(|lab| {
                set_pod_cidr(lab, lab.node(1), INSIDE).await?;
                set_pod_cidr(lab, lab.node(2), INSIDE).await?;
                allocate(lab, CLUSTER).await
            }))
            .caught_by(steps!(ranges_are_disjoint_and_inside), Cause::NotUnique),
        Sabotage::new("another-cni-file")
            .about("node 1 has a CNI file with another range already")
            .inject(steps!(|lab| {
                ready_with_another_range(lab.node(1)).await?;
                allocate(lab, CLUSTER).await
            }))
            .caught_by(steps!(pods_have_addresses_of_them), Cause::OutsideRange),
        Sabotage::new("flag-left-out")
            .about("the last node's kubelet is started without the flag")
            .inject(steps!(|lab| allocate(lab, CLUSTER).await))
            .caught_by(steps!(flag_comes_first), Cause::OutsideRange),
    ],
    ..Scenario::new("pod_cidr_allocated", StageName::Joined, steps!(allocated))
};

/// The range of all Pods.
const CLUSTER: &str = "10.1.128.0/20";
/// What it has for one of the nodes.
const INSIDE: Ipv4Net = net(130, 24);

async fn allocated(lab: &Lab) -> anyhow::Result<()> {
    let last = lab.last_node();
    lab.step(format!("start {last}'s kubelet with --pod-cidr={ANOTHER}"));
    let told = last.kubelet().with("--pod-cidr", ANOTHER);
    last.start_component(&told).await?;
    last.ready_within(secs(20)).await?;

    allocate(lab, CLUSTER).await?;
    ranges_are_disjoint_and_inside(lab).await?;
    pods_have_addresses_of_them(lab).await?;
    flag_comes_first(lab).await
}

async fn allocate(lab: &Lab, cluster: &str) -> anyhow::Result<()> {
    lab.step(format!("the controller manager gives Nodes ranges of {cluster}"));
    let manager = lab.controller_manager().with("--allocate-node-cidrs", true);
    lab.node(1).start_component(&manager.with("--cluster-cidr", cluster)).await
}

async fn given_range(lab: &Lab, node: Node<'_>) -> anyhow::Result<Ipv4Net> {
    lab.eventually(format!("{node} to be given a Pod CIDR"), secs(20), async || {
        let events = lab.events("CIDRNotAvailable").await?;
        let refused = events.iter().find(|it| it.contains(node.name()));
        Ok(Probe::of(range_of(node).await?, Cause::Absent, "it has none")
            .given(refused.map(|said| Evidence::unchanged_for(3, said)))
            .needs(Needs::ControlPlane("kube-controller-manager")))
    })
    .await
}

async fn ranges_are_disjoint_and_inside(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("every Node is given a Pod CIDR of its own, within {CLUSTER} (D5c)"));
    let mut ranges = BTreeMap::new();
    for node in lab.nodes() {
        ranges.insert(node.number(), given_range(lab, node).await?);
    }
    Ok(disjoint_and_inside(&ranges, CLUSTER.parse()?)?)
}

fn disjoint_and_inside(ranges: &BTreeMap<u32, Ipv4Net>, all: Ipv4Net) -> Result<(), Failure> {
    for (node, range) in ranges {
        let inside = all.contains(range.address) && all.contains(range.broadcast());
        ensure!(inside, OutsideRange, "node{node}'s Pod CIDR within {all}", "{range}");
        let overlaps =
            |other: &Ipv4Net| other.contains(range.address) || range.contains(other.address);
        let shared = ranges.iter().find(|(other, it)| *other < node && overlaps(it));
        ensure!(shared.is_none(), NotUnique, "a Pod CIDR for node{node} alone", "{ranges:?}");
    }
    Ok(())
}

/// But for the last node, see [`flag_comes_first`].
async fn pods_have_addresses_of_them(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a node's Pod has an address of the Node's Pod CIDR (D5c)");
    for node in lab.nodes().filter(|node| node.number() < lab.node_count()) {
        let range = given_range(lab, node).await?;
        node.ready_within(secs(20)).await?;
        new_pod_is_in(lab, node, range).await?;
    }
    Ok(())
}

async fn flag_comes_first(lab: &Lab) -> anyhow::Result<()> {
    let last = lab.last_node();
    let given = given_range(lab, last).await?;
    lab.step(format!(
        "{last}'s Pod has one of the flag's range, and its Node is given {given} (D5c)"
    ));
    last.ready_within(secs(20)).await?;
    new_pod_is_in(lab, last, ANOTHER).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_must_be_inside_and_apart() {
        let of = |ranges: [&str; 2]| {
            let ranges = ranges.map(|range| range.parse().unwrap());
            let ranges = BTreeMap::from_iter((1..).zip(ranges));
            disjoint_and_inside(&ranges, "10.1.128.0/20".parse().unwrap())
                .map_err(|failure| failure.cause)
        };
        assert_eq!(of(["10.1.128.0/24", "10.1.143.0/24"]), Ok(()));
        assert_eq!(of(["10.1.128.0/24", "10.1.144.0/24"]), Err(Cause::OutsideRange));
        assert_eq!(of(["10.1.128.0/19", "10.1.140.0/24"]), Err(Cause::OutsideRange));
        assert_eq!(of(["10.1.128.0/24", "10.1.128.0/24"]), Err(Cause::NotUnique));
        assert_eq!(of(["10.1.128.0/23", "10.1.129.0/24"]), Err(Cause::NotUnique));
        assert_eq!(of(["10.1.129.0/24", "10.1.128.0/23"]), Err(Cause::NotUnique));
    }
}
