//! A load: as many requests as fit into some time, so many at once, and how long each took.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::client;
use crate::kind::{Kind, MAX_OCTETS};
use crate::report::Outcome;
use crate::stream::Open;

/// The longest time, and the most at once, of a load.
const MOST_MS: u64 = 60_000;
const MOST_AT_ONCE: u32 = 64;

/// What the requests of a load are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// An HTTP request, on a connection of its own.
    Fresh,
    /// A number of eight octets, said back on a connection that was there before.
    Kept,
    /// So many octets to the server, which tells their digest, on a connection of its own; 16 MiB at most.
    Transfer {
        /// How many.
        octets: u64,
    },
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("requests on fresh connections"),
            Self::Kept => f.write_str("requests on kept connections"),
            Self::Transfer { octets } => write!(f, "transfers of {octets} octets"),
        }
    }
}

/// Which load to put on whom: the body of `POST /load`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadRequest {
    /// The server that is asked.
    pub to: SocketAddr,
    /// What each request is.
    pub by: Load,
    /// How many are under way at once, 64 at most: as soon as one is answered the next is sent.
    pub at_once: u32,
    /// For how long requests are sent, in milliseconds; a minute at most. Those under way then are waited for.
    pub for_ms: u64,
    /// What one of them may take, in milliseconds; of a transfer, how long nothing of it may move.
    pub limit_ms: u64,
}

impl LoadRequest {
    /// The longest that it takes: its time, and what is under way then.
    pub fn longest(&self) -> Duration {
        let each = self.kind().longest(Duration::from_millis(self.limit_ms));
        Duration::from_millis(self.for_ms) + 2 * each
    }

    /// Its requests, where each has a connection of its own; else one like them.
    fn kind(&self) -> Kind {
        match self.by {
            Load::Fresh | Load::Kept => Kind::Http,
            Load::Transfer { octets } => Kind::Transfer {
                up: octets,
                down: 0,
            },
        }
    }

    fn refused(&self) -> Option<&'static str> {
        let too_long = matches!(self.by, Load::Transfer { octets } if octets > MAX_OCTETS);
        match self {
            _ if too_long => Some("a transfer is of 16 MiB at most"),
            Self { for_ms, .. } if !(1..=MOST_MS).contains(for_ms) => {
                Some("a load is for a minute at most, and a millisecond at least")
            }
            Self { at_once, .. } if !(1..=MOST_AT_ONCE).contains(at_once) => {
                Some("a load has 1 to 64 requests at once")
            }
            Self { limit_ms: 0, .. } => Some("a request needs some time"),
            _ => None,
        }
    }
}

/// What came of a load, by the sender's monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The load.
    pub request: LoadRequest,
    /// From the first request to the last answer, in microseconds.
    pub elapsed_us: u64,
    /// How many were answered.
    pub answered: u64,
    /// How many of these by whom, by their own names; those who do not say one have none.
    pub hosts: BTreeMap<String, u64>,
    /// What half of these took at most, in microseconds.
    pub median_us: u64,
    /// The first that was not answered, and why: none was sent after it.
    pub failure: Option<String>,
}

