//! A Service at addresses of nobody's own: its externalIPs, and a load balancer's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire_scenario::RequestOutcome::{Refused, TimedOut};
use podwire_scenario::{
    Bootstrap, Break, Cause, Families, Lab, Node, Party, Place, PodNetwork, Profile, ProxyMode,
    Sabotage, Scenario, StageName, assert, ensure, secs, steps,
};
use serde_json::json;

use crate::catalogue::F5;

/// F5: addresses by which nodes are only come to.
///
/// Two of each kind, as somebody outside has them: one leads to the node with the Service's only Pod, one
/// to a node without.
pub(crate) const OUTER_ADDRESSES: Scenario = Scenario {
    about: "A Service answers at its externalIPs and at its load balancer's addresses whoever is inside, \
            under both traffic policies; who is outside it answers under Cluster as a client of the node that he \
            comes to, under Local only where its Pod is, which sees him; whether a node's second address \
            and 127.0.0.1 have its NodePort is by kube-proxy's mode; whoever is inside asks by each family \
            of IP that the cluster has",
    covers: &[F5],
    families: Families::Each,
    profile: Profile::Full,
    nodes: 3,
    limit: secs(300),
    prepare: Some(steps!(green)),
    sabotages: &[
        Sabotage::new("one-node-drops")
            .about("node 1 drops what comes for the addresses that lead there")
            .inject(steps!(|lab| drop_on(lab, lab.node(1), &[EXTERNAL[0], BALANCER[0]]).await))
            .at(Place::Node(1))
            .caught_by(steps!(all_answer), Cause::TimedOut),
        Sabotage::new("one-pod-cut-off")
            .about("the Pod's node drops what its Pods send to a load balancer's address")
            .inject(steps!(|lab| {
                only_local(lab).await?;
                drop_on(lab, its_node(lab), &[BALANCER[0]]).await
            }))
            .at(Place::Node(2))
            .caught_by(steps!(inside_is_answered), Cause::TimedOut),
        Sabotage::new("answers-without-a-pod")
            .about("a node without a Pod answers as well, by the policy Cluster")
            .caught_by(steps!(no_other_node_answers), Cause::Answered),
        Sabotage::new("hides-the-client")
            .about("the Pod's node puts its own address in the client's place")
            .inject(steps!(|lab| {
                only_local(lab).await?;
                let rule = format!("ip daddr {} masquerade", pod(lab).await?.address);
                its_node(lab).add_rule("type nat hook postrouting priority 99", &rule).await
            }))
            .caught_by(steps!(its_pod_sees_the_client), Cause::WrongAnswer),
        Sabotage::new("node-port-dropped")
            .about("node 1 drops what comes for the NodePort")
            .inject(steps!(|lab| {
                let rule = format!("tcp dport {} drop", lab.service("green").node_port().await?);
                lab.node(1).add_rule(BEFORE_KUBE_PROXY, &rule).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(node_port_is_by_mode), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new("outer_addresses", StageName::Workload, steps!(outer_addresses))
};

/// On the nodes' segment, which leases none of them: first one that leads to node 1, then one that leads to
/// the Pod's node.
const EXTERNAL: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 30, 0, 231), Ipv4Addr::new(172, 30, 0, 232)];
/// In the same order.
const BALANCER: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 30, 0, 233), Ipv4Addr::new(172, 30, 0, 234)];

/// Their IPv6 neighbours, where the cluster is dual-stack.
const EXTERNAL_V6: [Ipv6Addr; 2] = [on_segment(0x231), on_segment(0x232)];
/// In the same order.
const BALANCER_V6: [Ipv6Addr; 2] = [on_segment(0x233), on_segment(0x234)];

const fn on_segment(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, last)
}

const BEFORE_KUBE_PROXY: &str = "type filter hook prerouting priority -300";

