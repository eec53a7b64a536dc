//! Machine images: a recipe, a lock of package versions, and the build without loop devices.

mod build;
mod contents;
mod deb;
mod lock;
mod privilege;
mod recipe;

pub(crate) use contents::programs_of;

pub use build::{
    BuiltImage, ImageManifest, ImageRequest, NodeImage, Outdated, bump, cached, get,
    remove_leftover,
};
pub use lock::{Lock, LockDifference};
pub use privilege::{Privilege, privilege};
pub use recipe::{BASE, NODE, Recipe, RecipeFile};
