//! The control plane by hand (chapter A).

pub(crate) mod all_addresses;
pub(crate) mod first_start;
pub(crate) mod serving_names;