async fn outer_addresses(lab: &Lab) -> anyhow::Result<()> {
    all_answer(lab).await?;
    node_port_is_by_mode(lab).await?;
    only_local(lab).await?;
    inside_is_answered(lab).await?;
    its_pod_sees_the_client(lab).await?;
    no_other_node_answers(lab).await
}

/// Where the only Pod is: neither the first node nor the last one.
fn its_node(lab: &Lab) -> Node<'_> {
    lab.node(2)
}

async fn pod(lab: &Lab) -> anyhow::Result<Party> {
    lab.pods().labelled("app=green").first().await
}

/// Whoever answers ARP for an address is who it leads to, as a load balancer's speaker does.
async fn green(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("a Service green of one Pod on {}, and its outer addresses", its_node(lab)));
    lab.start_pod("green", its_node(lab)).await?;
    let spec =
        json!({ "type": "LoadBalancer", "externalIPs": each_of(lab, EXTERNAL, EXTERNAL_V6) });
    lab.service("green").create(spec).await?;
    let ingress = each_of(lab, BALANCER, BALANCER_V6).into_iter();
    let ingress: Vec<_> = ingress.map(|address| json!({ "ip": address })).collect();
    let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
    let patch = format!("patch service green --subresource status --type merge -p '{status}'");
    lab.kubectl(patch).await?;
    for (number, node) in [lab.node(1), its_node(lab)].into_iter().enumerate() {
        let card = node.device_to(lab.outside().client()).await?;
        for address in [EXTERNAL[number], BALANCER[number]] {
            node.run(format!("ip address add {address}/32 dev {card}")).await?;
        }
        if lab.ip_families().is_dual() {
            for address in [EXTERNAL_V6[number], BALANCER_V6[number]] {
                // Deprecated (RFC 4862): nobody takes it for what the node itself sends.
                let add = format!("ip address add {address}/128 dev {card} preferred_lft 0 nodad");
                node.run(add).await?;
            }
        }
    }
    lab.pods().labelled("app=green").until_running(1).await?;
    until_followed(lab, "green-is-there").await
}

/// The IPv4 addresses, and in a dual-stack cluster the IPv6 ones as well.
fn each_of(lab: &Lab, first: [Ipv4Addr; 2], second: [Ipv6Addr; 2]) -> Vec<IpAddr> {
    let second = second.into_iter().filter(|_| lab.ip_families().is_dual());
    first.into_iter().map(IpAddr::from).chain(second.map(IpAddr::from)).collect()
}

async fn only_local(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the traffic policy Local");
    let patch = json!({ "spec": { "externalTrafficPolicy": "Local" } });
    lab.kubectl(format!("patch service green --type merge -p '{patch}'")).await?;
    until_followed(lab, "green-is-local").await
}

/// Every node's kube-proxy knows a Service that is younger than what it is to have followed.
async fn until_followed(lab: &Lab, younger: &str) -> anyhow::Result<()> {
    let service = lab.service(younger).create_for(&pod(lab).await?).await?;
    lab.until_all_answer(&lab.node_parties(), &[service]).await
}

async fn all_answer(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node, and a Pod of each, is answered at every outer address (F5)");
    let asked = lab.mesh(&lab.everybody().await?, &outer_addresses_of(&pod(lab).await?));
    let mesh = asked.by_each_family().await?;
    mesh.all_answer("every outer address to answer everybody inside")?;
    for (number, node) in [lab.node(1), its_node(lab)].into_iter().enumerate() {
        lab.step(format!("who comes from outside to {node} is seen as one of its addresses"));
        let own = node.addresses().await?;
        for address in [EXTERNAL[number], BALANCER[number]] {
            seen_outside(lab, address, |client| own.contains(&client.into())).await?;
        }
    }
    Ok(())
}

/// The Pod, as it is reached by each of them.
fn outer_addresses_of(pod: &Party) -> Vec<Party> {
    let all = EXTERNAL.into_iter().chain(BALANCER);
    let all = all.zip(EXTERNAL_V6.into_iter().chain(BALANCER_V6));
    let reached = |(address, ipv6)| Party { address, ipv6: Some(ipv6), ..pod.clone() };
    all.map(reached).collect()
}

