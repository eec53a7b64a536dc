//! What came of a run, as data, and the ways to say it.

pub(crate) mod breaks;
pub(crate) mod compare;
mod died;
pub(crate) mod files;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod join;
pub(crate) mod junit;
pub(crate) mod left;
pub(crate) mod merge;
mod own;
pub(crate) mod page;
pub(crate) mod results;
pub(crate) mod summary;
pub(crate) mod whole;
