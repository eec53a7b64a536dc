//! What a scenario's process leaves behind: one `result.json` per attempt.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use podwire_process::held;
use podwire_vm::Scheduled;
use serde::{Deserialize, Serialize};

use crate::check::reading::Reading;
use crate::run::account::Account;
use crate::run::cases::Case;
use crate::run::context::{self, ContextError};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every assertion held and every sabotage was caught.
    Passed,
    /// An assertion did not hold, a sabotage was not caught, or it could not be carried out.
    Failed,
}

/// Whether the assertion noticed a fault injected on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SabotageResult {
    /// The sabotage's name.
    pub name: String,
    /// Whether the assertion failed, and for the stated reason.
    pub caught: bool,
    /// What the assertion said, or why the sabotage proves nothing.
    pub reason: String,
    /// The number of the node at which the page of such a failure ends the way of the packet that was lost; nothing
    /// where it shows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<u32>,
}

/// The phase in which what a scenario and its sabotages start from is made.
pub const PREPARATION: &str = "preparation";

/// How many times as long as they run machines wait for processors, at most, on a host that does nothing else:
/// 0.4 to 1.4 in 23 scenarios with three emulated nodes on two processors. Where kubectl ran out of its time it
/// was 5.
const USUAL: f64 = 2.0;

/// How the names of the phases begin that are a sabotage's.
pub const SABOTAGE: &str = "sabotage ";

/// How long a part of the attempt took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which part.
    pub name: String,
    /// Host seconds.
    pub seconds: f64,
    /// Where machines ran in it, and the host tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processors: Option<Processors>,
    /// What took longest in it, the longest first; of a lab's run alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub longest: Vec<StepTime>,
}

/// How long a step of a lab took: until the next one, or the run's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// What was said when it began.
    pub step: String,
    /// Host seconds.
    pub seconds: f64,
}

impl StepTime {
    /// How many of a run are kept.
    const KEPT: usize = 3;

    /// The longest of a run's steps, which come with the time since the run began, as `ended` does.
    pub(crate) fn longest(steps: &[(Duration, String)], ended: Duration) -> Vec<Self> {
        let next = steps.iter().map(|(at, _)| *at).skip(1).chain([ended]);
        let mut all: Vec<Self> = steps
            .iter()
            .zip(next)
            .map(|((at, step), next)| Self {
                step: step.clone(),
                seconds: next.saturating_sub(*at).as_secs_f64(),
            })
            .collect();
        all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        all.truncate(Self::KEPT);
        all
    }
}

/// How the host's processors served the machines of a lab, the sum over the threads of all, in seconds.
///
/// Limits of the harness grow with the time that guests take here; those that programs in the guests set
/// themselves do not: kubectl's 10 s for a TLS handshake, 32 s for a schema.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Processors {
    /// On a processor.
    pub ran: f64,
    /// Ready to run, while others were on the processors: one another's, and whatever else the host does.
    pub waited: f64,
}

impl Processors {
    pub(crate) fn of(scheduled: Scheduled) -> Self {
        Self {
            ran: scheduled.ran.as_secs_f64(),
            waited: scheduled.waited.as_secs_f64(),
        }
    }

    /// Whether they waited more than machines do on a host that does nothing else.
    pub fn are_short(self) -> bool {
        self.waited > USUAL * self.ran
    }
}

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ran, waited } = self;
        write!(
            f,
            "the machines were on this host's processors for {ran:.0} s and waited for them for {waited:.0} s"
        )?;
        if self.are_short() {
            write!(
                f,
                ": the host does much else, and what has limits of its own in a guest (kubectl: 10 s for a TLS \
                 handshake) may have run into them for that alone"
            )?;
        }
        Ok(())
    }
}

impl PhaseTime {
    /// The part of a sabotage's run from the fault's injection to the verdict.
    pub fn to_red(sabotage: &str) -> String {
        format!("sabotage {sabotage}: from the fault to the verdict")
    }
}

