//! What a run is going to do, as data: printed first, then done.

use std::collections::BTreeMap;
use std::time::Duration;

use podwire_vm::Accelerator;

use crate::plan::capacity::{self, Appetite, KEEP_FREE_MIB};
use crate::plan::durations::Durations;
use crate::plan::phase::Phase;
use crate::say::text::{about, size, table};

/// Whether a phase has anything to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// The cache has it, under this name.
    Cached(String),
    /// It is to be made; what is missing.
    Missing(String),
    /// It is done in every run.
    Always(String),
}

/// The machine, as far as a plan is about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    /// Bytes.
    pub(crate) memory_available: u64,
    /// Bytes, where the cache is.
    pub(crate) disk_available: u64,
    /// Bytes of the cache that give way when that is not enough.
    pub(crate) disk_giving_way: u64,
    /// `None`: not judged yet.
    pub(crate) accelerator: Option<Accelerator>,
}

/// A scenario that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// As the measured times know it, see [`durations::on_cell`](crate::plan::durations::on_cell).
    pub(crate) name: String,
    /// How often it runs.
    pub(crate) repeat: u32,
    /// What is done once, each in a clone of its own: sabotages, and the preparation if it has one.
    pub(crate) once: usize,
}

impl Planned {
    /// Seconds: as long as last time, else by what one clone takes.
    fn seconds(
        &self,
        measured: &Durations,
        accelerator: Option<Accelerator>,
        clone_seconds: f64,
    ) -> f64 {
        let all = measured.scenario(&self.name, accelerator);
        let all = all.unwrap_or(clone_seconds * self.clones());
        let once = measured.once(&self.name, accelerator);
        let once = once.unwrap_or(all * (1.0 - 1.0 / self.clones()));
        let runs = (all - once) * f64::from(self.repeat);
        // With `--break` there are no sabotages.
        if self.once == 0 { runs } else { runs + once }
    }

    /// How many clones it takes when it runs once.
    #[expect(clippy::cast_precision_loss, reason = "sabotages are few")]
    fn clones(&self) -> f64 {
        1.0 + self.once as f64
    }
}

/// A run before it is done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) machine: Machine,
    pub(crate) phases: Vec<(Phase, Need)>,
    /// Memory of all the cluster's machines together, MiB.
    pub(crate) appetite: Appetite,
    /// How many stages there must be room for when none is cached.
    pub(crate) stages: usize,
    /// The scenarios that run.
    pub(crate) scenarios: Vec<Planned>,
    /// How many of them at once.
    pub(crate) at_once: usize,
}

