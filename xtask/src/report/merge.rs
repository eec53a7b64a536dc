//! What came of each scenario, merged of three things: what xtask selected before anything started, what
//! each scenario's process wrote about its attempts, and what nextest saw of those processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use podwire_cluster::Cell;
use podwire_scenario::{
    ContextError, Outcome, PhaseTime, Sabotage, Scenario, ScenarioResult, bare,
};

use crate::plan::select::Selection;
use crate::report::results::{LongStep, ScenarioRecord, TestRecord, Verdict};

/// How many of a scenario's longest steps are told.
const LONGEST: usize = 3;

/// What nextest saw of one test's process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) passed: bool,
    /// Why it did not, in nextest's words.
    pub(crate) message: String,
    pub(crate) seconds: f64,
}

/// What one scenario's attempts left on disk, in order; `None` for one that left no result.
pub(crate) type Attempts = Vec<Option<ScenarioResult>>;

/// Reads what a scenario's attempts left.
///
/// # Errors
/// [`ContextError`] for a result file that cannot be read or understood.
pub(crate) fn attempts(cell_dir: &Path, name: &str) -> Result<Attempts, ContextError> {
    (1..)
        .take_while(|attempt| ScenarioResult::folder(cell_dir, name, *attempt).exists())
        .map(|attempt| ScenarioResult::read(cell_dir, name, attempt))
        .collect()
}

/// How much of a run there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent<'a> {
    /// All of it.
    Whole,
    /// A person ended it.
    CutShort(Unfinished<'a>),
    /// It is not over. What a scenario says of itself counts until nextest has its say.
    UnderWay(Unfinished<'a>),
    /// No scenario was run at all: why.
    Nothing(&'a str),
}

/// Scenarios that have not all come to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfinished<'a> {
    /// Why what has no result has none.
    pub(crate) reason: &'a str,
    /// Those that have none because their process died.
    pub(crate) died: &'a [String],
}

/// What there is of one cell, to be merged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Merged<'a> {
    pub(crate) run_dir: &'a Path,
    pub(crate) cell: Cell,
    pub(crate) selection: &'a Selection,
    /// What nextest saw, by the scenarios' names; nothing when it was not run.
    pub(crate) seen: Option<&'a BTreeMap<String, Seen>>,
    /// Whether the scenarios' sabotages were to be run; those of a broken cluster are not.
    pub(crate) sabotaged: bool,
}

/// What became of the harness's own tests on an image of this recipe, by what nextest saw of them and
/// whether it says that all passed. A report that tells of none, or of none of the failures, fails.
pub(crate) fn harness_tests(
    recipe: &str,
    seen: &BTreeMap<String, Seen>,
    all_passed: bool,
) -> Vec<TestRecord> {
    let mut records = each_test(recipe, seen, |seen| (Verdict::Failed, seen.message.clone()));
    let failure_told = records.iter().any(|it| it.outcome == Verdict::Failed);
    let reason = match all_passed {
        _ if records.is_empty() => "nextest's report tells of none of them",
        false if !failure_told => {
            "nextest says that some failed, and its report does not say which"
        }
        _ => return records,
    };
    records.push(TestRecord {
        name: format!("all of them ({recipe} image)"),
        outcome: Verdict::Failed,
        reason: reason.to_owned(),
        seconds: 0.0,
    });
    records
}

/// The same of tests that somebody has ended, and how. nextest calls failed what was ended as well: whatever
/// had not passed by then is called neither.
pub(crate) fn harness_tests_until(
    recipe: &str,
    seen: &BTreeMap<String, Seen>,
    ended: &str,
) -> Vec<TestRecord> {
    each_test(recipe, seen, |seen| {
        let reason = format!("not passed when it was {ended}");
        (Verdict::Skipped, with_last_words(&reason, Some(seen)))
    })
}

/// A record of each, by what is to be said of one that has not passed.
fn each_test(
    recipe: &str,
    seen: &BTreeMap<String, Seen>,
    not_passed: impl Fn(&Seen) -> (Verdict, String),
) -> Vec<TestRecord> {
    let records = seen.iter().map(|(name, seen)| {
        let (outcome, reason) = match seen.passed {
            true => (Verdict::Passed, seen.message.clone()),
            false => not_passed(seen),
        };
        TestRecord {
            name: format!("{name} ({recipe} image)"),
            outcome,
            reason,
            seconds: seen.seconds,
        }
    });
    records.collect()
}

