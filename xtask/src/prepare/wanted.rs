//! What is to be prepared: which clusters, and which of their stages.

use podwire_cluster::{Break, Cell, ClusterPlan, StageName, host_cpu};
use podwire_images::{BundleOrder, NodeImage};
use podwire_vm::{Accelerator, accelerator};

use crate::command::session::Session;
use crate::prepare::machine::Programs;
use crate::prepare::parts::{NodeSystem, image_files};

/// What is to be prepared, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) bundle: &'a BundleOrder,
    /// What the nodes run, if not Debian.
    pub(crate) system: Option<&'a NodeSystem>,
    pub(crate) nodes: u32,
    pub(crate) broken: Option<Break>,
    /// Whether clusters by hand have a DNS of their own too.
    pub(crate) cluster_dns: bool,
    pub(crate) require_kvm: bool,
    pub(crate) yes: bool,
    pub(crate) locked: bool,
    /// Bytes that the cache may occupy, where somebody said so.
    pub(crate) max_size: Option<u64>,
}

impl<'a> Wanted<'a> {
    /// A whole cluster, on whatever runs guests here, without consent to anything.
    pub(crate) fn cluster(bundle: &'a BundleOrder, nodes: u32) -> Self {
        Self {
            bundle,
            system: None,
            nodes,
            broken: None,
            cluster_dns: false,
            require_kvm: false,
            yes: false,
            locked: false,
            max_size: None,
        }
    }

    /// The cluster of a cell that a run is about.
    pub(crate) fn cluster_plan(
        &self,
        session: &Session,
        cell: Cell,
        image: &NodeImage,
        accelerator: Accelerator,
    ) -> anyhow::Result<ClusterPlan> {
        let qemu = accelerator::qemu_version(&session.spawner, &Programs::find()?.qemu)?;
        let files = image_files(image);
        Ok(ClusterPlan::new(
            self.nodes,
            cell,
            &self.bundle.kubernetes,
            &files,
            accelerator,
            qemu,
            host_cpu()?,
            self.broken,
        )?
        .with_cluster_dns(self.cluster_dns)
        .with_upgrade_to(self.bundle.upgrade.as_ref().map(|it| it.kubernetes.clone())))
    }
}

/// Stages of one cell that are wanted, parents first.
#[derive(Debug, Clone)]
pub(crate) struct StageOrder {
    pub(crate) plan: ClusterPlan,
    pub(crate) names: Vec<StageName>,
}
