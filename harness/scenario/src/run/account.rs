//! What came of a scenario that failed, as data: what the run's report draws, beside the first page.

use std::path::Path;
use std::time::Duration;

use podwire_process::plain;
use serde::{Deserialize, Serialize};

use crate::check::clock::millis;
use crate::check::failure::{Cause, Failure};
use crate::check::pairs::{Met, Pairs};
use crate::check::rules::RuleChange;
use crate::run::context::{self, ContextError};

/// What a scenario saw when it failed: `failure.json` in the attempt's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What the scenario shows.
    pub about: String,
    /// The class of what was seen; nothing where it could not be carried out.
    pub cause: Option<Cause>,
    /// What should have been; empty where it could not be carried out.
    pub expected: String,
    /// What was instead, or why it could not be carried out.
    pub seen: String,
    /// Where to look first.
    pub look: String,
    /// Who was asked by whom, where that is what it is about.
    pub pairs: Option<Pairs>,
    /// What a lost packet met on the node that had it last.
    pub met: Option<Met>,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// When it failed, milliseconds since the segment's start.
    pub failed_ms: u64,
    /// What changed of the nodes' rules meanwhile, in order; empty until the nodes have told.
    #[serde(default)]
    pub rules: Vec<RuleChange>,
}

/// What a lab did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When it began, milliseconds since the segment's start.
    pub at_ms: u64,
    /// What.
    pub text: String,
}

impl Account {
    /// Its name in the attempt's folder.
    pub const FILE: &'static str = "failure.json";

    pub(crate) fn of(
        about: &str,
        error: &anyhow::Error,
        steps: Vec<(Duration, String)>,
        failed: Duration,
    ) -> Self {
        let failure = error.downcast_ref::<Failure>();
        let said = |text: &dyn Fn(&Failure) -> &str| {
            failure.map_or(String::new(), |failure| plain::text(text(failure)))
        };
        let steps = steps.into_iter().map(|(at, text)| Step {
            at_ms: millis(at),
            text,
        });
        Self {
            about: about.to_owned(),
            cause: failure.map(|failure| failure.cause),
            expected: said(&|it| it.expected.as_str()),
            seen: match failure {
                Some(_) => said(&|it| it.seen.as_str()),
                None => plain::text(&format!("{error:#}")),
            },
            look: said(&|it| it.look.as_str()),
            pairs: failure.and_then(|failure| failure.pairs.as_deref().cloned()),
            met: None,
            steps: steps.collect(),
            failed_ms: millis(failed),
            rules: Vec::new(),
        }
    }

    /// Why it failed, in one sentence: as its result says it, were there one.
    pub(crate) fn reason(&self) -> String {
        match self.cause {
            Some(cause) => Failure::new(cause, &self.expected, &self.seen).to_string(),
            None => self.seen.clone(),
        }
    }

    /// Reads it from the attempt's folder.
    pub(crate) fn read(attempt: &Path) -> Result<Self, ContextError> {
        context::read(&attempt.join(Self::FILE))
    }

    /// Writes it into the attempt's folder.
    pub(crate) fn write(&self, attempt: &Path) -> Result<(), ContextError> {
        context::write(&attempt.join(Self::FILE), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};

    fn account(error: &anyhow::Error) -> Account {
        let steps = vec![(Duration::from_millis(1500), "drain node3".to_owned())];
        Account::of("A node is drained", error, steps, Duration::from_secs(3))
    }

    #[test]
    fn what_was_seen_is_told_as_data_and_read_again() {
        let failure = Failure::new(Cause::TimedOut, "an answer", "none\u{9b}2J")
            .look("the routes")
            .pairs(Pairs::default());
        let error = anyhow::Error::from(failure).context("run 2 of 3");
        let told = account(&error);
        insta::assert_snapshot!(serde_json::to_string_pretty(&told).unwrap());
        let folder = tempfile::tempdir().unwrap();
        told.write(folder.path()).unwrap();
        let back: Account = context::read(&folder.path().join(Account::FILE)).unwrap();
        assert_eq!(back, told);
        assert_eq!(
            back.reason(),
            "expected an answer; seen (timed out): none\\u009b2J"
        );
    }

    #[test]
    fn what_could_not_be_carried_out_has_no_class() {
        let error = Err::<(), _>(anyhow!("no answer"))
            .context("cannot ask")
            .unwrap_err();
        let told = account(&error);
        assert_eq!((told.cause, told.expected.as_str()), (None, ""));
        assert_eq!(told.seen, "cannot ask: no answer");
        assert_eq!(told.reason(), told.seen);
    }
}
