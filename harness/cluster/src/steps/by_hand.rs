//! The steps of the documents, one component at a time.

use std::time::Duration;

use super::common::{create_workload, on, part, pki, pod_network, set_up};
use super::network;
use super::step::{Action, Gate, OnNode, Part};
use crate::parts::credentials::{Access, Credentials};
use crate::parts::kubeadm;
use crate::parts::node_files;
use crate::parts::units;
use crate::plan::cell::PodNetwork;
use crate::plan::cluster_plan::ClusterPlan;
use crate::plan::error::ClusterError;
use crate::plan::settings::Settings;
use crate::plan::stage_name::StageName;

/// From the API server's start to its readiness.
const API_READY: Duration = Duration::from_secs(20);
/// From the kubelets' start to the registration of all Nodes.
const REGISTERED: Duration = Duration::from_secs(20);

pub(crate) fn parts(
    plan: &ClusterPlan,
    stage: StageName,
    secrets: &Credentials,
) -> Result<Vec<Part>, ClusterError> {
    let start_proxy = || {
        let started = network::start_proxy(plan.nodes, pki(secrets)?, plan.broken);
        Ok::<_, ClusterError>(Action::OnNodes(started))
    };
    Ok(match stage {
        StageName::ControlPlane => control_plane(plan, secrets)?.into(),
        StageName::Joined => vec![nodes(plan, secrets)?],
        StageName::Cni => vec![pod_network(plan)?],
        // A Pod network that runs in Pods needs the API's Service.
        StageName::PodNetwork => vec![
            part("start kube-proxy", [start_proxy()?]),
            pod_network(plan)?,
        ],
        StageName::Workload => {
            let mut parts = Vec::new();
            if plan.cell.network == PodNetwork::Routes {
                let does = network::connect_pods(plan).chain([start_proxy()?]);
                parts.push(part("add all routes, start kube-proxy", does));
            } else {
                parts.push(create_workload(plan));
            }
            // Its Pods ask the API by the API's Service.
            parts.extend(plan.cluster_dns.then(|| core_dns(plan)));
            parts
        }
        StageName::WorkloadBare => vec![create_workload(plan)],
        StageName::Booted | StageName::Identified | StageName::Init => Vec::new(),
    })
}

/// `enable` reads the new units as well, which saves a process.
fn control_plane(plan: &ClusterPlan, secrets: &Credentials) -> Result<[Part; 2], ClusterError> {
    let pki = pki(secrets)?;
    let first = OnNode {
        node: 1,
        files: node_files::control_plane(pki, plan.cell, Settings::of(plan.accelerator)),
        command: Some("systemctl enable --now etcd kube-apiserver".to_owned()),
    };
    let units = [units::ETCD, units::API_SERVER];
    let ready = Action::Wait {
        gate: Gate::ApiReady { units },
        limit: API_READY,
    };
    let does = [set_up([first]), Action::Reach(Access::by_hand(pki)), ready];
    let then = "systemctl enable --now kube-controller-manager kube-scheduler";
    Ok([
        part("start etcd and the API server", does),
        part(
            "start the controller manager and the scheduler",
            [on(1, then)],
        ),
    ])
}

/// CoreDNS as kubeadm's clusters have it.
fn core_dns(plan: &ClusterPlan) -> Part {
    let apply = OnNode {
        node: 1,
        files: vec![kubeadm::core_dns_file(&plan.kubernetes)],
        command: Some(kubeadm::APPLY_CORE_DNS.to_owned()),
    };
    part("apply CoreDNS's manifest", [set_up([apply])])
}

/// Every kubelet starts, and makes its Node.
fn nodes(plan: &ClusterPlan, secrets: &Credentials) -> Result<Part, ClusterError> {
    let pki = pki(secrets)?;
    let nodes = (1..=plan.nodes).map(|number| OnNode {
        node: number,
        files: node_files::node(number, pki, plan),
        command: Some("systemctl enable --now node-network containerd kubelet".to_owned()),
    });
    let registered = Action::Wait {
        gate: Gate::NodesRegistered(plan.nodes),
        limit: REGISTERED,
    };
    let does = [set_up(nodes), registered];
    Ok(part("start containerd and the kubelet on every node", does))
}
