//! What names a stage in the cache.

use sha2::{Digest as _, Sha256};

use super::of_stage::step;
use crate::parts::credentials::Credentials;
use crate::plan::cell::{Cell, PodNetwork};
use crate::plan::cluster_plan::ClusterPlan;
use crate::plan::error::ClusterError;
use crate::plan::node_tree::hex;
use crate::plan::stage_name::StageName;

/// Stands for whatever makes a stage of a step's data. To be raised when that makes something else
/// of the same data: how an archive is unpacked, how machines wake, settle or are frozen; and when a
/// stage's manifest says more than it did.
const INTERPRETER: u32 = 8;

impl ClusterPlan {
    /// What names a stage in the cache: 32 hexadecimal digits of the SHA-256 of the step that leads to
    /// it, with placeholders for all that is drawn at random, of its name, and of the key of the stage
    /// that it is made of.
    ///
    /// # Errors
    /// [`ClusterError::NoSuchStage`] when the cell does not have it, [`ClusterError::NoPodManifest`]
    /// when the cell needs one, [`ClusterError::Json`].
    pub fn key(&self, stage: StageName) -> Result<String, ClusterError> {
        let step = step(self, stage, &Credentials::placeholder(self))?;
        let parent = stage.parent(self.cell);
        let parent = parent.map(|parent| self.key(parent)).transpose()?;
        let shape = (INTERPRETER, stage, step, parent);
        let text = serde_json::to_vec(&shape).map_err(|source| ClusterError::Json {
            what: "a stage's step",
            source,
        })?;
        Ok(hex(&Sha256::digest(&text)[..16]))
    }

