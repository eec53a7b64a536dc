//! The components of a cluster by hand, started with other flags.

use std::time::Duration;

use anyhow::ensure;
use podwire_cluster::{Component, Settings, component};

use crate::check::failure::Cause;
use crate::lab::Lab;
use crate::lab::curl::Curled;
use crate::lab::node::Node;
use crate::wait::evidence::Evidence;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// What an API server says of itself, whoever has signed its certificate.
const READYZ: &str = "--insecure https://localhost:6443/readyz";

/// For an API server that starts.
const READY: Duration = Duration::from_secs(20);

/// A component reads what it is told, and ends for that.
const ENDS: Duration = Duration::from_secs(20);

/// Its last words may reach the journal a moment after its end.
const LOOKS: u32 = 3;

impl Lab {
    /// The API server of a cluster by hand, as its bootstrap starts it: flags can be replaced and
    /// added (`with("--bind-address", "127.0.0.1")`), and left out (`without("--client-ca-file")`).
    pub fn api_server(&self) -> Component {
        component::api_server(self.pod_network(), self.ip_families(), self.settings())
    }

    /// etcd, as [`Lab::api_server`].
    pub fn etcd(&self) -> Component {
        component::etcd(self.settings())
    }

    /// containerd with its package's own unit, as [`Lab::api_server`].
    pub fn containerd(&self) -> Component {
        component::containerd(self.settings())
    }

    /// The controller manager, as [`Lab::api_server`].
    pub fn controller_manager(&self) -> Component {
        component::controller_manager(self.pod_network(), self.ip_families(), self.settings())
    }

    /// Waits until the API server says on node 1 that it is ready, to whoever asks (RBAC,
    /// `system:public-info-viewer`): not in the documents' mode, which knows no strangers.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn until_api_server_is_ready(&self) -> anyhow::Result<()> {
        self.until_readyz("the API server to be ready", |asked| {
            let ready = asked.cause == Cause::Answered;
            Probe::when(ready, Cause::NotReady, asked.to_string())
        })
        .await
    }

    /// Waits until what the API server's `readyz` answers on node 1 is as it should be.
    pub(super) async fn until_readyz(
        &self,
        expected: &str,
        judge: impl Fn(&Curled) -> Probe<()>,
    ) -> anyhow::Result<()> {
        self.eventually(expected, READY, async || {
            let asked = self.node(1).curl(READYZ).await?;
            Ok(judge(&asked).needs(Needs::ControlPlane("kube-apiserver")))
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
        let (lab, address) = (self.lab(), self.address());
        component::kubelet(self.number(), address, lab.ip_families(), lab.settings())
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

    /// Has systemd start a component once, and waits until it has ended, with another status than 0, and
    /// said all of these `words`. `serves` is a command line that exits with 0 if it serves instead.
    ///
    /// # Errors
    /// When the node does not answer; a [`Failure`](crate::Failure) when it serves (`Answered`), says
    /// something else (`WrongAnswer`), or goes on without serving (`NotReady`).
    pub async fn ends_at_its_start(
        self,
        component: &Component,
        serves: &str,
        words: &[&str],
    ) -> anyhow::Result<()> {
        let (lab, unit) = (self.lab(), &component.unit);
        let once = component.clone().once();
        // systemd's word for a start in vain is no more than that it was one.
        lab.cluster().start_component(self.number(), &once).await?;
        let expected = format!(
            "{unit} to end at its start, saying: {}",
            words.join(" ... ")
        );
        lab.eventually(expected, ENDS, async || {
            let state = self.run(format!("systemctl show -P ActiveState {unit}"));
            let state = state.await?.text().to_owned();
            if state != "failed" {
                let serves = self.run(serves).may_fail().await?.succeeded();
                return Ok(match serves {
                    true => Probe::hopeless(Cause::Answered, format!("{unit} serves")),
                    false => Probe::not_yet(Cause::NotReady, format!("{unit} is {state}")),
                });
            }
            let said = self.journal(unit).await?;
            if words.iter().all(|it| said.contains(it)) {
                return Ok(Probe::Done(()));
            }
            let ended = Evidence::unchanged_for(LOOKS, "it has ended");
            let said = self.last_words(component).await;
            Ok(Probe::not_yet(Cause::WrongAnswer, said).given(Some(ended)))
        })
        .await
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
