//! Machine images: a recipe, a lock of package versions, and the build without loop devices; or a cloud
//! image, a pin, and one boot with cloud-init.

mod build;
mod cloud;
mod contents;
mod deb;
mod lock;
mod privilege;
mod recipe;

pub(crate) use contents::programs_of;

pub use build::{
    BuiltImage, ImageManifest, ImageRequest, NodeImage, Outdated, System, bump, cached, get, open,
    remove_leftover,
};
pub use cloud::{CloudOrder, ImageFrom, UBUNTU, UnknownFrom};
pub use lock::{Lock, LockDifference};
pub use privilege::{Privilege, privilege};
pub use recipe::{BASE, NODE, Recipe, RecipeFile};
