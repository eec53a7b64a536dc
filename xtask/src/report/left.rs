//! What the attempts of scenarios that failed left in their folders, as far as `report.html` draws it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use podwire_probe::TrafficRecord;
use podwire_scenario::{Account, Mark, Twin};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::report::own::own;
use crate::report::results::{Results, Verdict};

/// Failures of which more is read than their records.
pub(crate) const FAILURES: usize = 24;
/// Octets of a file that are read, at most: a longer one is no account, and no record of traffic.
const OCTETS: u64 = 16 << 20;
/// Octets of the end of a console.
const CONSOLE: u64 = 16 << 10;
/// Lines of it.
const LINES: usize = 20;

/// What one attempt left.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Left {
    /// Its folder, as the record names it: relative to the run's or the comparison's, or absolute.
    pub(crate) folder: PathBuf,
    /// What it saw when it failed.
    pub(crate) account: Option<Account>,
    /// What came of a healthy clone beside it.
    pub(crate) twin: Option<Twin>,
    /// Its steady traffic.
    pub(crate) traffic: Vec<Sender>,
    /// The last lines of each node's console, by the node's name.
    pub(crate) consoles: Vec<(String, String)>,
    /// What of the nodes' own set-up stands out.
    pub(crate) nodes: Option<String>,
    /// Whether there is a first page.
    pub(crate) first_page: bool,
    /// Whether there is a capture of the wire.
    pub(crate) capture: bool,
}

/// Steady traffic of one sender: what of `timeline.json` is drawn.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Sender {
    pub(crate) from: String,
    /// When it began, milliseconds of the clone's time.
    pub(crate) began_ms: u64,
    pub(crate) sent: TrafficRecord,
    pub(crate) marks: Vec<Mark>,
}

impl Left {
    /// An attempt's page for a person.
    pub(crate) const FIRST_PAGE: &'static str = "first-page.md";
    /// The capture, in the attempt's folder.
    pub(crate) const CAPTURE: &'static str = "evidence/segment.pcapng";
}

/// What the first of those that failed left, by their places among the results' scenarios. What is not
/// there, or cannot be understood, is left out: the page is about a run, whatever became of its files.
pub(crate) fn read(run_dir: &Path, results: &Results) -> BTreeMap<usize, Left> {
    let failed = results.scenarios.iter().enumerate();
    let failed = failed.filter(|(_, record)| record.outcome == Verdict::Failed);
    let folders = failed.filter_map(|(place, record)| Some((place, record.folder.as_deref()?)));
    folders
        .take(FAILURES)
        .map(|(place, folder)| (place, attempt(run_dir, folder)))
        .collect()
}

/// The same of attempts by their folders, which are relative to that of all.
pub(crate) fn of<'a>(
    all: &Path,
    folders: impl Iterator<Item = &'a Path>,
) -> BTreeMap<PathBuf, Left> {
    let read = folders.map(|folder| (folder.to_owned(), attempt(all, folder)));
    read.take(FAILURES).collect()
}

fn attempt(run_dir: &Path, folder: &Path) -> Left {
    let there = run_dir.join(folder);
    let own = |name: &str| own(&there, name);
    let nodes = own("nodes.txt").and_then(|it| beginning(&it));
    Left {
        folder: folder.to_owned(),
        account: own(Account::FILE).and_then(|it| json(&it)),
        twin: own(Twin::FILE).and_then(|it| json(&it)),
        traffic: own("timeline.json")
            .and_then(|it| json(&it))
            .unwrap_or_default(),
        consoles: own("evidence").map_or_else(Vec::new, |it| consoles(&it)),
        nodes: nodes.map(|it| String::from_utf8_lossy(&it).into_owned()),
        first_page: own(Left::FIRST_PAGE).is_some_and(|it| it.is_file()),
        capture: own(Left::CAPTURE).is_some_and(|it| it.is_file()),
    }
}

fn json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&beginning(path)?).ok()
}

fn beginning(path: &Path) -> Option<Vec<u8>> {
    // What is no file may never end.
    let file = path.is_file().then(|| File::open(path))?.ok()?;
    let mut octets = Vec::new();
    file.take(OCTETS).read_to_end(&mut octets).ok()?;
    Some(octets)
}

