//! The rule: what the verdicts of both sides say. Of scenarios, and of whether a measurement can be carried out.

use serde::{Deserialize, Serialize};

/// Verdicts of each side before a scenario that differs is called broken, or recovered.
pub(crate) const RUNS: usize = 5;

/// What a run says of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Passed,
    Failed,
    /// It was not to run on such a cluster: every run of the side says so.
    NotRun,
    /// It was to run, and the run ended before.
    NoVerdict,
}

/// How a scenario's sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Difference {
    /// It always passed on the base, and always failed on the head, [`RUNS`] times each.
    Broke,
    /// The other way round.
    Recovered,
    /// One side, or both, does not always say the same.
    NowAndThen,
    /// There are too few verdicts.
    Undecided,
    /// It runs on the base alone.
    OnlyBase,
    /// It runs on the head alone.
    OnlyHead,
    /// It failed on both sides, which says nothing about the change.
    FailsOnBoth,
    /// It passed on both sides.
    PassesOnBoth,
    /// It ran on neither side.
    Neither,
}

impl Difference {
    /// Whether a person is to look at it.
    pub(crate) fn is_shown(self) -> bool {
        !matches!(self, Self::FailsOnBoth | Self::PassesOnBoth | Self::Neither)
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Broke => "broke",
            Self::Recovered => "recovered",
            Self::NowAndThen => "differs now and then",
            Self::Undecided => "undecided",
            Self::OnlyBase => "only on base",
            Self::OnlyHead => "only on head",
            Self::FailsOnBoth => "fails on both",
            Self::PassesOnBoth => "passes on both",
            Self::Neither => "on neither",
        })
    }
}

/// The rule: what the verdicts of both sides say.
pub(crate) fn difference(base: &[State], head: &[State]) -> Difference {
    let (base, head) = (Tally::of(base), Tally::of(head));
    match (base.verdicts(), head.verdicts()) {
        (0, 0) if base.is_absent() && head.is_absent() => return Difference::Neither,
        (0, _) if !base.is_absent() => return Difference::Undecided,
        (_, 0) if !head.is_absent() => return Difference::Undecided,
        (0, _) => return Difference::OnlyHead,
        (_, 0) => return Difference::OnlyBase,
        _ => {}
    }
    if base.is_mixed() || head.is_mixed() {
        return Difference::NowAndThen;
    }
    let enough = base.verdicts() >= RUNS && head.verdicts() >= RUNS;
    match (base.failed > 0, head.failed > 0) {
        (false, false) => Difference::PassesOnBoth,
        (true, true) => Difference::FailsOnBoth,
        (false, true) if enough => Difference::Broke,
        (true, false) if enough => Difference::Recovered,
        _ => Difference::Undecided,
    }
}

/// How often each was said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    not_run: usize,
    unknown: usize,
}

impl Tally {
    pub(crate) fn of(states: &[State]) -> Self {
        let count = |state| states.iter().filter(|it| **it == state).count();
        Self {
            passed: count(State::Passed),
            failed: count(State::Failed),
            not_run: count(State::NotRun),
            unknown: count(State::NoVerdict),
        }
    }

    pub(crate) fn verdicts(self) -> usize {
        self.passed + self.failed
    }

    /// Whether it was not to run, as some run has said and none leaves open.
    pub(super) fn is_absent(self) -> bool {
        self.not_run > 0 && self.unknown == 0
    }

    fn is_mixed(self) -> bool {
        self.passed > 0 && self.failed > 0
    }
}
