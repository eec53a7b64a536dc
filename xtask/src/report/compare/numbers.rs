//! The numbers of a comparison: what runs of measurements have read on both sides, pair by pair, and what that
//! says. How it is judged is in [`statistics`].

pub(crate) mod statistics;

use std::path::{Path, PathBuf};

use podwire_scenario::{Read, Reading, Worse};
use serde::{Deserialize, Serialize};

use self::statistics::{Answer, Series, coverage, judge, median, stands_out};
use crate::report::compare::cluster::cluster;
use crate::report::compare::rule::{Difference, State, Tally, difference};
use crate::report::results::{Results, ScenarioRecord, Verdict};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Asked {
    /// How many pairs of everything; what stands out is measured in as many again.
    pub(crate) pairs: usize,
    /// By how much a ratio may be worse: 0.1 is 10 %.
    pub(crate) margin: f64,
}

/// A run of measurements on one side: its folder, relative to the comparison's, and what came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) results: &'a Results,
}

/// `numbers` of `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// What came of them, as a part of a sentence.
    pub(crate) sentence: String,
    /// Pairs asked for; what stood out was measured in as many again.
    pub(crate) pairs: usize,
    /// By how much a ratio may be worse: 0.1 is 10 %.
    pub(crate) margin: f64,
    pub(crate) counts: Counts,
    /// What came of the measurements themselves.
    #[serde(default)]
    pub(crate) carried_out: CarriedOut,
    /// Every metric that was read on a side, in the order in which they are taken.
    pub(crate) metrics: Vec<Number>,
    /// Measurements that could not be carried out on a side, or not always, and metrics that could not be read.
    pub(crate) unmeasured: Vec<Unmeasured>,
}

/// How many metrics have which answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) worse: usize,
    pub(crate) undecided: usize,
    pub(crate) better: usize,
    pub(crate) within: usize,
}

/// How many measurements could be carried out on one side alone, by the rule of verdicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CarriedOut {
    /// Those that were tried on both sides.
    pub(crate) tried: usize,
    /// Always on base, and never on head.
    pub(crate) broke: usize,
    /// Not always on a side, or tried too seldom to say.
    pub(crate) undecided: usize,
}

/// A metric on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Number {
    pub(crate) metric: String,
    /// What has read it.
    pub(crate) measurement: String,
    /// What the clusters of both sides have in common: `by-hand`, `kubeadm+routed`.
    pub(crate) cluster: String,
    pub(crate) unit: String,
    /// Which way it gets worse.
    pub(crate) worse: Worse,
    /// What counts at least, for ratios.
    pub(crate) grain: f64,
    pub(crate) answer: Answer,
    /// Median of base's readings; nothing where there is none.
    pub(crate) base: Option<f64>,
    pub(crate) head: Option<f64>,
    /// Median of the pairs' ratios, head's reading by base's.
    pub(crate) ratio: Option<f64>,
    /// The ratios that are as good an explanation, at 95 %; needs six pairs.
    pub(crate) interval: Option<[f64; 2]>,
    /// How often such an interval holds the true ratio.
    pub(crate) coverage: Option<f64>,
    /// Of no difference, over all metrics.
    pub(crate) p: Option<f64>,
    /// Base's and head's reading of each pair, in the order in which they were taken.
    pub(crate) pairs: Vec<[f64; 2]>,
}

/// A measurement that a side has not, or not always, carried out, or a metric that it could not read in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unmeasured {
    pub(crate) measurement: String,
    /// The only metric of it that was not read; nothing where all were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metric: Option<String>,
    pub(crate) cluster: String,
    /// `base` or `head`.
    pub(crate) side: String,
    /// In how many of how many of its runs; none of none where it is not for such a cluster.
    pub(crate) failed: usize,
    pub(crate) of: usize,
    /// Why, of the first.
    pub(crate) reason: String,
    /// The folder of the first failure, relative to the comparison's.
    pub(crate) folder: Option<PathBuf>,
    /// The command that leads there again.
    pub(crate) again: Option<String>,
}

impl Unmeasured {
    /// Before anything is known of it.
    fn nothing_of(place: &Place, side: &str) -> Self {
        Self {
            measurement: place.measurement.clone(),
            metric: None,
            cluster: place.cluster.clone(),
            side: side.to_owned(),
            failed: 0,
            of: 0,
            reason: String::new(),
            folder: None,
            again: None,
        }
    }

