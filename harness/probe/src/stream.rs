//! Connections that stay open: one server counts into another, which says every number back.
//!
//! They show whether an open connection lives through whatever happens to the machines: a number
//! that is missing, doubled or out of order ends the stream with a reason.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Connections that one server has opened at most, also those that have ended.
const MAX_STREAMS: usize = 64;
/// For the connection to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Asks for [`echo`], and is answered with [`GO`] and a line: the name of who says the numbers back.
const ASK: &[u8] = b"POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
const GO: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
/// A host name has no more characters (RFC 1123, 2.1), and the line ends.
const NAME_LINE: u64 = 256;
/// Bytes of one number, big-endian.
const NUMBER: usize = 8;

/// Where to open one: the body of `POST /streams`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRequest {
    /// The server that is to say the numbers back.
    pub to: SocketAddr,
    /// From a number that came back to the next one, in milliseconds; 50 when absent.
    #[serde(default = "pace")]
    pub interval_ms: u64,
}

fn pace() -> u64 {
    50
}

/// An open connection to another server, see `POST /streams`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Where it leads, and at what pace.
    pub request: StreamRequest,
    /// Who says the numbers back, by its own name.
    pub host: String,
    /// How many numbers have come back, each in its turn.
    pub echoed: u64,
    /// How long the one took that was away for longest, in milliseconds; also one that is away now.
    pub longest_ms: u64,
    /// Why it has ended; nothing while it goes on.
    pub failure: Option<String>,
}

#[derive(Debug)]
struct Stream {
    report: StreamReport,
    /// Since when a number is away.
    away: Option<Instant>,
}

impl Stream {
    fn report(&self) -> StreamReport {
        let away = self.away.map_or(0, |since| {
            u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
        });
        StreamReport {
            longest_ms: self.report.longest_ms.max(away),
            ..self.report.clone()
        }
    }

    /// The number that is away has come back, or never will.
    fn back(&mut self) {
        self.report = self.report();
        self.away = None;
    }
}

/// The streams that a server has opened. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<Vec<Stream>>>);

impl Streams {
    /// Opens one, which goes on until it breaks.
    ///
    /// # Errors
    /// When the other server cannot be reached, or does not take part.
    pub(crate) fn open(&self, request: StreamRequest) -> io::Result<()> {
        if self.with(|all| all.len()) >= MAX_STREAMS {
            return Err(io::Error::other(format!(
                "{MAX_STREAMS} were opened already"
            )));
        }
        let mut open = Open::connect(request.to, CONNECT)?;
        let index = self.with(|all| {
            all.push(Stream {
                report: StreamReport {
                    request,
                    host: open.host.clone(),
                    echoed: 0,
                    longest_ms: 0,
                    failure: None,
                },
                away: None,
            });
            all.len() - 1
        });
        let streams = self.clone();
        let work = move || {
            let pace = Duration::from_millis(request.interval_ms);
            let failure = streams.count_into(&mut open, index, pace);
            streams.with(|all| {
                all[index].back();
                all[index].report.failure = Some(failure.to_string());
            });
        };
        thread::Builder::new().stack_size(256 * 1024).spawn(work)?;
        Ok(())
    }

    fn count_into(&self, open: &mut Open, index: usize, pace: Duration) -> io::Error {
        let mut number = 0_u64;
        loop {
            self.with(|all| all[index].away = Some(Instant::now()));
            if let Err(error) = open.there_and_back(number) {
                return error;
            }
            number += 1;
            self.with(|all| {
                all[index].back();
                all[index].report.echoed = number;
            });
            thread::sleep(pace);
        }
    }

    pub(crate) fn reports(&self) -> Vec<StreamReport> {
        self.with(|all| all.iter().map(Stream::report).collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Stream>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection to a server that says back what comes.
pub(crate) struct Open {
    stream: TcpStream,
    from: BufReader<TcpStream>,
    /// Who says it back, by its own name.
    pub(crate) host: String,
}

impl Open {
    /// Opens one; reading waits for as long as it takes from then on.
    ///
    /// # Errors
    /// When it does not come about within the limit, or the server does not take part.
    pub(crate) fn connect(to: SocketAddr, limit: Duration) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(ASK)?;
        let mut from = BufReader::new(stream.try_clone()?);
        let mut answer = [0; GO.len()];
        from.read_exact(&mut answer)?;
        if answer != GO {
            return Err(io::Error::other("the other side does not echo"));
        }
        let mut host = String::new();
        from.by_ref().take(NAME_LINE).read_line(&mut host)?;
        if host.pop() != Some('\n') {
            return Err(io::Error::other("the other side does not say its name"));
        }
        stream.set_read_timeout(None)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, from, host })
    }

