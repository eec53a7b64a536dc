//! The client: many requests, each on a fresh connection.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::{self, Message, MessageError, Until, left};
use crate::kind::{Kind, Octets};
use crate::report::{Attempt, FetchReport, FetchRequest, Outcome};
use crate::resolve::{ResolveReport, ResolveRequest};
use crate::target::{Failure, Said, Target, connect, failed, refused};
use crate::{ping, transfer, udp};

/// Why another `probe` made no report.
#[derive(Debug)]
pub struct ViaError {
    /// How the request to it ended.
    pub outcome: Outcome,
    /// What went wrong.
    pub error: String,
}

impl std::fmt::Display for ViaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no report: {}: {}", self.outcome, self.error)
    }
}

impl std::error::Error for ViaError {}

/// Does what the request says. Takes at most [`FetchRequest::longest`] and a little.
pub fn fetch(request: &FetchRequest) -> FetchReport {
    let count = request.count as usize;
    let jobs = request.targets.len() * count;
    let next = AtomicUsize::new(0);
    let attempts = Mutex::new(vec![Vec::with_capacity(count); request.targets.len()]);
    let time_outs: Vec<AtomicU32> = request.targets.iter().map(|_| AtomicU32::new(0)).collect();
    let is_given_up = |index: usize| {
        let most = request.give_up_after;
        most.is_some_and(|most| time_outs[index].load(Ordering::Relaxed) >= most)
    };
    let work = || {
        loop {
            let job = next.fetch_add(1, Ordering::Relaxed);
            if job >= jobs {
                break;
            }
            // Target by target would let one dead target hold up all the others.
            let index = job % request.targets.len();
            if is_given_up(index) {
                continue;
            }
            let limits = Limits {
                connected: Duration::from_millis(request.limit_ms),
                answered: request.for_answer(),
            };
            let attempt = attempt(&request.targets[index], request.kind, limits);
            if attempt.outcome == Outcome::TimedOut {
                time_outs[index].fetch_add(1, Ordering::Relaxed);
            }
            if let Ok(mut attempts) = attempts.lock() {
                attempts[index].push(attempt);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..(request.concurrency.max(1) as usize).min(jobs) {
            scope.spawn(work);
        }
    });
    FetchReport::of(request, attempts.into_inner().unwrap_or_default())
}

/// Has the `probe serve` at `server` do what the request says, from where it runs.
///
/// # Errors
/// [`ViaError`] when it gives no report within the request's longest time and `limit` beside it.
pub fn fetch_via(
    server: &str,
    request: &FetchRequest,
    limit: Duration,
) -> Result<FetchReport, ViaError> {
    via(server, request, request.longest() + limit)
}

/// Has the `probe serve` at `server` ask for a name, from where it runs and with its resolv.conf.
///
/// # Errors
/// [`ViaError`] when it gives no report within the request's longest time and `limit` beside it.
pub fn resolve_via(
    server: &str,
    request: &ResolveRequest,
    limit: Duration,
) -> Result<ResolveReport, ViaError> {
    via(server, request, request.longest() + limit)
}

fn via<Report: DeserializeOwned>(
    server: &str,
    request: &impl Serialize,
    limit: Duration,
) -> Result<Report, ViaError> {
    let malformed = |error: serde_json::Error| ViaError {
        outcome: Outcome::Malformed,
        error: error.to_string(),
    };
    let body = serde_json::to_vec(request).map_err(malformed)?;
    let message = exchange(server, Some(&body), limit.into()).map_err(|failure| ViaError {
        outcome: failure.outcome,
        error: failure.error,
    })?;
    serde_json::from_slice(&message.body).map_err(malformed)
}

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From its name's resolution until its connection is there, and what is left of that for its answer.
    pub(crate) connected: Duration,
    /// For its answer by HTTP instead of what is left, from the moment on in which its connection is there.
    pub(crate) answered: Option<Duration>,
}

impl From<Duration> for Limits {
    fn from(connected: Duration) -> Self {
        Self {
            connected,
            answered: None,
        }
    }
}

/// One request, and how it ended.
pub(crate) fn attempt(target: &str, kind: Kind, limits: impl Into<Limits>) -> Attempt {
    let limits = limits.into();
    let limit = limits.connected;
    let started = Instant::now();
    let (result, octets) = match kind {
        Kind::Http => (ask(target, limits), None),
        Kind::Transfer { up, down } => {
            let mut octets = Octets::default();
            let result = transfer::carry(target, (up, down), limit, &mut octets);
            (result, Some(octets))
        }
        Kind::Udp => (udp::ask(target, limit), None),
        Kind::Ping => (echo(target, limit), None),
    };
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let ended = |outcome, said: Said, error| Attempt {
        outcome,
        millis,
        host: said.host,
        client: said.client,
        octets,
        error,
    };
    match result {
        Ok(said) => ended(Outcome::Answered, said, None),
        Err(failure) => ended(failure.outcome, Said::default(), Some(failure.error)),
    }
}

/// Any server may answer; only our own says who it is.
fn ask(target: &str, limits: Limits) -> Result<Said, Failure> {
    let message = exchange(target, None, limits)?;
    let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap_or_default();
    let text = |name: &str| Some(body.get(name)?.as_str()?.to_owned());
    Ok(Said {
        host: text("host"),
        client: text("client"),
    })
}

/// Echoes name nobody: who answers is who has the address.
fn echo(target: &str, limit: Duration) -> Result<Said, Failure> {
    let end = Instant::now() + limit;
    let SocketAddr::V4(to) = Target::parse(target)?.resolve(end)? else {
        return Err(Failure {
            outcome: Outcome::Other,
            error: format!("{target:?} is no IPv4 address"),
        });
    };
    let wait = left(end).map_err(|error| failed("ping", &error))?;
    match ping::ping(*to.ip(), 1, wait) {
        Ok(1) => Ok(Said::default()),
        Ok(_) => Err(failed("ping", &io::ErrorKind::TimedOut.into())),
        Err(error) => Err(failed("ping", &error)),
    }
}

