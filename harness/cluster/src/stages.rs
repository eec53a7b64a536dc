//! Clusters that are frozen: how each is made of its parent, kept, and brought back to life.

pub(crate) mod build;
pub(crate) mod clone;
pub(crate) mod folder;
pub(crate) mod layer;
pub(crate) mod quiet;
pub(crate) mod stage;
