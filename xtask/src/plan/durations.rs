//! How long each phase and each scenario took when it was last done here: the next plan's estimates.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use podwire_scenario::{PREPARATION, SABOTAGE};
use podwire_vm::Accelerator;
use serde::{Deserialize, Serialize};

use crate::plan::phase::Phase;

const FILE: &str = "durations.json";

/// Seconds by phase or scenario, and accelerator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Durations(BTreeMap<String, f64>);

impl Durations {
    /// What the cache knows; nothing when it has no such file, or one that does not parse.
    pub(crate) fn load(cache: &Path) -> Self {
        fs::read(cache.join(FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub(crate) fn store(&self, cache: &Path) -> anyhow::Result<()> {
        let beside = tempfile::NamedTempFile::new_in(cache)?;
        serde_json::to_writer_pretty(&beside, self)?;
        beside.persist(cache.join(FILE))?;
        Ok(())
    }

    pub(crate) fn phase(&self, phase: Phase, accelerator: Option<Accelerator>) -> Option<f64> {
        self.0.get(&key(phase, accelerator)).copied()
    }

    pub(crate) fn set_phase(
        &mut self,
        phase: Phase,
        accelerator: Option<Accelerator>,
        seconds: f64,
    ) {
        self.0.insert(key(phase, accelerator), seconds);
    }

    /// A scenario that runs once, all of it.
    pub(crate) fn scenario(&self, name: &str, accelerator: Option<Accelerator>) -> Option<f64> {
        self.0.get(&scenario_key(name, accelerator)).copied()
    }

    /// What of it is not done again when it is repeated: its preparation and its sabotages.
    pub(crate) fn once(&self, name: &str, accelerator: Option<Accelerator>) -> Option<f64> {
        self.0.get(&once_key(name, accelerator)).copied()
    }

    pub(crate) fn set_scenario(
        &mut self,
        name: &str,
        accelerator: Option<Accelerator>,
        ScenarioTime { all, once }: ScenarioTime,
    ) {
        self.0.insert(scenario_key(name, accelerator), all);
        self.0.insert(once_key(name, accelerator), once);
    }
}

/// Seconds of a scenario that was not repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ScenarioTime {
    /// All of it.
    pub(crate) all: f64,
    /// What a repetition would not do again: preparation and sabotages.
    pub(crate) once: f64,
}

impl ScenarioTime {
    /// From the seconds of one that ran so many times, and what its parts took.
    pub(crate) fn seen(seconds: f64, repeat: u32, parts: &BTreeMap<String, f64>) -> Self {
        let done_once = |name: &str| name == PREPARATION || name.starts_with(SABOTAGE);
        let once = parts.iter().filter(|(name, _)| done_once(name));
        let once: f64 = once.map(|(_, seconds)| seconds).sum();
        Self {
            all: (seconds - once) / f64::from(repeat.max(1)) + once,
            once,
        }
    }
}

/// A scenario as these times know it: in another cell it takes another time.
pub(crate) fn on_cell(name: &str, cell: &str) -> String {
    format!("{name} on {cell}")
}

fn once_key(name: &str, accelerator: Option<Accelerator>) -> String {
    on(&format!("sabotages of {name}"), accelerator)
}

fn scenario_key(name: &str, accelerator: Option<Accelerator>) -> String {
    on(&format!("scenario {name}"), accelerator)
}

fn on(what: &str, accelerator: Option<Accelerator>) -> String {
    accelerator.map_or_else(
        || what.to_owned(),
        |accelerator| format!("{what} ({accelerator})"),
    )
}

fn key(phase: Phase, accelerator: Option<Accelerator>) -> String {
    match phase {
        // No guest runs in these.
        Phase::Packages
        | Phase::Tools
        | Phase::Bundle
        | Phase::OwnBundle
        | Phase::KubeRouter
        | Phase::ConformanceTests
        | Phase::PodImages
        | Phase::Programs => phase.name().to_owned(),
        _ => on(phase.name(), accelerator),
    }
}

#[cfg(test)]
mod tests {
    use podwire_vm::KvmProcessor;

    use super::*;

    #[test]
    fn a_repeated_scenario_tells_what_one_run_of_it_takes() {
        let parts = [
            ("preparation", 20.0),
            ("sabotage no-route: clone", 5.0),
            ("sabotage no-route: run", 25.0),
            ("scenario: clone", 4.0),
            ("scenario: run", 6.0),
            ("scenario 2: clone", 5.0),
            ("scenario 2: run", 7.0),
            ("waiting for a place", 360.0),
        ];
        let parts = parts.map(|(name, seconds)| (name.to_owned(), seconds));
        let seen = ScenarioTime::seen(74.0, 2, &BTreeMap::from(parts));
        let (all, once) = (62.0, 50.0);
        assert_eq!(seen, ScenarioTime { all, once });
    }

    #[test]
    fn what_was_stored_is_loaded_and_a_damaged_file_is_as_good_as_none() {
        let cache = tempfile::tempdir().unwrap();
        let mut durations = Durations::default();
        durations.set_phase(Phase::Stage, Some(Accelerator::Tcg), 170.5);
        durations.set_phase(Phase::Bundle, Some(Accelerator::Tcg), 300.0);
        durations.store(cache.path()).unwrap();
        let loaded = Durations::load(cache.path());
        assert_eq!(loaded, durations);
        assert_eq!(
            loaded.phase(Phase::Stage, Some(Accelerator::Kvm(KvmProcessor::HOST))),
            None
        );
        assert_eq!(
            loaded.phase(Phase::Bundle, Some(Accelerator::Kvm(KvmProcessor::HOST))),
            Some(300.0)
        );
        fs::write(cache.path().join(FILE), "{").unwrap();
        assert_eq!(Durations::load(cache.path()), Durations::default());
    }
}
