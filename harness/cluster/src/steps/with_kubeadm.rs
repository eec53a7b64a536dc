//! `kubeadm init` and `kubeadm join`, as a person runs them.

use std::time::Duration;

use super::common::{CORE_DNS, SETTLED, create_workload, part, pod_network, set_up};
use super::network;
use super::step::{Action, Ask, Gate, Hole, OnNode, OnNodes, Part, Pods};
use crate::parts::flannel;
use crate::parts::kubeadm;
use crate::parts::node_files;
use crate::plan::cell::PodNetwork;
use crate::plan::cluster_plan::ClusterPlan;
use crate::plan::error::ClusterError;
use crate::plan::settings::Settings;
use crate::plan::stage_name::{Has, StageName};

/// Asking a node something.
const COMMAND: Duration = Duration::from_secs(30);
/// All of `kubeadm init`: certificates, images checked, a control plane that answers.
const INIT: Duration = Duration::from_secs(60);
/// All of `kubeadm join`, while others join too.
const JOIN: Duration = Duration::from_secs(60);
/// From then until the Nodes are listed.
const LISTED: Duration = Duration::from_secs(10);

pub(crate) fn parts(plan: &ClusterPlan, stage: StageName) -> Result<Vec<Part>, ClusterError> {
    Ok(match stage {
        StageName::Init => vec![prepare(plan), init()],
        StageName::Joined => vec![join(plan)],
        StageName::PodNetwork => {
            let mut parts = vec![pod_network(plan)?];
            if plan.cell.network == PodNetwork::Routes {
                parts.push(part("add all routes", network::connect_pods(plan)));
            }
            parts
        }
        StageName::Workload => vec![
            part(
                "let the workload onto node1 too",
                [Action::Apply {
                    objects: vec![kubeadm::untainted()],
                    limit: SETTLED,
                }],
            ),
            create_workload(plan),
        ],
        StageName::Booted
        | StageName::Identified
        | StageName::ControlPlane
        | StageName::Cni
        | StageName::WorkloadBare => Vec::new(),
    })
}

/// Engine and network on every node, and node 1's configuration.
fn prepare(plan: &ClusterPlan) -> Part {
    let (settings, given) = (Settings::of(plan.accelerator), &plan.configurations);
    let nodes = (1..=plan.nodes).map(|number| {
        let mut files = node_files::prepared(plan.cell, settings);
        if number == 1 {
            let config = kubeadm::init_files(&plan.kubernetes, plan.cell, settings, given);
            files.extend(config);
        }
        OnNode {
            node: number,
            files,
            command: Some(kubeadm::PREPARE.to_owned()),
        }
    });
    part("prepare every node for kubeadm", [set_up(nodes)])
}

fn init() -> Part {
    let init = Action::Kubeadm {
        phase: "init",
        on: OnNodes {
            nodes: vec![OnNode::run(1, kubeadm::init(&[]))],
            limit: INIT,
        },
    };
    part(
        "kubeadm init on node1",
        [init, Action::ReachAs(show_admin())],
    )
}

/// Has node 1 say how its API is reached.
pub(crate) fn show_admin() -> Ask {
    asked(kubeadm::SHOW_ADMIN.to_owned())
}

/// Every other node becomes a worker, all at once.
fn join(plan: &ClusterPlan) -> Part {
    let (settings, given) = (Settings::of(plan.accelerator), &plan.configurations);
    let nodes = (2..=plan.nodes).map(|number| {
        let config = kubeadm::join_file(number, plan.cell, Hole::CaHash.name(), settings, given);
        OnNode {
            node: number,
            files: vec![config],
            command: Some(kubeadm::JOIN.to_owned()),
        }
    });
    let log = format!("cat {}", kubeadm::INIT_LOG);
    let does = [
        Action::Fill(Hole::CaHash, asked(log)),
        Action::Kubeadm {
            phase: "join",
            on: OnNodes {
                nodes: nodes.collect(),
                limit: JOIN,
            },
        },
        Action::Wait {
            gate: Gate::NodesRegistered(plan.nodes),
            limit: LISTED,
        },
    ];
    part("kubeadm join on every other node", does)
}

/// Of node 1.
fn asked(command: String) -> Ask {
    Ask {
        node: 1,
        command,
        limit: COMMAND,
    }
}

/// The Pods with which kubeadm runs a cluster, as far as they run where there is so much.
pub(crate) fn system_pods(plan: &ClusterPlan, has: Has) -> Vec<Pods> {
    let system = |selector, count| Pods {
        namespace: "kube-system",
        selector,
        count,
    };
    let mut wanted = vec![
        system("component=etcd", 1),
        system("component=kube-apiserver", 1),
        system("component=kube-controller-manager", 1),
        system("component=kube-scheduler", 1),
    ];
    if has.nodes_registered {
        wanted.push(system("k8s-app=kube-proxy", plan.nodes));
    }
    if let (PodNetwork::Flannel(_), true) = (plan.cell.network, has.pod_network) {
        wanted.push(Pods {
            namespace: flannel::NAMESPACE,
            selector: flannel::SELECTOR,
            count: plan.nodes,
        });
    }
    if has.cluster_dns {
        wanted.push(CORE_DNS);
    }
    wanted
}
