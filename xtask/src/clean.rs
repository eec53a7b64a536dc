//! `cargo xtask clean`: what podwire has built or left behind.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use podwire_images::Entry;

use crate::cli::CleanArgs;
use crate::session::Session;
use crate::stop::Stop;
use crate::text::{size, table};

/// What podwire itself keeps in the cache folder. Nothing else in it is ever removed: PODWIRE_CACHE
/// may name a folder that has other uses.
const OWN: [&str; 14] = [
    "accelerator.json",
    "advisory-dbs",
    "build",
    "bundles",
    "durations.json",
    "go",
    "images",
    "keys",
    "locks",
    "logs",
    "requests",
    "stages",
    "tmp",
    "tools",
];

/// Removes old runs and leftovers; with `--all` everything.
pub(crate) fn clean(session: &Session, args: &CleanArgs) -> Result<(), Stop> {
    // A stage under construction is a leftover only when nobody builds it.
    let _lock = session.cache.lock("stage", &session.progress)?;
    let entries = session.cache.entries()?;
    let doomed: Vec<Entry> = runs(session)?
        .into_iter()
        .chain(entries)
        .filter(|entry| is_doomed(entry, args.all) && !in_use(&entry.path))
        .collect();
    let rows: Vec<Vec<String>> = doomed
        .iter()
        .map(|entry| {
            vec![
                size(entry.bytes),
                entry.group.clone(),
                entry.path.display().to_string(),
            ]
        })
        .collect();
    out!("{}", table(&rows));
    let total = size(doomed.iter().map(|entry| entry.bytes).sum());
    if args.dry_run {
        outln!("would remove {total}; nothing was touched");
        return Ok(());
    }
    for entry in &doomed {
        if entry.group == RUNS {
            fs::remove_dir_all(&entry.path)
                .with_context(|| format!("cannot remove {}", entry.path.display()))?;
        } else {
            session.cache.remove_entry(entry)?;
        }
    }
    outln!("removed {total}");
    if !args.all {
        outln!("the last run and what saves time are kept; `--all` removes these too");
    }
    Ok(())
}

/// Group of the folders of runs that may go without `--all`, and of the one that may not.
const RUNS: &str = "runs";
const LAST_RUN: &str = "last run";

fn runs(session: &Session) -> anyhow::Result<Vec<Entry>> {
    let latest = fs::canonicalize(session.workspace.latest()).ok();
    let folder = session.workspace.runs();
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        let last = latest.is_some() && fs::canonicalize(&path).ok() == latest;
        let group = if last { LAST_RUN } else { RUNS };
        entries.push(Entry {
            group: group.into(),
            bytes: allocated(&path)?,
            path,
        });
    }
    Ok(entries)
}

fn is_doomed(entry: &Entry, all: bool) -> bool {
    let unfinished = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(".building-"))
    };
    match entry.group.as_str() {
        RUNS | "tmp" => true,
        LAST_RUN => false,
        "stages" if unfinished(&entry.path) => true,
        group => all && OWN.contains(&group),
    }
}

/// Folders of runs and of builds carry the number of the process that works in them.
fn in_use(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let own = std::process::id().to_string();
    name.split('-')
        .skip(1)
        .filter(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        .any(|pid| pid != own && is_ours(pid))
}

/// Whether a process of that number runs this program.
fn is_ours(pid: &str) -> bool {
    let program = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    program(pid).is_some_and(|name| Some(name) == program("self"))
}

/// Bytes that a tree occupies on disk.
fn allocated(path: &Path) -> anyhow::Result<u64> {
    let failed = || format!("cannot measure {}", path.display());
    let metadata = fs::symlink_metadata(path).with_context(failed)?;
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        let children: Vec<PathBuf> = fs::read_dir(path)
            .with_context(failed)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        for child in children {
            bytes += allocated(&child)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doomed(group: &str, path: &str, all: bool) -> bool {
        is_doomed(
            &Entry {
                group: group.into(),
                path: path.into(),
                bytes: 1,
            },
            all,
        )
    }

    #[test]
    fn without_all_only_old_runs_and_leftovers_go() {
        assert!(doomed("runs", "runs/20261121T130500Z-1", false));
        assert!(doomed("tmp", "tmp/image-12-0", false));
        assert!(doomed("stages", "stages/.building-x7", false));
        for kept in [
            "last run", "stages", "bundles", "images", "tools", "go", "keys",
        ] {
            assert!(!doomed(kept, "x", false), "{kept}");
        }
    }

    #[test]
    fn nothing_foreign_ever_goes() {
        assert!(doomed("stages", "stages/0123", true));
        assert!(!doomed("Documents", "Documents", true));
        assert!(!doomed("last run", "runs/20261121T130500Z-1", true));
    }

    #[test]
    fn what_a_running_podwire_works_in_is_in_use() {
        // Of another program, or gone.
        assert!(!in_use(Path::new("tmp/image-1-0")));
        assert!(!in_use(Path::new("stages/0123456789")));
        assert!(is_ours(&std::process::id().to_string()));
    }
}
