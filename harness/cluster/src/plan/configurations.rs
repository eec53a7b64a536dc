//! Configurations of Kubernetes' components that are the user's, to be merged into podwire's own.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::cell::Bootstrap;
use super::node_tree::hex;

/// The kinds of documents, in the order in which kubeadm is given them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// InitConfiguration: what `kubeadm init` is told of node 1.
    Init,
    /// ClusterConfiguration: what it is told of all of them.
    Cluster,
    /// JoinConfiguration: what `kubeadm join` is told, on every other node.
    Join,
    /// KubeletConfiguration, the same on every node.
    Kubelet,
    /// KubeProxyConfiguration.
    KubeProxy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Init,
        Self::Cluster,
        Self::Join,
        Self::Kubelet,
        Self::KubeProxy,
    ];

    /// As in a document's `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "InitConfiguration",
            Self::Cluster => "ClusterConfiguration",
            Self::Join => "JoinConfiguration",
            Self::Kubelet => "KubeletConfiguration",
            Self::KubeProxy => "KubeProxyConfiguration",
        }
    }

    /// As in its `apiVersion`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Init | Self::Cluster | Self::Join => "kubeadm.k8s.io/v1beta4",
            Self::Kubelet => "kubelet.config.k8s.io/v1beta1",
            Self::KubeProxy => "kubeproxy.config.k8s.io/v1alpha1",
        }
    }

    /// Whether kubeadm alone reads it.
    pub const fn is_kubeadm_s(self) -> bool {
        matches!(self, Self::Init | Self::Cluster | Self::Join)
    }

    /// Its fields in Kubernetes 1.36, a path on each line: what is in a list has the list's path, and `*`
    /// is any name. Of the Go types' `json` tags in k8s.io/kubelet, k8s.io/kube-proxy (v0.36.4) and
    /// kubeadm (v1.36.4).
    const fn fields(self) -> &'static str {
        match self {
            Self::Init => include_str!("fields/InitConfiguration.txt"),
            Self::Cluster => include_str!("fields/ClusterConfiguration.txt"),
            Self::Join => include_str!("fields/JoinConfiguration.txt"),
            Self::Kubelet => include_str!("fields/KubeletConfiguration.txt"),
            Self::KubeProxy => include_str!("fields/KubeProxyConfiguration.txt"),
        }
    }

    /// The fields of a document that its kind does not have in [`FIELDS_OF`].
    pub fn unknown(self, document: &Value) -> Vec<Unknown> {
        let known: Vec<Vec<&'static str>> = self
            .fields()
            .lines()
            .map(|line| line.split('.').collect())
            .collect();
        let known: Vec<&[&'static str]> = known.iter().map(Vec::as_slice).collect();
        let mut found = Vec::new();
        unknown(document, &known, "", &mut found);
        found
    }
}

/// The minor version of Kubernetes 1 whose fields [`Kind::unknown`] knows.
pub const FIELDS_OF: u32 = 36;

/// A field that there is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The names that lead to it, with points between.
    pub path: String,
    /// Its own name.
    pub name: String,
    /// The names that there are in its place.
    pub known: Vec<&'static str>,
}

fn unknown(value: &Value, known: &[&[&'static str]], path: &str, found: &mut Vec<Unknown>) {
    // Of such a field its type says what it is, and the component reads that.
    if known.iter().any(|fields| fields.is_empty()) {
        return;
    }
    match value {
        Value::Array(elements) => {
            for element in elements {
                unknown(element, known, path, found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = below(path, name);
                let below = known.iter().filter_map(|fields| {
                    let (first, rest) = fields.split_first()?;
                    (*first == "*" || first == name).then_some(rest)
                });
                let below: Vec<&[&str]> = below.collect();
                if below.is_empty() {
                    let mut known: Vec<&str> = known.iter().map(|fields| fields[0]).collect();
                    known.dedup();
                    found.push(Unknown {
                        path,
                        name: name.clone(),
                        known,
                    });
                } else {
                    unknown(value, &below, &path, found);
                }
            }
        }
        _ => {}
    }
}

/// The path of a field below another: `evictionHard.memory.available`.
pub(crate) fn below(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The user's documents, one of each kind at most. All of it shapes the stages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Configurations(pub BTreeMap<Kind, Value>);

impl Configurations {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one of a kind.
    pub fn of(&self, kind: Kind) -> Option<&Value> {
        self.0.get(&kind)
    }

    /// Those that count with a bootstrap.
    #[must_use]
    pub fn with(mut self, bootstrap: Bootstrap) -> Self {
        self.0
            .retain(|kind, _| bootstrap == Bootstrap::Kubeadm || !kind.is_kubeadm_s());
        self
    }

    /// SHA-256 of all of it, hexadecimal.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex(&Sha256::digest(json))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_there_is_not_is_found_wherever_it_is() {
        let paths = |kind: Kind, document: Value| {
            let found = kind.unknown(&document).into_iter();
            found.map(|it| it.path).collect::<Vec<_>>().join(" ")
        };
        let proxy = json!({
            "kind": "KubeProxyConfiguration",
            "nodePortAdresses": ["primary"],
            "conntrack": { "min": 1, "max": 2 },
            "featureGates": { "Anything": true },
        });
        let unknown = Kind::KubeProxy.unknown(&proxy);
        assert!(unknown[1].known.contains(&"nodePortAddresses"));
        assert_eq!(
            paths(Kind::KubeProxy, proxy),
            "conntrack.max nodePortAdresses"
        );
        let cluster = json!({
            "apiServer": { "extraArgs": [{ "name": "v", "value": "2" }, { "nam": "v" }] },
            "certificateValidityPeriod": "24h",
        });
        assert_eq!(paths(Kind::Cluster, cluster), "apiServer.extraArgs.nam");
        // The components say themselves what is no object.
        assert_eq!(paths(Kind::Kubelet, json!("maxPods")), "");
    }

    #[test]
    fn every_kind_has_its_own_fields() {
        for kind in Kind::ALL {
            let document = json!({ "apiVersion": kind.api_version(), "kind": kind.name() });
            assert_eq!(kind.unknown(&document), [], "{kind}");
            let nothing = json!({ "nothing": 1 });
            assert_eq!(kind.unknown(&nothing).len(), 1, "{kind}");
        }
    }

    #[test]
    fn what_kubeadm_alone_reads_counts_for_nothing_by_hand() {
        let all = Kind::ALL.map(|kind| (kind, Value::Null));
        let all = Configurations(all.into());
        let by_hand = all.clone().with(Bootstrap::ByHand);
        let kinds: Vec<&Kind> = by_hand.0.keys().collect();
        assert_eq!(kinds, [&Kind::Kubelet, &Kind::KubeProxy]);
        assert_eq!(all.clone().with(Bootstrap::Kubeadm), all);
        assert_ne!(all.digest(), by_hand.digest());
    }
}
