//! What is kept of a cluster in which something failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use super::api::chain;
use super::cluster::Cluster;
use super::node::Node;
use crate::plan::error::ClusterError;

/// Host time, before stretching, that collecting the evidence of one failure may take.
pub const EVIDENCE: Duration = Duration::from_secs(45);

/// The folder of the evidence that a cluster leaves in its own.
pub(crate) const FOLDER: &str = "evidence";

/// One command; a guest that is in trouble must not hold up the rest.
const COMMAND: Duration = Duration::from_secs(10);

/// What is asked of every node about its network: file name and command line. Related questions share a
/// command, because every process costs time in an emulated guest.
const OF_THE_NETWORK: [(&str, &str); 2] = [
    (
        "network.txt",
        "for c in 'ip address' 'ip rule' 'ip -6 rule' 'ip route show table all' 'ip neighbour' 'bridge fdb' \
         'nft list ruleset'; do \
         echo \"# $c\"; $c; done",
    ),
    ("sysctl.txt", "sysctl -a --pattern '^net' 2>/dev/null"),
];

/// And about the rest.
const QUESTIONS: [(&str, &str); 7] = [
    ("iptables.txt", "iptables-save"),
    (
        "cni.txt",
        "tail -n +1 /etc/cni/net.d/*; ls -l /var/lib/cni/networks/*",
    ),
    (
        "kubelet.txt",
        "systemctl --no-pager -l status kubelet; journalctl -u kubelet --no-pager",
    ),
    (
        "containerd.txt",
        "systemctl --no-pager -l status containerd; journalctl -u containerd --no-pager",
    ),
    (
        "crictl.txt",
        "for c in pods 'ps -a' images; do echo \"# crictl $c\"; \
         crictl -r unix:///run/containerd/containerd.sock $c; done",
    ),
    (
        "pods.txt",
        "tail -n 200 /var/log/pods/*/*/*.log /root/podwire/*.log",
    ),
    ("journal.txt", "journalctl -b --no-pager"),
];

/// What is asked of node 1 about the API.
const API_QUESTIONS: (&str, &str) = (
    "api.txt",
    "for c in 'nodes -o wide' 'pods -A -o wide' 'services,endpointslices -A' \
     'events -A --sort-by=.lastTimestamp'; do echo \"# kubectl get $c\"; kubectl get $c; done",
);

impl Cluster {
    /// Writes evidence to `dir`: per node journals, containers, network, console; from the API Nodes,
    /// Pods and events; of the segment the capture and its counters.
    ///
    /// It never fails: an answer that cannot be had is replaced by the reason.
    pub async fn evidence(&self, dir: &Path) {
        self.segment_evidence(dir);
        let machines = self.machines();
        join_all(machines.map(|machine| self.machine_evidence(machine, dir))).await;
    }

    /// Leaves evidence in the cluster's own folder, and gives where it is: what is there when
    /// [`EVIDENCE`] has passed has to do.
    pub(crate) async fn leave_evidence(&self) -> PathBuf {
        let dir = self.dir().join(FOLDER);
        let limit = self.host().limit(EVIDENCE);
        let _ = timeout(limit, self.evidence(&dir)).await;
        dir
    }

    /// What came of something that is done to make the cluster; an error once evidence is left, and it
    /// says where.
    pub(crate) async fn explained<T>(
        &self,
        done: Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        match done {
            Ok(done) => Ok(done),
            Err(source) => Err(ClusterError::Failed {
                evidence: self.leave_evidence().await,
                source: Box::new(source),
            }),
        }
    }

    fn segment_evidence(&self, dir: &Path) {
        let segment = self.segment();
        let gateway = segment.gateway();
        let counters = json!({
            "ports": segment.counters().map_err(|error| error.to_string()).ok(),
            "gateway": gateway.counters(),
            "dropped": gateway.dropped(),
            "outside": gateway.outside_log(),
        });
        keep(&dir.join("segment.json"), &format!("{counters:#}\n"));
        // A capture that cannot be written is missed by whoever looks for it, and harms nothing.
        if let Ok(capture) = segment.write_capture() {
            let _ = fs::copy(capture, dir.join("segment.pcapng"));
        }
    }

    /// Writes what one node says to a folder of its name in `dir`; as [`Cluster::evidence`].
    pub async fn node_evidence(&self, number: u32, dir: &Path) {
        self.machine_evidence(self.node(number), dir).await;
    }

    /// Writes what each node says of its network alone, to a folder of its name in `dir`; as
    /// [`Cluster::evidence`].
    pub async fn network_evidence(&self, dir: &Path) {
        let asked = self.machines().map(|node| async move {
            self.answers(node, OF_THE_NETWORK, &dir.join(node.name()))
                .await;
        });
        join_all(asked).await;
    }

    async fn machine_evidence(&self, node: &Node, dir: &Path) {
        let dir = dir.join(node.name());
        for name in ["console.log", "qemu.log", "qmp.log", "agent.log", "argv"] {
            let file = self.machine_dir(node).join(name);
            if fs::create_dir_all(&dir).is_ok() {
                // As above.
                let _ = fs::copy(file, dir.join(name));
            }
        }
        let api = (node.number() == 1).then_some(API_QUESTIONS);
        let all = OF_THE_NETWORK.into_iter().chain(QUESTIONS).chain(api);
        self.answers(node, all, &dir).await;
    }

    /// Writes what a node answers, each to a file of its name in `dir`.
    async fn answers(
        &self,
        node: &Node,
        questions: impl IntoIterator<Item = (&str, &str)>,
        dir: &Path,
    ) {
        for (name, command) in questions {
            let limit = self.host().limit(COMMAND);
            let text = match node.run(command, limit).await {
                Ok(output) => output.to_string(),
                Err(error) => chain(&error),
            };
            keep(&dir.join(name), &text);
        }
    }
}

fn keep(path: &Path, text: &str) {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    // A full disk costs evidence, not the verdict.
    let _ = folder.and_then(|()| fs::write(path, text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fails_says_where_the_evidence_is() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::without_nodes(dir.path());
        assert_eq!(cluster.explained(Ok(7)).await.unwrap(), 7);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let failed = cluster.explained(Err::<(), _>(ClusterError::NoPki)).await;
        let said = chain(&failed.unwrap_err());
        let said = said.replace(&dir.path().display().to_string(), "STAGE");
        insta::assert_snapshot!(said, @r#"a cluster failed; what its nodes had to say is in "STAGE/evidence": kubeadm keeps the cluster's keys on node1, in /etc/kubernetes/pki"#);
        assert!(dir.path().join("evidence/segment.json").exists());
    }
}
