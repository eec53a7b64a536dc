//! What is asked of a running cluster's Pods: which there are, and requests and programs in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use kube::Api;
use kube::api::{AttachParams, ListParams, Patch, PatchParams};
use podwire_lan::Ipv4Net;
use podwire_probe::{FetchReport, FetchRequest};
use podwire_vm::{ExitStatus, Output};
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::api::chain;
use super::cluster::Cluster;
use super::readiness::is_running;
use crate::parts::workload::WORKLOAD_SERVICE;
use crate::plan::addresses::{node_number, pod_range};
use crate::plan::cell::PodNetwork;
use crate::plan::error::ClusterError;

/// A command on a node that sends requests, without these.
const COMMAND: Duration = Duration::from_secs(10);

/// A Pod, as far as scenarios look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity: another Pod of the same name has another.
    pub uid: String,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// That node's number.
    pub node_number: Option<u32>,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// `Pending`, `Running`, ...
    pub phase: String,
    /// Whether its Ready condition holds.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Restarts of all its containers together.
    pub restarts: u32,
}

impl Cluster {
    /// Sends requests from a node.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no report; what became of the requests is in it.
    pub async fn fetch_from_node(
        &self,
        node: u32,
        request: &FetchRequest,
    ) -> Result<FetchReport, ClusterError> {
        self.fetch(node, "probe fetch", request).await
    }

    /// Sends requests from inside the Pod with this address on this node: its own server carries
    /// them out, which the node reaches without any route.
    ///
    /// # Errors
    /// As [`Cluster::fetch_from_node`].
    pub async fn fetch_from_pod(
        &self,
        node: u32,
        pod: Ipv4Addr,
        request: &FetchRequest,
    ) -> Result<FetchReport, ClusterError> {
        self.fetch(node, &format!("probe fetch --via {pod}:80"), request)
            .await
    }

    async fn fetch(
        &self,
        node: u32,
        command: &str,
        request: &FetchRequest,
    ) -> Result<FetchReport, ClusterError> {
        let text = serde_json::to_vec(request).map_err(|source| ClusterError::Json {
            what: "a request for the probe",
            source,
        })?;
        let limit = self.host().limit(COMMAND) + request.longest();
        let node = self.node(node);
        let output = node.run_with_input(command, &text, limit).await?;
        serde_json::from_str(&output).map_err(|source| ClusterError::Probe {
            node: node.name().to_owned(),
            output,
            source,
        })
    }

    /// The Pods of the namespace `default` with these labels; all of them for an empty selector.
    ///
    /// # Errors
    /// [`ClusterError::Api`].
    pub async fn pods(&self, selector: &str) -> Result<Vec<PodRef>, ClusterError> {
        let pods: Api<Pod> = Api::default_namespaced(self.api());
        let listed = pods.list(&ListParams::default().labels(selector)).await;
        let listed = listed.map_err(ClusterError::api("list the Pods"))?;
        Ok(listed.items.into_iter().map(pod_ref).collect())
    }

    /// The range that the Pods of each node have their addresses from, by the node's number. Where
    /// the controller manager gives them out, a Node that has just come may have none yet. Nothing
    /// for a Pod network of the user's, which may take its addresses from anywhere.
    ///
    /// # Errors
    /// [`ClusterError::Api`].
    pub async fn pod_ranges(&self) -> Result<Option<BTreeMap<u32, Ipv4Net>>, ClusterError> {
        match self.plan().cell.network {
            PodNetwork::Manifest => return Ok(None),
            PodNetwork::Routes => {
                let numbers = 1..=self.plan().nodes;
                let ranges = numbers.map(|number| (number, pod_range(number)));
                return Ok(Some(ranges.collect()));
            }
            PodNetwork::Flannel(_) => {}
        }
        let nodes: Api<ApiNode> = Api::all(self.api());
        let listed = nodes.list(&ListParams::default()).await;
        let listed = listed.map_err(ClusterError::api("list the Nodes"))?;
        let ranges = listed.items.into_iter().filter_map(|node| {
            let number = node_number(node.metadata.name.as_deref()?)?;
            Some((number, node.spec?.pod_cidr?.parse().ok()?))
        });
        Ok(Some(ranges.collect()))
    }

