//! The files of a run: `results.json`, `junit.xml` and `report.html`; of a comparison, `compare.json` and
//! `report.html`.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::report::compare::{self, Comparison};
use crate::report::page::comparison;
use crate::report::results::{PAGE, Results};
use crate::report::{died, junit, left, page};

/// Writes all three. Each is there whole, or as it was before, whatever ends this process meanwhile. The
/// page also shows what scenarios that failed have left in the run's folder; a first page is written for those
/// that could not write one.
pub(crate) fn write(run_dir: &Path, results: &Results) -> anyhow::Result<()> {
    died::write_pages(run_dir, results);
    let replace = |name: &str, text: &[u8]| replace(run_dir, name, text);
    replace("results.json", &serde_json::to_vec_pretty(results)?)?;
    replace("junit.xml", junit::report(results).to_string()?.as_bytes())?;
    let page = page::page(results, &left::read(run_dir, results));
    replace(PAGE, page.as_bytes())
}

/// Writes both of a comparison, each in one step. The page also shows what the first failure of each scenario on each
/// side has left in its run's folder.
pub(crate) fn write_comparison(folder: &Path, comparison: &Comparison) -> anyhow::Result<()> {
    let data = serde_json::to_vec_pretty(comparison)?;
    replace(folder, compare::FILE, &data)?;
    let left = left::of(folder, comparison.failures());
    replace(folder, PAGE, comparison::page(comparison, &left).as_bytes())
}

/// Replaces a file in one step.
fn replace(folder: &Path, name: &str, text: &[u8]) -> anyhow::Result<()> {
    let beside = folder.join(format!(".{name}.new"));
    let path = folder.join(name);
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::results;

    #[test]
    fn results_are_replaced_whole_by_newer_ones() {
        let run = tempfile::tempdir().unwrap();
        let read = || -> Results {
            let text = fs::read(run.path().join("results.json")).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        let earlier = Results {
            error: Some("the run was under way".into()),
            ..results()
        };
        write(run.path(), &earlier).unwrap();
        assert_eq!(read(), earlier);
        // Somebody who reads the earlier one goes on reading it.
        let held = fs::File::open(run.path().join("results.json")).unwrap();
        write(run.path(), &results()).unwrap();
        assert_eq!(read(), results());
        let old: Results = serde_json::from_reader(held).unwrap();
        assert_eq!(old, earlier);
        let names = fs::read_dir(run.path()).unwrap().count();
        assert_eq!(names, 3, "nothing is left beside them");
    }
}
