//! Asking the DNS for a name, and saying all that it answers.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::dns::{self, Answer, AskError, Config, NAME_ERROR, Record, RecordKind};

/// Which name to ask for, and whom. It is the DNS that is asked: /etc/hosts is not looked at.
///
/// ```
/// let request: podwire_probe::ResolveRequest =
///     serde_json::from_str(r#"{"name":"_http._tcp.web.default.svc.cluster.local","kind":"SRV"}"#)
///         .unwrap();
/// assert_eq!((request.search, request.limit_ms), (false, 5000));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The name, with or without a final dot.
    pub name: String,
    /// The type of records to ask for; `A` when absent.
    #[serde(default)]
    pub kind: RecordKind,
    /// `ADDRESS` or `ADDRESS:PORT` (port 53); the first nameserver of /etc/resolv.conf when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Whether the `search` domains and `ndots` of /etc/resolv.conf hold, as resolv.conf(5) says. A
    /// name that is not found, or has no such record, is then asked for in the next way; anything else
    /// is the end. The name is taken as absolute when absent.
    #[serde(default)]
    pub search: bool,
    /// What all of it may take, in milliseconds; 5000 when absent. Once a second a question without
    /// an answer is asked again.
    #[serde(default = "five_seconds")]
    pub limit_ms: u64,
}

fn five_seconds() -> u64 {
    5000
}

impl ResolveRequest {
    /// A request for one absolute name, with the defaults.
    pub fn new(name: impl Into<String>, kind: RecordKind) -> Self {
        Self {
            name: name.into(),
            kind,
            server: None,
            search: false,
            limit_ms: five_seconds(),
        }
    }

    /// The same to another server.
    #[must_use]
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// The same, with the search domains.
    #[must_use]
    pub fn search(mut self) -> Self {
        self.search = true;
        self
    }

    /// The same with another limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// The longest that it can take.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.limit_ms)
    }
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolveOutcome {
    /// There is at least one record of the type that was asked for.
    Answered,
    /// The name, or the one that it is an alias of, does not exist (NXDOMAIN).
    NameNotFound,
    /// The name exists, but has no record of this type (NODATA: RFC 2308, 2.2).
    NoData,
    /// The server answered with another error code: SERVFAIL, REFUSED, ...
    ErrorCode,
    /// No answer came in time.
    TimedOut,
    /// The network, or the server's machine, said that the server cannot be reached: an ICMP error
    /// (no route, nobody listens at the port), or a reset of the TCP connection.
    Unreachable,
    /// What came is no answer, or a broken one.
    Malformed,
    /// None of these: the error's text says what.
    Other,
}

impl fmt::Display for ResolveOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::NameNotFound => "name not found",
            Self::NoData => "no data",
            Self::ErrorCode => "error code",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed",
            Self::Other => "other",
        })
    }
}

/// What was answered, raw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveReport {
    /// The name as it was asked for last: with a search domain where one was added.
    pub name: String,
    /// The type that was asked for.
    pub kind: RecordKind,
    /// Who was asked, `ADDRESS:PORT`; nothing when the request and resolv.conf name nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// How the last question ended.
    pub outcome: ResolveOutcome,
    /// The answer's response code (RFC 1035, 4.1.1), 0 for no error; nothing without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// The whole answer section in its order, aliases (CNAME) and duplicates included, whatever the
    /// response code.
    pub records: Vec<Record>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ResolveReport {
    /// The addresses of all A and AAAA records, in the answer's order, duplicates included.
    pub fn addresses(&self) -> Vec<IpAddr> {
        dns::addresses(&self.records).collect()
    }
}

/// One line: `web.test A at 10.96.0.10:53: answered: web.test 30 A 10.1.1.2, web.test 30 A 10.1.2.2`.
impl fmt::Display for ResolveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.kind)?;
        if let Some(server) = self.server {
            write!(f, " at {server}")?;
        }
        write!(f, ": {}", self.outcome)?;
        if let Some(error) = &self.error {
            write!(f, " ({error})")?;
        }
        for (index, record) in self.records.iter().enumerate() {
            let between = if index == 0 { ":" } else { "," };
            write!(f, "{between} {record}")?;
        }
        Ok(())
    }
}

/// Does what the request says. Takes at most [`ResolveRequest::longest`] and a little.
pub fn resolve(request: &ResolveRequest) -> ResolveReport {
    resolve_with(request, &Config::read())
}

