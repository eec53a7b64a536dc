//! The server: the workload of every cluster.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::fetch;
use crate::datagrams::{Datagrams, DatagramsError, DatagramsReport};
use crate::http::{self, MessageError, Until};
use crate::load::load;
use crate::report::{FetchRequest, Identity};
use crate::resolve::resolve;
use crate::stream::{Streams, echo};
use crate::traffic::{Traffic, TrafficError, TrafficRecord};
use crate::{transfer, udp};

/// A client that opens a connection and says nothing is dropped after this.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Threads that wait for a connection, beyond which one that has answered ends.
const MOST_WAITING: usize = 64;

/// Of a thread that answers.
const STACK: usize = 256 * 1024;

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
/// `POST /streams` with a [`StreamRequest`](crate::StreamRequest) opens a connection to another server
/// and keeps it busy; `GET /streams` says how far each has come, as
/// [`StreamReport`](crate::StreamReport)s. `POST /traffic` with a
/// [`TrafficRequest`](crate::TrafficRequest) starts steady traffic from here, of which there is one
/// at a time; `GET /traffic` gives its [`TrafficRecord`] so far, and `DELETE /traffic` stops it and
/// gives the whole one. The UDP port of the same number answers questions, and counts the datagrams
/// that want no answer: `POST /datagrams` with a [`DatagramsRequest`](crate::DatagramsRequest) sends
/// such from here, `DELETE /datagrams` ends that, and `GET /datagrams` says what was sent and what came.
/// `POST /load` with a [`LoadRequest`](crate::LoadRequest) sends as many requests from here as fit into its
/// time, and gives a [`LoadReport`](crate::LoadReport).
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    socket: UdpSocket,
    serves: Serves,
}

/// What all connections share. Cheap to clone.
#[derive(Debug, Clone)]
struct Serves {
    host: String,
    streams: Streams,
    traffic: Traffic,
    datagrams: Datagrams,
}

/// What the kernel says of a socket of IPv6 where it has none (socket(2), `EAFNOSUPPORT`).
const NO_IPV6: i32 = 97;

/// How often two ports of one number are looked for.
const TRIES: u32 = 50;