    /// Whether the same is to be told of both, but for the side.
    fn is_same_of_other_side(&self, other: &Self) -> bool {
        let Self {
            measurement,
            metric,
            cluster,
            side,
            failed,
            of,
            reason,
            folder,
            again,
        } = other;
        self.side != *side
            && (&self.measurement, &self.metric, &self.cluster) == (measurement, metric, cluster)
            && (self.failed, self.of) == (*failed, *of)
            && (&self.folder, &self.again) == (folder, again)
            && self.reason == *reason
    }

    /// What was not measured, by its name.
    pub(crate) fn what(&self) -> &str {
        self.metric.as_deref().unwrap_or(&self.measurement)
    }
}

impl Numbers {
    /// What the runs of both sides say. The first runs, as many as pairs were asked for, have all measurements;
    /// later ones those that stood out.
    pub(crate) fn of(asked: Asked, base: &[Taken<'_>], head: &[Taken<'_>]) -> Self {
        let found = found(base, head);
        let series: Vec<Series> = found
            .iter()
            .map(|it| Series {
                logs: it.logs(),
                again: it.is_again(asked.pairs, base, head),
            })
            .collect();
        let judged = judge(&series, asked.margin);
        let all = found.into_iter().zip(judged);
        let metrics: Vec<Number> = all
            .map(|(found, judged)| {
                // Worse is more, or less.
                let worse = found.reading.worse;
                let turned = |log: f64| match worse {
                    Worse::More => log.exp(),
                    Worse::Less => (-log).exp(),
                };
                let interval = judged.interval.map(|(low, high)| {
                    let (one, other) = (turned(low), turned(high));
                    [one.min(other), one.max(other)]
                });
                let n = found.pairs.len();
                let of = |readings: &[f64]| (!readings.is_empty()).then(|| median(readings));
                let (base, head) = (of(&found.base), of(&found.head));
                let Found {
                    place,
                    reading,
                    pairs,
                    ..
                } = found;
                Number {
                    metric: reading.metric.clone(),
                    measurement: place.measurement,
                    cluster: place.cluster,
                    unit: reading.unit.clone(),
                    worse,
                    grain: reading.grain,
                    answer: judged.answer,
                    base,
                    head,
                    ratio: (n > 0).then(|| turned(judged.median)),
                    interval,
                    coverage: coverage(n),
                    p: (n > 0).then_some(judged.p),
                    pairs,
                }
            })
            .collect();
        let counts = Counts::of(&metrics);
        let carried_out = CarriedOut::of(base, head);
        Self {
            sentence: counts.sentence(asked.margin) + &carried_out.told(),
            pairs: asked.pairs,
            margin: asked.margin,
            counts,
            carried_out,
            metrics,
            unmeasured: unmeasured(base, head),
        }
    }

    /// Whether further pairs would say nothing more: nothing could be read on both sides, and that is so on both, or
    /// has been seen often enough.
    pub(crate) fn is_in_vain(&self) -> bool {
        let has_pairs = self.metrics.iter().any(|it| !it.pairs.is_empty());
        !has_pairs && self.carried_out.undecided == 0
    }

    /// What was not measured, each with its sides: what is the same of both is told once.
    pub(crate) fn told_unmeasured(&self) -> Vec<(String, &Unmeasured)> {
        let mut told: Vec<(String, &Unmeasured)> = Vec::new();
        for it in &self.unmeasured {
            let mut before = told.iter_mut();
            match before.find(|(_, other)| other.is_same_of_other_side(it)) {
                Some((sides, _)) => *sides += &format!(" and {}", it.side),
                None => told.push((it.side.clone(), it)),
            }
        }
        told
    }

    /// The measurements to be carried out again, in as many pairs: those with a metric that stands out.
    pub(crate) fn to_measure_again(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for it in &self.metrics {
            if stands_out(&it.logs(), self.margin) && !names.contains(&it.measurement) {
                names.push(it.measurement.clone());
            }
        }
        names
    }
}

impl Number {
    fn logs(&self) -> Vec<f64> {
        logs(&self.pairs, self.worse, self.grain)
    }
}

impl Counts {
    fn of(metrics: &[Number]) -> Self {
        let count = |answer| metrics.iter().filter(|it| it.answer == answer).count();
        Self {
            worse: count(Answer::Worse),
            undecided: count(Answer::Undecided),
            better: count(Answer::Better),
            within: count(Answer::Within),
        }
    }

