//! kube-router, which the document names for what is tedious by hand: CNI files and routes.

use podwire_scenario::{
    Cause, Lab, Node, Probe, Profile, Sabotage, Scenario, StageName, ensure, kubeconfig, secs,
    steps,
};

use super::network_daemon::{every_pair_answers, is_back, stays_gone};
use crate::catalogue::{C11, C12};

/// C11, with kube-router on nodes by hand. It learns routes from the others by BGP, and looks every five seconds
/// whether they are there, so that what stays gone is looked for twice, five seconds of time-outs each.
pub(crate) const KUBE_ROUTER: Scenario = Scenario {
    about: "kube-router, started on every node, writes the node's range into its CNI file and lays a route to \
            every other node's Pods; a Node that leaves takes its own along, and brings it when it joins. \
            While it is stopped on a node a deleted route stays gone, with exactly the pairs that need it; \
            once it is started both are back",
    covers: &[C11],
    profile: Profile::Full,
    nodes: 3,
    limit: secs(420),
    kube_router: true,
    prepare: Some(steps!(runs_with_a_workload)),
    sabotages: &[
        Sabotage::new("route-deleted")
            .about("node 1's kube-router is stopped, and its route to node 2's Pods deleted")
            .inject(steps!(|lab| stop_and_delete(lab.node(1), lab.node(2)).await))
            .caught_by(steps!(laid_everywhere), Cause::Absent),
        Sabotage::new("stopped-meanwhile")
            .about("node 1's kube-router is stopped when the Node leaves")
            .inject(steps!(|lab| {
                lab.node(1).stop_kube_router().await?;
                lab.last_node().take_off().await
            }))
            .caught_by(steps!(forgotten_by_the_others), Cause::Answered),
        Sabotage::new("started-again")
            .about(
                "node 2's kube-router, which was stopped when its route was deleted, is started \
                 again",
            )
            .inject(steps!(|lab| {
                stop_and_delete(lab.node(2), lab.node(1)).await?;
                start(lab.node(2)).await?;
                is_back(lab).await
            }))
            .caught_by(steps!(stays_gone), Cause::Answered),
        Sabotage::new("it-runs")
            .about("node 2's kube-router runs when its route is deleted")
            .inject(steps!(|lab| delete(lab.node(2), lab.node(1)).await))
            .caught_by(steps!(stays_gone), Cause::Answered),
        Sabotage::new("not-started")
            .about("node 2's kube-router is not started again")
            .inject(steps!(|lab| stop_and_delete(lab.node(2), lab.node(1)).await))
            .caught_by(steps!(is_back), Cause::Absent),
    ],
    ..Scenario::new("kube_router", StageName::Cni, steps!(kube_router))
};

/// C12!, with kube-router.
pub(crate) const KUBE_ROUTER_WITHOUT_KUBE_PROXY: Scenario = Scenario {
    about: "Without kube-proxy a kube-router that asks for the API server at the Service's address times out: \
            it writes no range into its CNI file and lays no route. With the API server's own address it \
            does both",
    covers: &[C12],
    profile: Profile::Full,
    limit: secs(300),
    kube_router: true,
    prepare: Some(steps!(has_what_it_needs)),
    sabotages: &[
        Sabotage::new("kube-proxy-runs")
            .about("kube-proxy runs on every node")
            .inject(steps!(|lab| {
                lab.restart_kube_proxy().await?;
                start_at_the_service(lab).await
            }))
            .caught_by(steps!(reaches_nobody_and_lays_nothing), Cause::Answered),
        Sabotage::new("address-not-given")
            .about("kube-router still asks at the Service's address")
            .inject(steps!(start_at_the_service))
            .caught_by(steps!(laid_everywhere), Cause::Absent),
    ],
    ..Scenario::new("kube_router_without_kube_proxy", StageName::Cni, steps!(without_kube_proxy))
};

async fn kube_router(lab: &Lab) -> anyhow::Result<()> {
    laid_everywhere(lab).await?;
    every_pair_answers(lab).await?;

    let (node, wanted) = (lab.last_node(), lab.pods().running().await?.len());
    node.drain().await?;
    node.delete().await?;
    node.stop_kube_router().await?;
    forgotten_by_the_others(lab).await?;

    node.wipe().await?;
    node.join_again().await?;
    lab.give_ranges_to_nodes().await?;
    start(node).await?;
    laid_everywhere(lab).await?;
    node.takes_pods(wanted + 2).await?;
    every_pair_answers(lab).await?;

    stop_and_delete(lab.node(2), lab.node(1)).await?;
    stays_gone(lab).await?;

    start(lab.node(2)).await?;
    is_back(lab).await?;
    every_pair_answers(lab).await
}

