//! A Pod network as a manifest: how any is applied, and what there is of one that the user gave.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::Api;
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

impl PodManifest {
    /// The first controller not all of whose Pods are ready.
    pub(crate) async fn lacking(&self, api: kube::Client) -> Result<Option<String>, kube::Error> {
        for controller in &self.controllers {
            let lacking = controller.lacking(api.clone()).await?;
            if lacking.is_some() {
                return Ok(lacking);
            }
        }
        Ok(None)
    }
}

impl Controller {
    async fn lacking(&self, api: kube::Client) -> Result<Option<String>, kube::Error> {
        let Self {
            kind,
            namespace,
            name,
        } = self;
        let pods = match kind {
            ControllerKind::DaemonSet => {
                let api = Api::<DaemonSet>::namespaced(api, namespace);
                api.get_opt(name).await?.and_then(|it| of_daemon_set(&it))
            }
            ControllerKind::Deployment => {
                let api = Api::<Deployment>::namespaced(api, namespace);
                api.get_opt(name).await?.and_then(|it| of_deployment(&it))
            }
        };
        Ok(match pods {
            None => Some(format!("{self} has made no Pods yet")),
            Some((ready, wanted)) if ready < wanted => {
                Some(format!("{ready} of {wanted} Pods of {self} are ready"))
            }
            Some(_) => None,
        })
    }
}

/// How many Pods are ready, and how many should be; nothing until its controller has looked at it.
fn of_daemon_set(set: &DaemonSet) -> Option<(i32, i32)> {
    let status = set.status.as_ref()?;
    let seen = status.observed_generation >= set.metadata.generation;
    seen.then_some((status.number_ready, status.desired_number_scheduled))
}

fn of_deployment(deployment: &Deployment) -> Option<(i32, i32)> {
    let status = deployment.status.as_ref()?;
    let wanted = deployment.spec.as_ref()?.replicas.unwrap_or(1);
    let seen = status.observed_generation >= deployment.metadata.generation;
    seen.then_some((status.ready_replicas.unwrap_or(0), wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_count_once_their_controller_has_looked() {
        let set = |observed| -> DaemonSet {
            let status = json!({
                "observedGeneration": observed, "numberReady": 1, "desiredNumberScheduled": 3,
                "currentNumberScheduled": 3, "numberMisscheduled": 0,
            });
            let set = json!({ "metadata": { "generation": 2 }, "status": status });
            serde_json::from_value(set).unwrap()
        };
        assert_eq!(of_daemon_set(&set(1)), None);
        assert_eq!(of_daemon_set(&set(2)), Some((1, 3)));
        assert_eq!(of_daemon_set(&DaemonSet::default()), None);
        let deployment = |status| -> Deployment {
            let spec = json!({ "replicas": 2, "selector": {}, "template": {} });
            let it = json!({ "metadata": { "generation": 1 }, "spec": spec, "status": status });
            serde_json::from_value(it).unwrap()
        };
        assert_eq!(of_deployment(&deployment(json!({}))), None);
        let seen = json!({ "observedGeneration": 1 });
        assert_eq!(of_deployment(&deployment(seen)), Some((0, 2)));
        let ready = json!({ "observedGeneration": 1, "readyReplicas": 2 });
        assert_eq!(of_deployment(&deployment(ready)), Some((2, 2)));
    }
}
