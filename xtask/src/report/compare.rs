//! A base against a head, as data: what became of each scenario on both sides, and what that says.
//!
//! Pure functions over both sides' results. The rule ([`difference`]) knows verdicts alone, not what was said
//! with them: a scenario that fails on both sides for two reasons does not differ.

pub(crate) mod cluster;
pub(crate) mod joined;
pub(crate) mod numbers;
pub(crate) mod part;
mod rule;
pub(crate) mod summary;

use std::path::{Path, PathBuf};

use podwire_scenario::Processors;
use serde::{Deserialize, Serialize};

pub(crate) use self::rule::{Difference, RUNS, State, Tally, difference};
use crate::plan::phase::Phase;
use crate::report::compare::cluster::cluster;
use crate::report::compare::numbers::{Asked, Numbers, Taken};
use crate::report::compare::part::Part;
use crate::report::results::{NOT_SET_UP, PAGE, Results, ScenarioRecord, Verdict};

/// The comparison as data, in its folder.
pub(crate) const FILE: &str = "compare.json";

/// `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// What came of it, in a sentence.
    pub(crate) sentence: String,
    /// What ended it before its time.
    pub(crate) error: Option<String>,
    pub(crate) counts: Counts,
    /// Which part of the scenarios this is, where other machines have the others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) part: Option<Part>,
    pub(crate) base: Side,
    pub(crate) head: Side,
    /// Every scenario that was to run on a side, in the catalogue's order for each cluster.
    pub(crate) scenarios: Vec<Compared>,
    /// What was measured on both sides, unless nothing was to be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) numbers: Option<Numbers>,
}

/// One of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Side {
    /// Which revision of the user's repository it is, if it is one: `git:main, commit 0123456789ab`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) revision: Option<String>,
    /// The flags that it is tested by.
    pub(crate) flags: Vec<String>,
    /// What was under test, in words; nothing before a run has said it.
    pub(crate) tested: Option<String>,
    /// Stages under the scenarios of any of its runs that had not settled, and what each lacked.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) unsettled_stages: Vec<String>,
    pub(crate) runs: Vec<SideRun>,
    /// Those that measured, in the order of the pairs.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) measured: Vec<SideRun>,
}

/// One run of a side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SideRun {
    /// Its folder, relative to the comparison's.
    pub(crate) folder: PathBuf,
    pub(crate) seconds: f64,
    /// What ended it before its time: what has no verdict then was not left out on purpose.
    pub(crate) error: Option<String>,
}

impl SideRun {
    /// Its own page, relative to the comparison's folder.
    pub(crate) fn page(&self) -> PathBuf {
        self.folder.join(PAGE)
    }
}

/// A run of a side with what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    pub(crate) run: SideRun,
    pub(crate) results: Results,
}

/// A scenario on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Compared {
    pub(crate) name: String,
    /// What the clusters of both sides have in common: `by-hand`, `kubeadm+routed`.
    pub(crate) cluster: String,
    /// Which part it was of, `1/3`, where several became one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) part: Option<String>,
    pub(crate) difference: Difference,
    pub(crate) base: OnSide,
    pub(crate) head: OnSide,
}

impl Comparison {
    /// The folders of what is told as failed, in the order in which it is told.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &Path> {
        let shown = self.scenarios.iter().filter(|it| it.difference.is_shown());
        let sides = shown.flat_map(|it| [&it.base, &it.head]);
        sides.filter_map(|side| side.folder.as_deref())
    }
}

/// What became of a scenario on one side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OnSide {
    /// One for each run that was to have it, in their order.
    pub(crate) runs: Vec<State>,
    /// Of the first failure; where there is no verdict at all, why.
    pub(crate) reason: Option<String>,
    /// The folder of the first failure, relative to the comparison's.
    pub(crate) folder: Option<PathBuf>,
    /// The command that leads to that failure again.
    pub(crate) again: Option<String>,
    /// What stood out on the wire in it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) wire: Vec<String>,
    /// How the host's processors served its machines.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) processors: Option<Processors>,
}

impl OnSide {
    /// `passed 5 of 5`.
    pub(crate) fn in_short(&self) -> String {
        let tally = Tally::of(&self.runs);
        match tally.verdicts() {
            0 if tally.is_absent() => "not run".to_owned(),
            0 => "no verdict".to_owned(),
            all => format!("passed {} of {all}", tally.passed),
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.runs.contains(&State::Failed)
    }
}

/// How many of which kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// With a verdict on both sides.
    pub(crate) compared: usize,
    pub(crate) broke: usize,
    pub(crate) recovered: usize,
    pub(crate) now_and_then: usize,
    pub(crate) undecided: usize,
    /// On one side alone.
    pub(crate) absent: usize,
    pub(crate) fails_on_both: usize,
}

