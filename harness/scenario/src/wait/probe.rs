//! What one look at a condition found.

use crate::check::failure::{Cause, Failure};
use crate::check::pairs::Pairs;
use crate::wait::evidence::Evidence;
use crate::wait::needs::Needs;

/// What one look at a condition found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe<T> {
    /// It holds.
    Done(T),
    /// It does not.
    Lacking(Lacking),
}

/// What a look found instead of the condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    pub(crate) cause: Cause,
    pub(crate) state: String,
    pub(crate) look: Option<String>,
    pub(crate) pairs: Option<Box<Pairs>>,
    pub(crate) evidence: Option<Evidence>,
    pub(crate) needs: Box<Needs>,
}

impl<T> Probe<T> {
    /// Not yet, and what there is instead.
    pub fn not_yet(cause: Cause, state: impl Into<String>) -> Self {
        Self::Lacking(Lacking::new(cause, state))
    }

    /// Done where it holds; else not yet, for this cause and in this state.
    pub fn of(found: Option<T>, cause: Cause, state: impl Into<String>) -> Self {
        match found {
            Some(found) => Self::Done(found),
            None => Self::not_yet(cause, state),
        }
    }

    /// Done where an assertion holds; else not yet, as its failure says.
    pub fn judged(judged: Result<T, Failure>) -> Self {
        match judged {
            Ok(found) => Self::Done(found),
            Err(failure) => Self::not_yet(failure.cause, failure.seen)
                .look(failure.look)
                .pairs(failure.pairs),
        }
    }

    /// It never will, as the state itself says: waiting on would only hide the reason.
    pub fn hopeless(cause: Cause, state: impl Into<String>) -> Self {
        Self::not_yet(cause, state).given(Some(Evidence::certain("")))
    }

    /// The same, with what was found out about its prospects.
    #[must_use]
    pub fn given(self, found: Option<Evidence>) -> Self {
        self.with(|lacking| lacking.evidence = found)
    }

    /// The same, saying who would have to act for the condition to hold: from time to time it is
    /// asked whether it can.
    #[must_use]
    pub fn needs(self, needs: Needs) -> Self {
        self.with(|lacking| *lacking.needs = needs)
    }

    /// The same, saying where to look first. What its evidence says comes before that.
    #[must_use]
    pub fn look(self, at: impl Into<String>) -> Self {
        self.with(|lacking| lacking.look = Some(at.into()))
    }

    /// The same, with who was asked by whom.
    pub(crate) fn pairs(self, pairs: Option<Box<Pairs>>) -> Self {
        self.with(|lacking| lacking.pairs = pairs)
    }

    fn with(mut self, change: impl FnOnce(&mut Lacking)) -> Self {
        if let Self::Lacking(lacking) = &mut self {
            change(lacking);
        }
        self
    }
}

impl Probe<()> {
    /// Done where it holds; else not yet, for this cause and in this state.
    pub fn when(holds: bool, cause: Cause, state: impl Into<String>) -> Self {
        Self::of(holds.then_some(()), cause, state)
    }
}

impl Lacking {
    pub(crate) fn new(cause: Cause, state: impl Into<String>) -> Self {
        Self {
            cause,
            state: state.into(),
            look: None,
            pairs: None,
            evidence: None,
            needs: Box::new(Needs::Time),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self.evidence.as_ref().map(Evidence::why) {
            None | Some("") => self.state.clone(),
            Some(why) => format!("{}: {why}", self.state),
        }
    }
}
