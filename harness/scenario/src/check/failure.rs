//! An assertion that did not hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::check::pairs::Pairs;

/// The class of what was seen instead of what was expected.
///
/// The rule "name the failure" (docs/writing-a-scenario.md): refused, timed out, no route, name not found, TLS and
/// HTTP failures are told apart, never just "not ok". A sabotage names the class it must provoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The other side answered with a TCP reset to the connection request.
    Refused,
    /// Nothing came back within the limit.
    TimedOut,
    /// The kernel had nowhere to send it.
    NoRoute,
    /// A name did not resolve.
    NameNotFound,
    /// The TLS handshake failed.
    Tls,
    /// An HTTP status other than 200.
    HttpStatus,
    /// It answered, and should not have.
    Answered,
    /// Somebody answered who should not have, or saw another client address than the sender's.
    WrongAnswer,
    /// Other octets arrived than were sent.
    Corrupted,
    /// The counts of answers lie outside the band that fair balancing allows.
    Unbalanced,
    /// Two have what only one may have.
    NotUnique,
    /// An address lies outside the range that it belongs to.
    OutsideRange,
    /// Something that should exist does not.
    Absent,
    /// It exists, but has not reached the state expected of it.
    NotReady,
    /// It was answered, but its packets took another way than they should.
    WrongPath,
    /// It was answered, but packets were lost on the way and had to be sent again.
    SentAgain,
    /// One connection was opened twice: somebody on the way forgot the first attempt.
    SecondSyn,
    /// Everything was as expected, but something stood out on the wire, and the run wants nothing to
    /// (`--wire strict`).
    Unusual,
    /// Something ended or restarted that should have gone on.
    Died,
    /// None of the classes above.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::NoRoute => "no route",
            Self::NameNotFound => "name not found",
            Self::Tls => "TLS failure",
            Self::HttpStatus => "HTTP status",
            Self::Answered => "answered",
            Self::WrongAnswer => "wrong answer",
            Self::Corrupted => "corrupted",
            Self::Unbalanced => "unbalanced",
            Self::NotUnique => "not unique",
            Self::OutsideRange => "outside its range",
            Self::Absent => "absent",
            Self::NotReady => "not ready",
            Self::WrongPath => "wrong path",
            Self::SentAgain => "sent again",
            Self::SecondSyn => "second SYN",
            Self::Unusual => "unusual",
            Self::Died => "died",
            Self::Other => "other",
        })
    }
}

/// An assertion that did not hold: the cluster's fault, never the harness's.
///
/// Everything else that goes wrong in a scenario is an ordinary error and says that the scenario
/// could not be carried out. A sabotage is caught by a `Failure` only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}; seen ({cause}): {seen}")]
pub struct Failure {
    /// Class of what was seen, of what is told first where it is several things.
    pub cause: Cause,
    /// The classes of what else was seen. A lossy machine adds an end of its own to a few of many requests: what
    /// befell the others is a finding none the less.
    pub also: Vec<Cause>,
    /// What should have been, completing "expected ...".
    pub expected: String,
    /// What was.
    pub seen: String,
    /// Where a reader of the evidence should look first.
    pub look: String,
    /// Who was asked by whom, where that is what it is about.
    pub pairs: Option<Box<Pairs>>,
}

impl Failure {
    /// A failure that points nowhere in particular yet.
    pub fn new(cause: Cause, expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self {
            cause,
            also: Vec::new(),
            expected: expected.into(),
            seen: seen.into(),
            look: "the nodes' journals and the wire capture of the evidence".into(),
            pairs: None,
        }
    }

    /// The same failure, saying where to look first.
    #[must_use]
    pub fn look(mut self, at: impl Into<String>) -> Self {
        self.look = at.into();
        self
    }

    /// The same failure, with what else was found, and where.
    #[must_use]
    pub(crate) fn also(mut self, place: &str, other: &Self) -> Self {
        self.seen += &format!("\n{place}: {other}");
        self.also.push(other.cause);
        self
    }

    /// Whether this is what was found, or among it.
    pub(crate) fn finds(&self, cause: Cause) -> bool {
        self.cause == cause || self.also.contains(&cause)
    }

    /// The same failure, with who was asked by whom.
    #[must_use]
    pub(crate) fn pairs(mut self, pairs: Pairs) -> Self {
        self.pairs = Some(Box::new(pairs));
        self
    }
}

/// Holds, or ends the function with a [`Failure`] of this cause: what was expected, and
/// what was seen instead; both are formatted like `format!`'s. Where to look first may follow.
///
/// ```
/// # fn listed() -> Option<&'static str> { None }
/// # fn check() -> anyhow::Result<()> {
/// use podwire_scenario::ensure;
///
/// let (name, node) = ("node3", listed());
/// ensure!(node.is_none(), Answered, "{name} off the list", "{node:?}");
/// ensure!(node.is_none(), Answered, "{name} off the list", "{node:?}", "the events of {name}");
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $cause:ident, $expected:literal, $seen:literal) => {
        if !$holds {
            return ::std::result::Result::Err($crate::fails!($cause, $expected, $seen).into());
        }
    };
    ($holds:expr, $cause:ident, $expected:literal, $seen:literal, $look:literal) => {
        if !$holds {
            let failure = $crate::fails!($cause, $expected, $seen);
            return ::std::result::Result::Err(failure.look(::std::format!($look)).into());
        }
    };
}

/// Nothing of the kind was found, or the function ends with a [`Failure`] of this cause: what was expected, which is
/// formatted like `format!`'s, and all that was found instead.
///
/// ```
/// # fn names() -> [&'static str; 2] { ["node1", "node2"] }
/// # fn check() -> anyhow::Result<()> {
/// use podwire_scenario::ensure_none;
///
/// let (name, astray) = ("node3", names().into_iter().filter(|it| *it == "node3"));
/// ensure_none!(astray, Answered, "{name} off the list");
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! ensure_none {
    ($found:expr, $cause:ident, $expected:literal) => {
        let mut found = ::std::iter::IntoIterator::into_iter($found).peekable();
        if found.peek().is_some() {
            let found = $crate::listed(found);
            return ::std::result::Result::Err($crate::fails!($cause, $expected, "{found}").into());
        }
    };
}

/// One after the other, as people write them: `node1, node2`, or `none`.
pub fn listed<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|it| it.to_string()).collect();
    match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(", "),
    }
}

/// The [`Failure`] of this cause: what was expected, and what was seen instead.
#[macro_export]
macro_rules! fails {
    ($cause:ident, $expected:literal, $seen:literal) => {
        $crate::Failure::new(
            $crate::Cause::$cause,
            ::std::format!($expected),
            ::std::format!($seen),
        )
    };
}

pub(crate) use ensure;

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody_of(found: &[&str]) -> Result<(), Failure> {
        let node = "node2";
        ensure_none!(found, Answered, "nobody on {node}");
        Ok(())
    }

    #[test]
    fn what_should_not_be_there_is_told_whole() {
        let failure = nobody_of(&["red", "blue"]).unwrap_err();
        let told = (failure.cause, failure.expected, failure.seen);
        let (expected, seen) = ("nobody on node2".to_owned(), "red, blue".to_owned());
        assert_eq!(told, (Cause::Answered, expected, seen));
        assert!(nobody_of(&[]).is_ok());
        // It has no name, and is there.
        assert!(nobody_of(&[""]).is_err());
        assert_eq!(listed(<[&str; 0]>::default()), "none");
    }
}
