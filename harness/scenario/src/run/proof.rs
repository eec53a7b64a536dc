//! Whether a sabotage has proved that an assertion can fail, as data.

use std::fmt;

use podwire_process::plain;

use crate::check::failure::Failure;
use crate::run::result::SabotageResult;
use crate::scenario::Sabotage;

/// What the assertion made of an injected fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It failed, with the cause that the sabotage names among what was found, and said what it must.
    Caught(Failure),
    /// It held, as if nothing were broken.
    Held,
    /// It failed otherwise.
    Otherwise(Failure),
    /// It neither held nor failed, for this reason.
    Error(String),
    /// It was not made: the fault could not be injected.
    NotInjected(String),
}

/// A fault that could not be injected, which proves nothing: neither about the assertion nor about the
/// cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the fault could not be injected: {0}")]
pub(crate) struct NotInjected(pub(crate) String);

impl Effect {
    /// The effect of this sabotage, by what came of its function.
    pub(crate) fn of(sabotage: &Sabotage, verdict: &anyhow::Result<()>) -> Self {
        match verdict {
            Ok(()) => Self::Held,
            Err(error) => match (error.downcast_ref(), error.downcast_ref::<Failure>()) {
                (Some(NotInjected(why)), _) => Self::NotInjected(why.clone()),
                (None, Some(failure)) if is_expected(sabotage, failure) => {
                    Self::Caught(failure.clone())
                }
                (None, Some(failure)) => Self::Otherwise(failure.clone()),
                (None, None) => Self::Error(format!("{error:#}")),
            },
        }
    }
}

/// Whether the failure is of the class that the sabotage names, and says what it must say.
fn is_expected(sabotage: &Sabotage, failure: &Failure) -> bool {
    let said = sabotage
        .says
        .is_none_or(|words| failure.seen.contains(words));
    said && failure.finds(sabotage.expects)
}

/// Completes "the assertion ...".
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught(failure) => write!(f, "failed as it should: {failure}"),
            Self::Held => f.write_str("held, as if nothing were broken"),
            Self::Otherwise(failure) => {
                write!(f, "failed with \"{}\": {failure}", failure.cause)
            }
            Self::Error(error) => write!(f, "neither held nor failed: {error}"),
            Self::NotInjected(why) => {
                write!(
                    f,
                    "was not made, since the fault could not be injected: {why}"
                )
            }
        }
    }
}

/// A sabotage that was injected, and what the assertion made of it.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    pub(crate) sabotage: Sabotage,
    pub(crate) effect: Effect,
}

impl Proof {
    pub(crate) fn is_caught(&self) -> bool {
        matches!(self.effect, Effect::Caught(_))
    }

