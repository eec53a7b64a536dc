//! A Pod network as a manifest: how any is applied, and what there is of one that the user gave.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node_files::NodeFile;

/// Where the manifest is written, on node 1.
const PATH: &str = "/root/podwire/pod-network.yaml";
/// Applies it by the API server, which takes definitions that are too large for an annotation, and
/// checks it as well: kubectl would first fetch the description of every kind, which takes an emulated
/// API server longer than kubectl waits. Where it defines resources and uses them at once, it is
/// applied again when they are known.
pub(crate) const APPLY: &str = "cd /root/podwire && apply() { \
     kubectl apply --server-side --validate=false -f pod-network.yaml; } && { apply || { \
     kubectl wait --for=condition=Established --all --timeout=60s crd && apply; }; }";

/// What the user's Pod network is made of: all of it shapes the stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodManifest {
    /// File name.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// Digests of the images that it runs beside those of the node image, by name.
    pub images: BTreeMap<String, String>,
    /// Digest name of the node image's layer that holds them, where there are any.
    pub layer: Option<String>,
    /// What runs its Pods.
    pub controllers: Vec<Controller>,
}

/// A controller of Pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// What it is.
    pub kind: ControllerKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Of which kind a controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControllerKind {
    /// A Pod per node.
    DaemonSet,
    /// A number of Pods.
    Deployment,
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The manifest where [`APPLY`] looks for it.
pub(crate) fn file(text: &str) -> NodeFile {
    NodeFile {
        path: PATH.to_owned(),
        mode: 0o644,
        text: text.to_owned(),
    }
}