    /// A number that is not back after so long breaks it.
    pub(crate) fn within(self, limit: Duration) -> io::Result<Self> {
        self.stream.set_read_timeout(Some(limit))?;
        Ok(self)
    }

    /// Sends a number, and waits until it is back.
    ///
    /// # Errors
    /// When the connection breaks, or another number comes back.
    pub(crate) fn there_and_back(&mut self, number: u64) -> io::Result<()> {
        self.stream.write_all(&number.to_be_bytes())?;
        let mut back = [0; NUMBER];
        self.from.read_exact(&mut back)?;
        match u64::from_be_bytes(back) {
            same if same == number => Ok(()),
            back => Err(io::Error::other(format!(
                "{back} came back instead of {number}"
            ))),
        }
    }
}

/// The other side, which has this name: every byte goes back.
pub(crate) fn echo(mut stream: TcpStream, host: &str) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_nodelay(true)?;
    stream.write_all(&go(host))?;
    let mut from = stream.try_clone()?;
    io::copy(&mut from, &mut stream)?;
    Ok(())
}

fn go(host: &str) -> Vec<u8> {
    [GO, host.as_bytes(), b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn quick(to: SocketAddr) -> StreamRequest {
        StreamRequest { to, interval_ms: 5 }
    }

    fn until(streams: &Streams, done: impl Fn(&StreamReport) -> bool) -> StreamReport {
        let started = Instant::now();
        loop {
            let report = streams.reports().remove(0);
            if done(&report) {
                return report;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{report:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A server that takes part, and then does with the stream what the test wants.
    fn other(then: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut [0; ASK.len()]).unwrap();
            then(stream);
        });
        address
    }

    #[test]
    fn every_number_that_comes_back_counts() {
        let streams = Streams::default();
        streams
            .open(quick(other(|stream| drop(echo(stream, "blue-a")))))
            .unwrap();
        let report = until(&streams, |report| report.echoed > 3);
        assert_eq!((report.host.as_str(), report.failure), ("blue-a", None));
    }

    #[test]
    fn a_wrong_number_and_a_closed_connection_end_the_stream() {
        let streams = Streams::default();
        let wrong = other(|mut stream| {
            stream.write_all(&go("b")).unwrap();
            stream.write_all(&7_u64.to_be_bytes()).unwrap();
            // Not closed before that was seen.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        streams.open(quick(wrong)).unwrap();
        let failed = |report: &StreamReport| report.failure.is_some();
        let failure = until(&streams, failed).failure.unwrap();
        assert_eq!(failure, "7 came back instead of 0");

        let streams = Streams::default();
        streams
            .open(quick(other(|mut s| s.write_all(&go("b")).unwrap())))
            .unwrap();
        until(&streams, failed);
    }

    #[test]
    fn a_number_that_stays_away_is_told_with_how_long_while_it_does() {
        let streams = Streams::default();
        let (go_on, told) = std::sync::mpsc::channel();
        let slow = other(move |mut stream| {
            stream.write_all(&go("b")).unwrap();
            told.recv().unwrap();
            stream.write_all(&0_u64.to_be_bytes()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        streams.open(quick(slow)).unwrap();
        let away = until(&streams, |report| report.longest_ms > 20);
        assert_eq!((away.echoed, away.failure), (0, None));
        go_on.send(()).unwrap();
        let back = until(&streams, |report| report.echoed == 1);
        assert!(back.longest_ms >= away.longest_ms, "{back:?}");
    }

    #[test]
    fn streams_are_opened_within_bounds() {
        let streams = Streams::default();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept() {
                stream.read_exact(&mut [0; ASK.len()]).unwrap();
                stream.write_all(&go("b")).unwrap();
                open.push(stream);
            }
        });
        for _ in 0..MAX_STREAMS {
            streams.open(quick(to)).unwrap();
        }
        let refused = streams.open(quick(to)).unwrap_err();
        assert_eq!(refused.to_string(), "64 were opened already");
        assert_eq!(streams.reports().len(), MAX_STREAMS);
    }

    #[test]
    fn who_does_not_take_part_is_an_error_at_once() {
        let streams = Streams::default();
        let refuses = other(|mut stream| stream.write_all(b"HTTP/1.1 404 Not").unwrap());
        assert!(streams.open(quick(refuses)).is_err());
        // Whose name has no end, and who has none.
        let endless = other(|mut stream| stream.write_all(&go(&"b".repeat(256))).unwrap());
        assert!(streams.open(quick(endless)).is_err());
        let nameless = other(|mut stream| stream.write_all(GO).unwrap());
        assert!(streams.open(quick(nameless)).is_err());
        assert_eq!(streams.reports(), []);
    }
}
