//! A Service without Pods refuses, and answers again.

use podwire_scenario::RequestOutcome::Refused;
use podwire_scenario::{
    Break, Cause, Lab, Party, Place, Profile, Sabotage, Scenario, StageName, assert, secs, steps,
};
use serde_json::json;

use crate::catalogue::F7;

/// F7: nobody behind a ClusterIP, and somebody again.
pub(crate) const SCALE_TO_ZERO: Scenario = Scenario {
    about: "A Service whose Deployment is scaled to zero refuses connections at its ClusterIP instead \
            of letting them hang, from a node and from a Pod; scaled up again it answers from every \
            Pod",
    covers: &[F7],
    profile: Profile::Full,
    limit: secs(240),
    sabotages: &[
        Sabotage::new("dropped-from-pods")
            .about("the node drops what its Pods send to the ClusterIP")
            .inject(steps!(|lab| {
                green_scaled_to(lab, 0).await?;
                drop_what_comes_to(lab, "prerouting").await
            }))
            .at(Place::Last)
            .caught_by(steps!(refuses), Cause::TimedOut),
        Sabotage::new("dropped-from-the-node")
            .about("the node drops what it sends to the ClusterIP itself")
            .inject(steps!(|lab| {
                green_scaled_to(lab, 0).await?;
                drop_what_comes_to(lab, "output").await
            }))
            .at(Place::Last)
            .caught_by(steps!(refuses), Cause::TimedOut),
        Sabotage::new("one-pod-stays")
            .about("one Pod is left")
            .inject(steps!(|lab| green_scaled_to(lab, 1).await))
            .caught_by(steps!(refuses), Cause::Answered),
        Sabotage::new("one-pod-answers")
            .about("scaled up again the Service leads each client to one Pod")
            .inject(steps!(|lab| {
                green_scaled_to(lab, PODS).await?;
                lab.service("green").stick_clients_to_one_pod().await?;
                lab.service("green").until_one_pod_answers(lab.last_node()).await
            }))
            .caught_by(steps!(every_pod_answers), Cause::Unbalanced),
    ],
    red_when: &[Break::KubeProxy, Break::PodRange],
    ..Scenario::new("scale_to_zero", StageName::Workload, steps!(scale_to_zero))
};

const PODS: usize = 2;
async fn scale_to_zero(lab: &Lab) -> anyhow::Result<()> {
    green_scaled_to(lab, 0).await?;
    refuses(lab).await?;
    scale(lab, PODS).await?;
    every_pod_answers(lab).await
}

/// A Deployment and its Service, whose Pods have answered before they are scaled.
async fn green_scaled_to(lab: &Lab, pods: usize) -> anyhow::Result<()> {
    lab.step("a Deployment green and its Service, which answers");
    lab.deployment("green").create(PODS, json!({})).await?;
    lab.service("green").create(json!({})).await?;
    lab.deployment("green").pods().until_running(PODS).await?;
    every_pod_answers(lab).await?;
    scale(lab, pods).await
}

/// Until the asking node's kube-proxy has followed.
async fn scale(lab: &Lab, pods: usize) -> anyhow::Result<()> {
    lab.step(format!("scale green to {pods}"));
    let before = lab.deployment("green").pods().running().await?;
    lab.deployment("green").scale(pods).await?;
    let left = lab.deployment("green").pods().until_running(pods).await?;
    let gone: Vec<Party> = before.into_iter().filter(|pod| !left.contains(pod)).collect();
    lab.service("green").until_no_rules(&gone, lab.last_node()).await
}

/// The last node, which takes Pods in every cell, and a Pod of it.
async fn askers(lab: &Lab) -> anyhow::Result<[Party; 2]> {
    let node = lab.last_node();
    Ok([lab.pods().on(node).first().await?, node.party()])
}

async fn refuses(lab: &Lab) -> anyhow::Result<()> {
    let (empty, full) =
        (lab.service("green").address().await?, lab.service("blue").address().await?);
    let pods = lab.pods().all_running().await?;
    for from in askers(lab).await? {
        lab.step(format!("ask both ClusterIPs from {from}: green refuses, blue answers"));
        let (green, blue) = lab.ask_both(&from, empty, full).await?;
        assert::all_answered_by("the Service with Pods to answer", &blue, &pods)?;
        assert::all_ended("the Service without Pods to refuse", &green, Refused)?;
    }
    Ok(())
}

async fn every_pod_answers(lab: &Lab) -> anyhow::Result<()> {
    for from in askers(lab).await? {
        lab.step(format!("every Pod of green answers {from}"));
        lab.service("green").leads_to_all(PODS, &from).await?;
    }
    Ok(())
}

/// Before kube-proxy's rules see it.
async fn drop_what_comes_to(lab: &Lab, hook: &str) -> anyhow::Result<()> {
    let address = lab.service("green").address().await?;
    lab.step(format!("drop what comes to {hook} for {address}"));
    let chain = format!("type filter hook {hook} priority -300");
    lab.last_node().add_rule(&chain, &format!("ip daddr {address} drop")).await
}