    /// As the attempt's result has it.
    pub(crate) fn result(&self) -> SabotageResult {
        let (reason, lost) = match &self.effect {
            Effect::Caught(failure) => {
                let pairs = failure.pairs.as_ref();
                (failure.to_string(), pairs.and_then(|it| it.lost.as_ref()))
            }
            _ => (self.to_string(), None),
        };
        SabotageResult {
            name: self.sabotage.name.to_owned(),
            caught: self.is_caught(),
            reason: plain::text(&reason),
            held_by: lost.and_then(|lost| lost.held_by),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sabotage { about, .. } = self.sabotage;
        let (failure, effect) = (self.sabotage.failure(), &self.effect);
        write!(
            f,
            "{about}: the assertion should have failed with {failure}, but it {effect}"
        )
    }
}

/// Sabotages that were not caught: the scenario is at fault, not the cluster, on which it passed.
#[derive(Debug, Clone)]
pub(crate) struct Uncaught {
    /// One at least.
    pub(crate) missed: Vec<Proof>,
}

impl Uncaught {
    /// Those of them that were not caught.
    ///
    /// # Errors
    /// This, when there is one.
    pub(crate) fn among(proofs: &[Proof]) -> Result<(), Self> {
        let missed: Vec<Proof> = proofs
            .iter()
            .filter(|proof| !proof.is_caught())
            .cloned()
            .collect();
        match missed.is_empty() {
            true => Ok(()),
            false => Err(Self { missed }),
        }
    }
}

impl fmt::Display for Uncaught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cluster passed, but the assertion has not proved that it can fail:")?;
        for proof in &self.missed {
            write!(
                f,
                "\nsabotage {} was not caught: {proof}",
                proof.sabotage.name
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Uncaught {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::check::failure::Cause;
    use anyhow::anyhow;

    /// A missing route that must be noticed as a time-out, and what became of it.
    pub(crate) fn proof(name: &'static str, verdict: &anyhow::Result<()>) -> Proof {
        let sabotage = Sabotage {
            expects: Cause::TimedOut,
            ..Sabotage::new(name).about("a route is missing")
        };
        let effect = Effect::of(&sabotage, verdict);
        Proof { sabotage, effect }
    }

    pub(crate) fn failure(cause: Cause) -> anyhow::Result<()> {
        Err(failed(cause).into())
    }

    fn failed(cause: Cause) -> Failure {
        Failure::new(cause, "an answer", "none")
    }

    #[test]
    fn a_sabotage_is_caught_by_the_failure_it_must_provoke_and_by_nothing_else() {
        let of = |verdict: &anyhow::Result<()>| proof("a", verdict).effect;
        assert!(matches!(of(&failure(Cause::TimedOut)), Effect::Caught(_)));
        let wrapped = failure(Cause::TimedOut).map_err(|error| error.context("run 2 of 3"));
        assert!(matches!(of(&wrapped), Effect::Caught(_)));
        let first_of_two = Failure::new(Cause::SentAgain, "each packet once", "584 twice");
        let first_of_two = first_of_two.also("At its end", &failed(Cause::TimedOut));
        assert!(matches!(of(&Err(first_of_two.into())), Effect::Caught(_)));
        assert!(matches!(of(&failure(Cause::Refused)), Effect::Otherwise(_)));
        assert_eq!(of(&Ok(())), Effect::Held);
        let error = of(&Err(anyhow!("no cluster").context("cannot clone")));
        assert_eq!(error, Effect::Error("cannot clone: no cluster".into()));
        // Whatever stopped the injection, the check has not spoken.
        let why = failure(Cause::TimedOut).unwrap_err();
        let error = of(&Err(NotInjected(format!("{why:#}")).into()));
        assert!(matches!(error, Effect::NotInjected(_)), "{error}");
    }

    #[test]
    fn a_failure_of_a_wide_class_must_say_what_the_sabotage_names() {
        let sabotage = Sabotage {
            expects: Cause::Absent,
            ..Sabotage::new("a")
                .about("kubectl has another key")
                .saying("x509: ")
        };
        let of = |seen: &str| {
            let verdict = Err(Failure::new(Cause::Absent, "an answer", seen).into());
            let effect = Effect::of(&sabotage, &verdict);
            Proof { sabotage, effect }
        };
        assert!(of("x509: unknown authority").is_caught());
        let other = of("no such file");
        assert!(!other.is_caught());
        insta::assert_snapshot!(other, @r#"kubectl has another key: the assertion should have failed with "absent", saying "x509: ", but it failed with "absent": expected an answer; seen (absent): no such file"#);
    }

    #[test]
    fn only_what_was_not_caught_fails_the_scenario_and_says_what_happened_instead() {
        let caught = proof("caught", &failure(Cause::TimedOut));
        assert!(Uncaught::among(std::slice::from_ref(&caught)).is_ok());
        let uncaught = Uncaught::among(&[
            caught,
            proof("held", &Ok(())),
            proof("other", &failure(Cause::Refused)),
            proof("broken", &Err(anyhow!("node1 does not answer"))),
        ])
        .unwrap_err();
        insta::assert_snapshot!(uncaught, @r#"
        the cluster passed, but the assertion has not proved that it can fail:
        sabotage held was not caught: a route is missing: the assertion should have failed with "timed out", but it held, as if nothing were broken
        sabotage other was not caught: a route is missing: the assertion should have failed with "timed out", but it failed with "refused": expected an answer; seen (refused): none
        sabotage broken was not caught: a route is missing: the assertion should have failed with "timed out", but it neither held nor failed: node1 does not answer
        "#);
    }
}
