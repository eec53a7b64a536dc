//! Each node's Pods on a network of their own, until routes join them and the firewall lets them.

use std::collections::BTreeSet;

use anyhow::Context as _;
use podwire_scenario::{
    Break, Cause, Kind, Lab, Party, Place, Profile, Sabotage, Scenario, StageName, secs, steps,
};

use crate::catalogue::{D6, D7, D8, D9};

/// D6!, D7!, D8!, D9. The firewall is Docker's in the document, which sets the policy of FORWARD when it
/// starts; today's containerd leaves it alone, so that it is typed here.
pub(crate) const ISOLATED_NETWORKS: Scenario = Scenario {
    about: "Without routes between the nodes a ClusterIP answers as often as chance leads to a Pod of \
            the asking node, and no ping gets further; with routes, what a node would forward is dropped \
            by its firewall until every node has a rule that accepts it; then all Pods answer, and \
            requests spread",
    covers: &[D6, D7, D8, D9],
    profile: Profile::Full,
    limit: secs(240),
    prepare: Some(steps!(kube_proxy_without_routes)),
    sabotages: &[
        Sabotage::new("a-pod-of-its-own-is-silent")
            .about("one of a node's own Pods cannot be reached either")
            .inject(steps!(|lab| {
                let pods = lab.pods().all_running().await?;
                let of = |node: u32| pods.iter().filter(|pod| pod.node == node).count();
                let pod = pods.iter().find(|pod| of(pod.node) > 1);
                let pod = pod.context("no node has two Pods")?;
                lab.node(pod.node).takes_for_nobody(pod.address).await
            }))
            .caught_by(steps!(works_sometimes), Cause::Unbalanced),
        Sabotage::new("routes-are-there")
            .about("the routes exist before the first look")
            .inject(steps!(Lab::add_all_routes))
            .caught_by(steps!(works_sometimes), Cause::Answered),
        Sabotage::new("told-unreachable")
            .about("node 1 knows that there is no way to node 2's Pods")
            .inject(steps!(|lab| {
                let range = lab.node(2).pod_range();
                lab.node(1).run(format!("ip route add unreachable {range}")).await.map(drop)
            }))
            .caught_by(steps!(own_pods_alone_answer_pings), Cause::NoRoute),
        Sabotage::new("pods-have-routes")
            .about("what node 1's Pods send finds its way to the other nodes' Pods, and back")
            .inject(steps!(routes_for_the_pods_of_node_1))
            .caught_by(steps!(own_pods_alone_answer_pings), Cause::Answered),
        Sabotage::new("policy-accept")
            .about("the policy of FORWARD is ACCEPT, as the kernel has it")
            .inject(steps!(Lab::add_all_routes))
            .caught_by(steps!(nothing_is_forwarded), Cause::Answered),
        Sabotage::new("rule-on-all")
            .about("every node has the rule that accepts")
            .inject(steps!(|lab| {
                routes_and_firewall(lab).await?;
                accept_what_is_forwarded(lab, everywhere(lab)).await
            }))
            .caught_by(steps!(one_rule_is_not_enough), Cause::Answered),
        Sabotage::new("rule-missing-on-node-2")
            .about("every node but node 2 has the rule that accepts")
            .inject(steps!(|lab| {
                routes_and_firewall(lab).await?;
                let others = everywhere(lab).into_iter().filter(|number| *number != 2);
                accept_what_is_forwarded(lab, others.collect()).await
            }))
            .at(Place::Node(2))
            .caught_by(steps!(every_pod_answers_pings), Cause::TimedOut),
        Sabotage::new("session-affinity")
            .about("the Service sends each client to one Pod")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                lab.service("blue").stick_clients_to_one_pod().await?;
                lab.service("blue").until_one_pod_answers(lab.node(1)).await
            }))
            .caught_by(steps!(requests_spread), Cause::Unbalanced),
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new("isolated_networks", StageName::WorkloadBare, steps!(isolated_networks))
};

async fn isolated_networks(lab: &Lab) -> anyhow::Result<()> {
    works_sometimes(lab).await?;
    own_pods_alone_answer_pings(lab).await?;

    routes_and_firewall(lab).await?;
    nothing_is_forwarded(lab).await?;
    accept_what_is_forwarded(lab, [1].into()).await?;
    one_rule_is_not_enough(lab).await?;
    let others = everywhere(lab).into_iter().skip(1);
    accept_what_is_forwarded(lab, others.collect()).await?;
    every_pod_answers_pings(lab).await?;
    requests_spread(lab).await
}

/// One Pod fewer than two for each node, the document's five for three of them: not every node's share
/// is the same.
async fn kube_proxy_without_routes(lab: &Lab) -> anyhow::Result<()> {
    let (before, blue) = (lab.pods().all_running().await?, lab.service("blue"));
    let wanted = before.len() - 1;
    lab.step(format!("scale to {wanted} Pods"));
    lab.deployment("blue").scale(wanted).await?;
    let left = lab.pods().until_running(wanted).await?;
    let gone: Vec<Party> = before.into_iter().filter(|pod| !left.contains(pod)).collect();
    blue.until_no_endpoints(&gone).await?;

    lab.start_kube_proxy().await?;
    for node in lab.nodes() {
        blue.until_rules_for_all(node).await?;
    }
    Ok(())
}

