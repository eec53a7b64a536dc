//! What a node joins with by hand: a kubeconfig that names files, and the files.

use podwire_cluster::{addresses, kubeconfig};

use crate::lab::node::Node;

/// Where they are, on whatever node they are.
const FOLDER: &str = "/root/join";

impl Node<'_> {
    /// Writes a kubeconfig of its own on another node, by hand: `/root/join/config`, which says
    /// `localhost` and names files beside it (see [`Node::write_files_of_kubeconfig`]).
    ///
    /// # Errors
    /// When the other node does not carry it out.
    pub async fn write_kubeconfig_with_files(self, on: Node<'_>) -> anyhow::Result<()> {
        let in_folder = |file: &str| format!("{FOLDER}/{file}");
        let server = format!("https://localhost:{}", addresses::API_PORT);
        let config = kubeconfig::with_files(
            &server,
            &in_folder("ca.crt"),
            &in_folder("node.crt"),
            &in_folder("node.key"),
        );
        on.write_secret(&in_folder("config"), config).await
    }

    /// Writes the files that such a kubeconfig of it names: `ca.crt`, `node.crt` and `node.key`.
    ///
    /// # Errors
    /// When the other node does not carry it out, or kubeadm made the cluster.
    pub async fn write_files_of_kubeconfig(self, on: Node<'_>) -> anyhow::Result<()> {
        let (pki, own) = (self.lab().cluster().pki()?, self.identity()?);
        let in_folder = |file: &str| format!("{FOLDER}/{file}");
        on.write(&in_folder("ca.crt"), &pki.ca.certificate).await?;
        on.write(&in_folder("node.crt"), &own.certificate).await?;
        on.write_secret(&in_folder("node.key"), &own.key).await
    }
}
