//! Where a request goes, and how it fails.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use crate::dns::{self, AddressError, AskError};
use crate::http::{self, Message, left};
use crate::report::Outcome;

/// The beginning of an answer that goes into an error's text.
const SHOWN: usize = 200;

/// Why a request was not answered.
pub(crate) struct Failure {
    pub(crate) outcome: Outcome,
    pub(crate) error: String,
}

/// Who answered, and as whom he saw the client; nothing where he does not say.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) host: Option<String>,
    pub(crate) client: Option<String>,
}

/// `HOST`, `HOST:PORT` or `http://HOST[:PORT][/PATH]`, in its parts. An IPv6 address stands in brackets
/// (RFC 3986, 3.2.2), which are none of its parts.
pub(crate) struct Target<'a> {
    pub(crate) host: &'a str,
    port: u16,
    pub(crate) path: &'a str,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Failure> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = match authority
            .strip_prefix('[')
            .and_then(|it| it.split_once(']'))
        {
            Some((host, "")) => (host, Some(80)),
            Some((host, port)) => (host, port.strip_prefix(':').and_then(|it| it.parse().ok())),
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, port.parse().ok()),
                None => (authority, Some(80)),
            },
        };
        match port {
            Some(port) if !host.is_empty() => Ok(Self { host, port, path }),
            _ => Err(Failure {
                outcome: Outcome::Other,
                error: format!("{text:?} is no target: HOST, HOST:PORT or http://HOST[:PORT]/PATH"),
            }),
        }
    }

    /// As HTTP names it (RFC 9110, 7.2).
    pub(crate) fn host_field(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.to_owned(),
        }
    }

    /// Its address, once its name has one.
    pub(crate) fn resolve(&self, end: Instant) -> Result<SocketAddr, Failure> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok((address, self.port).into());
        }
        let address = dns::address(self.host, end).map_err(|error| match error {
            AddressError::NotFound => Failure {
                outcome: Outcome::NameNotFound,
                error: format!("no such name: {}", self.host),
            },
            AddressError::Code(code) => Failure {
                outcome: Outcome::Other,
                error: format!("DNS error code {code}"),
            },
            AddressError::Ask(AskError::Io(error)) => failed("resolve", &error),
            AddressError::Ask(error) => Failure {
                outcome: Outcome::Other,
                error: error.to_string(),
            },
        })?;
        Ok((address, self.port).into())
    }
}

pub(crate) fn failed(what: &str, error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    let outcome = match error.kind() {
        Kind::ConnectionRefused => Outcome::Refused,
        // A socket's own time limit shows as WouldBlock.
        Kind::TimedOut | Kind::WouldBlock => Outcome::TimedOut,
        Kind::HostUnreachable | Kind::NetworkUnreachable => Outcome::NoRoute,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Outcome::Reset,
        _ => Outcome::Other,
    };
    let error = match outcome {
        Outcome::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    };
    Failure {
        outcome,
        error: format!("{what}: {error}"),
    }
}

/// A connection to the target, once its name has an address.
pub(crate) fn connect(target: &Target<'_>, end: Instant) -> Result<TcpStream, Failure> {
    let address = target.resolve(end)?;
    let wait = left(end).map_err(|error| failed("connect", &error))?;
    TcpStream::connect_timeout(&address, wait).map_err(|error| failed("connect", &error))
}

/// An answer with another status than 200, or none.
pub(crate) fn refused(message: &Message) -> Failure {
    match http::status(&message.start) {
        Some(status) => Failure {
            outcome: Outcome::HttpStatus,
            error: format!("{status}: {}", shown(&message.body)),
        },
        None => Failure {
            outcome: Outcome::Malformed,
            error: format!("not HTTP: {}", shown(message.start.as_bytes())),
        },
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_split_into_its_parts() {
        let parts = |text: &'static str| {
            let target = Target::parse(text).ok().unwrap();
            (target.host, target.port, target.path)
        };
        assert_eq!(parts("node1"), ("node1", 80, "/"));
        assert_eq!(parts("10.1.1.2:8080"), ("10.1.1.2", 8080, "/"));
        assert_eq!(parts("http://a.test:1/b/c"), ("a.test", 1, "/b/c"));
        assert_eq!(parts("[fd00::2]"), ("fd00::2", 80, "/"));
        assert_eq!(parts("http://[fd00::2]:8080/b"), ("fd00::2", 8080, "/b"));
        for wrong in ["a:99999", "[fd00::2]8080", "[]", "[fd00::2]:"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
