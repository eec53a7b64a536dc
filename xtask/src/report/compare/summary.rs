//! The end of a comparison on the terminal.

use std::path::Path;

use super::numbers::statistics::Answer;
use super::numbers::{Number, Numbers, Unmeasured, percent};
use super::{Compared, Comparison, FILE, OnSide};
use crate::report::left::Left;
use crate::report::results::PAGE;
use crate::report::summary::indented;
use crate::say::text::{digits, table};

/// Everything that the terminal says at the end, the sentence first; `folder` leads to the files.
pub(crate) fn render(comparison: &Comparison, folder: &Path) -> String {
    let mut text = format!("\n{}\n", comparison.sentence);
    if let Some(error) = &comparison.error {
        text += &format!("it did not come to its end: {error}\n");
    }
    if let Some(part) = &comparison.part {
        text += &format!("part {} of the scenarios\n", part.shard);
    }
    let shown = comparison.scenarios.iter();
    let shown: Vec<&Compared> = shown.filter(|it| it.difference.is_shown()).collect();
    if !shown.is_empty() {
        let merged = shown.iter().any(|it| it.part.is_some());
        let head = ["scenario", "cluster", "verdict", "base", "head"].map(String::from);
        let head = head.into_iter().chain(merged.then(|| "part".to_owned()));
        let rows = shown.iter().map(|it| {
            let (base, head) = (it.base.in_short(), it.head.in_short());
            let verdict = it.difference.to_string();
            let row = [it.name.clone(), it.cluster.clone(), verdict, base, head];
            let part = merged.then(|| it.part.clone().unwrap_or_default());
            row.into_iter().chain(part).collect()
        });
        let rows = std::iter::once(head.collect()).chain(rows);
        text += &format!("\n{}", table(&rows.collect::<Vec<_>>()));
    }
    for it in shown {
        for (name, side) in [("base", &it.base), ("head", &it.head)] {
            text += &why(it, name, side, folder);
        }
    }
    if let Some(numbers) = &comparison.numbers {
        text += &of_numbers(numbers, folder);
    }
    for (name, side) in [("base", &comparison.base), ("head", &comparison.head)] {
        let said = side.revision.iter().chain(&side.tested);
        for said in said.chain(&side.unsettled_stages) {
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

/// Every metric in a line, and what could not be measured.
fn of_numbers(numbers: &Numbers, folder: &Path) -> String {
    let mut text = String::new();
    if !numbers.metrics.is_empty() {
        let head = [
            "number", "cluster", "answer", "base", "head", "ratio", "interval", "p", "n",
        ];
        let head = head.map(String::from).to_vec();
        let rows = numbers.metrics.iter().map(|it| row(it).to_vec());
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        text += &format!("\n{}", table(&rows));
        text += &format!(
            "ratio: head by base, the median of n pairs; worse or better: p is 0.05 at most, over all numbers, and \
             the ratio beyond {}\n",
            percent(numbers.margin)
        );
    }
    for (sides, it) in numbers.told_unmeasured() {
        let (name, cluster) = (it.what(), &it.cluster);
        let reason = indented(&it.reason);
        text += &format!(
            "\n{sides}: {name} on {cluster} {}\n{reason}\n",
            how_often(it)
        );
        if let Some(evidence) = &it.folder {
            let page = folder.join(evidence).join(Left::FIRST_PAGE);
            text += &format!("  read first: {}\n", page.display());
        }
        if let Some(again) = &it.again {
            text += &format!("  again: {again}\n");
        }
    }
    text
}

/// A metric as tables have it, without its measurement.
pub(crate) fn row(it: &Number) -> [String; 9] {
    let with_unit = |value: Option<f64>| match (value, it.unit.as_str()) {
        (None, _) => "not measured".to_owned(),
        (Some(value), "") => digits(value),
        (Some(value), unit) => format!("{} {unit}", digits(value)),
    };
    let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"));
    [
        it.metric.clone(),
        it.cluster.clone(),
        answer(it.answer).to_owned(),
        with_unit(it.base),
        with_unit(it.head),
        known(it.ratio),
        it.interval.map_or_else(
            || "-".to_owned(),
            |[low, high]| format!("{low:.2} to {high:.2}"),
        ),
        it.p.map_or_else(
            || "-".to_owned(),
            |p| match p {
                p if p < 0.001 => "<0.001".to_owned(),
                p => format!("{p:.3}"),
            },
        ),
        it.pairs.len().to_string(),
    ]
}

/// In a word or two.
fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Worse => "worse",
        Answer::Undecided => "undecided",
        Answer::Better => "better",
        Answer::Within => "within the margin",
    }
}

/// `could not be measured in 2 of 6 runs`.
pub(crate) fn how_often(it: &Unmeasured) -> String {
    match it.of {
        0 => "was not measured".to_owned(),
        1 => "could not be measured in its only run".to_owned(),
        of => format!("could not be measured in {} of {of} runs", it.failed),
    }
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
        let page = folder.join(evidence).join(Left::FIRST_PAGE);
        text += &format!("  read first: {}\n", page.display());
    }
    if let Some(again) = &side.again {
        text += &format!("  again: {again}\n");
    }
    text
}