impl Plan {
    /// About how long a phase takes: as long as last time on this machine, else by the table.
    pub(crate) fn estimate(&self, phase: Phase, measured: &Durations) -> Duration {
        let need = self.phases.iter().find(|(planned, _)| *planned == phase);
        if matches!(need, None | Some((_, Need::Cached(_)))) {
            return Duration::from_secs(1);
        }
        let accelerator = self.machine.accelerator;
        let table = self.table(phase);
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let (at_once, cores) = (
            self.at_once.max(1) as f64,
            self.machine.cores.clamp(1, 8) as f64,
        );
        let seconds = if phase == Phase::Scenarios {
            self.expected(measured).values().sum::<f64>() / at_once
        } else if let Some(seconds) = measured.phase(phase, accelerator) {
            seconds
        } else if phase.compiles() {
            table * 2.0 / cores
        } else {
            table
        };
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// Seconds by the table.
    fn table(&self, phase: Phase) -> f64 {
        let (kvm, emulated) = phase.seconds();
        // Unknown means emulated: better early than late.
        if self.machine.accelerator.is_some_and(Accelerator::is_kvm) {
            kvm
        } else {
            emulated
        }
    }

    /// Seconds that each scenario should take, by its name on its cell. One that never ran here is
    /// as slow, clone by clone, as those of them that did.
    pub(crate) fn expected(&self, measured: &Durations) -> BTreeMap<String, f64> {
        let accelerator = self.machine.accelerator;
        let (mut seconds, mut clones) = (0.0, 0.0);
        for planned in &self.scenarios {
            if let Some(all) = measured.scenario(&planned.name, accelerator) {
                seconds += all;
                clones += planned.clones();
            }
        }
        let clone_seconds = if clones > 0.0 {
            seconds / clones
        } else {
            self.table(Phase::Scenarios)
        };
        let scenarios = self.scenarios.iter();
        scenarios
            .map(|planned| {
                let seconds = planned.seconds(measured, accelerator, clone_seconds);
                (planned.name.clone(), seconds)
            })
            .collect()
    }

    /// Bytes of disk that the run takes at its peak.
    pub(crate) fn disk_needed(&self) -> u64 {
        let (mut kept, mut peak) = (0, 0);
        for (phase, need) in &self.phases {
            if matches!(need, Need::Cached(_)) {
                continue;
            }
            let (stays, working) = phase.disk_mib();
            kept += stays;
            peak = peak.max(kept + working);
            match phase {
                Phase::Stage => {
                    kept += capacity::disk_needed(self.appetite.guests_mib, self.stages as u64);
                }
                Phase::Scenarios => peak = peak.max(kept + working * self.at_once as u64),
                _ => {}
            }
        }
        peak.max(kept) << 20
    }

    /// Bytes of memory that the run needs: for one clone at a time, and what stays free.
    pub(crate) fn memory_needed(&self) -> u64 {
        (self.appetite.clone_mib + KEEP_FREE_MIB) << 20
    }

    /// What this machine has too little of, with needed and available.
    pub(crate) fn shortages(&self) -> Vec<String> {
        let mut shortages = Vec::new();
        for (what, needed, available, help) in [
            (
                "disk space",
                self.disk_needed(),
                self.machine.disk_available + self.machine.disk_giving_way,
                "free some, run `cargo xtask clean --all`, or point PODWIRE_CACHE at a larger disk",
            ),
            (
                "memory",
                self.memory_needed(),
                self.machine.memory_available,
                "end other programs, or take fewer machines with --nodes",
            ),
        ] {
            if available < needed {
                shortages.push(format!(
                    "too little {what}: {} needed, {} available; {help}",
                    size(needed),
                    size(available)
                ));
            }
        }
        shortages
    }

    /// The plan in words.
    pub(crate) fn render(&self, measured: &Durations) -> String {
        let mut rows = Vec::new();
        let mut total = Duration::ZERO;
        for (phase, need) in &self.phases {
            let estimate = self.estimate(*phase, measured);
            total += estimate;
            let (state, detail) = match need {
                Need::Cached(name) => ("cached", name.as_str()),
                Need::Missing(what) => ("to do", what.as_str()),
                Need::Always(what) => ("run", what.as_str()),
            };
            rows.push(vec![
                format!("  {}", phase.name()),
                state.to_owned(),
                if state == "cached" {
                    String::new()
                } else {
                    about(estimate)
                },
                if detail.is_empty() {
                    phase.purpose().to_owned()
                } else if state == "cached" {
                    detail.to_owned()
                } else {
                    format!("{} ({detail})", phase.purpose())
                },
            ]);
        }
        let accelerator = self
            .machine
            .accelerator
            .map_or("not judged yet".to_owned(), |accelerator| {
                accelerator.to_string()
            });
        let giving_way = match self.machine.disk_giving_way {
            0 => String::new(),
            bytes => format!(
                ", and up to {} of stages that it does not need",
                size(bytes)
            ),
        };
        format!(
            "Plan: about {} on {} cores, accelerator {accelerator}; needs {} of disk ({} \
             available{giving_way}) and {} of memory ({} available)\n{}",
            about(total),
            self.machine.cores,
            size(self.disk_needed()),
            size(self.machine.disk_available),
            size(self.memory_needed()),
            size(self.machine.memory_available),
            table(&rows)
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::durations::ScenarioTime;

    fn planned(name: &str, repeat: u32, once: usize) -> Planned {
        Planned {
            name: name.into(),
            repeat,
            once,
        }
    }

    pub(crate) fn fresh() -> Plan {
        Plan {
            machine: Machine {
                cores: 2,
                memory_available: 7 << 30,
                disk_available: 40 << 30,
                disk_giving_way: 0,
                accelerator: None,
            },
            phases: Phase::ALL
                .into_iter()
                .map(|phase| match phase {
                    Phase::Packages => (phase, Need::Missing("qemu-system-x86, mmdebstrap".into())),
                    Phase::Scenarios => (phase, Need::Always("8 scenarios".into())),
                    Phase::HarnessTests => (phase, Need::Always(String::new())),
                    Phase::Tools => (phase, Need::Cached("cargo-nextest 0.9".into())),
                    _ => (phase, Need::Missing(String::new())),
                })
                .collect(),
            appetite: Appetite {
                guests_mib: 4096,
                clone_mib: 5056,
            },
            stages: 6,
            scenarios: (1..=8)
                .map(|number| planned(&format!("scenario_{number}"), 1, 2))
                .collect(),
            at_once: 1,
        }
    }

    #[test]
    fn a_fresh_machine_s_plan_says_what_is_done_and_how_long_it_takes() {
        insta::assert_snapshot!(fresh().render(&Durations::default()));
    }

    #[test]
    fn what_was_measured_last_replaces_the_table() {
        let mut measured = Durations::default();
        let plan = fresh();
        measured.set_phase(Phase::Bundle, None, 100.0);
        assert_eq!(
            plan.estimate(Phase::Bundle, &measured),
            Duration::from_secs(100)
        );
        // Each scenario by itself: a filter must not make the estimate of all of them wrong.
        for (scenario, all) in [("scenario_3", 50.0), ("scenario_4", 130.0)] {
            measured.set_scenario(scenario, None, ScenarioTime { all, once: 20.0 });
        }
        // Those that never ran here: 180 s for six clones are 30 s for each.
        assert_eq!(
            plan.estimate(Phase::Scenarios, &measured),
            Duration::from_secs(180 + 6 * 90)
        );
        assert_eq!(
            plan.estimate(Phase::Tools, &measured),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn a_repeated_scenario_is_sabotaged_once() {
        let mut plan = fresh();
        let mut measured = Durations::default();
        plan.scenarios = vec![planned("new", 10, 3)];
        // Ten runs and three sabotages, 20 s each.
        assert_eq!(plan.expected(&measured)["new"], 260.0);
        plan.scenarios = vec![planned("known", 10, 3)];
        let (all, once) = (100.0, 70.0);
        measured.set_scenario("known", None, ScenarioTime { all, once });
        assert_eq!(plan.expected(&measured)["known"], 370.0);
        plan.scenarios = vec![planned("known", 1, 0)];
        assert_eq!(plan.expected(&measured)["known"], 30.0);
    }

    #[test]
    fn too_little_memory_or_disk_is_said_with_both_numbers() {
        let mut plan = fresh();
        assert_eq!(plan.shortages(), Vec::<String>::new());
        plan.machine.memory_available = 2 << 30;
        plan.machine.disk_available = 3 << 30;
        insta::assert_snapshot!(plan.shortages().join("\n"));
        plan.machine.disk_giving_way = 20 << 30;
        let rest = plan.shortages().join("\n");
        assert!(rest.starts_with("too little memory"), "{rest}");
    }

    #[test]
    fn cached_parts_need_no_disk() {
        let mut plan = fresh();
        let fresh_disk = plan.disk_needed();
        for (_, need) in &mut plan.phases {
            *need = Need::Cached("x".into());
        }
        assert!(fresh_disk > 8 << 30);
        assert_eq!(plan.disk_needed(), 0);
    }
}
