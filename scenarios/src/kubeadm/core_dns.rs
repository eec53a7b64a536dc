//! CoreDNS before there is a Pod network.

use podwire_scenario::{
    Cause, Cells, Failure, Lab, Pod, Probe, Profile, Sabotage, Scenario, StageName, ensure, secs,
    steps,
};

use crate::catalogue::E6;

/// E6, before: init creates CoreDNS, and no node takes it.
///
/// Today's scheduler no longer names the taint in the Pod's condition: the Nodes are asked for it.
pub(crate) const CORE_DNS_WAITS: Scenario = Scenario {
    about: "Without a Pod network CoreDNS stays Pending: every Node carries the not-ready taint, \
            which it does not tolerate; kube-proxy, which does, runs beside it",
    covers: &[E6],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(60),
    sabotages: &[Sabotage::new("coredns-tolerates")
        .about("CoreDNS tolerates every taint")
        .inject(steps!(tolerate_every_taint))
        .caught_by(steps!(core_dns_waits), Cause::WrongAnswer)],
    ..Scenario::new("coredns_waits_for_the_pod_network", StageName::Joined, steps!(core_dns_waits))
};

async fn core_dns_waits(lab: &Lab) -> anyhow::Result<()> {
    lab.step("CoreDNS is Pending: no node takes it");
    let pods = lab.core_dns().await?;
    ensure!(!pods.is_empty(), Absent, "init's CoreDNS", "no Pod of it");
    for pod in &pods {
        waits_for_a_node(pod)?;
    }

    lab.step("every Node carries the not-ready taint");
    let taint = "node.kubernetes.io/not-ready";
    for node in lab.nodes() {
        let listed = node.listed().await?;
        let taints = listed.as_ref().map(|it| it.taints()).unwrap_or_default();
        let tainted = taints.contains(&taint);
        ensure!(tainted, Absent, "{node} to carry {taint}", "{taints:?}");
    }

    lab.step("kube-proxy tolerates it, and needs no Pod network: it runs");
    let proxies = lab.system_pods().labelled("k8s-app=kube-proxy");
    let (nodes, needs) = (lab.nodes().count(), proxies.needs(lab.nodes().count()));
    let ready = proxies.within(secs(30)).until("a kube-proxy on every node", |pods| {
        let ready = pods.iter().filter(|pod| pod.holds("Ready")).count();
        let state = format!("{ready} are Ready");
        Probe::when(ready == nodes, Cause::NotReady, state).needs(needs.clone())
    });
    ready.await
}

fn waits_for_a_node(pod: &Pod) -> Result<(), Failure> {
    let scheduled = pod.condition("PodScheduled");
    let reason = scheduled.and_then(|it| it.reason.as_deref());
    let message = scheduled.and_then(|it| it.message.as_deref());
    let (phase, node) = (pod.phase(), pod.node());
    let of_taints = message.is_some_and(|it| it.contains("had untolerated taint"));
    let unscheduled = node.is_none() && reason == Some("Unschedulable");
    ensure!(
        phase == "Pending" && unscheduled && of_taints,
        WrongAnswer,
        "{pod} Pending, because no Node's taints are tolerated",
        "{phase}, node {node:?}: {reason:?} {message:?}"
    );
    Ok(())
}

async fn tolerate_every_taint(lab: &Lab) -> anyhow::Result<()> {
    lab.step("let CoreDNS tolerate every taint");
    let patch = r#"{"spec":{"template":{"spec":{"tolerations":[{"operator":"Exists"}]}}}}"#;
    let patch = format!("-n kube-system patch deployment coredns --patch '{patch}'");
    lab.kubectl(patch).await?;
    let (pods, needs) = (lab.core_dns().within(secs(30)), lab.core_dns().needs(1));
    pods.until("a Pod of CoreDNS on a node", |pods| {
        let bound = pods.iter().any(|pod| pod.node().is_some());
        Probe::when(bound, Cause::NotReady, "all wait").needs(needs.clone())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn waiting_means_pending_for_the_reason_of_taints() {
        let of = |phase: &str, node: Option<&str>, message: &str| {
            waits_for_a_node(&Pod::from_json(json!({
                "metadata": { "name": "coredns-1", "namespace": "kube-system" },
                "spec": { "nodeName": node, "containers": [] },
                "status": { "phase": phase, "conditions": [{
                    "type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": message,
                }] },
            })))
        };
        let taints = "0/3 nodes are available: 3 node(s) had untolerated taint(s).";
        assert_eq!(of("Pending", None, taints), Ok(()));
        assert!(of("Running", None, taints).is_err());
        assert!(of("Pending", None, "Insufficient cpu").is_err());
        let bound = of("Pending", Some("node2"), taints).unwrap_err();
        assert!(bound.seen.contains("node Some(2)"), "{bound}");
    }
}
