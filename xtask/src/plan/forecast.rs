//! How much longer a run takes, by its plan.

use std::time::Duration;

use crate::plan::durations::Durations;
use crate::plan::outline::Plan;
use crate::plan::phase::Phase;

/// Each phase of a plan, with its estimate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forecast(Vec<(Phase, Duration)>);

impl Forecast {
    pub(crate) fn of(plan: &Plan, measured: &Durations) -> Self {
        let phases = plan.phases.iter();
        Self(
            phases
                .map(|(phase, _)| (*phase, plan.estimate(*phase, measured)))
                .collect(),
        )
    }

    /// What is left when a phase begins; nothing when it was not planned.
    pub(crate) fn left_from(&self, phase: Phase) -> Option<Duration> {
        let begins = self.0.iter().position(|(planned, _)| *planned == phase)?;
        Some(
            self.0
                .iter()
                .skip(begins)
                .map(|(_, estimate)| *estimate)
                .sum(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::outline::{Need, tests::fresh};

    #[test]
    fn what_is_left_shrinks_phase_by_phase() {
        let plan = fresh();
        let forecast = Forecast::of(&plan, &Durations::default());
        let left = |phase| forecast.left_from(phase).unwrap();
        let measured = Durations::default();
        let of = |phase| plan.estimate(phase, &measured);
        assert_eq!(left(Phase::Scenarios), of(Phase::Scenarios));
        assert_eq!(left(Phase::Stage), of(Phase::Stage) + of(Phase::Scenarios));
        assert_eq!(forecast.left_from(Phase::Layer), None);
        let cached = Plan {
            phases: vec![(Phase::Stage, Need::Cached(String::new()))],
            ..plan
        };
        let forecast = Forecast::of(&cached, &measured);
        assert_eq!(
            forecast.left_from(Phase::Stage),
            Some(Duration::from_secs(1))
        );
    }
}
