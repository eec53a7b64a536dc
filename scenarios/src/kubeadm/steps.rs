//! What a person does with kubeadm and kubectl, and how their answers are told apart.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use podwire_cluster::kubeadm::{self, JoinCommand};
use podwire_cluster::{WORKLOAD_IMAGE, addresses};
use podwire_scenario::{Cause, Failure, Lab};
use serde_json::{Value, json};

use crate::steps::on;

/// `kubeadm join` and `kubeadm reset`.
const KUBEADM: Duration = Duration::from_secs(40);
/// `kubectl`, unless it waits for something.
const KUBECTL: Duration = Duration::from_secs(20);
/// `kubectl drain`, which waits until the last Pod is gone.
const DRAIN: Duration = Duration::from_secs(60);

/// From the start of a join to a Ready Node: the lab's listing shows an age of 88 s.
pub(super) const READY_AFTER_JOIN: Duration = Duration::from_secs(90);

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Whether it exited with 0.
    pub(super) success: bool,
    /// Standard output and error, as they came.
    pub(super) text: String,
}

/// Runs a command that may fail.
pub(super) async fn say(
    lab: &Lab,
    node: u32,
    command: &str,
    limit: Duration,
) -> anyhow::Result<Said> {
    let output = lab
        .cluster()
        .node(node)
        .run(&format!("{{ {command}; }} 2>&1"), lab.limit(limit))
        .await?;
    Ok(Said {
        success: output.status.success(),
        text: output.stdout,
    })
}

/// `kubectl` on node 1, as the administrator; it may be refused.
pub(super) async fn kubectl_says(lab: &Lab, arguments: &str) -> anyhow::Result<Said> {
    say(lab, 1, &as_administrator(arguments), KUBECTL).await
}

/// `kubectl` on node 1, as the administrator, which must succeed; its standard output.
pub(super) async fn kubectl(lab: &Lab, arguments: &str) -> anyhow::Result<String> {
    let limit = lab.limit(KUBECTL);
    let node1 = lab.cluster().node(1);
    Ok(node1.run_ok(&as_administrator(arguments), limit).await?)
}

fn as_administrator(arguments: &str) -> String {
    format!("kubectl --kubeconfig {} {arguments}", kubeadm::ADMIN_CONFIG)
}

/// The join command at the end of `kubeadm init`'s output.
pub(crate) async fn join_command(lab: &Lab) -> anyhow::Result<JoinCommand> {
    let log = on(lab, 1, &format!("cat {}", kubeadm::INIT_LOG)).await?;
    let found = JoinCommand::find(&log).ok_or_else(|| {
        let end: Vec<&str> = log.lines().rev().take(5).collect();
        let seen = format!("none; its last lines, backwards: {}", end.join(" | "));
        Failure::new(Cause::Absent, "a join command at the end of init", seen)
    })?;
    Ok(found)
}

/// The container of a Pod that a scenario makes: the workload's program.
pub(super) fn probe_container() -> Value {
    json!({
        "name": "probe",
        "image": WORKLOAD_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/probe", "serve"],
    })
}

/// Types the join command on a node, which may refuse.
pub(super) async fn try_to_join(
    lab: &Lab,
    number: u32,
    command: &JoinCommand,
) -> anyhow::Result<Said> {
    let name = addresses::node_name(number);
    lab.step(format!("kubeadm join on {name}"));
    say(lab, number, &command.to_string(), KUBEADM).await
}

/// Joins a node; what kubeadm said.
pub(crate) async fn join(lab: &Lab, number: u32, command: &JoinCommand) -> anyhow::Result<String> {
    let said = try_to_join(lab, number, command).await?;
    if said.success {
        return Ok(said.text);
    }
    let expected = format!("{} to join", addresses::node_name(number));
    let stopped: Vec<&str> = preflight_errors(&said.text).into_iter().collect();
    let seen = if stopped.is_empty() {
        said.text
    } else {
        format!("stopped by the checks {}", stopped.join(", "))
    };
    Err(Failure::new(Cause::Absent, expected, seen)
        .look("the node's journal: `journalctl -u kubelet`")
        .into())
}

/// Names of the preflight checks that stopped kubeadm. It gives no distinguishing exit codes: these
/// names are all there is to match.
pub(super) fn preflight_errors(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("[ERROR ")?.split_once(']'))
        .map(|(check, _)| check)
        .collect()
}