impl Server {
    /// Listens on all addresses, by TCP and UDP, and answers in the name of `host`; port 0 takes one that
    /// is free for both. Where the kernel has no IPv6, on all IPv4 addresses.
    ///
    /// # Errors
    /// When the port is taken or needs a privilege.
    pub fn bind(port: u16, host: String) -> io::Result<Self> {
        let mut tries = 0;
        let (listener, socket) = loop {
            // Linux's sockets of IPv6 take what comes by IPv4 as well (ipv6(7), IPV6_V6ONLY).
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
            let (listener, any): (_, IpAddr) = match listener {
                Err(error) if error.raw_os_error() == Some(NO_IPV6) => {
                    let any = Ipv4Addr::UNSPECIFIED;
                    (TcpListener::bind((any, port))?, any.into())
                }
                listener => (listener?, Ipv6Addr::UNSPECIFIED.into()),
            };
            match UdpSocket::bind((any, listener.local_addr()?.port())) {
                Ok(socket) => break (listener, socket),
                // Somebody else has the other port of this number.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => {
                    tries += 1;
                    if tries == TRIES {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Self {
            listener,
            socket,
            serves: Serves {
                host,
                streams: Streams::default(),
                traffic: Traffic::default(),
                datagrams: Datagrams::default(),
            },
        })
    }

    /// The datagrams that it sends and gets.
    #[cfg(test)]
    pub(crate) fn datagrams(&self) -> Datagrams {
        self.serves.datagrams.clone()
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers for ever. Whoever answers a connection has a thread to itself, and takes the next one after
    /// it: an emulated guest needs longer to make a thread and end it than to answer a request.
    pub fn run(self) {
        let serves = self.serves.clone();
        let answering = Arc::new(Answering {
            listener: self.listener,
            serves: self.serves,
            waiting: AtomicUsize::new(0),
        });
        // No thread left: the client gets no answer.
        let _ = handler().spawn(move || answering.answer_each());
        udp::serve(&self.socket, &serves.host, &serves.datagrams);
    }
}

fn handler() -> thread::Builder {
    thread::Builder::new().stack_size(STACK)
}

/// What the threads that answer connections have in common.
struct Answering {
    listener: TcpListener,
    serves: Serves,
    /// How many of them wait for a connection: one at least, as long as there are threads.
    waiting: AtomicUsize,
}

impl Answering {
    /// Answers one connection after the other, until enough others wait.
    fn answer_each(self: &Arc<Self>) {
        while self.waiting.fetch_add(1, Ordering::AcqRel) < MOST_WAITING {
            // A connection that is gone before it is accepted concerns only its client.
            let stream = self.listener.incoming().find_map(Result::ok);
            if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                let another = Arc::clone(self);
                // No thread left: clients wait until one of those that answer has done so.
                let _ = handler().spawn(move || another.answer_each());
            }
            stream.into_iter().for_each(|it| answer(it, &self.serves));
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(stream: TcpStream, serves: &Serves) {
    let mut stream = Until {
        stream,
        end: Instant::now() + REQUEST_LIMIT,
    };
    let read = http::head(&mut stream).and_then(|head| {
        let down = transfer::wanted(&head.start);
        let Some(down) = down else {
            return http::body(head, &mut stream, false).map(Some);
        };
        let identity = identity(&stream.stream, &serves.host).map_err(MessageError::Io)?;
        transfer::serve(&stream.stream, &head, identity, down).map_err(MessageError::Io)?;
        Ok(None)
    });
    let (status, body) = match read {
        Ok(None) => return,
        Ok(Some(message)) if message.start.starts_with("POST /echo ") => {
            // It ends with its connection, and whoever opened it knows why.
            let _ = echo(stream.stream, &serves.host);
            return;
        }
        Ok(Some(message)) => respond(&stream.stream, serves, &message),
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

fn respond(stream: &TcpStream, serves: &Serves, message: &http::Message) -> (&'static str, String) {
    let Serves {
        host,
        streams,
        traffic,
        datagrams,
    } = serves;
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
        (Some("POST"), Some("/streams")) => match serde_json::from_slice(&message.body) {
            Ok(request) => streams
                .open(request)
                .map(|()| "{}".to_owned())
                .map_err(|error| format!("{}: {error}", request.to)),
            Err(error) => return ("400 Bad Request", error.to_string()),
        },
        (Some("POST"), Some("/traffic")) => match serde_json::from_slice(&message.body) {
            Ok(request) => return told(traffic.start(request)),
            Err(error) => return ("400 Bad Request", error.to_string()),
        },
        (Some("POST"), Some("/load")) => {
            let loaded = serde_json::from_slice(&message.body).map_err(|error| error.to_string());
            let loaded = loaded.and_then(|request| load(&request).map_err(str::to_owned));
            match loaded {
                Ok(report) => serde_json::to_string(&report).map_err(|error| error.to_string()),
                Err(why) => return ("400 Bad Request", why),
            }
        }
        (Some("GET"), Some("/traffic")) => return told(traffic.record()),
        (Some("DELETE"), Some("/traffic")) => return told(traffic.stop()),
        (Some("POST"), Some("/datagrams")) => match serde_json::from_slice(&message.body) {
            Ok(request) => return counted(datagrams.start(request), &datagrams.report()),
            Err(error) => return ("400 Bad Request", error.to_string()),
        },
        (Some("GET"), Some("/datagrams")) => return counted(Ok(()), &datagrams.report()),
        (Some("DELETE"), Some("/datagrams")) => {
            datagrams.stop();
            return counted(Ok(()), &datagrams.report());
        }
        _ => {
            return (
                "404 Not Found",
                "GET /, POST /fetch, POST /resolve, POST /transfer/OCTETS, POST /load, GET and POST /streams, \
                 GET, POST and DELETE /traffic and /datagrams are all there is"
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

fn counted(done: Result<(), DatagramsError>, report: &DatagramsReport) -> (&'static str, String) {
    match done.map(|()| serde_json::to_string(report)) {
        Ok(Ok(json)) => ("200 OK", json),
        Ok(Err(error)) => ("500 Internal Server Error", error.to_string()),
        Err(DatagramsError::Request(why)) => ("400 Bad Request", why.into()),
        Err(DatagramsError::Running) => (
            "409 Conflict",
            "datagrams are sent from here already: DELETE /datagrams ends that".into(),
        ),
        Err(DatagramsError::Io(error)) => ("500 Internal Server Error", error.to_string()),
    }
}

fn identity(stream: &TcpStream, host: &str) -> io::Result<Identity> {
    Ok(Identity {
        host: host.to_owned(),
        client: stream.peer_addr()?.ip().to_canonical().to_string(),
        server: stream.local_addr()?.ip().to_canonical().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{fetch_via, resolve_via};
    use crate::dns::{RecordKind, fake};
    use crate::kind::Kind;
    use crate::report::Outcome;
    use crate::resolve::ResolveRequest;

    /// For what comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);

    fn started(host: &str) -> String {
        format!("127.0.0.1:{}", port_of_started(host))
    }

    fn port_of_started(host: &str) -> u16 {
        let server = Server::bind(0, host.to_owned()).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || server.run());
        port
    }

    #[test]
    fn both_families_are_answered_each_as_itself() {
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            eprintln!("skipped: there is no IPv6 here");
            return;
        }
        let port = port_of_started("one");
        let targets = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        for kind in [Kind::Http, Kind::Udp] {
            let report = fetch(&FetchRequest::new(&targets).kind(kind).limit(LONG));
            for (target, client) in targets.iter().zip(["127.0.0.1", "::1"]) {
                let clients = report.target(target).unwrap().clients();
                assert_eq!(clients.into_iter().collect::<Vec<_>>(), [(client, 1)]);
            }
        }
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
    fn connections_that_say_nothing_keep_nobody_waiting() {
        let one = started("one");
        let silent = (0..2 * MOST_WAITING).map(|_| TcpStream::connect(&one).unwrap());
        let silent: Vec<TcpStream> = silent.collect();
        for _ in 0..3 {
            let report = fetch(&FetchRequest::new([&one]).count(40).limit(LONG));
            assert_eq!(report.targets[0].hosts()["one"], 40);
        }
        drop(silent);
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
        assert_eq!(report.addresses(), [IpAddr::from([10, 1, 1, 2])]);
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
        let request = format!(r#"{{"to":"{two}"}}"#);
        assert_eq!(ask("POST /streams", &request).0, "HTTP/1.1 200 OK");
        assert_eq!(
            ask("POST /streams", "nowhere").0,
            "HTTP/1.1 400 Bad Request"
        );
        let begun = Instant::now();
        loop {
            let (_, reports) = ask("GET /streams", "");
            let reports: Vec<crate::StreamReport> = serde_json::from_str(&reports).unwrap();
            let [report] = reports.try_into().unwrap();
            assert_eq!(report.request.to.to_string(), two);
            assert_eq!(report.host, "two");
            assert_eq!((report.request.interval_ms, report.failure), (50, None));
            if report.echoed > 2 {
                return;
            }
            assert!(begun.elapsed() < LONG);
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_load_is_put_from_where_the_server_is_and_told_of() {
        let (one, two) = (started("one"), started("two"));
        let ask = |body: &str| {
            let mut stream = TcpStream::connect(&one).unwrap();
            let head = format!("POST /load HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
            write!(stream, "{head}\r\n{body}").unwrap();
            let answer = http::read(&mut stream, true).unwrap();
            let status = http::status(&answer.start).unwrap();
            (status, String::from_utf8(answer.body).unwrap())
        };
        let body = |by: &str, at_once: u32| {
            format!(
                r#"{{"to":"{two}","by":{by},"at_once":{at_once},"for_ms":20,"limit_ms":60000}}"#
            )
        };
        for by in [r#""fresh""#, r#""kept""#, r#"{"transfer":{"octets":1000}}"#] {
            let (status, report) = ask(&body(by, 2));
            let report: crate::LoadReport = serde_json::from_str(&report).unwrap();
            assert_eq!((status, report.failure), (200, None));
            assert!(report.answered > 0);
        }
        for wrong in ["{}".to_owned(), body(r#""fresh""#, 0), body(r#""slow""#, 1)] {
            assert_eq!(ask(&wrong).0, 400, "{wrong}");
        }
    }

    #[test]
    fn datagrams_are_sent_and_told_of_over_http() {
        let (one, two) = (started("one"), started("two"));
        let ask = |to: &str, method: &str, body: &str| {
            let mut stream = TcpStream::connect(to).unwrap();
            let length = body.len();
            let head = format!("{method} /datagrams HTTP/1.1\r\nContent-Length: {length}\r\n");
            write!(stream, "{head}\r\n{body}").unwrap();
            let answer = http::read(&mut stream, true).unwrap();
            let report = serde_json::from_slice::<DatagramsReport>(&answer.body);
            (http::status(&answer.start).unwrap(), report.ok())
        };
        let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap();
        let port = port.port();
        let request = format!(r#"{{"to":"{two}","source_port":{port},"interval_ms":10}}"#);
        assert_eq!(ask(&one, "POST", "{}").0, 400);
        let (status, report) = ask(&one, "POST", &request);
        assert_eq!(status, 200);
        assert_eq!(report.unwrap().sent.unwrap().request.source_port, port);
        assert_eq!(ask(&one, "POST", &request).0, 409);
        let begun = Instant::now();
        loop {
            let received = ask(&two, "GET", "").1.unwrap().received;
            if received.iter().any(|it| it.count > 2) {
                assert_eq!(received[0].from.port(), port);
                break;
            }
            assert!(begun.elapsed() < LONG);
            thread::sleep(Duration::from_millis(20));
        }
        let ended = ask(&one, "DELETE", "").1.unwrap().sent.unwrap();
        assert!(!ended.goes_on && ended.sent > 2, "{ended:?}");
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
