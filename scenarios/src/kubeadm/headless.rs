//! What the name of a Service without a ClusterIP answers.

use std::collections::BTreeSet;

use podwire_scenario::{
    Cause, Cells, Evidence, Lab, Needs, Pod, Probe, Profile, Sabotage, Scenario, StageName, secs,
    steps,
};
use serde_json::json;

use crate::catalogue::HEADLESS as CLAIM;

/// A headless Service's name, as its Pods come and go.
pub(crate) const HEADLESS: Scenario = Scenario {
    about: "A headless Service's name answers exactly its ready Pods, through a scale-down and a \
            rollout",
    covers: &[CLAIM],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(240),
    sabotages: &[
        Sabotage {
            name: "unready-published",
            about: "the Service publishes the addresses of Pods that are not ready",
            expects: Cause::WrongAnswer,
            inject: steps!(|lab| {
                green_behind_a_headless_service(lab).await?;
                let unready = r#"{"spec":{"publishNotReadyAddresses":true}}"#;
                lab.kubectl(format!("patch service green -p '{unready}'")).await?;
                until_it_answers(lab, 4).await
            }),
            check: steps!(exactly_the_ready_pods),
        },
        Sabotage {
            name: "with-a-cluster-ip",
            about: "the Service has a ClusterIP, which its name leads to",
            expects: Cause::WrongAnswer,
            inject: steps!(|lab| {
                green_behind_a_headless_service(lab).await?;
                lab.kubectl("delete service green").await?;
                lab.service("green").create().await?;
                until_it_answers(lab, 1).await
            }),
            check: steps!(exactly_the_ready_pods),
        },
    ],
    ..Scenario::new("headless_service", StageName::Workload, steps!(headless))
};

async fn headless(lab: &Lab) -> anyhow::Result<()> {
    green_behind_a_headless_service(lab).await?;
    exactly_the_ready_pods(lab).await?;

    lab.step("scale down to two Pods");
    lab.deployment("green").scale(2).await?;
    lab.deployment("green").pods().until_running(2).await?;
    exactly_the_ready_pods(lab).await?;

    lab.step("roll out new Pods in their place");
    let old = lab.deployment("green").pods().running().await?;
    lab.kubectl("rollout restart deployment green").await?;
    let new_ones = lab.deployment("green").pods().until_running_and(2, |pods| {
        let left = pods.iter().any(|pod| old.contains(pod));
        left.then(|| "an old one is left".to_owned())
    });
    new_ones.await?;
    exactly_the_ready_pods(lab).await
}

/// Three Pods and their Service; a fourth, which never becomes ready; and somebody who asks.
async fn green_behind_a_headless_service(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Deployment green, a headless Service before it, a Pod that is never ready");
    lab.deployment("green").create(3, json!({})).await?;
    lab.apply(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "green" },
        "spec": { "clusterIP": "None", "selector": { "app": "green" }, "ports": [{ "port": 80 }] },
    }))
    .await?;
    lab.start_pod("asker", lab.last_node()).await?;
    lab.apply(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "never-ready", "labels": { "app": "green" } },
        "spec": {
            // A condition that nobody sets (Pod readiness gates).
            "readinessGates": [{ "conditionType": "podwire.invalid/never" }],
            "terminationGracePeriodSeconds": 2,
            "containers": [Pod::container()],
        },
    }))
    .await?;
    lab.pods().labelled("app=asker").until_running(1).await?;
    lab.deployment("green").pods().until_running(3).await?;
    Ok(())
}

const NAME: &str = "green.default.svc.cluster.local";

async fn exactly_the_ready_pods(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask for the Service's name: exactly its ready Pods");
    let asker = lab.pods().labelled("app=asker").first().await?;
    let expected = "the name to answer exactly the Service's ready Pods";
    lab.eventually(expected, secs(40), async || {
        let ready = lab.deployment("green").pods().running().await?;
        let ready: BTreeSet<_> = ready.into_iter().map(|pod| pod.address).collect();
        let answer = lab.resolve(&asker, NAME).await?;
        // As a list, in which an address that comes twice would be seen.
        let mut answered = answer.addresses();
        answered.sort();
        let exactly = answered.iter().eq(&ready);
        let state = format!("{answer}; ready are {ready:?}");
        Ok(Probe::when(exactly, Cause::WrongAnswer, state)
            .given(not_headless(lab).await?)
            .needs(Needs::ClusterDns))
    })
    .await
}

/// What the Service says of itself that no wait mends.
async fn not_headless(lab: &Lab) -> anyhow::Result<Option<Evidence>> {
    let spec = lab.service("green").listed().await?.and_then(|service| service.spec);
    let spec = spec.unwrap_or_default();
    let address = spec.cluster_ip.unwrap_or_default();
    Ok(if address != "None" {
        Some(Evidence::certain(format!("it is not headless, but has {address}")))
    } else if spec.publish_not_ready_addresses == Some(true) {
        Some(Evidence::certain("it publishes Pods that are not ready"))
    } else {
        None
    })
}

async fn until_it_answers(lab: &Lab, count: usize) -> anyhow::Result<()> {
    let asker = lab.pods().labelled("app=asker").first().await?;
    lab.eventually(format!("the name to answer {count}"), secs(40), async || {
        let answer = lab.resolve(&asker, NAME).await?;
        let there = answer.addresses().len() == count;
        Ok(Probe::when(there, Cause::NotReady, answer.to_string()).needs(Needs::ClusterDns))
    })
    .await
}
