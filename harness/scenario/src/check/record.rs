//! What became of steady traffic: every request, the lab's steps on the same axis of time, and what
//! can be said of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use podwire_probe::{Attempt, Outcome, Sent, TrafficEnd, TrafficRecord, TrafficRequest};
use serde::{Deserialize, Serialize};

use crate::check::assert::somebody;
use crate::check::clock::{Clock, millis};
use crate::check::failure::{Cause, Failure};
use crate::check::pairs::{End, Pair, Pairs};
use crate::check::party::Party;

/// No sender is as old.
pub(crate) const A_YEAR: Duration = Duration::from_hours(366 * 24);

const LOOK: &str = "the timeline on this page; every request with its time is in timeline.json";

/// Steady traffic with every request accounted for. It displays as its timeline.
///
/// Its other times count from the sender's start, by the sender's own monotonic clock.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// Who sent.
    pub from: String,
    /// When it began, milliseconds since the segment's start as the lab's steps are.
    pub began_ms: u64,
    /// Every request, as the sender recorded it.
    pub sent: TrafficRecord,
    /// What the lab did meanwhile, in order.
    pub marks: Vec<Mark>,
    /// The node of each Pod that was seen at the start or since, by the Pod's name.
    pub nodes: BTreeMap<String, u32>,
    /// Who was to answer, by name: the Pods that the target led to at the start or since, or the Pod or the
    /// Node that it is.
    pub asked: BTreeSet<String>,
    /// How host time maps to the sender's; as JSON, how many milliseconds a mark may be off.
    pub clock: Clock,
    /// Until when it surely had to send, milliseconds since its start.
    pub until_ms: u64,
}

/// Where a sender's record is about something else than it was asked for, or makes no sense.
pub(crate) fn misrecorded(request: &TrafficRequest, record: &TrafficRecord) -> Option<String> {
    if record.request != *request {
        return Some(format!("asked {request:?}, recorded {:?}", record.request));
    }
    if u128::from(record.elapsed_ms) > A_YEAR.as_millis() {
        return Some(format!("it began {} ms ago", record.elapsed_ms));
    }
    let mut before = 0;
    for (number, Sent { at_ms, end }) in record.requests.iter().enumerate() {
        let millis = end.as_ref().map_or(0, |end| end.millis);
        let ended = at_ms.checked_add(millis);
        let within = ended.is_some_and(|ended| ended <= record.elapsed_ms);
        if *at_ms < before || !within {
            return Some(format!(
                "request {number} was sent at {at_ms} ms and took {millis} ms, the one before was \
                 sent at {before} ms, and the record ends at {} ms",
                record.elapsed_ms
            ));
        }
        before = *at_ms;
        let carried = end.as_ref().is_none_or(|end| {
            let kind = request.kind;
            kind.can_have_carried(end.outcome, 1, end.octets)
        });
        if !carried {
            return Some(format!(
                "request {number} cannot have carried what is told of it"
            ));
        }
    }
    None
}

/// A step of the lab on the sender's axis of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Milliseconds since the sender's start.
    pub at_ms: u64,
    /// What the lab did then.
    pub text: String,
}

/// Requests that failed one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// When the first of them was sent.
    pub from: Duration,
    /// When the next one that was answered was sent; the last one's end when there is none.
    pub to: Duration,
    /// How they ended.
    pub outcomes: BTreeMap<Outcome, usize>,
}

impl Gap {
    /// How long nobody who asked was answered.
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// How many requests failed.
    pub fn requests(&self) -> usize {
        self.outcomes.values().sum()
    }

    /// The class of most of them.
    pub fn cause(&self) -> Cause {
        let most = self.outcomes.iter().max_by_key(|(_, count)| **count);
        most.map_or(Cause::Other, |(outcome, _)| (*outcome).into())
    }
}

/// `1.4 s from +12.5 s to +13.9 s: 7 requests (5 refused, 2 timed out)`.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests();
        write!(
            f,
            "{:.1} s from +{:.1} s to +{:.1} s: {requests} request{} ({})",
            self.length().as_secs_f64(),
            self.from.as_secs_f64(),
            self.to.as_secs_f64(),
            if requests == 1 { "" } else { "s" },
            counted(&self.outcomes)
        )
    }
}