/// The last words of each node's kernel; of one that said nothing, none.
fn consoles(evidence: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(evidence).into_iter().flatten().flatten();
    let words = entries.filter_map(|node| {
        let console = own(evidence, Path::new(&node.file_name()).join("console.log"))?;
        let words = last_lines(&console)?;
        let name = node.file_name().to_string_lossy().into_owned();
        (!words.is_empty()).then_some((name, words))
    });
    let mut words: Vec<(String, String)> = words.collect();
    words.sort();
    words
}

fn last_lines(path: &Path) -> Option<String> {
    let mut file = path.is_file().then(|| File::open(path))?.ok()?;
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(CONSOLE);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut octets = Vec::new();
    file.take(CONSOLE).read_to_end(&mut octets).ok()?;
    let text = String::from_utf8_lossy(&octets);
    let lines: Vec<&str> = text.lines().filter(|it| !it.trim().is_empty()).collect();
    Some(lines[lines.len().saturating_sub(LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_there_is_read_and_what_cannot_be_understood_is_left_out() {
        let run = tempfile::tempdir().unwrap();
        let mut results = fixture::results();
        results.scenarios[0].outcome = Verdict::Failed;
        results.scenarios[0].folder = Some("cell/attempt-1".into());
        let attempt = run.path().join("cell/attempt-1");
        let nothing = read(run.path(), &results);
        assert_eq!(nothing[&0].account, None);
        assert!(!nothing[&0].capture && !nothing[&0].first_page);

        let node = attempt.join("evidence/node1");
        fs::create_dir_all(&node).unwrap();
        let account = fixture::account();
        let text = serde_json::to_vec(&account).unwrap();
        fs::write(attempt.join(Account::FILE), text).unwrap();
        fs::write(attempt.join("timeline.json"), "{").unwrap();
        fs::write(attempt.join("evidence/segment.pcapng"), "x").unwrap();
        let said = (0..100).map(|number| format!("[ {number}] eth0 \u{fffd}\r\n\n"));
        fs::write(node.join("console.log"), said.collect::<String>()).unwrap();
        let left = &read(run.path(), &results)[&0];
        assert_eq!(left.account.as_ref(), Some(&account));
        assert_eq!(left.traffic, []);
        assert!(left.capture && !left.first_page);
        let [(name, words)] = left.consoles.as_slice() else {
            panic!("{:?}", left.consoles);
        };
        assert_eq!((name.as_str(), words.lines().count()), ("node1", LINES));
        assert!(words.ends_with("[ 99] eth0 \u{fffd}"), "{words}");

        results.scenarios[0].outcome = Verdict::Passed;
        assert_eq!(read(run.path(), &results).len(), 0);
    }

    #[test]
    fn what_a_link_leads_out_to_is_not_read() {
        let run = tempfile::tempdir().unwrap();
        let mut results = fixture::results();
        results.scenarios[0].outcome = Verdict::Failed;
        results.scenarios[0].folder = Some("attempt-1".into());
        let node = run.path().join("attempt-1/evidence/node1");
        fs::create_dir_all(&node).unwrap();
        let others = run.path().join("others");
        fs::create_dir(&others).unwrap();
        fs::write(others.join("console.log"), "a secret").unwrap();
        symlink(others.join("console.log"), node.join("console.log")).unwrap();
        symlink(
            others.join("console.log"),
            run.path().join("attempt-1/nodes.txt"),
        )
        .unwrap();
        symlink(&others, run.path().join("attempt-1/evidence/node2")).unwrap();
        let account = serde_json::to_vec(&fixture::account()).unwrap();
        fs::write(others.join(Account::FILE), account).unwrap();
        let link = run.path().join("attempt-1").join(Account::FILE);
        symlink(others.join(Account::FILE), link).unwrap();
        let left = &read(run.path(), &results)[&0];
        let folder = "attempt-1".into();
        assert_eq!(
            *left,
            Left {
                folder,
                ..Left::default()
            }
        );
    }
}
