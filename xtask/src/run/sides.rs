//! Both sides of a comparison, from how they are named to the flags by which they are tested.

use std::fs::File;

use crate::command::cli::run::CompareArgs;
use crate::command::session::Session;
use crate::command::side::{Side, side};
use crate::run::revision::{Recipe, Revision};
use crate::say::stop::Stop;

/// The two, in the order of everything that has both.
pub(crate) const SIDES: [Name; 2] = [Name::Base, Name::Head];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Base,
    Head,
}

impl Name {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Head => "head",
        }
    }

    /// The same end, told as this side's.
    pub(crate) fn told(self, stop: Stop) -> Stop {
        match stop {
            Stop::Usage(text) => Stop::Usage(format!("{}: {text}", self.text())),
            Stop::Setup(error) => Stop::Setup(error.context(self.text())),
            other => other,
        }
    }
}

/// A side as it is named.
#[derive(Debug)]
pub(crate) enum Named<'a> {
    Flags(Vec<String>),
    Revision(Revision, Recipe<'a>),
}

/// A side that can be tested.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) flags: Vec<String>,
    /// Which revision it is, if it is one.
    pub(crate) revision: Option<String>,
    /// The revision's checkout is used as long as it lives.
    _used: Option<File>,
}

/// Reads how both are named; nothing is built.
///
/// # Errors
/// [`Stop::Usage`], with the side's name.
pub(crate) fn named<'a>(session: &Session, args: &'a CompareArgs) -> Result<[Named<'a>; 2], Stop> {
    let read = |name: Name, asked: &str| side(asked).map_err(|why| name.told(Stop::Usage(why)));
    let asked = [read(Name::Base, &args.base)?, read(Name::Head, &args.head)?];
    let recipe = recipe(args, &asked)?;
    let [base, head] = asked;
    let named = |name: Name, side| {
        match (side, recipe) {
        (Side::Flags(flags), _) => Ok(Named::Flags(flags)),
        (Side::Revision(revision), Some(recipe)) => {
            let found = Revision::find(session, recipe, &revision);
            found.map(|it| Named::Revision(it, recipe)).map_err(|stop| name.told(stop))
        }
        (Side::Revision(_), None) => Err(Stop::Usage(
            "a revision needs --repository, which has it, and --takes, the flags by which it is tested \
             (\"--replace kube-proxy={}/out/kube-proxy\")"
                .to_owned(),
        )),
    }
    };
    Ok([named(Name::Base, base)?, named(Name::Head, head)?])
}

/// What is to become of revisions, where it is said.
fn recipe<'a>(args: &'a CompareArgs, sides: &[Side]) -> Result<Option<Recipe<'a>>, Stop> {
    let has_revision = sides.iter().any(|it| matches!(it, Side::Revision(_)));
    let is_said = args.repository.is_some() || args.build.is_some() || args.takes.is_some();
    if is_said && !has_revision {
        return Err(Stop::Usage(
            "--repository, --build and --takes are for revisions, and no side is one (\"git:main\")"
                .to_owned(),
        ));
    }
    let both = args.repository.as_deref().zip(args.takes.as_deref());
    Ok(both.map(|(repository, takes)| Recipe {
        repository,
        build: args.build.as_deref(),
        takes,
    }))
}

impl Named<'_> {
    /// What is to be said of it before anything else, a line each.
    pub(crate) fn told(&self, name: Name) -> String {
        let Self::Revision(revision, recipe) = self else {
            return String::new();
        };
        let name = name.text();
        let mut text = format!("{name}: {}", revision.told);
        text += match (revision.is_made(), recipe.build) {
            (true, _) => ", built already",
            (false, Some(_)) => ", to be checked out and built",
            (false, None) => ", to be checked out",
        };
        if revision.leaves_changes_out {
            let repository = recipe.repository.display();
            text += &format!("\n{name}: what is not committed in {repository} is not in it");
        }
        if revision.has_submodules {
            text += &format!(
                "\n{name}: its submodules are checked out only where --build does it: git submodule update --init"
            );
        }
        text + "\n"
    }

    /// Whether its flags lead to files already.
    pub(crate) fn is_made(&self) -> bool {
        match self {
            Self::Flags(_) => true,
            Self::Revision(revision, _) => revision.is_made(),
        }
    }

    fn make(self, session: &Session) -> Result<Made, Stop> {
        Ok(match self {
            Self::Flags(flags) => Made {
                flags,
                revision: None,
                _used: None,
            },
            Self::Revision(revision, recipe) => {
                let (flags, used) = revision.make(session, recipe)?;
                Made {
                    flags,
                    revision: Some(revision.told),
                    _used: Some(used),
                }
            }
        })
    }
}

/// Builds what is not built.
///
/// # Errors
/// With the side's name.
pub(crate) fn made(session: &Session, named: [Named<'_>; 2]) -> Result<[Made; 2], Stop> {
    session.progress.phase("revisions");
    let [base, head] = named;
    let make = |name: Name, named: Named<'_>| named.make(session).map_err(|stop| name.told(stop));
    let made = make(Name::Base, base).and_then(|base| Ok([base, make(Name::Head, head)?]));
    session.progress.idle();
    made
}