/// How soon answers follow a change of who is to give them, by the sender's clock: from its acceptance on, and
/// nothing for what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// When the first answer of the new one was there.
    pub first_right: Duration,
    /// When the last answer of the old one was there.
    pub last_stale: Duration,
}

/// The time between two marks, or between one and an end of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What the lab did at its beginning; nothing for the first one.
    pub step: Option<String>,
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
    /// The requests sent in it by who answered; under the empty name those who did not say.
    pub answered: BTreeMap<String, usize>,
    /// The requests sent in it that failed.
    pub failed: BTreeMap<Outcome, usize>,
}

impl Record {
    fn ended(&self) -> impl Iterator<Item = (u64, &Attempt)> {
        let requests = self.sent.requests.iter();
        requests.filter_map(|sent| Some((sent.at_ms, sent.end.as_ref()?)))
    }

    /// How many requests ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.ended()
            .filter(|(_, end)| end.outcome == outcome)
            .count()
    }

    /// The requests that have ended, by how.
    pub fn outcomes(&self) -> BTreeMap<Outcome, usize> {
        let mut counts = BTreeMap::new();
        for (_, end) in self.ended() {
            *counts.entry(end.outcome).or_default() += 1;
        }
        counts
    }

    /// The answered requests by who answered; under the empty name those who did not say.
    pub fn backends(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (_, end) in self.ended() {
            if end.outcome == Outcome::Answered {
                *counts
                    .entry(end.host.as_deref().unwrap_or_default())
                    .or_default() += 1;
            }
        }
        counts
    }

    /// How many requests have ended without an answer.
    pub fn lost(&self) -> usize {
        let ended = self.ended();
        let lost = ended.filter(|(_, end)| end.outcome != Outcome::Answered);
        lost.count()
    }

    /// Whether the last so many requests that have ended were all answered by this one.
    pub fn last_answered_by(&self, name: &str, count: usize) -> bool {
        let hosts: Vec<Option<&str>> = self.ended().map(|(_, end)| end.host.as_deref()).collect();
        let last = hosts.len().checked_sub(count).map(|from| &hosts[from..]);
        last.is_some_and(|last| last.iter().all(|host| *host == Some(name)))
    }

    /// How soon the answers followed, where one was to answer instead of another from a moment of the host on;
    /// nothing while it has not answered.
    pub fn followed(&self, old: &str, new: &str, accepted: Instant) -> Option<Followed> {
        let accepted = self.clock.at(accepted);
        let by = |name: &str| {
            let own = self
                .ended()
                .filter(move |(_, end)| end.host.as_deref() == Some(name));
            own.map(|(at, end)| Duration::from_millis(at.saturating_add(end.millis)))
                .map(|at| at.saturating_sub(accepted))
                .collect::<Vec<Duration>>()
        };
        Some(Followed {
            first_right: by(new).into_iter().min()?,
            last_stale: by(old).into_iter().max().unwrap_or_default(),
        })
    }

    /// Every maximal run of requests that failed one after the other.
    pub fn gaps(&self) -> Vec<Gap> {
        self.runs(|before, now| now.0 == before.0 + 1)
    }

    /// Failures with less than `quiet` between one and the next, answers among them or not. One dead
    /// backend among many makes short gaps for a long time: this is that time.
    pub fn disturbances(&self, quiet: Duration) -> Vec<Gap> {
        let quiet = millis(quiet);
        self.runs(|before, now| now.1 - before.1 < quiet)
    }

    /// The longest gap; nothing when no request failed.
    pub fn longest_gap(&self) -> Option<Gap> {
        longest(self.gaps())
    }

    /// Groups failures, each of which is told by its number and the time it was sent at.
    fn runs(&self, together: impl Fn((usize, u64), (usize, u64)) -> bool) -> Vec<Gap> {
        let all: Vec<(u64, &Attempt)> = self.ended().collect();
        let mut gaps: Vec<Gap> = Vec::new();
        let mut before: Option<(usize, u64)> = None;
        for (number, (at, end)) in all.iter().enumerate() {
            if end.outcome == Outcome::Answered {
                continue;
            }
            let now = (number, *at);
            if !before.is_some_and(|before| together(before, now)) {
                gaps.push(Gap {
                    from: Duration::from_millis(*at),
                    to: Duration::ZERO,
                    outcomes: BTreeMap::new(),
                });
            }
            before = Some(now);
            if let Some(gap) = gaps.last_mut() {
                *gap.outcomes.entry(end.outcome).or_default() += 1;
                let mut after = all[number..].iter();
                let answered = after.find(|(_, end)| end.outcome == Outcome::Answered);
                gap.to = Duration::from_millis(answered.map_or(at + end.millis, |(at, _)| *at));
            }
        }
        gaps
    }

    /// The record from mark to mark. The segments cover it, and every ended request is in one.
    pub fn segments(&self) -> Vec<Segment> {
        let starts = self.marks.iter().map(|mark| (Some(&mark.text), mark.at_ms));
        let mut segments: Vec<Segment> = std::iter::once((None, 0))
            .chain(starts)
            .map(|(step, from)| Segment {
                step: step.cloned(),
                from: Duration::from_millis(from),
                to: Duration::from_millis(self.sent.elapsed_ms.max(from)),
                answered: BTreeMap::new(),
                failed: BTreeMap::new(),
            })
            .collect();
        for index in 1..segments.len() {
            segments[index - 1].to = segments[index].from;
        }
        for (at, end) in self.ended() {
            let at = Duration::from_millis(at);
            let next = segments.partition_point(|segment| segment.from <= at);
            let segment = &mut segments[next.saturating_sub(1)];
            if end.outcome == Outcome::Answered {
                let host = end.host.clone().unwrap_or_default();
                *segment.answered.entry(host).or_default() += 1;
            } else {
                *segment.failed.entry(end.outcome).or_default() += 1;
            }
        }
        segments
    }

    /// The requests that were surely sent after a moment of the host, which have ended.
    fn ended_after(&self, moment: Instant) -> impl Iterator<Item = (u64, &Attempt)> {
        let surely = millis(self.clock.at(moment) + self.clock.within());
        self.ended().filter(move |(at, _)| *at > surely)
    }

    /// How the requests ended that were surely sent after a moment of the host, in order.
    pub fn outcomes_after(&self, moment: Instant) -> Vec<Outcome> {
        self.ended_after(moment)
            .map(|(_, end)| end.outcome)
            .collect()
    }

    /// The longest time in which it sent nothing although it should have: from when, and how long.
    fn longest_silence(&self) -> (Duration, Duration) {
        let sent = self.sent.requests.iter().map(|sent| sent.at_ms);
        let (mut longest, mut before) = ((0, 0), 0);
        for at in sent.chain([self.until_ms]) {
            let silent = at.saturating_sub(before);
            if silent > longest.1 {
                longest = (before, silent);
            }
            before = at;
        }
        let (from, length) = longest;
        let due = self.sent.request.interval_ms;
        let late = Duration::from_millis(length.saturating_sub(due));
        (Duration::from_millis(from), late)
    }

    /// What was seen of its requests instead of what was expected.
    fn failed(
        &self,
        cause: Cause,
        expected: impl Into<String>,
        seen: impl Into<String>,
    ) -> Failure {
        let (expected, seen) = (expected.into(), seen.into());
        let pair = Pair {
            from: End::named(&self.from),
            to: End::named(&self.sent.request.target),
            expected: expected.clone(),
            seen: seen.clone(),
            wrong: true,
        };
        let pairs = Pairs {
            all: vec![pair],
            lost: None,
        };
        Failure::new(cause, expected, seen).look(LOOK).pairs(pairs)
    }

    /// Whether it is the answer of somebody who was asked, by name: any server may answer.
    fn is_right(&self, end: &Attempt) -> bool {
        let host = end.host.as_ref();
        end.outcome == Outcome::Answered && host.is_some_and(|host| self.asked.contains(host))
    }

    /// Every answer is of somebody who was asked; one that names nobody may be anybody's.
    fn answers_are_right(&self, expected: &str) -> Result<(), Failure> {
        let strangers = self.backends().into_iter();
        let strangers = strangers.filter(|(name, _)| !self.asked.contains(*name));
        let strangers: Vec<String> = strangers
            .map(|(name, count)| format!("\n  {}: {count} times", somebody(name)))
            .collect();
        if strangers.is_empty() {
            return Ok(());
        }
        let asked: Vec<&str> = self.asked.iter().map(String::as_str).collect();
        let asked = match asked.as_slice() {
            [] => "nobody".to_owned(),
            asked => asked.join(", "),
        };
        let (target, strangers) = (&self.sent.request.target, strangers.concat());
        let seen = format!("{target} leads to {asked}, and others answered:{strangers}");
        Err(self.failed(Cause::WrongAnswer, expected, seen))
    }

    /// How many of the requests that were surely sent after a moment of the host were answered by somebody
    /// who was asked.
    pub(crate) fn right_after(&self, moment: Instant) -> usize {
        let after = self.ended_after(moment);
        after.filter(|(_, end)| self.is_right(end)).count()
    }

    /// Every request was sent, has ended, and is in the record; every answer is of somebody whom the target
    /// led to, by name.
    ///
    /// # Errors
    /// A [`Failure`] with the requests that have no end, or the reason for which some were not sent.
    pub fn all_accounted(&self) -> Result<(), Failure> {
        let expected = "every request of the steady traffic to be accounted for";
        let failed = |seen: String| Err(self.failed(Cause::Absent, expected, seen));
        let sent = self.sent.requests.len();
        if sent == 0 {
            return failed("no request was sent".into());
        }
        if self.sent.ended == Some(TrafficEnd::Full) {
            return failed(format!(
                "the record was full after {sent} requests, and the rest of the time is not in it: \
                 send less often"
            ));
        }
        let open: Vec<String> = (self.sent.requests.iter().enumerate())
            .filter(|(_, sent)| sent.end.is_none())
            .map(|(number, sent)| format!("\n  number {number}, sent at +{}", seconds(sent.at_ms)))
            .collect();
        if open.is_empty() {
            return self.answers_are_right(expected);
        }
        failed(format!(
            "{} of {sent} requests have no end:{}",
            open.len(),
            open.concat()
        ))
    }

    /// Some requests were answered, and nobody who asked went unanswered for longer than that; nor was
    /// nobody asked for longer.
    ///
    /// # Errors
    /// A [`Failure`] with the longest gap, of the class of most of its requests; [`Cause::Absent`] when
    /// nothing was sent for longer, which shows no gap and proves none absent; [`Cause::WrongAnswer`] when
    /// anybody answered whom the target did not lead to.
    pub fn gap_at_most(&self, limit: Duration) -> Result<(), Failure> {
        let expected = format!("no gap longer than {:.1} s", limit.as_secs_f64());
        self.longest_at_most(expected, self.gaps(), limit)
    }

    /// Some requests were answered, and no time of failures with less than `quiet` between one and
    /// the next was longer than `limit`, see [`Record::disturbances`]; nor was nothing sent for longer.
    ///
    /// # Errors
    /// A [`Failure`] with the longest such time, of the class of most of its requests; as
    /// [`Record::gap_at_most`].
    pub fn disturbed_at_most(&self, limit: Duration, quiet: Duration) -> Result<(), Failure> {
        let expected = format!(
            "no time of failures longer than {:.1} s (with less than {:.1} s from one to the next)",
            limit.as_secs_f64(),
            quiet.as_secs_f64()
        );
        self.longest_at_most(expected, self.disturbances(quiet), limit)
    }

    fn longest_at_most(
        &self,
        expected: String,
        gaps: Vec<Gap>,
        limit: Duration,
    ) -> Result<(), Failure> {
        let number = gaps.len();
        let longest = longest(gaps);
        if self.count(Outcome::Answered) == 0 {
            let cause = longest.map_or(Cause::Absent, |gap| gap.cause());
            let seen = format!("no request was answered: {}", self.totals());
            return Err(self.failed(cause, expected, seen));
        }
        self.answers_are_right(&expected)?;
        let after = |time| {
            let step = self.step_before(time);
            step.map_or(String::new(), |step| format!(", after \"{step}\""))
        };
        if let Some(gap) = longest.filter(|gap| gap.length() > limit) {
            let seen = format!("{gap}{}; the longest of {number}", after(gap.from));
            return Err(self.failed(gap.cause(), expected, seen));
        }
        let (from, silence) = self.longest_silence();
        if silence > limit {
            let seen = format!(
                "nothing was sent for {:.1} s from +{:.1} s on{}: whether anybody would have answered \
                 is not known",
                silence.as_secs_f64(),
                from.as_secs_f64(),
                after(from)
            );
            return Err(self.failed(Cause::Absent, expected, seen));
        }
        Ok(())
    }

    /// None of these Pods answered a request that was sent after this moment of the host, nor did
    /// anybody who does not say who he is.
    ///
    /// # Errors
    /// A [`Failure`] with who answered, how often and when last.
    pub fn nobody_after(&self, pods: &[Party], moment: Instant) -> Result<(), Failure> {
        let mut late: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        for (at, end) in self.ended_after(moment) {
            let host = somebody(end.host.as_deref().unwrap_or_default());
            let nameless = end.outcome == Outcome::Answered && end.host.is_none();
            if nameless || pods.iter().any(|pod| pod.name == host) {
                let (count, last) = late.entry(host).or_default();
                (*count, *last) = (*count + 1, at);
            }
        }
        if late.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = late
            .iter()
            .map(|(host, (count, last))| {
                format!("\n  {host}: {count} times, last at +{}", seconds(*last))
            })
            .collect();
        Err(self.failed(
            Cause::WrongAnswer,
            format!(
                "none of {} Pods to answer after +{:.1} s",
                pods.len(),
                self.clock.at(moment).as_secs_f64()
            ),
            format!("answered all the same:{}", shown.concat()),
        ))
    }

    /// Each of these Pods answered a request that was sent after this moment of the host.
    ///
    /// # Errors
    /// A [`Failure`] that names those who did not.
    pub fn each_after(&self, pods: &[Party], moment: Instant) -> Result<(), Failure> {
        let silent: Vec<String> = pods
            .iter()
            .filter(|pod| {
                let mut after = self.ended_after(moment);
                !after.any(|(_, end)| end.host.as_ref() == Some(&pod.name))
            })
            .map(|pod| format!("\n  {pod}"))
            .collect();
        if silent.is_empty() {
            return Ok(());
        }
        Err(self.failed(
            Cause::Absent,
            format!(
                "each of {} Pods to answer after +{:.1} s",
                pods.len(),
                self.clock.at(moment).as_secs_f64()
            ),
            format!("no answer from:{}", silent.concat()),
        ))
    }

    fn step_before(&self, time: Duration) -> Option<&str> {
        let time = millis(time);
        let before = self.marks.iter().rev().find(|mark| mark.at_ms <= time);
        before.map(|mark| mark.text.as_str())
    }

    /// `612 sent = 600 answered + 12 refused`, with those that have no end.
    pub(crate) fn totals(&self) -> String {
        let mut parts: Vec<String> = self
            .outcomes()
            .iter()
            .map(|(outcome, count)| format!("{count} {outcome}"))
            .collect();
        let open = self.sent.in_flight();
        if open > 0 {
            parts.push(format!("{open} without an end"));
        }
        if parts.is_empty() {
            return "no request was sent".into();
        }
        format!("{} sent = {}", self.sent.requests.len(), parts.join(" + "))
    }
}

/// The first of the longest.
fn longest(gaps: Vec<Gap>) -> Option<Gap> {
    gaps.into_iter().rev().max_by_key(Gap::length)
}

fn counted(outcomes: &BTreeMap<Outcome, usize>) -> String {
    let parts: Vec<String> = outcomes
        .iter()
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    parts.join(", ")
}

pub(crate) fn seconds(ms: u64) -> String {
    format!("{:.1} s", Duration::from_millis(ms).as_secs_f64())
}

#[cfg(test)]
pub(crate) mod tests;
