//! A control plane as the documents start it first: on node 1, with two keys of root's, and open to
//! whoever shows the one of the two that is the authority's.

use std::time::Duration;

use podwire_cluster::Component;

use crate::lab::Lab;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// Two keys are drawn, or an API server starts.
const LIMIT: Duration = Duration::from_secs(20);

/// The documents' commands, in root's home.
const KEYS: &str = "\
    openssl genrsa -out sa.key 2048 && \
    openssl genrsa -out ca.key 2048 && \
    openssl x509 -new -key ca.key -out ca.cert -subj /CN=kubernetes/";

const KUBECONFIG: &str = "\
    kubectl config set-cluster polykube --server=https://localhost:6443 && \
    kubectl config set-cluster polykube --insecure-skip-tls-verify && \
    kubectl config set-credentials polykube --client-key ca.key --client-certificate ca.cert && \
    kubectl config set-context polykube --cluster polykube --user polykube && \
    kubectl config use-context polykube";

impl Lab {
    /// The API server with the five flags that it needs and no other: it lets everybody do everything
    /// who is known (`AlwaysAllow`), and knows who shows a certificate of `/root/ca.cert`. With
    /// `--authorization-mode` it is as strict as any.
    pub fn open_api_server(&self) -> Component {
        let bare = self.api_server().without_flags();
        bare.with("--etcd-servers", "http://localhost:2379")
            .with("--service-account-signing-key-file", "/root/sa.key")
            .with("--service-account-issuer", "https://kubernetes")
            .with("--service-account-key-file", "/root/sa.key")
            .with("--client-ca-file", "/root/ca.cert")
    }

    /// Makes the keys in node 1's `/root`: `sa.key`, which signs tokens, `ca.key`, and a self-signed
    /// `ca.cert` for that.
    ///
    /// # Errors
    /// When node 1 does not carry it out.
    pub async fn make_first_keys(&self) -> anyhow::Result<()> {
        self.step("make a key for tokens, a key for the authority, and a certificate for that");
        self.node(1).run(KEYS).within(LIMIT).await?;
        Ok(())
    }

    /// Starts etcd without flags, and this API server, and waits until it serves.
    ///
    /// # Errors
    /// When node 1 does not carry it out; a [`Failure`](crate::Failure) when the API server does not
    /// serve.
    pub async fn start_etcd_and_api_server(&self, api_server: &Component) -> anyhow::Result<()> {
        self.step("start etcd without flags, and the API server");
        self.node(1)
            .start_component(&self.etcd().without_flags())
            .await?;
        self.start_api_server(api_server).await
    }

    /// Starts the API server with the flags that it has now, in the place of one that runs, and waits
    /// until it serves, whatever it answers.
    ///
    /// # Errors
    /// As [`Lab::start_etcd_and_api_server`].
    pub async fn start_api_server(&self, api_server: &Component) -> anyhow::Result<()> {
        let node1 = self.node(1);
        node1.start_component(api_server).await?;
        self.eventually("the API server to serve", LIMIT, async || {
            let asked = node1
                .curl("--insecure https://localhost:6443/readyz")
                .await?;
            let serves = asked.status.is_some();
            Ok(Probe::when(serves, asked.cause, asked.to_string())
                .needs(Needs::ControlPlane("kube-apiserver")))
        })
        .await
    }

    /// Writes root's kubeconfig on node 1 with `kubectl config`: the authority's own key and
    /// certificate, and no verification of the API server's.
    ///
    /// # Errors
    /// When node 1 does not carry it out.
    pub async fn write_kubeconfig_with_kubectl(&self) -> anyhow::Result<()> {
        self.step("write a kubeconfig: cluster, credentials, context, and use that");
        self.node(1).run(KUBECONFIG).within(LIMIT).await?;
        Ok(())
    }
}
