//! How long each phase and each scenario took when it was last done here: the next plan's estimates.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use podwire_vm::Accelerator;
use serde::{Deserialize, Serialize};

use crate::plan::Phase;

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

    pub(crate) fn scenario(&self, name: &str, accelerator: Option<Accelerator>) -> Option<f64> {
        self.0.get(&scenario_key(name, accelerator)).copied()
    }

    pub(crate) fn set_scenario(
        &mut self,
        name: &str,
        accelerator: Option<Accelerator>,
        seconds: f64,
    ) {
        self.0.insert(scenario_key(name, accelerator), seconds);
    }
}

/// A scenario as these times know it: in another cell it takes another time.
pub(crate) fn on_cell(name: &str, cell: &str) -> String {
    format!("{name} on {cell}")
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
        Phase::Packages | Phase::Tools | Phase::Bundle | Phase::OwnBundle | Phase::Programs => {
            phase.name().to_owned()
        }
        _ => on(phase.name(), accelerator),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded_and_a_damaged_file_is_as_good_as_none() {
        let cache = tempfile::tempdir().unwrap();
        let mut durations = Durations::default();
        durations.set_phase(Phase::Stage, Some(Accelerator::Tcg), 170.5);
        durations.set_phase(Phase::Bundle, Some(Accelerator::Tcg), 300.0);
        durations.store(cache.path()).unwrap();
        let loaded = Durations::load(cache.path());
        assert_eq!(loaded, durations);
        assert_eq!(loaded.phase(Phase::Stage, Some(Accelerator::Kvm)), None);
        assert_eq!(
            loaded.phase(Phase::Bundle, Some(Accelerator::Kvm)),
            Some(300.0)
        );
        fs::write(cache.path().join(FILE), "{").unwrap();
        assert_eq!(Durations::load(cache.path()), Durations::default());
    }
}
