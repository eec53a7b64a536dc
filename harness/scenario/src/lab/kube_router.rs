//! kube-router, started on nodes by hand.

use std::fs;

use anyhow::Context as _;
use futures::future::try_join_all;
use podwire_cluster::{Component, addresses, cni, component, kubeconfig};

use crate::lab::Lab;
use crate::lab::node::Node;
use crate::wait::needs::Needs;

/// Where it is on a node.
const PROGRAM: &str = "/usr/local/bin/kube-router";
/// Readable for everybody, and executable.
const MODE: u32 = 0o755;
/// It adds a line to a file that Debian 13 has elsewhere (iproute2, "rt_tables").
const TABLES: &str = "mkdir -p /etc/iproute2 && \
     cp -n /usr/share/iproute2/rt_tables /etc/iproute2/rt_tables 2>/dev/null; true";

impl Lab {
    /// Brings kube-router's program to every node. A scenario that does says so
    /// ([`kube_router`](crate::Scenario::kube_router)).
    ///
    /// # Errors
    /// When the run has not built it, or a node does not take it.
    pub async fn bring_kube_router(&self) -> anyhow::Result<()> {
        self.step("bring kube-router to every node");
        let path = self.kube_router();
        let path = path.context("the run has no kube-router: `cargo xtask test` builds it")?;
        let program = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let brought = self.nodes().map(|node| {
            let program = &program;
            async move {
                node.put(PROGRAM, program, MODE).await?;
                node.run(TABLES).await
            }
        });
        try_join_all(brought).await.map(drop)
    }

    /// Gives each Node that has none the range for its Pods that its CNI file by hand has
    /// (`spec.podCIDR`), as the controller manager does where it is told to.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn give_ranges_to_nodes(&self) -> anyhow::Result<()> {
        self.step("each Node gets a range for its Pods");
        for node in self.nodes() {
            let range = node.pod_range();
            let ranges = format!(r#"{{"spec":{{"podCIDR":"{range}","podCIDRs":["{range}"]}}}}"#);
            self.kubectl(format!("patch node {node} -p '{ranges}'"))
                .await?;
        }
        Ok(())
    }

    fn kube_router_component(&self) -> Component {
        let as_published = component::kube_router(self.cluster().settings());
        // By itself it looks every minute, and a deleted route that nobody lays again would have to be watched for
        // longer than that.
        as_published.with("--injected-routes-sync-period", "5s")
    }
}

impl Node<'_> {
    /// Starts kube-router on it as its published DaemonSet does, but that it looks every five seconds whether its routes
    /// are there: its own CNI file, without a range, takes the place of those by hand. Its kubeconfig is the
    /// administrator's, with this URL of the API server. One that runs starts anew.
    ///
    /// # Errors
    /// When systemd does not start it.
    pub async fn start_kube_router(self, server: &str) -> anyhow::Result<()> {
        self.lab().step(format!(
            "start kube-router on {self}; the API server is {server}"
        ));
        let pki = self.lab().cluster().pki()?;
        let config = kubeconfig::embedded(server, &pki.ca.certificate, &pki.admin);
        self.write_secret(kubeconfig::KUBE_ROUTER_PATH, config)
            .await?;
        let (own, by_hand) = (cni::KUBE_ROUTER_PATH, cni::PATH);
        let there = self.run(format!("rm -f {by_hand}; test -e {own}"));
        if !there.may_fail().await?.succeeded() {
            self.write(own, cni::kube_router()).await?;
        }
        let kube_router = self.lab().kube_router_component();
        self.start_component(&kube_router).await
    }

    /// Stops its kube-router.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn stop_kube_router(self) -> anyhow::Result<()> {
        self.lab().step(format!("stop kube-router on {self}"));
        let kube_router = self.lab().kube_router_component();
        self.stop_component(&kube_router).await
    }

    /// That its kube-router runs, and asks for the API server where it is: what waits for it needs this.
    pub fn needs_kube_router(self) -> Needs {
        let (service, path) = (addresses::KUBERNETES_SERVICE, kubeconfig::KUBE_ROUTER_PATH);
        Needs::Silence {
            node: self.number(),
            command: format!(
                "systemctl is-active kube-router | grep -v -x -e active -e activating; \
                 grep -o 'https://{service}' {path}; true"
            ),
            means: "its kube-router does not run, or asks where nothing leads".to_owned(),
        }
    }
}
