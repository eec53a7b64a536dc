//! A Service asked from everywhere, also by the Pods behind it.

use podwire_scenario::{
    Break, Cause, Families, Lab, Place, Sabotage, Scenario, StageName, secs, steps,
};

use crate::catalogue::F3;

/// F3: every Pod through a Service, from everywhere.
pub(crate) const FROM_EVERYWHERE: Scenario = Scenario {
    about: "Every Pod answers through a ClusterIP every node and a Pod of every node, those of its \
            own node and itself included; by each family of IP that the cluster has",
    covers: &[F3],
    families: Families::Each,
    limit: secs(180),
    prepare: Some(steps!(a_service_for_every_pod)),
    sabotages: &[
        Sabotage::new("bridge-filtering-off-on-node-1")
            .about("node 1's Pods answer each other past the kernel's rules")
            .inject(steps!(|lab| lab.node(1).lose_answers_between_its_pods().await))
            .at(Place::Node(1))
            .caught_by(steps!(every_pod_answers_everybody), Cause::TimedOut),
        Sabotage::new("bridge-filtering-off-on-node-2")
            .about("node 2's Pods answer each other past the kernel's rules")
            .inject(steps!(|lab| lab.node(2).lose_answers_between_its_pods().await))
            .at(Place::Node(2))
            .caught_by(steps!(every_pod_answers_everybody), Cause::TimedOut),
        Sabotage::new("hairpin-off")
            .about("the last node gives no Pod back what it sent")
            .inject(steps!(|lab| lab.last_node().forbid_hairpins().await))
            .at(Place::Last)
            .caught_by(steps!(every_pod_answers_everybody), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new(
        "services_from_everywhere",
        StageName::Workload,
        steps!(every_pod_answers_everybody),
    )
};

/// A Service for each Pod: which of them answers is no matter of chance, so one request for each pair
/// is enough.
async fn a_service_for_every_pod(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Service of its own for every Pod, until every node knows all of them");
    let mut services = Vec::new();
    for pod in lab.pods().all_running().await? {
        services.push(lab.service(&pod.name).create_for(&pod).await?);
    }
    lab.until_all_answer(&lab.everybody().await?, &services).await
}

async fn every_pod_answers_everybody(lab: &Lab) -> anyhow::Result<()> {
    let mut services = Vec::new();
    for pod in lab.pods().all_running().await? {
        services.push(lab.service(&pod.name).leading_to(&pod).await?);
    }
    lab.step("every Pod answers everybody at its ClusterIP, itself too (F3)");
    let mesh = lab.mesh(&lab.everybody().await?, &services).by_each_family().await?;
    Ok(mesh.all_answer("every Pod to answer everybody at its ClusterIP")?)
}
