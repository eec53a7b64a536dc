//! Names to IPv4 addresses without libc: a static glibc has no name service.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::http::left;

/// Why a name has no address.
#[derive(Debug)]
pub(crate) enum ResolveError {
    /// The server says that there is no such name, or no address for it.
    NotFound,
    /// The question could not be asked, or nobody answered in time.
    Io(io::Error),
    /// An answer with an error code other than NXDOMAIN, or one that makes no sense.
    Answer(String),
}

/// Looks in /etc/hosts, then asks the first nameserver of /etc/resolv.conf. The name is taken as
/// absolute: search domains are not tried.
pub(crate) fn resolve(name: &str, end: Instant) -> Result<Ipv4Addr, ResolveError> {
    // A missing file is an empty one, as for any resolver (resolver(5)).
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    if let Some(address) = in_hosts(&hosts, name) {
        return Ok(address);
    }
    let config = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = nameserver(&config)
        .ok_or_else(|| ResolveError::Io(io::Error::other("no nameserver in /etc/resolv.conf")))?;
    ask(SocketAddr::new(server, 53), name, end)
}

fn in_hosts(hosts: &str, name: &str) -> Option<Ipv4Addr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    })
}

fn nameserver(config: &str) -> Option<IpAddr> {
    config.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    })
}

fn ask(server: SocketAddr, name: &str, end: Instant) -> Result<Ipv4Addr, ResolveError> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).map_err(ResolveError::Io)?;
    socket.connect(server).map_err(ResolveError::Io)?;
    let id = (std::process::id() ^ u32::from(socket.local_addr().map_err(ResolveError::Io)?.port()))
        as u16;
    let query = query(id, name)?;
    let mut buffer = [0; 1500];
    // A datagram may get lost: ask again once a second until the time is up.
    loop {
        socket.send(&query).map_err(ResolveError::Io)?;
        let again = Instant::now() + Duration::from_secs(1);
        while let Ok(wait) = left(again.min(end)) {
            socket
                .set_read_timeout(Some(wait))
                .map_err(ResolveError::Io)?;
            match socket.recv(&mut buffer) {
                Ok(n) if buffer[..n].starts_with(&id.to_be_bytes()) => return answer(&buffer[..n]),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(ResolveError::Io(error)),
            }
        }
        left(end).map_err(ResolveError::Io)?;
    }
}

/// A query for an A record (RFC 1035, 4.1), recursion desired.
fn query(id: u16, name: &str) -> Result<Vec<u8>, ResolveError> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        match u8::try_from(label.len()) {
            Ok(length @ 1..=63) => bytes.push(length),
            _ => return Err(ResolveError::Answer(format!("{name} is no host name"))),
        }
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    Ok(bytes)
}

fn answer(bytes: &[u8]) -> Result<Ipv4Addr, ResolveError> {
    parse(bytes).unwrap_or_else(|| Err(ResolveError::Answer("a broken DNS answer".into())))
}

fn parse(bytes: &[u8]) -> Option<Result<Ipv4Addr, ResolveError>> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    match bytes.get(3)? & 0x0f {
        0 => {}
        3 => return Some(Err(ResolveError::NotFound)),
        code => return Some(Err(ResolveError::Answer(format!("DNS error code {code}")))),
    }
    let mut at = 12;
    for _ in 0..u16_at(4)? {
        at = skip_name(bytes, at)? + 4;
    }
    for _ in 0..u16_at(6)? {
        at = skip_name(bytes, at)?;
        let (kind, length) = (u16_at(at)?, usize::from(u16_at(at + 8)?));
        let data = bytes.get(at + 10..at + 10 + length)?;
        if let (1, Ok(octets)) = (kind, <[u8; 4]>::try_from(data)) {
            return Some(Ok(octets.into()));
        }
        at += 10 + length;
    }
    Some(Err(ResolveError::NotFound))
}

fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            // A compression pointer ends the name (RFC 1035, 4.1.4).
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn hosts_and_resolv_conf_are_read_as_the_manual_says() {
        let hosts = "127.0.0.1 localhost\n::1 six\n10.9.8.7\tNode1 alias # node2\n";
        assert_eq!(in_hosts(hosts, "alias"), Some(Ipv4Addr::new(10, 9, 8, 7)));
        assert_eq!(in_hosts(hosts, "node1"), Some(Ipv4Addr::new(10, 9, 8, 7)));
        assert_eq!(in_hosts(hosts, "node2"), None);
        let config = "search example\nnameserver 10.0.0.10\nnameserver 10.0.0.11\n";
        assert_eq!(nameserver(config), Some(Ipv4Addr::new(10, 0, 0, 10).into()));
    }

    /// For an answer that comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);

    fn asked(
        limit: Duration,
        reply: impl Fn(Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Ipv4Addr, ResolveError> {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((n, from)) = server.recv_from(&mut buffer) {
                if let Some(reply) = reply(buffer[..n].to_vec()) {
                    server.send_to(&reply, from).unwrap();
                }
            }
        });
        ask(address, "node2.test", Instant::now() + limit)
    }

    #[test]
    fn an_address_behind_an_alias_is_found() {
        let address = asked(LONG, |mut query| {
            assert!(
                query
                    .windows(12)
                    .any(|window| window == b"\x05node2\x04test\x00")
            );
            query[2] |= 0x80;
            query[7] = 2;
            // CNAME, then A, both naming the question by pointer.
            query.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x01\0\x04\x01x\xc0\x12");
            query.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04\x0a\x09\x08\x07");
            Some(query)
        });
        assert_eq!(address.unwrap(), Ipv4Addr::new(10, 9, 8, 7));
    }

    #[test]
    fn refusals_and_silence_are_told_apart() {
        let code = |code: u8| {
            move |mut query: Vec<u8>| {
                query[2] |= 0x80;
                query[3] = code;
                Some(query)
            }
        };
        assert!(matches!(asked(LONG, code(3)), Err(ResolveError::NotFound)));
        assert!(matches!(asked(LONG, code(0)), Err(ResolveError::NotFound)));
        assert!(matches!(asked(LONG, code(2)), Err(ResolveError::Answer(_))));
        let short = Duration::from_millis(300);
        let Err(ResolveError::Io(error)) = asked(short, |_| None) else {
            panic!("nobody answered")
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let cut = asked(LONG, |query| Some(query[..5].to_vec()));
        assert!(matches!(cut, Err(ResolveError::Answer(_))));
    }
}
