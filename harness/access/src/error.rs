//! Everything that can go wrong on the way into a cluster.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::socket::FILE;

/// Why a cluster cannot be served or reached.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The folder of the socket cannot be used.
    #[error("cannot {doing} {path:?}")]
    Folder {
        /// What was being done.
        doing: &'static str,
        /// The folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The socket could not be made.
    #[error("cannot {doing} the socket {FILE} in {dir:?}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// Its folder.
        dir: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Another cluster is, or was, served in that folder.
    #[error("a cluster is served in {dir:?} already")]
    Taken {
        /// The folder.
        dir: PathBuf,
    },
    /// The other side closed, or answered something else than the protocol says.
    #[error("the process that runs the cluster {what}; was it ended, or is it another version?")]
    Protocol {
        /// What it did.
        what: &'static str,
        /// The operating system's or the parser's words.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The process that runs the cluster cannot do what was asked.
    #[error("{0}")]
    Refused(String),
    /// A key is not in OpenSSH's format.
    #[error("cannot read the SSH key {what}")]
    Key {
        /// Which one.
        what: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node took the connection and did not come to a session in time.
    #[error("{node} did not answer SSH within {} s; is it stuck? `cargo xtask console {node}` shows its last words", limit.as_secs())]
    TimedOut {
        /// The node.
        node: String,
        /// What was allowed.
        limit: Duration,
    },
    /// The SSH session could not be opened, or ended before its command did.
    #[error("the SSH session with {node} {what}")]
    Session {
        /// The node.
        node: String,
        /// What became of it.
        what: &'static str,
        /// What the SSH library says, if anything.
        source: Option<Box<russh::Error>>,
    },
    /// The node shows another SSH host key than the cluster's.
    #[error("{node} shows the SSH host key {seen}, expected {expected}; is it another machine?")]
    HostKey {
        /// The node.
        node: String,
        /// What it showed.
        seen: String,
        /// What it should have.
        expected: String,
    },
    /// Our own terminal or streams failed.
    #[error("cannot {doing}")]
    Local {
        /// What was being done.
        doing: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A local file for kubectl cannot be read.
    #[error("cannot read {path:?}, which -f names: kubectl is given files of this machine")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The local files could not be put on the node.
    #[error("cannot send the files that -f names to {node}: {reason}")]
    Upload {
        /// The node.
        node: String,
        /// What the node said.
        reason: String,
    },
}

impl AccessError {
    pub(crate) fn local(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local { doing, source }
    }

    pub(crate) fn closed(source: io::Error) -> Self {
        Self::Protocol {
            what: "closed the connection",
            source: Some(source.into()),
        }
    }
}
