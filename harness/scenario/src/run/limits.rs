//! The limits of a scenario's process, one inside the other.

use std::time::Duration;

use podwire_cluster::{EVIDENCE, stretched};

/// Host time, before stretching, for the machines to end and their files to go.
const ENDING: Duration = Duration::from_secs(60);

/// How long a process waits for its turn at the most: whoever is before it may be a cluster that a
/// person has left running overnight.
const TURN: Duration = Duration::from_hours(24);

/// The limits of the processes of one cell's scenarios, in host time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// How many times slower a guest is than one under KVM on a usual machine, with as many clones
    /// beside it as there may be.
    pub speed_factor: f64,
    /// How often each scenario runs.
    pub repeat: u32,
}

impl Limits {
    /// For all runs of a scenario and its sabotages, from its turn on; `limit` is
    /// [`Scenario::limit`](crate::Scenario::limit).
    pub fn scenario(&self, limit: Duration) -> Duration {
        stretched(limit, self.speed_factor) * self.repeat
    }

    /// For the evidence of a failure.
    pub fn evidence(&self) -> Duration {
        stretched(EVIDENCE, self.speed_factor)
    }

    /// For a process that is told to end: the evidence, and the end of its machines.
    pub fn grace(&self) -> Duration {
        self.evidence() + stretched(ENDING, self.speed_factor)
    }

    /// For the whole process of a scenario, from its start. Far above all that may take its time in
    /// it: only a process that hangs comes so far.
    pub fn process(&self, limit: Duration) -> Duration {
        TURN + (self.scenario(limit) + self.grace()) * 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_limit_holds_the_next(
            seconds in 1_u64..3600,
            wait in 1_u64..3600,
            speed_factor in 0.1_f64..1000.0,
            repeat in 1_u32..1000,
        ) {
            let limits = Limits { speed_factor, repeat };
            let limit = Duration::from_secs(seconds);
            let scenario = limits.scenario(limit);
            let wait = stretched(Duration::from_secs(wait.min(seconds)), speed_factor);
            prop_assert!(wait <= scenario);
            prop_assert!(limits.evidence() < limits.grace());
            prop_assert!(TURN + scenario + limits.grace() < limits.process(limit));
        }
    }
}
