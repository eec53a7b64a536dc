//! Transfers: octets by the megabyte, there and then back, with a digest of each direction.
//!
//! `POST /transfer/DOWN` with a body of some size is answered, as soon as all of it is there, with a
//! line in JSON (a [`Receipt`]), DOWN octets, and the digest of these. The line is a segment of its
//! own: where large segments vanish and small ones do not, it says who has received what was sent.
//!
//! Neither side holds more of it than one chunk.

use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use crate::http::{self, Head, left};
use crate::kind::{Kind, MAX_OCTETS, Octets};
use crate::report::{Identity, Outcome};
use crate::target::{Failure, Said, Target, connect, failed, refused};

/// What is read, made or written at once.
const CHUNK: usize = 16 * 1024;
/// The longest line that is taken for a receipt.
const MAX_LINE: u64 = 4096;
/// A digest in hexadecimal.
const DIGEST: usize = 16;

/// For the server: how long nothing may move, and how long all of it may take.
const IDLE: Duration = Duration::from_secs(30);
const ALL: Duration = Duration::from_mins(30);

/// What the server says of the octets that came.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    #[serde(flatten)]
    identity: Identity,
    octets: u64,
    digest: String,
}

/// How many octets a request's first line wants back, when it is for a transfer.
pub(crate) fn wanted(start: &str) -> Option<u64> {
    let mut words = start.split(' ');
    match (words.next(), words.next()) {
        (Some("POST"), Some(path)) => path.strip_prefix("/transfer/")?.parse().ok(),
        _ => None,
    }
}

/// The server's side: takes the body behind the head, and gives `down` octets.
///
/// # Errors
/// When the connection breaks, or nothing moves any more: the client knows why.
pub(crate) fn serve(
    stream: &TcpStream,
    head: &Head,
    identity: Identity,
    down: u64,
) -> io::Result<()> {
    let mut stream = Moving {
        stream,
        idle: IDLE,
        end: Instant::now() + ALL,
    };
    let up = head.length.unwrap_or(0) as u64;
    if up.max(down) > MAX_OCTETS {
        return stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    }
    let mut octets = 0;
    let digest = receive(&mut (&head.rest[..]).chain(&mut stream), up, &mut octets)?;
    let receipt = serde_json::to_string(&Receipt {
        identity,
        octets,
        digest: hex(digest),
    })?;
    let length = (receipt.len() + 1 + DIGEST) as u64 + down;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{receipt}\n"
    );
    stream.write_all(head.as_bytes())?;
    let digest = send(&mut stream, down, &mut 0)?;
    stream.write_all(hex(digest).as_bytes())
}

