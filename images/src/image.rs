//! Machine images: a recipe, a lock of package versions, and the build without loop devices; or a cloud
//! image, a pin, and one boot with cloud-init.

mod build;
mod cloud;
mod conformance;
mod contents;
mod deb;
mod debian_root;
mod inquiry;
mod kernel;
mod lock;
mod network;
mod privilege;
mod recipe;
mod stored;

pub(crate) use contents::programs_of;

pub use build::{bump, get, remove_leftover};
pub use cloud::{CloudOrder, ImageFrom, UBUNTU, UnknownFrom};
pub use conformance::{CONFORMANCE, bump_conformance, cached_conformance, conformance};
pub use inquiry::{BuiltImage, ImageManifest, ImageRequest, NodeImage, Outdated, System};
pub use kernel::{KernelPackageError, OwnKernel};
pub use lock::{Lock, LockDifference};
pub use network::{NamedNetwork, bump_network, cached_network, network};
pub use privilege::{Privilege, privilege};
pub use recipe::{BASE, NODE, Recipe, RecipeFile};
pub use stored::{cached, open};
