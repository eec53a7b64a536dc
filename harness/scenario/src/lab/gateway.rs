//! The host outside the cluster, which the segment's gateway plays.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use podwire_cluster::addresses;
use podwire_lan::{ContactProtocol, LanError, SegmentStream};
use podwire_probe::{Counted, Identity, Kind, Outcome, TargetReport};
use tokio::time::timeout;

use crate::check::party::{Asker, Party};
use crate::lab::Lab;
use crate::lab::ask::{Ended, answered_by};

/// What a request from outside may take. As in guests it is not stretched: where nobody answers, it is
/// always waited for.
const REQUEST: Duration = Duration::from_secs(10);
/// Octets of an answer at most.
const ANSWER: usize = 64 * 1024;

/// The host outside the cluster, which the gateway plays.
pub struct Outside<'lab> {
    lab: &'lab Lab,
}

impl Lab {
    /// The host outside the cluster.
    pub fn outside(&self) -> Outside<'_> {
        Outside { lab: self }
    }
}

impl<'lab> Outside<'lab> {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        addresses::OUTSIDE
    }

    /// The address of [`Outside::ask`]'s client: the nodes' router.
    pub fn client(&self) -> Ipv4Addr {
        addresses::GATEWAY
    }

    /// A client that is no part of the cluster asks an address of a node at a port, once, when it is awaited;
    /// it waits ten seconds. What became of the request is in the report.
    pub fn ask(&self, to: Ipv4Addr, port: u16) -> AskFromOutside<'lab> {
        AskFromOutside {
            lab: self.lab,
            to: SocketAddrV4::new(to, port),
        }
    }

    /// Its name in the DNS that nodes ask.
    pub fn name(&self) -> &'static str {
        addresses::OUTSIDE_NAME
    }

    /// How often it was contacted so from this address: echo requests, connections, datagrams. Questions
    /// to the gateway's DNS are counted here, too.
    pub fn contacts_from(&self, source: Ipv4Addr, protocol: ContactProtocol) -> u64 {
        let log = self.lab.cluster().segment().gateway().outside_log();
        let alike = log.iter().filter(|contact| contact.protocol == protocol);
        let own = alike.filter(|contact| contact.source == source);
        own.map(|contact| contact.count).sum()
    }

    /// Who contacted it, and how often, in one line.
    pub fn contacts(&self) -> String {
        let log = self.lab.cluster().segment().gateway().outside_log();
        let lines = log
            .iter()
            .map(|it| format!("{} {:?} x{}", it.source, it.protocol, it.count));
        lines.collect::<Vec<_>>().join(", ")
    }
}

/// A request of somebody outside, sent when it is awaited.
#[must_use = "requests are sent when they are awaited"]
pub struct AskFromOutside<'lab> {
    lab: &'lab Lab,
    to: SocketAddrV4,
}

impl<'lab> AskFromOutside<'lab> {
    /// Sends it, and it is answered by one of these, by its own name, see
    /// [`assert::all_answered_by`](crate::assert::all_answered_by). It gives the
    /// report.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with what it did instead, and how far it came; there is no segment any more.
    pub async fn all_answered_by(
        self,
        parties: impl AsRef<[Party]>,
        expected: impl AsRef<str>,
    ) -> anyhow::Result<TargetReport> {
        let (lab, from, parties) = (self.lab, Asker::Outside, parties.as_ref());
        let since = lab.wire().now()?;
        let report = self.send().await?;
        let verdict = answered_by(expected.as_ref(), parties)(&from.end(), &report);
        let ended = Ended {
            from,
            kind: Kind::Http,
            since,
            report,
        };
        lab.judged(ended, Outcome::Answered, parties, verdict).await
    }

    async fn send(self) -> anyhow::Result<TargetReport> {
        let Self { lab, to } = self;
        let gateway = lab.cluster().segment().gateway();
        let counted = match gateway.connect(to, REQUEST).await {
            Ok(stream) => match timeout(REQUEST, fetch(stream, to)).await {
                Ok(Ok(counted)) => counted,
                Ok(Err(error)) => ended(Outcome::Other, error.to_string()),
                Err(_) => ended(Outcome::TimedOut, "connected, and not answered".to_owned()),
            },
            Err(LanError::Stopped) => return Err(LanError::Stopped.into()),
            Err(error) => ended(outcome(&error), error.to_string()),
        };
        Ok(TargetReport {
            target: to.to_string(),
            results: vec![counted],
            unsent: 0,
            attempts: Vec::new(),
        })
    }
}

impl<'lab> IntoFuture for AskFromOutside<'lab> {
    type Output = anyhow::Result<TargetReport>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'lab>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

fn outcome(error: &LanError) -> Outcome {
    match error {
        LanError::Refused { .. } => Outcome::Refused,
        LanError::TimedOut { .. } => Outcome::TimedOut,
        LanError::NoRoute { .. } => Outcome::NoRoute,
        _ => Outcome::Other,
    }
}

fn ended(outcome: Outcome, error: String) -> Counted {
    Counted {
        outcome,
        host: None,
        client: None,
        count: 1,
        octets: None,
        slowest_ms: None,
        error: Some(error),
    }
}

/// One request on a connection of its own.
async fn fetch(stream: SegmentStream, to: SocketAddrV4) -> anyhow::Result<Counted> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/").header("Host", to.to_string());
    // It ends with its sender, and the connection with it.
    let asked = async move {
        let answer = sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("a broken answer: {error}"))?;
        Ok::<_, anyhow::Error>((status, body.to_bytes()))
    };
    let (asked, _) = futures::future::join(asked, connection).await;
    let (status, body) = asked?;
    if status != StatusCode::OK {
        return Ok(ended(Outcome::HttpStatus, status.to_string()));
    }
    Ok(match serde_json::from_slice::<Identity>(&body) {
        Ok(identity) => Counted {
            outcome: Outcome::Answered,
            host: Some(identity.host),
            client: Some(identity.client),
            error: None,
            ..ended(Outcome::Answered, String::new())
        },
        Err(error) => ended(Outcome::Malformed, error.to_string()),
    })
}