/// The client's side; `octets` is what was carried, however it ends.
///
/// # Errors
/// How it ended, with the direction and after how many octets.
pub(crate) fn carry(
    target: &str,
    (up, down): (u64, u64),
    limit: Duration,
    octets: &mut Octets,
) -> Result<Said, Failure> {
    if up.max(down) > MAX_OCTETS {
        return Err(Failure {
            outcome: Outcome::Other,
            error: format!("{} octets: {MAX_OCTETS} are the most", up.max(down)),
        });
    }
    let target = Target::parse(target)?;
    let begun = Instant::now();
    let mut stream = Moving {
        stream: connect(&target, begun + limit)?,
        idle: limit,
        end: begun + Kind::Transfer { up, down }.longest(limit),
    };
    let path = target.path.trim_end_matches('/');
    let head = format!(
        "POST {path}/transfer/{down} HTTP/1.1\r\nContent-Length: {up}\r\nHost: {}\r\nConnection: \
         close\r\n\r\n",
        target.host_field()
    );
    let sent = stream.write_all(head.as_bytes());
    let mut written = 0;
    let sent = sent.and_then(|()| send(&mut stream, up, &mut written));
    // What is in the kernel's buffer has not arrived anywhere yet.
    let arrived = |stream: &Moving<TcpStream>| written.saturating_sub(stream.unacknowledged());
    octets.sent = arrived(&stream);
    let digest = sent.map_err(|error| halted("send", &error, octets.sent, up))?;
    let answer = http::head(&mut stream);
    octets.sent = arrived(&stream);
    let answer = answer.map_err(|error| match error {
        http::MessageError::Malformed(why) => malformed(why),
        http::MessageError::Io(error) if octets.sent < up => {
            halted("send", &error, octets.sent, up)
        }
        http::MessageError::Io(error) => halted("receive", &error, 0, down),
    })?;
    if answer.status() != Some(200) {
        let answer = http::body(answer, &mut stream, true);
        return Err(match answer {
            Ok(message) => refused(&message),
            Err(_) => malformed("an answer that is neither a transfer nor whole"),
        });
    }
    let mut stream = BufReader::with_capacity(CHUNK, (&answer.rest[..]).chain(stream));
    let mut line = Vec::new();
    let read = (&mut stream).take(MAX_LINE).read_until(b'\n', &mut line);
    read.map_err(|error| halted("receive", &error, 0, down))?;
    let receipt: Receipt =
        serde_json::from_slice(&line).map_err(|_| malformed("the answer is no transfer's"))?;
    compared("there", (up, digest), (receipt.octets, &receipt.digest))?;
    octets.sent = up;
    let came = receive(&mut stream, down, &mut octets.received);
    let came = came.map_err(|error| halted("receive", &error, octets.received, down))?;
    let mut told = [0; DIGEST];
    let read = stream.read_exact(&mut told);
    read.map_err(|error| halted("receive", &error, octets.received, down))?;
    compared(
        "back",
        (down, came),
        (down, &String::from_utf8_lossy(&told)),
    )?;
    Ok(Said {
        host: Some(receipt.identity.host),
        client: Some(receipt.identity.client),
    })
}

/// What one side has, and what the other says.
fn compared(way: &str, here: (u64, u64), told: (u64, &str)) -> Result<(), Failure> {
    let (octets, digest) = (here.0, hex(here.1));
    if (octets, digest.as_str()) == told {
        return Ok(());
    }
    let shown: String = told.1.chars().take(DIGEST).collect();
    Err(Failure {
        outcome: Outcome::Corrupted,
        error: format!(
            "{way}: {octets} octets with digest {digest} here, {} with {shown:?} at the other side",
            told.0
        ),
    })
}

fn malformed(why: &str) -> Failure {
    Failure {
        outcome: Outcome::Malformed,
        error: why.to_owned(),
    }
}

/// It went no further in one direction.
fn halted(way: &str, error: &io::Error, after: u64, of: u64) -> Failure {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return malformed(&format!("{way}: closed after {after} of {of} octets"));
    }
    let failure = failed(way, error);
    let error = match failure.outcome {
        Outcome::TimedOut => format!("{way}: {error} after {after} of {of} octets"),
        _ => format!("{}, after {after} of {of} octets", failure.error),
    };
    Failure { error, ..failure }
}

fn hex(digest: u64) -> String {
    format!("{digest:016x}")
}

/// Sends so many octets that nobody else sends; their digest. `sent` counts what the kernel took.
fn send(stream: &mut impl Write, octets: u64, sent: &mut u64) -> io::Result<u64> {
    let mut state = RandomState::new().hash_one(octets);
    let mut digest = XxHash64::with_seed(0);
    let mut chunk = vec![0; CHUNK];
    while *sent < octets {
        let length = usize::try_from(octets - *sent).map_or(CHUNK, |left| left.min(CHUNK));
        for eight in chunk[..length].chunks_mut(8) {
            eight.copy_from_slice(&next(&mut state).to_le_bytes()[..eight.len()]);
        }
        digest.write(&chunk[..length]);
        let mut left = &chunk[..length];
        while !left.is_empty() {
            let taken = stream.write(left)?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *sent += taken as u64;
            left = &left[taken..];
        }
    }
    Ok(digest.finish())
}

