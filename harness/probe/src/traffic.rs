//! Steady traffic: one request after the other at a fixed pace, each on a fresh connection, and a
//! record of every single one.
//!
//! The pace does not depend on the answers (an open loop): a request that waits for its limit delays
//! none of those after it, so that an interruption shows with its full length and weight.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::client;
use crate::kind::Kind;
use crate::report::{Attempt, Outcome};

/// What one record holds at most, which bounds the sender's memory: over half an hour at ten
/// requests a second.
pub const MAX_REQUESTS: usize = 20_000;

/// Requests under way at once, each of which has a thread.
const MAX_IN_FLIGHT: usize = 256;

/// Bytes of an error's text or a host's name: a full record must fit in one answer.
const MAX_TEXT: usize = 128;

/// What a request may take beyond its limit before a stopped record is given without its end.
const GRACE: Duration = Duration::from_secs(10);

/// What to send, and how often: the body of `POST /traffic`.
///
/// ```
/// let request: podwire_probe::TrafficRequest =
///     serde_json::from_str(r#"{"target":"10.0.0.42:80"}"#).unwrap();
/// assert_eq!((request.interval_ms, request.limit_ms), (100, 5000));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficRequest {
    /// `HOST`, `HOST:PORT` or `http://HOST[:PORT][/PATH]`. Names are taken as absolute.
    pub target: String,
    /// What each request is; HTTP when absent.
    #[serde(default, skip_serializing_if = "Kind::is_http")]
    pub kind: Kind,
    /// From the start of one request to that of the next, in milliseconds; 100 when absent.
    #[serde(default = "tenth")]
    pub interval_ms: u64,
    /// What one request may take, in milliseconds; 5000 when absent. See [`Kind::longest`].
    #[serde(default = "five_seconds")]
    pub limit_ms: u64,
}

fn tenth() -> u64 {
    100
}

fn five_seconds() -> u64 {
    5000
}

impl TrafficRequest {
    /// Ten requests a second to one target, each with five seconds.
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            kind: Kind::Http,
            interval_ms: tenth(),
            limit_ms: five_seconds(),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms)
    }

    fn longest(&self) -> Duration {
        self.kind.longest(self.limit())
    }

    fn check(&self) -> Result<(), String> {
        if self.interval_ms == 0 {
            return Err("an interval of 0 ms is no pace".into());
        }
        let in_flight = millis(self.longest()).div_ceil(self.interval_ms);
        // Half of what there may be: on a busy machine a request ends a little beyond its limit.
        let most = MAX_IN_FLIGHT / 2;
        if in_flight > most as u64 {
            return Err(format!(
                "a request every {} ms that may take {} ms: {in_flight} may come to be under way at \
                 once, and {most} are the most; send less often or wait less long",
                self.interval_ms,
                millis(self.longest())
            ));
        }
        Ok(())
    }
}

/// Every request of a sender, so far or in all: the answer of `GET` and of `DELETE /traffic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRecord {
    /// What is sent.
    pub request: TrafficRequest,
    /// The sender's wall clock when it began, milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long ago that is by the sender's monotonic clock, milliseconds.
    pub elapsed_ms: u64,
    /// Times at which nothing was sent, because the sender itself was held up beyond the next one.
    pub missed: u32,
    /// Why it sends no more; nothing while it does.
    pub ended: Option<TrafficEnd>,
    /// The requests in the order in which they were sent, from number 0.
    pub requests: Vec<Sent>,
}

impl TrafficRecord {
    /// How many requests are still under way.
    pub fn in_flight(&self) -> usize {
        self.requests
            .iter()
            .filter(|sent| sent.end.is_none())
            .count()
    }
}

/// One request of a [`TrafficRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// When it was sent: milliseconds since the sender began, by its monotonic clock.
    pub at_ms: u64,
    /// How it ended, and how long after `at_ms`; nothing while it is under way.
    pub end: Option<Attempt>,
}