/// Merges what was selected, what was left on disk and what nextest saw.
pub(crate) fn merge(
    catalogue: &[Scenario],
    merged: &Merged<'_>,
    extent: Extent<'_>,
) -> Vec<ScenarioRecord> {
    let cell_dir = bare::cell_dir(merged.run_dir, merged.cell);
    let nothing = BTreeMap::new();
    let seen = merged.seen.unwrap_or(&nothing);
    let found = |name: &str| attempts(&cell_dir, name);
    let records = merged_with(catalogue, merged, found, seen, extent);
    let records = records.into_iter().map(|record| ScenarioRecord {
        cell: merged.cell.to_string(),
        folder: record
            .folder
            .map(|path| bare::cell_dir(Path::new(""), merged.cell).join(path)),
        ..record
    });
    records.collect()
}

fn merged_with(
    catalogue: &[Scenario],
    merged: &Merged<'_>,
    mut attempts: impl FnMut(&str) -> Result<Attempts, ContextError>,
    seen: &BTreeMap<String, Seen>,
    extent: Extent<'_>,
) -> Vec<ScenarioRecord> {
    let selection = merged.selection;
    let ended_well = Seen {
        passed: true,
        message: String::new(),
        seconds: 0.0,
    };
    catalogue
        .iter()
        .filter_map(|scenario| {
            if let Some(skipped) = selection.skipped.iter().find(|s| s.name == scenario.name) {
                return Some(skipped_record(scenario, &skipped.reason));
            }
            if !selection.scenarios.iter().any(|name| name == scenario.name) {
                return None;
            }
            if let Extent::Nothing(reason) = extent {
                return Some(skipped_record(scenario, reason));
            }
            Some(match attempts(scenario.name) {
                Ok(attempts) => match without_result(scenario.name, &attempts, extent) {
                    Some(reason) => skipped_record(scenario, reason),
                    None => {
                        let sabotages = match merged.sabotaged {
                            true => scenario.sabotages,
                            false => &[],
                        };
                        let seen = match extent {
                            Extent::UnderWay(_) => Some(&ended_well),
                            _ => seen.get(scenario.name),
                        };
                        record(scenario, sabotages, attempts, seen)
                    }
                },
                Err(error) => ScenarioRecord {
                    outcome: Verdict::Failed,
                    ..skipped_record(scenario, &format!("its result is unreadable: {error}"))
                },
            })
        })
        .collect()
}

/// Why a scenario has no result, when that is not its own fault.
fn without_result<'a>(name: &str, attempts: &Attempts, extent: Extent<'a>) -> Option<&'a str> {
    match extent {
        Extent::CutShort(unfinished) | Extent::UnderWay(unfinished) => {
            let without = attempts.last().is_none_or(Option::is_none);
            let died = unfinished.died.iter().any(|died| died == name);
            (without && !died).then_some(unfinished.reason)
        }
        Extent::Whole | Extent::Nothing(_) => None,
    }
}

fn skipped_record(scenario: &Scenario, reason: &str) -> ScenarioRecord {
    ScenarioRecord {
        name: scenario.name.to_owned(),
        cell: String::new(),
        covers: scenario.ids().into_iter().map(str::to_owned).collect(),
        outcome: Verdict::Skipped,
        reason: reason.to_owned(),
        attempts: 0,
        seconds: 0.0,
        sabotages: Vec::new(),
        parts: BTreeMap::new(),
        longest: Vec::new(),
        cases: Vec::new(),
        wire: Vec::new(),
        readings: Vec::new(),
        processors: None,
        folder: None,
        again: None,
        part: None,
    }
}