/// Receives so many octets; their digest. `received` counts them.
fn receive(stream: &mut impl Read, octets: u64, received: &mut u64) -> io::Result<u64> {
    let mut digest = XxHash64::with_seed(0);
    let mut chunk = vec![0; CHUNK];
    while *received < octets {
        let length = usize::try_from(octets - *received).map_or(CHUNK, |left| left.min(CHUNK));
        let came = stream.read(&mut chunk[..length])?;
        if came == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        digest.write(&chunk[..came]);
        *received += came as u64;
    }
    Ok(digest.finish())
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): no part of
/// a transfer is like another, so one in the wrong place is noticed.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A connection that may take its time as long as something moves: what comes, or what the other
/// side acknowledges.
struct Moving<S> {
    stream: S,
    idle: Duration,
    end: Instant,
}

impl<S: Borrow<TcpStream>> Moving<S> {
    /// Octets that the other side has not acknowledged (tcp(7), `SIOCOUTQ`).
    fn unacknowledged(&self) -> u64 {
        let mut octets: libc::c_int = 0;
        #[expect(unsafe_code, reason = "neither std nor rustix asks a socket for this")]
        // SAFETY: the descriptor is open, and the request writes one int to where it is told.
        let result = unsafe {
            libc::ioctl(
                self.stream.borrow().as_raw_fd(),
                libc::TIOCOUTQ,
                &raw mut octets,
            )
        };
        if result == 0 {
            u64::try_from(octets).unwrap_or(0)
        } else {
            0
        }
    }

    fn moving<T>(
        &mut self,
        mut work: impl FnMut(&TcpStream, Duration) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut before = self.unacknowledged();
        loop {
            let too_slow = |_| io::Error::new(io::ErrorKind::TimedOut, "it takes too long");
            let wait = self.idle.min(left(self.end).map_err(too_slow)?);
            match work(self.stream.borrow(), wait) {
                Err(error) if is_time_out(&error) => {
                    let now = self.unacknowledged();
                    if now >= before && wait == self.idle {
                        let still = io::Error::new(io::ErrorKind::TimedOut, "nothing moves");
                        return Err(still);
                    }
                    before = now;
                }
                done => return done,
            }
        }
    }
}

/// A socket's own time limit shows as `WouldBlock`.
fn is_time_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl<S: Borrow<TcpStream>> Read for Moving<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.moving(|mut stream, wait| {
            stream.set_read_timeout(Some(wait))?;
            stream.read(buffer)
        })
    }
}

