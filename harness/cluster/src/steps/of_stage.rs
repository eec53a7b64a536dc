//! Every step, made of a plan.

use std::path::Path;
use std::time::Duration;

use podwire_vm::Ram;

use super::by_hand;
use super::common::{SETTLED, identities, replicas};
use super::step::{Beginning, Beyond, Boot, Plug, Pods, Settled, Settling, Step};
use super::with_kubeadm;
use crate::parts::credentials::Credentials;
use crate::parts::workload::WORKLOAD_SELECTOR;
use crate::plan::cell::{Bootstrap, PodNetwork};
use crate::plan::cluster_plan::{ClusterPlan, Role};
use crate::plan::error::ClusterError;
use crate::plan::layout::Member;
use crate::plan::stage_name::StageName;

/// From kube-proxy's start to its first rules.
const PROXY_HEALTHY: Duration = Duration::from_secs(5);

/// What leads to a stage from its parent in the plan's cell. All that is drawn at random comes from
/// `secrets`.
///
/// # Errors
/// [`ClusterError::NoSuchStage`], [`ClusterError::NoPodManifest`]; [`ClusterError::NoPki`] where the
/// secrets lack what the step writes.
pub(crate) fn step(
    plan: &ClusterPlan,
    stage: StageName,
    secrets: &Credentials,
) -> Result<Step, ClusterError> {
    if !stage.is_of(plan.cell) {
        return Err(ClusterError::NoSuchStage {
            stage,
            cell: plan.cell,
        });
    }
    let parts = match plan.cell.bootstrap {
        _ if stage == StageName::Booted => Vec::new(),
        _ if stage == StageName::Identified => vec![identities(plan, secrets)],
        Bootstrap::ByHand => by_hand::parts(plan, stage, secrets)?,
        Bootstrap::Kubeadm => with_kubeadm::parts(plan, stage)?,
    };
    Ok(Step {
        begins: beginning(plan, stage),
        parts,
        settles: settling(plan, stage)?,
    })
}

fn beginning(plan: &ClusterPlan, stage: StageName) -> Beginning {
    match stage {
        StageName::Booted => Beginning::Boot(boot(plan)),
        StageName::Identified => Beginning::Plug(Plug {
            roles: (1..=plan.nodes).map(Role::of).collect(),
            segment: plan.cell.layout.first_segment(plan.nodes),
            beyond: beyond(plan),
        }),
        _ => Beginning::Wake,
    }
}

fn beyond(plan: &ClusterPlan) -> Option<Beyond> {
    let segment = plan.cell.layout.second_segment(plan.nodes)?;
    Some(Beyond {
        router: plan
            .members()
            .find(|it| *it == Member::Router)
            .map(Member::role),
        segment,
    })
}

fn boot(plan: &ClusterPlan) -> Boot {
    let nowhere = Path::new("");
    let machines = plan.roles().map(|role| {
        let size = plan.size(role);
        let machine = plan.machine("", size, nowhere, nowhere, "".into(), Ram::Anonymous, false);
        (role, machine.shape())
    });
    let manifest = plan.pod_manifest.as_ref();
    Boot {
        image: plan.image.clone(),
        layer: manifest.and_then(|manifest| manifest.layer.clone()),
        qemu: plan.qemu.clone(),
        host_cpu: plan.host_cpu.clone(),
        machines: machines.collect(),
    }
}