/// `kubeadm reset`, answering its question.
pub(super) async fn reset(lab: &Lab, number: u32, answer: &str) -> anyhow::Result<Said> {
    let name = addresses::node_name(number);
    lab.step(format!("kubeadm reset on {name}, answered {answer:?}"));
    let command = format!("echo {answer} | kubeadm reset");
    say(lab, number, &command, KUBEADM).await
}

/// `kubeadm reset`, answered with y; what it said.
pub(crate) async fn reset_for_good(lab: &Lab, number: u32) -> anyhow::Result<String> {
    let said = reset(lab, number, "y").await?;
    anyhow::ensure!(said.success, "kubeadm reset failed: {}", said.text);
    Ok(said.text)
}

/// `kubectl drain --ignore-daemonsets`.
pub(crate) async fn drain(lab: &Lab, number: u32) -> anyhow::Result<()> {
    let name = addresses::node_name(number);
    let command = as_administrator(&format!("drain {name} --ignore-daemonsets"));
    let limit = lab.limit(DRAIN);
    lab.cluster().node(1).run_ok(&command, limit).await?;
    Ok(())
}

/// Every Pod that is bound to a node, in all namespaces.
pub(super) async fn pods_bound_to(lab: &Lab, number: u32) -> anyhow::Result<Vec<Pod>> {
    let of_node = format!("spec.nodeName={}", addresses::node_name(number));
    let pods: Api<Pod> = Api::all(lab.cluster().api());
    let listed = pods.list(&ListParams::default().fields(&of_node)).await;
    Ok(listed.context("cannot list the Pods of a node")?.items)
}

/// The Pods of kubeadm's own add-ons and control plane.
pub(super) fn system_pods(lab: &Lab) -> Api<Pod> {
    Api::namespaced(lab.cluster().api(), "kube-system")
}

/// `NAMESPACE/NAME`.
pub(super) fn full_name(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    format!("{namespace}/{name}")
}

/// Whether a Pod belongs to its node alone: a DaemonSet's, or a static Pod's mirror.
pub(super) fn belongs_to_its_node(pod: &Pod) -> bool {
    of_daemon_set(pod).is_some() || static_hash(pod).is_some()
}

/// The DaemonSet that keeps a Pod.
pub(super) fn of_daemon_set(pod: &Pod) -> Option<&str> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners
        .find(|owner| owner.kind == "DaemonSet")
        .map(|owner| owner.name.as_str())
}

/// A static Pod's identity on its node, where the mirror in the API has another UID.
pub(super) fn static_hash(pod: &Pod) -> Option<&str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get("kubernetes.io/config.mirror")?;
    Some(annotations.get("kubernetes.io/config.hash")?.as_str())
}

/// Whether a Pod's condition of this type holds.
pub(super) fn holds(pod: &Pod, condition: &str) -> bool {
    let conditions = pod
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref());
    conditions
        .flatten()
        .any(|it| it.type_ == condition && it.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_that_only_warn_stop_nothing() {
        let said = "\
[preflight] Running pre-flight checks
\t[WARNING ContainerRuntimeVersion]: You must update your container runtime
[preflight] Some fatal errors occurred:
\t[ERROR FileAvailable--etc-kubernetes-kubelet.conf]: /etc/kubernetes/kubelet.conf already exists
\t[ERROR Port-10250]: Port 10250 is in use
error: error execution phase preflight: preflight checks failed";
        let names: Vec<&str> = preflight_errors(said).into_iter().collect();
        assert_eq!(
            names,
            ["FileAvailable--etc-kubernetes-kubelet.conf", "Port-10250"]
        );
    }

    #[test]
    fn pods_of_a_node_alone_are_told_from_those_that_move() {
        let of = |metadata: serde_json::Value| {
            serde_json::from_value::<Pod>(json!({ "metadata": metadata })).unwrap()
        };
        let owner = |kind: &str| {
            of(json!({ "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": kind, "name": "it", "uid": "u" }
            ] }))
        };
        assert_eq!(of_daemon_set(&owner("DaemonSet")), Some("it"));
        assert!(!belongs_to_its_node(&owner("ReplicaSet")));
        let mirror = of(json!({ "annotations": {
            "kubernetes.io/config.mirror": "h", "kubernetes.io/config.hash": "h"
        } }));
        assert_eq!(static_hash(&mirror), Some("h"));
        assert!(belongs_to_its_node(&mirror));
        assert_eq!(static_hash(&owner("DaemonSet")), None);
    }
}
