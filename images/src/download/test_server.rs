//! A server on this host for tests of downloads: files with ETag and ranges (RFC 9110), and what a
//! network, a mirror or a proxy can do wrong.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::sync::{Arc, Mutex};

use crate::address::Address;
use crate::digest::sha256;
use crate::test_host::{head, serve, serve_behind_proxy};

/// What goes wrong with one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection ends before any answer.
    HangUp,
    /// It ends after so many bytes of the file.
    Cut(usize),
    /// Nothing more comes after so many bytes of the file; nothing at all after none.
    Silence(usize),
    /// `503 Service Unavailable`.
    Status(&'static str),
    /// The head announces so many bytes.
    Announces(u64),
    /// The head names no length, no ETag and no date.
    Bare,
}

#[derive(Default)]
struct Content {
    files: BTreeMap<String, Vec<u8>>,
    redirects: BTreeMap<String, String>,
    troubles: BTreeMap<String, VecDeque<Trouble>>,
    asked: Vec<String>,
}

/// Serves until the process ends.
pub(crate) struct TestServer {
    /// `127.0.0.1:43210`.
    pub(crate) host: String,
    content: Arc<Mutex<Content>>,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        let content: Arc<Mutex<Content>> = Arc::default();
        let served = Arc::clone(&content);
        let host = serve(move |stream, _| answer(stream, &served));
        Self { host, content }
    }

    /// The server with the given name behind a proxy, see [`serve_behind_proxy`]; and its certificate.
    pub(crate) fn start_behind_proxy(name: &str) -> (Self, String) {
        let content: Arc<Mutex<Content>> = Arc::default();
        let (heard, served) = (Arc::clone(&content), Arc::clone(&content));
        let told = move |asked: &str| heard.lock().unwrap().asked.push(asked.to_owned());
        let (host, certificate) =
            serve_behind_proxy(name, told, move |stream| answer(stream, &served));
        (Self { host, content }, certificate)
    }

    /// `http://127.0.0.1:43210/path`.
    pub(crate) fn url(&self, path: &str) -> Address {
        format!("http://{}/{path}", self.host).parse().unwrap()
    }

    /// Offers a file, or another version of it.
    pub(crate) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let mut content = self.content.lock().unwrap();
        content.files.insert(path.to_owned(), bytes.into());
    }

    /// Offers it no more.
    pub(crate) fn remove(&self, path: &str) {
        self.content.lock().unwrap().files.remove(path);
    }

    /// Sends whoever asks for `path` to an address.
    pub(crate) fn redirect(&self, path: &str, to: &str) {
        let mut content = self.content.lock().unwrap();
        content.redirects.insert(path.to_owned(), to.to_owned());
    }

    /// What goes wrong with the next answers for a path, one after the other.
    pub(crate) fn trouble(&self, path: &str, troubles: impl IntoIterator<Item = Trouble>) {
        let mut content = self.content.lock().unwrap();
        let queue = content.troubles.entry(path.to_owned()).or_default();
        queue.extend(troubles);
    }

    /// What was asked for since the last call, with the first byte where it is not 0: `path from 5`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.content.lock().unwrap().asked)
    }
}

fn answer(mut stream: impl Read + Write, content: &Mutex<Content>) -> io::Result<()> {
    let lines = head(&mut BufReader::new(&mut stream))?;
    let header = |name: &str| {
        let mut pairs = lines.iter().filter_map(|line| line.split_once(": "));
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    };
    let target = lines.first().and_then(|line| line.split(' ').nth(1));
    // What comes through a proxy names the whole address.
    let target = target.unwrap_or_default();
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
        None => target.trim_start_matches('/'),
    };
    let range = header("range").and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-'));
    let range: Option<usize> = range.and_then(|it| it.parse().ok());
    let (file, redirect, trouble) = {
        let mut content = content.lock().unwrap();
        let mut asked = match range {
            Some(first) => format!("{path} from {first}"),
            None => path.to_owned(),
        };
        if let Some(who) = header("authorization") {
            asked = format!("{asked} as {who}");
        }
        content.asked.push(asked);
        let trouble = content.troubles.get_mut(path).and_then(VecDeque::pop_front);
        let redirect = content.redirects.get(path).cloned();
        (content.files.get(path).cloned(), redirect, trouble)
    };
    let until_hung_up = |stream: &mut dyn Read| stream.read(&mut [0]).map(drop);
    match trouble {
        Some(Trouble::HangUp) => return Ok(()),
        Some(Trouble::Silence(0)) => return until_hung_up(&mut stream),
        Some(Trouble::Status(status)) => {
            return write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        _ => {}
    }
    if let Some(to) = redirect {
        let head = format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return stream.write_all(head.as_bytes());
    }
    let Some(file) = file else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    };
    let tag = format!("\"{}\"", &sha256(&file)[..8]);
    let first = range.filter(|_| header("if-range").is_none_or(|known| known == tag));
    let length = file.len();
    let (status, body) = match first {
        Some(first) if first >= length => {
            return write!(
                stream,
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{length}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Some(first) => {
            let range = format!("Content-Range: bytes {first}-{}/{length}\r\n", length - 1);
            (format!("206 Partial Content\r\n{range}"), &file[first..])
        }
        None => ("200 OK\r\n".to_owned(), &file[..]),
    };
    let announced = match trouble {
        Some(Trouble::Announces(length)) => length,
        _ => body.len() as u64,
    };
    let about = match trouble {
        Some(Trouble::Bare) => String::new(),
        _ => format!("Content-Length: {announced}\r\nETag: {tag}\r\n"),
    };
    write!(stream, "HTTP/1.1 {status}{about}Connection: close\r\n\r\n")?;
    match trouble {
        Some(Trouble::Cut(sent)) => stream.write_all(&body[..sent]),
        Some(Trouble::Silence(sent)) => {
            stream.write_all(&body[..sent])?;
            until_hung_up(&mut stream)
        }
        _ => stream.write_all(body),
    }
}
