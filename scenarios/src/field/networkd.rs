//! A node's network daemon, and its link.

use std::collections::BTreeSet;

use podwire_scenario::{
    Cause, Cells, Evidence, Lab, Node, PodNetwork, Probe, Profile, Sabotage, Scenario, StageName,
    ensure, secs, steps,
};

use crate::catalogue::F12;

/// F12: networkd leaves alone what is not its own, and what a link takes with it comes back or does not.
pub(crate) const NETWORKD: Scenario = Scenario {
    about: "A node's network daemon restarts, reads its files again and sets the card up anew: all routes \
            and policy rules are as before. When the link goes down and up the routes typed by hand are \
            gone, and those that somebody watches over come back",
    covers: &[F12],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(240),
    sabotages: &[Sabotage::new("takes-all-for-its-own")
        .about(
            "networkd removes the routes and rules that it has not made, as it does unless \
                 told otherwise",
        )
        .inject(steps!(|lab| {
            let told = "/etc/systemd/networkd.conf.d/10-foreign.conf";
            lab.node(2).run(format!("rm {told}")).await.map(drop)
        }))
        .caught_by(steps!(stays_as_it_is), Cause::Absent)],
    ..Scenario::new("networkd", StageName::Workload, steps!(networkd))
};

async fn networkd(lab: &Lab) -> anyhow::Result<()> {
    stays_as_it_is(lab).await?;
    link_goes_down_and_up(lab).await
}

async fn stays_as_it_is(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(2);
    let card = node.device_to(lab.node(1).address()).await?;
    // As a Pod network's own rules may be.
    node.run("ip rule add priority 1000 to 10.1.0.0/16 lookup main").await?;
    let before = routing(node).await?;
    for act in [
        "systemctl restart systemd-networkd".to_owned(),
        "networkctl reload".to_owned(),
        format!("networkctl reconfigure {card}"),
    ] {
        lab.step(format!("{act} on {node}: routes and rules as before"));
        node.run(&act).within(secs(20)).await?;
        comes_back(lab, &before).await?;
        lab.everybody_reaches_everybody().await?;
    }
    Ok(())
}

async fn link_goes_down_and_up(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(2);
    let card = node.device_to(lab.node(1).address()).await?;
    let before = routing(node).await?;
    lab.step(format!("{node}'s link goes down and up"));
    let down_and_up = format!("ip link set {card} down && sleep 1 && ip link set {card} up");
    node.run(down_and_up).await?;
    if lab.pod_network() == PodNetwork::Routes {
        typed_routes_are_gone(lab).await?;
        lab.add_all_routes().await?;
    }
    comes_back(lab, &before).await?;
    lab.everybody_reaches_everybody().await
}

async fn typed_routes_are_gone(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(2);
    let routes = node.run("ip -4 route").await?.stdout;
    let mut others = lab.nodes().filter(|other| other.number() != node.number());
    let left = others.find(|other| routes.contains(&other.pod_range().to_string()));
    ensure!(left.is_none(), Answered, "no route to other nodes' Pods on {node}", "{routes}");
    Ok(())
}

/// A line for each address, route and policy rule.
async fn routing(node: Node<'_>) -> anyhow::Result<BTreeSet<String>> {
    let said = node.run("ip -4 -br address; ip -4 route show table all; ip -4 rule").await?;
    Ok(said.stdout.lines().map(|line| line.trim().to_owned()).collect())
}

async fn comes_back(lab: &Lab, before: &BTreeSet<String>) -> anyhow::Result<()> {
    let node = lab.node(2);
    lab.eventually(
        format!("the addresses, routes and rules of {node} as before"),
        secs(30),
        async || {
            let now = routing(node).await?;
            let (gone, new) = (before - &now, &now - before);
            let done = node
                .run("networkctl --no-legend list | grep -c ' configuring '")
                .may_fail()
                .await?;
            let nobody = "networkd has set up all its links";
            let nobody = (done.text() == "0").then(|| Evidence::unchanged_for(5, nobody));
            let state = format!("gone: {gone:?}; new: {new:?}");
            Ok(Probe::when(gone.is_empty() && new.is_empty(), Cause::Absent, state).given(nobody))
        },
    )
    .await
}
