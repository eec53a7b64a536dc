//! The workload as the API lists it.

use std::net::Ipv4Addr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::addresses;
use crate::api::ApiError;

/// What scenarios need to know of one Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the Node that it is bound to; empty while it is not.
    pub node: String,
    /// Number of that node.
    pub node_number: Option<u32>,
    /// Its address, once it has one.
    pub ip: Option<Ipv4Addr>,
    /// Unique id.
    pub uid: String,
    /// Restarts of its containers, all together.
    pub restarts: u32,
    /// Whether its Ready condition is true.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
}

impl From<Pod> for PodRef {
    fn from(pod: Pod) -> Self {
        let status = pod.status.unwrap_or_default();
        let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_default();
        let restarts = status.container_statuses.unwrap_or_default().into_iter();
        let ready = status
            .conditions
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        Self {
            name: pod.metadata.name.unwrap_or_default(),
            namespace: pod.metadata.namespace.unwrap_or_default(),
            node_number: addresses::node_number(&node),
            node,
            ip: status.pod_ip.and_then(|ip| ip.parse().ok()),
            uid: pod.metadata.uid.unwrap_or_default(),
            restarts: restarts.map(|c| u32::try_from(c.restart_count).unwrap_or(0)).sum(),
            ready,
            terminating: pod.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The Pods of all namespaces that carry the labels of a selector (`app=blue`; empty: all).
///
/// # Errors
/// [`ApiError::Request`].
pub async fn list(client: Client, selector: &str) -> Result<Vec<PodRef>, ApiError> {
    let pods: Api<Pod> = Api::all(client);
    let listed = pods
        .list(&ListParams::default().labels(selector))
        .await
        .map_err(ApiError::request("list Pods"))?;
    Ok(listed.items.into_iter().map(PodRef::from).collect())
}

/// `kubectl scale deployment NAME --replicas N`.
///
/// # Errors
/// [`ApiError::Request`].
pub async fn scale(client: Client, deployment: &str, replicas: u32) -> Result<(), ApiError> {
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    deployments
        .patch_scale(deployment, &PatchParams::default(), &patch)
        .await
        .map_err(ApiError::request(format!("scale {deployment} to {replicas}")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_reduced_to_what_scenarios_ask() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "blue-1", "namespace": "default", "uid": "u",
                          "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "nodeName": "node2", "containers": [] },
            "status": {
                "podIP": "10.1.2.3",
                "conditions": [{ "type": "Ready", "status": "True" }],
                "containerStatuses": [
                    { "name": "a", "ready": true, "restartCount": 1, "image": "", "imageID": "" },
                    { "name": "b", "ready": true, "restartCount": 2, "image": "", "imageID": "" }
                ]
            }
        }))
        .unwrap();
        let pod = PodRef::from(pod);
        assert_eq!(pod.node_number, Some(2));
        assert_eq!(pod.ip, Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!((pod.restarts, pod.ready, pod.terminating), (3, true, true));
    }

    #[test]
    fn a_pending_pod_is_nowhere() {
        let pod = PodRef::from(Pod::default());
        assert_eq!((pod.node_number, pod.ip, pod.ready), (None, None, false));
    }
}
