//! What a cluster is, before it exists.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use podwire_vm::{Accelerator, MachineSpec, Ram};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::addresses::MAX_NODES;
use crate::cell::{Bootstrap, Cell, PodNetwork};
use crate::network;
use crate::node_files::{self, NodeFile};
use crate::pki::{Pki, certificate_names};
use crate::pod_manifest::{self, PodManifest};
use crate::settings::{GO_MAX_PROCS, Settings, TIMER_SLACK};
use crate::workload;
use crate::{Break, ClusterError, StageName, bootstrap, flannel, identity, kubeadm};

/// Raised when the way from a plan to a stage changes without any of its data changing.
const VERSION: u32 = 6;

/// A guest that was stopped, or starved by other clones, must not take its clock source for broken:
/// the next best is read through QEMU and several times slower.
const TRUST_TSC: &str = "tsc=reliable";

/// A node image's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFiles {
    /// Its name, the digest of what is in it.
    pub name: String,
    /// qcow2, never written: nodes run on overlays.
    pub disk: PathBuf,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Kernel arguments that the image needs (`root=/dev/vda ...`).
    pub append: String,
}

/// What becomes of a machine decides its size, and which booted one it is cloned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Node 1, which is an ordinary node as well.
    ControlPlane,
    /// All others.
    Worker,
}

impl Role {
    pub(crate) fn of(number: u32) -> Self {
        if number == 1 {
            Self::ControlPlane
        } else {
            Self::Worker
        }
    }

    /// The booted machine's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        }
    }
}

/// The size of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// Everything that shapes stages and is not a step's own text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// How many machines; the first is the control plane and a node as well.
    pub nodes: u32,
    /// Who bootstraps it, and with which network.
    pub cell: Cell,
    /// Kubernetes version, `1.36.4`.
    pub kubernetes: String,
    /// Digest name of the node image.
    pub image: String,
    /// Its kernel arguments.
    pub append: String,
    /// What executes the guests.
    pub accelerator: Accelerator,
    /// QEMU's version and build, as it prints it.
    pub qemu: String,
    /// The host processor's identity, see [`host_cpu`].
    pub host_cpu: String,
    /// Size of node 1.
    pub control_plane: Size,
    /// Size of all others.
    pub worker: Size,
    /// The fault that the run carries; it shapes the stages from the one on whose step it alters.
    pub broken: Option<Break>,
    /// The user's Pod network, where the cell has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_manifest: Option<PodManifest>,
}