    /// The cells in which a plan that is like this one otherwise has the very same stage: it depends
    /// on nothing that is decided later.
    ///
    /// # Errors
    /// As [`ClusterPlan::key`].
    pub fn cells_with(&self, stage: StageName) -> Result<Vec<Cell>, ClusterError> {
        let key = self.key(stage)?;
        let is_own = |network: PodNetwork| !network.is_of_a_manifest();
        let network = self.cell.network;
        let mut same = Vec::new();
        for cell in Cell::all() {
            // A manifest comes with what it is: without it there is no such network, and with it no other.
            let could_be = cell.network == network || is_own(cell.network) && is_own(network);
            if !stage.is_of(cell) || !could_be {
                continue;
            }
            let other = Self {
                cell,
                ..self.clone()
            };
            if other.key(stage)? == key {
                same.push(cell);
            }
        }
        Ok(same)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use podwire_vm::{Accelerator, KvmProcessor};
    use serde_json::json;

    use super::*;
    use crate::plan::breaks::Break;
    use crate::plan::cell::{Bootstrap, FlannelBackend, ProxyMode, Published};
    use crate::plan::cluster_plan::{ImageFiles, Size};
    use crate::plan::configurations::{Configurations, Kind};
    use crate::plan::ip_families::IpFamilies;
    use crate::plan::layout::Layout;
    use crate::plan::node_tree::{Laid, NodeTree};
    use crate::plan::pod_manifest::{Controller, ControllerKind, PodImages, PodManifest};
    use crate::plan::stage_name::StageName;

    fn plan(nodes: u32, broken: Option<Break>) -> ClusterPlan {
        plan_of(Cell::usual(Bootstrap::ByHand), nodes, broken)
    }

    /// With a manifest where the cell needs one.
    fn plan_of(cell: Cell, nodes: u32, broken: Option<Break>) -> ClusterPlan {
        let image = ImageFiles {
            name: "image".into(),
            disk: "/a/disk".into(),
            kernel: "/a/kernel".into(),
            initrd: "/a/initrd".into(),
            append: "root=/dev/vda".into(),
        };
        let tcg = Accelerator::Tcg;
        let plan = ClusterPlan::new(nodes, cell, "1.36.4", &image, tcg, "10.0.2", "cpu", broken);
        let manifest = cell.network.is_of_a_manifest().then(|| PodManifest {
            name: "net.yaml".into(),
            text: format!("kind: DaemonSet # {}", cell.network),
            controllers: vec![Controller {
                kind: ControllerKind::DaemonSet,
                namespace: "net".into(),
                name: "agent".into(),
            }],
        });
        plan.unwrap().with_pod_manifest(manifest)
    }

    /// The step that leads to a stage of its parent: every field of it, and what is said meanwhile left out.
    fn last_step_to(plan: &ClusterPlan, stage: StageName) -> String {
        let secrets = Credentials::placeholder(plan);
        let mut step = step(plan, stage, &secrets).unwrap();
        for part in &mut step.parts {
            part.says.clear();
        }
        format!("{stage}: {step:?}\n")
    }

    /// All that leads to a stage, its parents' steps first.
    fn steps_to(plan: &ClusterPlan, stage: StageName) -> String {
        let line = stage.line(plan.cell).iter();
        line.map(|name| last_step_to(plan, *name)).collect()
    }

    /// Every cell, of the networks by name with one of them: they differ by their manifests alone.
    fn cells() -> impl Iterator<Item = Cell> {
        let is_one = |network| match network {
            PodNetwork::Published(published) => published == Published::Calico,
            PodNetwork::Routes | PodNetwork::Flannel(_) | PodNetwork::Manifest => true,
        };
        Cell::all().filter(move |cell| is_one(cell.network))
    }

    /// A plan's stages, of each the last step to it and its key.
    fn made(plan: &ClusterPlan) -> BTreeMap<StageName, (String, String)> {
        let stages = plan.stages().iter().map(|stage| {
            let made = (last_step_to(plan, *stage), plan.key(*stage).unwrap());
            (*stage, made)
        });
        stages.collect()
    }

    /// A plan that differs in one thing, and whether a whole cluster of it must be another one.
    struct Varied {
        what: String,
        plan: ClusterPlan,
        shapes: bool,
    }

    /// The plan with each of its inputs changed, one at a time. Nothing is left out of the patterns, so
    /// that another field has to be thought of here.
    fn varied(plan: &ClusterPlan) -> Vec<Varied> {
        let ClusterPlan {
            nodes,
            cell,
            kubernetes,
            image,
            append,
            accelerator,
            qemu,
            host_cpu,
            control_plane,
            worker,
            broken,
            pod_manifest,
            pod_images,
            node_tree,
            configurations,
            upgrade_to,
            cluster_dns,
        } = plan.clone();
        let mut all = Vec::new();
        let mut vary = |what: String, shapes: bool, change: &dyn Fn(&mut ClusterPlan)| {
            let mut plan = plan.clone();
            change(&mut plan);
            all.push(Varied { what, plan, shapes });
        };
        let more = |text: &str| format!("{text}+");
        let by_hand = cell.bootstrap == Bootstrap::ByHand;
        let routes = cell.network == PodNetwork::Routes;

        vary("nodes".into(), true, &|it| it.nodes = nodes + 1);
        // By hand the image alone says which programs there are.
        let version = more(&kubernetes);
        vary("kubernetes".into(), !by_hand, &|it| {
            it.kubernetes = version.clone();
        });
        // What is beside it is in the image as well.
        assert_eq!(upgrade_to, None);
        let beside = Some("1.37.0".to_owned());
        vary("upgrade".into(), false, &|it| {
            it.upgrade_to = beside.clone();
        });
        // kubeadm's clusters have one anyway.
        assert!(!cluster_dns);
        vary("DNS".into(), by_hand, &|it| it.cluster_dns = true);
        vary("image".into(), true, &|it| it.image = more(&image));
        vary("append".into(), true, &|it| it.append = more(&append));
        assert_eq!(accelerator, Accelerator::Tcg);
        let kvm = Accelerator::Kvm(KvmProcessor::HOST);
        vary("accelerator".into(), true, &|it| it.accelerator = kvm);
        let named = Accelerator::Kvm(KvmProcessor::Named);
        vary("processor".into(), true, &|it| it.accelerator = named);
        vary("qemu".into(), true, &|it| it.qemu = more(&qemu));
        vary("cpu".into(), true, &|it| it.host_cpu = more(&host_cpu));
        for (first, size) in [(true, control_plane), (false, worker)] {
            let Size { vcpus, memory_mib } = size;
            let larger = [
                Size {
                    vcpus: vcpus + 1,
                    ..size
                },
                Size {
                    memory_mib: memory_mib + 1,
                    ..size
                },
            ];
            for larger in larger {
                // No worker is in it, but what has a worker's processors.
                let none = cell.layout == Layout::ControlPlanes;
                let counts = first || larger.vcpus != vcpus || !none;
                vary(format!("{larger:?}"), counts, &|it| match first {
                    true => it.control_plane = larger,
                    false => it.worker = larger,
                });
            }
        }
        assert_eq!(broken, None);
        for fault in Break::ALL {
            let shapes = match fault {
                Break::Route | Break::PodRange => routes,
                Break::KubeProxy | Break::San => by_hand,
            };
            vary(fault.to_string(), shapes, &|it| it.broken = Some(fault));
        }
        let Cell {
            bootstrap,
            proxy,
            network,
            layout,
            ip_families,
        } = cell;
        for other in cells() {
            let differs = [
                other.bootstrap != bootstrap,
                other.proxy != proxy,
                other.network != network,
                other.layout != layout,
                other.ip_families != ip_families,
            ];
            if differs.iter().filter(|it| **it).count() == 1 {
                let needs = other.network.is_of_a_manifest();
                let manifest = needs.then(|| plan_of(other, nodes, None).pod_manifest);
                // Stages that the other cell does not have are not compared.
                vary(other.to_string(), !differs[0], &|it| {
                    it.cell = other;
                    it.pod_manifest = manifest.clone().flatten();
                });
            }
        }
        assert!(configurations.is_empty());
        for kind in Kind::ALL {
            let given = Configurations([(kind, json!({ "anything": 1 }))].into());
            let shapes = !(by_hand && kind.is_kubeadm_s());
            vary(kind.to_string(), shapes, &|it| {
                it.configurations = given.clone();
            });
        }
        assert_eq!(pod_images, None);
        let images = PodImages {
            digests: BTreeMap::new(),
            layer: "layer".into(),
        };
        vary("images of Pods".into(), true, &|it| {
            it.pod_images = Some(images.clone());
        });
        assert_eq!(node_tree, None);
        let file = Laid::File {
            mode: 0o644,
            text: "net.ipv4.ip_forward = 0".into(),
        };
        let every = [("/etc/sysctl.d/9.conf".to_owned(), file)];
        let tree = NodeTree {
            every: every.into(),
            ..NodeTree::default()
        };
        vary("files over the nodes".into(), true, &|it| {
            it.node_tree = Some(tree.clone());
        });
        if let Some(manifest) = pod_manifest {
            let PodManifest {
                name,
                text,
                controllers,
            } = manifest.clone();
            let mut vary = |what: &str, shapes, change: &dyn Fn(&mut PodManifest)| {
                let mut manifest = manifest.clone();
                change(&mut manifest);
                vary(what.to_owned(), shapes, &|it| {
                    it.pod_manifest = Some(manifest.clone());
                });
            };
            // Only said.
            vary("manifest's name", false, &|it| it.name = more(&name));
            vary("manifest's text", true, &|it| it.text = more(&text));
            let Controller {
                kind,
                namespace,
                name,
            } = controllers[0].clone();
            let others = [
                Controller {
                    kind: ControllerKind::Deployment,
                    ..controllers[0].clone()
                },
                Controller {
                    namespace: more(&namespace),
                    ..controllers[0].clone()
                },
                Controller {
                    name: more(&name),
                    ..controllers[0].clone()
                },
            ];
            assert_eq!(kind, ControllerKind::DaemonSet);
            for other in others {
                vary("controller", true, &|it| {
                    it.controllers = vec![other.clone()];
                });
            }
        }
        all
    }

    #[test]
    fn a_key_changes_with_the_steps_that_lead_to_its_stage_and_with_nothing_else() {
        for cell in cells() {
            let own = plan_of(cell, 2, None);
            let made_of_own = made(&own);
            for other in varied(&own) {
                let what = format!("{cell}, {}", other.what);
                let made_of_other = made(&other.plan);
                let mut differs = false;
                for stage in own.stages() {
                    let Some((_, other_key)) = made_of_other.get(stage) else {
                        continue;
                    };
                    let own_line = stage.line(cell).iter().map(|name| &made_of_own[name].0);
                    let other_line = stage.line(other.plan.cell).iter();
                    let other_line = other_line.map(|name| &made_of_other[name].0);
                    let keys = made_of_own[stage].1 != *other_key;
                    assert_eq!(keys, !own_line.eq(other_line), "{what}: {stage}");
                    // Whatever is made of another stage is another stage.
                    assert!(keys >= differs, "{what}: {stage}");
                    differs = keys;
                }
                assert!(differs || !other.shapes, "{what} counts for nothing");
            }
        }
    }

    #[test]
    fn equal_keys_are_equal_steps_and_other_keys_others() {
        let (mut by_key, mut by_steps) = (BTreeMap::new(), BTreeMap::new());
        for cell in Cell::all() {
            for broken in Break::ALL.map(Some).into_iter().chain([None]) {
                let plan = plan_of(cell, 2, broken);
                for stage in plan.stages() {
                    let what = format!("{cell}, {broken:?}, {stage}");
                    let (key, steps) = (plan.key(*stage).unwrap(), steps_to(&plan, *stage));
                    assert_eq!(key.len(), 32);
                    let same = by_key.entry(key.clone()).or_insert(steps.clone());
                    assert!(*same == steps, "{what}: other steps under the same key");
                    let same = by_steps.entry(steps).or_insert(key.clone());
                    assert_eq!(*same, key, "{what}: another key of the same steps");
                }
            }
        }
    }

    #[test]
    fn what_is_drawn_and_what_is_said_do_not_count() {
        let manifest: Cell = "kubeadm/nftables/manifest".parse().unwrap();
        let (own, mut other) = (plan_of(manifest, 2, None), plan_of(manifest, 2, None));
        if let Some(manifest) = &mut other.pod_manifest {
            manifest.name = "other.yaml".into();
        }
        let says = |plan: &ClusterPlan| {
            let secrets = Credentials::placeholder(plan);
            let step = step(plan, StageName::PodNetwork, &secrets).unwrap();
            step.parts[0].says.clone()
        };
        assert_ne!(says(&own), says(&other));
        let key = |plan: &ClusterPlan| plan.key(StageName::PodNetwork).unwrap();
        assert_eq!(key(&own), key(&other));
    }

    #[test]
    fn a_stage_is_one_of_all_cells_that_are_the_same_so_far() {
        let cells = |cell: &str, stage| {
            let plan = plan_of(cell.parse().unwrap(), 3, None);
            let cells = plan.cells_with(stage).unwrap();
            cells
                .iter()
                .map(Cell::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let nftables = "kubeadm/nftables/flannel";
        let count = |stage| cells(nftables, stage).split(' ').count();
        assert_eq!(count(StageName::Identified), 12);
        // However nodes are laid out, they are copies of the same machines, and so is a router; only those that
        // have room for a control plane are larger.
        assert_eq!(count(StageName::Booted), 4 * 12);
        insta::assert_snapshot!(cells(nftables, StageName::Init), @"kubeadm/nftables/flannel kubeadm/nftables/flannel-host-gw");
        insta::assert_snapshot!(cells(nftables, StageName::Workload), @"kubeadm/nftables/flannel");
        insta::assert_snapshot!(cells("by-hand/iptables/routes", StageName::ControlPlane), @"by-hand/nftables/routes by-hand/iptables/routes");
    }

    /// The first stage whose key differs.
    fn first_differing(a: &ClusterPlan, b: &ClusterPlan) -> Option<StageName> {
        let differs = |stage: &StageName| a.key(*stage).unwrap() != b.key(*stage).unwrap();
        let shared: Vec<StageName> = a
            .stages()
            .iter()
            .copied()
            .filter(|name| name.is_of(b.cell))
            .collect();
        let first = shared.iter().position(differs)?;
        // Whatever is made of another stage is another stage.
        assert!(shared[first..].iter().all(differs));
        Some(shared[first])
    }

    #[test]
    fn stages_are_shared_up_to_the_first_difference() {
        let whole = plan(3, None);
        let broken = |broken| first_differing(&whole, &plan(3, Some(broken)));
        assert_eq!(broken(Break::San), Some(StageName::ControlPlane));
        assert_eq!(broken(Break::PodRange), Some(StageName::Cni));
        assert_eq!(broken(Break::Route), Some(StageName::Workload));
        assert_eq!(broken(Break::KubeProxy), Some(StageName::Workload));
        let smaller = first_differing(&whole, &plan(2, None));
        assert_eq!(smaller, Some(StageName::Identified));
        // A single machine needs no worker to be cloned from.
        let single = first_differing(&whole, &plan(1, None));
        assert_eq!(single, Some(StageName::Booted));
    }

    #[test]
    fn cells_share_what_they_do_not_differ_by() {
        let kubeadm = Cell::usual(Bootstrap::Kubeadm);
        let plan = |cell| plan_of(cell, 3, None);
        let iptables = Cell {
            proxy: ProxyMode::Iptables,
            ..kubeadm
        };
        let host_gw = Cell {
            network: PodNetwork::Flannel(FlannelBackend::HostGw),
            ..kubeadm
        };
        let routes = Cell {
            network: PodNetwork::Routes,
            ..kubeadm
        };
        let first = |a, b| first_differing(&plan(a), &plan(b));
        assert_eq!(first(kubeadm, iptables), Some(StageName::Init));
        assert_eq!(first(kubeadm, host_gw), Some(StageName::PodNetwork));
        assert_eq!(first(kubeadm, routes), Some(StageName::Init));
        let by_hand = Cell::usual(Bootstrap::ByHand);
        assert_eq!(first(kubeadm, by_hand), Some(StageName::Joined));
        let manifest = Cell {
            network: PodNetwork::Manifest,
            ..kubeadm
        };
        assert_eq!(first(kubeadm, manifest), Some(StageName::PodNetwork));
        let none = plan(manifest).with_pod_manifest(None);
        assert!(none.key(StageName::Joined).is_ok());
        let refused = none.key(StageName::PodNetwork).unwrap_err();
        assert!(matches!(refused, ClusterError::NoPodManifest), "{refused}");
        let refused = plan(kubeadm).key(StageName::Cni).unwrap_err().to_string();
        insta::assert_snapshot!(refused, @"a cluster of kubeadm/nftables/flannel has no stage cni; it has booted, identified, init, joined, pod-network, workload");
    }

    /// What only some layouts have is no part of what others are named by: the cache keeps its stages when
    /// another is thought of.
    #[test]
    fn a_cluster_on_one_segment_is_not_named_by_what_it_lacks() {
        let plan = plan(3, None);
        let secrets = Credentials::placeholder(&plan);
        let step = step(&plan, StageName::Identified, &secrets).unwrap();
        let text = serde_json::to_string(&step.begins).unwrap();
        for lacking in ["beyond", "routes", "hosts"] {
            assert!(!text.contains(lacking), "{text}");
        }
    }

    /// The like of the second family: the stages that the cache has of clusters without one stay what they
    /// are.
    #[test]
    fn a_cluster_of_one_family_says_nothing_of_another() {
        let written = |cell: Cell| {
            let plan = plan_of(cell, 3, None);
            let secrets = Credentials::placeholder(&plan);
            let steps = plan.stages().iter().map(|stage| {
                let step = step(&plan, *stage, &secrets).unwrap();
                serde_json::to_string(&step).unwrap()
            });
            let cell = serde_json::to_string(&plan.cell).unwrap();
            [cell].into_iter().chain(steps).collect::<String>()
        };
        let of_second = [
            "fd00:",
            "ip_families",
            "DualStack",
            "net.ipv6",
            "EnableIPv6",
        ];
        for cell in Cell::all() {
            let text = written(cell);
            let said = of_second.iter().any(|word| text.contains(word));
            assert_eq!(said, cell.ip_families.is_dual(), "{cell}");
        }
    }

    #[test]
    fn a_second_family_makes_another_cluster_from_its_nodes_on() {
        for bootstrap in Bootstrap::ALL {
            let own = Cell::usual(bootstrap);
            let dual = own.with_families(IpFamilies::Dual);
            let first = first_differing(&plan_of(own, 3, None), &plan_of(dual, 3, None));
            assert_eq!(first, Some(StageName::Identified));
        }
    }

    /// Found broken: the override of kube-proxy's kubeconfig was in the step and not in its key, and the
    /// broken cluster was frozen under the sound one's.
    #[test]
    fn a_broken_kube_proxy_is_never_frozen_under_the_sound_ones_key() {
        let cell: Cell = "by-hand/nftables/flannel".parse().unwrap();
        let broken = plan_of(cell, 3, Some(Break::KubeProxy));
        let first = first_differing(&plan_of(cell, 3, None), &broken);
        assert_eq!(first, Some(StageName::PodNetwork));
    }
}
