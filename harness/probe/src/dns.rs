//! Names asked for without libc: a static glibc has no name service.

mod config;
mod message;
mod record;

use std::fmt;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) use config::{Config, PORT};
pub(crate) use message::Answer;
pub(crate) use record::addresses;
pub use record::{Record, RecordData, RecordKind};

use crate::http::{Until, left};
use crate::socket;

/// The response code for a name that does not exist (RFC 1035, 4.1.1).
pub(crate) const NAME_ERROR: u8 = 3;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum AskError {
    /// This is no name that can be asked for.
    Name(String),
    /// The question could not be asked, or nobody answered in time.
    Io(io::Error),
    /// What came is no answer.
    Malformed,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?} is no host name"),
            Self::Io(error) => error.fmt(f),
            Self::Malformed => f.write_str("a broken DNS answer"),
        }
    }
}

/// Why a name has no address.
#[derive(Debug)]
pub(crate) enum AddressError {
    /// The server says that there is no such name, or no address for it.
    NotFound,
    /// The server answers with another error code.
    Code(u8),
    /// There is no answer.
    Ask(AskError),
}

/// The first address of a name: looks in /etc/hosts, then asks the first nameserver of
/// /etc/resolv.conf. The name is taken as absolute: search domains are not tried.
pub(crate) fn address(name: &str, end: Instant) -> Result<Ipv4Addr, AddressError> {
    // A missing file is an empty one, as for any resolver (resolver(5)).
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    if let Some(address) = config::in_hosts(&hosts, name) {
        return Ok(address);
    }
    let server = Config::read().server().map_err(AskError::Io);
    let answer = server.and_then(|server| ask(server, name, RecordKind::A, end));
    first(&answer.map_err(AddressError::Ask)?)
}

fn first(answer: &Answer) -> Result<Ipv4Addr, AddressError> {
    match answer.code {
        0 => {}
        NAME_ERROR => return Err(AddressError::NotFound),
        code => return Err(AddressError::Code(code)),
    }
    let mut addresses = addresses(&answer.records);
    let first = addresses.find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    first.ok_or(AddressError::NotFound)
}

/// Asks for an absolute name, and a second time over TCP when the answer is too long for a datagram
/// (RFC 7766, 5).
pub(crate) fn ask(
    server: SocketAddr,
    name: &str,
    kind: RecordKind,
    end: Instant,
) -> Result<Answer, AskError> {
    let id = RandomState::new().hash_one(()) as u16;
    let query = message::query(id, name, kind).ok_or_else(|| AskError::Name(name.to_owned()))?;
    let message = over_udp(server, &query, end).map_err(AskError::Io)?;
    let answer = message::parse(&message).ok_or(AskError::Malformed)?;
    if !answer.truncated {
        return Ok(answer);
    }
    let message = over_tcp(server, &query, end).map_err(AskError::Io)?;
    let answer = message::parse(&message).ok_or(AskError::Malformed)?;
    // There is no way on from here.
    if answer.truncated || !message::is_for(&query, &message) {
        return Err(AskError::Malformed);
    }
    Ok(answer)
}

