//! A client's connection to the process that runs a cluster.

use std::io;
use std::path::Path;
use std::time::Duration;

use podwire_lan::{CaptureCount, Check, Rule, RulesReport};
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::protocol::{self, Answer, Request, WireRequest};
use crate::{AccessError, Description, Shell, socket};

/// A process that is stopped, or about to end, does not answer.
const DESCRIBE: Duration = Duration::from_secs(2);

/// For key exchange and authentication, once the node has accepted the connection: generous, for
/// a busy node without KVM.
const SESSION: Duration = Duration::from_secs(90);

/// A connection over which one thing can be asked for.
pub struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    /// Connects to the cluster served in a folder; `None` when there is none.
    ///
    /// # Errors
    /// [`AccessError::Folder`], [`AccessError::Socket`].
    pub async fn open(dir: &Path) -> Result<Option<Self>, AccessError> {
        let stream = socket::connect(dir).await?;
        Ok(stream.map(|stream| Self {
            stream: BufReader::new(stream),
        }))
    }

    /// What runs there.
    ///
    /// # Errors
    /// [`AccessError::Protocol`], also when there is no answer within two seconds.
    pub async fn describe(mut self) -> Result<Description, AccessError> {
        match timeout(DESCRIBE, self.ask(Request::Describe)).await {
            Ok(Ok(Answer::Description(description))) => Ok(description),
            Ok(Ok(_)) => Err(unexpected()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(AccessError::Protocol {
                what: "does not answer",
                source: None,
            }),
        }
    }

    /// An SSH session with a node, as root.
    ///
    /// # Errors
    /// [`AccessError`]; an unknown node is [`AccessError::Refused`] with the names that there are.
    pub async fn ssh(mut self, node: &str) -> Result<Shell, AccessError> {
        let request = Request::Ssh {
            node: node.to_owned(),
        };
        match self.ask(request).await? {
            Answer::Ssh { user_key, host_key } => {
                Shell::open(self.stream, node, &user_key, &host_key, SESSION).await
            }
            _ => Err(unexpected()),
        }
    }

    /// A connection to a port of a node.
    ///
    /// # Errors
    /// [`AccessError::Refused`] for an unknown node, and for one where nobody takes the connection;
    /// [`AccessError::Protocol`].
    pub(crate) async fn dial(
        mut self,
        node: &str,
        port: u16,
    ) -> Result<BufReader<UnixStream>, AccessError> {
        let request = Request::Dial {
            node: node.to_owned(),
            port,
        };
        match self.ask(request).await? {
            Answer::Dial => Ok(self.stream),
            _ => Err(unexpected()),
        }
    }

    /// Resolves when the cluster has ended.
    ///
    /// # Errors
    /// [`AccessError::Protocol`].
    pub(crate) async fn attend(mut self) -> Result<(), AccessError> {
        let Answer::Attend = self.ask(Request::Attend).await? else {
            return Err(unexpected());
        };
        // A process that is killed resets the connection: an end like any other.
        let _ = self.stream.read(&mut [0]).await;
        Ok(())
    }

    /// Gives `show` what a node prints on its serial line: the last 16 KiB, then what comes, until the
    /// cluster ends. It is a guest's, as it is: a terminal would obey it.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn console(
        mut self,
        node: &str,
        mut show: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), AccessError> {
        let request = Request::Console {
            node: node.to_owned(),
        };
        let Answer::Console = self.ask(request).await? else {
            return Err(unexpected());
        };
        let mut buffer = vec![0; 16 << 10];
        loop {
            // A process that is killed resets the connection: an end like any other.
            let count = self.stream.read(&mut buffer).await.unwrap_or(0);
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            show(bytes).map_err(AccessError::local("write to standard output"))?;
        }
    }

    /// Merges rules into those of the segment, all of them or none, and has the addresses of a node checked.
    /// Gives these rules as they are now, and that filter.
    ///
    /// # Errors
    /// [`AccessError::Refused`] for what contradicts itself, or names what is not there;
    /// [`AccessError::Protocol`].
    pub async fn impair(
        self,
        rules: Vec<Rule>,
        check: Option<(String, Check)>,
    ) -> Result<RulesReport, AccessError> {
        self.wire(WireRequest::Impair { rules, check }).await
    }

    /// Gives `take` the segment's frames as a pcapng stream, from now on, until `enough` or the
    /// cluster's end: those that enter and leave by a node's port, or each once. Says how many there were,
    /// and how many were lost because `take` was too slow.
    ///
    /// # Errors
    /// [`AccessError::Refused`] for a node that is not there and an expression that is none;
    /// [`AccessError::Protocol`]; [`AccessError::Local`] when `take` fails.
    pub async fn capture(
        mut self,
        node: Option<String>,
        filter: String,
        enough: impl Future<Output = ()>,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<CaptureCount, AccessError> {
        let Answer::Capture = self.ask(Request::Capture { node, filter }).await? else {
            return Err(unexpected());
        };
        let mut count = CaptureCount::default();
        let mut buffer = vec![0; 64 << 10];
        let mut enough = std::pin::pin!(enough);
        loop {
            let read = tokio::select! {
                read = self.stream.read(&mut buffer) => read.unwrap_or(0),
                () = &mut enough => 0,
            };
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                return Ok(count);
            };
            count.feed(bytes).map_err(|error| AccessError::Protocol {
                what: "sends something that is no capture",
                source: Some(error.into()),
            })?;
            take(bytes).map_err(AccessError::local("write the capture"))?;
        }
    }

    /// All that is set on the segment.
    ///
    /// # Errors
    /// [`AccessError::Protocol`].
    pub async fn rules(self) -> Result<RulesReport, AccessError> {
        self.wire(WireRequest::Show).await
    }

    /// Heals what is set for a node, in either direction, or everything; gives what that was.
    ///
    /// # Errors
    /// [`AccessError::Refused`] for a node that is not there; [`AccessError::Protocol`].
    pub async fn heal(self, node: Option<String>) -> Result<RulesReport, AccessError> {
        self.wire(WireRequest::Heal { node }).await
    }

    async fn wire(mut self, request: WireRequest) -> Result<RulesReport, AccessError> {
        match self.ask(Request::Wire(request)).await? {
            Answer::Rules(report) => Ok(report),
            _ => Err(unexpected()),
        }
    }

    async fn ask(&mut self, request: Request) -> Result<Answer, AccessError> {
        protocol::write(&mut self.stream, &request).await?;
        match protocol::read(&mut self.stream).await? {
            Answer::Refused { reason } => Err(AccessError::Refused(reason)),
            answer => Ok(answer),
        }
    }
}

fn unexpected() -> AccessError {
    AccessError::Protocol {
        what: "answers another question",
        source: None,
    }
}
