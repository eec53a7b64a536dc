//! What a run has said about each scenario and each of its sabotages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context as _;
use podwire_scenario::ScenarioResult;
use rustix::process::Pid;

use super::tally::how;
use crate::report::results::{Results, Verdict};

/// By the scenario and its cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdicts(BTreeMap<String, Said>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    scenario: String,
    outcome: Verdict,
    /// Whether each sabotage was caught.
    sabotages: BTreeMap<String, bool>,
}

impl Verdicts {
    /// Of a run's folder; nothing when it has no results.
    ///
    /// # Errors
    /// That there are some which cannot be read, or are no results: half written ones, for example.
    pub(super) fn read(run: &Path) -> anyhow::Result<Option<Self>> {
        let path = run.join("results.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let results: Results = serde_json::from_slice(&text)
            .with_context(|| format!("{} makes no sense", path.display()))?;
        Ok(Some(Self::of(&results)))
    }

    fn of(results: &Results) -> Self {
        let scenarios = results.scenarios.iter().map(|record| {
            let sabotages = record.sabotages.iter();
            let said = Said {
                scenario: record.name.clone(),
                outcome: record.outcome,
                sabotages: sabotages.map(|it| (it.name.clone(), it.caught)).collect(),
            };
            (format!("{} on {}", record.name, record.cell), said)
        });
        Self(scenarios.collect())
    }

    /// What differs from those of the reference, in words; `all` scenarios are to be in both, or those
    /// that are not count for nothing.
    pub(super) fn differences(&self, reference: &Self, all: bool) -> Vec<String> {
        let missing = reference
            .0
            .keys()
            .filter(|name| all && !self.0.contains_key(*name));
        let mut found: Vec<String> = missing.map(|name| format!("{name}: missing")).collect();
        for (name, said) in &self.0 {
            let Some(before) = reference.0.get(name) else {
                if all {
                    found.push(format!("{name}: not in the reference"));
                }
                continue;
            };
            if said.outcome != before.outcome {
                found.push(format!(
                    "{name}: {} instead of {}",
                    said.outcome, before.outcome
                ));
            }
            let names: BTreeSet<&String> = said
                .sabotages
                .keys()
                .chain(before.sabotages.keys())
                .collect();
            for sabotage in names {
                let word = |of: &Said| match of.sabotages.get(sabotage) {
                    None => "without a verdict",
                    Some(true) => "caught",
                    Some(false) => "not caught",
                };
                let (now, then) = (word(said), word(before));
                if now != then {
                    found.push(format!(
                        "{name}, sabotage {sabotage}: {now} instead of {then}"
                    ));
                }
            }
        }
        found
    }

    /// What is not as it should be about a run that ended so and says this: it passed, and something ran;
    /// with a reference, it says the same.
    pub(super) fn wrong(
        &self,
        status: ExitStatus,
        reference: Option<(&Self, bool)>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        if status.code() != Some(0) {
            wrong.push(how(status));
        }
        match reference {
            _ if self.count() == 0 => wrong.push("nothing had run".to_owned()),
            Some((reference, all)) => wrong.extend(self.differences(reference, all)),
            None => {}
        }
        wrong
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those of these scenarios that have passed.
    pub(super) fn passed(&self, of: &BTreeSet<String>) -> Vec<String> {
        let passed = self
            .0
            .iter()
            .filter(|(_, said)| said.outcome == Verdict::Passed);
        passed
            .filter(|(_, said)| of.contains(&said.scenario))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// Whom a run has lost.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Scenarios whose process was killed before it had a result.
    pub(super) scenarios: BTreeSet<String>,
    /// Whether xtask itself got a signal that ends it.
    pub(super) xtask: bool,
}

impl Lost {
    /// What cannot be true of what such a run says, by how it ended and by its report; nothing, if all can.
    pub(super) fn belie(
        &self,
        status: ExitStatus,
        said: Option<&Verdicts>,
        reference: &Verdicts,
    ) -> Option<String> {
        let documented = match status.code() {
            Some(code) => [0, 1, 3, 130].contains(&code),
            None => self.xtask,
        };
        if !documented {
            return Some(format!(
                "a run ended with {}, which no run does",
                how(status)
            ));
        }
        let passed = said
            .map(|said| said.passed(&self.scenarios))
            .unwrap_or_default();
        if !passed.is_empty() {
            let passed = passed.join(", ");
            return Some(format!(
                "passed, although killed before the result: {passed}"
            ));
        }
        if status.code() != Some(0) {
            return None;
        }
        let Some(said) = said else {
            return Some("a run ended with 0, and has no report".to_owned());
        };
        let differences = said.differences(reference, false);
        match (said.count(), differences.as_slice()) {
            (0, _) => Some("a run ended with 0, and nothing had run".to_owned()),
            (_, []) => None,
            _ => Some(format!(
                "a run ended with 0, but: {}",
                differences.join("; ")
            )),
        }
    }
}

/// The folder of the run of that process, the newest if others had its number; nothing when it has made
/// none.
pub(super) fn run_of(runs: &Path, process: Pid) -> Option<PathBuf> {
    let number = process.as_raw_nonzero().to_string();
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    // The time comes first: 20261121T130500Z-4711, and -2 behind it for a second one.
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.split('-').nth(1)) == Some(number.as_str())
    };
    entries.map(|entry| entry.path()).filter(named).max()
}

/// Whether a scenario of that run has left a result, on any of its clusters.
pub(super) fn has_result(run: &Path, scenario: &str) -> bool {
    let cells = fs::read_dir(run).into_iter().flatten().flatten();
    cells
        .map(|cell| ScenarioResult::folder(&cell.path(), scenario, 1))
        .any(|folder| folder.join(ScenarioResult::FILE).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn what_a_run_says_otherwise_is_told_scenario_by_scenario() {
        let reference = Verdicts::of(&fixture::results());
        assert_eq!(reference.differences(&reference, true), [""; 0]);
        let none = Verdicts::default();
        assert_eq!(none.differences(&reference, false), [""; 0]);
        assert_eq!(none.differences(&reference, true).len(), reference.count());
        assert_eq!(reference.differences(&none, false), [""; 0]);
        assert_eq!(reference.differences(&none, true).len(), reference.count());

        let mut other = fixture::results();
        other.scenarios[0].outcome = Verdict::Failed;
        other.scenarios[0].sabotages.clear();
        let other = Verdicts::of(&other);
        insta::assert_snapshot!(other.differences(&reference, true).join("\n"), @"
        pod_addresses on by-hand/nftables/routes: failed instead of passed
        pod_addresses on by-hand/nftables/routes, sabotage same_range: without a verdict instead of caught
        ");
    }

    #[test]
    fn half_of_the_results_are_no_results() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Verdicts::read(dir.path()).unwrap(), None);
        let text = serde_json::to_vec(&fixture::results()).unwrap();
        let path = dir.path().join("results.json");
        fs::write(&path, &text).unwrap();
        let read = Verdicts::read(dir.path()).unwrap();
        assert_eq!(read, Some(Verdicts::of(&fixture::results())));
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        Verdicts::read(dir.path()).unwrap_err();
    }

    #[test]
    fn a_run_is_not_believed_what_cannot_be() {
        let reference = Verdicts::of(&fixture::results());
        let mut red = fixture::results();
        red.scenarios[0].outcome = Verdict::Failed;
        let red = Verdicts::of(&red);
        let (code, signal) = (
            |code: i32| ExitStatus::from_raw(code << 8),
            ExitStatus::from_raw,
        );
        let nobody = Lost::default();
        let belied = |lost: &Lost, status, said| lost.belie(status, said, &reference);
        for (status, said) in [
            (code(0), Some(&reference)),
            (code(1), Some(&red)),
            (code(3), None),
            (code(130), None),
        ] {
            assert_eq!(belied(&nobody, status, said), None);
        }
        let xtask = Lost {
            xtask: true,
            ..Lost::default()
        };
        assert_eq!(belied(&xtask, signal(9), None), None);
        let scenario = Lost {
            scenarios: BTreeSet::from([fixture::results().scenarios[0].name.clone()]),
            xtask: false,
        };
        assert_eq!(belied(&scenario, code(1), Some(&red)), None);
        let wrong = [
            belied(&nobody, signal(9), None),
            belied(&nobody, code(101), Some(&red)),
            belied(&nobody, code(0), Some(&red)),
            belied(&nobody, code(0), None),
            belied(&nobody, code(0), Some(&Verdicts::default())),
            belied(&scenario, code(1), Some(&reference)),
        ];
        let wrong = wrong.map(Option::unwrap_or_default).join("\n");
        insta::assert_snapshot!(wrong, @"
        a run ended with signal 9, which no run does
        a run ended with exit code 101, which no run does
        a run ended with 0, but: pod_addresses on by-hand/nftables/routes: failed instead of passed
        a run ended with 0, and has no report
        a run ended with 0, and nothing had run
        passed, although killed before the result: pod_addresses on by-hand/nftables/routes
        ");
    }

    #[test]
    fn a_run_afterwards_that_says_nothing_is_not_as_before() {
        let reference = Verdicts::of(&fixture::results());
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        let none = Verdicts::default();
        let nothing: [&str; 0] = [];
        for to in [None, Some((&reference, true)), Some((&reference, false))] {
            assert_eq!(reference.wrong(code(0), to), nothing);
            assert_eq!(reference.wrong(code(1), to), ["exit code 1"]);
            assert_eq!(none.wrong(code(0), to), ["nothing had run"]);
            assert_eq!(none.wrong(code(3), to), ["exit code 3", "nothing had run"]);
        }
        let mut red = fixture::results();
        red.scenarios[0].outcome = Verdict::Failed;
        let red = Verdicts::of(&red);
        let different = "pod_addresses on by-hand/nftables/routes: failed instead of passed";
        assert_eq!(red.wrong(code(0), Some((&reference, true))), [different]);
    }

    #[test]
    fn a_run_is_found_by_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path();
        let pid = |number| Pid::from_raw(number).unwrap();
        assert_eq!(run_of(&runs.join("none"), pid(7)), None);
        for name in [
            "20261121T130500Z-7",
            "20261121T130501Z-7",
            "20261121T130500Z-7-2",
            "20261121T130502Z-77",
        ] {
            fs::create_dir(runs.join(name)).unwrap();
        }
        assert_eq!(run_of(runs, pid(7)), Some(runs.join("20261121T130501Z-7")));
        assert_eq!(run_of(runs, pid(8)), None);
        let run = runs.join("20261121T130501Z-7");
        assert!(!has_result(&run, "a"));
        let folder = ScenarioResult::folder(&run.join("by-hand-nftables-routes"), "a", 1);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(ScenarioResult::FILE), "{}").unwrap();
        assert!(has_result(&run, "a"));
    }
}
