//! The JSON that goes in and comes out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::kind::{Kind, Octets};

/// What to fetch, and how.
///
/// ```
/// let request: podwire_probe::FetchRequest =
///     serde_json::from_str(r#"{"targets":["10.1.1.2:80"],"count":3}"#).unwrap();
/// assert_eq!((request.count, request.limit_ms), (3, 5000));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchRequest {
    /// `HOST`, `HOST:PORT` or `http://HOST[:PORT][/PATH]`. Names are taken as absolute.
    pub targets: Vec<String>,
    /// What each request is; HTTP when absent.
    #[serde(default, skip_serializing_if = "Kind::is_http")]
    pub kind: Kind,
    /// Requests per target, each on a connection of its own; 1 when absent.
    #[serde(default = "one")]
    pub count: u32,
    /// Requests under way at once, over all targets; 8 when absent.
    #[serde(default = "eight")]
    pub concurrency: u32,
    /// What one request may take from its name's resolution to the answer's last byte, in
    /// milliseconds; 5000 when absent. A transfer may go on for longer as long as something moves, see
    /// [`Kind::longest`].
    #[serde(default = "five_seconds")]
    pub limit_ms: u64,
    /// What the answer to a request by HTTP may take beside that, once its connection is there, in
    /// milliseconds: to open one is the work of the network and of two kernels, to answer that of a
    /// process, which an emulated machine may not run for seconds. None beside it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_ms: Option<u64>,
    /// Whether the report lists every attempt beside the counts.
    #[serde(default)]
    pub each: bool,
    /// After so many time-outs of a target the rest of its requests is not sent: what they would add
    /// to the verdict is not worth their limits. All are sent when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_after: Option<u32>,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn eight() -> u32 {
    8
}

fn five_seconds() -> u64 {
    5000
}

impl FetchRequest {
    /// One request to each target, with the defaults.
    pub fn new(targets: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            targets: targets.into_iter().map(Into::into).collect(),
            kind: Kind::Http,
            count: one(),
            concurrency: eight(),
            limit_ms: five_seconds(),
            answer_ms: None,
            each: false,
            give_up_after: None,
        }
    }

    /// The same with requests of another kind.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same with another number of requests per target.
    #[must_use]
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// The same with another number of requests under way at once.
    #[must_use]
    pub fn concurrency(mut self, concurrency: u32) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// The same with another limit per request.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// The same with so much time for each answer, once its connection is there.
    #[must_use]
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.answer_ms = Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The same, giving a target up after so many time-outs.
    #[must_use]
    pub fn give_up_after(mut self, time_outs: u32) -> Self {
        self.give_up_after = Some(time_outs);
        self
    }

    pub(crate) fn for_answer(&self) -> Option<Duration> {
        self.answer_ms.map(Duration::from_millis)
    }

    fn unsent(&self, sent: usize) -> u32 {
        let sent = u32::try_from(sent).unwrap_or(u32::MAX);
        match self.give_up_after {
            Some(_) => self.count.saturating_sub(sent),
            None => 0,
        }
    }

    /// The longest that all requests together can take, when every one runs into its limit.
    pub fn longest(&self) -> Duration {
        let requests = self.targets.len() as u64 * u64::from(self.count);
        let rounds = requests.div_ceil(u64::from(self.concurrency.max(1)));
        let each = self.kind.longest(Duration::from_millis(self.limit_ms));
        let each = each.saturating_add(self.for_answer().unwrap_or_default());
        each.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }
}

/// How one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// HTTP status 200 with a whole body; a transfer whose octets are those that were sent.
    Answered,
    /// The connection was refused (a TCP reset for the SYN, or an ICMP port unreachable).
    Refused,
    /// Nothing came in time: not for the SYN, or not for the request.
    TimedOut,
    /// The host or network was said to be unreachable, by a router or by ARP's silence.
    NoRoute,
    /// An open connection was reset.
    Reset,
    /// The name does not exist (NXDOMAIN).
    NameNotFound,
    /// Another HTTP status than 200.
    HttpStatus,
    /// An answer that is not HTTP, or an incomplete one.
    Malformed,
    /// Other octets came than were sent.
    Corrupted,
    /// None of these: the error's text says what.
    Other,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::NoRoute => "no route",
            Self::Reset => "reset",
            Self::NameNotFound => "name not found",
            Self::HttpStatus => "HTTP status",
            Self::Malformed => "malformed",
            Self::Corrupted => "corrupted",
            Self::Other => "other",
        })
    }
}

