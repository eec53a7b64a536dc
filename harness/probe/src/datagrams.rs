//! Datagrams that nobody answers: numbers, from one port that stays the same, and who got them.
//!
//! A client that waits for no answer notices nothing when its datagrams go to somebody who should not
//! have them any more; only the receivers can tell.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::socket;

/// What stands before the number.
const MARK: &[u8] = b"podwire datagram ";
/// Senders that are counted apart, at most.
const MAX_SENDERS: usize = 256;
/// Datagrams of one sender at most: over two hours at ten a second.
const MAX_SENT: u64 = 100_000;
/// Of a thread that sends.
const STACK: usize = 128 * 1024;

/// What to send, and how often: the body of `POST /datagrams`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatagramsRequest {
    /// To whom, address and port.
    pub to: SocketAddr,
    /// The port that all of them come from.
    pub source_port: u16,
    /// From one to the next, in milliseconds.
    pub interval_ms: u64,
}

/// What was sent from here and what came: the answer of every method of `/datagrams`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramsReport {
    /// What was sent last from here; nothing when nobody ever asked for it.
    pub sent: Option<DatagramsSent>,
    /// What came, by sender, in the order of their addresses.
    pub received: Vec<DatagramsReceived>,
    /// Datagrams of senders that are one too many to be listed.
    pub unlisted: u64,
}

/// Datagrams sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramsSent {
    /// As asked.
    pub request: DatagramsRequest,
    /// How many the kernel took; their numbers are 1 to this.
    pub sent: u64,
    /// Whether more are to come.
    pub goes_on: bool,
    /// Why the kernel did not take one, the last time that it did not.
    pub error: Option<String>,
}

/// Datagrams of one sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramsReceived {
    /// Its address and port, as the receiver saw them.
    pub from: SocketAddr,
    /// How many came.
    pub count: u64,
    /// The number of the last one.
    pub last: u64,
    /// How long ago that came, in milliseconds.
    pub last_ms_ago: u64,
}

