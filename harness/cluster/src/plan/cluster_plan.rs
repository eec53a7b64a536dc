//! What a cluster is, before it exists.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use podwire_lan::NetworkPlan;
use podwire_vm::{Accelerator, MachineSpec, Ram, cpuinfo_field};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::addresses::MAX_NODES;
use super::breaks::Break;
use super::cell::Cell;
use super::configurations::Configurations;
use super::error::ClusterError;
use super::layout::{Layout, Member};
use super::node_tree::{NodeTree, hex};
use super::pod_manifest::{PodImages, PodManifest};
use super::settings::{GO_MAX_PROCS, Settings, TIMER_SLACK};
use super::stage_name::StageName;

/// A guest that was stopped, or starved by other clones, must not take its clock source for broken:
/// the next best is read through QEMU and several times slower.
const TRUST_TSC: &str = "tsc=reliable";

/// A node image's files; by default none, where only the machines' sizes matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Node 1, which is an ordinary node as well.
    ControlPlane,
    /// Another node that has room for a control plane.
    FurtherControlPlane,
    /// All others, a router as well.
    Worker,
}

impl Role {
    /// The booted machine's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::FurtherControlPlane => "further-control-plane",
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
    /// The version that its nodes have beside that, to be upgraded to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_to: Option<String>,
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
    /// What its nodes have beside the node image's images, where there is anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_images: Option<PodImages>,
    /// The user's files over the nodes' own, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_tree: Option<NodeTree>,
    /// The user's configurations of components, as far as they count with its bootstrap.
    #[serde(default, skip_serializing_if = "Configurations::is_empty")]
    pub configurations: Configurations,
    /// Whether it has a DNS of its own by hand too, where the documents lay none: the CoreDNS that kubeadm's clusters
    /// have anyway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cluster_dns: bool,
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
            upgrade_to: None,
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
            pod_images: None,
            node_tree: None,
            configurations: Configurations::default(),
            cluster_dns: false,
        })
    }

    /// The same with a DNS of its own, by hand too.
    #[must_use]
    pub fn with_cluster_dns(self, cluster_dns: bool) -> Self {
        Self {
            cluster_dns,
            ..self
        }
    }

    /// The same on nodes whose image has a newer version beside it.
    #[must_use]
    pub fn with_upgrade_to(self, upgrade_to: Option<String>) -> Self {
        Self { upgrade_to, ..self }
    }

    /// The same with the user's Pod network.
    #[must_use]
    pub fn with_pod_manifest(self, pod_manifest: Option<PodManifest>) -> Self {
        Self {
            pod_manifest,
            ..self
        }
    }

    /// The same with more images on its nodes.
    #[must_use]
    pub fn with_pod_images(self, pod_images: Option<PodImages>) -> Self {
        Self { pod_images, ..self }
    }

    /// The same with the user's files over the nodes' own.
    #[must_use]
    pub fn with_node_tree(self, node_tree: Option<NodeTree>) -> Self {
        Self { node_tree, ..self }
    }

    /// The same with the user's configurations, as far as they count with its bootstrap.
    #[must_use]
    pub fn with_configurations(self, configurations: Configurations) -> Self {
        Self {
            configurations: configurations.with(self.cell.bootstrap),
            ..self
        }
    }

    /// The stages of its cell, each the parent of the next.
    pub fn stages(&self) -> &'static [StageName] {
        StageName::all_of(self.cell)
    }

    /// Memory of all machines together, MiB.
    pub fn memory_mib(&self) -> u64 {
        let sizes = self.members().map(|member| self.size(self.role(member)));
        sizes.map(|size| size.memory_mib).sum()
    }

    /// The most host memory that all machines together can come to occupy, MiB.
    pub fn host_memory_mib(&self) -> u64 {
        let nowhere = Path::new("");
        let machines = self.members().map(|member| {
            let size = self.size(self.role(member));
            self.machine("", size, nowhere, nowhere, "".into(), Ram::Anonymous, false)
        });
        machines.map(|machine| machine.host_memory_mib()).sum()
    }

    /// All its machines, the nodes first.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> {
        self.cell.layout.members(self.nodes)
    }

    /// The segments that they are on.
    pub fn network(&self) -> NetworkPlan {
        self.cell.layout.network(self.nodes)
    }

    /// The nodes' addresses, by number from 1.
    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        let nodes = 1..=self.nodes;
        nodes.map(|it| self.cell.layout.address(it)).collect()
    }

    /// What such a machine becomes. A router is as small as a worker: one more machine to boot would take
    /// longer than it saves.
    pub(crate) fn role(&self, member: Member) -> Role {
        match (member, self.cell.layout) {
            (Member::Node(1), _) => Role::ControlPlane,
            (Member::Node(_), Layout::ControlPlanes) => Role::FurtherControlPlane,
            (Member::Node(_) | Member::Router, _) => Role::Worker,
        }
    }

    /// What its machines become.
    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> {
        let others = (self.nodes > 1).then(|| self.role(Member::Node(2)));
        [Role::ControlPlane].into_iter().chain(others)
    }

    /// How large such a machine is. A further control plane has the first one's memory, and a worker's processors:
    /// QEMU's emulation of several lets a kernel that patches itself run into its own breakpoint now and then
    /// ("Oops: int3", linux-kernel, 5 July 2023, "qemu-x86_64 booting with 8.0.0 still see int3").
    pub(crate) fn size(&self, role: Role) -> Size {
        match role {
            Role::ControlPlane => self.control_plane,
            Role::FurtherControlPlane => Size {
                memory_mib: self.control_plane.memory_mib,
                ..self.worker
            },
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
            Accelerator::Kvm(_) => self.append.clone(),
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
    let field = |name: &str| cpuinfo_field(cpuinfo, name).unwrap_or_default();
    let flags = hex(&Sha256::digest(field("flags"))[..4]);
    format!("{}, flags {flags}", field("model name"))
}

#[cfg(test)]
mod tests {
    use podwire_vm::KvmProcessor;

    use super::*;
    use crate::plan::cell::Bootstrap;

    #[test]
    fn emulated_daemons_run_one_thread_at_a_time_and_sleep_a_little_longer() {
        assert_eq!(
            command_line("root=/dev/vda", Accelerator::Kvm(KvmProcessor::HOST)),
            "root=/dev/vda"
        );
        let emulated = command_line("root=/dev/vda", Accelerator::Tcg);
        assert_eq!(
            emulated,
            "root=/dev/vda systemd.setenv=GOMAXPROCS=1 podwire.timer_slack=5ms"
        );
        // Nothing but the image's initrd knows the last word.
        let initrd = include_str!("../../../../images/recipes/initrd-init");
        assert!(initrd.contains("\n    podwire.timer_slack=*) "));
    }

    #[test]
    fn every_node_of_several_control_planes_has_the_first_one_s_memory() {
        let memory = |layout: Layout| {
            let cell = Cell::usual(Bootstrap::Kubeadm).laid_out(layout);
            let image = ImageFiles::default();
            let plan = ClusterPlan::new(3, cell, "", &image, Accelerator::Tcg, "", "", None);
            plan.unwrap().memory_mib()
        };
        assert_eq!(memory(Layout::ControlPlanes), 3 * 2048);
        assert_eq!(memory(Layout::Flat), 2048 + 2 * 1024);
        assert_eq!(memory(Layout::Routed), 2048 + 3 * 1024);
    }

    #[test]
    fn a_cluster_needs_a_node() {
        let image = ImageFiles::default();
        let none = ClusterPlan::new(
            0,
            Cell::usual(Bootstrap::ByHand),
            "",
            &image,
            Accelerator::Kvm(KvmProcessor::HOST),
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