/// Carries out a load.
///
/// # Errors
/// Why it is none that anybody carries out.
pub(crate) fn load(request: &LoadRequest) -> Result<LoadReport, &'static str> {
    if let Some(why) = request.refused() {
        return Err(why);
    }
    let limit = Duration::from_millis(request.limit_ms);
    let mut senders = Vec::new();
    let mut failure = None;
    for _ in 0..request.at_once {
        match Sender::new(request, limit) {
            Ok(sender) => senders.push(sender),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if failure.is_some() {
        // Without all of them it is another load.
        senders.clear();
    }
    let failure = Mutex::new(failure);
    let has_failed = || failure.lock().is_ok_and(|failure| failure.is_some());
    let taken = Mutex::new((Vec::new(), BTreeMap::<String, u64>::new()));
    let begun = Instant::now();
    let end = begun + Duration::from_millis(request.for_ms);
    thread::scope(|scope| {
        for mut sender in senders {
            let (failure, taken) = (&failure, &taken);
            scope.spawn(move || {
                let (mut own, mut hosts) = (Vec::new(), BTreeMap::<String, u64>::new());
                while Instant::now() < end && !has_failed() {
                    let asked = Instant::now();
                    match sender.ask() {
                        Ok(host) => {
                            own.push(micros(asked.elapsed()));
                            *hosts.entry(host).or_default() += 1;
                        }
                        Err(error) => {
                            if let Ok(mut failure) = failure.lock() {
                                failure.get_or_insert(error);
                            }
                        }
                    }
                }
                if let Ok(mut taken) = taken.lock() {
                    taken.0.extend(own);
                    for (host, count) in hosts {
                        *taken.1.entry(host).or_default() += count;
                    }
                }
            });
        }
    });
    let elapsed_us = micros(begun.elapsed());
    let (mut taken, hosts) = taken.into_inner().unwrap_or_default();
    taken.sort_unstable();
    Ok(LoadReport {
        request: *request,
        elapsed_us,
        answered: taken.len() as u64,
        hosts,
        median_us: taken.get(taken.len() / 2).copied().unwrap_or_default(),
        failure: failure.into_inner().unwrap_or_default(),
    })
}

/// One of those that send at the same time.
struct Sender {
    to: String,
    kind: Kind,
    limit: Duration,
    /// The connection that is kept, and how many numbers have come back on it.
    kept: Option<(Open, u64)>,
}

impl Sender {
    fn new(request: &LoadRequest, limit: Duration) -> Result<Self, String> {
        let kept = match request.by {
            Load::Fresh | Load::Transfer { .. } => None,
            Load::Kept => {
                let open = Open::connect(request.to, limit);
                let open = open.and_then(|open| open.within(limit));
                Some((open.map_err(|error| format!("connect: {error}"))?, 0))
            }
        };
        Ok(Self {
            to: request.to.to_string(),
            kind: request.kind(),
            limit,
            kept,
        })
    }

    /// Gives who has answered.
    fn ask(&mut self) -> Result<String, String> {
        if let Some((open, number)) = &mut self.kept {
            let back = open.there_and_back(*number);
            back.map_err(|error| error.to_string())?;
            *number += 1;
            return Ok(open.host.clone());
        }
        let attempt = client::attempt(&self.to, self.kind, self.limit);
        match attempt.outcome {
            Outcome::Answered => Ok(attempt.host.unwrap_or_default()),
            outcome => Err(format!("{outcome}: {}", attempt.error.unwrap_or_default())),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Server;
    use std::net::TcpListener;

    fn started() -> SocketAddr {
        let server = Server::bind(0, "one".into()).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || server.run());
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn request(to: SocketAddr, by: Load) -> LoadRequest {
        LoadRequest {
            to,
            by,
            at_once: 4,
            for_ms: 50,
            limit_ms: 60_000,
        }
    }

    #[test]
    fn every_load_lasts_its_time_and_is_answered() {
        let to = started();
        for by in [Load::Fresh, Load::Kept, Load::Transfer { octets: 4096 }] {
            let report = load(&request(to, by)).unwrap();
            assert_eq!((report.request.by, &report.failure), (by, &None));
            assert_eq!(report.hosts, [("one".to_owned(), report.answered)].into());
            assert!(
                report.answered > 0 && report.elapsed_us >= 50_000,
                "{report:?}"
            );
            assert!(
                (1..=report.elapsed_us).contains(&report.median_us),
                "{report:?}"
            );
        }
    }

    #[test]
    fn a_load_ends_with_the_first_that_is_not_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        // Whoever connects is closed at once.
        thread::spawn(move || listener.incoming().for_each(drop));
        for by in [Load::Fresh, Load::Kept, Load::Transfer { octets: 1 << 20 }] {
            let long = LoadRequest {
                for_ms: MOST_MS,
                ..request(to, by)
            };
            let report = load(&long).unwrap();
            assert!(
                report.failure.is_some() && report.answered == 0,
                "{report:?}"
            );
            assert!(report.elapsed_us < MOST_MS * 1000);
        }
    }

    #[test]
    fn what_is_no_load_is_refused() {
        let fresh = request(started(), Load::Fresh);
        for wrong in [
            LoadRequest {
                at_once: 0,
                ..fresh
            },
            LoadRequest {
                at_once: 65,
                ..fresh
            },
            LoadRequest { for_ms: 0, ..fresh },
            LoadRequest {
                for_ms: MOST_MS + 1,
                ..fresh
            },
            LoadRequest {
                limit_ms: 0,
                ..fresh
            },
            LoadRequest {
                by: Load::Transfer {
                    octets: MAX_OCTETS + 1,
                },
                ..fresh
            },
        ] {
            assert!(load(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn its_longest_time_counts_what_is_under_way_at_the_end() {
        let fresh = request(SocketAddr::from(([10, 1, 1, 2], 80)), Load::Fresh);
        let fresh = LoadRequest {
            for_ms: 2000,
            limit_ms: 5000,
            ..fresh
        };
        assert_eq!(fresh.longest(), Duration::from_secs(12));
        let large = LoadRequest {
            by: Load::Transfer { octets: 1 << 20 },
            ..fresh
        };
        assert_eq!(large.longest(), Duration::from_secs(2 + 2 * 25));
    }
}
