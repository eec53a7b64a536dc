//! The steps of the documents, one component at a time.

use std::time::Duration;

use futures::future::try_join_all;
use podwire_process::Report;

use super::{API_READY, START, nodes_missing, ready};
use crate::node::Node;
use crate::{Cluster, ClusterError, node_files, units};

/// From the kubelets' start to the registration of all Nodes.
const REGISTERED: Duration = Duration::from_secs(20);

/// Commands that start the control plane: before and after the API server is ready. `enable` reads
/// the new units as well, which saves a process.
pub(crate) const CONTROL_PLANE: [&str; 2] = [
    "systemctl enable --now etcd kube-apiserver",
    "systemctl enable --now kube-controller-manager kube-scheduler",
];
/// The command that starts what every node runs.
pub(crate) const NODE: &str = "systemctl enable --now node-network containerd kubelet";

impl Cluster {
    pub(super) async fn start_control_plane(
        &self,
        report: &dyn Report,
    ) -> Result<(), ClusterError> {
        report.step("start etcd and the API server");
        let first = self.node(1);
        let files = node_files::control_plane(self.pki()?, self.plan().cell, self.settings());
        self.set_up(first, &files, CONTROL_PLANE[0]).await?;
        let limit = self.host().limit(API_READY);
        let lacking = async |api: kube::Client, _| Ok(ready(&api).await.err());
        let down = async || match self.unit_down(&self.nodes()[..1], units::ETCD).await {
            Some(down) => Some(down),
            None => self.unit_down(&self.nodes()[..1], units::API_SERVER).await,
        };
        let state = self.wait_unless(limit, report, down, lacking).await?;
        if let Some(state) = state {
            return Err(self.not_up(first, units::API_SERVER, limit, state).await);
        }
        report.step("start the controller manager and the scheduler");
        first
            .run_ok(CONTROL_PLANE[1], self.host().limit(START))
            .await?;
        Ok(())
    }

    /// Starts every kubelet and waits until it has made its Node.
    pub(super) async fn start_nodes(&self, report: &dyn Report) -> Result<(), ClusterError> {
        report.step("start containerd and the kubelet on every node");
        let each = self.nodes().iter().map(|node| async move {
            let files = node_files::node(
                node.number(),
                self.pki()?,
                self.plan().cell,
                self.settings(),
            );
            self.set_up(node, &files, NODE).await
        });
        try_join_all(each).await?;
        let limit = self.host().limit(REGISTERED);
        let down = async || self.unit_down(self.nodes(), units::KUBELET).await;
        let state = self.wait_unless(limit, report, down, nodes_missing).await?;
        let Some(state) = state else {
            return Ok(());
        };
        let is_meant = |node: &&Node| state.starts_with(&format!("{} ", node.name()));
        let (node, unit) = match self.nodes().iter().find(is_meant) {
            Some(missing) => (missing, units::KUBELET),
            None => (self.node(1), units::API_SERVER),
        };
        Err(self.not_up(node, unit, limit, state).await)
    }
}