    /// Sets the workload's number of Pods.
    ///
    /// # Errors
    /// [`ClusterError::Api`].
    pub async fn scale_workload(&self, replicas: u32) -> Result<(), ClusterError> {
        let deployments: Api<Deployment> = Api::default_namespaced(self.api());
        let scale = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        let scaled = deployments
            .patch_scale(WORKLOAD_SERVICE, &PatchParams::default(), &scale)
            .await;
        scaled.map_err(ClusterError::api("scale the workload"))?;
        Ok(())
    }

    /// Runs a program in a Pod's first container, as `kubectl exec` does: by the API server and
    /// the kubelet. Another exit status than 0 is not an error.
    ///
    /// # Errors
    /// [`ClusterError::Exec`] when nothing ran, or not to its end within the limit.
    pub async fn exec_in_pod(
        &self,
        pod: &str,
        command: &[&str],
        limit: Duration,
    ) -> Result<Output, ClusterError> {
        let failed = |reason: String| ClusterError::Exec {
            pod: pod.to_owned(),
            command: command.join(" "),
            reason,
        };
        match tokio::time::timeout(limit, self.exec(pod, command)).await {
            Ok(done) => done.map_err(failed),
            Err(_) => Err(failed(format!("not done within {} s", limit.as_secs()))),
        }
    }

    async fn exec(&self, pod: &str, command: &[&str]) -> Result<Output, String> {
        let pods: Api<Pod> = Api::default_namespaced(self.api());
        let streams = AttachParams::default().stdout(true).stderr(true);
        let attached = pods.exec(pod, command.iter().copied(), &streams).await;
        let mut attached = attached.map_err(|error| chain(&error))?;
        let (Some(mut out), Some(mut err), Some(status)) =
            (attached.stdout(), attached.stderr(), attached.take_status())
        else {
            return Err("the API server opened no streams".to_owned());
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (read_out, read_err, status) = tokio::join!(
            out.read_to_end(&mut stdout),
            err.read_to_end(&mut stderr),
            status
        );
        read_out.and(read_err).map_err(|error| error.to_string())?;
        let status = status.ok_or("the session ended without a status")?;
        let status = match status.status.as_deref() {
            Some("Success") => ExitStatus::Code(0),
            _ => exit_code(&status).ok_or_else(|| status.message.clone().unwrap_or_default())?,
        };
        Ok(Output {
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

/// The exit code in a failed exec's status (meta/v1 Status, cause `ExitCode`).
fn exit_code(
    status: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Status,
) -> Option<ExitStatus> {
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let cause = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
    Some(ExitStatus::Code(cause.message.as_ref()?.parse().ok()?))
}

fn pod_ref(pod: Pod) -> PodRef {
    let ready = is_running(&pod);
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let restarts = status.container_statuses.unwrap_or_default();
    let restarts = restarts.iter().map(|status| status.restart_count);
    PodRef {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        uid: pod.metadata.uid.unwrap_or_default(),
        node_number: spec.node_name.as_deref().and_then(node_number),
        node: spec.node_name,
        ip: status.pod_ip.and_then(|address| address.parse().ok()),
        phase: status.phase.unwrap_or_default(),
        ready,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        restarts: restarts.map(i32::unsigned_abs).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_read_from_the_api() {
        let pod = json!({
            "metadata": {
                "name": "blue-1", "namespace": "default", "uid": "u",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": { "nodeName": "node2", "containers": [] },
            "status": {
                "phase": "Running", "podIP": "10.1.2.3",
                "conditions": [{ "type": "Ready", "status": "True" }],
                "containerStatuses": [
                    { "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 2 },
                    { "name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 1 },
                ],
            },
        });
        let pod = pod_ref(serde_json::from_value(pod).unwrap());
        assert_eq!(
            (pod.node_number, pod.ip),
            (Some(2), Some(Ipv4Addr::new(10, 1, 2, 3)))
        );
        assert!(pod.ready && pod.terminating);
        assert_eq!(pod.restarts, 3);
        assert!(!pod_ref(Pod::default()).ready);
    }

    #[test]
    fn an_exit_code_is_found_in_a_failed_exec() {
        let status = json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": "3" }] },
        });
        let status = serde_json::from_value(status).unwrap();
        assert_eq!(exit_code(&status), Some(ExitStatus::Code(3)));
        assert_eq!(exit_code(&Default::default()), None);
    }
}
