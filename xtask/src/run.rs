//! A run of scenarios, from what was asked for to what they left.

pub(crate) mod build;
pub(crate) mod look;
pub(crate) mod nextest;
pub(crate) mod order;
pub(crate) mod pace;
pub(crate) mod suite;
pub(crate) mod test;
pub(crate) mod under_way;
