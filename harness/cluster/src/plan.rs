//! What a cluster is, before it exists.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use podwire_vm::{Accelerator, MachineSpec, Ram};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::addresses::MAX_NODES;
use crate::limits::GuestLimits;
use crate::node_files::node_files;
use crate::pki::{Pki, certificate_names};
use crate::workload;
use crate::{Break, ClusterError, bootstrap};

/// Raised when the way from a plan to a stage changes without any of its data changing.
const VERSION: u32 = 1;

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

/// The size of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// Everything that shapes a stage and is not a step's own text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// How many machines; the first is the control plane and a node as well.
    pub nodes: u32,
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
    /// The fault built into the stage, if it is one that shapes stages.
    pub broken: Option<Break>,
}

impl ClusterPlan {
    /// A plan with the usual sizes. A fault that only alters what scenarios do is left out: such
    /// runs share the whole stage.
    ///
    /// # Errors
    /// [`ClusterError::Nodes`] when there is no such cluster.
    pub fn new(
        nodes: u32,
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
            kubernetes: kubernetes.into(),
            image: image.name.clone(),
            append: image.append.clone(),
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
            broken: broken.filter(|broken| broken.shapes_stage()),
        })
    }

    /// Memory of all machines together, MiB.
    pub fn memory_mib(&self) -> u64 {
        let workers = u64::from(self.nodes.saturating_sub(1));
        self.control_plane.memory_mib + workers * self.worker.memory_mib
    }

    /// The name of the stage: 32 hexadecimal digits of the SHA-256 of everything that shapes it:
    /// the plan, the machines as the guests see them, every file written onto them, the workload.
    ///
    /// # Errors
    /// [`ClusterError::Json`].
    pub fn key(&self) -> Result<String, ClusterError> {
        let pki = Pki::placeholder(self.nodes);
        let limits = GuestLimits::of(self.accelerator);
        let files: Vec<_> = (1..=self.nodes)
            .flat_map(|number| node_files(number, &pki, limits, self.broken))
            .map(|file| (file.path, file.mode, file.text))
            .collect();
        let machines: Vec<_> = (1..=self.nodes)
            .map(|number| {
                let nowhere = Path::new("");
                self.machine(number, nowhere, nowhere, "".into(), Ram::Anonymous)
                    .shape()
            })
            .collect();
        let replicas = bootstrap::replicas(self.nodes);
        let shape = (
            (VERSION, self, machines, files),
            (certificate_names(self.broken), bootstrap::STARTED),
            (workload::deployment(replicas), workload::service()),
        );
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

    /// One node's machine.
    pub(crate) fn machine(
        &self,
        number: u32,
        kernel: &Path,
        initrd: &Path,
        disk: PathBuf,
        ram: Ram,
    ) -> MachineSpec {
        let size = if number == 1 {
            self.control_plane
        } else {
            self.worker
        };
        let append = match self.accelerator {
            Accelerator::Tcg => format!("{} {TRUST_TSC}", self.append),
            Accelerator::Kvm => self.append.clone(),
        };
        MachineSpec {
            name: crate::addresses::node_name(number),
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            accelerator: self.accelerator,
            cpu_model: self.accelerator.cpu_model().to_owned(),
            kernel: kernel.to_owned(),
            initrd: Some(initrd.to_owned()),
            append,
            disk: Some(disk),
            incoming: matches!(ram, Ram::Clone(_)),
            ram,
            rtc_base: None,
            no_reboot: false,
        }
    }
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

    fn plan(nodes: u32, broken: Option<Break>) -> ClusterPlan {
        let image = ImageFiles {
            name: "image".into(),
            disk: "/a/disk".into(),
            kernel: "/a/kernel".into(),
            initrd: "/a/initrd".into(),
            append: "root=/dev/vda".into(),
        };
        let tcg = Accelerator::Tcg;
        ClusterPlan::new(nodes, "1.36.4", &image, tcg, "10.0.2", "cpu", broken).unwrap()
    }

    #[test]
    fn whatever_shapes_a_stage_shapes_its_key() {
        let whole = plan(3, None);
        let key = whole.key().unwrap();
        assert_eq!(key.len(), 32);
        assert_eq!(key, plan(3, None).key().unwrap());
        let others = [
            plan(2, None),
            plan(3, Some(Break::San)),
            plan(3, Some(Break::PodRange)),
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
            assert_ne!(other.key().unwrap(), key, "{other:?}");
        }
    }

    #[test]
    fn a_fault_in_the_scenarios_steps_shares_the_whole_stage() {
        for broken in [Break::Route, Break::KubeProxy] {
            assert_eq!(plan(3, Some(broken)), plan(3, None));
        }
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
        let none = ClusterPlan::new(0, "", &image, Accelerator::Kvm, "", "", None);
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
