//! A cluster of kubeadm's becomes a newer one ("Upgrading kubeadm clusters" of the Kubernetes documentation).

use std::time::Duration;

use anyhow::Context as _;
use podwire_cluster::kubeadm;

use crate::lab::Lab;
use crate::lab::command::Command;
use crate::lab::kubeadm::Kubeadm;
use crate::lab::node::Node;

/// For apt and dpkg: a package is a program of a hundred megabytes.
const INSTALL: Duration = Duration::from_secs(30);
/// For all of a control plane's part: its static Pods start anew one after the other, each with five minutes by
/// kubeadm's own `timeouts.upgradeManifests`.
const APPLY: Duration = Duration::from_secs(180);

impl Lab {
    /// The version that the nodes have packages and images of beside the cluster's: `1.36.4`.
    ///
    /// # Errors
    /// When there is none: the run was not asked for any (`--upgrade-to`).
    pub fn upgrade_to(&self) -> anyhow::Result<&str> {
        let newer = self.cluster().plan().upgrade_to.as_deref();
        newer.context("there is nothing to upgrade to on these nodes (--upgrade-to)")
    }
}

impl Node<'_> {
    /// Installs the newer version of these packages, which are on hold before and afterwards:
    /// `install_newer("kubelet kubectl")`. What apt would get from a repository is on the node.
    ///
    /// # Errors
    /// When apt refuses.
    pub async fn install_newer(self, packages: &str) -> anyhow::Result<()> {
        self.lab()
            .step(format!("install the newer {packages} on {self}"));
        let files = packages.split(' ');
        let files: String = files.map(|it| format!(" /opt/upgrade/{it}.deb")).collect();
        let install = format!(
            "apt-mark unhold {packages} && \
             DEBIAN_FRONTEND=noninteractive apt-get install -y{files} && \
             apt-mark hold {packages}"
        );
        self.run(install).within(INSTALL).await.map(drop)
    }

    /// Lets Pods onto it again.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn uncordon(self) -> anyhow::Result<()> {
        self.lab().step(format!("uncordon {self}"));
        self.lab()
            .kubectl(format!("uncordon {self}"))
            .await
            .map(drop)
    }
}

impl<'lab> Kubeadm<'lab> {
    /// `kubeadm upgrade apply v1.36.4 --yes`, with the patches that `kubeadm init` was given; it may be refused, or
    /// only told what it would do (`more`: `--dry-run`).
    pub fn upgrade_apply(self, version: &str, more: &str) -> Command<'lab> {
        let settings = self.node().lab().cluster().settings();
        let arguments = format!("v{version} --yes {more}");
        let command = kubeadm::upgrade_apply(&arguments, settings);
        self.node().run(command).within(APPLY)
    }

    /// `kubeadm upgrade node`, on a worker.
    pub fn upgrade_node(self) -> Command<'lab> {
        self.node().run("kubeadm upgrade node").within(APPLY)
    }
}