/// The number in a datagram that wants to be counted.
pub(crate) fn number(datagram: &[u8]) -> Option<u64> {
    let digits = datagram.strip_prefix(MARK)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Why nothing is sent.
#[derive(Debug)]
pub(crate) enum DatagramsError {
    /// What was asked for cannot be done.
    Request(&'static str),
    /// One sender is at work already.
    Running,
    /// No socket, or no thread.
    Io(io::Error),
}

/// What a server has received, and the one sender that it may have. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Datagrams(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    sender: Mutex<Option<Sender>>,
}

#[derive(Debug, Default)]
struct Seen {
    by: BTreeMap<SocketAddr, (u64, u64, Instant)>,
    unlisted: u64,
}

#[derive(Debug)]
struct Sender {
    state: Arc<State>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    sent: Mutex<DatagramsSent>,
    stopped: Condvar,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Datagrams {
    /// One has come.
    pub(crate) fn count(&self, from: SocketAddr, number: u64) {
        let mut seen = locked(&self.0.seen);
        if seen.by.len() >= MAX_SENDERS && !seen.by.contains_key(&from) {
            seen.unlisted += 1;
            return;
        }
        let of = seen.by.entry(from).or_insert((0, 0, Instant::now()));
        *of = (of.0 + 1, number, Instant::now());
    }

    /// Starts sending, in place of a sender that has ended.
    pub(crate) fn start(&self, request: DatagramsRequest) -> Result<(), DatagramsError> {
        if request.interval_ms == 0 || request.source_port == 0 {
            return Err(DatagramsError::Request(
                "an interval of 0 ms is no pace, and 0 no port",
            ));
        }
        let mut sender = locked(&self.0.sender);
        if sender.as_ref().is_some_and(|it| !it.thread.is_finished()) {
            return Err(DatagramsError::Running);
        }
        let socket = socket::to(request.to, request.source_port);
        let socket = socket.map_err(DatagramsError::Io)?;
        let state = Arc::new(State {
            sent: Mutex::new(DatagramsSent {
                request,
                sent: 0,
                goes_on: true,
                error: None,
            }),
            stopped: Condvar::new(),
        });
        let work = Arc::clone(&state);
        let thread = thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn(move || work.send(&socket, request));
        *sender = Some(Sender {
            state,
            thread: thread.map_err(DatagramsError::Io)?,
        });
        Ok(())
    }

    /// Ends sending; its port is free then.
    pub(crate) fn stop(&self) {
        let sender = locked(&self.0.sender);
        let Some(Sender { state, thread }) = &*sender else {
            return;
        };
        locked(&state.sent).goes_on = false;
        state.stopped.notify_all();
        while !thread.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn report(&self) -> DatagramsReport {
        let sender = locked(&self.0.sender);
        let sent = sender.as_ref().map(|it| locked(&it.state.sent).clone());
        let seen = locked(&self.0.seen);
        let received = seen
            .by
            .iter()
            .map(|(from, (count, last, when))| DatagramsReceived {
                from: *from,
                count: *count,
                last: *last,
                last_ms_ago: u64::try_from(when.elapsed().as_millis()).unwrap_or(u64::MAX),
            });
        DatagramsReport {
            sent,
            received: received.collect(),
            unlisted: seen.unlisted,
        }
    }
}

impl State {
    fn send(&self, socket: &UdpSocket, request: DatagramsRequest) {
        let pace = Duration::from_millis(request.interval_ms);
        let mut sent = locked(&self.sent);
        while sent.goes_on {
            let datagram = [MARK, (sent.sent + 1).to_string().as_bytes()].concat();
            match socket.send_to(&datagram, request.to) {
                Ok(_) => sent.sent += 1,
                // It is tried again: a route may come back.
                Err(error) => sent.error = Some(error.to_string()),
            }
            sent.goes_on &= sent.sent < MAX_SENT;
            let waited = self
                .stopped
                .wait_timeout_while(sent, pace, |sent| sent.goes_on);
            sent = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Server;
    use std::net::Ipv4Addr;

    /// For what comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);

    fn server() -> (SocketAddr, Datagrams) {
        let server = Server::bind(0, "one".into()).unwrap();
        let port = server.local_addr().unwrap().port();
        let seen = server.datagrams();
        thread::spawn(move || server.run());
        ((Ipv4Addr::LOCALHOST, port).into(), seen)
    }

    fn free_port() -> u16 {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.local_addr().unwrap().port()
    }

    fn until(of: &Datagrams, done: impl Fn(&DatagramsReport) -> bool) -> DatagramsReport {
        let started = Instant::now();
        loop {
            let report = of.report();
            if done(&report) {
                return report;
            }
            assert!(started.elapsed() < LONG, "{report:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_receiver_tells_how_many_came_from_whom_and_which_was_the_last() {
        let (to, receiver) = server();
        let sender = Datagrams::default();
        let request = DatagramsRequest {
            to,
            source_port: free_port(),
            interval_ms: 5,
        };
        sender.start(request).unwrap();
        assert!(matches!(
            sender.start(request),
            Err(DatagramsError::Running)
        ));
        until(&receiver, |report| {
            report.received.iter().any(|it| it.count > 5)
        });
        sender.stop();
        let sent = sender.report().sent.unwrap();
        assert!(!sent.goes_on && sent.error.is_none(), "{sent:?}");
        let all = until(&receiver, |report| report.received[0].count == sent.sent);
        let [received] = all.received.as_slice() else {
            panic!("{all:?}");
        };
        let from: SocketAddr = (Ipv4Addr::LOCALHOST, request.source_port).into();
        assert_eq!((received.from, received.last), (from, sent.sent));
        // The port is free again, and the numbers begin anew.
        sender.start(request).unwrap();
        until(&sender, |report| {
            report.sent.as_ref().is_some_and(|it| it.sent > 0)
        });
        sender.stop();
    }

    #[test]
    fn no_pace_no_port_and_a_port_that_is_taken_are_refused() {
        let (to, _) = server();
        let sender = Datagrams::default();
        let request = |source_port, interval_ms| DatagramsRequest {
            to,
            source_port,
            interval_ms,
        };
        for wrong in [request(0, 10), request(9, 0)] {
            let refused = sender.start(wrong);
            assert!(matches!(refused, Err(DatagramsError::Request(_))));
        }
        let taken = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let refused = sender.start(request(port, 10));
        assert!(matches!(refused, Err(DatagramsError::Io(_))));
        sender.stop();
        assert_eq!(sender.report().sent, None);
    }

    #[test]
    fn a_crowd_of_senders_is_counted_within_bounds() {
        let seen = Datagrams::default();
        let from = |number: usize| SocketAddr::from(([10, 1, 1, 2], number as u16 + 1));
        for number in 0..MAX_SENDERS + 10 {
            seen.count(from(number), 7);
        }
        seen.count(from(3), 8);
        let report = seen.report();
        assert_eq!((report.received.len(), report.unlisted), (MAX_SENDERS, 10));
        assert_eq!((report.received[3].count, report.received[3].last), (2, 8));
    }

    #[test]
    fn only_a_number_behind_the_mark_counts() {
        assert_eq!(number(b"podwire datagram 12"), Some(12));
        for other in [
            b"".as_slice(),
            b"podwire datagram ",
            b"podwire datagram -1",
            b"podwire datagram 99999999999999999999",
            b"podwire datagram \xff",
            b"12",
        ] {
            assert_eq!(number(other), None);
        }
    }
}