    /// `of 14 numbers 1 is worse, 9 are within the margin of 10 %, 4 are undecided`.
    fn sentence(&self, margin: f64) -> String {
        let all = self.worse + self.undecided + self.better + self.within;
        if all == 0 {
            return "nothing was measured".to_owned();
        }
        let within = format!("within the margin of {}", percent(margin));
        let are = |count: usize, what: &str| match count {
            0 if what == "worse" => Some("none is worse".to_owned()),
            0 => None,
            1 => Some(format!("1 is {what}")),
            more => Some(format!("{more} are {what}")),
        };
        let parts = [
            are(self.worse, "worse"),
            are(self.better, "better"),
            are(self.within, &within),
            are(self.undecided, "undecided"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let plural = if all == 1 { "number" } else { "numbers" };
        format!("of {all} {plural} {}", parts.join(", "))
    }
}

impl CarriedOut {
    fn of(base: &[Taken<'_>], head: &[Taken<'_>]) -> Self {
        let mut all = Self::default();
        for place in places(base, head) {
            let (base, head) = (place.states(base), place.states(head));
            if [&base, &head]
                .iter()
                .any(|it| Tally::of(it).verdicts() == 0)
            {
                continue;
            }
            all.tried += 1;
            match difference(&base, &head) {
                Difference::Broke => all.broke += 1,
                Difference::NowAndThen | Difference::Undecided => all.undecided += 1,
                // What neither side can measure says nothing about the change.
                _ => {}
            }
        }
        all
    }

    /// `; head breaks 1 of 3 measurements; 1 measurement is undecided`.
    fn told(&self) -> String {
        let plural = |count| match count {
            1 => "measurement",
            _ => "measurements",
        };
        let mut text = String::new();
        if self.broke > 0 {
            let (broke, tried) = (self.broke, self.tried);
            text += &format!("; head breaks {broke} of {tried} {}", plural(tried));
        }
        match self.undecided {
            0 => {}
            1 => text += "; 1 measurement is undecided",
            more => text += &format!("; {more} measurements are undecided"),
        }
        text
    }
}

/// `10 %`, `2.5 %`.
pub(crate) fn percent(share: f64) -> String {
    let tenths = (share * 1000.0).round() / 10.0;
    format!("{tenths} %")
}

/// A measurement on a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    measurement: String,
    cluster: String,
}

impl Place {
    fn of(record: &ScenarioRecord) -> Self {
        Self {
            measurement: record.name.clone(),
            cluster: cluster(&record.cell),
        }
    }

    /// Whether it could be carried out, of each run that was to have it.
    fn states(&self, taken: &[Taken<'_>]) -> Vec<State> {
        let records = taken.iter().filter_map(|one| self.in_run(one));
        let states = records.map(|record| match record.outcome {
            Verdict::Passed => State::Passed,
            Verdict::Failed => State::Failed,
            Verdict::Skipped => State::NoVerdict,
        });
        states.collect()
    }

    /// What a run says of it, if it was to have it.
    fn in_run<'a>(&self, taken: &Taken<'a>) -> Option<&'a ScenarioRecord> {
        let mut records = taken.results.scenarios.iter();
        records.find(|record| Self::of(record) == *self)
    }
}

/// All that was read of a metric.
struct Found<'a> {
    place: Place,
    /// One of them.
    reading: &'a Reading,
    /// Of base, and of head.
    base: Vec<f64>,
    head: Vec<f64>,
    pairs: Vec<[f64; 2]>,
}

impl Found<'_> {
    fn logs(&self) -> Vec<f64> {
        logs(&self.pairs, self.reading.worse, self.reading.grain)
    }

    /// Whether both sides were to have it, and have ended, in as many runs again as there were first ones.
    fn is_again(&self, first: usize, base: &[Taken<'_>], head: &[Taken<'_>]) -> bool {
        let later = base.iter().zip(head).skip(first);
        let had = |taken: &Taken<'_>| {
            let record = self.place.in_run(taken);
            record.is_some_and(|it| it.outcome != Verdict::Skipped)
        };
        first > 0 && later.filter(|(base, head)| had(base) && had(head)).count() >= first
    }
}

/// By how much head is worse, of each pair.
fn logs(pairs: &[[f64; 2]], worse: Worse, grain: f64) -> Vec<f64> {
    let least = grain.max(f64::MIN_POSITIVE);
    let log = |[base, head]: &[f64; 2]| (head.max(least) / base.max(least)).ln();
    let all = pairs.iter().map(|pair| match worse {
        Worse::More => log(pair),
        Worse::Less => -log(pair),
    });
    all.collect()
}

