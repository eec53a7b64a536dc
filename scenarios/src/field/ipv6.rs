//! IPv6 beside IPv4.

use std::collections::BTreeMap;

use podwire_scenario::{
    Cause, Cells, Failure, Families, Family, Lab, Party, Place, PodNetwork, Sabotage, Scenario,
    StageName, assert, ensure, secs, steps,
};

use crate::catalogue::F20;

/// F20: what only a dual-stack cluster has.
pub(crate) const IPV6_BESIDE_IPV4: Scenario = Scenario {
    about: "In a dual-stack cluster a Node has an address of either family and, where somebody gives \
            them out, a range for its Pods; each Pod has two addresses, of its node's ranges, the \
            Service two ClusterIPs; and everybody is answered by each family",
    covers: &[F20],
    cells: Cells::WithBridge,
    families: Families::Dual,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("ipv6-route-missing")
            .about("node 1 has no IPv6 route to node 2's Pods")
            .inject(steps!(|lab| lab.node(1).lose_ipv6_route_to_pods_of(lab.node(2)).await))
            .caught_by(steps!(every_pod_answers), Cause::NoRoute),
        Sabotage::new("ipv6-not-forwarded")
            .about("node 2 forwards nothing by IPv6")
            .inject(steps!(|lab| lab.node(2).forward_no_ipv6().await))
            .at(Place::Node(2))
            .caught_by(steps!(every_pod_answers), Cause::TimedOut),
        Sabotage::new("ipv6-rules-gone")
            .about("node 1 has lost what kube-proxy has written for IPv6")
            .inject(steps!(|lab| lab.node(1).lose_ipv6_rules_of_kube_proxy().await))
            .caught_by(steps!(the_service_answers), Cause::NoRoute),
    ],
    ..Scenario::new("ipv6_beside_ipv4", StageName::Workload, steps!(ipv6_beside_ipv4))
};

async fn ipv6_beside_ipv4(lab: &Lab) -> anyhow::Result<()> {
    nodes_have_both(lab).await?;
    pods_have_both(lab).await?;
    the_service_has_both(lab).await?;
    every_pod_answers(lab).await?;
    the_service_answers(lab).await
}

async fn nodes_have_both(lab: &Lab) -> anyhow::Result<()> {
    lab.step("all Nodes are Ready, each with its machine's two addresses");
    lab.all_nodes_ready().await?;
    let given = match lab.pod_network() {
        // Nobody gives Nodes their ranges.
        PodNetwork::Routes => 0,
        _ => 2,
    };
    lab.step(format!("each Node has been given {given} ranges for its Pods"));
    for node in lab.nodes() {
        let listed = node.registers().await?;
        let ranges = listed.pod_ranges();
        let as_many = ranges.len() == given;
        ensure!(as_many, WrongAnswer, "{node} to have {given} ranges", "{ranges:?}");
    }
    Ok(())
}

async fn pods_have_both(lab: &Lab) -> anyhow::Result<()> {
    lab.step("each Pod has two addresses, of its node's ranges");
    let pods = lab.pods().all_running().await?;
    lab.unique_and_in_range(&pods).await?;
    let by_ipv6 = pods.iter().map(|pod| pod.by(Family::Ipv6));
    let by_ipv6 = by_ipv6.collect::<Result<Vec<Party>, Failure>>()?;
    assert::addresses_unique(&by_ipv6)?;
    let mut ranges = BTreeMap::new();
    for node in lab.nodes() {
        ranges.insert(node.number(), node.range_of_pods_v6().await?);
    }
    for pod in &by_ipv6 {
        let range = &ranges[&pod.node];
        let inside = pod.ipv6.is_some_and(|address| range.contains(&address));
        ensure!(inside, OutsideRange, "an address of {range}, its node's", "{pod}");
    }
    Ok(())
}

async fn the_service_has_both(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the Service has a ClusterIP of either family");
    let listed = lab.service("blue").listed().await?;
    let spec = listed.and_then(|service| service.spec).unwrap_or_default();
    let families = spec.ip_families.unwrap_or_default();
    let both = families == ["IPv4", "IPv6"];
    ensure!(both, WrongAnswer, "a Service of both families, IPv4 first", "{families:?}");
    for family in lab.ip_families().each() {
        let address = lab.service("blue").address_by(*family).await?;
        let inside = assert::is_of_services(address);
        ensure!(inside, OutsideRange, "a ClusterIP of the Services' {family} range", "{address}");
    }
    Ok(())
}

async fn every_pod_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node, and a Pod of each, reaches every Pod by each family (F20)");
    let mesh = lab.mesh_of_everybody().await?;
    mesh.all_answer("every Pod to answer everybody by each family")?;
    lab.wire().carried(&mesh)
}

async fn the_service_answers(lab: &Lab) -> anyhow::Result<()> {
    let pods = lab.pods().all_running().await?;
    for from in lab.everybody().await? {
        lab.step(format!("the Service answers {} at each of its ClusterIPs (F20)", from.name));
        for family in lab.ip_families().each() {
            let address = lab.service("blue").address_by(*family).await?;
            let expected = format!("the {family} ClusterIP to answer {}", from.name);
            lab.ask(&from, address).times(8).all_answered_by(&pods, expected).await?;
        }
    }
    Ok(())
}
