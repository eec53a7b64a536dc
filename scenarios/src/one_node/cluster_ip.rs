//! A ClusterIP is kube-proxy's work.

use podwire_scenario::RequestOutcome::TimedOut;
use podwire_scenario::{
    Break, Cause, Lab, Place, Profile, Sabotage, Scenario, StageName, assert, ensure, secs, steps,
};

use crate::catalogue::{B12, B13, B14};

/// B12!, B13, B14: a ClusterIP is kube-proxy's work.
pub(crate) const CLUSTER_IP: Scenario = Scenario {
    about: "A ClusterIP is dead while kube-proxy has never run, answers once it runs, spreads \
            requests evenly over the Pods, and lives on until kube-proxy's rules are cleaned up",
    covers: &[B12, B13, B14],
    profile: Profile::Full,
    nodes: 1,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("kube-proxy-runs-already")
            .about("kube-proxy runs before the first look")
            .inject(steps!(serve))
            .caught_by(steps!(dead_without_kube_proxy), Cause::Answered),
        Sabotage::new("node-drops-by-itself")
            .about("node 1 drops what it would send to the gateway for the ClusterIP")
            .inject(steps!(|lab| {
                let rule = format!("ip daddr {} drop", lab.service("blue").address().await?);
                lab.node(1).add_rule("type filter hook postrouting priority 0", &rule).await
            }))
            .caught_by(steps!(dead_without_kube_proxy), Cause::Absent),
        Sabotage::new("kube-proxy-not-started")
            .about("kube-proxy is not started")
            .inject(steps!(|lab| lab.add_all_routes().await))
            .at(Place::Node(1))
            .caught_by(steps!(answers), Cause::TimedOut),
        Sabotage::new("session-affinity")
            .about("the Service sends each client to one Pod")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                lab.service("blue").stick_clients_to_one_pod().await?;
                lab.start_kube_proxy().await?;
                answers(lab).await
            }))
            .caught_by(steps!(spreads_from_node1), Cause::Unbalanced),
        Sabotage::new("not-cleaned-up")
            .about("kube-proxy is stopped, and its rules are left")
            .inject(steps!(|lab| {
                serve(lab).await?;
                stop(lab).await
            }))
            .caught_by(steps!(dead_on_node1_alone), Cause::Answered),
        Sabotage::new("cleaned-up")
            .about("kube-proxy is stopped, and its rules are cleaned up")
            .inject(steps!(|lab| {
                serve(lab).await?;
                stop(lab).await?;
                clean_up(lab).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(rules_stay), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new("cluster_ip", StageName::WorkloadBare, steps!(cluster_ip))
};

async fn cluster_ip(lab: &Lab) -> anyhow::Result<()> {
    lab.add_all_routes().await?;
    dead_without_kube_proxy(lab).await?;
    lab.start_kube_proxy().await?;
    answers(lab).await?;
    let pods = lab.pods().running().await?.len() + 1;
    lab.step(format!("scale up to {pods} Pods (B14)"));
    lab.deployment("blue").scale(pods).await?;
    lab.service("blue").leads_to_all(pods, lab.node(1)).await?;
    spreads_from_node1(lab).await?;
    stop(lab).await?;
    rules_stay(lab).await?;
    clean_up(lab).await?;
    dead_on_node1_alone(lab).await
}

async fn dead_without_kube_proxy(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask the ClusterIP from node 1, and a Pod beside it (B12)");
    let (node1, blue) = (lab.node(1), lab.service("blue"));
    let some = !blue.ready_endpoints().await?.is_empty();
    ensure!(some, Absent, "an EndpointSlice with the Pods' addresses", "it is empty");
    let (address, pod) = (blue.address().await?, lab.pods().on(node1).first().await?);
    let before = lab.wire().dropped_for(address);
    let (service, beside) = lab.ask_both(node1, address, pod.address).await?;
    assert::all_answered_by("the Pod's own address to answer", &beside, &pod)?;
    let expected = "the ClusterIP to time out, not to be refused";
    assert::all_ended(expected, &service, TimedOut)?;
    let left = lab.wire().dropped_for(address) > before;
    ensure!(
        left,
        Absent,
        "the connection requests to leave by the default route, to the gateway",
        "the gateway saw none"
    );
    Ok(())
}

async fn serve(lab: &Lab) -> anyhow::Result<()> {
    lab.add_all_routes().await?;
    lab.start_kube_proxy().await?;
    answers(lab).await
}

async fn answers(lab: &Lab) -> anyhow::Result<()> {
    let (node1, blue) = (lab.node(1), lab.service("blue"));
    lab.step("ask the ClusterIP until it answers (B13)");
    blue.until_a_pod_answers(node1, secs(15)).await?;
    node1.forget_attempts_at(blue.address().await?).await
}

async fn spreads_from_node1(lab: &Lab) -> anyhow::Result<()> {
    lab.step("requests, each on a fresh connection, spread over the Pods (B14)");
    lab.service("blue").spreads_evenly(lab.node(1)).await.map(drop)
}

async fn stop(lab: &Lab) -> anyhow::Result<()> {
    lab.step("stop kube-proxy on node 1 (B12)");
    lab.node(1).stop("kube-proxy").await
}

/// They are the kernel's: they outlive the daemon that wrote them, until it cleans up.
async fn rules_stay(lab: &Lab) -> anyhow::Result<()> {
    lab.step("its rules stay: the ClusterIP answers (B12)");
    let (node1, address) = (lab.node(1), lab.service("blue").address().await?);
    let pods = lab.pods().all_running().await?;
    let expected = "the ClusterIP to answer from node 1 although kube-proxy stopped";
    lab.ask(node1, address).times(5).all_answered_by(&pods, expected).await.map(drop)
}

async fn clean_up(lab: &Lab) -> anyhow::Result<()> {
    lab.step("clean its rules up (B12)");
    let node1 = lab.node(1);
    node1.run(format!("kube-proxy --cleanup --hostname-override={node1}")).await.map(drop)
}

async fn dead_on_node1_alone(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the ClusterIP is dead on node 1, and on no other node (B12)");
    let (node1, address) = (lab.node(1), lab.service("blue").address().await?);
    let pods = lab.pods().all_running().await?;
    let expected = "the ClusterIP to time out on node 1, whose rules are gone";
    lab.ask(node1, address).all_end(TimedOut, expected).await?;
    for node in lab.nodes().skip(1) {
        let expected = format!("the ClusterIP to answer from {node}");
        lab.ask(node, address).all_answered_by(&pods, expected).await?;
    }
    Ok(())
}