impl Counts {
    fn of(scenarios: &[Compared]) -> Self {
        let count = |difference| {
            let of = scenarios.iter().filter(|it| it.difference == difference);
            of.count()
        };
        let on_both = scenarios.iter().filter(|it| it.is_compared());
        Self {
            compared: on_both.count(),
            broke: count(Difference::Broke),
            recovered: count(Difference::Recovered),
            now_and_then: count(Difference::NowAndThen),
            undecided: count(Difference::Undecided),
            absent: count(Difference::OnlyBase) + count(Difference::OnlyHead),
            fails_on_both: count(Difference::FailsOnBoth),
        }
    }

    /// `head breaks 1 of 18 scenarios, and recovers 1`.
    fn sentence(&self) -> String {
        if self.compared == 0 {
            return "no scenario has a verdict on both sides".to_owned();
        }
        let broke = match self.broke {
            0 => "none".to_owned(),
            some => some.to_string(),
        };
        let plural = match self.compared {
            1 => "scenario",
            _ => "scenarios",
        };
        let mut text = format!("head breaks {broke} of {} {plural}", self.compared);
        if self.recovered > 0 {
            text += &format!(", and recovers {}", self.recovered);
        }
        let others = [
            (self.now_and_then, "differs", "differ", "now and then"),
            (self.undecided, "is", "are", "undecided"),
            (self.absent, "runs", "run", "on one side only"),
            (self.fails_on_both, "fails", "fail", "on both"),
        ];
        for (count, one, more, what) in others {
            match count {
                0 => {}
                1 => text += &format!("; 1 {one} {what}"),
                _ => text += &format!("; {count} {more} {what}"),
            }
        }
        text
    }
}

impl Compared {
    /// Whether both sides have a verdict.
    fn is_compared(&self) -> bool {
        let has = |side: &OnSide| Tally::of(&side.runs).verdicts() > 0;
        has(&self.base) && has(&self.head)
    }

    /// Whether more runs are to say what the first ones leave open.
    pub(crate) fn is_to_be_repeated(&self) -> bool {
        self.difference == Difference::Undecided && self.is_compared()
    }
}

impl Comparison {
    /// What the runs of both sides say; `flags` are those that they are named by.
    pub(crate) fn of(
        flags: [Vec<String>; 2],
        (base, head): (&[Ran], &[Ran]),
        error: Option<String>,
    ) -> Self {
        let scenarios = compare(base, head);
        let counts = Counts::of(&scenarios);
        let [base_flags, head_flags] = flags;
        let side = |flags, ran: &[Ran]| Side {
            revision: None,
            flags,
            tested: ran.first().map(|first| tested(&first.results)),
            unsettled_stages: unsettled(ran),
            runs: ran.iter().map(|ran| ran.run.clone()).collect(),
            measured: Vec::new(),
        };
        Self {
            sentence: not_set_up(base, head).unwrap_or_else(|| counts.sentence()),
            error,
            counts,
            part: None,
            base: side(base_flags, base),
            head: side(head_flags, head),
            scenarios,
            numbers: None,
        }
    }

    /// The same where sides are revisions.
    pub(crate) fn with_revisions(mut self, revisions: [Option<String>; 2]) -> Self {
        [self.base.revision, self.head.revision] = revisions;
        self
    }

    /// The same where it is a part of one.
    pub(crate) fn with_part(self, part: Option<Part>) -> Self {
        Self { part, ..self }
    }

    /// The same with what these runs have measured.
    pub(crate) fn with_numbers(mut self, asked: Asked, base: &[Ran], head: &[Ran]) -> Self {
        let both = [base, head].map(|all| all.iter().map(Ran::taken).collect::<Vec<_>>());
        let numbers = Numbers::of(asked, &both[0], &both[1]);
        for (side, all) in [(&mut self.base, base), (&mut self.head, head)] {
            side.measured = all.iter().map(|it| it.run.clone()).collect();
            let more = unsettled(all);
            side.unsettled_stages = distinct(side.unsettled_stages.iter().chain(&more));
        }
        self.and(numbers)
    }

    /// The same with numbers, which the sentence tells of as well.
    fn and(mut self, numbers: Numbers) -> Self {
        self.sentence = format!("{}; {}", self.sentence, numbers.sentence);
        self.numbers = Some(numbers);
        self
    }

    /// Whether head is worse than base in anything.
    pub(crate) fn is_worse(&self) -> bool {
        let numbers = self.numbers.as_ref();
        let worse = numbers.map_or(0, |it| it.counts.worse + it.carried_out.broke);
        self.counts.broke + worse > 0
    }
}

impl Ran {
    fn taken(&self) -> Taken<'_> {
        Taken {
            folder: &self.run.folder,
            results: &self.results,
        }
    }
}

/// That head never had a cluster, where base had one: that breaks more than any scenario.
fn not_set_up(base: &[Ran], head: &[Ran]) -> Option<String> {
    let (base, head) = (&base.first()?.results, &head.first()?.results);
    let has_verdict = base
        .scenarios
        .iter()
        .any(|it| it.outcome != Verdict::Skipped);
    let mut of_head = head.scenarios.iter();
    let none = of_head.all(|it| it.outcome == Verdict::Skipped && it.reason == NOT_SET_UP);
    if head.scenarios.is_empty() || !has_verdict || !none {
        return None;
    }
    let phase = head.phases.last().map(|it| it.name.as_str());
    Some(match phase {
        Some(phase) if phase == Phase::Stage.name() => {
            "head's cluster could not be made, where base's could".to_owned()
        }
        Some(phase) => format!("head could not be set up, where base could: its {phase} failed"),
        None => "head could not be set up, where base could".to_owned(),
    })
}

