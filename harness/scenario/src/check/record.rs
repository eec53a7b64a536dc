//! What became of steady traffic: every request, the lab's steps on the same axis of time, and what
//! can be said of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use podwire_probe::{Attempt, Outcome, Sent, TrafficEnd, TrafficRecord, TrafficRequest};
use serde::{Deserialize, Serialize, Serializer};

use crate::check::assert::somebody;
use crate::check::failure::{Cause, Failure};
use crate::check::pairs::{End, Pair, Pairs};
use crate::check::party::Party;

/// No sender is as old.
pub(crate) const A_YEAR: Duration = Duration::from_hours(366 * 24);

const LOOK: &str = "the timeline on this page; every request with its time is in timeline.json";

/// Steady traffic with every request accounted for. It displays as its timeline.
///
/// All times in it count from the sender's start, by the sender's own monotonic clock.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// Who sent.
    pub from: String,
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

/// One look at the sender's clock: it showed this somewhen between the question and the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockReading {
    pub(crate) asked: Instant,
    pub(crate) elapsed_ms: u64,
    pub(crate) told: Instant,
}

/// Where the sender's clock stands in host time. A guest's clock runs at the host's rate, but shows
/// another date, and looking at it takes a while.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Instant,
    /// From `base` to the sender's start.
    began_ms: i64,
    within_ms: u64,
}

impl Clock {
    /// From at least one reading; each of several narrows it down.
    pub(crate) fn of(first: ClockReading, others: &[ClockReading]) -> Self {
        let base = first.asked;
        let began = |shown: Instant, elapsed_ms: u64| {
            signed(shown.saturating_duration_since(base)).saturating_sub_unsigned(elapsed_ms)
        };
        // The sender began after each of the earliest times and before each of the latest ones.
        let (mut low, mut high) = (i64::MIN, i64::MAX);
        for reading in std::iter::once(&first).chain(others) {
            low = low.max(began(reading.asked, reading.elapsed_ms));
            high = high.min(began(reading.told, reading.elapsed_ms));
        }
        Self {
            base,
            began_ms: low + (high - low) / 2,
            // When clocks drift apart the two cross, and their distance is the error all the same.
            within_ms: low.abs_diff(high).div_ceil(2),
        }
    }

    /// Milliseconds from the sender's start to a moment of the host, negative before it.
    fn at_ms(&self, moment: Instant) -> i64 {
        let since = match moment.checked_duration_since(self.base) {
            Some(after) => signed(after),
            None => -signed(self.base.saturating_duration_since(moment)),
        };
        since - self.began_ms
    }

    /// The time on the sender's axis at this moment of the host; its start for any moment before.
    pub fn at(&self, moment: Instant) -> Duration {
        Duration::from_millis(u64::try_from(self.at_ms(moment)).unwrap_or(0))
    }

    /// How far off [`Clock::at`] may be.
    pub fn within(&self) -> Duration {
        Duration::from_millis(self.within_ms)
    }
}

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.within_ms)
    }
}

