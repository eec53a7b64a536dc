//! The daemons that keep a node's network: halted, restarted, and kube-proxy in its other mode.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use podwire_cluster::config::KUBE_PROXY_CONFIG_PATH;
use podwire_cluster::{Bootstrap, PodNetwork, ProxyMode, addresses, flannel};
use serde_json::{Value, json};

use crate::check::failure::Cause;
use crate::lab::Lab;
use crate::lab::node::Node;
use crate::lab::pods::Pods;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// For a daemon to be back, before stretching: a Pod's sandbox, its container, its first rules.
const BACK: Duration = Duration::from_secs(60);

/// Label of kube-proxy's Pods, as kubeadm makes them.
const KUBE_PROXY: &str = "k8s-app=kube-proxy";

/// Prints 1 once kube-proxy has written its rules since it started (Kubernetes metrics reference,
/// `kubeproxy_sync_proxy_rules_last_timestamp_seconds`).
const WROTE_ITS_RULES: &str = "\
curl -s http://127.0.0.1:10249/metrics | \
grep '^kubeproxy_sync_proxy_rules_last_timestamp_seconds' | grep -v IPv6 | grep -c ' [1-9]'; true";

impl Lab {
    /// Takes kube-proxy off all nodes, and what it has written into their kernels; by hand one that was
    /// never started stays so.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when its Pods do not go; when a node does not carry it out.
    pub async fn remove_kube_proxy(&self) -> anyhow::Result<()> {
        self.step("a cluster without kube-proxy: none runs, and nothing is left of its rules");
        match self.bootstrap() {
            Bootstrap::ByHand => {
                self.run_everywhere("systemctl stop kube-proxy").await?;
            }
            Bootstrap::Kubeadm => {
                let delete = "-n kube-system delete daemonset kube-proxy";
                self.kubectl(delete).await?;
                let proxies = self.system_pods().labelled(KUBE_PROXY).within(BACK);
                let gone = proxies.until("no Pod of kube-proxy's", |pods| {
                    let state = format!("{} Pods", pods.len());
                    Probe::when(pods.is_empty(), Cause::Answered, state)
                });
                gone.await?;
            }
        }
        let clean_up = "kube-proxy --cleanup --hostname-override=$(hostname)";
        self.run_everywhere(clean_up).await.map(drop)
    }

    /// Restarts kube-proxy on every node, or starts it, and waits until all have written their rules.
    ///
    /// # Errors
    /// As [`Node::restart_kube_proxy`].
    pub async fn restart_kube_proxy(&self) -> anyhow::Result<()> {
        for node in self.nodes() {
            node.restart_kube_proxy().await?;
        }
        Ok(())
    }

    /// Applies flannel's manifest, as the stage `pod-network` does. Its Pods ask for the API server at the
    /// Service `kubernetes`, or where they are told: then it waits until all that run have been.
    ///
    /// # Errors
    /// When the API refuses it, or they do not come to run; of a cell without flannel.
    pub async fn apply_flannel(&self, api_server: Option<Ipv4Addr>) -> anyhow::Result<()> {
        let PodNetwork::Flannel(backend) = self.pod_network() else {
            bail!("flannel is no Pod network of {}", self.pod_network());
        };
        let told = api_server.map(|address| format!(", told that the API server is at {address}"));
        self.step(format!(
            "apply flannel's manifest{}",
            told.unwrap_or_default()
        ));
        let mut manifest = flannel::manifest(backend, self.ip_families());
        let objects = manifest["items"].as_array_mut();
        for object in objects.context("flannel's manifest is no List")? {
            let is_daemon = object["kind"] == "DaemonSet";
            if let Some(address) = api_server.filter(|_| is_daemon) {
                let env = object.pointer_mut("/spec/template/spec/containers/0/env");
                let env = env.and_then(Value::as_array_mut);
                let env = env.context("flannel's container has no environment")?;
                env.push(json!({ "name": "KUBERNETES_SERVICE_HOST", "value": address }));
                let port = addresses::API_PORT.to_string();
                env.push(json!({ "name": "KUBERNETES_SERVICE_PORT", "value": port }));
            }
            self.apply(object.take()).await?;
        }
        if api_server.is_some() {
            let namespace = flannel::NAMESPACE;
            let status = format!("-n {namespace} rollout status daemonset/kube-flannel-ds");
            self.kubectl(status).within(BACK).await?;
        }
        Ok(())
    }
}

