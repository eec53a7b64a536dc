//! The components of a cluster by hand, started with other flags.

use std::time::Duration;

use anyhow::ensure;
use podwire_cluster::{Component, Settings, component};

use crate::check::failure::Cause;
use crate::lab::Lab;
use crate::lab::node::Node;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// For an API server that starts.
const READY: Duration = Duration::from_secs(20);

impl Lab {
    /// The API server of a cluster by hand, as its bootstrap starts it: flags can be replaced and
    /// added (`with("--bind-address", "127.0.0.1")`), and left out (`without("--client-ca-file")`).
    pub fn api_server(&self) -> Component {
        component::api_server(self.settings())
    }

    /// etcd, as [`Lab::api_server`].
    pub fn etcd(&self) -> Component {
        component::etcd(self.settings())
    }

    /// The controller manager, as [`Lab::api_server`].
    pub fn controller_manager(&self) -> Component {
        component::controller_manager(self.pod_network(), self.settings())
    }

    /// containerd, on any node, as [`Lab::api_server`].
    pub fn containerd(&self) -> Component {
        component::containerd(self.settings())
    }

    /// Waits until the API server says on node 1 that it is ready, to whoever asks (RBAC,
    /// `system:public-info-viewer`): not in the documents' mode, which knows no strangers.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn until_api_server_is_ready(&self) -> anyhow::Result<()> {
        self.eventually("the API server to be ready", READY, async || {
            let asked = self
                .node(1)
                .curl("--insecure https://localhost:6443/readyz")
                .await?;
            let ready = asked.cause == Cause::Answered;
            Ok(Probe::when(ready, Cause::NotReady, asked.to_string())
                .needs(Needs::ControlPlane("kube-apiserver")))
        })
        .await
    }

    fn settings(&self) -> Settings {
        Settings::of(self.cluster().plan().accelerator)
    }
}

impl Node<'_> {
    /// Its kubelet, as [`Lab::api_server`].
    pub fn kubelet(self) -> Component {
        component::kubelet(self.number(), self.address(), self.lab().settings())
    }

    /// Has systemd start a component with the flags that it has now, one that runs anew. It may end
    /// right afterwards: see [`Node::last_words`].
    ///
    /// # Errors
    /// When systemd does not start it, or the node does not answer.
    pub async fn start_component(self, component: &Component) -> anyhow::Result<()> {
        let cluster = self.lab().cluster();
        let started = cluster.start_component(self.number(), component).await?;
        ensure!(started.succeeded(), "systemd does not start it: {started}");
        Ok(())
    }

    /// Stops a component; one that does not run stays so.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn stop_component(self, component: &Component) -> anyhow::Result<()> {
        let cluster = self.lab().cluster();
        Ok(cluster.stop_component(self.number(), component).await?)
    }

    /// What systemd and the journal say of a component: its state, and the journal's last lines, or that
    /// the node does not answer.
    pub async fn last_words(self, component: &Component) -> String {
        let cluster = self.lab().cluster();
        cluster.last_words(self.number(), component).await
    }
}
