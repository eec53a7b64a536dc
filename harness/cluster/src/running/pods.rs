//! What is asked of a running cluster's Pods: which there are, and requests and programs in them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use kube::Api;
use kube::api::{AttachParams, ListParams};
use podwire_lan::Ipv4Net;
use podwire_probe::{Counted, FetchReport, FetchRequest, Outcome, TargetReport};
use podwire_vm::{ExitStatus, Output};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::api::chain;
use super::cluster::Cluster;
use super::readiness::is_running;
use crate::parts::workload::WORKLOAD_SELECTOR;
use crate::plan::addresses::{node_number, pod_range};
use crate::plan::cell::{PodNetwork, Published};
use crate::plan::error::ClusterError;

/// A command on a node that sends requests, without these.
const COMMAND: Duration = Duration::from_secs(10);

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
        let report = serde_json::from_str(&output).map_err(|source| ClusterError::Probe {
            node: node.name().to_owned(),
            output,
            source,
        })?;
        match misreported(request, &report) {
            None => Ok(report),
            Some(mismatch) => Err(ClusterError::Misreported {
                node: node.name().to_owned(),
                mismatch,
            }),
        }
    }

    /// The address of one running Pod of the workload for each node that has any, by the node's number.
    ///
    /// # Errors
    /// [`ClusterError::Api`].
    pub async fn one_pod_per_node(&self) -> Result<BTreeMap<u32, Ipv4Addr>, ClusterError> {
        let pods: Api<Pod> = Api::default_namespaced(self.api());
        let workload = ListParams::default().labels(WORKLOAD_SELECTOR);
        let listed = pods.list(&workload).await;
        let listed = listed.map_err(ClusterError::api("list the Pods"))?;
        let running = listed.items.into_iter().filter(is_running);
        Ok(running.filter_map(placed).collect())
    }

    /// The range that the Pods of each node have their addresses from, by the node's number. Where
    /// the controller manager gives them out, a Node that has just come may have none yet. Nothing
    /// for one that chooses addresses itself: Calico, and maybe the user's.
    ///
    /// # Errors
    /// [`ClusterError::Api`].
    pub async fn pod_ranges(&self) -> Result<Option<BTreeMap<u32, Ipv4Net>>, ClusterError> {
        match self.plan().cell.network {
            PodNetwork::Manifest | PodNetwork::Published(Published::Calico) => return Ok(None),
            PodNetwork::Routes => {
                let numbers = 1..=self.plan().nodes;
                let ranges = numbers.map(|number| (number, pod_range(number)));
                return Ok(Some(ranges.collect()));
            }
            PodNetwork::Flannel(_) | PodNetwork::Published(_) => {}
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
        let (Some(out), Some(err), Some(status)) =
            (attached.stdout(), attached.stderr(), attached.take_status())
        else {
            return Err("the API server opened no streams".to_owned());
        };
        let (stdout, stderr, status) = tokio::join!(kept(out), kept(err), status);
        let streams = stdout.and_then(|stdout| Ok((stdout, stderr?)));
        let (stdout, stderr) = streams.map_err(|error| error.to_string())?;
        let status = status.ok_or("the session ended without a status")?;
        let status = match status.status.as_deref() {
            Some("Success") => ExitStatus::Code(0),
            _ => exit_code(&status).ok_or_else(|| status.message.clone().unwrap_or_default())?,
        };
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }
}

/// Where a report is not about exactly what was asked: what it leaves out would be missed nowhere.
fn misreported(request: &FetchRequest, report: &FetchReport) -> Option<String> {
    let told = report.targets.iter().map(|it| &it.target);
    if !told.eq(&request.targets) {
        let told: Vec<&str> = report.targets.iter().map(|it| it.target.as_str()).collect();
        return Some(format!("asked {:?}, reported {told:?}", request.targets));
    }
    let can_be = |it: &Counted| {
        let Counted {
            outcome,
            count,
            octets,
            ..
        } = it;
        request.kind.can_have_carried(*outcome, *count, *octets)
    };
    report.targets.iter().find_map(|target| {
        let ended: u64 = target.results.iter().map(|it| u64::from(it.count)).sum();
        let TargetReport { unsent, .. } = target;
        let all = ended + u64::from(*unsent) == u64::from(request.count);
        let given_up = request
            .give_up_after
            .is_some_and(|most| target.count(Outcome::TimedOut) >= most);
        let whole = all
            && target.results.iter().all(|it| it.count > 0 && can_be(it))
            && (*unsent == 0 || given_up)
            && (!request.each || target.attempts.len() as u64 == ended);
        (!whole).then(|| format!("{} requests asked for, reported {target}", request.count))
    })
}