async fn without_kube_proxy(lab: &Lab) -> anyhow::Result<()> {
    start_at_the_service(lab).await?;
    reaches_nobody_and_lays_nothing(lab).await?;
    start_everywhere(lab).await?;
    laid_everywhere(lab).await?;
    lab.create_workload().await?;
    every_pair_answers(lab).await
}

async fn has_what_it_needs(lab: &Lab) -> anyhow::Result<()> {
    lab.bring_kube_router().await?;
    lab.give_ranges_to_nodes().await
}

async fn runs_with_a_workload(lab: &Lab) -> anyhow::Result<()> {
    has_what_it_needs(lab).await?;
    start_everywhere(lab).await?;
    laid_everywhere(lab).await?;
    lab.create_workload().await
}

async fn start_everywhere(lab: &Lab) -> anyhow::Result<()> {
    for node in lab.nodes() {
        start(node).await?;
    }
    Ok(())
}

async fn start(node: Node<'_>) -> anyhow::Result<()> {
    node.start_kube_router(&kubeconfig::server()).await
}

async fn start_at_the_service(lab: &Lab) -> anyhow::Result<()> {
    let service = lab.service("kubernetes").address().await?;
    for node in lab.nodes() {
        node.start_kube_router(&format!("https://{service}")).await?;
    }
    Ok(())
}

async fn reaches_nobody_and_lays_nothing(lab: &Lab) -> anyhow::Result<()> {
    let service = lab.service("kubernetes").address().await?;
    lab.step(format!("kube-router of every node asks for {service}, and times out"));
    for node in lab.nodes() {
        let timed_out = format!("dial tcp {service}:443: i/o timeout");
        let timed_out = node.journal_lines("kube-router", &[timed_out.as_str()]);
        lab.eventually(format!("kube-router of {node} to time out"), secs(60), async || {
            let laid = laid(node).await?;
            if !laid.is_empty() {
                return Ok(Probe::hopeless(Cause::Answered, format!("it has laid {laid}")));
            }
            let said = !node.run(&timed_out).await?.text().is_empty();
            Ok(Probe::when(said, Cause::NotReady, "its journal says nothing of it"))
        })
        .await?;
    }
    let lost = lab.wire().dropped_for(service);
    ensure!(lost > 0, Absent, "what it asks to leave by the default route", "none at the gateway");
    lab.step("it has laid nothing");
    for node in lab.nodes() {
        let laid = laid(node).await?;
        ensure!(
            laid.is_empty(),
            Answered,
            "no route and no range of kube-router's on {node}",
            "{laid}"
        );
    }
    Ok(())
}

/// Routes to Pods, and the range in the CNI file.
async fn laid(node: Node<'_>) -> anyhow::Result<String> {
    let range = node.pod_range();
    let list = format!(
        "ip -4 route show root 10.1.0.0/16; grep -h -o '{range}' /etc/cni/net.d/10-kuberouter.conf; true"
    );
    Ok(node.run(list).await?.text().replace('\n', "; "))
}

async fn laid_everywhere(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node has its range in its CNI file, and a route to every other's Pods");
    for node in lab.nodes() {
        let range = node.pod_range();
        let written = format!("grep -o '{range}' /etc/cni/net.d/10-kuberouter.conf; true");
        lab.eventually(format!("{range} in the CNI file of {node}"), secs(40), async || {
            let written = !node.run(&written).await?.text().is_empty();
            Ok(Probe::when(written, Cause::Absent, "no range").needs(node.needs_kube_router()))
        })
        .await?;
    }
    lab.until_laid_everywhere().await
}

async fn forgotten_by_the_others(lab: &Lab) -> anyhow::Result<()> {
    let gone = lab.last_node();
    lab.step(format!("the others have no route to {gone}'s Pods any more"));
    lab.until_forgotten(gone, gone.pod_range()).await
}

async fn stop_and_delete(node: Node<'_>, to: Node<'_>) -> anyhow::Result<()> {
    node.stop_kube_router().await?;
    delete(node, to).await
}

async fn delete(node: Node<'_>, to: Node<'_>) -> anyhow::Result<()> {
    node.run(format!("ip route delete {}", to.pod_range())).await.map(drop)
}
