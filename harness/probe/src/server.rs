//! The server: the workload of every cluster.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::fetch;
use crate::http::{self, MessageError, Until};
use crate::report::{FetchRequest, Identity};
use crate::resolve::resolve;
use crate::stream::{Streams, echo};
use crate::traffic::{Traffic, TrafficError, TrafficRecord};
use crate::transfer;

/// A client that opens a connection and says nothing is dropped after this.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// The kernel's host name; a container has its own, which is the Pod's name.
///
/// # Errors
/// When /proc is not there.
pub fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?
        .trim()
        .to_owned())
}

/// `GET /` answers with an [`Identity`]; `POST /fetch` does what a [`FetchRequest`] says, from here,
/// and `POST /resolve` what a [`ResolveRequest`](crate::ResolveRequest) says.
/// `POST /transfer/N` takes a body of any size up to 16 MiB and answers with N octets.
/// `POST /streams` with an address and a port opens a connection to the server there and keeps it
/// busy; `GET /streams` says how far each has come, as
/// [`StreamReport`](crate::StreamReport)s. `POST /traffic` with a
/// [`TrafficRequest`](crate::TrafficRequest) starts steady traffic from here, of which there is one
/// at a time; `GET /traffic` gives its [`TrafficRecord`] so far, and `DELETE /traffic` stops it and
/// gives the whole one.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    host: String,
    streams: Streams,
    traffic: Traffic,
}

