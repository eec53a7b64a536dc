//! A cluster for the person at the terminal, and the ways into it.

pub(crate) mod access;
pub(crate) mod capture;
pub(crate) mod impair;
pub(crate) mod keep;
pub(crate) mod up;
