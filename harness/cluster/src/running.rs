//! What a cluster does when it runs, and what is done to it: the interpreter of steps as well.

pub(crate) mod api;
pub(crate) mod apply;
pub(crate) mod carry_out;
pub(crate) mod cluster;
pub(crate) mod deeds;
pub(crate) mod evidence;
pub(crate) mod gates;
pub(crate) mod host;
pub(crate) mod node;
pub(crate) mod phase;
pub(crate) mod pods;
pub(crate) mod readiness;
pub mod stuck;
pub(crate) mod wake;
