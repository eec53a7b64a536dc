//! What a cluster's machines, and the harness, prove themselves with.

use serde::{Deserialize, Serialize};

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
