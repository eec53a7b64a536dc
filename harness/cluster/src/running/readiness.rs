//! What Nodes and Pods say of themselves.

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::parts::kubeadm::CONTROL_PLANE_TAINT;

pub(crate) fn name<K: kube::Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

/// Why a Node is not Ready, in its kubelet's or the controller manager's words, or not open for Pods: the
/// taints of a new Node go a moment after it is Ready, a Pod network's own when its daemon runs there, and
/// Pods created in between would crowd the others. kubeadm's taint of a control plane stays.
pub(crate) fn takes_no_pods(node: &Node) -> Option<String> {
    let name = name(node);
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready");
    if ready.is_none_or(|condition| condition.status != "True") {
        let why = ready.and_then(|condition| condition.message.as_deref());
        let why = why.unwrap_or("it has not said anything yet");
        return Some(format!("{name} is not Ready: {why}"));
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let mut taints = taints.into_iter().flatten();
    let taint = taints.find(|taint| taint.key != CONTROL_PLANE_TAINT)?;
    Some(format!("{name} has the taint {}", taint.key))
}

pub(crate) fn is_running(pod: &Pod) -> bool {
    ready(pod).is_some()
}

/// Since when a Pod has been ready, by its node's clock.
pub(crate) fn ready_since(pod: &Pod) -> Option<&Time> {
    ready(pod)?.last_transition_time.as_ref()
}

fn ready(pod: &Pod) -> Option<&PodCondition> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| holds(&condition.type_, &condition.status))
}

/// Why a container of a Pod does not run, in the kubelet's words; nothing where it only takes time.
pub(crate) fn stumbling(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten();
    let mut containers = containers.chain(status.container_statuses.iter().flatten());
    containers.find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let ended = container.last_state.as_ref();
        let ended = ended.and_then(|state| state.terminated.as_ref());
        let ended = ended.map_or(String::new(), |it| format!(", ended with {}", it.exit_code));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        Some(format!(
            "{namespace}/{}: container {}: {reason}{ended}",
            name(pod),
            container.name
        ))
    })
}

fn holds(condition: &str, status: &str) -> bool {
    condition == "Ready" && status == "True"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_that_keeps_ending_is_told_from_one_that_takes_its_time() {
        let pod = |state: serde_json::Value, last: serde_json::Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": "ds-1", "namespace": "kube-flannel" },
                "status": { "containerStatuses": [{
                    "name": "flannel", "image": "", "imageID": "", "ready": false,
                    "restartCount": 3, "state": state, "lastState": last,
                }] },
            }))
            .unwrap()
        };
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        let ended = json!({ "terminated": { "exitCode": 2 } });
        assert_eq!(
            stumbling(&pod(waiting("CrashLoopBackOff"), ended)).as_deref(),
            Some("kube-flannel/ds-1: container flannel: CrashLoopBackOff, ended with 2")
        );
        assert_eq!(
            stumbling(&pod(waiting("ErrImageNeverPull"), json!({}))).as_deref(),
            Some("kube-flannel/ds-1: container flannel: ErrImageNeverPull")
        );
        assert_eq!(
            stumbling(&pod(waiting("ContainerCreating"), json!({}))),
            None
        );
        assert_eq!(stumbling(&pod(json!({ "running": {} }), json!({}))), None);
        assert_eq!(stumbling(&Pod::default()), None);
    }

    #[test]
    fn a_node_takes_pods_once_it_is_ready_and_nobody_s_taint_is_left() {
        let node = |taint: &str, conditions: serde_json::Value| -> Node {
            let taints = [taint].into_iter().filter(|it| !it.is_empty());
            let taints = taints.map(|key| json!({ "key": key, "effect": "NoSchedule" }));
            serde_json::from_value(json!({
                "metadata": { "name": "node2" },
                "spec": { "taints": taints.collect::<Vec<_>>() },
                "status": { "conditions": conditions },
            }))
            .unwrap()
        };
        let ready = || json!([{ "type": "Ready", "status": "True" }]);
        assert_eq!(takes_no_pods(&node("", ready())), None);
        assert_eq!(takes_no_pods(&node(CONTROL_PLANE_TAINT, ready())), None);
        let stopped = "Kubelet stopped posting node status.";
        let unknown = json!([{ "type": "Ready", "status": "Unknown", "message": stopped }]);
        let lacks = [
            node("node.cilium.io/agent-not-ready", ready()),
            node("node.kubernetes.io/unreachable", unknown),
            node("", json!([])),
        ];
        let lacks = lacks.iter().filter_map(takes_no_pods);
        insta::assert_snapshot!(lacks.collect::<Vec<_>>().join("\n"), @r"
        node2 has the taint node.cilium.io/agent-not-ready
        node2 is not Ready: Kubelet stopped posting node status.
        node2 is not Ready: it has not said anything yet
        ");
    }
}
