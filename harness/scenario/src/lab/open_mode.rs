//! A control plane and a node as the documents start them first: on node 1, with two keys of root's, and
//! open, the API server to whoever shows the one of the two that is the authority's, the kubelet to all.

use std::time::Duration;

use podwire_cluster::Component;
use serde_json::{Value, json};

use crate::check::failure::Cause;
use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::node::Node;
use crate::lab::pods::Pod;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// Two keys are drawn, or a daemon starts.
const LIMIT: Duration = Duration::from_secs(20);
/// A Pod's containers start one after the other.
const RUNS: Duration = Duration::from_secs(40);

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

/// Where that kubeconfig is, on node 1.
const KUBECONFIG_PATH: &str = "/root/.kube/config";

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

    /// The controller manager with that kubeconfig and no other flag: it knows no authority.
    pub fn open_controller_manager(&self) -> Component {
        let bare = self.controller_manager().without_flags();
        bare.with("--kubeconfig", KUBECONFIG_PATH)
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
        self.node(1).start_component(api_server).await?;
        self.until_readyz("the API server to serve", |asked| {
            Probe::when(asked.status.is_some(), asked.cause, asked.to_string())
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

    /// The whole control plane but for the scheduler: the keys, etcd, [`Lab::open_api_server`], the
    /// kubeconfig, and [`Lab::open_controller_manager`]. Waits until Pods may be made.
    ///
    /// # Errors
    /// When node 1 does not carry it out; a [`Failure`](crate::Failure) when it does not come to that.
    pub async fn start_open_control_plane(&self) -> anyhow::Result<()> {
        self.make_first_keys().await?;
        self.start_etcd_and_api_server(&self.open_api_server())
            .await?;
        self.write_kubeconfig_with_kubectl().await?;
        self.step("start the controller manager with that kubeconfig");
        self.node(1)
            .start_component(&self.open_controller_manager())
            .await?;
        let expected = "the ServiceAccount that a Pod is made with";
        self.there_is(
            expected,
            "serviceaccount default",
            Needs::ControlPlane("kube-controller-manager"),
        )
        .await
    }

    /// Starts containerd on node 1, and [`Node::open_kubelet`]; waits until its Node is there.
    ///
    /// # Errors
    /// As [`Lab::start_open_control_plane`].
    pub async fn start_open_node(&self) -> anyhow::Result<()> {
        let node1 = self.node(1);
        self.step("start containerd, and the kubelet with that kubeconfig");
        node1.start_component(&self.containerd()).await?;
        node1.start_component(&node1.open_kubelet()).await?;
        self.there_is("the Node", "node node1", Needs::Kubelet(1))
            .await
    }

    /// Binds a Pod to that node, on its network, for there is no other, and waits until it runs. Its
    /// program waits for nothing but its end, so that two of them are not in each other's way; before it
    /// the init containers run, whose image is the same.
    ///
    /// # Errors
    /// When the API refuses it; a [`Failure`](crate::Failure) when it does not run.
    pub async fn run_pod_on_open_node(
        &self,
        name: &str,
        init_containers: &[Value],
    ) -> anyhow::Result<Party> {
        let node1 = self.node(1);
        self.step(format!("bind the Pod {name} to the node, on its network"));
        let mut waits = Pod::container();
        waits["command"] = json!(["/probe", "pause"]);
        self.kubectl_apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name },
            "spec": { "nodeName": node1.name(), "hostNetwork": true,
                      "terminationGracePeriodSeconds": 2,
                      "initContainers": init_containers, "containers": [waits] },
        }))
        .await?;
        let phase = format!("get pod {name} -o jsonpath='{{.status.phase}}'");
        self.eventually("the Pod to run", RUNS, async || {
            let phase = self.kubectl(&phase).await?;
            let runs = phase.text() == "Running";
            Ok(Probe::when(runs, Cause::NotReady, phase.text()).needs(Needs::Kubelet(1)))
        })
        .await?;
        Ok(Party::new(name, node1.number(), true, node1.address()))
    }

    async fn there_is(&self, expected: &str, what: &str, needs: Needs) -> anyhow::Result<()> {
        self.eventually(expected, LIMIT, async || {
            let asked = self.kubectl(format!("get {what}")).may_fail().await?;
            let there = Probe::when(asked.succeeded(), Cause::Absent, asked.said());
            Ok(there.needs(needs.clone()))
        })
        .await
    }
}

impl Node<'_> {
    /// The kubelet with root's kubeconfig and without a configuration file: it answers whoever asks it
    /// (kubelet reference, `--anonymous-auth` and `--authorization-mode`). The documents give it no other
    /// flag; here it is told how this node's containerd makes cgroups.
    pub fn open_kubelet(self) -> Component {
        let bare = self.kubelet().without_flags();
        bare.with("--kubeconfig", KUBECONFIG_PATH)
            .with("--cgroup-driver", "systemd")
    }
}