/// A client inside is none whom the policy is about. That a Pod is inside kube-proxy knows by the Pods'
/// range, which kubeadm tells it and the cluster by hand does not (`clusterCIDR`).
async fn inside_is_answered(lab: &Lab) -> anyhow::Result<()> {
    let knows_pods =
        lab.bootstrap() == Bootstrap::Kubeadm && lab.pod_network() != PodNetwork::Routes;
    lab.step(match knows_pods {
        true => "whoever is inside is answered from everywhere, whatever the policy",
        false => "every node is answered, and Pods of the Pod's node; others may be outside (no clusterCIDR)",
    });
    let without = |from: &Party| from.pod && from.node != its_node(lab).number();
    let asked = lab.mesh(&lab.everybody().await?, &outer_addresses_of(&pod(lab).await?));
    let mesh = asked.by_each_family().await?;
    let expected = "every outer address to answer whom kube-proxy knows to be inside";
    Ok(mesh.exactly_dead(expected, |from, _| without(from) && !knows_pods)?)
}

async fn its_pod_sees_the_client(lab: &Lab) -> anyhow::Result<()> {
    let client = lab.outside().client();
    lab.step(format!("{} answers who is outside, and its Pod sees him", its_node(lab)));
    for address in [EXTERNAL[1], BALANCER[1]] {
        seen_outside(lab, address, |seen| seen == client).await?;
    }
    Ok(())
}

async fn no_other_node_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("{} has no Pod, and does not answer", lab.node(1)));
    for address in [EXTERNAL[0], BALANCER[0]] {
        let report = lab.outside().ask(address, 80).await?;
        assert::all_ended("a node without a Pod not to answer", &report, TimedOut)?;
    }
    Ok(())
}

/// The client outside is answered, and seen as it should be.
async fn seen_outside(
    lab: &Lab,
    at: Ipv4Addr,
    right: impl Fn(Ipv4Addr) -> bool,
) -> anyhow::Result<()> {
    let expected = format!("{at} to answer who is outside");
    let asked = lab.outside().ask(at, 80);
    let report = asked.all_answered_by(pod(lab).await?, expected).await?;
    let right = report.clients().keys().all(|client| client.parse().is_ok_and(&right));
    let expected = "the Pod to see the client that the traffic policy promises";
    ensure!(right, WrongAnswer, "{expected}", "{report}");
    Ok(())
}

/// In iptables mode every address of a node has NodePorts, 127.0.0.1 too; in nftables mode its Node's
/// own alone (Kubernetes docs, "Virtual IPs and Service Proxies": `nodePortAddresses`).
async fn node_port_is_by_mode(lab: &Lab) -> anyhow::Result<()> {
    let (mode, node) = (lab.kube_proxy_mode(), lab.node(1));
    lab.step(match mode {
        ProxyMode::Iptables => format!("{node}'s second address and 127.0.0.1 have the NodePort"),
        ProxyMode::Nftables => format!("{node}'s second address and 127.0.0.1 have no NodePort"),
    });
    let pod = pod(lab).await?;
    let port = lab.service("green").node_port().await?;
    let second = lab.outside().ask(EXTERNAL[0], port).await?;
    let loopback = lab.ask(node, Ipv4Addr::LOCALHOST).at_port(port).await?;
    for report in [second, loopback] {
        match mode {
            ProxyMode::Iptables => assert::all_answered_by("a NodePort", &report, &pod)?,
            ProxyMode::Nftables => assert::all_ended("no NodePort", &report, Refused)?,
        }
    }
    Ok(())
}

async fn drop_on(lab: &Lab, node: Node<'_>, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
    lab.step(format!("{node} drops what comes for {addresses:?}"));
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let rule = format!("ip daddr {{ {} }} drop", addresses.join(", "));
    node.add_rule(BEFORE_KUBE_PROXY, &rule).await
}