/// What `GET /` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The server's host name: in a Pod, the Pod's name.
    pub host: String,
    /// The address that the request came from, as the server saw it.
    pub client: String,
    /// The server's own address of this connection.
    pub server: String,
}

/// All results, target by target in the request's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReport {
    /// One entry per target.
    pub targets: Vec<TargetReport>,
}

/// The results of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// As given in the request.
    pub target: String,
    /// Equal results together, in a stable order; the counts and `unsent` add up to the request's
    /// `count`. Read from JSON, they can be added.
    #[serde(deserialize_with = "countable")]
    pub results: Vec<Counted>,
    /// How many requests were not sent any more, see [`FetchRequest::give_up_after`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsent: u32,
    /// Every attempt, when the request asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

/// A Pod tells what it likes, also more requests than anybody can ask for.
fn countable<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Counted>, D::Error> {
    let results = Vec::<Counted>::deserialize(from)?;
    let counts = results.iter().map(|each| u64::from(each.count));
    let sum = counts.sum::<u64>();
    match u32::try_from(sum) {
        Ok(_) => Ok(results),
        Err(_) => Err(D::Error::custom(format!(
            "{sum} requests of one target: nobody asks for so many"
        ))),
    }
}

/// How often one and the same thing was the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// How these requests ended.
    pub outcome: Outcome,
    /// Which host answered, when it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Which client address it saw, when it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// How many of them.
    pub count: u32,
    /// What all of them carried, when they were transfers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<Octets>,
    /// How long the slowest of them took, when they were transfers, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowest_ms: Option<u64>,
    /// The first of their error texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub millis: u64,
    /// Which host answered, when it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Which client address it saw, when it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What it carried, when it was a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<Octets>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl FetchReport {
    pub(crate) fn of(request: &FetchRequest, mut attempts: Vec<Vec<Attempt>>) -> Self {
        attempts.resize(request.targets.len(), Vec::new());
        let targets = request.targets.iter().zip(attempts);
        Self {
            targets: targets
                .map(|(target, attempts)| TargetReport {
                    target: target.clone(),
                    results: counted(&attempts),
                    unsent: request.unsent(attempts.len()),
                    attempts: if request.each { attempts } else { Vec::new() },
                })
                .collect(),
        }
    }

    /// The results of one target, named as in the request.
    pub fn target(&self, target: &str) -> Option<&TargetReport> {
        self.targets.iter().find(|report| report.target == target)
    }
}

fn counted(attempts: &[Attempt]) -> Vec<Counted> {
    let mut groups: BTreeMap<_, Counted> = BTreeMap::new();
    for attempt in attempts {
        let key = (
            attempt.outcome,
            attempt.host.clone(),
            attempt.client.clone(),
        );
        let group = groups.entry(key).or_insert_with(|| Counted {
            outcome: attempt.outcome,
            host: attempt.host.clone(),
            client: attempt.client.clone(),
            count: 0,
            octets: None,
            slowest_ms: None,
            error: attempt.error.clone(),
        });
        group.count += 1;
        if let Some(octets) = attempt.octets {
            let all = group.octets.get_or_insert_default();
            all.sent += octets.sent;
            all.received += octets.received;
            group.slowest_ms = group.slowest_ms.max(Some(attempt.millis));
        }
    }
    groups.into_values().collect()
}

impl TargetReport {
    /// How many requests ended so.
    pub fn count(&self, outcome: Outcome) -> u32 {
        let with = self.results.iter().filter(|each| each.outcome == outcome);
        with.map(|each| each.count).sum()
    }

    /// Whether there was a request and every one ended so.
    pub fn all(&self, outcome: Outcome) -> bool {
        !self.results.is_empty() && self.results.iter().all(|each| each.outcome == outcome)
    }

    /// The answers per answering host; an answer that names none is under the empty name.
    pub fn hosts(&self) -> BTreeMap<&str, u32> {
        self.answers_by(|each| each.host.as_deref())
    }

    /// The answers per client address seen; an answer that names none is under the empty name.
    pub fn clients(&self) -> BTreeMap<&str, u32> {
        self.answers_by(|each| each.client.as_deref())
    }

    fn answers_by<'a>(
        &'a self,
        name: impl Fn(&'a Counted) -> Option<&'a str>,
    ) -> BTreeMap<&'a str, u32> {
        let mut sums = BTreeMap::new();
        for each in &self.results {
            if each.outcome == Outcome::Answered {
                *sums.entry(name(each).unwrap_or_default()).or_default() += each.count;
            }
        }
        sums
    }
}

