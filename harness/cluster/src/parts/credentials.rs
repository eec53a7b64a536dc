//! What a cluster's machines, and the harness, prove themselves with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::identity::NodeIdentity;
use super::pki::{Identity, Pki};
use crate::plan::cluster_plan::ClusterPlan;

/// What a client of the API needs: the authority that its server is verified with, and an
/// administrator's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// In `system:masters`, or bound to `cluster-admin`.
    pub admin: Identity,
}

impl Access {
    /// Reads a kubeconfig in JSON with everything in it, what `kubectl config view --raw --flatten --output
    /// json` prints: its first cluster and its first user. Nothing where it lacks a part.
    pub fn of_kubeconfig(json: &str) -> Option<Self> {
        let config: Value = serde_json::from_str(json).ok()?;
        let decoded = |text: &Value| {
            let bytes = STANDARD.decode(text.as_str()?).ok()?;
            String::from_utf8(bytes).ok()
        };
        let user = &config["users"][0]["user"];
        Some(Self {
            authority: decoded(&config["clusters"][0]["cluster"]["certificate-authority-data"])?,
            admin: Identity {
                certificate: decoded(&user["client-certificate-data"])?,
                key: decoded(&user["client-key-data"])?,
            },
        })
    }

    pub(crate) fn by_hand(pki: &Pki) -> Self {
        Self {
            authority: pki.ca.certificate.clone(),
            admin: pki.admin.clone(),
        }
    }
}

/// All that the machines of a cluster prove themselves with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// How the API is reached; nothing before there is one.
    pub access: Option<Access>,
    /// What a cluster by hand is made with; kubeadm keeps its own on node 1.
    pub pki: Option<Pki>,
    /// Who the nodes are, by number from 1.
    pub nodes: Vec<NodeIdentity>,
}

impl Credentials {
    /// The same shape with the same text in every stage: what a key is made of.
    pub(crate) fn placeholder(plan: &ClusterPlan) -> Self {
        Self {
            access: None,
            pki: Some(Pki::placeholder(&plan.addresses(), plan.broken)),
            nodes: (1..=plan.nodes).map(NodeIdentity::placeholder).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_administrator_is_read_from_a_kubeconfig() {
        let data = |text: &str| STANDARD.encode(text);
        let config = json!({
            "clusters": [{ "name": "kubernetes", "cluster": {
                "certificate-authority-data": data("CA"), "server": "https://172.30.0.11:6443",
            } }],
            "users": [{ "name": "kubernetes-admin", "user": {
                "client-certificate-data": data("CERT"), "client-key-data": data("KEY"),
            } }],
        });
        let read = Access::of_kubeconfig(&config.to_string()).unwrap();
        assert_eq!(read.authority, "CA");
        assert_eq!(
            (read.admin.certificate.as_str(), read.admin.key.as_str()),
            ("CERT", "KEY")
        );
        assert_eq!(Access::of_kubeconfig("{}"), None);
        assert_eq!(Access::of_kubeconfig("error: no such file"), None);
    }
}
