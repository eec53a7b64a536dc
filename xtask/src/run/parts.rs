//! `cargo xtask merge`: parts of a run on several machines become one again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use time::OffsetDateTime;

use crate::command::cli::run::MergeArgs;
use crate::command::workspace::Workspace;
use crate::report::join::{self, Part};
use crate::report::{files, summary};
use crate::say::progress;
use crate::say::stop::Stop;

/// The whole command. The verdict is that of a run which had all scenarios itself.
pub(crate) fn merge(workspace: &Workspace, args: &MergeArgs) -> Result<(), Stop> {
    let into = args.into.as_deref().map(made).transpose()?;
    let parts = args
        .folders
        .iter()
        .map(|folder| part(folder, into.as_deref()));
    let parts: anyhow::Result<Vec<Part>> = parts.collect();
    let parts = parts.map_err(|error| Stop::Usage(format!("{error:#}")))?;
    let results = join::join(parts).map_err(|apart| Stop::Usage(apart.to_string()))?;
    let shown = match (&into, &args.into) {
        (Some(into), Some(written)) => {
            files::write(into, &results)?;
            written.clone()
        }
        _ => {
            files::write(&workspace.new_run(OffsetDateTime::now_utc())?, &results)?;
            workspace.shown(&workspace.latest())
        }
    };
    out!("{}", summary::render(&results, &shown));
    match results.good(args.strict || progress::is_ci()) {
        true => Ok(()),
        false => Err(Stop::Failed),
    }
}

/// The folder of `--into`, made where there is none, without symbolic links.
fn made(into: &Path) -> anyhow::Result<PathBuf> {
    let made = fs::create_dir_all(into).and_then(|()| fs::canonicalize(into));
    made.with_context(|| format!("--into: cannot make {}", into.display()))
}

/// One machine's results; `report` is the folder of the whole's, where it is known before.
fn part(folder: &Path, report: Option<&Path>) -> anyhow::Result<Part> {
    let path = folder.join("results.json");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let results = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a run's results", path.display()))?;
    let there = fs::canonicalize(folder);
    let there = there.with_context(|| format!("cannot look at {}", folder.display()))?;
    // Who merges again would find the whole in place of a part.
    ensure!(
        report != Some(there.as_path()),
        "--into: {} has a part's own results, which the whole's would replace; take another folder",
        folder.display()
    );
    Ok(Part {
        folder: folder.to_owned(),
        seen: report.map_or_else(|| there.clone(), |report| join::seen_from(report, &there)),
        results,
    })
}
