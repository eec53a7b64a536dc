//! `cargo xtask merge`: parts of a run on several machines become one again.

use std::fs;

use anyhow::Context as _;
use time::OffsetDateTime;

use crate::command::cli::MergeArgs;
use crate::command::workspace::Workspace;
use crate::report::join::{self, Part};
use crate::report::{files, summary};
use crate::say::progress;
use crate::say::stop::Stop;

/// The whole command. The verdict is that of a run which had all scenarios itself.
pub(crate) fn merge(workspace: &Workspace, args: &MergeArgs) -> Result<(), Stop> {
    let read = args.folders.iter().map(|folder| {
        let path = folder.join("results.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let results = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a run's results", path.display()))?;
        Ok(Part {
            folder: folder.clone(),
            results,
        })
    });
    let parts: anyhow::Result<Vec<Part>> = read.collect();
    let parts = parts.map_err(|error| Stop::Usage(format!("{error:#}")))?;
    let results = join::join(parts).map_err(|apart| Stop::Usage(apart.to_string()))?;
    let run_dir = workspace.new_run(OffsetDateTime::now_utc())?;
    files::write(&run_dir, &results)?;
    out!(
        "{}",
        summary::render(&results, &workspace.shown(&workspace.latest()))
    );
    match results.good(args.strict || progress::is_ci()) {
        true => Ok(()),
        false => Err(Stop::Failed),
    }
}
