//! The end of a comparison on the terminal.

use std::path::Path;

use super::{Compared, Comparison, FILE, OnSide};
use crate::report::results::PAGE;
use crate::report::summary::indented;
use crate::say::text::table;

/// Everything that the terminal says at the end, the sentence first; `folder` leads to the files.
pub(crate) fn render(comparison: &Comparison, folder: &Path) -> String {
    let mut text = format!("\n{}\n", comparison.sentence);
    if let Some(error) = &comparison.error {
        text += &format!("it did not come to its end: {error}\n");
    }
    let shown = comparison.scenarios.iter();
    let shown: Vec<&Compared> = shown.filter(|it| it.difference.is_shown()).collect();
    if !shown.is_empty() {
        let head = ["scenario", "cluster", "verdict", "base", "head"].map(String::from);
        let rows = shown.iter().map(|it| {
            let (base, head) = (it.base.in_short(), it.head.in_short());
            let verdict = it.difference.to_string();
            [it.name.clone(), it.cluster.clone(), verdict, base, head]
        });
        let rows = std::iter::once(head).chain(rows).map(Vec::from);
        text += &format!("\n{}", table(&rows.collect::<Vec<_>>()));
    }
    for it in shown {
        for (name, side) in [("base", &it.base), ("head", &it.head)] {
            text += &why(it, name, side, folder);
        }
    }
    for (name, side) in [("base", &comparison.base), ("head", &comparison.head)] {
        if let Some(tested) = &side.tested {
            text += &format!("\n{name}: {tested}");
        }
        for said in &side.unsettled_stages {
            text += &format!("\n{name}: {said}");
        }
    }
    text += &format!(
        "\nreport: {}\nresults: {}\n",
        folder.join(PAGE).display(),
        folder.join(FILE).display()
    );
    text
}

/// What a side said of a scenario that is shown, unless it passed.
fn why(it: &Compared, name: &str, side: &OnSide, folder: &Path) -> String {
    let Some(reason) = &side.reason else {
        return String::new();
    };
    let what = match side.has_failed() {
        true => "failed",
        false => "has no verdict",
    };
    let (scenario, cluster) = (&it.name, &it.cluster);
    let mut text = format!(
        "\n{name}: {scenario} on {cluster} {what}\n{}\n",
        indented(reason)
    );
    if let Some(evidence) = &side.folder {
        let page = folder.join(evidence).join("first-page.md");
        text += &format!("  read first: {}\n", page.display());
    }
    if let Some(again) = &side.again {
        text += &format!("  again: {again}\n");
    }
    text
}
