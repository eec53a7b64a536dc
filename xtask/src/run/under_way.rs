//! What scenarios do just now, by what is in the folder of their cell.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use podwire_scenario::{STEPS, ScenarioResult, awaited, bare};

/// Scenarios at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnderWay {
    /// Those that have begun and left no result yet, and what each does.
    pub(crate) running: Vec<(String, Doing)>,
    pub(crate) done: Vec<String>,
    /// Those whose process is gone and has left no result.
    pub(crate) died: Vec<String>,
    pub(crate) all: usize,
}

/// What one scenario does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It has not said anything yet.
    Starting,
    /// It waits for a place, because of somebody.
    Waiting(String),
    /// Its last step, and in which of its labs that is.
    Step(String),
}

impl UnderWay {
    /// Reads the folder.
    pub(crate) fn look(cell: &Path, names: &[String]) -> Self {
        let mut it = Self {
            running: Vec::new(),
            done: Vec::new(),
            died: Vec::new(),
            all: names.len(),
        };
        for name in names {
            let folder = ScenarioResult::folder(cell, name, 1);
            if !folder.exists() {
                continue;
            }
            let at_work = bare::in_use(&folder);
            // Looked for afterwards: it is the last that a process leaves.
            match folder.join(ScenarioResult::FILE).exists() {
                true => it.done.push(name.clone()),
                false if at_work => it.running.push((name.clone(), Doing::of(&folder))),
                false => it.died.push(name.clone()),
            }
        }
        it
    }

    /// Whether all that could go on waits for a place.
    pub(crate) fn stands_still(&self) -> bool {
        let mut running = self.running.iter();
        !self.running.is_empty() && running.all(|(_, doing)| matches!(doing, Doing::Waiting(_)))
    }
}

impl fmt::Display for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.running.is_empty() {
            f.write_str("starting")?;
        }
        for (number, (name, doing)) in self.running.iter().enumerate() {
            let between = if number > 0 { "; " } else { "" };
            match doing {
                Doing::Starting => write!(f, "{between}{name}")?,
                Doing::Waiting(whom) => write!(f, "{between}{name}: waiting for {whom}")?,
                Doing::Step(step) => write!(f, "{between}{name}: {step}")?,
            }
        }
        write!(f, " [{} of {} done", self.done.len(), self.all)?;
        match self.died.is_empty() {
            true => f.write_str("]"),
            false => write!(f, "; without a result: {}]", self.died.join(", ")),
        }
    }
}

impl Doing {
    fn of(attempt: &Path) -> Self {
        match (awaited(attempt), current_step(attempt)) {
            (Some(whom), _) => Self::Waiting(whom),
            (None, Some(step)) => Self::Step(step),
            (None, None) => Self::Starting,
        }
    }
}

/// The last line that an attempt wrote about what it does, in the newest of its labs; nothing when
/// there is none yet, or when it goes away while it is looked at.
fn current_step(attempt: &Path) -> Option<String> {
    let newest = fs::read_dir(attempt)
        .ok()?
        .flatten()
        .map(|lab| lab.path())
        .filter(|lab| lab.join(STEPS).exists())
        .max_by_key(|lab| {
            fs::metadata(lab.join(STEPS))
                .and_then(|file| file.modified())
                .ok()
        })?;
    let text = fs::read_to_string(newest.join(STEPS)).ok()?;
    // Seconds since the segment's start stand in front.
    let (_, step) = text.lines().next_back()?.trim_start().split_once(' ')?;
    let lab = newest.file_name()?.to_string_lossy();
    let lab = lab
        .strip_prefix("sabotage-")
        .map(|name| format!("sabotage {name}, "));
    Some(format!("{}{}", lab.unwrap_or_default(), step.trim_start()))
}

/// Adds up the time in which all scenarios under way waited for a place.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    since: Option<Instant>,
    total: Duration,
}

impl Standstill {
    /// Whether they do at this moment.
    pub(crate) fn look(&mut self, stands_still: bool, now: Instant) {
        if let Some(since) = self.since.take() {
            self.total += now.saturating_duration_since(since);
        }
        self.since = stands_still.then_some(now);
    }

    pub(crate) fn total(&self) -> Duration {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The folder of a scenario's attempt, as its process has it.
    fn begun(cell: &Path, name: &str) -> fs::File {
        let folder = ScenarioResult::folder(cell, name, 1);
        fs::create_dir_all(&folder).unwrap();
        podwire_process::held(&folder).unwrap()
    }

    #[test]
    fn the_cell_s_folder_tells_what_is_under_way() {
        let cell = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c"].map(String::from);
        let look = || UnderWay::look(cell.path(), &names);
        assert_eq!(look().to_string(), "starting [0 of 3 done]");
        assert!(!look().stands_still());
        let in_use = ["a", "b"].map(|name| begun(cell.path(), name));
        crate::report::fixture::passed("a")
            .write(cell.path())
            .unwrap();
        assert_eq!(look().to_string(), "b [1 of 3 done]");
        let lab = ScenarioResult::folder(cell.path(), "b", 1).join("sabotage-no-route");
        fs::create_dir_all(&lab).unwrap();
        fs::write(
            lab.join(STEPS),
            "    0.0  add routes\n   11.1  ask every Pod (C8)\n",
        )
        .unwrap();
        assert_eq!(
            look().to_string(),
            "b: sabotage no-route, ask every Pod (C8) [1 of 3 done]"
        );
        assert!(!look().stands_still());
        // The process is gone, however it went.
        drop(in_use);
        assert_eq!(
            look().to_string(),
            "starting [1 of 3 done; without a result: b]"
        );
    }

    #[test]
    fn whoever_waits_for_a_place_says_for_whom_and_only_all_of_them_are_a_standstill() {
        let cell = tempfile::tempdir().unwrap();
        let names = ["a", "b"].map(String::from);
        let look = || UnderWay::look(cell.path(), &names);
        let folder = |name| ScenarioResult::folder(cell.path(), name, 1);
        let _a = begun(cell.path(), "a");
        // As the scenario's process writes it, see podwire-scenario's `place`.
        fs::write(folder("a").join("waiting"), "joins (process 7)").unwrap();
        assert_eq!(
            look().to_string(),
            "a: waiting for joins (process 7) [0 of 2 done]"
        );
        assert!(look().stands_still());
        let _b = begun(cell.path(), "b");
        assert!(!look().stands_still());
    }

    #[test]
    fn only_the_time_between_two_looks_of_which_the_first_stood_still_counts() {
        let mut standstill = Standstill::default();
        let begun = Instant::now();
        for (second, stands_still) in [(0, false), (10, true), (12, true), (15, false), (60, false)]
        {
            standstill.look(stands_still, begun + Duration::from_secs(second));
        }
        assert_eq!(standstill.total(), Duration::from_secs(5));
    }
}
