//! What a run is going to do, as data: which scenarios, which phases, how long, and with how much
//! of this machine.

pub(crate) mod capacity;
pub(crate) mod durations;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod forecast;
pub(crate) mod outline;
pub(crate) mod partition;
pub(crate) mod phase;
pub(crate) mod scenarios;
pub(crate) mod select;
pub(crate) mod shard;
