//! Connections that stay open: one server counts into another, which says every number back.
//!
//! They show whether an open connection lives through whatever happens to the machines: a number
//! that is missing, doubled or out of order ends the stream with a reason.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::report::StreamReport;

/// Between two numbers.
const PACE: Duration = Duration::from_millis(50);
/// For the connection to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Asks for [`echo`], and is answered with [`GO`].
const ASK: &[u8] = b"POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
const GO: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
/// Bytes of one number, big-endian.
const NUMBER: usize = 8;

/// The streams that a server has opened. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<Vec<StreamReport>>>);

impl Streams {
    /// Opens one to the server at `to`, which goes on until it breaks.
    ///
    /// # Errors
    /// When the other server cannot be reached, or does not take part.
    pub(crate) fn open(&self, to: SocketAddr) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&to, CONNECT)?;
        stream.set_read_timeout(Some(CONNECT))?;
        stream.write_all(ASK)?;
        let mut answer = [0; GO.len()];
        stream.read_exact(&mut answer)?;
        if answer != GO {
            return Err(io::Error::other("the other side does not echo"));
        }
        // From here on it may wait for as long as it takes.
        stream.set_read_timeout(None)?;
        stream.set_nodelay(true)?;
        let index = self.with(|all| {
            all.push(StreamReport {
                to: to.to_string(),
                echoed: 0,
                failure: None,
            });
            all.len() - 1
        });
        let streams = self.clone();
        let work = move || {
            let failure = streams.count_into(stream, index);
            streams.with(|all| all[index].failure = Some(failure.to_string()));
        };
        thread::Builder::new().stack_size(256 * 1024).spawn(work)?;
        Ok(())
    }

    fn count_into(&self, mut stream: TcpStream, index: usize) -> io::Error {
        let mut number = 0_u64;
        loop {
            let mut back = [0; NUMBER];
            let sent = stream.write_all(&number.to_be_bytes());
            if let Err(error) = sent.and_then(|()| stream.read_exact(&mut back)) {
                return error;
            }
            let back = u64::from_be_bytes(back);
            if back != number {
                return io::Error::other(format!("{back} came back instead of {number}"));
            }
            number += 1;
            self.with(|all| all[index].echoed = number);
            thread::sleep(PACE);
        }
    }

    pub(crate) fn reports(&self) -> Vec<StreamReport> {
        self.with(|all| all.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<StreamReport>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The other side: every byte goes back.
pub(crate) fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_nodelay(true)?;
    stream.write_all(GO)?;
    let mut from = stream.try_clone()?;
    io::copy(&mut from, &mut stream)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Instant;

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
        streams.open(other(|stream| drop(echo(stream)))).unwrap();
        let report = until(&streams, |report| report.echoed > 3);
        assert_eq!(report.failure, None);
    }

    #[test]
    fn a_wrong_number_and_a_closed_connection_end_the_stream() {
        let streams = Streams::default();
        let wrong = other(|mut stream| {
            stream.write_all(GO).unwrap();
            stream.write_all(&7_u64.to_be_bytes()).unwrap();
            // Not closed before that was seen.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        streams.open(wrong).unwrap();
        let failed = |report: &StreamReport| report.failure.is_some();
        let failure = until(&streams, failed).failure.unwrap();
        assert_eq!(failure, "7 came back instead of 0");

        let streams = Streams::default();
        streams
            .open(other(|mut s| s.write_all(GO).unwrap()))
            .unwrap();
        until(&streams, failed);
    }

    #[test]
    fn who_does_not_take_part_is_an_error_at_once() {
        let streams = Streams::default();
        let refuses = other(|mut stream| stream.write_all(b"HTTP/1.1 404 Not").unwrap());
        assert!(streams.open(refuses).is_err());
        assert_eq!(streams.reports(), []);
    }
}