async fn works_sometimes(lab: &Lab) -> anyhow::Result<()> {
    lab.step(
        "no routes: from each node the ClusterIP works as often as it leads to a Pod there (D6)",
    );
    let (pods, blue) = (lab.pods().all_running().await?, lab.service("blue"));
    for node in lab.nodes() {
        let own: Vec<Party> =
            pods.iter().filter(|pod| pod.node == node.number()).cloned().collect();
        blue.answers_by_share(&own, node).await?;
    }
    Ok(())
}

async fn own_pods_alone_answer_pings(lab: &Lab) -> anyhow::Result<()> {
    lab.step(
        "ping every Pod from node 1 and a Pod there: those on another node do not answer (D7)",
    );
    let (node1, pods) = (lab.node(1), lab.pods().all_running().await?);
    let from = [node1.party(), lab.pods().on(node1).first().await?];
    let mesh = lab.mesh(&from, &pods).by(Kind::Ping).await?;
    let expected = "both to reach node 1's own Pods, and pings of the others to time out";
    Ok(mesh.exactly_dead(expected, |from, to| from.node != to.node)?)
}

/// A table of routes that node 1 asks for what comes over its bridge, and not for what it sends itself.
async fn routes_for_the_pods_of_node_1(lab: &Lab) -> anyhow::Result<()> {
    let node1 = lab.node(1);
    node1.run("ip rule add iif cni0 lookup 100").await?;
    for node in lab.nodes().skip(1) {
        let (range, address) = (node.pod_range(), node.address());
        node1.run(format!("ip route add {range} via {address} table 100")).await?;
        node.add_route_to(1).await?;
    }
    Ok(())
}

async fn routes_and_firewall(lab: &Lab) -> anyhow::Result<()> {
    lab.add_all_routes().await?;
    lab.step("set the policy of FORWARD to DROP on every node, as Docker does");
    lab.run_everywhere("iptables -P FORWARD DROP").await.map(drop)
}

fn everywhere(lab: &Lab) -> BTreeSet<u32> {
    lab.nodes().map(|node| node.number()).collect()
}

async fn accept_what_is_forwarded(lab: &Lab, on: BTreeSet<u32>) -> anyhow::Result<()> {
    lab.step(format!("insert the rule that accepts what is forwarded on nodes {on:?}"));
    for number in on {
        lab.node(number).run("iptables -I FORWARD -j ACCEPT").await?;
    }
    Ok(())
}

async fn nothing_is_forwarded(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ping every Pod from everybody: what a node would have to forward is dropped (D8)");
    pings_pass(lab, "only what no node forwards to be answered", &[].into()).await
}

async fn one_rule_is_not_enough(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ping every Pod from everybody: the other nodes still drop it (D8)");
    pings_pass(lab, "only what no other node than node 1 forwards to be answered", &[1].into())
        .await
}

async fn every_pod_answers_pings(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ping every Pod from everybody: all answer (D8, D9)");
    pings_pass(lab, "every Pod to answer pings", &everywhere(lab)).await
}

async fn pings_pass(lab: &Lab, expected: &str, accept: &BTreeSet<u32>) -> anyhow::Result<()> {
    let pods = lab.pods().all_running().await?;
    let mesh = lab.mesh(&lab.everybody().await?, &pods).by(Kind::Ping).await?;
    Ok(mesh.exactly_dead(expected, |from, to| !forwarders(from, to).is_subset(accept))?)
}

/// The nodes that forward what goes from one to the other: a Pod's own, and each Pod's from the
/// outside; a bridge hands to the kernel's rules what stays on it, too (`bridge-nf-call-iptables`).
fn forwarders(from: &Party, to: &Party) -> BTreeSet<u32> {
    match (from.pod, from.node == to.node) {
        (true, _) if from.address == to.address => [].into(),
        (false, true) => [].into(),
        (false, false) => [to.node].into(),
        (true, _) => [from.node, to.node].into(),
    }
}

async fn requests_spread(lab: &Lab) -> anyhow::Result<()> {
    let node1 = lab.node(1);
    for from in [node1.party(), lab.pods().on(node1).first().await?] {
        lab.step(format!("requests from {from} to the ClusterIP spread over all Pods (D9)"));
        let sent = lab.service("blue").spreads_evenly(&from).await?;
        lab.wire().carried(sent)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(node: u32, pod: u8) -> Party {
        Party::new("", node, pod > 0, [10, 1, node as u8, pod])
    }

    #[test]
    fn who_forwards_what() {
        let of = |from: (u32, u8), to: (u32, u8)| {
            forwarders(&party(from.0, from.1), &party(to.0, to.1)).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of((1, 0), (1, 2)), [0; 0], "a node to its own Pod");
        assert_eq!(of((1, 2), (1, 2)), [0; 0], "a Pod to itself");
        assert_eq!(of((1, 2), (1, 3)), [1], "over the bridge");
        assert_eq!(of((1, 0), (2, 2)), [2], "a node to another's Pod");
        assert_eq!(of((1, 2), (2, 2)), [1, 2], "Pod to Pod");
    }
}
