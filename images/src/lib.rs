//! What a cluster is made of, built on this host and kept in one cache folder: the Kubernetes
//! bundle, the OCI images, the machine images, and the tools that no package gives.
//!
//! Every artefact is a folder named by the digest of its inputs, sealed with the sizes and digests
//! of its files, and renamed into place whole: one that was cut short, truncated or altered is
//! never used. See [`Cache`].

mod address;
mod cache;
mod command;
mod digest;
mod error;
mod files;
mod layout;
mod registry;
#[cfg(test)]
mod test_host;

pub mod bundle;
pub mod download;
pub mod host;
pub mod image;
pub mod oci;
pub mod pod_network;
pub mod probe;
pub mod sources;
pub mod tools;
pub mod yaml;

use std::path::Path;

use podwire_process::{Report, Spawner};

pub use address::{Address, NoAddress, hidden};
pub use bundle::{Bundle, BundleManifest, BundleOrder, Provenance};
pub use cache::{
    Cache, CacheError, CacheLock, Check, Disk, Entry, Found, Kind, Made, Removal, Room, SshKeys,
    Staging, allocated, victims,
};
pub use digest::{Digest, Inputs, NoDigest, sha256_file};
pub use download::{DownloadError, Downloader};
pub use error::Error;
pub use image::{BuiltImage, ImageManifest, NodeImage};
pub use sources::{SourceKey, Sources};

/// What every build needs: where to keep things, how to start programs, whom to tell.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    /// Where the results are kept.
    pub cache: &'a Cache,
    /// Starts the host's programs.
    pub spawner: &'a Spawner,
    /// Told about progress.
    pub report: &'a dyn Report,
    /// The project's root: recipes, bundle pins and the probe's source are below it.
    pub source: &'a Path,
}
