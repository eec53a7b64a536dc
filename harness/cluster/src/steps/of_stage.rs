//! Every step, made of a plan.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use podwire_vm::Ram;

use super::by_hand;
use super::common::{CORE_DNS, SETTLED, identities, node_tree, replicas};
use super::step::{Action, Beginning, Beyond, Boot, Plug, Pods, Settled, Settling, Step};
use super::with_kubeadm;
use crate::parts::credentials::Credentials;
use crate::parts::workload::WORKLOAD_SELECTOR;
use crate::plan::cell::Bootstrap;
use crate::plan::cluster_plan::ClusterPlan;
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
        _ if stage == StageName::Identified => {
            let own = [identities(plan, secrets)].into_iter();
            own.chain(node_tree(plan)).collect()
        }
        Bootstrap::ByHand => by_hand::parts(plan, stage, secrets)?,
        Bootstrap::Kubeadm => with_kubeadm::parts(plan, stage)?,
    };
    Ok(Step {
        begins: beginning(plan, stage),
        parts,
        settles: settling(plan, stage)?,
    })
}

impl ClusterPlan {
    /// Whether the user's files can be laid: each for a node that there is, none where a boot or a later step
    /// would take it away, none where another needs a folder.
    ///
    /// # Errors
    /// [`ClusterError::NodeFilesForNobody`], [`ClusterError::NodeFileInMemory`],
    /// [`ClusterError::NodeFileIsFolder`], [`ClusterError::NodeFileTaken`]; what [`ClusterPlan::key`]
    /// says of the plan.
    pub fn check_node_tree(&self) -> Result<(), ClusterError> {
        let Some(tree) = &self.node_tree else {
            return Ok(());
        };
        let nodes = self.nodes;
        if let Some(node) = tree
            .one
            .keys()
            .copied()
            .find(|it| !(1..=nodes).contains(it))
        {
            return Err(ClusterError::NodeFilesForNobody { node, nodes });
        }
        if let Some((path, folder)) = tree.in_memory() {
            return Err(ClusterError::NodeFileInMemory {
                path: path.to_owned(),
                folder,
            });
        }
        if let Some((node, path, below)) = tree.file_and_folder() {
            return Err(ClusterError::NodeFileIsFolder {
                node,
                path: path.to_owned(),
                below: below.to_owned(),
            });
        }
        let bare = Self {
            node_tree: None,
            ..self.clone()
        };
        let secrets = Credentials::placeholder(&bare);
        for stage in bare.stages() {
            let step = match step(&bare, *stage, &secrets) {
                // It is not read yet, and is one file in a folder of podwire's own.
                Err(ClusterError::NoPodManifest) => continue,
                step => step?,
            };
            let actions = step.parts.iter().flat_map(|part| &part.does);
            let on = actions.filter_map(|action| match action {
                Action::OnNodes(on) | Action::Kubeadm { on, .. } => Some(on),
                _ => None,
            });
            let written = on.flat_map(|on| &on.nodes).flat_map(|node| &node.files);
            let written: BTreeSet<&str> = written.map(|file| file.path.as_str()).collect();
            if let Some(path) = tree.paths().find(|path| written.contains(path)) {
                return Err(ClusterError::NodeFileTaken {
                    path: path.to_owned(),
                    stage: *stage,
                });
            }
        }
        Ok(())
    }
}