/// Why a sender sends no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrafficEnd {
    /// It was told to stop.
    Stopped,
    /// Its record holds [`MAX_REQUESTS`].
    Full,
}

/// Why there is no traffic to start or to tell of.
#[derive(Debug)]
pub(crate) enum TrafficError {
    /// What was asked for cannot be done.
    Request(String),
    /// One sender is at work already.
    Running,
    /// None was ever started.
    Absent,
    /// No thread for it.
    Io(io::Error),
}

/// The one sender that a server may have. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic(Arc<Mutex<Option<Arc<Sender>>>>);

impl Traffic {
    /// Starts sending, in place of a sender that has ended; gives the record's beginning.
    pub(crate) fn start(&self, request: TrafficRequest) -> Result<TrafficRecord, TrafficError> {
        self.start_at_most(request, MAX_REQUESTS)
    }

    fn start_at_most(
        &self,
        request: TrafficRequest,
        most: usize,
    ) -> Result<TrafficRecord, TrafficError> {
        request.check().map_err(TrafficError::Request)?;
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|sender| sender.log().ended.is_none())
        {
            return Err(TrafficError::Running);
        }
        let sender = Arc::new(Sender {
            request,
            most,
            started: Instant::now(),
            started_unix_ms: millis(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default(),
            ),
            log: Mutex::default(),
            changed: Condvar::new(),
        });
        let work = Arc::clone(&sender);
        let thread = thread::Builder::new().stack_size(STACK);
        thread
            .spawn(move || work.send())
            .map_err(TrafficError::Io)?;
        let record = sender.record();
        *current = Some(sender);
        Ok(record)
    }

    /// The record so far; also that of a sender that has ended, until the next one starts.
    pub(crate) fn record(&self) -> Result<TrafficRecord, TrafficError> {
        Ok(self.current()?.record())
    }

    /// Stops sending, waits for what is under way, and gives the whole record. Asking again gives it
    /// again.
    pub(crate) fn stop(&self) -> Result<TrafficRecord, TrafficError> {
        let sender = self.current()?;
        sender.stop();
        Ok(sender.record())
    }

    fn current(&self) -> Result<Arc<Sender>, TrafficError> {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().ok_or(TrafficError::Absent)
    }
}

/// Of a thread that sends one request or more.
const STACK: usize = 256 * 1024;

#[derive(Debug)]
struct Sender {
    request: TrafficRequest,
    most: usize,
    started: Instant,
    started_unix_ms: u64,
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<Sent>,
    in_flight: usize,
    missed: u32,
    ended: Option<TrafficEnd>,
}

impl Sender {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> TrafficRecord {
        let log = self.log();
        TrafficRecord {
            request: self.request.clone(),
            started_unix_ms: self.started_unix_ms,
            elapsed_ms: millis(self.started.elapsed()),
            missed: log.missed,
            ended: log.ended,
            requests: log.requests.clone(),
        }
    }

    fn send(self: Arc<Self>) {
        let interval = Duration::from_millis(self.request.interval_ms);
        let mut due = self.started;
        while self.comes(due) {
            Self::send_one(&self);
            due += interval;
            // A burst that makes up for a stall would measure itself.
            let late = millis(Instant::now().saturating_duration_since(due));
            let missed = u32::try_from(late / self.request.interval_ms).unwrap_or(u32::MAX);
            due += interval * missed;
            self.log().missed += missed;
        }
    }