/// What came of a metric in a run. What a measurement that failed has read does not count.
fn reading<'a>(taken: &Taken<'a>, place: &Place, metric: &str) -> Option<&'a Reading> {
    let record = place.in_run(taken)?;
    let passed = record.outcome == Verdict::Passed;
    let mut readings = record.readings.iter().filter(|_| passed);
    readings.find(|reading| reading.metric == metric)
}

fn found<'a>(base: &[Taken<'a>], head: &[Taken<'a>]) -> Vec<Found<'a>> {
    let mut all: Vec<Found<'a>> = Vec::new();
    for taken in base.iter().chain(head) {
        for record in &taken.results.scenarios {
            let place = Place::of(record);
            for one in &record.readings {
                let known = |it: &Found<'_>| it.place == place && it.reading.metric == one.metric;
                let of = |taken: &Taken<'a>| reading(taken, &place, &one.metric)?.value();
                if all.iter().any(known) || of(taken).is_none() {
                    continue;
                }
                let pairs = base.iter().zip(head);
                let pairs = pairs.filter_map(|(base, head)| Some([of(base)?, of(head)?]));
                all.push(Found {
                    reading: one,
                    base: base.iter().filter_map(of).collect(),
                    head: head.iter().filter_map(of).collect(),
                    pairs: pairs.collect(),
                    place: place.clone(),
                });
            }
        }
    }
    all
}

/// Every measurement that a side was to carry out.
fn places(base: &[Taken<'_>], head: &[Taken<'_>]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for taken in base.iter().chain(head) {
        for record in &taken.results.scenarios {
            let place = Place::of(record);
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

/// What a side has not carried out that it, or the other one, was to.
fn unmeasured(base: &[Taken<'_>], head: &[Taken<'_>]) -> Vec<Unmeasured> {
    let places = places(base, head);
    let sides = [("base", base), ("head", head)];
    let of_sides = places.iter().flat_map(|place| {
        sides.iter().flat_map(|(side, taken)| {
            let whole = not_measured(place, side, taken);
            whole.into_iter().chain(not_read(place, side, taken))
        })
    });
    of_sides.collect()
}

/// The metrics that a side could not read where the measurement was carried out.
fn not_read(place: &Place, side: &str, taken: &[Taken<'_>]) -> Vec<Unmeasured> {
    let mut all: Vec<Unmeasured> = Vec::new();
    let records = taken.iter().filter_map(|one| place.in_run(one));
    let passed: Vec<_> = records
        .filter(|record| record.outcome == Verdict::Passed)
        .collect();
    for one in passed.iter().flat_map(|record| &record.readings) {
        let Read::Unread(reason) = &one.read else {
            continue;
        };
        let known = |it: &&mut Unmeasured| it.metric.as_ref() == Some(&one.metric);
        match all.iter_mut().find(known) {
            Some(told) => told.failed += 1,
            None => all.push(Unmeasured {
                metric: Some(one.metric.clone()),
                failed: 1,
                of: passed.len(),
                reason: reason.clone(),
                ..Unmeasured::nothing_of(place, side)
            }),
        }
    }
    all
}

fn not_measured(place: &Place, side: &str, taken: &[Taken<'_>]) -> Option<Unmeasured> {
    let mut told = Unmeasured::nothing_of(place, side);
    for one in taken {
        let Some(record) = place.in_run(one) else {
            continue;
        };
        // What a person has ended was not tried.
        if record.outcome == Verdict::Skipped && one.results.error.is_some() {
            continue;
        }
        told.of += 1;
        if record.outcome == Verdict::Passed {
            continue;
        }
        told.failed += 1;
        if told.failed == 1 {
            told.reason.clone_from(&record.reason);
            told.folder = record.folder.as_ref().map(|it| one.folder.join(it));
            told.again.clone_from(&record.again);
        }
    }
    if told.of == 0 {
        let first = taken.first()?;
        if first.results.error.is_some() {
            return None;
        }
        let mut left_out = first.results.left_out.iter();
        let left_out = left_out.find(|it| it.name == place.measurement);
        told.reason = left_out.map_or_else(
            || "no cluster of this side is for it".to_owned(),
            |it| it.reason.clone(),
        );
        return Some(told);
    }
    (told.failed > 0).then_some(told)
}

#[cfg(test)]
pub(crate) mod tests;
