//! A Pod network of the user's, and images of Pods.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What the user's Pod network is made of: all of it shapes the stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodManifest {
    /// File name.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// What runs its Pods.
    pub controllers: Vec<Controller>,
}

/// The images that nodes have beside those of the node image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodImages {
    /// Their digests, by name.
    pub digests: BTreeMap<String, String>,
    /// Digest name of the node image's layer that holds them: it shapes the stages.
    pub layer: String,
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