    /// Waits until it is time to send; false when there is nothing more to send.
    fn comes(&self, due: Instant) -> bool {
        let mut log = self.log();
        loop {
            if log.ended.is_some() {
                return false;
            }
            if log.requests.len() >= self.most {
                log.ended = Some(TrafficEnd::Full);
                self.changed.notify_all();
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            log = self
                .changed
                .wait_timeout(log, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn send_one(self: &Arc<Self>) {
        let sent = Instant::now();
        let (number, crowded) = {
            let mut log = self.log();
            // Its place is taken before it is sent: there is no moment at which it is not counted.
            log.requests.push(Sent {
                at_ms: millis(sent.duration_since(self.started)),
                end: None,
            });
            log.in_flight += 1;
            (log.requests.len() - 1, log.in_flight > MAX_IN_FLIGHT)
        };
        if crowded {
            self.end(number, not_sent(&format!("{MAX_IN_FLIGHT} are under way")));
            return;
        }
        let work = Arc::clone(self);
        let request = move || {
            let TrafficRequest { target, kind, .. } = &work.request;
            let mut attempt = client::attempt(target, *kind, work.request.limit());
            attempt.millis = millis(sent.elapsed());
            work.end(number, attempt);
        };
        if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(request) {
            self.end(number, not_sent(&error.to_string()));
        }
    }

    fn end(&self, number: usize, mut attempt: Attempt) {
        let texts = [&mut attempt.host, &mut attempt.error, &mut attempt.client];
        texts.into_iter().flatten().for_each(shorten);
        let mut log = self.log();
        log.requests[number].end = Some(attempt);
        log.in_flight -= 1;
        self.changed.notify_all();
    }

    fn stop(&self) {
        let mut log = self.log();
        log.ended.get_or_insert(TrafficEnd::Stopped);
        self.changed.notify_all();
        let longest = self.request.longest() + GRACE;
        // What is still under way then shows as such in the record.
        drop(
            self.changed
                .wait_timeout_while(log, longest, |log| log.in_flight > 0),
        );
    }
}

fn not_sent(why: &str) -> Attempt {
    Attempt {
        outcome: Outcome::Other,
        millis: 0,
        host: None,
        client: None,
        octets: None,
        error: Some(format!("not sent: {why}")),
    }
}

/// Any server may answer, with whatever it likes.
fn shorten(text: &mut String) {
    text.retain(|c| !c.is_control());
    text.truncate(text.floor_char_boundary(MAX_TEXT));
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;
    use crate::server::Server;
    use std::io::Write as _;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    /// For what comes at once, on a machine however busy.
    const LIMIT: Duration = Duration::from_secs(60);
    /// The longest that a request may have at a tenth of a second between two, in milliseconds.
    const LONG: u64 = 12_800;

    fn server(host: &str) -> SocketAddr {
        let server = Server::bind(0, host.into()).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || server.run());
        ([127, 0, 0, 1], port).into()
    }

    fn request(target: impl ToString, interval_ms: u64, limit_ms: u64) -> TrafficRequest {
        TrafficRequest {
            target: target.to_string(),
            kind: Kind::Http,
            interval_ms,
            limit_ms,
        }
    }

    fn until(traffic: &Traffic, done: impl Fn(&TrafficRecord) -> bool) -> TrafficRecord {
        let started = Instant::now();
        loop {
            let record = traffic.record().unwrap();
            if done(&record) {
                return record;
            }
            assert!(started.elapsed() < LIMIT, "{record:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn outcomes(record: &TrafficRecord, outcome: Outcome) -> usize {
        let ends = record.requests.iter().filter_map(|sent| sent.end.as_ref());
        ends.filter(|end| end.outcome == outcome).count()
    }

    /// Accepts and says nothing, for as long as it lives.
    fn silent() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[test]
    fn every_request_is_in_the_record_with_who_answered() {
        let traffic = Traffic::default();
        let begun = traffic.start(request(server("one"), 100, LONG)).unwrap();
        assert!(begun.started_unix_ms > 1_700_000_000_000);
        until(&traffic, |record| record.requests.len() > 5);
        let record = traffic.stop().unwrap();
        assert_eq!(record.ended, Some(TrafficEnd::Stopped));
        assert_eq!(record.in_flight(), 0);
        assert_eq!(outcomes(&record, Outcome::Answered), record.requests.len());
        let mut before = 0;
        for sent in &record.requests {
            let end = sent.end.as_ref().unwrap();
            assert_eq!(end.host.as_deref(), Some("one"));
            assert!(before <= sent.at_ms && sent.at_ms + end.millis <= record.elapsed_ms);
            before = sent.at_ms;
        }
        // Stopping again, as after an answer that got lost, gives the same requests.
        assert_eq!(traffic.stop().unwrap().requests, record.requests);
    }

    #[test]
    fn steady_transfers_and_datagrams_are_recorded_alike() {
        let to = server("one");
        for kind in [Kind::both_ways(20_000), Kind::Udp] {
            let traffic = Traffic::default();
            let request = TrafficRequest {
                kind,
                ..request(to, 200, LONG)
            };
            traffic.start(request).unwrap();
            until(&traffic, |record| outcomes(record, Outcome::Answered) > 2);
            let record = traffic.stop().unwrap();
            for sent in &record.requests {
                let end = sent.end.as_ref().unwrap();
                assert!(
                    kind.can_have_carried(Outcome::Answered, 1, end.octets),
                    "{end:?}"
                );
                assert_eq!(end.host.as_deref(), Some("one"));
            }
        }
        let endless = TrafficRequest {
            kind: Kind::both_ways(crate::MAX_OCTETS),
            ..request(to, 200, LONG)
        };
        let refused = Traffic::default().start(endless);
        assert!(matches!(refused, Err(TrafficError::Request(_))));
    }

    #[test]
    fn the_record_tells_an_interruption_request_by_request() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let traffic = Traffic::default();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        // Answers until it is told to go, and then nobody listens any more.
        let serving = thread::spawn(move || {
            listener.set_nonblocking(true).unwrap();
            let mut answered = Vec::new();
            while gone.try_recv().is_err() {
                if let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nonblocking(false).unwrap();
                    http::read(&mut stream, false).unwrap();
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    stream.write_all(answer.as_bytes()).unwrap();
                    answered.push(stream);
                }
                thread::sleep(Duration::from_millis(1));
            }
            // While a connection of its port is there, nobody else on this host is given that port.
            answered
        });
        traffic.start(request(target, 100, LONG)).unwrap();
        let before = until(&traffic, |record| outcomes(record, Outcome::Answered) > 3);
        go.send(()).unwrap();
        let _port = serving.join().unwrap();
        // A request that the sender has counted by now may have been anywhere on its way when the
        // listener went; each one after it was sent to nobody.
        let after = traffic.record().unwrap().requests.len();
        until(&traffic, |record| {
            let sent_after = record.requests.iter().skip(after);
            sent_after.filter(|sent| sent.end.is_some()).count() > 3
        });
        let record = traffic.stop().unwrap();
        assert_eq!(record.in_flight(), 0);
        for (number, sent) in before.requests.iter().enumerate() {
            assert!(sent.end.is_none() || *sent == record.requests[number]);
        }
        let refused = |sent: &Sent| sent.end.as_ref().unwrap().outcome == Outcome::Refused;
        assert!(record.requests[after..].iter().all(refused), "{record:?}");
    }

    #[test]
    fn an_answer_that_does_not_come_delays_no_other_request() {
        let (target, listener) = silent();
        let traffic = Traffic::default();
        traffic.start(request(target, 200, 2 * LONG)).unwrap();
        let record = until(&traffic, |record| record.requests.len() > 4);
        assert_eq!(record.requests.len(), record.in_flight());
        // Whoever was not accepted is reset.
        drop(listener);
        let record = traffic.stop().unwrap();
        assert_eq!(record.in_flight(), 0);
    }

    #[test]
    fn a_request_is_given_up_at_its_limit_and_not_before() {
        let (target, _listener) = silent();
        let traffic = Traffic::default();
        traffic.start(request(target, 20, 200)).unwrap();
        until(&traffic, |record| record.requests.len() > 3);
        let record = traffic.stop().unwrap();
        assert_eq!(record.in_flight(), 0);
        assert_eq!(outcomes(&record, Outcome::TimedOut), record.requests.len());
        let ends = record.requests.iter().filter_map(|sent| sent.end.as_ref());
        assert!(ends.map(|end| end.millis).min().unwrap() >= 200);
    }

    #[test]
    fn a_full_record_ends_the_sender_and_says_so() {
        let traffic = Traffic::default();
        traffic
            .start_at_most(request(server("one"), 1, 100), 7)
            .unwrap();
        let record = until(&traffic, |record| record.ended.is_some());
        assert_eq!(record.ended, Some(TrafficEnd::Full));
        let record = traffic.stop().unwrap();
        assert_eq!((record.requests.len(), record.in_flight()), (7, 0));
        assert_eq!(record.ended, Some(TrafficEnd::Full));
        // The next one may start now, with a record of its own.
        let next = traffic.start(request(server("two"), LONG, 100)).unwrap();
        assert!(next.requests.len() <= 1 && next.ended.is_none());
        traffic.stop().unwrap();
    }

    #[test]
    fn one_sender_at_a_time_and_none_beyond_measure() {
        let traffic = Traffic::default();
        assert!(matches!(traffic.record(), Err(TrafficError::Absent)));
        assert!(matches!(traffic.stop(), Err(TrafficError::Absent)));
        for (interval, limit) in [(0, 100), (1, 60_000)] {
            let refused = traffic.start(request("127.0.0.1:1", interval, limit));
            assert!(matches!(refused, Err(TrafficError::Request(_))));
        }
        traffic.start(request("127.0.0.1:1", 100, 100)).unwrap();
        let second = traffic.start(request("127.0.0.1:1", 100, 100));
        assert!(matches!(second, Err(TrafficError::Running)));
        traffic.stop().unwrap();
    }

    #[test]
    fn the_fullest_record_is_one_answer() {
        let mut text = "\"".repeat(MAX_TEXT * 2);
        shorten(&mut text);
        let sent = Sent {
            at_ms: 1_000_000,
            end: Some(Attempt {
                error: Some(text),
                millis: 10_000,
                ..not_sent("")
            }),
        };
        let record = TrafficRecord {
            request: request("10.0.0.55:80", 100, 5000),
            started_unix_ms: 0,
            elapsed_ms: 0,
            missed: 0,
            ended: None,
            requests: vec![sent; MAX_REQUESTS],
        };
        assert!(serde_json::to_vec(&record).unwrap().len() < http::MAX_BODY);
    }

    #[test]
    fn over_http_it_is_started_looked_at_and_stopped() {
        let one = server("one");
        let ask = |start: &str, body: &str| {
            let mut stream = TcpStream::connect(one).unwrap();
            let length = body.len();
            write!(
                stream,
                "{start} /traffic HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            let answer = http::read(&mut stream, true).unwrap();
            (
                answer.start[9..12].to_owned(),
                String::from_utf8(answer.body).unwrap(),
            )
        };
        assert_eq!(ask("GET", "").0, "404");
        assert_eq!(ask("DELETE", "").0, "404");
        assert_eq!(ask("POST", "{}").0, "400");
        let start = format!("{{\"target\":\"{}\",\"interval_ms\":50}}", server("two"));
        assert_eq!(ask("POST", &start).0, "200");
        assert_eq!(ask("POST", &start).0, "409");
        let record =
            |(_, body): (String, String)| -> TrafficRecord { serde_json::from_str(&body).unwrap() };
        let begun = Instant::now();
        while outcomes(&record(ask("GET", "")), Outcome::Answered) < 3 {
            assert!(begun.elapsed() < LIMIT);
            thread::sleep(Duration::from_millis(10));
        }
        let all = record(ask("DELETE", ""));
        assert_eq!((all.ended, all.in_flight()), (Some(TrafficEnd::Stopped), 0));
        assert_eq!(all.requests, record(ask("GET", "")).requests);
    }
}
