//! A Service at the nodes' own addresses.

use std::net::IpAddr;

use anyhow::Context as _;
use podwire_scenario::RequestOutcome::TimedOut;
use podwire_scenario::{
    Break, Cause, Failure, Families, Lab, Node, Party, Place, Probe, Profile, Sabotage, Scenario,
    StageName, TargetReport, assert, ensure, secs, steps,
};
use serde_json::json;

use crate::catalogue::F5;

/// F5: NodePort under both traffic policies, from a client outside and from every node.
pub(crate) const NODE_PORT: Scenario = Scenario {
    about: "A Service's NodePort answers at every node under the traffic policy Cluster, as a client of that \
            node; under Local only where its Pod is, which then sees the client itself; by each family of IP \
            that the cluster has",
    covers: &[F5],
    families: Families::Each,
    profile: Profile::Full,
    nodes: 3,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("one-node-drops")
            .about("the first node drops what comes for the NodePort")
            .inject(steps!(|lab| {
                green(lab, "Cluster").await?;
                let port = lab.service("green").node_port().await?;
                let chain = "type filter hook prerouting priority -300";
                lab.node(1).add_rule(chain, &format!("tcp dport {port} drop")).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(every_node_answers), Cause::TimedOut),
        Sabotage::new("answers-without-a-pod")
            .about("nodes without a Pod answer as well, by the policy Cluster")
            .inject(steps!(|lab| green(lab, "Cluster").await))
            .caught_by(steps!(only_its_node_answers), Cause::Answered),
        Sabotage::new("hides-the-client")
            .about("the Pod's node puts its own address in the client's place")
            .inject(steps!(|lab| {
                green(lab, "Local").await?;
                let chain = "type nat hook postrouting priority 99";
                let rule = format!("ip daddr {} masquerade", pod(lab).await?.address);
                its_node(lab).add_rule(chain, &rule).await
            }))
            .caught_by(steps!(only_its_node_answers), Cause::WrongAnswer),
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new("node_port", StageName::Workload, steps!(node_port))
};

const SILENT: &str = "a node without a Pod not to answer";

async fn node_port(lab: &Lab) -> anyhow::Result<()> {
    green(lab, "Cluster").await?;
    every_node_answers(lab).await?;
    green(lab, "Local").await?;
    only_its_node_answers(lab).await
}

/// Where the only Pod is: neither the first node nor one whose number says anything.
fn its_node(lab: &Lab) -> Node<'_> {
    lab.node(2)
}

async fn pod(lab: &Lab) -> anyhow::Result<Party> {
    lab.pods().labelled("app=green").first().await
}

async fn green(lab: &Lab, policy: &str) -> anyhow::Result<()> {
    lab.step(format!("a Service green of one Pod on {}, policy {policy}", its_node(lab)));
    lab.start_pod("green", its_node(lab)).await?;
    let spec = json!({ "type": "NodePort", "externalTrafficPolicy": policy });
    lab.service("green").create(spec).await?;
    lab.pods().labelled("app=green").until_running(1).await?;
    until_followed(lab, policy).await
}

/// Every node's kube-proxy has the policy: those without the Pod answer, or do not.
async fn until_followed(lab: &Lab, policy: &str) -> anyhow::Result<()> {
    let (service, port) = (lab.service("green"), lab.service("green").node_port().await?);
    let pod = pod(lab).await?;
    for node in lab.nodes() {
        let expected = format!("{node} to follow the policy {policy}");
        let answers = policy == "Cluster" || node.number() == its_node(lab).number();
        lab.eventually(&expected, secs(20), async || {
            let report = lab.outside().ask(node.address(), port).await?;
            let look = Probe::judged(answered_or_not(&report, answers.then_some(&pod)));
            Ok(look.needs(service.needs_to_be_followed_on(node).await?))
        })
        .await?;
        let Some(ipv6) = node.address_v6() else { continue };
        // kube-proxy follows by each family on its own.
        let other = lab.nodes().find(|other| other.number() != node.number());
        let other = other.context("nobody else asks")?;
        lab.eventually(format!("{expected} by IPv6"), secs(20), async || {
            let report = lab.ask(other, ipv6).at_port(port).await?;
            Ok(Probe::judged(answered_or_not(&report, answers.then_some(&pod))))
        })
        .await?;
    }
    Ok(())
}

/// By this Pod, where one is to answer; else by nobody, and what comes is dropped.
fn answered_or_not(report: &TargetReport, by: Option<&Party>) -> Result<(), Failure> {
    match by {
        Some(pod) => assert::all_answered_by("the NodePort to answer", report, pod),
        None => assert::all_ended(SILENT, report, TimedOut),
    }
}

async fn every_node_answers(lab: &Lab) -> anyhow::Result<()> {
    for node in lab.nodes() {
        lab.step(format!("{node} answers everybody, as a client with one of its own addresses"));
        let own = node.addresses().await?;
        answers_everybody(lab, node, |_, seen| own.contains(&seen)).await?;
    }
    Ok(())
}

async fn only_its_node_answers(lab: &Lab) -> anyhow::Result<()> {
    for node in lab.nodes() {
        if node.number() == its_node(lab).number() {
            lab.step(format!("{node} has the Pod, which sees every client's own address"));
            answers_everybody(lab, node, |client, seen| client == seen).await?;
        } else {
            lab.step(format!("{node} has no Pod, and does not answer"));
            answers_nobody(lab, node).await?;
        }
    }
    Ok(())
}

/// A client outside, by IPv4, and every other node ask a node at the Service's port: its Pod answers, and sees
/// the client that it should.
async fn answers_everybody(
    lab: &Lab,
    node: Node<'_>,
    right: impl Fn(IpAddr, IpAddr) -> bool,
) -> anyhow::Result<()> {
    let (pod, port) = (pod(lab).await?, lab.service("green").node_port().await?);
    let (outside, expected) = (lab.outside(), format!("the NodePort of {node} to answer"));
    let report = outside.ask(node.address(), port).all_answered_by(&pod, &expected).await?;
    seen_as(outside.client().into(), &report, &right)?;
    for (other, client, at) in others(lab, node)? {
        let asked = lab.ask(other, at).at_port(port);
        let report = asked.all_answered_by(&pod, &expected).await?;
        seen_as(client, &report, &right)?;
    }
    Ok(())
}

async fn answers_nobody(lab: &Lab, node: Node<'_>) -> anyhow::Result<()> {
    let port = lab.service("green").node_port().await?;
    let report = lab.outside().ask(node.address(), port).await?;
    answered_or_not(&report, None)?;
    for (other, _, at) in others(lab, node)? {
        lab.ask(other, at).at_port(port).all_end(TimedOut, SILENT).await?;
    }
    Ok(())
}

/// Every other node, as which client it asks this one, and at which address. What a node asks itself is no matter
/// of the traffic policy: it is a client inside (Kubernetes, "Virtual IPs and Service Proxies").
fn others<'a>(lab: &'a Lab, node: Node<'a>) -> anyhow::Result<Vec<(Node<'a>, IpAddr, IpAddr)>> {
    let mut all = Vec::new();
    for other in lab.nodes().filter(|other| other.number() != node.number()) {
        for family in lab.ip_families().each() {
            let [client, at] = [other, node].map(|it| it.party().by(*family));
            all.push((other, client?.ip(), at?.ip()));
        }
    }
    Ok(all)
}

fn seen_as(
    client: IpAddr,
    report: &TargetReport,
    right: impl Fn(IpAddr, IpAddr) -> bool,
) -> anyhow::Result<()> {
    let seen = report.clients();
    let right = seen.keys().all(|it| it.parse().is_ok_and(|it| right(client, it)));
    let expected = "the Pod to see the client that the traffic policy promises";
    ensure!(right, WrongAnswer, "{expected}", "{client} was seen as {seen:?}");
    Ok(())
}
