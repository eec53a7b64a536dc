//! `cargo xtask clean`: what podwire has built or left behind.

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use podwire_images::{CacheError, Entry, Removal, Room, allocated, image, victims};
use podwire_process::held_alone;
use podwire_scenario::bare;

use crate::command::cli::house::CleanArgs;
use crate::command::session::Session;
use crate::house::chaos;
use crate::prepare::space::{self, Worth};
use crate::prepare::stage_cache::STAGES;
use crate::say::stop::Stop;
use crate::say::text::{ago, size, table};

/// Group of the folders of runs that may go, and of the last one, which may not.
const RUNS: &str = "runs";
const LAST_RUN: &str = "last run";

/// How much is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Old runs and leftovers; of the cache's contents what was not used for so long, if any.
    Unused(Option<Duration>),
    /// The whole cache too.
    All,
}

/// Removes old runs and leftovers, and from the cache what the arguments name.
pub(crate) fn clean(session: &Session, args: &CleanArgs) -> Result<(), Stop> {
    // Whoever holds it is making a stage; else what was begun there is a leftover.
    let making = session.cache.try_lock("stage")?;
    let mut entries = runs(session)?;
    entries.extend(session.cache.entries()?);
    for entry in &mut entries {
        entry.in_use |= making.is_none() && entry.group == STAGES && entry.is_unfinished();
    }
    let scope = match args.all {
        true => Scope::All,
        false => Scope::Unused(args.older_than),
    };
    let now = SystemTime::now();
    let (mut doomed, rest): (Vec<Entry>, Vec<Entry>) = entries
        .into_iter()
        .partition(|entry| is_doomed(entry, scope, now));
    if let Some(max_size) = args.max_size {
        let worth = Worth::of(&rest, &space::starts());
        let rest: Vec<Entry> = rest
            .into_iter()
            .filter(|entry| ![RUNS, LAST_RUN].contains(&entry.group.as_str()))
            .collect();
        let room = Room {
            budget: max_size.as_u64(),
            needed: 0,
            keep: &[],
            counts_as_used: &|entry| worth.counts_as_used(entry),
        };
        doomed.extend(victims(&rest, &room));
    }
    let (busy, doomed): (Vec<Entry>, Vec<Entry>) =
        doomed.into_iter().partition(|entry| entry.in_use);
    out!("{}", list(&doomed, now));
    if args.dry_run {
        say_busy(&busy);
        let total = size(doomed.iter().map(|entry| entry.bytes).sum());
        outln!("would remove {total}; nothing was touched");
        return Ok(());
    }
    let (removed, taken) = remove(session, doomed)?;
    say_busy(&[busy, taken].concat());
    outln!("removed {}", size(removed));
    if scope == Scope::Unused(None) && args.max_size.is_none() {
        outln!(
            "the last run and what saves time are kept; --older-than 7d and --max-size 10GiB thin \
             that out, --all removes it"
        );
    }
    Ok(())
}

fn list(entries: &[Entry], now: SystemTime) -> String {
    let row = |entry: &Entry| {
        let unused = now.duration_since(entry.used).unwrap_or_default();
        vec![
            size(entry.bytes),
            entry.group.clone(),
            format!("used {}", ago(unused)),
            entry.path.display().to_string(),
        ]
    };
    table(&entries.iter().map(row).collect::<Vec<_>>())
}

fn say_busy(busy: &[Entry]) {
    for entry in busy {
        outln!("in use, kept: {} {}", entry.group, entry.path.display());
    }
}

/// Removes them; gives the bytes that went, and what somebody has begun to use meanwhile.
fn remove(session: &Session, doomed: Vec<Entry>) -> Result<(u64, Vec<Entry>), Stop> {
    let (mut bytes, mut taken) = (0, Vec::new());
    session.progress.phase("removing");
    for entry in doomed {
        session.progress.step(&entry.path.display().to_string());
        match remove_entry(session, &entry) {
            Ok(Removal::Removed) => bytes += entry.bytes,
            Ok(Removal::InUse) => taken.push(entry),
            Err(stop) => {
                session.progress.idle();
                return Err(stop);
            }
        }
    }
    session.progress.idle();
    Ok((bytes, taken))
}

