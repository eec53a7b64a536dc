//! The way outside.

use std::net::Ipv4Addr;

use podwire_scenario::{
    Cause, ContactProtocol, Lab, Party, Sabotage, Scenario, StageName, ensure, secs, steps,
};

use crate::catalogue::B11;

/// B11: a Pod reaches the outside, which sees its node.
pub(crate) const OUTSIDE_HOST: Scenario = Scenario {
    about: "A Pod reaches a host outside the cluster, which sees the node's address; without the \
            masquerade rule it sees the Pod's",
    covers: &[B11],
    nodes: 1,
    limit: secs(60),
    sabotages: &[
        Sabotage::new("no-masquerade")
            .about("the node's masquerade rule is gone")
            .inject(steps!(|lab| lab.node(1).remove_masquerade().await))
            .caught_by(steps!(seen_as_its_node), Cause::WrongAnswer),
        Sabotage::new("masquerade-left")
            .about("the node's masquerade rule is still there")
            .caught_by(steps!(seen_as_itself), Cause::WrongAnswer),
    ],
    ..Scenario::new("outside_host", StageName::WorkloadBare, steps!(outside_host))
};

async fn outside_host(lab: &Lab) -> anyhow::Result<()> {
    seen_as_its_node(lab).await?;
    lab.node(1).remove_masquerade().await?;
    seen_as_itself(lab).await
}

async fn seen_as_its_node(lab: &Lab) -> anyhow::Result<()> {
    let (node, pod) = (lab.node(1), lab.pods().on(lab.node(1)).first().await?);
    outside_sees(lab, &pod, node.address(), "the node's address").await
}

async fn seen_as_itself(lab: &Lab) -> anyhow::Result<()> {
    let pod = lab.pods().on(lab.node(1)).first().await?;
    outside_sees(lab, &pod, pod.address, "the Pod's own address").await
}

/// `kubectl exec POD -- probe ping OUTSIDE`: exec itself goes through the API server to the kubelet.
async fn outside_sees(lab: &Lab, pod: &Party, wanted: Ipv4Addr, whose: &str) -> anyhow::Result<()> {
    let outside = lab.outside();
    let before = outside.contacts_from(wanted, ContactProtocol::Icmp);
    let address = outside.address().to_string();
    lab.step(format!("exec a ping to {address} in {}", pod.name));
    let ping = lab.exec(pod, &["/probe", "ping", &address, "3"]).await?;
    let after = outside.contacts_from(wanted, ContactProtocol::Icmp);
    let (all, said) = (outside.contacts(), ping.said());
    ensure!(
        after > before,
        WrongAnswer,
        "the outside host to see {whose}",
        "no new echo request from {wanted}; all so far: {all}; ping said: {said}",
        "`nft list ruleset` of node1: is Pod traffic that leaves the cluster masqueraded?"
    );
    ensure!(
        ping.succeeded(),
        TimedOut,
        "the ping to be answered",
        "the requests arrived, but no reply came back: {said}"
    );
    Ok(())
}