/// What a stage waits for before it is frozen.
fn settling(plan: &ClusterPlan, stage: StageName) -> Result<Settling, ClusterError> {
    let has = stage.has(plan.cell);
    let mut when = Vec::new();
    if plan.cell.network == PodNetwork::Manifest && has.pod_network {
        let manifest = plan.pod_manifest.as_ref();
        let manifest = manifest.ok_or(ClusterError::NoPodManifest)?;
        when.push(Settled::Controllers(manifest.controllers.clone()));
    }
    if plan.cell.bootstrap == Bootstrap::Kubeadm && has.api_server {
        when.push(Settled::Pods(with_kubeadm::system_pods(plan, has)));
    }
    if has.nodes_ready {
        when.push(Settled::NodesReady(plan.nodes));
    }
    if has.workload {
        when.push(Settled::Pods(vec![Pods {
            namespace: "default",
            selector: WORKLOAD_SELECTOR,
            count: replicas(plan.nodes),
        }]));
    }
    if has.services {
        when.push(Settled::ProxiesHealthy {
            nodes: plan.nodes,
            limit: PROXY_HEALTHY,
        });
    }
    let nodes = match has.nodes_registered {
        _ if when.is_empty() => 0,
        true => plan.nodes,
        // The others' kubelets wait for kubeadm.
        false => 1,
    };
    Ok(Settling {
        limit: SETTLED,
        nodes: (1..=nodes).collect(),
        when,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use podwire_vm::Accelerator;

    use super::*;
    use crate::plan::cell::Cell;
    use crate::plan::cluster_plan::ImageFiles;
    use crate::steps::step::{Action, Hole};

    fn plan(cell: Cell) -> ClusterPlan {
        let image = ImageFiles {
            name: "image".into(),
            disk: "/a/disk".into(),
            kernel: "/a/kernel".into(),
            initrd: "/a/initrd".into(),
            append: "root=/dev/vda".into(),
        };
        let tcg = Accelerator::Tcg;
        ClusterPlan::new(2, cell, "1.36.4", &image, tcg, "10.0.2", "cpu", None).unwrap()
    }

    fn steps(plan: &ClusterPlan) -> Vec<(StageName, Step)> {
        let secrets = Credentials::placeholder(plan);
        let all = plan.stages().iter();
        all.map(|stage| (*stage, step(plan, *stage, &secrets).unwrap()))
            .collect()
    }

    /// All of it but the files' texts, which have snapshots where they are made.
    fn shown(stage: StageName, step: &Step) -> String {
        let mut text = format!("== {stage}\n");
        let mut line = |indent: usize, what: String| {
            let _ = writeln!(text, "{:indent$}{what}", "");
        };
        match &step.begins {
            Beginning::Boot(boot) => {
                let machines = boot.machines.iter().map(|(role, _)| role.name());
                line(
                    0,
                    format!("boot {}", machines.collect::<Vec<_>>().join(", ")),
                );
            }
            Beginning::Plug(plug) => {
                for (role, lease) in plug.roles.iter().zip(&plug.segment.leases) {
                    let (name, mac, address) = (&lease.host_name, lease.mac, lease.address);
                    line(
                        0,
                        format!("plug {name}, a {}: {mac}, {address}", role.name()),
                    );
                }
                assert!(plug.beyond.is_none(), "shown as one segment");
            }
            Beginning::Wake => line(0, "wake".to_owned()),
        }
        for part in &step.parts {
            line(0, format!("# {}", part.says));
            for action in &part.does {
                let (what, on) = match action {
                    Action::OnNodes(on) => ("set up".to_owned(), Some(on)),
                    Action::Kubeadm { phase, on } => (format!("kubeadm {phase}"), Some(on)),
                    Action::Apply { objects, limit } => {
                        let kinds = objects.iter().map(|it| it["kind"].to_string());
                        let kinds = kinds.collect::<Vec<_>>().join(", ");
                        (format!("apply {kinds}, within {limit:?}"), None)
                    }
                    Action::Reach(_) => ("reach the API".to_owned(), None),
                    other => (format!("{other:?}"), None),
                };
                let limit = on.map(|on| format!(", within {:?}", on.limit));
                line(0, format!("{what}{}", limit.unwrap_or_default()));
                for node in on.iter().flat_map(|on| &on.nodes) {
                    line(2, format!("node{}", node.node));
                    for file in &node.files {
                        line(4, format!("{:o} {}", file.mode, file.path));
                    }
                    if let Some(command) = &node.command {
                        line(4, format!("$ {command}"));
                    }
                }
            }
        }
        let settles = &step.settles;
        for when in &settles.when {
            line(
                0,
                format!("settles within {:?} when {when:?}", settles.limit),
            );
        }
        text
    }

    #[test]
    fn the_steps_of_each_bootstrap_are_as_meant() {
        for bootstrap in Bootstrap::ALL {
            let steps = steps(&plan(Cell::usual(bootstrap)));
            let all: Vec<String> = steps.iter().map(|(stage, it)| shown(*stage, it)).collect();
            insta::assert_snapshot!(bootstrap.to_string(), all.join("\n"));
        }
    }

    #[test]
    fn what_a_file_leaves_open_is_filled_before_it_is_written() {
        let mut found = 0;
        for (stage, step) in steps(&plan(Cell::usual(Bootstrap::Kubeadm))) {
            let mut filled = false;
            for action in step.parts.iter().flat_map(|part| &part.does) {
                let on = match action {
                    Action::Fill(Hole::CaHash, _) => {
                        filled = true;
                        continue;
                    }
                    Action::OnNodes(on) | Action::Kubeadm { on, .. } => on,
                    _ => continue,
                };
                let files = on.nodes.iter().flat_map(|node| &node.files);
                let open = files
                    .filter(|it| it.text.contains(Hole::CaHash.name()))
                    .count();
                assert!(open == 0 || filled, "{stage}");
                found += open;
            }
        }
        assert_eq!(found, 1);
    }
}
