//! A cluster for the person at the terminal, and the ways into it.

pub(crate) mod access;
pub(crate) mod capture;
mod clone;
pub(crate) mod forward;
pub(crate) mod impair;
pub(crate) mod keep;
pub(crate) mod up;
pub(crate) mod with;
