//! `cargo xtask merge`: parts of a run, or of a comparison, on several machines become one again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use time::OffsetDateTime;

use crate::command::cli::run::MergeArgs;
use crate::command::workspace::Workspace;
use crate::report::compare::joined::Piece;
use crate::report::compare::{self, Comparison};
use crate::report::join::{self, Part};
use crate::report::results::Results;
use crate::report::{files, summary};
use crate::say::progress;
use crate::say::stop::Stop;

/// The whole command. The verdict is that of a run, or a comparison, which had all scenarios itself.
pub(crate) fn merge(workspace: &Workspace, args: &MergeArgs) -> Result<(), Stop> {
    let into = args.into.as_deref().map(made).transpose()?;
    let parts = args
        .folders
        .iter()
        .map(|folder| part(folder, into.as_deref()));
    let parts: anyhow::Result<Vec<Either>> = parts.collect();
    let whole = parts.and_then(whole);
    let whole = whole.map_err(|apart| Stop::Usage(format!("{apart:#}")))?;
    let shown = match (&into, &args.into) {
        (Some(into), Some(written)) => {
            whole.write(into)?;
            written.clone()
        }
        _ => {
            whole.write(&workspace.new_run(OffsetDateTime::now_utc())?)?;
            workspace.shown(&workspace.latest())
        }
    };
    match whole {
        Whole::Run(results) => {
            out!("{}", summary::render(&results, &shown));
            match results.good(args.strict || progress::is_ci()) {
                true => Ok(()),
                false => Err(Stop::Failed),
            }
        }
        Whole::Comparison(comparison) => {
            out!("{}", compare::summary::render(&comparison, &shown));
            match (comparison.is_worse(), comparison.error) {
                (true, _) => Err(Stop::Failed),
                (false, Some(error)) => Err(Stop::setup(error)),
                (false, None) => Ok(()),
            }
        }
    }
}

/// The folder of `--into`, made where there is none, without symbolic links.
fn made(into: &Path) -> anyhow::Result<PathBuf> {
    let made = fs::create_dir_all(into).and_then(|()| fs::canonicalize(into));
    made.with_context(|| format!("--into: cannot make {}", into.display()))
}

/// What one machine has left.
enum Either {
    Run(Part),
    Comparison(Piece),
}

/// What becomes of all parts.
enum Whole {
    Run(Box<Results>),
    Comparison(Box<Comparison>),
}

impl Whole {
    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        match self {
            Self::Run(results) => files::write(folder, results),
            Self::Comparison(comparison) => files::write_comparison(folder, comparison),
        }
    }
}

/// Makes one of all, whichever they are.
fn whole(parts: Vec<Either>) -> anyhow::Result<Whole> {
    let (mut runs, mut comparisons) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Either::Run(part) => runs.push(part),
            Either::Comparison(piece) => comparisons.push(piece),
        }
    }
    if let (Some(run), Some(comparison)) = (runs.first(), comparisons.first()) {
        bail!(
            "{} has a run's results and {} a comparison: no parts of one whole",
            run.folder.display(),
            comparison.folder.display()
        );
    }
    Ok(match comparisons.is_empty() {
        true => Whole::Run(Box::new(join::join(runs)?)),
        false => Whole::Comparison(Box::new(compare::joined::join(comparisons)?)),
    })
}

/// What one machine has left in a folder; `report` is the folder of the whole's, where it is known before.
fn part(folder: &Path, report: Option<&Path>) -> anyhow::Result<Either> {
    let comparison = folder.join(compare::FILE);
    let is_comparison = comparison.exists();
    let (path, what) = match is_comparison {
        true => (comparison, "a comparison"),
        false => (folder.join("results.json"), "a run's results"),
    };
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let wrong = || format!("{} is not {what}", path.display());
    let there = fs::canonicalize(folder);
    let there = there.with_context(|| format!("cannot look at {}", folder.display()))?;
    // Who merges again would find the whole in place of a part.
    ensure!(
        report != Some(there.as_path()),
        "--into: {} has a part's own results, which the whole's would replace; take another folder",
        folder.display()
    );
    let seen = report.map_or_else(|| there.clone(), |report| join::seen_from(report, &there));
    let folder = folder.to_owned();
    Ok(match is_comparison {
        true => Either::Comparison(Piece {
            comparison: serde_json::from_slice(&text).with_context(wrong)?,
            folder,
            seen,
        }),
        false => Either::Run(Part {
            results: serde_json::from_slice(&text).with_context(wrong)?,
            folder,
            seen,
        }),
    })
}