fn record(
    scenario: &Scenario,
    sabotages: &[Sabotage],
    attempts: Attempts,
    seen: Option<&Seen>,
) -> ScenarioRecord {
    let count = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
    let seconds = attempts
        .iter()
        .flatten()
        .map(|attempt| attempt.seconds)
        .sum();
    let Some(last) = attempts.into_iter().next_back() else {
        return ScenarioRecord {
            outcome: Verdict::Failed,
            reason: with_last_words("it was selected but never started", seen),
            ..skipped_record(scenario, "")
        };
    };
    let folder = Some(PathBuf::from(format!(
        "scenarios/{}/attempt-{count}",
        scenario.name
    )));
    let Some(last) = last else {
        return ScenarioRecord {
            outcome: Verdict::Failed,
            reason: with_last_words("it started but left no result", seen),
            attempts: count,
            seconds: seen.map_or(seconds, |seen| seen.seconds),
            folder,
            ..skipped_record(scenario, "")
        };
    };
    let uncaught: Vec<&str> = last
        .sabotages
        .iter()
        .filter(|sabotage| !sabotage.caught)
        .map(|sabotage| sabotage.name.as_str())
        .collect();
    let declared: Vec<&str> = sabotages.iter().map(|it| it.name).collect();
    let told: Vec<&str> = last.sabotages.iter().map(|it| it.name.as_str()).collect();
    let processors = last.processors();
    let (outcome, reason) = match last.outcome {
        Outcome::Failed => (Verdict::Failed, last.reason),
        Outcome::Passed if !uncaught.is_empty() => (
            Verdict::Failed,
            format!("sabotage not caught: {}", uncaught.join(", ")),
        ),
        Outcome::Passed if count > 1 => (
            Verdict::Failed,
            format!("it ran {count} times until it passed, and nothing is retried"),
        ),
        Outcome::Passed if last.name != scenario.name => (
            Verdict::Failed,
            format!("its result is that of {}", last.name),
        ),
        Outcome::Passed if !declared.eq(&told) => (
            Verdict::Failed,
            format!(
                "its result tells of other sabotages than it declares: of {}, not of {}",
                listed(&told),
                listed(&declared)
            ),
        ),
        // A process may still come to grief after it has written its result.
        Outcome::Passed if seen.is_none_or(|seen| !seen.passed) => (
            Verdict::Failed,
            with_last_words(
                "its result says passed, but its process did not end well",
                seen,
            ),
        ),
        Outcome::Passed => (Verdict::Passed, String::new()),
    };
    ScenarioRecord {
        name: scenario.name.to_owned(),
        cell: String::new(),
        covers: scenario.ids().into_iter().map(str::to_owned).collect(),
        outcome,
        reason,
        attempts: count,
        seconds,
        processors,
        sabotages: last.sabotages,
        longest: longest(&last.phases),
        parts: last
            .phases
            .into_iter()
            .map(|phase| (phase.name, phase.seconds))
            .collect(),
        cases: last.cases,
        wire: last.wire,
        readings: last.readings,
        folder: folder.filter(|_| outcome == Verdict::Failed),
        again: None,
        part: None,
    }
}

/// Of all its runs.
fn longest(phases: &[PhaseTime]) -> Vec<LongStep> {
    let steps = phases.iter().flat_map(|phase| {
        phase.longest.iter().map(|time| LongStep {
            part: phase.name.clone(),
            time: time.clone(),
        })
    });
    let mut steps: Vec<LongStep> = steps.collect();
    steps.sort_by(|a, b| b.time.seconds.total_cmp(&a.time.seconds));
    steps.truncate(LONGEST);
    steps
}

fn listed(names: &[&str]) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