impl Node<'_> {
    /// Halts a daemon, by its program's name: it is there, and does nothing (SIGSTOP).
    ///
    /// # Errors
    /// When there is none.
    pub async fn halt(self, program: &str) -> anyhow::Result<()> {
        self.lab().step(format!("halt {program} on {self}"));
        self.run(format!("pkill -STOP -x {program}")).await?;
        Ok(())
    }

    /// Lets a daemon that is halted go on (SIGCONT).
    ///
    /// # Errors
    /// When there is none.
    pub async fn go_on(self, program: &str) -> anyhow::Result<()> {
        self.lab().step(format!("{program} on {self} goes on"));
        self.run(format!("pkill -CONT -x {program}")).await?;
        Ok(())
    }

    /// Restarts its kube-proxy, and waits until the new one has written its rules.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn restart_kube_proxy(self) -> anyhow::Result<()> {
        self.lab().step(format!("restart kube-proxy on {self}"));
        match self.lab().bootstrap() {
            Bootstrap::ByHand => self.restart("kube-proxy").await?,
            Bootstrap::Kubeadm => {
                let proxies = self.lab().system_pods().labelled(KUBE_PROXY);
                self.replace_pod(proxies).await?;
            }
        }
        self.until_kube_proxy_wrote_its_rules().await
    }

    /// Restarts its kube-proxy in this mode, which is not the one that it has; with kubeadm the others
    /// would follow when they are restarted.
    ///
    /// # Errors
    /// As [`Node::restart_kube_proxy`]; when its configuration names another mode than the one that
    /// the cluster was made with.
    pub async fn change_kube_proxy_mode(self, to: ProxyMode) -> anyhow::Result<()> {
        let from = self.lab().kube_proxy_mode();
        self.lab()
            .step(format!("kube-proxy of {self} in mode {to}, not {from}"));
        match self.lab().bootstrap() {
            Bootstrap::ByHand => {
                let mode = |mode| format!("\"mode\": \"{mode}\"");
                let (from, to, file) = (mode(from), mode(to), KUBE_PROXY_CONFIG_PATH);
                let change = format!("grep -q '{from}' {file} && sed -i 's/{from}/{to}/' {file}");
                self.run(change).await?;
            }
            Bootstrap::Kubeadm => {
                let maps: Api<ConfigMap> =
                    Api::namespaced(self.lab().cluster().api(), "kube-system");
                let data = maps.get("kube-proxy").await?.data.unwrap_or_default();
                let config = data.get("config.conf");
                let config = config.context("the ConfigMap kube-proxy has no config.conf")?;
                let changed = config.replace(&format!("mode: {from}"), &format!("mode: {to}"));
                ensure!(changed != *config, "no `mode: {from}` in {config}");
                let patch = Patch::Merge(json!({ "data": { "config.conf": changed } }));
                maps.patch("kube-proxy", &PatchParams::default(), &patch)
                    .await?;
            }
        }
        self.restart_kube_proxy().await
    }

    /// What kube-proxy in this mode has in its kernel: tables, chains and rules, a line for each. Without
    /// what the kubelet has as well, and the chains by which both notice a flush: no mode takes these
    /// away.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn rules_of_kube_proxy(self, mode: ProxyMode) -> anyhow::Result<Vec<String>> {
        let list = match mode {
            ProxyMode::Nftables => "nft list tables | grep -w kube-proxy; true",
            ProxyMode::Iptables => {
                "iptables-save | grep KUBE- | grep -v -e -CANARY -e KUBE-FIREWALL -e -HINT; true"
            }
        };
        let listed = self.run(list).await?;
        Ok(listed.text().lines().map(str::to_owned).collect())
    }

    /// Has another Pod take the place of its flannel's, whatever that does, and waits until it runs.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn restart_flannel(self) -> anyhow::Result<()> {
        self.lab().step(format!("restart flannel on {self}"));
        let pods = self.lab().pods().of_namespace(flannel::NAMESPACE);
        self.replace_pod(pods.labelled(flannel::SELECTOR)).await
    }

    /// Deletes its Pods among these, and waits until a new one runs and the old ones are gone.
    async fn replace_pod(self, of: Pods<'_>) -> anyhow::Result<()> {
        let pods = of.on(self).within(BACK);
        let listed = pods.clone().await?;
        ensure!(!listed.is_empty(), "{self} has no such Pod");
        for pod in &listed {
            pods.clone().delete(pod.name()).await?;
        }
        let old: Vec<&str> = listed.iter().map(|pod| pod.uid()).collect();
        let replaced = pods.until(format!("a new Pod of the daemon on {self}"), |pods| {
            let left = pods.iter().find(|pod| old.contains(&pod.uid()));
            let runs = pods.iter().any(|pod| pod.is_running());
            let state = match left {
                Some(pod) => format!("{pod} is there"),
                None => format!("{} Pods, none of which runs", pods.len()),
            };
            Probe::when(left.is_none() && runs, Cause::NotReady, state)
                .needs(Needs::Kubelet(self.number()))
        });
        replaced.await
    }

    async fn until_kube_proxy_wrote_its_rules(self) -> anyhow::Result<()> {
        let expected = format!("kube-proxy of {self} to write its rules");
        let needs = Needs::KubeProxy {
            node: self.number(),
            service: addresses::KUBERNETES_SERVICE,
            pods: Vec::new(),
        };
        let wrote = self.lab().eventually(expected, BACK, async || {
            let counted = self.run(WROTE_ITS_RULES).await?;
            let wrote = Probe::when(counted.text() == "1", Cause::NotReady, "it has not");
            Ok(wrote.needs(needs.clone()))
        });
        wrote.await
    }
}