fn resolve_with(request: &ResolveRequest, config: &Config) -> ResolveReport {
    let end = Instant::now() + request.longest();
    let unasked = |error: String| ResolveReport {
        name: request.name.clone(),
        kind: request.kind,
        server: None,
        outcome: ResolveOutcome::Other,
        code: None,
        records: Vec::new(),
        error: Some(error),
    };
    let server = match &request.server {
        Some(text) => address(text),
        None => config.server().map_err(|error| error.to_string()),
    };
    let server = match server {
        Ok(server) => server,
        Err(error) => return unasked(error),
    };
    let names = if request.search {
        config.candidates(&request.name)
    } else {
        vec![request.name.clone()]
    };
    let mut last = None;
    for name in names {
        let report = ask(server, name, request.kind, end);
        let goes_on = [ResolveOutcome::NameNotFound, ResolveOutcome::NoData];
        let is_final = !goes_on.contains(&report.outcome);
        last = Some(report);
        if is_final {
            break;
        }
    }
    last.unwrap_or_else(|| unasked("no name".into()))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| (ip, dns::PORT).into());
    alone
        .or_else(|_| text.parse())
        .map_err(|_| format!("{text:?} is no server: ADDRESS or ADDRESS:PORT"))
}

fn ask(server: SocketAddr, name: String, kind: RecordKind, end: Instant) -> ResolveReport {
    let (outcome, code, records, error) = match dns::ask(server, &name, kind, end) {
        Ok(answer) => {
            let (outcome, error) = judged(&answer, kind);
            (outcome, Some(answer.code), answer.records, error)
        }
        Err(error) => {
            let (outcome, error) = failed(&error);
            (outcome, None, Vec::new(), Some(error))
        }
    };
    ResolveReport {
        name,
        kind,
        server: Some(server),
        outcome,
        code,
        records,
        error,
    }
}

fn judged(answer: &Answer, kind: RecordKind) -> (ResolveOutcome, Option<String>) {
    let mut kinds = answer.records.iter().map(|record| record.data.kind());
    match answer.code {
        0 if kinds.any(|each| each == Some(kind)) => (ResolveOutcome::Answered, None),
        0 => (ResolveOutcome::NoData, None),
        NAME_ERROR => (ResolveOutcome::NameNotFound, None),
        code => {
            // The names of RFC 1035, 4.1.1, as tools write them.
            let name = match code {
                1 => ", FORMERR",
                2 => ", SERVFAIL",
                4 => ", NOTIMP",
                5 => ", REFUSED",
                _ => "",
            };
            (ResolveOutcome::ErrorCode, Some(format!("{code}{name}")))
        }
    }
}

