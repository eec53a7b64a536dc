//! `kubeadm init` and `kubeadm join`, as a person runs them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use podwire_process::Report;
use serde_json::Value;

use super::{is_running, nodes_missing};
use crate::cell::PodNetwork;
use crate::kubeadm::JoinCommand;
use crate::stage::Access;
use crate::{
    Cluster, ClusterError, Identity, Node, StageName, flannel, kubeadm, node_files, units,
};

/// Preparing a node, or asking it something.
const COMMAND: Duration = Duration::from_secs(30);
/// All of `kubeadm init`: certificates, images checked, a control plane that answers.
const INIT: Duration = Duration::from_secs(60);
/// All of `kubeadm join`, while others join too.
const JOIN: Duration = Duration::from_secs(60);
/// From then until the Nodes are listed.
const LISTED: Duration = Duration::from_secs(10);

impl Cluster {
    /// Prepares every node, and makes node 1 a control plane.
    pub(super) async fn init(&mut self, report: &dyn Report) -> Result<(), ClusterError> {
        report.step("prepare every node for kubeadm");
        let plan = self.plan().clone();
        let settings = self.settings();
        let files = node_files::prepared(plan.cell.network, settings);
        let each = self.nodes().iter().map(|node| async {
            let mut files = files.clone();
            if node.number() == 1 {
                files.extend(kubeadm::init_files(&plan.kubernetes, plan.cell, settings));
            }
            self.set_up(node, &files, kubeadm::PREPARE).await
        });
        try_join_all(each).await?;
        report.step("kubeadm init on node1");
        let first = self.node(1);
        let (command, limit) = (kubeadm::INIT, INIT);
        self.kubeadm(first, "init", command, limit, report).await?;
        let limit = self.host().limit(COMMAND);
        let said = first.run_ok(kubeadm::SHOW_ADMIN, limit).await?;
        let access = access(&said).ok_or_else(|| unreadable(first, "administrator", &said))?;
        self.reach_api_with(access)
    }

    /// Makes every other node a worker, all at once.
    pub(super) async fn join(&self, report: &dyn Report) -> Result<(), ClusterError> {
        report.step("kubeadm join on every other node");
        let limit = self.host().limit(COMMAND);
        let first = self.node(1);
        let said = first
            .run_ok(&format!("cat {}", kubeadm::INIT_LOG), limit)
            .await?;
        let command = JoinCommand::find(&said);
        let command = command.ok_or_else(|| unreadable(first, "join command", &said))?;
        let hash = &command.hash;
        let each = self.nodes().iter().skip(1).map(|node| async move {
            let file = kubeadm::join_file(node.number(), hash, self.settings());
            self.set_up(node, &[file], "true").await?;
            let (command, limit) = (kubeadm::JOIN, JOIN);
            self.kubeadm(node, "join", command, limit, report).await
        });
        try_join_all(each).await?;
        let limit = self.host().limit(LISTED);
        let down = async || self.unit_down(self.nodes(), units::KUBELET).await;
        match self.wait_unless(limit, report, down, nodes_missing).await? {
            None => Ok(()),
            Some(state) => Err(self.not_up(first, units::KUBELET, limit, state).await),
        }
    }

    /// Runs it to its end, telling what it is at; when it fails, its words come with the kubelet's,
    /// which it waits for.
    async fn kubeadm(
        &self,
        node: &Node,
        phase: &'static str,
        command: &str,
        limit: Duration,
        report: &dyn Report,
    ) -> Result<(), ClusterError> {
        let limit = self.host().limit(limit);
        let tell = |line: &str| {
            if let Some(at) = phase_of(line) {
                report.waiting(&format!("kubeadm {phase} on {}: {at}", node.name()));
            }
        };
        match node.follow(command, limit, tell).await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(ClusterError::Kubeadm {
                phase,
                node: node.name().to_owned(),
                said: output.stderr.trim_end().to_owned(),
                kubelet: node.last_words(self.host(), units::KUBELET).await,
            }),
            Err(fault @ ClusterError::Fault(_)) => Err(fault),
            Err(failed) => {
                let state = crate::api::chain(&failed);
                let unit = units::KUBELET;
                Err(self.not_up(node, unit, limit, state).await)
            }
        }
    }
}

