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

pub mod addresses;
mod api;
mod breaks;
mod build;
mod carry_out;
mod cell;
mod cluster;
pub mod cni;
pub mod component;
pub mod config;
mod credentials;
mod error;
mod evidence;
pub mod flannel;
mod gates;
mod host;
mod identity;
mod key;
pub mod kubeadm;
pub mod kubeconfig;
mod layer;
mod network;
mod node;
pub mod node_files;
pub mod pki;
mod plan;
mod pod_manifest;
mod pods;
mod quiet;
mod settings;
mod stage;
mod stage_name;
mod stages;
mod step;
mod steps;
pub mod stuck;
pub mod units;
mod wake;
pub mod workload;

pub use breaks::{Break, UnknownBreak};
pub use build::Thawed;
pub use cell::{Bootstrap, Cell, FlannelBackend, PodNetwork, UnknownPart};
pub use cluster::Cluster;
pub use component::Component;
pub use config::ProxyMode;
pub use credentials::{Access, Credentials};
pub use error::ClusterError;
pub use host::{Host, stretched};
pub use identity::NodeIdentity;
pub use layer::{ImageName, LayerImages};
pub use node::Node;
pub use pki::{Identity, Pki};
pub use plan::{ClusterPlan, ImageFiles, Size, host_cpu};
pub use pod_manifest::{Controller, ControllerKind, PodManifest};
pub use pods::PodRef;
pub use settings::Settings;
pub use stage::{Phase, SealedFile, Stage, StageManifest};
pub use stage_name::{Has, StageName, UnknownStage};
pub use stages::Stages;
pub use workload::{WORKLOAD_IMAGE, WORKLOAD_SELECTOR, WORKLOAD_SERVICE};
