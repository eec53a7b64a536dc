//! Everything that can go wrong on the way into a cluster.

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use podwire_vm::SshError;

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
    /// No SSH session with the node came about.
    #[error("no SSH session with {node}; `cargo xtask console {node}` shows its last words")]
    Ssh {
        /// The node.
        node: String,
        /// Why.
        source: Box<SshError>,
    },
    /// The SSH session ended before its command did.
    #[error("the SSH session with {node} {what}")]
    Session {
        /// The node.
        node: String,
        /// What became of it.
        what: &'static str,
        /// What the SSH library says, if anything.
        source: Option<Box<russh::Error>>,
    },
    /// Nobody can be listened for on this host's loopback.
    #[error(
        "cannot listen on {address} of this host; take another port, or let the kernel choose one"
    )]
    Listen {
        /// Where.
        address: SocketAddrV4,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A node's root has no kubeconfig that somebody else could use.
    #[error("{0}")]
    Kubeconfig(String),
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
