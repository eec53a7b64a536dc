//! What is done to a running cluster, in words of the documents.

use std::time::Duration;

use podwire_vm::Output;

use super::cluster::Cluster;
use crate::parts::component::Component;
use crate::parts::file::{UNPACK, archive};
use crate::plan::error::ClusterError;
use crate::steps::{network, with_kubeadm};

/// Writing a unit, and what systemd needs to start or stop it.
const START: Duration = Duration::from_secs(30);

impl Cluster {
    /// Adds the route to the Pods of node `to` on node `on`; there already, it stays. With
    /// [`Break::Route`](crate::Break::Route), the one from 1 to 2 is left out.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn add_route(&self, on: u32, to: u32) -> Result<(), ClusterError> {
        let cell = self.plan().cell;
        self.on_nodes(&network::add_route(cell, on, to, self.broken()))
            .await
    }

    /// Adds all N x (N-1) routes, as [`Cluster::add_route`], and the router's where there is one.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn add_all_routes(&self) -> Result<(), ClusterError> {
        let (cell, nodes) = (self.plan().cell, self.plan().nodes);
        if let Some(command) = network::router_routes(cell.layout, nodes) {
            self.on_router(&command, network::COMMAND).await?;
        }
        self.on_nodes(&network::add_all_routes(cell, nodes, self.broken()))
            .await
    }

    /// Deletes the route to the Pods of node `to` from node `on`. One that is not there stays so.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn delete_route(&self, on: u32, to: u32) -> Result<(), ClusterError> {
        let cell = self.plan().cell;
        self.on_nodes(&network::delete_route(cell, on, to, self.broken()))
            .await
    }

    /// Starts kube-proxy on every node. With [`Break::KubeProxy`](crate::Break::KubeProxy), its kubeconfig leads nowhere.
    ///
    /// # Errors
    /// [`ClusterError::Guest`], [`ClusterError::NoPki`].
    pub async fn start_kube_proxy(&self) -> Result<(), ClusterError> {
        let proxies = network::start_proxy(self.plan().nodes, self.pki()?, self.broken());
        self.on_nodes(&proxies).await
    }

    /// From now on its API is reached as kubeadm's administrator, whose kubeconfig is on node 1: where its stage has
    /// no API server, and kubeadm has made one since.
    ///
    /// # Errors
    /// [`ClusterError::Guest`], [`ClusterError::Unreadable`].
    pub async fn reach_api(&self) -> Result<(), ClusterError> {
        self.reach_api_as(&with_kubeadm::show_admin()).await
    }

    /// Starts a component on a node as it now is, in the place of one that runs: its unit is written and
    /// systemd reads it. What systemd says: a component may end again right afterwards, see
    /// [`Cluster::last_words`].
    ///
    /// # Errors
    /// [`ClusterError::Guest`]; but systemd's refusal is not one.
    pub async fn start_component(
        &self,
        node: u32,
        component: &Component,
    ) -> Result<Output, ClusterError> {
        let unit = &component.unit;
        let left_over = component.left_over();
        let remove = left_over.map(|path| format!("rm -f {path} && "));
        let command = format!(
            "{}systemctl daemon-reload && systemctl restart {unit}",
            remove.unwrap_or_default()
        );
        let files = component.files();
        let (node, limit) = (self.node(node), self.host().limit(START));
        if files.is_empty() {
            return node.run(&command, limit).await;
        }
        let files = archive(&files).map_err(ClusterError::file("archive", "the node's files"))?;
        let command = format!("{UNPACK} && {command}");
        node.run_given(&command, &files, limit).await
    }

    /// Stops a component on a node. One that does not run stays so.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn stop_component(
        &self,
        node: u32,
        component: &Component,
    ) -> Result<(), ClusterError> {
        let command = format!("systemctl stop {}", component.unit);
        let limit = self.host().limit(START);
        self.node(node).run_ok(&command, limit).await?;
        Ok(())
    }

    /// What systemd and the journal say of a component: its state, and the journal's last lines. It
    /// never fails: where the node does not answer, that is what it says.
    pub async fn last_words(&self, node: u32, component: &Component) -> String {
        self.node(node)
            .last_words(self.host(), &component.unit)
            .await
    }
}