fn exchange(target: &str, body: Option<&[u8]>, limits: Limits) -> Result<Message, Failure> {
    let end = Instant::now() + limits.connected;
    let target = Target::parse(target)?;
    let stream = connect(&target, end)?;
    let end = limits.answered.map_or(end, |it| Instant::now() + it);
    let mut stream = Until { stream, end };
    let head = match body {
        None => format!("GET {} HTTP/1.1\r\n", target.path),
        Some(body) => format!(
            "POST {} HTTP/1.1\r\nContent-Length: {}\r\n",
            target.path,
            body.len()
        ),
    };
    let head = format!(
        "{head}Host: {}\r\nConnection: close\r\n\r\n",
        target.host_field()
    );
    let mut request = head.into_bytes();
    request.extend(body.unwrap_or_default());
    let wait = stream.left().map_err(|error| failed("send", &error))?;
    let sent = stream.stream.set_write_timeout(Some(wait));
    sent.and_then(|()| stream.stream.write_all(&request))
        .map_err(|error| failed("send", &error))?;
    let message = http::read(&mut stream, true).map_err(|error| match error {
        MessageError::Io(error) => failed("receive", &error),
        MessageError::Malformed(why) => Failure {
            outcome: Outcome::Malformed,
            error: why.to_owned(),
        },
    })?;
    match http::status(&message.start) {
        Some(200) => Ok(message),
        _ => Err(refused(&message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    /// A server that does one thing with every connection; gives its address.
    fn server(each: impl Fn(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || listener.incoming().flatten().for_each(each));
        address
    }

    /// An address where nobody listens, as long as the connection is there: nobody else on this host
    /// is given a port that a connection has.
    fn nobody() -> (String, [TcpStream; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = TcpStream::connect(address).unwrap();
        (address.to_string(), [listener.accept().unwrap().0, other])
    }

    fn says(answer: &'static str) -> String {
        server(move |mut stream| {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(answer.as_bytes());
        })
    }

    /// For what comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);

    fn outcome(target: &str, limit: Duration) -> (Outcome, String) {
        let report = fetch(&FetchRequest::new([target]).limit(limit));
        let result = &report.targets[0].results[0];
        (result.outcome, result.error.clone().unwrap_or_default())
    }

    #[test]
    fn every_way_to_fail_has_its_name() {
        let of = |target: &str| outcome(target, LONG);
        let (refused, _port) = nobody();
        assert_eq!(of(&refused).0, Outcome::Refused);
        let held = Mutex::new(Vec::new());
        let silent = server(move |stream| held.lock().unwrap().push(stream));
        let short = Duration::from_millis(300);
        assert_eq!(outcome(&silent, short).0, Outcome::TimedOut);
        // Closing with unread bytes makes the kernel send a reset (RFC 2525, 2.17).
        let reset = server(|mut stream| {
            let mut one = [0];
            let _ = stream.read(&mut one);
        });
        assert_eq!(of(&reset).0, Outcome::Reset);
        assert_eq!(of(&says("")).0, Outcome::Malformed);
        assert_eq!(of(&says("SSH-2.0-x\r\n\r\n")).0, Outcome::Malformed);
        let (kind, error) = of(&says("HTTP/1.1 503 Busy\r\n\r\nlater"));
        assert_eq!((kind, error.as_str()), (Outcome::HttpStatus, "503: later"));
        assert_eq!(of("http://:80/").0, Outcome::Other);
        // TCP has no broadcast: Linux says "network unreachable" without sending anything.
        assert_eq!(of("255.255.255.255:9").0, Outcome::NoRoute);
    }

    #[test]
    fn an_answer_has_time_of_its_own_once_its_connection_is_there() {
        let slow = server(|mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            thread::sleep(Duration::from_secs(3));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        });
        let short = Duration::from_secs(2);
        assert_eq!(outcome(&slow, short).0, Outcome::TimedOut);
        let request = FetchRequest::new([&slow]).limit(short).answer_within(LONG);
        let report = fetch(&request);
        assert!(report.targets[0].all(Outcome::Answered), "{report}");
        let request = FetchRequest::new([&slow]).limit(LONG).answer_within(short);
        assert_eq!(fetch(&request).targets[0].count(Outcome::TimedOut), 1);
    }

    #[test]
    fn a_target_that_stays_silent_is_given_up_and_no_other() {
        let held = Mutex::new(Vec::new());
        let silent = server(move |stream| held.lock().unwrap().push(stream));
        let (refused, _port) = nobody();
        let request = FetchRequest::new([silent, refused])
            .count(50)
            .limit(Duration::from_secs(1))
            .give_up_after(3);
        let report = fetch(&request);
        let [silent, refused] = report.targets.as_slice() else {
            panic!("{report}");
        };
        // Those under way when the third ran into its limit end as well.
        let sent = silent.count(Outcome::TimedOut);
        assert!((3..3 + request.concurrency).contains(&sent), "{silent}");
        assert_eq!(silent.unsent, 50 - sent);
        assert_eq!((refused.count(Outcome::Refused), refused.unsent), (50, 0));
        assert!(
            silent.to_string().ends_with("not sent any more"),
            "{silent}"
        );
    }

    #[test]
    fn an_answer_that_is_not_ours_counts_without_a_host() {
        let target = says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let report = fetch(&FetchRequest::new([target]).limit(LONG));
        assert!(report.targets[0].all(Outcome::Answered));
        assert_eq!(report.targets[0].results[0].host, None);
    }
}
