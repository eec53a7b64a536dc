//! A real Kubernetes of real machines: planned as data, brought up by hand or with kubeadm, frozen while
//! it runs, and cloned as often as anybody wants.
//!
//! - [`ClusterPlan`] says what a cluster is; [`ClusterPlan::key`] names each stage on the way to it;
//! - [`addresses`], [`pki`], [`kubeconfig`], [`units`], [`config`], [`cni`], [`flannel`], [`kubeadm`],
//!   [`workload`] and [`node_files`](mod@node_files) are what it is made of, as plain data, and so is
//!   each step from a stage to the next;
//! - [`StageName`] is the way there, stage by stage; [`Stages`] makes the missing ones, each of its
//!   parent, and keeps them frozen in a folder of the cache;
//! - [`Cluster::clone_of`] brings a stage to life within seconds, privately;
//! - [`stuck`] tells a unit or a container that does not go on by itself;
//! - [`Break`] is a fault that a whole run carries on purpose.

mod parts;
mod plan;
mod running;
mod stages;
mod steps;

pub use parts::component::Component;
pub use parts::credentials::{Access, Credentials};
pub use parts::file::NodeFile;
pub use parts::identity::NodeIdentity;
pub use parts::merge::{Conflict, Replaced};
pub use parts::pki::{Identity, Pki};
pub use parts::workload::{WORKLOAD_IMAGE, WORKLOAD_SELECTOR, WORKLOAD_SERVICE};
pub use parts::{
    cni, component, config, flannel, kubeadm, kubeconfig, node_files, pki, units, workload,
};
pub use plan::addresses;
pub use plan::breaks::{Break, UnknownBreak};
pub use plan::cell::{
    Bootstrap, Cell, FlannelBackend, PodNetwork, ProxyMode, Published, UnknownPart,
};
pub use plan::cluster_plan::{ClusterPlan, ImageFiles, Size, host_cpu};
pub use plan::configurations::{Configurations, FIELDS_OF, Kind, Unknown};
pub use plan::error::ClusterError;
pub use plan::ip_families::{
    Family, IpFamilies, PODS_V6, SERVICES_V6, node_address_v6, pod_range_v6,
};
pub use plan::layout::Layout;
pub use plan::node_tree::{Laid, NodeTree};
pub use plan::pod_manifest::{Controller, ControllerKind, PodImages, PodManifest};
pub use plan::settings::Settings;
pub use plan::stage_name::{Has, StageName, UnknownStage};
pub use running::apply::apply;
pub use running::cluster::Cluster;
pub use running::evidence::EVIDENCE;
pub use running::host::{Host, stretched};
pub use running::node::Node;
pub use running::phase::Phase;
pub use running::stuck;
pub use stages::build::Thawed;
pub use stages::folder::Stages;
pub use stages::layer::{ImageName, LayerImages};
pub use stages::stage::{ImageFile, SealedFile, Stage, StageManifest};
