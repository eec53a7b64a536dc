//! `kubeadm init` on a node where nothing of Kubernetes has run yet.

use std::time::Duration;

use anyhow::Context as _;
use podwire_cluster::{kubeadm, node_files};
use serde_json::Value;

use crate::lab::Lab;
use crate::lab::kubeadm::Kubeadm;

/// Files written, containerd started.
const PREPARED: Duration = Duration::from_secs(20);
/// All phases of init.
const INIT: Duration = Duration::from_secs(60);

/// What `kubeadm init` is told: a document of each kind (kubeadm.k8s.io/v1beta4).
#[derive(Debug, Clone)]
pub struct InitConfig(Vec<Value>);

impl InitConfig {
    fn read(text: &str) -> anyhow::Result<Self> {
        let documents = text.split("---\n").map(serde_json::from_str);
        let documents = documents.collect::<Result<_, _>>();
        Ok(Self(documents.context("cannot read init's configuration")?))
    }

    /// The one of this kind, to be changed: `config.document("ClusterConfiguration")?["networking"]`.
    ///
    /// # Errors
    /// When there is none.
    pub fn document(&mut self, kind: &str) -> anyhow::Result<&mut Value> {
        let mut documents = self.0.iter_mut();
        let found = documents.find(|it| it["kind"] == kind);
        found.with_context(|| format!("init is told no {kind}"))
    }

    fn text(&self) -> String {
        let documents: Vec<String> = self.0.iter().map(|it| format!("{it:#}\n")).collect();
        documents.join("---\n")
    }
}

impl Lab {
    /// What `kubeadm init` is told in this cluster.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn init_config(&self) -> anyhow::Result<InitConfig> {
        let plan = self.cluster().plan();
        let settings = self.cluster().settings();
        let given = &plan.configurations;
        let config = kubeadm::init_config(&plan.kubernetes, plan.cell, settings, given);
        InitConfig::read(&config)
    }
}

impl Kubeadm<'_> {
    /// What a person does before `kubeadm init`: the engine and its network run, the kubelet is enabled,
    /// and [`kubeadm::INIT_CONFIG`] says this.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn prepare(self, config: &InitConfig) -> anyhow::Result<()> {
        self.configure(config).await?;
        self.prepare_to_join().await
    }

    /// What a person does before `kubeadm join`, as a control plane node or as a worker: the engine and its network
    /// run, and the kubelet is enabled.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn prepare_to_join(self) -> anyhow::Result<()> {
        let node = self.node();
        let lab = node.lab();
        lab.step(format!("prepare {node} for kubeadm"));
        let (plan, settings) = (lab.cluster().plan(), lab.cluster().settings());
        let files = node_files::prepared(plan.cell, settings).into_iter();
        for file in files.chain(kubeadm::patches(plan.cell.layout, settings)) {
            node.put(&file.path, file.text.as_bytes(), file.mode)
                .await?;
        }
        node.run(kubeadm::PREPARE).within(PREPARED).await?;
        Ok(())
    }

    /// `kubeadm init` as it is told, with more flags: `["--upload-certs"]`. The node can ask its API from then on.
    ///
    /// # Errors
    /// When it fails, with its last words.
    pub async fn init(self, flags: &[&str]) -> anyhow::Result<()> {
        let node = self.node();
        let said = ["kubeadm init"].iter().chain(flags).copied();
        node.lab().step(said.collect::<Vec<_>>().join(" "));
        node.run(kubeadm::init(flags)).within(INIT).await.map(drop)
    }

    /// `kubeadm init` is told this from now on.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn configure(self, config: &InitConfig) -> anyhow::Result<()> {
        let node = self.node();
        node.write_secret(kubeadm::INIT_CONFIG, config.text()).await
    }
}

#[cfg(test)]
mod tests {
    use podwire_cluster::{Bootstrap, Cell, Configurations, Settings};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_changed_and_the_others_stay() {
        let cell = Cell::usual(Bootstrap::Kubeadm);
        let own = kubeadm::init_config("1.36.4", cell, Settings::Idle, &Configurations::default());
        let mut config = InitConfig::read(&own).unwrap();
        assert_eq!(config.text(), own);
        let range = json!("172.30.0.0/16");
        config.document("ClusterConfiguration").unwrap()["networking"]["podSubnet"] = range;
        let changed = own.replace("10.1.0.0/16", "172.30.0.0/16");
        assert_eq!(config.text(), changed);
        assert_ne!(changed, own);
        assert!(config.document("ResetConfiguration").is_err());
    }
}