/// One attempt of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// The scenario's name.
    pub name: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in one paragraph; empty when it passed.
    pub reason: String,
    /// Host seconds, sabotages included; without the wait for a place.
    pub seconds: f64,
    /// Each sabotage's verdict.
    pub sabotages: Vec<SabotageResult>,
    /// Where the time went.
    pub phases: Vec<PhaseTime>,
    /// What a program of the user's told of itself by its JUnit file; of its last run where it is repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<Case>,
    /// What stood out on the wire between nodes, a line for each kind and pair of ports, as the first page
    /// has it; of the last run where it is repeated, and of no sabotage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wire: Vec<String>,
    /// What a measurement has read; of its last run where it is repeated, and nothing of one that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<Reading>,
    /// Folder with the evidence, relative to the cell's; only after a failure.
    pub evidence: Option<PathBuf>,
}

impl ScenarioResult {
    /// Its name in the attempt's folder.
    pub const FILE: &'static str = "result.json";

    /// How the host's processors served the machines of its last run without a sabotage.
    pub fn processors(&self) -> Option<Processors> {
        let own = self.phases.iter().rev();
        let mut own = own.filter(|phase| !phase.name.starts_with(SABOTAGE));
        own.find_map(|phase| phase.processors)
    }

    /// An attempt's folder in the cell's.
    pub fn folder(cell_dir: &Path, scenario: &str, attempt: u32) -> PathBuf {
        cell_dir
            .join("scenarios")
            .join(scenario)
            .join(format!("attempt-{attempt}"))
    }

    /// Makes an attempt's folder in the cell's. From its first moment it is in use (flock(2)) as long as the file
    /// lives: one that is not, and has no result, is that of a process which died.
    ///
    /// # Errors
    /// [`ContextError::Access`], also when the folder is there already.
    pub(crate) fn begin(
        cell_dir: &Path,
        scenario: &str,
        attempt: u32,
    ) -> Result<(PathBuf, File), ContextError> {
        let folder = Self::folder(cell_dir, scenario, attempt);
        let beside = folder.with_extension("new");
        let begun = || -> io::Result<File> {
            fs::create_dir_all(&beside)?;
            let in_use = held(&beside)?;
            fs::rename(&beside, &folder)?;
            Ok(in_use)
        };
        match begun() {
            Ok(in_use) => Ok((folder, in_use)),
            Err(source) => Err(ContextError::Access {
                path: folder,
                source,
            }),
        }
    }

    /// Reads what an attempt left; `None` when it left nothing. One that was ended after it had failed, while it
    /// collected the evidence, has left no result and is read from what it said by then.
    ///
    /// # Errors
    /// [`ContextError`] when there is a file that cannot be read or understood.
    pub fn read(
        cell_dir: &Path,
        scenario: &str,
        attempt: u32,
    ) -> Result<Option<Self>, ContextError> {
        let folder = Self::folder(cell_dir, scenario, attempt);
        let path = folder.join(Self::FILE);
        if path.exists() {
            return context::read(&path).map(Some);
        }
        let path = folder.join(Account::FILE);
        if !path.exists() {
            return Ok(None);
        }
        let account: Account = context::read(&path)?;
        Ok(Some(Self {
            name: scenario.to_owned(),
            attempt,
            outcome: Outcome::Failed,
            reason: account.reason(),
            seconds: Duration::from_millis(account.failed_ms).as_secs_f64(),
            sabotages: Vec::new(),
            phases: Vec::new(),
            cases: Vec::new(),
            wire: Vec::new(),
            readings: Vec::new(),
            evidence: None,
        }))
    }

