//! What the name of a Service without a ClusterIP answers.

use std::collections::BTreeSet;

use podwire_scenario::{
    Cause, Cells, Evidence, Lab, Needs, Pod, Probe, Profile, Sabotage, Scenario, StageName, assert,
    secs, steps,
};
use serde_json::{Value, json};

use crate::catalogue;

/// A headless Service's name, as its Pods come and go.
pub(crate) const HEADLESS: Scenario = Scenario {
    about: "A headless Service's name answers exactly its ready Pods, through a scale-down and a \
            rollout",
    covers: &[catalogue::HEADLESS],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(240),
    sabotages: &[
        Sabotage::new("unready-published")
            .about("the Service publishes the addresses of Pods that are not ready")
            .inject(steps!(|lab| {
                let unready = json!({ "clusterIP": "None", "publishNotReadyAddresses": true });
                green_until_it_answers(lab, unready, 4).await
            }))
            .caught_by(steps!(exactly_the_ready_pods), Cause::WrongAnswer),
        Sabotage::new("with-a-cluster-ip")
            .about("the Service has a ClusterIP, which its name leads to")
            .inject(steps!(|lab| green_until_it_answers(lab, json!({}), 1).await))
            .caught_by(steps!(exactly_the_ready_pods), Cause::WrongAnswer),
    ],
    ..Scenario::new("headless_service", StageName::Workload, steps!(headless))
};

async fn headless(lab: &Lab) -> anyhow::Result<()> {
    green(lab, json!({ "clusterIP": "None" })).await?;
    exactly_the_ready_pods(lab).await?;

    lab.step("scale down to two Pods");
    lab.deployment("green").scale(2).await?;
    lab.deployment("green").pods().until_running(2).await?;
    exactly_the_ready_pods(lab).await?;

    lab.step("roll out new Pods in their place");
    lab.deployment("green").roll_out().await?;
    exactly_the_ready_pods(lab).await
}

/// Three Pods behind a Service, and a fourth, which never becomes ready.
async fn green(lab: &Lab, service: Value) -> anyhow::Result<()> {
    lab.step("a Deployment green, its Service, and a Pod that is never ready");
    lab.deployment("green").create(3, json!({})).await?;
    lab.service("green").create(service).await?;
    // Its condition is one that nobody sets (Pod readiness gates).
    lab.apply(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "never-ready", "labels": { "app": "green" } },
        "spec": { "readinessGates": [{ "conditionType": "podwire.invalid/never" }],
                  "containers": [Pod::container()] },
    }))
    .await?;
    lab.deployment("green").pods().until_running(3).await.map(drop)
}

const NAME: &str = "green.default.svc.cluster.local";

async fn exactly_the_ready_pods(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask for the Service's name: exactly its ready Pods");
    let asker = lab.deployment("green").pods().first().await?;
    let spec = lab.service("green").listed().await?.and_then(|it| it.spec).unwrap_or_default();
    let unready = spec.publish_not_ready_addresses == Some(true);
    let wrong = unready || spec.cluster_ip.as_deref() != Some("None");
    let never = wrong.then(|| Evidence::certain("the Service has a ClusterIP, or unready Pods"));
    lab.eventually("the name to answer exactly the ready Pods", secs(40), async || {
        let ready = lab.deployment("green").pods().running().await?;
        let ready: BTreeSet<_> = ready.into_iter().map(|pod| pod.ip()).collect();
        let answer = lab.resolve(&asker, NAME).await?;
        let exactly = assert::resolved(&answer, &ready).is_ok();
        let state = format!("{answer}; ready are {ready:?}");
        Ok(Probe::when(exactly, Cause::WrongAnswer, state)
            .given(never.clone())
            .needs(Needs::ClusterDns))
    })
    .await
}

async fn green_until_it_answers(lab: &Lab, service: Value, count: usize) -> anyhow::Result<()> {
    green(lab, service).await?;
    let asker = lab.deployment("green").pods().first().await?;
    lab.eventually(format!("the name to answer {count}"), secs(40), async || {
        let answer = lab.resolve(&asker, NAME).await?;
        let there = answer.addresses().len() == count;
        Ok(Probe::when(there, Cause::NotReady, answer.to_string()).needs(Needs::ClusterDns))
    })
    .await
}