impl ClusterPlan {
    /// A plan with the usual sizes.
    ///
    /// # Errors
    /// [`ClusterError::Nodes`] when there is no such cluster.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another fact that clusters differ by"
    )]
    pub fn new(
        nodes: u32,
        cell: Cell,
        kubernetes: impl Into<String>,
        image: &ImageFiles,
        accelerator: Accelerator,
        qemu: impl Into<String>,
        host_cpu: impl Into<String>,
        broken: Option<Break>,
    ) -> Result<Self, ClusterError> {
        if !(1..=MAX_NODES).contains(&nodes) {
            return Err(ClusterError::Nodes {
                nodes,
                max: MAX_NODES,
            });
        }
        Ok(Self {
            nodes,
            cell,
            kubernetes: kubernetes.into(),
            image: image.name.clone(),
            append: command_line(&image.append, accelerator),
            accelerator,
            qemu: qemu.into(),
            host_cpu: host_cpu.into(),
            control_plane: Size {
                vcpus: 2,
                memory_mib: 2048,
            },
            worker: Size {
                vcpus: 1,
                memory_mib: 1024,
            },
            broken,
            pod_manifest: None,
        })
    }

    /// The same with the user's Pod network.
    #[must_use]
    pub fn with_pod_manifest(self, pod_manifest: Option<PodManifest>) -> Self {
        Self {
            pod_manifest,
            ..self
        }
    }

    /// The stages of its cell, each the parent of the next.
    pub fn stages(&self) -> &'static [StageName] {
        StageName::all_of(self.cell)
    }

    /// Memory of all machines together, MiB.
    pub fn memory_mib(&self) -> u64 {
        let workers = u64::from(self.nodes.saturating_sub(1));
        self.control_plane.memory_mib + workers * self.worker.memory_mib
    }

    /// The most host memory that all machines together can come to occupy, MiB.
    pub fn host_memory_mib(&self) -> u64 {
        let nowhere = Path::new("");
        let machines = (1..=self.nodes).map(|number| {
            let size = self.size(Role::of(number));
            self.machine("", size, nowhere, nowhere, "".into(), Ram::Anonymous, false)
        });
        machines.map(|machine| machine.host_memory_mib()).sum()
    }

    /// What names a stage in the cache: 32 hexadecimal digits of the SHA-256 of everything that
    /// shapes it: the machines as the guests see them, what the step writes and runs, and the key of
    /// the stage that it is made of.
    ///
    /// # Errors
    /// [`ClusterError::NoSuchStage`] when the cell does not have it, [`ClusterError::Json`].
    pub fn key(&self, stage: StageName) -> Result<String, ClusterError> {
        if !stage.is_of(self.cell) {
            return Err(ClusterError::NoSuchStage {
                stage,
                cell: self.cell,
            });
        }
        let parent = stage.parent(self.cell);
        let parent = parent.map(|parent| self.key(parent)).transpose()?;
        let shape = (VERSION, stage, self.inputs(stage), parent);
        let text = serde_json::to_vec(&shape).map_err(|source| ClusterError::Json {
            what: "a stage's shape",
            source,
        })?;
        let digest = Sha256::digest(&text);
        let mut key = String::new();
        for byte in &digest[..16] {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        Ok(key)
    }

    /// The cells in which a plan that is like this one otherwise has the very same stage: it depends
    /// on nothing that is decided later.
    ///
    /// # Errors
    /// As [`ClusterPlan::key`].
    pub fn cells_with(&self, stage: StageName) -> Result<Vec<Cell>, ClusterError> {
        let key = self.key(stage)?;
        let manifest = |cell: Cell| cell.network == PodNetwork::Manifest;
        let mut same = Vec::new();
        for cell in Cell::all() {
            // The user's network comes with what it is, and without it there is none.
            if !stage.is_of(cell) || manifest(cell) != manifest(self.cell) {
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

    /// What shapes a stage beside its parent. Keys and certificates are drawn anew for every build,
    /// so that only their places and names count.
    fn inputs(&self, stage: StageName) -> serde_json::Value {
        let pki = Pki::placeholder(self.nodes);
        let settings = Settings::of(self.accelerator);
        let Cell {
            bootstrap, network, ..
        } = self.cell;
        let numbers = 1..=self.nodes;
        let routes = || network::all_routes(self.nodes, self.broken);
        let pod_network = || match network {
            PodNetwork::Routes => {
                let files = numbers
                    .clone()
                    .map(|number| node_files::pod_network(number, self.broken));
                json!(shown(files))
            }
            PodNetwork::Flannel(backend) => {
                json!([flannel::manifest(backend), pod_manifest::APPLY])
            }
            PodNetwork::Manifest => json!([self.pod_manifest, pod_manifest::APPLY]),
        };
        let workload = || {
            let replicas = bootstrap::replicas(self.nodes);
            json!([workload::deployment(replicas), workload::service()])
        };
        match (stage, bootstrap) {
            (StageName::Booted, _) => {
                let nowhere = Path::new("");
                let machines: Vec<_> = self
                    .roles()
                    .map(|role| {
                        let size = self.size(role);
                        self.machine("", size, nowhere, nowhere, "".into(), Ram::Anonymous, false)
                            .shape()
                    })
                    .collect();
                let layer = self.pod_manifest.as_ref().and_then(|it| it.layer.as_ref());
                let image = match layer {
                    Some(layer) => json!([self.image, layer]),
                    None => json!(self.image),
                };
                json!([image, self.qemu, self.host_cpu, machines])
            }
            (StageName::ControlPlane, _) => {
                let files = node_files::control_plane(&pki, self.cell, settings);
                let names = certificate_names(self.broken);
                let starts = bootstrap::by_hand::CONTROL_PLANE;
                json!([self.nodes, identity::TAKE, shown(files), names, starts])
            }
            (StageName::Init, _) => {
                let config = shown(kubeadm::init_files(&self.kubernetes, self.cell, settings));
                let every = shown(node_files::prepared(network, settings));
                let commands = [kubeadm::PREPARE, kubeadm::INIT];
                json!([self.nodes, identity::TAKE, every, config, commands])
            }
            (StageName::Joined, Bootstrap::ByHand) => {
                let files = numbers
                    .map(|number| shown(node_files::node(number, &pki, self.cell, settings)));
                json!([files.collect::<Vec<_>>(), bootstrap::by_hand::NODE])
            }
            (StageName::Joined, Bootstrap::Kubeadm) => {
                let configs = numbers.map(|number| kubeadm::join_config(number, "", settings));
                json!([configs.collect::<Vec<_>>(), kubeadm::JOIN])
            }
            (StageName::Cni, _) => pod_network(),
            (StageName::PodNetwork, Bootstrap::ByHand) => {
                json!([network::START_PROXY, pod_network()])
            }
            (StageName::PodNetwork, Bootstrap::Kubeadm) => json!([pod_network(), routes()]),
            (StageName::WorkloadBare, _) => workload(),
            (StageName::Workload, Bootstrap::ByHand) if network == PodNetwork::Routes => {
                let proxy = network::proxy_override(&pki, self.broken);
                json!([routes(), proxy, network::START_PROXY])
            }
            (StageName::Workload, Bootstrap::ByHand) => workload(),
            (StageName::Workload, Bootstrap::Kubeadm) => json!([kubeadm::UNTAINT, workload()]),
        }
    }

    /// What its machines become.
    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> {
        (1..=self.nodes.min(2)).map(Role::of)
    }

    /// How large such a machine is.
    pub(crate) fn size(&self, role: Role) -> Size {
        match role {
            Role::ControlPlane => self.control_plane,
            Role::Worker => self.worker,
        }
    }

    /// One machine.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another file of the machine's"
    )]
    pub(crate) fn machine(
        &self,
        name: &str,
        size: Size,
        kernel: &Path,
        initrd: &Path,
        disk: PathBuf,
        ram: Ram,
        incoming: bool,
    ) -> MachineSpec {
        let append = match self.accelerator {
            Accelerator::Tcg => format!("{} {TRUST_TSC}", self.append),
            Accelerator::Kvm => self.append.clone(),
        };
        MachineSpec {
            name: name.to_owned(),
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            accelerator: self.accelerator,
            cpu_model: self.accelerator.cpu_model().to_owned(),
            kernel: kernel.to_owned(),
            initrd: Some(initrd.to_owned()),
            append,
            disk: Some(disk),
            incoming,
            ram,
            rtc_base: None,
            no_reboot: false,
            tsc_khz: None,
        }
    }
}

/// The kernel's command line: the image's, and what systemd is to give every daemon: variables
/// (`systemd.setenv=` of systemd(1)), and the slack of timers, for which systemd has no argument: the
/// image's initrd understands this one.
fn command_line(of_image: &str, accelerator: Accelerator) -> String {
    let idle =
        format!(" systemd.setenv=GOMAXPROCS={GO_MAX_PROCS} podwire.timer_slack={TIMER_SLACK}");
    let idle = Settings::of(accelerator).idle(idle);
    format!("{of_image}{}", idle.unwrap_or_default())
}

fn shown(files: impl IntoIterator<Item = NodeFile>) -> Vec<(String, u32, String)> {
    files
        .into_iter()
        .map(|file| (file.path, file.mode, file.text))
        .collect()
}

/// The host processor's identity: a machine's saved state fits only a processor with the same
/// features. Model and a digest of the feature flags, from /proc/cpuinfo.
///
/// # Errors
/// [`ClusterError::File`] without /proc.
pub fn host_cpu() -> Result<String, ClusterError> {
    let path = "/proc/cpuinfo";
    let text = std::fs::read_to_string(path).map_err(ClusterError::file("read", path))?;
    Ok(cpu_identity(&text))
}

fn cpu_identity(cpuinfo: &str) -> String {
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map_or("", |(_, value)| value.trim())
    };
    let flags = Sha256::digest(field("flags"));
    format!(
        "{}, flags {:02x}{:02x}{:02x}{:02x}",
        field("model name"),
        flags[0],
        flags[1],
        flags[2],
        flags[3]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::FlannelBackend;
    use crate::config::ProxyMode;

    fn plan(nodes: u32, broken: Option<Break>) -> ClusterPlan {
        plan_of(Cell::usual(Bootstrap::ByHand), nodes, broken)
    }

    fn plan_of(cell: Cell, nodes: u32, broken: Option<Break>) -> ClusterPlan {
        let image = ImageFiles {
            name: "image".into(),
            disk: "/a/disk".into(),
            kernel: "/a/kernel".into(),
            initrd: "/a/initrd".into(),
            append: "root=/dev/vda".into(),
        };
        let tcg = Accelerator::Tcg;
        ClusterPlan::new(nodes, cell, "1.36.4", &image, tcg, "10.0.2", "cpu", broken).unwrap()
    }

    fn keys(plan: &ClusterPlan) -> Vec<String> {
        plan.stages()
            .iter()
            .map(|stage| plan.key(*stage).unwrap())
            .collect()
    }

    #[test]
    fn whatever_shapes_a_machine_shapes_every_key() {
        let whole = plan(3, None);
        let own = keys(&whole);
        assert_eq!(own, keys(&plan(3, None)));
        assert!(own.iter().all(|key| key.len() == 32));
        let others = [
            ClusterPlan {
                qemu: "10.0.3".into(),
                ..whole.clone()
            },
            ClusterPlan {
                host_cpu: "other".into(),
                ..whole.clone()
            },
            ClusterPlan {
                image: "other".into(),
                ..whole.clone()
            },
            ClusterPlan {
                accelerator: Accelerator::Kvm,
                ..whole.clone()
            },
        ];
        for other in others {
            for (other, own) in keys(&other).iter().zip(&own) {
                assert_ne!(other, own);
            }
        }
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
        assert_eq!(cells(nftables, StageName::Booted).split(' ').count(), 12);
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
        assert_eq!(smaller, Some(StageName::ControlPlane));
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
        let refused = plan(kubeadm).key(StageName::Cni).unwrap_err().to_string();
        insta::assert_snapshot!(refused, @"a cluster of kubeadm/nftables/flannel has no stage cni; it has booted, init, joined, pod-network, workload");
    }

    #[test]
    fn manifest_and_images_shape_the_stages() {
        let cell = Cell {
            network: PodNetwork::Manifest,
            ..Cell::usual(Bootstrap::Kubeadm)
        };
        let manifest = PodManifest {
            name: "net.yaml".into(),
            text: "kind: DaemonSet".into(),
            images: [("quay.io/a:1".to_owned(), "sha256:00".to_owned())].into(),
            layer: None,
            controllers: Vec::new(),
        };
        let plan = |manifest: &PodManifest| {
            plan_of(cell, 3, None).with_pod_manifest(Some(manifest.clone()))
        };
        let own = plan(&manifest);
        let first = |other: &PodManifest| first_differing(&own, &plan(other));
        assert_eq!(first(&manifest), None);
        let text = PodManifest {
            text: "kind: Deployment".into(),
            ..manifest.clone()
        };
        assert_eq!(first(&text), Some(StageName::PodNetwork));
        let images = PodManifest {
            images: [("quay.io/a:1".to_owned(), "sha256:01".to_owned())].into(),
            ..manifest.clone()
        };
        assert_eq!(first(&images), Some(StageName::PodNetwork));
        let layer = PodManifest {
            layer: Some("0123".into()),
            ..manifest.clone()
        };
        assert_eq!(first(&layer), Some(StageName::Booted));
    }

    #[test]
    fn emulated_daemons_run_one_thread_at_a_time_and_sleep_a_little_longer() {
        assert_eq!(
            command_line("root=/dev/vda", Accelerator::Kvm),
            "root=/dev/vda"
        );
        let emulated = command_line("root=/dev/vda", Accelerator::Tcg);
        assert_eq!(
            emulated,
            "root=/dev/vda systemd.setenv=GOMAXPROCS=1 podwire.timer_slack=5ms"
        );
        // Nothing but the image's initrd knows the last word.
        let initrd = include_str!("../../../images/recipes/initrd-init");
        assert!(initrd.contains("\n    podwire.timer_slack=*) "));
    }

    #[test]
    fn a_cluster_needs_a_node() {
        let image = ImageFiles {
            name: String::new(),
            disk: PathBuf::new(),
            kernel: PathBuf::new(),
            initrd: PathBuf::new(),
            append: String::new(),
        };
        let none = ClusterPlan::new(
            0,
            Cell::usual(Bootstrap::ByHand),
            "",
            &image,
            Accelerator::Kvm,
            "",
            "",
            None,
        );
        assert!(matches!(none, Err(ClusterError::Nodes { nodes: 0, .. })));
    }

    #[test]
    fn processors_with_other_flags_are_others() {
        let text =
            "processor : 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu vme\n\nprocessor : 1\n";
        let identity = cpu_identity(text);
        assert!(
            identity.starts_with("Some CPU @ 2.0GHz, flags "),
            "{identity}"
        );
        assert_ne!(identity, cpu_identity(&text.replace("vme", "avx")));
    }
}
