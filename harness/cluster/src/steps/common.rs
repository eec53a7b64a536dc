//! What both bootstraps do alike.

use std::time::Duration;

use super::step::{Action, OnNode, OnNodes, Part, Pods};
use podwire_process::ChildCommand;

use crate::parts::credentials::Credentials;
use crate::parts::file::{NodeFile, public};
use crate::parts::flannel;
use crate::parts::identity;
use crate::parts::ipv6;
use crate::parts::manifest;
use crate::parts::node_files;
use crate::parts::pki::Pki;
use crate::parts::units;
use crate::parts::workload::{self, REPLICAS_PER_NODE};
use crate::plan::cell::PodNetwork;
use crate::plan::cluster_plan::ClusterPlan;
use crate::plan::error::ClusterError;
use crate::plan::node_tree::Laid;

/// Unpacking files and starting daemons.
const START: Duration = Duration::from_secs(30);
/// From then to Ready Nodes, and from the workload's creation to running Pods.
pub(crate) const SETTLED: Duration = Duration::from_secs(40);

/// CoreDNS's Pods, as kubeadm has them.
pub(crate) const CORE_DNS: Pods = Pods {
    namespace: "kube-system",
    selector: "k8s-app=kube-dns",
    count: 2,
};

pub(crate) fn part(says: &str, does: impl IntoIterator<Item = Action>) -> Part {
    Part {
        says: says.to_owned(),
        does: does.into_iter().collect(),
    }
}

/// On one node, with the time that daemons need to start.
pub(crate) fn on(node: u32, command: &str) -> Action {
    set_up([OnNode::run(node, command)])
}

pub(crate) fn set_up(nodes: impl IntoIterator<Item = OnNode>) -> Action {
    Action::OnNodes(OnNodes {
        nodes: nodes.into_iter().collect(),
        limit: START,
    })
}

pub(crate) fn pki(secrets: &Credentials) -> Result<&Pki, ClusterError> {
    secrets.pki.as_ref().ok_or(ClusterError::NoPki)
}

/// Every node becomes itself, see [`identity`], and from now on tells its journal of changes of its rules; with two
/// families it gets its address of the second one.
pub(crate) fn identities(plan: &ClusterPlan, secrets: &Credentials) -> Part {
    let dual = plan.cell.ip_families.is_dual();
    let nodes = (1..).zip(&secrets.nodes).map(|(number, identity)| {
        let mut files = identity.files(number);
        let hears = units::rules();
        let mut command = format!(
            "{} && systemctl enable --now {}",
            identity::TAKE,
            hears.name
        );
        files.push(public(hears.path(), hears.text));
        if dual {
            files.push(ipv6::file(number));
            command = format!("{command} && {}", ipv6::take(number));
        }
        OnNode {
            node: number,
            files,
            command: Some(command),
        }
    });
    part("give every node its identity", [set_up(nodes)])
}

/// The user's files over the nodes' own: their machines boot with them, as any machine would.
pub(crate) fn node_tree(plan: &ClusterPlan) -> Option<Part> {
    let tree = plan.node_tree.as_ref()?;
    let laid = (1..=plan.nodes).filter_map(|number| {
        let (mut files, mut links) = (Vec::new(), Vec::new());
        for (path, laid) in tree.of(number) {
            match laid {
                Laid::File { mode, text } => files.push(NodeFile {
                    path: path.to_owned(),
                    mode: *mode,
                    text: text.clone(),
                }),
                Laid::Link { to } => {
                    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let make = ChildCommand::new("mkdir").args(["-p", "--", folder]);
                    let link = ChildCommand::new("ln").args(["-sfn", "--", to, path]);
                    links.extend([make, link].map(|command| command.display()));
                }
            }
        }
        let command = (!links.is_empty()).then(|| links.join(" && "));
        let any = !files.is_empty() || command.is_some();
        any.then_some(OnNode {
            node: number,
            files,
            command,
        })
    });
    let laid: Vec<OnNode> = laid.collect();
    let nodes = laid.iter().map(|on| on.node).collect();
    Some(part(
        "lay your files over the nodes, and boot them",
        [set_up(laid), Action::Reboot { nodes }],
    ))
}

/// Brings the Pod network of the cluster's cell onto the nodes.
pub(crate) fn pod_network(plan: &ClusterPlan) -> Result<Part, ClusterError> {
    let apply = |text: &str| {
        set_up([OnNode {
            node: 1,
            files: vec![manifest::file(text)],
            command: Some(manifest::APPLY.to_owned()),
        }])
    };
    Ok(match plan.cell.network {
        PodNetwork::Routes => {
            let nodes = (1..=plan.nodes).map(|number| OnNode {
                node: number,
                files: vec![node_files::pod_network(
                    number,
                    plan.cell.ip_families,
                    plan.broken,
                )],
                command: None,
            });
            part("write a CNI file on every node", [set_up(nodes)])
        }
        PodNetwork::Flannel(backend) => {
            let text = format!("{:#}\n", flannel::manifest(backend, plan.cell.ip_families));
            part("apply flannel's manifest", [apply(&text)])
        }
        PodNetwork::Published(_) | PodNetwork::Manifest => {
            let manifest = plan.pod_manifest.as_ref();
            let manifest = manifest.ok_or(ClusterError::NoPodManifest)?;
            let says = format!("apply {}", manifest.name);
            part(&says, [apply(&manifest.text)])
        }
    })
}

/// The workload's Pods in a cluster of `nodes`.
pub(crate) fn replicas(nodes: u32) -> u32 {
    nodes * REPLICAS_PER_NODE
}

pub(crate) fn create_workload(plan: &ClusterPlan) -> Part {
    let service = workload::service(plan.cell.ip_families);
    let objects = vec![service, workload::deployment(replicas(plan.nodes))];
    let limit = SETTLED;
    part("create the workload", [Action::Apply { objects, limit }])
}