impl Server {
    /// Listens on all IPv4 addresses and answers in the name of `host`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the port is taken or needs a privilege.
    pub fn bind(port: u16, host: String) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        Ok(Self {
            listener,
            host,
            streams: Streams::default(),
            traffic: Traffic::default(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers for ever, each connection in a thread of its own.
    pub fn run(self) {
        for stream in self.listener.incoming() {
            // A connection that is gone before it is accepted concerns only its client.
            let Ok(stream) = stream else { continue };
            let (host, streams) = (self.host.clone(), self.streams.clone());
            let traffic = self.traffic.clone();
            let handler = thread::Builder::new().stack_size(256 * 1024);
            // No thread left: the client sees its connection closed.
            let _ = handler.spawn(move || answer(stream, &host, &streams, &traffic));
        }
    }
}

fn answer(stream: TcpStream, host: &str, streams: &Streams, traffic: &Traffic) {
    let mut stream = Until {
        stream,
        end: Instant::now() + REQUEST_LIMIT,
    };
    let read = http::head(&mut stream).and_then(|head| {
        let down = transfer::wanted(&head.start);
        let Some(down) = down else {
            return http::body(head, &mut stream, false).map(Some);
        };
        let identity = identity(&stream.stream, host).map_err(MessageError::Io)?;
        transfer::serve(&stream.stream, &head, identity, down).map_err(MessageError::Io)?;
        Ok(None)
    });
    let (status, body) = match read {
        Ok(None) => return,
        Ok(Some(message)) if message.start.starts_with("POST /echo ") => {
            // It ends with its connection, and whoever opened it knows why.
            let _ = echo(stream.stream);
            return;
        }
        Ok(Some(message)) => respond(&stream.stream, host, streams, traffic, &message),
        Err(MessageError::Malformed(why)) => ("400 Bad Request", why.to_owned()),
        Err(MessageError::Io(_)) => return,
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // One write, so that the answer travels in as few segments as it can.
    let _ = stream.stream.set_write_timeout(Some(REQUEST_LIMIT));
    let _ = stream
        .stream
        .write_all(&[head.as_bytes(), body.as_bytes()].concat());
}

fn respond(
    stream: &TcpStream,
    host: &str,
    streams: &Streams,
    traffic: &Traffic,
    message: &http::Message,
) -> (&'static str, String) {
    let mut words = message.start.split(' ');
    let json = match (words.next(), words.next()) {
        (Some("GET"), Some("/")) => identity(stream, host)
            .map_err(|error| error.to_string())
            .and_then(|identity| serde_json::to_string(&identity).map_err(|e| e.to_string())),
        (Some("POST"), Some("/fetch")) => {
            match serde_json::from_slice::<FetchRequest>(&message.body) {
                Ok(request) => serde_json::to_string(&fetch(&request)).map_err(|e| e.to_string()),
                Err(error) => return ("400 Bad Request", error.to_string()),
            }
        }
        (Some("POST"), Some("/resolve")) => match serde_json::from_slice(&message.body) {
            Ok(request) => serde_json::to_string(&resolve(&request)).map_err(|e| e.to_string()),
            Err(error) => return ("400 Bad Request", error.to_string()),
        },
        (Some("GET"), Some("/streams")) => {
            serde_json::to_string(&streams.reports()).map_err(|error| error.to_string())
        }
        (Some("POST"), Some("/streams")) => {
            let to = String::from_utf8_lossy(&message.body);
            match to.trim().parse() {
                Ok(to) => streams
                    .open(to)
                    .map(|()| "{}".to_owned())
                    .map_err(|error| format!("{to}: {error}")),
                Err(error) => return ("400 Bad Request", format!("{to}: {error}")),
            }
        }
        (Some("POST"), Some("/traffic")) => match serde_json::from_slice(&message.body) {
            Ok(request) => return told(traffic.start(request)),
            Err(error) => return ("400 Bad Request", error.to_string()),
        },
        (Some("GET"), Some("/traffic")) => return told(traffic.record()),
        (Some("DELETE"), Some("/traffic")) => return told(traffic.stop()),
        _ => {
            return (
                "404 Not Found",
                "GET /, POST /fetch, POST /resolve, POST /transfer/OCTETS, GET and POST /streams, \
                 GET, POST and DELETE /traffic are all there is"
                    .into(),
            );
        }
    };
    match json {
        Ok(json) => ("200 OK", json),
        Err(error) => ("500 Internal Server Error", error),
    }
}

fn told(record: Result<TrafficRecord, TrafficError>) -> (&'static str, String) {
    match record {
        Ok(record) => match serde_json::to_string(&record) {
            Ok(json) => ("200 OK", json),
            Err(error) => ("500 Internal Server Error", error.to_string()),
        },
        Err(TrafficError::Request(why)) => ("400 Bad Request", why),
        Err(TrafficError::Running) => (
            "409 Conflict",
            "there is traffic from here already: DELETE /traffic stops it".into(),
        ),
        Err(TrafficError::Absent) => (
            "404 Not Found",
            "no traffic was started from here: POST /traffic does".into(),
        ),
        Err(TrafficError::Io(error)) => ("500 Internal Server Error", error.to_string()),
    }
}

fn identity(stream: &TcpStream, host: &str) -> io::Result<Identity> {
    Ok(Identity {
        host: host.to_owned(),
        client: stream.peer_addr()?.ip().to_string(),
        server: stream.local_addr()?.ip().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{fetch_via, resolve_via};
    use crate::dns::{RecordKind, fake};
    use crate::report::Outcome;
    use crate::resolve::ResolveRequest;

    /// For what comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);

    fn started(host: &str) -> String {
        let server = Server::bind(0, host.to_owned()).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || server.run());
        format!("127.0.0.1:{port}")
    }

    #[test]
    fn every_request_is_answered_with_both_addresses() {
        let (one, two) = (started("one"), started("two"));
        let report = fetch(&FetchRequest::new([&one, &two]).count(50).limit(LONG));
        for (target, host) in [(&one, "one"), (&two, "two")] {
            let target = report.target(target).unwrap();
            assert_eq!(target.hosts().into_iter().collect::<Vec<_>>(), [(host, 50)]);
            assert_eq!(
                target.clients().into_iter().collect::<Vec<_>>(),
                [("127.0.0.1", 50)]
            );
        }
    }

    #[test]
    fn a_fetch_runs_where_the_server_is() {
        let (one, two) = (started("one"), started("two"));
        let mut request = FetchRequest::new([&two]).count(3).limit(LONG);
        request.each = true;
        let report = fetch_via(&format!("{one}/fetch"), &request, LONG).unwrap();
        assert_eq!(report.targets[0].count(Outcome::Answered), 3);
        assert_eq!(report.targets[0].attempts.len(), 3);
    }

    #[test]
    fn a_name_is_asked_for_where_the_server_is() {
        let one = started("one");
        let dns = fake::server(|_, query| vec![fake::answer(query, 0, &[&fake::address(2)])]);
        let request = ResolveRequest::new("web.test", RecordKind::A);
        let request = request.server(dns.to_string()).limit(LONG);
        let report = resolve_via(&format!("{one}/resolve"), &request, LONG).unwrap();
        assert_eq!(report.addresses(), [Ipv4Addr::new(10, 1, 1, 2)]);
    }

    #[test]
    fn a_stream_between_two_servers_goes_on_and_is_reported() {
        let (one, two) = (started("one"), started("two"));
        let ask = |start: &str, body: &str| {
            let mut stream = TcpStream::connect(&one).unwrap();
            let length = body.len();
            write!(
                stream,
                "{start} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            let answer = http::read(&mut stream, true).unwrap();
            (answer.start, String::from_utf8(answer.body).unwrap())
        };
        assert_eq!(ask("POST /streams", &two).0, "HTTP/1.1 200 OK");
        assert_eq!(
            ask("POST /streams", "nowhere").0,
            "HTTP/1.1 400 Bad Request"
        );
        let begun = Instant::now();
        loop {
            let (_, reports) = ask("GET /streams", "");
            let reports: Vec<crate::StreamReport> = serde_json::from_str(&reports).unwrap();
            let [report] = reports.try_into().unwrap();
            assert_eq!((report.to, report.failure), (two.clone(), None));
            if report.echoed > 2 {
                return;
            }
            assert!(begun.elapsed() < LONG);
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn bad_requests_are_told_why() {
        let one = started("one");
        let request = FetchRequest::new(["no target"]);
        let error = fetch_via(&format!("{one}/elsewhere"), &request, LONG);
        let error = error.unwrap_err().error;
        assert!(error.starts_with("404: GET /, POST /fetch"), "{error}");
        let report = fetch(&FetchRequest::new([format!("{one}/else")]).limit(LONG));
        assert!(report.targets[0].all(Outcome::HttpStatus));
    }
}
