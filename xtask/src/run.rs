//! A run of scenarios, from what was asked for to what they left.

pub(crate) mod build;
pub(crate) mod compare;
mod look;
pub(crate) mod nextest;
mod order;
pub(crate) mod pace;
pub(crate) mod parts;
mod prepare_only;
pub(crate) mod programs;
mod revision;
mod share;
mod side_args;
mod sides;
pub(crate) mod suite;
pub(crate) mod test;
mod under_way;