fn signed(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn seconds(ms: u64) -> String {
    format!("{:.1} s", Duration::from_millis(ms).as_secs_f64())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use podwire_probe::Octets;
    use proptest::prelude::*;

    /// One request every 100 ms: a small letter is who answered, after 10 ms; `R` refused, `T` timed
    /// out after 5 s, `?` under way, `.` answered by somebody without a name.
    pub(crate) fn record(requests: &str, marks: &[(u64, &str)]) -> Record {
        let end = |letter: char| {
            let (outcome, millis, host) = match letter {
                'R' => (Outcome::Refused, 1, None),
                'T' => (Outcome::TimedOut, 5000, None),
                '?' => return None,
                '.' => (Outcome::Answered, 10, None),
                host => (Outcome::Answered, 10, Some(format!("blue-{host}"))),
            };
            Some(Attempt {
                outcome,
                millis,
                host,
                client: None,
                octets: None,
                error: None,
            })
        };
        let requests: Vec<Sent> = (requests.chars().enumerate())
            .map(|(number, letter)| Sent {
                at_ms: number as u64 * 100,
                end: end(letter),
            })
            .collect();
        let now = ClockReading {
            asked: Instant::now(),
            elapsed_ms: 0,
            told: Instant::now(),
        };
        Record {
            from: "blue-f (10.1.1.9 on node1)".into(),
            sent: TrafficRecord {
                request: TrafficRequest::new("10.0.0.55:80"),
                started_unix_ms: 1_700_000_000_000,
                elapsed_ms: requests.len() as u64 * 100,
                missed: 0,
                ended: Some(TrafficEnd::Stopped),
                requests,
            },
            marks: marks
                .iter()
                .map(|(at_ms, text)| Mark {
                    at_ms: *at_ms,
                    text: (*text).into(),
                })
                .collect(),
            nodes: [("blue-a".into(), 1), ("blue-b".into(), 2)].into(),
            asked: ('a'..='z').map(|letter| format!("blue-{letter}")).collect(),
            clock: Clock {
                base: now.asked,
                began_ms: 0,
                within_ms: 40,
            },
            until_ms: 0,
        }
    }

    /// The same after a second in which nothing was sent, from the request with this number on.
    fn held_up(mut record: Record, from: usize) -> Record {
        for sent in &mut record.sent.requests[from..] {
            sent.at_ms += 1000;
        }
        record
    }

    #[test]
    fn answers_follow_a_change_from_its_acceptance_on() {
        // One after each 100 ms, 10 ms later; two that were lost meanwhile.
        let record = record("aaaaTaRbabbbb", &[]);
        let accepted = record.clock.base + Duration::from_millis(350);
        let followed = record.followed("blue-a", "blue-b", accepted).unwrap();
        assert_eq!(followed.first_right, Duration::from_millis(360));
        assert_eq!(followed.last_stale, Duration::from_millis(460));
        assert_eq!(record.lost(), 2);
        assert!(record.last_answered_by("blue-b", 4));
        assert!(!record.last_answered_by("blue-b", 5) && !record.last_answered_by("blue-a", 1));
        assert!(!record.last_answered_by("blue-b", 14));
        assert_eq!(record.followed("blue-a", "blue-c", accepted), None);
        // Nothing of the old one comes after it, and the new one was there at once.
        let later = record.clock.base + Duration::from_secs(60);
        let at_once = record.followed("blue-a", "blue-b", later).unwrap();
        assert_eq!(
            (at_once.first_right, at_once.last_stale),
            Default::default()
        );
    }

    #[test]
    fn what_was_not_asked_is_no_answer() {
        let limit = Duration::from_millis(800);
        let record = record("aaaa", &[(50, "drain")]);
        assert_eq!(record.gap_at_most(limit), Ok(()));
        let silent = held_up(record.clone(), 2);
        let failure = silent.gap_at_most(limit).unwrap_err();
        assert_eq!(failure.cause, Cause::Absent);
        insta::assert_snapshot!(failure, @r#"expected no gap longer than 0.8 s; seen (absent): nothing was sent for 1.0 s from +0.1 s on, after "drain": whether anybody would have answered is not known"#);
        assert!(silent.disturbed_at_most(limit, SECOND).is_err());
        assert_eq!(silent.gap_at_most(SECOND), Ok(()));
        // At its beginning and at its end.
        assert!(held_up(record.clone(), 0).gap_at_most(limit).is_err());
        let stopped_early = Record {
            until_ms: 1400,
            ..record
        };
        let failure = stopped_early.gap_at_most(limit).unwrap_err();
        assert!(
            failure
                .seen
                .starts_with("nothing was sent for 1.0 s from +0.3 s on")
        );
    }

    #[test]
    fn an_answer_that_names_nobody_counts_for_nobody() {
        let record = record("aa.a", &[]);
        let wrong = |failure: Result<(), Failure>| failure.unwrap_err().cause == Cause::WrongAnswer;
        assert!(wrong(record.all_accounted()));
        assert!(wrong(record.gap_at_most(SECOND)));
        let moment = record.clock.base;
        assert!(wrong(record.nobody_after(&[pod("blue-b")], moment)));
    }

    #[test]
    fn an_answer_of_somebody_else_is_none_of_the_target_s() {
        let mut record = record("aabba", &[]);
        assert_eq!(record.gap_at_most(SECOND), Ok(()));
        record.asked.remove("blue-b");
        let failure = record.gap_at_most(SECOND).unwrap_err();
        assert_eq!(failure.cause, Cause::WrongAnswer);
        assert!(record.disturbed_at_most(SECOND, SECOND).is_err());
        let cause = record.all_accounted().map_err(|failure| failure.cause);
        assert_eq!(cause, Err(Cause::WrongAnswer));
        assert_eq!(record.right_after(record.clock.base), 2);
        record.asked = ["blue-x".to_owned(), "blue-y".to_owned()].into();
        insta::assert_snapshot!(record.all_accounted().unwrap_err().seen, @r"
        10.0.0.55:80 leads to blue-x, blue-y, and others answered:
          blue-a: 3 times
          blue-b: 2 times
        ");
        assert_eq!(record.right_after(record.clock.base), 0);
    }

    #[test]
    fn a_record_that_makes_no_sense_or_is_another_s_is_none() {
        let good = || {
            let mut sent = record("aTa", &[]).sent;
            sent.elapsed_ms = 6000;
            sent
        };
        let request = good().request;
        assert_eq!(misrecorded(&request, &good()), None);
        let wrong = |change: &dyn Fn(&mut TrafficRecord)| {
            let mut record = good();
            change(&mut record);
            misrecorded(&request, &record).is_some()
        };
        assert!(wrong(&|it| it.request.interval_ms = 60_000));
        assert!(wrong(&|it| it.elapsed_ms = u64::MAX));
        assert!(wrong(&|it| it.elapsed_ms = 5000));
        assert!(wrong(&|it| it.requests[0].at_ms = 150));
        assert!(wrong(&|it| it.requests[2].at_ms = u64::MAX));
        assert!(wrong(&|it| {
            let end = it.requests[0].end.as_mut().unwrap();
            end.octets = Some(Octets::default());
        }));
    }

    fn pod(name: &str) -> Party {
        Party::new(name, 2, true, [10, 1, 2, 2])
    }

    fn spans(gaps: &[Gap]) -> Vec<(u64, u64, usize)> {
        let span = |gap: &Gap| (millis(gap.from), millis(gap.to), gap.requests());
        gaps.iter().map(span).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_gap_lasts_until_the_next_request_that_is_answered() {
        let record = record("aRRaaTRaR", &[]);
        assert_eq!(
            spans(&record.gaps()),
            [(100, 300, 2), (500, 700, 2), (800, 801, 1)]
        );
        // Of two as long, the first one.
        assert_eq!(
            record.longest_gap().unwrap().from,
            Duration::from_millis(100)
        );
        assert_eq!(spans(&record.disturbances(SECOND)), [(100, 801, 5)]);
        let short = Duration::from_millis(201);
        assert_eq!(spans(&record.disturbances(short)).len(), 2);
    }

    #[test]
    fn nothing_is_said_of_what_is_under_way() {
        let record = record("aRaR??", &[]);
        assert_eq!(spans(&record.gaps()), [(100, 200, 1), (300, 301, 1)]);
        assert_eq!(
            record.totals(),
            "6 sent = 2 answered + 2 refused + 2 without an end"
        );
    }

    #[test]
    fn a_segment_lasts_from_step_to_step() {
        let record = record("aabRRb", &[(200, "drain"), (401, "join")]);
        let of = |segment: &Segment| {
            let answered: usize = segment.answered.values().sum();
            let failed: usize = segment.failed.values().sum();
            (segment.step.clone().unwrap_or_default(), answered, failed)
        };
        let segments: Vec<_> = record.segments().iter().map(of).collect();
        let expected = [("", 2, 0), ("drain", 1, 2), ("join", 1, 0)];
        assert_eq!(
            segments,
            expected.map(|(step, a, f)| (step.to_owned(), a, f))
        );
        assert_eq!(record.segments()[0].answered["blue-a"], 2);
    }

    #[test]
    fn readings_narrow_the_clock_down() {
        let base = Instant::now();
        let at = |ms| base + Duration::from_millis(ms);
        let reading = |asked, elapsed_ms, told| ClockReading {
            asked: at(asked),
            elapsed_ms,
            told: at(told),
        };
        // It began between 100 and 500, says the first one; between 300 and 700, says the other.
        let first = reading(100, 0, 500);
        let one = Clock::of(first, &[]);
        assert_eq!(
            (one.at(at(300)), one.within()),
            (Duration::ZERO, Duration::from_millis(200))
        );
        let two = Clock::of(first, &[reading(10_300, 10_000, 10_700)]);
        assert_eq!(two.at(at(1400)), SECOND);
        assert_eq!(two.within(), Duration::from_millis(100));
        assert_eq!(two.at(at(0)), Duration::ZERO);
        // Drifted apart by 200 ms: in the middle, and no surer than that.
        let apart = Clock::of(first, &[reading(10_700, 10_000, 10_900)]);
        assert_eq!(
            (apart.at(at(600)), apart.within()),
            (Duration::ZERO, Duration::from_millis(100))
        );
    }

    #[test]
    fn accounting_wants_an_end_of_every_request() {
        assert!(record("aRT", &[]).all_accounted().is_ok());
        let open = record("a?b", &[]).all_accounted().unwrap_err();
        insta::assert_snapshot!(open, @r"
        expected every request of the steady traffic to be accounted for; seen (absent): 1 of 3 requests have no end:
          number 1, sent at +0.1 s
        ");
        assert_eq!(
            record("", &[]).all_accounted().unwrap_err().cause,
            Cause::Absent
        );
        let mut full = record("ab", &[]);
        full.sent.ended = Some(TrafficEnd::Full);
        assert!(full.all_accounted().unwrap_err().seen.contains("was full"));
    }

    #[test]
    fn the_longest_gap_decides_and_is_told_with_the_step_before_it() {
        let record = record("aRaRTTTa", &[(250, "drain node3")]);
        let limit = Duration::from_millis;
        assert!(record.gap_at_most(limit(400)).is_ok());
        let failure = record.gap_at_most(limit(399)).unwrap_err();
        assert_eq!(failure.cause, Cause::TimedOut);
        insta::assert_snapshot!(failure, @r#"expected no gap longer than 0.4 s; seen (timed out): 0.4 s from +0.3 s to +0.7 s: 4 requests (1 refused, 3 timed out), after "drain node3"; the longest of 2"#);
        assert!(record.disturbed_at_most(limit(600), SECOND).is_ok());
        assert!(record.disturbed_at_most(limit(599), SECOND).is_err());
    }

    #[test]
    fn without_an_answer_no_gap_is_short_enough() {
        let dead = record("RR", &[]).gap_at_most(SECOND).unwrap_err();
        assert_eq!(dead.cause, Cause::Refused);
        assert_eq!(
            record("", &[]).gap_at_most(SECOND).unwrap_err().cause,
            Cause::Absent
        );
    }

    #[test]
    fn how_requests_ended_after_a_moment_is_told_in_order() {
        let record = record("aaRb?", &[]);
        let after = |ms| record.outcomes_after(record.clock.base + Duration::from_millis(ms));
        assert_eq!(after(159), [Outcome::Refused, Outcome::Answered]);
        // The clocks may be 40 ms apart.
        assert_eq!(after(160), [Outcome::Answered]);
    }

    #[test]
    fn who_answers_after_a_moment_counts_only_when_it_was_surely_after() {
        let record = record("aabbab", &[]);
        let at = |ms| record.clock.base + Duration::from_millis(ms);
        let (a, b) = (pod("blue-a"), pod("blue-b"));
        // The last answer of a is to the request of 400 ms, and the clocks may be 40 ms apart.
        assert!(
            record
                .nobody_after(std::slice::from_ref(&a), at(361))
                .is_ok()
        );
        let late = record
            .nobody_after(&[a.clone(), b.clone()], at(359))
            .unwrap_err();
        assert_eq!(late.cause, Cause::WrongAnswer);
        insta::assert_snapshot!(late, @r"
        expected none of 2 Pods to answer after +0.4 s; seen (wrong answer): answered all the same:
          blue-a: 1 times, last at +0.4 s
          blue-b: 1 times, last at +0.5 s
        ");
        assert!(record.each_after(&[a.clone(), b.clone()], at(0)).is_ok());
        let silent = record.each_after(&[a, b], at(361)).unwrap_err();
        assert_eq!(silent.cause, Cause::Absent);
        insta::assert_snapshot!(silent, @r"
        expected each of 2 Pods to answer after +0.4 s; seen (absent): no answer from:
          blue-a (10.1.2.2 on node2)
        ");
    }

    proptest! {
        #[test]
        fn every_failure_is_in_one_gap_and_every_request_in_one_segment(
            requests in "[abRT?]{0,80}",
            mut steps in prop::collection::vec(0_u64..9000, 0..6),
            quiet in 1_u64..3000,
        ) {
            steps.sort_unstable();
            let marks: Vec<(u64, &str)> = steps.iter().map(|at| (*at, "step")).collect();
            let record = record(&requests, &marks);
            let failed = record.count(Outcome::Refused) + record.count(Outcome::TimedOut);
            let answered: usize = record.backends().values().sum();
            prop_assert_eq!(record.sent.requests.len(), failed + answered + record.sent.in_flight());
            for gaps in [record.gaps(), record.disturbances(Duration::from_millis(quiet))] {
                prop_assert_eq!(gaps.iter().map(Gap::requests).sum::<usize>(), failed);
                for pair in gaps.windows(2) {
                    prop_assert!(pair[0].from < pair[1].from);
                }
            }
            for pair in record.gaps().windows(2) {
                prop_assert!(pair[0].to < pair[1].from);
            }
            let segments = record.segments();
            prop_assert_eq!(segments.len(), marks.len() + 1);
            for pair in segments.windows(2) {
                prop_assert_eq!(pair[0].to, pair[1].from);
            }
            let in_segments = |segment: &Segment| {
                segment.answered.values().sum::<usize>() + segment.failed.values().sum::<usize>()
            };
            prop_assert_eq!(segments.iter().map(in_segments).sum::<usize>(), failed + answered);
        }
    }
}