/// What had not settled in any of these runs: most often all of them begin with the same stages.
fn unsettled(ran: &[Ran]) -> Vec<String> {
    distinct(ran.iter().flat_map(|ran| &ran.results.unsettled_stages))
}

/// Each once, in the order in which they come.
fn distinct<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for text in texts {
        if !all.contains(text) {
            all.push(text.clone());
        }
    }
    all
}

/// What ran on one side: clusters, system, where it came from.
fn tested(results: &Results) -> String {
    let mut cells: Vec<&str> = Vec::new();
    for record in &results.scenarios {
        if !cells.contains(&record.cell.as_str()) {
            cells.push(&record.cell);
        }
    }
    let given = results.given();
    let configurations = results.configurations.iter();
    let configurations: String = configurations.map(|it| format!("; {it}")).collect();
    format!(
        "{} on {}{given}, {}{configurations}",
        cells.join(" and "),
        results.system,
        results.provenance
    )
}

/// Every scenario of both sides.
pub(crate) fn compare(base: &[Ran], head: &[Ran]) -> Vec<Compared> {
    let mut places: Vec<(String, String)> = Vec::new();
    for ran in base.iter().chain(head) {
        for record in &ran.results.scenarios {
            let place = (record.name.clone(), cluster(&record.cell));
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    let compared = places.into_iter().map(|(name, cluster)| {
        let (base, head) = (
            on_side(base, &name, &cluster),
            on_side(head, &name, &cluster),
        );
        Compared {
            difference: difference(&base.runs, &head.runs),
            name,
            cluster,
            part: None,
            base,
            head,
        }
    });
    compared.collect()
}

fn on_side(runs: &[Ran], name: &str, of: &str) -> OnSide {
    let mut side = OnSide::default();
    for (number, ran) in runs.iter().enumerate() {
        let mut records = ran.results.scenarios.iter();
        let record = records.find(|it| it.name == name && cluster(&it.cell) == of);
        let state = match (record.map(|it| it.outcome), &ran.run.error) {
            (Some(Verdict::Passed), _) => State::Passed,
            (Some(Verdict::Failed), _) => State::Failed,
            (Some(Verdict::Skipped), None) => State::NotRun,
            (Some(Verdict::Skipped), Some(_)) => State::NoVerdict,
            // Only the first run of a side is to have all.
            (None, _) if number > 0 => continue,
            (None, None) => State::NotRun,
            (None, Some(_)) => State::NoVerdict,
        };
        if state == State::Failed && !side.has_failed() {
            side.reason = record.map(|it| it.reason.clone());
            side.folder = record.and_then(|it| Some(ran.run.folder.join(it.folder.as_ref()?)));
            side.again = record.and_then(|it| it.again.clone());
            side.wire = record.map_or_else(Vec::new, |it| it.wire.clone());
            side.processors = record.and_then(|it| it.processors);
        } else if number == 0 && matches!(state, State::NotRun | State::NoVerdict) {
            side.reason = Some(why_not(ran, record, name));
        }
        side.runs.push(state);
    }
    side
}

/// Why a run has no verdict.
fn why_not(ran: &Ran, record: Option<&ScenarioRecord>, name: &str) -> String {
    let skipped = ran.results.scenarios.iter();
    let skipped = skipped.filter(|it| it.name == name && it.outcome == Verdict::Skipped);
    let skipped = record.or_else(|| skipped.into_iter().next());
    let left_out = ran.results.left_out.iter().find(|it| it.name == name);
    skipped
        .map(|it| it.reason.clone())
        .or_else(|| left_out.map(|it| it.reason.clone()))
        .or_else(|| ran.run.error.clone())
        .unwrap_or_else(|| "nothing of such a cluster runs it".to_owned())
}

/// What more runs are to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repeat {
    /// Names of scenarios.
    pub(crate) names: Vec<String>,
    /// Of the clusters on which these differ.
    pub(crate) bootstrap: String,
}

/// What is to be run again on both sides: of each bootstrap those scenarios that differ there. (How a cluster is
/// laid out is up to the scenario.)
pub(crate) fn to_repeat(scenarios: &[Compared]) -> Vec<Repeat> {
    let mut all: Vec<Repeat> = Vec::new();
    for it in scenarios.iter().filter(|it| it.is_to_be_repeated()) {
        let (bootstrap, _) = it.cluster.split_once('+').unwrap_or((&it.cluster, ""));
        match all.iter_mut().find(|one| one.bootstrap == bootstrap) {
            Some(one) => one.names.push(it.name.clone()),
            None => all.push(Repeat {
                names: vec![it.name.clone()],
                bootstrap: bootstrap.to_owned(),
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests;