fn remove_entry(session: &Session, entry: &Entry) -> Result<Removal, Stop> {
    if entry.group == RUNS {
        let cannot = || format!("cannot remove {}", entry.path.display());
        let Some(_alone) = held_alone(&entry.path).with_context(cannot)? else {
            return Ok(Removal::InUse);
        };
        fs::remove_dir_all(&entry.path).with_context(cannot)?;
        return Ok(Removal::Removed);
    }
    match session.cache.remove_entry(entry) {
        // An interrupted step of an image's build has left files of root's.
        Err(CacheError::Io { path, source, .. })
            if source.kind() == ErrorKind::PermissionDenied =>
        {
            image::remove_leftover(&session.workshop(), &path)?;
            Ok(Removal::Removed)
        }
        other => Ok(other?),
    }
}

/// The folders of runs, of campaigns, which have caches of their own in them, and of revisions' checkouts.
fn runs(session: &Session) -> anyhow::Result<Vec<Entry>> {
    let latest = fs::canonicalize(session.workspace.latest()).ok();
    let campaigns = session.workspace.output.join(chaos::CHAOS);
    let revisions = session.workspace.revisions();
    let mut paths = Vec::new();
    for folder in [session.workspace.runs(), campaigns, revisions] {
        if !folder.exists() {
            continue;
        }
        let cannot = || format!("cannot list {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(cannot)? {
            paths.push(entry.with_context(cannot)?.path());
        }
    }
    let mut entries = Vec::new();
    for path in paths {
        let last = latest.is_some() && fs::canonicalize(&path).ok() == latest;
        let group = if last { LAST_RUN } else { RUNS };
        entries.push(Entry {
            group: group.into(),
            bytes: allocated(&path),
            used: fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .with_context(|| format!("cannot look at {}", path.display()))?,
            in_use: bare::in_use(&path),
            path,
        });
    }
    Ok(entries)
}

fn is_doomed(entry: &Entry, scope: Scope, now: SystemTime) -> bool {
    let old = |age| {
        now.duration_since(entry.used)
            .is_ok_and(|unused| unused >= age)
    };
    match (entry.group.as_str(), scope) {
        (LAST_RUN, _) => false,
        _ if entry.is_unfinished() => true,
        (_, Scope::All) => true,
        (RUNS, Scope::Unused(age)) => age.is_none_or(old),
        (_, Scope::Unused(age)) => entry.is_evictable() && age.is_some_and(old),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn entry(group: &str, path: &str, days_ago: u32) -> Entry {
        Entry {
            group: group.into(),
            path: path.into(),
            bytes: 1,
            used: SystemTime::UNIX_EPOCH + DAY * 100 - DAY * days_ago,
            in_use: false,
        }
    }

    fn doomed(group: &str, path: &str, scope: Scope) -> bool {
        let now = SystemTime::UNIX_EPOCH + DAY * 100;
        is_doomed(&entry(group, path, 5), scope, now)
    }

    const PLAIN: Scope = Scope::Unused(None);

    #[test]
    fn without_more_only_old_runs_and_leftovers_go() {
        assert!(doomed("runs", "runs/20261121T130500Z-1", PLAIN));
        assert!(doomed("tmp", "tmp/staging-image-12-0", PLAIN));
        assert!(doomed("stages", "stages/.building-x7", PLAIN));
        for kept in [
            "last run", "stages", "bundles", "images", "tools", "go", "keys",
        ] {
            assert!(!doomed(kept, "x", PLAIN), "{kept}");
        }
    }

    #[test]
    fn an_age_thins_out_the_cache_and_the_runs() {
        let (four, six) = (Scope::Unused(Some(DAY * 4)), Scope::Unused(Some(DAY * 6)));
        for group in ["runs", "stages", "bundles", "images", "tools", "go"] {
            assert!(
                doomed(group, "x", four) && !doomed(group, "x", six),
                "{group}"
            );
        }
        for kept in ["last run", "keys", "durations.json"] {
            assert!(!doomed(kept, "x", four), "{kept}");
        }
        // Of no use at any age.
        assert!(doomed("tmp", "tmp/removed-x", six));
    }

    #[test]
    fn all_is_all_but_the_last_run() {
        for group in ["stages", "keys", "durations.json", "runs"] {
            assert!(doomed(group, "x", Scope::All), "{group}");
        }
        assert!(!doomed("last run", "runs/20261121T130500Z-1", Scope::All));
    }

    #[test]
    fn what_goes_is_listed_with_its_size_and_age() {
        let now = SystemTime::UNIX_EPOCH + DAY * 100;
        let entries = [
            Entry {
                bytes: 3 << 29,
                ..entry("stages", "/c/stages/0123", 12)
            },
            entry("runs", "/t/runs/x", 0),
        ];
        insta::assert_snapshot!(list(&entries, now), @"
        1.5 GiB  stages  used 12 days ago  /c/stages/0123
        <1 MiB   runs    used 1 s ago      /t/runs/x
        ");
    }
}