/// One line: `10.1.1.2:80: 3 answered by blue-x (saw 10.1.1.1), 1 timed out (...)`.
impl fmt::Display for TargetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.target)?;
        if self.results.is_empty() {
            return f.write_str("no request");
        }
        for (index, each) in self.results.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{} {}", each.count, each.outcome)?;
            if let Some(host) = &each.host {
                write!(f, " by {host}")?;
            }
            if let Some(client) = &each.client {
                write!(f, " (saw {client})")?;
            }
            if let Some(Octets { sent, received }) = each.octets {
                let millis = each.slowest_ms.unwrap_or_default();
                write!(f, ", {sent} octets there, {received} back in {millis} ms")?;
            }
            if let Some(error) = &each.error {
                write!(f, " ({error})")?;
            }
        }
        match self.unsent {
            0 => Ok(()),
            unsent => write!(f, ", {unsent} not sent any more"),
        }
    }
}

/// One line per target.
impl fmt::Display for FetchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, target) in self.targets.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{target}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(outcome: Outcome, host: Option<&str>, error: Option<&str>) -> Attempt {
        Attempt {
            outcome,
            millis: 1,
            host: host.map(Into::into),
            client: host.map(|_| "10.1.1.1".into()),
            octets: None,
            error: error.map(Into::into),
        }
    }

    #[test]
    fn counts_that_cannot_be_added_are_no_report() {
        let report = |counts: &[u32]| {
            let results = counts.iter().map(
                |count| serde_json::json!({ "outcome": "answered", "host": "a", "count": count }),
            );
            let results: Vec<_> = results.collect();
            let target = serde_json::json!({ "target": "a", "results": results });
            serde_json::from_value::<TargetReport>(target)
        };
        let most = report(&[u32::MAX - 1, 1]).unwrap();
        assert_eq!(most.count(Outcome::Answered), u32::MAX);
        assert_eq!(most.hosts()["a"], u32::MAX);
        let error = report(&[u32::MAX, 1])
            .map(|report| (report.count(Outcome::Answered), report.clients().len()));
        insta::assert_snapshot!(error.unwrap_err(), @"4294967296 requests of one target: nobody asks for so many");
    }

    #[test]
    fn equal_results_are_counted_together_with_the_first_error() {
        let request = FetchRequest::new(["a", "b"]).count(4);
        let report = FetchReport::of(
            &request,
            vec![
                vec![
                    attempt(Outcome::TimedOut, None, Some("first")),
                    attempt(Outcome::Answered, Some("two"), None),
                    attempt(Outcome::TimedOut, None, Some("second")),
                    attempt(Outcome::Answered, Some("one"), None),
                ],
                vec![attempt(Outcome::Refused, None, Some("no"))],
            ],
        );
        insta::assert_snapshot!(report, @r"
        a: 1 answered by one (saw 10.1.1.1), 1 answered by two (saw 10.1.1.1), 2 timed out (first)
        b: 1 refused (no)
        ");
        insta::assert_snapshot!(serde_json::to_string(&report).unwrap(), @r#"{"targets":[{"target":"a","results":[{"outcome":"answered","host":"one","client":"10.1.1.1","count":1},{"outcome":"answered","host":"two","client":"10.1.1.1","count":1},{"outcome":"timed_out","count":2,"error":"first"}]},{"target":"b","results":[{"outcome":"refused","count":1,"error":"no"}]}]}"#);
        let a = report.target("a").unwrap();
        assert_eq!(a.count(Outcome::TimedOut), 2);
        assert!(!a.all(Outcome::Answered));
        assert!(report.target("b").unwrap().all(Outcome::Refused));
        assert_eq!(
            a.hosts().into_iter().collect::<Vec<_>>(),
            [("one", 1), ("two", 1)]
        );
        assert_eq!(
            a.clients().into_iter().collect::<Vec<_>>(),
            [("10.1.1.1", 2)]
        );
    }

    #[test]
    fn a_target_without_requests_is_not_all_of_anything() {
        let report = FetchReport::of(&FetchRequest::new(["a"]).count(0), vec![]);
        assert!(!report.targets[0].all(Outcome::Answered));
    }

    #[test]
    fn the_longest_time_counts_rounds() {
        let request = FetchRequest::new(["a", "b", "c"])
            .count(3)
            .concurrency(4)
            .limit(Duration::from_secs(2));
        assert_eq!(request.longest(), Duration::from_secs(6));
        let request = request.answer_within(Duration::from_secs(5));
        assert_eq!(request.longest(), Duration::from_secs(21));
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let error = serde_json::from_str::<FetchRequest>(r#"{"targets":[],"cuont":3}"#);
        assert!(error.unwrap_err().to_string().contains("cuont"));
    }
}