/// What kubeadm is at, in a line that begins with a phase in brackets; without what would move a
/// terminal's cursor.
fn phase_of(line: &str) -> Option<String> {
    let is_phase = line.starts_with('[') && line.contains("] ");
    is_phase.then(|| line.chars().filter(|char| !char.is_control()).collect())
}

fn unreadable(node: &Node, what: &'static str, said: &str) -> ClusterError {
    let end = said.char_indices().rev().nth(400).map_or(0, |(at, _)| at);
    ClusterError::Unreadable {
        node: node.name().to_owned(),
        what,
        said: said[end..].to_owned(),
    }
}

/// The administrator of a kubeconfig in JSON.
fn access(kubeconfig: &str) -> Option<Access> {
    let config: Value = serde_json::from_str(kubeconfig).ok()?;
    let decoded = |text: &Value| {
        let bytes = STANDARD.decode(text.as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let user = &config["users"][0]["user"];
    Some(Access {
        authority: decoded(&config["clusters"][0]["cluster"]["certificate-authority-data"])?,
        admin: Identity {
            certificate: decoded(&user["client-certificate-data"])?,
            key: decoded(&user["client-key-data"])?,
        },
    })
}

/// The Pods with which kubeadm runs a cluster, as far as they must run at a stage.
pub(super) struct SystemPods {
    /// Namespace, label selector, and whether there is one per node, per cluster, or two.
    wanted: Vec<(&'static str, &'static str, Count)>,
}

#[derive(Clone, Copy)]
enum Count {
    One,
    /// As CoreDNS has.
    Two,
    PerNode,
}

impl SystemPods {
    pub(super) fn of(stage: StageName, network: PodNetwork) -> Self {
        let mut wanted = vec![
            ("kube-system", "component=etcd", Count::One),
            ("kube-system", "component=kube-apiserver", Count::One),
            (
                "kube-system",
                "component=kube-controller-manager",
                Count::One,
            ),
            ("kube-system", "component=kube-scheduler", Count::One),
        ];
        if stage >= StageName::Joined {
            wanted.push(("kube-system", "k8s-app=kube-proxy", Count::PerNode));
        }
        if stage >= StageName::PodNetwork {
            if let PodNetwork::Flannel(_) = network {
                wanted.push((flannel::NAMESPACE, flannel::SELECTOR, Count::PerNode));
            }
            wanted.push(("kube-system", "k8s-app=kube-dns", Count::Two));
        }
        Self { wanted }
    }

    pub(super) async fn lacking(
        &self,
        api: kube::Client,
        nodes: u32,
    ) -> Result<Option<String>, kube::Error> {
        for (namespace, selector, count) in &self.wanted {
            let pods: Api<Pod> = Api::namespaced(api.clone(), namespace);
            let listed = pods.list(&ListParams::default().labels(selector)).await?;
            let running = listed.iter().filter(|pod| is_running(pod)).count();
            let wanted = match count {
                Count::One => 1,
                Count::Two => 2,
                Count::PerNode => nodes as usize,
            };
            if running < wanted {
                return Ok(Some(format!("{running} of {wanted} Pods {selector} run")));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kubeadm_tells_its_phases_and_nothing_to_the_terminal() {
        let said = "[certs] Using certificateDir folder \u{1b}[2J\"/etc/kubernetes/pki\"";
        assert_eq!(
            phase_of(said).as_deref(),
            Some("[certs] Using certificateDir folder [2J\"/etc/kubernetes/pki\"")
        );
        assert_eq!(
            phase_of("Your Kubernetes control-plane has initialized"),
            None
        );
    }

    #[test]
    fn the_administrator_is_read_from_a_kubeconfig() {
        let data = |text: &str| STANDARD.encode(text);
        let config = json!({
            "clusters": [{ "name": "kubernetes", "cluster": {
                "certificate-authority-data": data("CA"), "server": "https://172.30.0.11:6443",
            } }],
            "users": [{ "name": "kubernetes-admin", "user": {
                "client-certificate-data": data("CERT"), "client-key-data": data("KEY"),
            } }],
        });
        let read = access(&config.to_string()).unwrap();
        assert_eq!(read.authority, "CA");
        assert_eq!(
            (read.admin.certificate.as_str(), read.admin.key.as_str()),
            ("CERT", "KEY")
        );
        assert_eq!(access("{}"), None);
        assert_eq!(access("error: no such file"), None);
    }
}