fn over_udp(server: SocketAddr, query: &[u8], end: Instant) -> io::Result<Vec<u8>> {
    let socket = socket::to(server, 0)?;
    socket.connect(server)?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    // A datagram may get lost: ask again once a second until the time is up.
    loop {
        socket.send(query)?;
        let again = Instant::now() + Duration::from_secs(1);
        while let Ok(wait) = left(again.min(end)) {
            socket.set_read_timeout(Some(wait))?;
            match socket.recv(&mut buffer) {
                Ok(n) if message::is_for(query, &buffer[..n]) => {
                    buffer.truncate(n);
                    return Ok(buffer);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        left(end)?;
    }
}

/// Over TCP every message comes after its length (RFC 1035, 4.2.2).
fn over_tcp(server: SocketAddr, query: &[u8], end: Instant) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect_timeout(&server, left(end)?)?;
    stream.set_write_timeout(Some(left(end)?))?;
    let mut stream = Until { stream, end };
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let message = [&length.to_be_bytes(), query].concat();
    stream.stream.write_all(&message)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

#[cfg(test)]
pub(crate) mod fake;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fake::Way;

    /// For an answer that comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);

    fn asked(
        reply: impl Fn(Way, &[u8]) -> Vec<Vec<u8>> + Clone + Send + 'static,
    ) -> Result<Answer, AskError> {
        let end = Instant::now() + LONG;
        ask(fake::server(reply), "node2.test", RecordKind::A, end)
    }

    fn addressed(code: u8, records: &'static [&[u8]]) -> Result<Ipv4Addr, AddressError> {
        first(&asked(move |_, query| vec![fake::answer(query, code, records)]).unwrap())
    }

    #[test]
    fn an_address_behind_an_alias_is_found() {
        let address = addressed(
            0,
            &[
                b"\xc0\x0c\0\x05\0\x01\0\0\0\x01\0\x04\x01x\xc0\x12",
                b"\xc0\x28\0\x01\0\x01\0\0\0\x01\0\x04\x0a\x09\x08\x07",
            ],
        );
        assert_eq!(address.unwrap(), Ipv4Addr::new(10, 9, 8, 7));
    }

    #[test]
    fn reasons_for_no_address_are_told_apart() {
        for (code, expected) in [(3, "NotFound"), (0, "NotFound"), (2, "Code(2)")] {
            let error = addressed(code, &[]).unwrap_err();
            assert_eq!(format!("{error:?}"), expected);
        }
    }

    #[test]
    fn silence_and_broken_answers_are_told_apart() {
        let silent = fake::server(|_, _| Vec::new());
        let end = Instant::now() + Duration::from_millis(300);
        let Err(AskError::Io(error)) = ask(silent, "node2.test", RecordKind::A, end) else {
            panic!("nobody answered")
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let cut = asked(|_, query| vec![query[..5].to_vec()]);
        assert!(matches!(cut, Err(AskError::Malformed)));
        let echoed = asked(|_, query| vec![query.to_vec()]);
        assert!(matches!(echoed, Err(AskError::Malformed)));
    }

    #[test]
    fn what_answers_another_question_is_not_taken() {
        let answer = asked(|_, query| {
            let mut other_number = fake::answer(query, 3, &[]);
            other_number[0] ^= 0xff;
            let mut other_name = fake::answer(query, 3, &[]);
            other_name[13] = b'm';
            let right = fake::answer(query, 0, &[&fake::address(2)]);
            vec![other_number, other_name, right]
        });
        assert_eq!(answer.unwrap().code, 0);
    }

    #[test]
    fn a_lost_datagram_is_sent_again() {
        let queries = Arc::new(AtomicUsize::new(0));
        let answer = asked(move |_, query| {
            let is_first = queries.fetch_add(1, Ordering::Relaxed) == 0;
            let answer = fake::answer(query, 0, &[]);
            if is_first { Vec::new() } else { vec![answer] }
        });
        assert_eq!(answer.unwrap().code, 0);
    }

    #[test]
    fn a_truncated_answer_is_asked_for_again_over_tcp() {
        let count = 2000;
        let answer = asked(move |way, query| {
            let record = fake::address(2);
            let whole = fake::answer(query, 0, &vec![record.as_slice(); count]);
            match way {
                // In the middle of a record, as some servers cut.
                Way::Udp => vec![fake::truncated(whole[..500].to_vec())],
                Way::Tcp => vec![whole],
            }
        });
        assert_eq!(answer.unwrap().records.len(), count);
        let truncated_again = asked(|_, query| vec![fake::truncated(fake::answer(query, 0, &[]))]);
        assert!(matches!(truncated_again, Err(AskError::Malformed)));
        let closed = asked(|way, query| match way {
            Way::Udp => vec![fake::truncated(fake::answer(query, 0, &[]))],
            Way::Tcp => Vec::new(),
        });
        let Err(AskError::Io(error)) = closed else {
            panic!("{closed:?}")
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
