//! The control plane by hand (chapter A).

pub(crate) mod serving_names;
