//! What is measured, as data: a metric, and a reading of it.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Which way a metric gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worse {
    /// More of it is worse: a latency.
    More,
    /// Less of it is worse: a throughput.
    Less,
}

/// Something that a measurement takes a reading of, to be compared with other readings of it. By itself no
/// reading is good or bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// What it is, as reports name it.
    pub name: &'static str,
    /// What it is counted in: `1/s`, `ms`; nothing where it is a number of things that its name says.
    pub unit: &'static str,
    /// Which way it gets worse.
    pub worse: Worse,
    /// The least that counts, more than 0: what is below counts as so much, nothing as well, so that every
    /// reading has a ratio to every other.
    pub grain: f64,
    /// How it is taken, in a sentence.
    pub how: &'static str,
}

/// One reading of a metric, or why there is none, with all that whoever compares it has to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The metric's name.
    pub metric: String,
    /// The metric's unit, in which the value and the grain are.
    pub unit: String,
    /// Which way it gets worse.
    pub worse: Worse,
    /// The least that counts.
    pub grain: f64,
    /// What came of it: `"value": 1.5`, or `"unread": "this host's kernel ..."`.
    #[serde(flatten)]
    pub read: Read,
}

/// What came of reading a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// What was read: finite, and 0 at least.
    Value(f64),
    /// This machine cannot read it, for this reason: that says nothing about the cluster.
    Unread(String),
}

impl Reading {
    /// All of a measurement, in the attempt's folder.
    pub const FILE: &'static str = "readings.json";

    pub(crate) fn of(metric: &Metric, read: Read) -> Self {
        Self {
            metric: metric.name.to_owned(),
            unit: metric.unit.to_owned(),
            worse: metric.worse,
            grain: metric.grain,
            read,
        }
    }

    /// What was read, if it was.
    pub fn value(&self) -> Option<f64> {
        match self.read {
            Read::Value(value) => Some(value),
            Read::Unread(_) => None,
        }
    }

    /// Writes all of a measurement.
    pub(crate) fn write(all: &[Self], attempt: &Path) -> io::Result<()> {
        fs::write(attempt.join(Self::FILE), serde_json::to_vec_pretty(all)?)
    }

    /// Reads what a measurement has left; whoever is none has left nothing.
    pub(crate) fn read(attempt: &Path) -> Vec<Self> {
        let text = fs::read(attempt.join(Self::FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// What is wrong with the readings of a measurement that is to take these: each once, and no other.
pub(crate) fn mistaken(metrics: &[&Metric], taken: &[Reading]) -> Option<String> {
    let of = |name: &str| taken.iter().filter(|it| it.metric == name).count();
    let lacks = metrics.iter().filter(|metric| of(metric.name) != 1);
    let lacks = lacks.map(|metric| format!("{} of \"{}\"", of(metric.name), metric.name));
    let is_known = |it: &&Reading| metrics.iter().any(|metric| metric.name == it.metric);
    let others = taken.iter().filter(|it| !is_known(it));
    let others = others.map(|it| format!("one of \"{}\", which it does not measure", it.metric));
    let wrong: Vec<String> = lacks.chain(others).collect();
    (!wrong.is_empty()).then(|| format!("it took {}", wrong.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Metric = Metric {
        name: "requests",
        unit: "1/s",
        worse: Worse::Less,
        grain: 0.1,
        how: "",
    };
    const LOST: Metric = Metric {
        name: "lost",
        unit: "",
        worse: Worse::More,
        grain: 0.5,
        how: "",
    };

    fn of(metric: &Metric, value: f64) -> Reading {
        Reading::of(metric, Read::Value(value))
    }

    #[test]
    fn each_metric_has_one_reading_and_nothing_else_has() {
        let (rate, lost) = (of(&RATE, 50.0), of(&LOST, 0.0));
        let wrong = |metrics: &[&Metric], taken: &[&Reading]| {
            let taken: Vec<Reading> = taken.iter().map(|it| (*it).clone()).collect();
            mistaken(metrics, &taken).unwrap_or_default()
        };
        assert_eq!(wrong(&[&RATE, &LOST], &[&lost, &rate]), "");
        assert_eq!(wrong(&[], &[]), "");
        insta::assert_snapshot!(
            [
                wrong(&[&RATE, &LOST], &[&rate]),
                wrong(&[&RATE], &[&rate, &rate]),
                wrong(&[&RATE], &[&rate, &lost]),
            ]
            .join("\n"),
            @r#"
        it took 0 of "lost"
        it took 2 of "requests"
        it took one of "lost", which it does not measure
        "#
        );
    }

    #[test]
    fn what_was_left_is_read_again_and_nothing_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Reading::read(folder.path()), []);
        let all = [
            of(&RATE, 50.25),
            Reading::of(&LOST, Read::Unread("nobody counts".into())),
        ];
        Reading::write(&all, folder.path()).unwrap();
        assert_eq!(Reading::read(folder.path()), all);
        assert_eq!(all.map(|it| it.value()), [Some(50.25), None]);
        let text = fs::read_to_string(folder.path().join(Reading::FILE)).unwrap();
        let is_beside_the_others = |line: &str| text.contains(&format!("\n    {line}\n"));
        assert!(is_beside_the_others(r#""value": 50.25"#), "{text}");
        assert!(
            is_beside_the_others(r#""unread": "nobody counts""#),
            "{text}"
        );
    }
}
