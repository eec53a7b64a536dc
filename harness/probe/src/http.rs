//! As much of HTTP/1.1 (RFC 9112) as two of these programs need between them.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A head longer than this is not one of ours.
const MAX_HEAD: usize = 16 * 1024;
/// Reports of thousands of attempts fit in this.
pub(crate) const MAX_BODY: usize = 8 * 1024 * 1024;

/// A message as read: its first line and its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) body: Vec<u8>,
}

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum MessageError {
    Io(io::Error),
    Malformed(&'static str),
}

/// A connection on which nothing waits beyond one point in time.
pub(crate) struct Until {
    pub(crate) stream: TcpStream,
    pub(crate) end: Instant,
}

impl Until {
    pub(crate) fn left(&self) -> io::Result<Duration> {
        left(self.end)
    }
}

pub(crate) fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    // Zero means "for ever" to the socket, and is refused.
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

/// The head of a message, and what was read beyond it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) start: String,
    /// Octets of the body, where the head says so.
    pub(crate) length: Option<usize>,
    /// The beginning of the body.
    pub(crate) rest: Vec<u8>,
}

impl Head {
    /// The status of an answer, when it is one.
    pub(crate) fn status(&self) -> Option<u16> {
        status(&self.start)
    }
}

/// The status in an answer's first line (RFC 9112, 4).
pub(crate) fn status(start: &str) -> Option<u16> {
    let rest = start.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// Reads one message's head.
pub(crate) fn head(stream: &mut impl Read) -> Result<Head, MessageError> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let head_end = loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > MAX_HEAD {
            return Err(MessageError::Malformed("an HTTP head without an end"));
        }
        match stream.read(&mut chunk).map_err(MessageError::Io)? {
            0 if bytes.is_empty() => {
                return Err(MessageError::Malformed("closed without a word"));
            }
            0 => return Err(MessageError::Malformed("closed within the HTTP head")),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    };
    let rest = bytes.split_off(head_end + 4);
    let head = String::from_utf8(bytes).map_err(|_| MessageError::Malformed("not HTTP"))?;
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim().parse::<usize>())
        .transpose()
        .map_err(|_| MessageError::Malformed("a Content-Length that is no number"))?;
    Ok(Head {
        start,
        length,
        rest,
    })
}

/// Reads the body behind a head. Without a length, a request has none (RFC 9112, 6.3) and an answer's
/// lasts until the connection ends.
pub(crate) fn body(
    head: Head,
    stream: &mut impl Read,
    answer: bool,
) -> Result<Message, MessageError> {
    let Head {
        start,
        length,
        rest: mut body,
    } = head;
    let mut chunk = [0; 4096];
    let wanted = length.unwrap_or(if answer { usize::MAX } else { 0 });
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(MessageError::Malformed("a body beyond all measure"));
    }
    while body.len() < wanted {
        match stream.read(&mut chunk).map_err(MessageError::Io)? {
            0 if length.is_none() => break,
            0 => return Err(MessageError::Malformed("closed within the body")),
            n => body.extend_from_slice(&chunk[..n]),
        }
        if body.len() > MAX_BODY {
            return Err(MessageError::Malformed("a body beyond all measure"));
        }
    }
    body.truncate(wanted);
    Ok(Message { start, body })
}

/// Reads one message, head and body.
pub(crate) fn read(stream: &mut impl Read, answer: bool) -> Result<Message, MessageError> {
    let head = head(stream)?;
    body(head, stream, answer)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, answer: bool) -> Result<(String, String), MessageError> {
        let message = read(&mut text.as_bytes(), answer)?;
        Ok((message.start, String::from_utf8(message.body).unwrap()))
    }

    #[test]
    fn bodies_end_where_the_standard_says() {
        let pair = |start: &str, body: &str| (start.to_owned(), body.to_owned());
        assert_eq!(
            parsed("HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nhello", true).unwrap(),
            pair("HTTP/1.1 200 OK", "he")
        );
        assert_eq!(
            parsed("HTTP/1.1 200 OK\r\n\r\nhello", true).unwrap(),
            pair("HTTP/1.1 200 OK", "hello")
        );
        assert_eq!(
            parsed("GET / HTTP/1.1\r\n\r\nhello", false).unwrap(),
            pair("GET / HTTP/1.1", "")
        );
    }

    #[test]
    fn incomplete_messages_are_malformed() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            let error = parsed(text, true).unwrap_err();
            assert!(matches!(error, MessageError::Malformed(_)), "{text:?}");
        }
    }
}