fn failed(error: &AskError) -> (ResolveOutcome, String) {
    use io::ErrorKind as Kind;
    let outcome = match error {
        AskError::Name(_) => ResolveOutcome::Other,
        AskError::Malformed => ResolveOutcome::Malformed,
        AskError::Io(error) => match error.kind() {
            // A socket's own time limit shows as WouldBlock.
            Kind::TimedOut | Kind::WouldBlock => ResolveOutcome::TimedOut,
            Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe => ResolveOutcome::Unreachable,
            // Closed in the middle of a message.
            Kind::UnexpectedEof => ResolveOutcome::Malformed,
            _ => ResolveOutcome::Other,
        },
    };
    let error = match outcome {
        ResolveOutcome::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    };
    (outcome, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::fake;
    use std::net::UdpSocket;

    /// For what comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);

    fn request(server: SocketAddr) -> ResolveRequest {
        let request = ResolveRequest::new("web.test", RecordKind::A);
        request.server(server.to_string()).limit(LONG)
    }

    /// What is reported of a server that answers so, its address left out.
    fn reported(code: u8, records: &[&[u8]]) -> String {
        let records: Vec<Vec<u8>> = records.iter().map(|record| record.to_vec()).collect();
        let server = fake::server(move |_, query| {
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            vec![fake::answer(query, code, &records)]
        });
        let mut report = resolve(&request(server));
        assert_eq!((report.server, report.code), (Some(server), Some(code)));
        report.server = None;
        report.to_string()
    }

    #[test]
    fn all_that_is_answered_is_reported_in_its_order() {
        let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x05\0\x04\x01x\xc0\x10".as_slice();
        let [one, two] = [fake::address(1), fake::address(2)];
        let lines = [
            reported(0, &[alias, &two, &one, &two]),
            reported(0, &[alias]),
            reported(0, &[]),
            reported(3, &[alias]),
            reported(5, &[]),
            reported(9, &[]),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        web.test A: answered: web.test 5 CNAME x.test, web.test 30 A 10.1.1.2, web.test 30 A 10.1.1.1, web.test 30 A 10.1.1.2
        web.test A: no data: web.test 5 CNAME x.test
        web.test A: no data
        web.test A: name not found: web.test 5 CNAME x.test
        web.test A: error code (5, REFUSED)
        web.test A: error code (9)
        "#);
    }

    #[test]
    fn addresses_are_those_of_the_records_duplicates_included() {
        let server = fake::server(|_, query| {
            let [one, two] = [fake::address(1), fake::address(2)];
            vec![fake::answer(query, 0, &[&two, &one, &two])]
        });
        let addresses = [2, 1, 2].map(|last| IpAddr::from([10, 1, 1, last]));
        let report = resolve(&request(server));
        assert_eq!(report.addresses(), addresses);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(
            serde_json::from_str::<ResolveReport>(&json).unwrap(),
            report
        );
    }

    #[test]
    fn reasons_for_no_answer_are_told_apart() {
        let of = |request: &ResolveRequest| {
            let report = resolve(request);
            assert_eq!((report.code, report.records.len()), (None, 0));
            (report.outcome, report.error.unwrap())
        };
        let silent = fake::server(|_, _| Vec::new());
        assert_eq!(
            of(&request(silent).limit(Duration::from_millis(300))),
            (ResolveOutcome::TimedOut, "no answer in time".into())
        );
        let broken = fake::server(|_, query| vec![query[..4].to_vec()]);
        assert_eq!(of(&request(broken)).0, ResolveOutcome::Malformed);
        // Nobody else is given its port, and it takes datagrams only from its own: for any other the
        // kernel answers with an ICMP port unreachable.
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        nobody.connect(nobody.local_addr().unwrap()).unwrap();
        let nobody = request(nobody.local_addr().unwrap());
        assert_eq!(of(&nobody).0, ResolveOutcome::Unreachable);
        for (request, expected) in [
            (request(silent).server("dns.test"), "is no server"),
            (
                ResolveRequest {
                    name: "a..test".into(),
                    ..request(silent)
                },
                "is no host name",
            ),
        ] {
            let (outcome, error) = of(&request);
            assert_eq!(outcome, ResolveOutcome::Other);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        let port_of = |text| address(text).map(|address| address.port());
        assert_eq!(port_of("10.96.0.10"), Ok(53));
        assert_eq!(port_of("10.96.0.10:5353"), Ok(5353));
        assert_eq!(port_of("fd00::a"), Ok(53));
        assert_eq!(port_of("[fd00::a]:5353"), Ok(5353));
        let config = Config::parse("");
        let absent = resolve_with(&ResolveRequest::new("web.test", RecordKind::A), &config);
        assert_eq!(absent.server, None);
        assert_eq!(absent.error.unwrap(), "no nameserver in /etc/resolv.conf");
    }

    #[test]
    fn search_domains_are_tried_until_a_name_has_the_record() {
        let server = fake::server(|_, query| {
            let name = &query[12..query.len() - 4];
            vec![match name {
                b"\x03web\x05empty\x04test\0" => fake::answer(query, 0, &[]),
                b"\x03web\x04full\x04test\0" => fake::answer(query, 0, &[&fake::address(2)]),
                b"\x03web\x04sick\x04test\0" => fake::answer(query, 2, &[]),
                _ => fake::answer(query, 3, &[]),
            }]
        });
        let found = |name: &str, search: bool, config: &str| {
            let request = ResolveRequest {
                name: name.into(),
                search,
                ..request(server)
            };
            let report = resolve_with(&request, &Config::parse(config));
            (report.name, report.outcome)
        };
        let pair = |name: &str, outcome| (name.to_owned(), outcome);
        let found_last = "search absent.test empty.test full.test";
        let answered = pair("web.full.test", ResolveOutcome::Answered);
        assert_eq!(found("web", true, found_last), answered);
        let absent = pair("web", ResolveOutcome::NameNotFound);
        assert_eq!(found("web", false, found_last), absent);
        assert_eq!(found("web", true, "search absent.test empty.test"), absent);
        let sick = pair("web.sick.test", ResolveOutcome::ErrorCode);
        assert_eq!(found("web", true, "search sick.test full.test"), sick);
    }
}
