//! How long each phase took when it was last done here: the next plan's estimates.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use podwire_vm::Accelerator;
use serde::{Deserialize, Serialize};

use crate::plan::Phase;

const FILE: &str = "durations.json";

/// Seconds by phase and accelerator; for the scenarios, per scenario.
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

    pub(crate) fn get(&self, phase: Phase, accelerator: Option<Accelerator>) -> Option<f64> {
        self.0.get(&key(phase, accelerator)).copied()
    }

    pub(crate) fn set(&mut self, phase: Phase, accelerator: Option<Accelerator>, seconds: f64) {
        self.0.insert(key(phase, accelerator), seconds);
    }
}

fn key(phase: Phase, accelerator: Option<Accelerator>) -> String {
    let name = phase.name();
    match (phase, accelerator) {
        // No guest runs in these.
        (Phase::Packages | Phase::Tools | Phase::Bundle | Phase::Programs, _) | (_, None) => {
            name.to_owned()
        }
        (_, Some(accelerator)) => format!("{name} ({accelerator})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded_and_a_damaged_file_is_as_good_as_none() {
        let cache = tempfile::tempdir().unwrap();
        let mut durations = Durations::default();
        durations.set(Phase::Stage, Some(Accelerator::Tcg), 170.5);
        durations.set(Phase::Bundle, Some(Accelerator::Tcg), 300.0);
        durations.store(cache.path()).unwrap();
        let loaded = Durations::load(cache.path());
        assert_eq!(loaded, durations);
        assert_eq!(loaded.get(Phase::Stage, Some(Accelerator::Kvm)), None);
        assert_eq!(
            loaded.get(Phase::Bundle, Some(Accelerator::Kvm)),
            Some(300.0)
        );
        fs::write(cache.path().join(FILE), "{").unwrap();
        assert_eq!(Durations::load(cache.path()), Durations::default());
    }
}