fn with_last_words(text: &str, seen: Option<&Seen>) -> String {
    match seen {
        Some(seen) if !seen.message.is_empty() => format!("{text}; nextest: {}", seen.message),
        Some(_) => text.to_owned(),
        None => format!("{text}; nextest saw nothing of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::scenario;
    use crate::plan::select::Skipped;
    use crate::report::fixture::passed;
    use podwire_cluster::Bootstrap;
    use podwire_scenario::Cause;

    fn seen(passed: bool, message: &str) -> BTreeMap<String, Seen> {
        let seen = Seen {
            passed,
            message: message.into(),
            seconds: 3.0,
        };
        BTreeMap::from([("a".to_owned(), seen)])
    }

    /// A scenario whose sabotage is that of a passed result.
    fn sabotaged(name: &'static str) -> Scenario {
        const SABOTAGES: &[Sabotage] = &[Sabotage {
            expects: Cause::NotUnique,
            ..Sabotage::new("same_range").about("two nodes have one range")
        }];
        Scenario {
            sabotages: SABOTAGES,
            ..scenario(name)
        }
    }

    fn all_of(selection: &Selection) -> Merged<'_> {
        Merged {
            run_dir: Path::new("/nowhere"),
            cell: Cell::usual(Bootstrap::ByHand),
            selection,
            seen: None,
            sabotaged: true,
        }
    }

    fn merged(attempts: Attempts, seen: &BTreeMap<String, Seen>) -> ScenarioRecord {
        let selection = Selection {
            scenarios: vec!["a".into()],
            skipped: Vec::new(),
        };
        let mut attempts = Some(attempts);
        merged_with(
            &[sabotaged("a")],
            &all_of(&selection),
            |_| Ok(attempts.take().unwrap()),
            seen,
            Extent::Whole,
        )
        .remove(0)
    }

    #[test]
    fn a_result_file_that_passed_counts_as_passed() {
        let record = merged(vec![Some(passed("a"))], &seen(true, ""));
        assert_eq!((record.outcome, record.attempts), (Verdict::Passed, 1));
        assert_eq!(record.folder, None);
    }

    #[test]
    fn what_stood_out_on_the_wire_is_told_of_what_passed_and_of_what_failed() {
        let told = ["node1 -> node2: TCP reset (2); 1.007 s ..."].map(String::from);
        for outcome in [Outcome::Passed, Outcome::Failed] {
            let result = ScenarioResult {
                outcome,
                wire: told.to_vec(),
                ..passed("a")
            };
            assert_eq!(merged(vec![Some(result)], &seen(true, "")).wire, told);
        }
    }

    #[test]
    fn a_started_scenario_without_a_result_failed() {
        let record = merged(vec![None], &seen(false, "exited with signal 9"));
        assert_eq!(record.outcome, Verdict::Failed);
        assert_eq!(
            record.reason,
            "it started but left no result; nextest: exited with signal 9"
        );
        assert_eq!(record.folder, Some("scenarios/a/attempt-1".into()));
    }

    #[test]
    fn a_selected_scenario_that_never_started_failed() {
        let record = merged(vec![], &BTreeMap::new());
        assert_eq!(record.outcome, Verdict::Failed);
        assert_eq!(
            record.reason,
            "it was selected but never started; nextest saw nothing of it"
        );
    }

    #[test]
    fn a_passed_result_of_a_process_that_came_to_grief_failed() {
        let record = merged(
            vec![Some(passed("a"))],
            &seen(false, "aborted with SIGABRT"),
        );
        assert_eq!(record.outcome, Verdict::Failed);
        assert!(record.reason.contains("SIGABRT"), "{}", record.reason);
    }

    #[test]
    fn a_passed_result_without_the_sabotages_that_were_to_be_run_failed() {
        let mut result = passed("a");
        result.sabotages.clear();
        let record = merged(vec![Some(result.clone())], &seen(true, ""));
        assert_eq!(record.outcome, Verdict::Failed);
        assert_eq!(
            record.reason,
            "its result tells of other sabotages than it declares: of none, not of same_range"
        );
        // A broken cluster is sabotaged enough.
        let selection = Selection {
            scenarios: vec!["a".into()],
            skipped: Vec::new(),
        };
        let broken = Merged {
            sabotaged: false,
            ..all_of(&selection)
        };
        let found = |_: &str| Ok(vec![Some(result.clone())]);
        let catalogue = [sabotaged("a")];
        let records = merged_with(&catalogue, &broken, found, &seen(true, ""), Extent::Whole);
        assert_eq!(records[0].outcome, Verdict::Passed);
    }

    #[test]
    fn what_passed_only_when_it_was_tried_again_failed() {
        let failed = ScenarioResult {
            outcome: Outcome::Failed,
            ..passed("a")
        };
        let record = merged(vec![Some(failed), Some(passed("a"))], &seen(true, ""));
        assert_eq!(record.outcome, Verdict::Failed);
        assert!(record.reason.contains("nothing is retried"));
    }

    #[test]
    fn a_result_of_another_scenario_is_none_of_this_one() {
        let record = merged(vec![Some(passed("b"))], &seen(true, ""));
        assert_eq!(
            (record.name.as_str(), record.outcome),
            ("a", Verdict::Failed)
        );
    }

    #[test]
    fn harness_tests_that_nothing_is_told_of_have_failed() {
        let outcomes = |seen: &BTreeMap<String, Seen>, all_passed| {
            let records = harness_tests("base", seen, all_passed).into_iter();
            records.map(|it| (it.name, it.outcome)).collect::<Vec<_>>()
        };
        let record = |name: &str, outcome| (format!("{name} (base image)"), outcome);
        let (good, bad) = (record("a", Verdict::Passed), record("a", Verdict::Failed));
        let none = || record("all of them", Verdict::Failed);
        assert_eq!(outcomes(&BTreeMap::new(), true), [none()]);
        assert_eq!(outcomes(&BTreeMap::new(), false), [none()]);
        assert_eq!(outcomes(&seen(false, "no"), false), [bad]);
        assert_eq!(outcomes(&seen(true, ""), false), [good.clone(), none()]);
        assert_eq!(outcomes(&seen(true, ""), true), [good]);
    }

    #[test]
    fn harness_tests_that_somebody_ended_have_passed_or_are_called_neither() {
        let mut seen = seen(false, "aborted with signal 2 (SIGINT)");
        let passed = Seen {
            passed: true,
            message: String::new(),
            seconds: 3.0,
        };
        seen.insert("b".into(), passed);
        let records = harness_tests_until("base", &seen, "ended by Ctrl-C").into_iter();
        let said: Vec<_> = records.map(|it| (it.outcome, it.reason)).collect();
        let reason =
            "not passed when it was ended by Ctrl-C; nextest: aborted with signal 2 (SIGINT)";
        let [ended, passed] = [(Verdict::Skipped, reason), (Verdict::Passed, "")];
        let owned = |(outcome, reason): (Verdict, &str)| (outcome, reason.to_owned());
        assert_eq!(said, [owned(ended), owned(passed)]);
        assert!(harness_tests_until("base", &BTreeMap::new(), "").is_empty());
    }

    #[test]
    fn an_uncaught_sabotage_fails_its_scenario() {
        let mut result = passed("a");
        result.sabotages[0].caught = false;
        let record = merged(vec![Some(result)], &seen(true, ""));
        assert_eq!(record.outcome, Verdict::Failed);
        assert_eq!(record.reason, "sabotage not caught: same_range");
    }

    #[test]
    fn what_was_not_selected_never_counts_and_what_was_skipped_says_why() {
        let catalogue = [scenario("a"), scenario("b"), scenario("c")];
        let selection = Selection {
            scenarios: vec!["c".into()],
            skipped: vec![Skipped {
                name: "a".into(),
                reason: "needs 3 nodes".into(),
            }],
        };
        let records = merged_with(
            &catalogue,
            &all_of(&selection),
            |_| Ok(Vec::new()),
            &BTreeMap::new(),
            Extent::Nothing("no image"),
        );
        let shown: Vec<_> = records
            .iter()
            .map(|r| format!("{} {} {}", r.name, r.outcome, r.reason))
            .collect();
        assert_eq!(shown, ["a skipped needs 3 nodes", "c skipped no image"]);
    }

    #[test]
    fn what_a_person_has_cut_short_is_skipped_and_what_has_a_result_keeps_it() {
        let catalogue = ["a", "b", "c", "d"].map(scenario);
        let selection = Selection {
            scenarios: ["a", "b", "c", "d"].map(String::from).to_vec(),
            skipped: Vec::new(),
        };
        let aborted = Seen {
            passed: false,
            message: "aborted with SIGABRT".into(),
            seconds: 3.0,
        };
        let seen = BTreeMap::from(["b", "d"].map(|name| (name.to_owned(), aborted.clone())));
        let failed = ScenarioResult {
            outcome: Outcome::Failed,
            ..passed("a")
        };
        let records = merged_with(
            &catalogue,
            &all_of(&selection),
            |name| {
                Ok(match name {
                    "a" => vec![Some(failed.clone())],
                    "b" | "d" => vec![None],
                    _ => Vec::new(),
                })
            },
            &seen,
            Extent::CutShort(Unfinished {
                reason: "ended by Ctrl-C",
                died: &["d".into()],
            }),
        );
        let outcomes: Vec<_> = records.iter().map(|record| record.outcome).collect();
        let [failed, skipped] = [Verdict::Failed, Verdict::Skipped];
        assert_eq!(outcomes, [failed, skipped, skipped, failed]);
        assert_eq!(records[2].reason, "ended by Ctrl-C");
        // It had died before.
        assert_eq!(
            records[3].reason,
            "it started but left no result; nextest: aborted with SIGABRT"
        );
    }

    #[test]
    fn while_a_run_goes_on_what_a_scenario_says_of_itself_counts() {
        let catalogue = [sabotaged("a"), sabotaged("b"), sabotaged("c")];
        let selection = Selection {
            scenarios: ["a", "b", "c"].map(String::from).to_vec(),
            skipped: Vec::new(),
        };
        let merged = |extent| {
            let left = |name: &str| {
                Ok(match name {
                    "a" => vec![Some(passed("a"))],
                    "b" => vec![None],
                    _ => Vec::new(),
                })
            };
            let all = all_of(&selection);
            let records = merged_with(&catalogue, &all, left, &BTreeMap::new(), extent);
            records
                .into_iter()
                .map(|record| record.outcome)
                .collect::<Vec<_>>()
        };
        let [passed, failed, skipped] = [Verdict::Passed, Verdict::Failed, Verdict::Skipped];
        let under_way = |died| {
            let reason = "not yet";
            merged(Extent::UnderWay(Unfinished { reason, died }))
        };
        assert_eq!(under_way(&[]), [passed, skipped, skipped]);
        let died = ["b".to_owned()];
        assert_eq!(under_way(&died), [passed, failed, skipped]);
        // At its end nextest must have seen it.
        assert_eq!(merged(Extent::Whole), [failed, failed, failed]);
    }
}