fn beginning(plan: &ClusterPlan, stage: StageName) -> Beginning {
    match stage {
        StageName::Booted => Beginning::Boot(boot(plan)),
        StageName::Identified => Beginning::Plug(Plug {
            roles: (1..=plan.nodes)
                .map(|it| plan.role(Member::Node(it)))
                .collect(),
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
            .map(|it| plan.role(it)),
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
    let images = plan.pod_images.as_ref();
    Boot {
        image: plan.image.clone(),
        layer: images.map(|images| images.layer.clone()),
        qemu: plan.qemu.clone(),
        host_cpu: plan.host_cpu.clone(),
        machines: machines.collect(),
    }
}

/// What a stage waits for before it is frozen.
fn settling(plan: &ClusterPlan, stage: StageName) -> Result<Settling, ClusterError> {
    let has = stage.has(plan.cell);
    let mut when = Vec::new();
    if plan.cell.network.is_of_a_manifest() && has.pod_network {
        let manifest = plan.pod_manifest.as_ref();
        let manifest = manifest.ok_or(ClusterError::NoPodManifest)?;
        when.push(Settled::Controllers(manifest.controllers.clone()));
    }
    if plan.cell.bootstrap == Bootstrap::Kubeadm && has.api_server {
        when.push(Settled::Pods(with_kubeadm::system_pods(plan, has)));
    }
    let by_hand = plan.cell.bootstrap == Bootstrap::ByHand;
    if by_hand && plan.cluster_dns && has.services && has.workload {
        when.push(Settled::Pods(vec![CORE_DNS]));
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
    use crate::plan::node_tree::{Laid, NodeTree};
    use crate::steps::step::Hole;

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
    fn by_hand_core_dns_comes_with_the_network_that_its_pods_need() {
        let plan = plan(Cell::usual(Bootstrap::ByHand)).with_cluster_dns(true);
        let secrets = Credentials::placeholder(&plan);
        let step = step(&plan, StageName::Workload, &secrets).unwrap();
        let text = shown(StageName::Workload, &step);
        insta::assert_snapshot!(&text[text.find("# apply").unwrap()..], @r#"
        # apply CoreDNS's manifest
        set up, within 30s
          node1
            600 /root/podwire/core-dns.json
            $ cd /root/podwire && kubeadm init phase addon coredns --config core-dns.json --print-manifest > core-dns.yaml && kubectl apply --server-side --validate=false -f core-dns.yaml
        settles within 40s when Pods([Pods { namespace: "kube-system", selector: "k8s-app=kube-dns", count: 2 }])
        settles within 40s when NodesReady(2)
        settles within 40s when Pods([Pods { namespace: "default", selector: "app=blue", count: 4 }])
        settles within 40s when ProxiesHealthy { nodes: 2, limit: 5s }
        "#);
    }

    fn tree(every: &[&str], of_two: &[&str]) -> NodeTree {
        let laid = |paths: &[&str]| {
            let files = paths.iter().map(|path| {
                let laid = match path.ends_with(".service") {
                    true => Laid::Link {
                        to: "/usr/lib/systemd/system/it's.service".into(),
                    },
                    false => Laid::File {
                        mode: 0o640,
                        text: "net.ipv4.ip_forward = 0\n".into(),
                    },
                };
                ((*path).to_owned(), laid)
            });
            files.collect()
        };
        NodeTree {
            every: laid(every),
            one: [(2, laid(of_two))].into(),
        }
    }

    #[test]
    fn the_user_s_files_are_laid_before_anything_starts_and_booted_with() {
        let tree = tree(
            &["/etc/sysctl.d/99-mine.conf"],
            &["/etc/systemd/system/multi-user.target.wants/its.service"],
        );
        let plan = plan(Cell::usual(Bootstrap::ByHand)).with_node_tree(Some(tree));
        plan.check_node_tree().unwrap();
        let secrets = Credentials::placeholder(&plan);
        let step = step(&plan, StageName::Identified, &secrets).unwrap();
        let text = shown(StageName::Identified, &step);
        let laid = &text[text.find("# lay").unwrap()..];
        insta::assert_snapshot!(laid, @r#"
        # lay your files over the nodes, and boot them
        set up, within 30s
          node1
            640 /etc/sysctl.d/99-mine.conf
          node2
            640 /etc/sysctl.d/99-mine.conf
            $ mkdir -p -- /etc/systemd/system/multi-user.target.wants && ln -sfn -- '/usr/lib/systemd/system/it'\''s.service' /etc/systemd/system/multi-user.target.wants/its.service
        Reboot { nodes: [1, 2] }
        "#);
    }

    #[test]
    fn what_would_be_overwritten_or_is_for_nobody_is_refused() {
        let refused = |tree: NodeTree| {
            let plan = plan(Cell::usual(Bootstrap::ByHand)).with_node_tree(Some(tree));
            plan.check_node_tree().unwrap_err().to_string()
        };
        let mut nobody = tree(&[], &[]);
        nobody.one.insert(3, tree(&["/etc/a"], &[]).every);
        let texts = [
            refused(nobody),
            refused(tree(&["/etc/machine-id"], &[])),
            refused(tree(&[], &["/etc/cni/net.d/kube.conf"])),
            refused(tree(&["/run/sysctl.d/9.conf"], &[])),
            refused(tree(&[], &["/tmp/a"])),
            refused(tree(&["/etc/a"], &["/etc/a/b"])),
            refused(tree(&["/etc/a/b/c"], &["/etc/a"])),
        ];
        insta::assert_snapshot!(texts.join("\n"), @"
        there are files for node3, and the cluster has 2 nodes
        /etc/machine-id is written on the nodes by podwire itself, on the way to the stage identified, and yours would be gone
        /etc/cni/net.d/kube.conf is written on the nodes by podwire itself, on the way to the stage cni, and yours would be gone
        /run/sysctl.d/9.conf would be gone once the nodes have booted: /run is made anew with every boot; give what makes it then, as /etc/tmpfiles.d/NAME.conf (tmpfiles.d(5)), or a place on the disk (/etc, /usr/local, /var/lib)
        /tmp/a would be gone once the nodes have booted: /tmp is made anew with every boot; give what makes it then, as /etc/tmpfiles.d/NAME.conf (tmpfiles.d(5)), or a place on the disk (/etc, /usr/local, /var/lib)
        on node2 /etc/a would be a file, and /etc/a/b lies below it; leave one of them out, or give each to the nodes that it is for (node1/etc/a, ...)
        on node2 /etc/a would be a file, and /etc/a/b/c lies below it; leave one of them out, or give each to the nodes that it is for (node1/etc/a, ...)
        ");
        let plan = plan(Cell::usual(Bootstrap::ByHand));
        let links = tree(
            &["/etc/a.service", "/runs/a", "/tmpfiles"],
            &["/etc/a.service/b"],
        );
        plan.with_node_tree(Some(links)).check_node_tree().unwrap();
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
