//! The first page of a scenario whose process died: what its run knows of it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use podwire_process::plain;
use podwire_scenario::STEPS;

use crate::report::left::Left;
use crate::report::own::own;
use crate::report::results::{Results, ScenarioRecord, Verdict};

/// Steps that the page quotes, the last ones.
const QUOTED: usize = 12;

/// Writes a page for each that failed and has left a folder without one: its process had no time to. Where that
/// fails there is none, as before.
pub(crate) fn write_pages(run_dir: &Path, results: &Results) {
    let failed = results.scenarios.iter();
    for record in failed.filter(|it| it.outcome == Verdict::Failed) {
        let Some(folder) = &record.folder else {
            continue;
        };
        let folder = run_dir.join(folder);
        let file = folder.join(Left::FIRST_PAGE);
        if folder.is_dir() && !file.exists() {
            // All of it is in results.json as well, but for the steps. A part of another machine's may have a link in
            // its place: none is followed.
            let made = File::create_new(file);
            let text = plain::text(&page(record, &folder));
            let _ = made.and_then(|mut file| file.write_all(text.as_bytes()));
        }
    }
}

fn page(record: &ScenarioRecord, folder: &Path) -> String {
    let mut text = format!(
        "# {} on {} failed\n\n{}\n\nIts process has left nothing else: this page is by the run that it was part of.\n",
        record.name, record.cell, record.reason
    );
    match last_lab(folder) {
        Some((lab, steps)) => {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "\n## What it did last (`{lab}/{STEPS}`)\n\n```\n{steps}```\n"
            );
        }
        None => text += "\nIt has not come to a lab.\n",
    }
    text += "\n## What next\n\n- `dmesg` on this host: its kernel kills what it lacks the memory for. Whoever else \
             has killed it, podwire does not know\n";
    if let Some(again) = &record.again {
        let _ = writeln!(text, "- again, alone: `{again}`");
    }
    text
}

/// The lab that it wrote to last, by its name in the folder, and its last steps.
fn last_lab(folder: &Path) -> Option<(String, String)> {
    let written =
        |lab: &Path| -> io::Result<SystemTime> { fs::metadata(lab.join(STEPS))?.modified() };
    let labs = fs::read_dir(folder).ok()?.flatten().map(|it| it.path());
    let is_own = |lab: &PathBuf| {
        let name = lab.file_name().unwrap_or_default();
        own(folder, Path::new(name).join(STEPS)).is_some()
    };
    let labs = labs.filter(is_own);
    let labs = labs.filter_map(|lab| Some((written(&lab).ok()?, lab)));
    let (_, lab): (SystemTime, PathBuf) = labs.max()?;
    let said = fs::read(lab.join(STEPS)).ok()?;
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let last = &lines[lines.len().saturating_sub(QUOTED)..];
    let name = lab.file_name()?.to_string_lossy().into_owned();
    Some((name, last.iter().map(|line| format!("{line}\n")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::results;
    use std::os::unix::fs::symlink;

    #[test]
    fn who_died_has_a_page_with_what_it_did_last_and_who_wrote_one_keeps_it() {
        let run = tempfile::tempdir().unwrap();
        let folder = |name: &str| PathBuf::from(format!("cell/scenarios/{name}/attempt-1"));
        let failed = |name: &str| ScenarioRecord {
            name: name.into(),
            cell: "by-hand/nftables/routes".into(),
            outcome: Verdict::Failed,
            reason:
                "it started but left no result; nextest: process aborted with signal 9\u{1b}[2J"
                    .into(),
            folder: Some(folder(name)),
            again: Some(format!("cargo xtask test --filter {name}")),
            ..results().scenarios[0].clone()
        };
        let names = ["in_its_lab", "before_any", "with_its_own", "linked", "gone"];
        let results = Results {
            scenarios: names.map(failed).into(),
            ..results()
        };
        for name in &names[..4] {
            fs::create_dir_all(run.path().join(folder(name))).unwrap();
        }
        let lab = run.path().join(folder("in_its_lab")).join("scenario");
        fs::create_dir(&lab).unwrap();
        let steps = (1..=14).map(|step| format!("{step:7}.5  step {step}\n"));
        fs::write(lab.join(STEPS), steps.collect::<String>()).unwrap();
        let page = |name: &str| run.path().join(folder(name)).join(Left::FIRST_PAGE);
        fs::write(page("with_its_own"), "its own").unwrap();
        // Nothing is read or written where a link leads out.
        let out = run.path().join("out");
        symlink(&out, page("linked")).unwrap();
        symlink(&lab, run.path().join(folder("before_any")).join("scenario")).unwrap();

        write_pages(run.path(), &results);
        let said = |name: &str| fs::read_to_string(page(name)).unwrap();
        insta::assert_snapshot!(said("in_its_lab"));
        assert!(said("before_any").contains("It has not come to a lab."));
        assert_eq!(said("with_its_own"), "its own");
        assert!(!page("gone").exists() && !out.exists());
    }
}