impl<S: Borrow<TcpStream>> Write for Moving<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.moving(|mut stream, wait| {
            stream.set_write_timeout(Some(wait))?;
            stream.write(buffer)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{attempt, fetch, fetch_via};
    use crate::report::{Attempt, FetchRequest};
    use crate::server::Server;
    use std::net::{Shutdown, TcpListener};
    use std::thread;

    /// For what comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);
    const MIB: u64 = 1 << 20;

    fn server(host: &str) -> String {
        let server = Server::bind(0, host.into()).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || server.run());
        format!("127.0.0.1:{port}")
    }

    /// In front of a server: hands on what `there` and `back` make of each piece, whose offset they are
    /// told, and stops for good where they give nothing.
    fn between(
        server: &str,
        there: impl FnMut(u64, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
        back: impl FnMut(u64, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
    ) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = TcpStream::connect(server).unwrap();
        thread::spawn(move || {
            let client = listener.accept().unwrap().0;
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let one = thread::spawn(move || hand_on(from, to, there));
            hand_on(server, client, back);
            one.join().unwrap();
        });
        address
    }

    fn hand_on(
        mut from: TcpStream,
        mut to: TcpStream,
        mut change: impl FnMut(u64, Vec<u8>) -> Option<Vec<u8>>,
    ) {
        let (mut chunk, mut at) = ([0; 4096], 0);
        loop {
            let count = match from.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let Some(changed) = change(at, chunk[..count].to_vec()) else {
                // Both stay open.
                thread::sleep(LONG);
                break;
            };
            at += count as u64;
            if to.write_all(&changed).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn as_it_is(_: u64, piece: Vec<u8>) -> Option<Vec<u8>> {
        Some(piece)
    }

    /// Changes one octet, far behind everybody's heads.
    fn flip(at: u64, mut piece: Vec<u8>) -> Option<Vec<u8>> {
        let place = 50_000_u64.checked_sub(at);
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(octet) = place.and_then(|place| piece.get_mut(place)) {
            *octet ^= 1;
        }
        Some(piece)
    }

    fn transfer(to: &str, up: u64, down: u64, limit: Duration) -> Attempt {
        attempt(to, Kind::Transfer { up, down }, limit)
    }

    #[test]
    fn octets_of_every_size_arrive_in_both_directions() {
        let to = server("one");
        for (up, down) in [
            (0, 0),
            (1, 1),
            (0, 1448),
            (1449, 0),
            (CHUNK as u64, CHUNK as u64 + 1),
            (70_001, 3),
            (MAX_OCTETS, MAX_OCTETS),
        ] {
            let done = transfer(&to, up, down, LONG);
            assert_eq!(done.outcome, Outcome::Answered, "{done:?}");
            let all = Octets {
                sent: up,
                received: down,
            };
            assert_eq!(done.octets, Some(all));
            assert_eq!(done.host.as_deref(), Some("one"));
            assert_eq!(done.client.as_deref(), Some("127.0.0.1"));
        }
    }

    #[test]
    fn one_other_bit_is_found_in_either_direction() {
        let to = server("one");
        let there = transfer(&between(&to, flip, as_it_is), 100_000, 1, LONG);
        assert_eq!(there.outcome, Outcome::Corrupted, "{there:?}");
        let error = there.error.unwrap();
        assert!(error.starts_with("there: 100000 octets"), "{error}");
        let back = transfer(&between(&to, as_it_is, flip), 1, 100_000, LONG);
        assert_eq!(back.outcome, Outcome::Corrupted, "{back:?}");
        let error = back.error.unwrap();
        assert!(error.starts_with("back: 100000 octets"), "{error}");
    }

    #[test]
    fn a_direction_that_stands_still_is_named_with_what_it_had_carried() {
        let to = server("one");
        let limit = Duration::from_secs(1);
        let stops = |at: u64, piece| (at < 50_000).then_some(piece);
        // What is on its way to somebody who does not read is in the kernels of both sides: less than
        // all of it.
        let up = transfer(&between(&to, stops, as_it_is), MAX_OCTETS, 1, limit);
        assert_eq!(up.outcome, Outcome::TimedOut, "{up:?}");
        let octets = up.octets.unwrap();
        assert!(octets.sent < MAX_OCTETS && octets.received == 0, "{up:?}");
        let error = format!(
            "send: nothing moves after {} of 16777216 octets",
            octets.sent
        );
        assert_eq!(up.error.unwrap(), error);

        let down = transfer(&between(&to, as_it_is, stops), 1, MIB, limit);
        assert_eq!(down.outcome, Outcome::TimedOut, "{down:?}");
        let octets = down.octets.unwrap();
        assert!(octets.sent == 1 && octets.received < 60_000, "{down:?}");
        let error = format!(
            "receive: nothing moves after {} of 1048576 octets",
            octets.received
        );
        assert_eq!(down.error.unwrap(), error);
    }

    #[test]
    fn what_moves_too_slowly_is_told_from_what_stands_still() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut moving = Moving {
            stream: TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
            idle: Duration::from_millis(20),
            end: Instant::now() + LONG,
        };
        let still = moving.read(&mut [0]).unwrap_err();
        assert_eq!(
            halted("receive", &still, 1, 2).error,
            "receive: nothing moves after 1 of 2 octets"
        );
        moving.idle = LONG;
        moving.end = Instant::now() + Duration::from_millis(20);
        let slow = moving.read(&mut [0]).unwrap_err();
        let slow = halted("receive", &slow, 1, 2);
        assert_eq!(slow.outcome, Outcome::TimedOut);
        assert_eq!(slow.error, "receive: it takes too long after 1 of 2 octets");
    }

    #[test]
    fn a_connection_that_ends_half_way_is_told_as_that() {
        let to = server("one");
        let mut ended = false;
        let cut = move |_, piece: Vec<u8>| {
            // An empty piece is handed on, too: nothing more comes, and then the end.
            let cut = std::mem::replace(&mut ended, true);
            Some(if cut { Vec::new() } else { piece })
        };
        let back = transfer(&between(&to, as_it_is, cut), 1, MIB, LONG);
        assert_eq!(back.outcome, Outcome::Malformed, "{back:?}");
        let received = back.octets.unwrap().received;
        let error = format!("receive: closed after {received} of 1048576 octets");
        assert_eq!(back.error.unwrap(), error);
    }

    #[test]
    fn more_than_the_most_is_neither_sent_nor_taken() {
        let to = server("one");
        for (up, down) in [(MAX_OCTETS + 1, 0), (0, u64::MAX)] {
            let refused = transfer(&to, up, down, LONG);
            assert_eq!(refused.outcome, Outcome::Other);
            let error = refused.error.unwrap();
            assert!(error.ends_with("16777216 are the most"), "{error}");
        }
        for (path, length) in [("/transfer/16777217", 0), ("/transfer/0", 16_777_217)] {
            let mut stream = TcpStream::connect(&to).unwrap();
            let asked = format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(asked.as_bytes()).unwrap();
            let status = http::head(&mut stream).unwrap().status();
            assert_eq!(status, Some(413));
        }
    }

    /// A server that says this whatever it is asked.
    fn says(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let head = http::head(&mut stream).unwrap();
            let _ = http::body(head, &mut stream, false);
            let _ = stream.write_all(answer.as_bytes());
        });
        address
    }

    #[test]
    fn a_server_s_word_is_compared_with_what_was_sent() {
        let outcome = |answer: &str| {
            let done = transfer(&says(answer.to_owned()), 3, 3, LONG);
            (done.outcome, done.error.unwrap())
        };
        let (kind, error) = outcome("HTTP/1.1 404 Not Found\r\n\r\nno");
        assert_eq!((kind, error.as_str()), (Outcome::HttpStatus, "404: no"));
        let malformed = outcome("HTTP/1.1 200 OK\r\n\r\n{}\nabc").0;
        assert_eq!(malformed, Outcome::Malformed);
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(100_000));
        assert_eq!(outcome(&endless).0, Outcome::Malformed);
        let (kind, error) = outcome(
            "HTTP/1.1 200 OK\r\n\r\n{\"host\":\"a\",\"client\":\"b\",\"server\":\"c\",\"octets\":3,\
             \"digest\":\"0123456789abcdef and more\\u001b[0m\"}\nabc0123456789abcdef",
        );
        assert_eq!(kind, Outcome::Corrupted);
        assert!(
            error.ends_with("3 with \"0123456789abcdef\" at the other side"),
            "{error}"
        );
    }

    #[test]
    fn many_transfers_are_one_report_and_run_where_the_server_is() {
        let (one, two) = (server("one"), server("two"));
        let request = FetchRequest::new([&two])
            .kind(Kind::both_ways(100_000))
            .count(5)
            .limit(LONG);
        let there = fetch_via(&format!("{one}/fetch"), &request, LONG).unwrap();
        for report in [fetch(&request), there] {
            let target = &report.targets[0];
            assert_eq!(target.count(Outcome::Answered), 5, "{target}");
            let all = Octets {
                sent: 500_000,
                received: 500_000,
            };
            assert_eq!(target.results[0].octets, Some(all));
            assert!(target.results[0].slowest_ms.is_some());
            assert_eq!(target.hosts()["two"], 5);
        }
    }

    #[test]
    fn no_chunk_of_a_transfer_is_like_another_transfer_s() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let digests = [&mut one, &mut two].map(|to| send(to, 100_000, &mut 0).unwrap());
        assert_ne!(digests[0], digests[1]);
        assert_ne!(one[..CHUNK], one[CHUNK..2 * CHUNK]);
        for (sent, digest) in [&one, &two].into_iter().zip(digests) {
            assert_eq!(
                receive(&mut sent.as_slice(), 100_000, &mut 0).unwrap(),
                digest
            );
        }
    }
}