/// What is kept of a Pod's stream, which is read to its end.
async fn kept(mut stream: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut kept = podwire_process::Kept::default();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Ok(kept.into_text());
        }
        kept.write_all(&bytes[..count])?;
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

/// The number of the node that it is bound to, and its address.
fn placed(pod: Pod) -> Option<(u32, Ipv4Addr)> {
    let node = node_number(pod.spec?.node_name.as_deref()?)?;
    Some((node, pod.status?.pod_ip?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_probe::Kind;
    use serde_json::json;

    #[test]
    fn a_pod_has_a_place_once_it_has_both_node_and_address() {
        let of = |spec: serde_json::Value, status: serde_json::Value| {
            let pod = json!({ "metadata": {}, "spec": spec, "status": status });
            placed(serde_json::from_value(pod).unwrap())
        };
        let spec = json!({ "nodeName": "node2", "containers": [] });
        let placed = of(spec.clone(), json!({ "podIP": "10.1.2.3" }));
        assert_eq!(placed, Some((2, Ipv4Addr::new(10, 1, 2, 3))));
        assert_eq!(of(spec, json!({})), None);
    }

    #[tokio::test]
    async fn what_a_pod_prints_is_kept_within_bounds_and_read_to_its_end() {
        let endless = tokio::io::repeat(b'x').take(40_000_000);
        let text = kept(endless).await.unwrap();
        assert!(text.len() < 34_000_000, "{}", text.len());
        assert!(text.ends_with("x\n(6445568 bytes more were cut)\n"));
    }

    #[test]
    fn a_report_is_about_exactly_what_was_asked() {
        let request = FetchRequest::new(["a", "b"]).count(3).give_up_after(1);
        let target = |target: &str, counts: &[(&str, u32)], unsent: u32| {
            let results = counts
                .iter()
                .map(|(outcome, count)| json!({ "outcome": outcome, "host": "x", "count": count }));
            let results: Vec<_> = results.collect();
            json!({ "target": target, "results": results, "unsent": unsent })
        };
        let whole = target("a", &[("answered", 3)], 0);
        let of = |request: &FetchRequest, targets: &[&serde_json::Value]| {
            let report = serde_json::from_value(json!({ "targets": targets })).unwrap();
            misreported(request, &report)
        };
        let second = |second| of(&request, &[&whole, &second]);
        assert_eq!(
            second(target("b", &[("answered", 1), ("refused", 2)], 0)),
            None
        );
        assert_eq!(second(target("b", &[("timed_out", 1)], 2)), None);
        let fewer = of(&request, &[&whole]).unwrap();
        assert_eq!(fewer, r#"asked ["a", "b"], reported ["a"]"#);
        assert!(second(target("c", &[("answered", 3)], 0)).is_some());
        let few = second(target("b", &[("answered", 1)], 0)).unwrap();
        assert_eq!(few, "3 requests asked for, reported b: 1 answered by x");
        assert!(second(target("b", &[("answered", 4)], 0)).is_some());
        assert!(second(target("b", &[("answered", 3), ("refused", 0)], 0)).is_some());
        assert!(second(target("b", &[], 0)).is_some());
        // Nothing timed out, so nothing was given up.
        assert!(second(target("b", &[("answered", 1)], 2)).is_some());
        let each = FetchRequest {
            each: true,
            ..request.clone()
        };
        assert!(of(&each, &[&whole, &whole]).is_some());
    }

    #[test]
    fn a_transfer_that_is_told_of_has_carried_what_was_asked() {
        let kind = Kind::Transfer { up: 7, down: 1000 };
        let request = FetchRequest::new(["a"]).count(2).kind(kind);
        let of = |octets: serde_json::Value| {
            let result =
                json!({ "outcome": "answered", "host": "x", "count": 2, "octets": octets });
            let report = json!({ "targets": [{ "target": "a", "results": [result] }] });
            misreported(&request, &serde_json::from_value(report).unwrap()).is_none()
        };
        assert!(of(json!({ "sent": 14, "received": 2000 })));
        assert!(!of(json!({ "sent": 14, "received": 1999 })));
        assert!(!of(json!(null)));
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