    /// Writes it into the attempt's folder.
    ///
    /// # Errors
    /// [`ContextError::Access`].
    pub fn write(&self, cell_dir: &Path) -> Result<(), ContextError> {
        context::write(
            &Self::folder(cell_dir, &self.name, self.attempt).join(Self::FILE),
            self,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::failure::{Cause, Failure};
    use crate::run::bare;

    fn phase(name: &str, processors: Option<(f64, f64)>) -> PhaseTime {
        PhaseTime {
            name: name.to_owned(),
            seconds: 1.0,
            processors: processors.map(|(ran, waited)| Processors { ran, waited }),
            longest: Vec::new(),
        }
    }

    #[test]
    fn an_attempt_s_folder_is_in_use_as_long_as_its_process_lives() {
        let cell = tempfile::tempdir().unwrap();
        let (folder, in_use) = ScenarioResult::begin(cell.path(), "a", 1).unwrap();
        assert_eq!(folder, ScenarioResult::folder(cell.path(), "a", 1));
        assert!(bare::in_use(&folder));
        drop(in_use);
        assert!(!bare::in_use(&folder));
        // Nobody begins it again where something is left of it.
        fs::write(folder.join(ScenarioResult::FILE), "{}").unwrap();
        ScenarioResult::begin(cell.path(), "a", 1).unwrap_err();
    }

    #[test]
    fn what_had_failed_before_it_was_ended_says_so_without_a_result() {
        let cell = tempfile::tempdir().unwrap();
        let read = || ScenarioResult::read(cell.path(), "a", 1).unwrap();
        let (folder, _in_use) = ScenarioResult::begin(cell.path(), "a", 1).unwrap();
        assert_eq!(read(), None);
        let failure = Failure::new(Cause::TimedOut, "an answer", "none");
        let (error, age) = (anyhow::Error::from(failure), Duration::from_secs(3));
        let account = Account::of("what a shows", &error, Vec::new(), age);
        account.write(&folder).unwrap();
        let failed = read().unwrap();
        assert_eq!((failed.outcome, failed.seconds), (Outcome::Failed, 3.0));
        assert_eq!(failed.reason, error.to_string());
        // Its own result says more.
        let result = ScenarioResult {
            reason: "no answer".into(),
            ..failed
        };
        result.write(cell.path()).unwrap();
        assert_eq!(read(), Some(result));
    }

    #[test]
    fn the_processors_are_those_of_the_last_run_without_a_sabotage() {
        let mut result = ScenarioResult {
            name: "a".into(),
            attempt: 1,
            outcome: Outcome::Passed,
            reason: String::new(),
            seconds: 1.0,
            sabotages: Vec::new(),
            phases: vec![
                phase("scenario: run", Some((9.0, 1.0))),
                phase("scenario: run", Some((8.0, 2.0))),
                phase("scenario: clone", None),
                phase("sabotage no-route: run", Some((7.0, 3.0))),
            ],
            cases: Vec::new(),
            wire: Vec::new(),
            readings: Vec::new(),
            evidence: None,
        };
        let told = |result: &ScenarioResult| result.processors().map(|it| (it.ran, it.waited));
        assert_eq!(told(&result), Some((8.0, 2.0)));
        result.phases.remove(1);
        assert_eq!(told(&result), Some((9.0, 1.0)));
        result.phases.remove(0);
        assert_eq!(told(&result), None);
    }

    #[test]
    fn a_step_lasts_until_the_next_one_and_the_last_until_the_end() {
        let at = |seconds: u64, step: &str| (Duration::from_secs(seconds), step.to_owned());
        let steps = [
            at(1, "a"),
            at(3, "b"),
            at(13, "c"),
            at(14, "d"),
            at(20, "e"),
        ];
        let longest = StepTime::longest(&steps, Duration::from_secs(24));
        let told = longest.iter().map(|it| (it.step.as_str(), it.seconds));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [("b", 10.0), ("d", 6.0), ("e", 4.0)]
        );
        assert_eq!(StepTime::longest(&[], Duration::from_secs(24)), []);
    }

    #[test]
    fn what_waited_long_says_what_may_come_of_it() {
        let told = |ran, waited| Processors { ran, waited }.to_string();
        insta::assert_snapshot!(
            [told(60.4, 59.0), told(10.0, 80.0)].join("\n"),
            @"
        the machines were on this host's processors for 60 s and waited for them for 59 s
        the machines were on this host's processors for 10 s and waited for them for 80 s: the host does much else, and what has limits of its own in a guest (kubectl: 10 s for a TLS handshake) may have run into them for that alone
        "
        );
    }
}
