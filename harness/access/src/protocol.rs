//! What is said on the socket: one line of JSON each way, then bytes.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use podwire_lan::{Check, Rule, RulesReport};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};

use crate::AccessError;

/// Longest line that is read.
const LINE_BYTES: u64 = 1 << 20;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// A connection to the node's sshd.
    Ssh {
        /// Its name.
        node: String,
    },
    /// What the node prints on its serial line.
    Console {
        /// Its name.
        node: String,
    },
    /// A connection to a port of a node.
    Dial {
        /// Its name.
        node: String,
        /// The port, of TCP.
        port: u16,
    },
    /// What runs here.
    Describe,
    /// To learn of the cluster's end.
    Attend,
    /// Something of the segment's.
    Wire(WireRequest),
    /// The segment's frames, as they are switched.
    Capture {
        /// Only what enters and leaves by this node's port.
        node: Option<String>,
        /// Which frames, in the words of [`podwire_lan::Filter`].
        filter: String,
    },
}

/// What a client wants of the segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WireRequest {
    /// Rules to be merged, all of them or none, and an address filter.
    Impair {
        /// The rules.
        rules: Vec<Rule>,
        /// The node whose addresses are checked, and how.
        check: Option<(String, Check)>,
    },
    /// What is set.
    Show,
    /// To heal what is set for a node, in either direction, or everything.
    Heal {
        /// Its name.
        node: Option<String>,
    },
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// What follows are the bytes of sshd.
    Ssh {
        /// The file with root's private key.
        user_key: PathBuf,
        /// The node's public host key.
        host_key: String,
    },
    /// What follows are the bytes of the serial line.
    Console,
    /// What follows are the bytes of whoever listens at the port.
    Dial,
    /// Nothing follows.
    Description(Description),
    /// Nothing follows, and the connection ends with the cluster.
    Attend,
    /// What follows is a pcapng stream.
    Capture,
    /// Nothing follows: what was set or healed, or all that is set.
    Rules(RulesReport),
    /// Nothing follows.
    Refused {
        /// Why, for a person.
        reason: String,
    },
}

/// What runs in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// What it is: `stage workload, Kubernetes 1.36.4`, `scenario static_routes, which failed`.
    pub what: String,
    /// When it began to be served, in seconds since 1970.
    pub started: i64,
    /// The process that runs it.
    pub pid: u32,
    /// Its nodes, by number.
    pub nodes: Vec<NodeAddress>,
    /// The machine between its segments, where it has two.
    pub router: Option<NodeAddress>,
}

impl Description {
    /// All its machines: the nodes by number, then the router.
    pub fn machines(&self) -> impl Iterator<Item = &NodeAddress> {
        self.nodes.iter().chain(&self.router)
    }
}

/// A machine of a cluster, and where it is on the segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// `node1`, or `router`.
    pub name: String,
    /// Its address; it means nothing outside the segment.
    pub address: Ipv4Addr,
}

/// Reads one line; not a byte behind it is lost to `from`.
pub(crate) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> Result<T, AccessError> {
    let mut line = Vec::new();
    let mut limited = from.take(LINE_BYTES);
    limited
        .read_until(b'\n', &mut line)
        .await
        .map_err(AccessError::closed)?;
    if line.last() != Some(&b'\n') {
        return Err(AccessError::Protocol {
            what: "closed the connection",
            source: None,
        });
    }
    serde_json::from_slice(&line).map_err(|error| AccessError::Protocol {
        what: "says something that makes no sense here",
        source: Some(error.into()),
    })
}

pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    value: &impl Serialize,
) -> Result<(), AccessError> {
    let mut line = serde_json::to_vec(value).map_err(|error| AccessError::Protocol {
        what: "cannot be told what is wanted",
        source: Some(error.into()),
    })?;
    line.push(b'\n');
    to.write_all(&line).await.map_err(AccessError::closed)?;
    to.flush().await.map_err(AccessError::closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    #[test]
    fn requests_look_like_this() {
        let ssh = Request::Ssh {
            node: "node1".into(),
        };
        insta::assert_snapshot!(serde_json::to_string(&ssh).unwrap(), @r#"{"ssh":{"node":"node1"}}"#);
        insta::assert_snapshot!(serde_json::to_string(&Request::Describe).unwrap(), @r#""describe""#);
        let dial = Request::Dial {
            node: "node1".into(),
            port: 6443,
        };
        insta::assert_snapshot!(serde_json::to_string(&dial).unwrap(), @r#"{"dial":{"node":"node1","port":6443}}"#);
        let heal = Request::Wire(WireRequest::Heal { node: None });
        insta::assert_snapshot!(serde_json::to_string(&heal).unwrap(), @r#"{"wire":{"heal":{"node":null}}}"#);
    }

    #[tokio::test]
    async fn what_follows_a_line_stays_readable() {
        let mut stream = BufReader::new(&b"\"describe\"\nSSH-2.0"[..]);
        assert_eq!(
            read::<Request>(&mut stream).await.unwrap(),
            Request::Describe
        );
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "SSH-2.0");
    }

    #[tokio::test]
    async fn a_stranger_and_a_sudden_end_are_told_apart() {
        let said = async |bytes: &[u8]| {
            let mut stream = BufReader::new(bytes);
            read::<Request>(&mut stream).await.unwrap_err().to_string()
        };
        assert!(said(b"GET / HTTP/1.1\r\n").await.contains("makes no sense"));
        assert!(said(b"\"descr").await.contains("closed"));
    }
}
