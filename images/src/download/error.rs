use std::error::Error;
use std::io;
use std::time::Duration;

use bytesize::ByteSize;

use crate::CacheError;
use crate::address::{self, Address};
use crate::digest::Digest;
use crate::error::causes;
use crate::sources::SourceKey;

/// Why something is not here.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Nothing can be downloaded on this host.
    #[error("nothing can be downloaded on this host: {0}")]
    Host(String),
    /// The cache folder gave trouble.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A source did not give it.
    #[error("cannot download {url} (source `{key}`): {fault}; {}", fault.advice(*key))]
    Failed {
        /// Which source.
        key: SourceKey,
        /// What was asked for.
        url: Address,
        /// What happened.
        fault: DownloadFault,
    },
}

/// What happened to a download.
#[derive(Debug, thiserror::Error)]
pub enum DownloadFault {
    /// The server's name has no address.
    #[error("the name of the server is not found: {0}")]
    NameUnknown(String),
    /// There is no server.
    #[error("the connection was refused: {0}")]
    Refused(String),
    /// The server is not who it should be, or speaks another protocol.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// A proxy does not let it through.
    #[error("the proxy opens no connection: {0}")]
    Proxy(String),
    /// There was no connection for another reason.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The server does not have it.
    #[error("the server does not have it ({0})")]
    NotFound(u16),
    /// The server answered something else.
    #[error("the server answered {0}")]
    Status(String),
    /// Redirections without an end.
    #[error("the server redirects in circles, {0} times")]
    RedirectLoop(usize),
    /// A redirection from https to something that nobody vouches for.
    #[error("it is redirected from https to {0}, which nobody vouches for")]
    RedirectDown(String),
    /// Nothing came for too long.
    #[error("the server was silent for {} s", .0.as_secs_f64())]
    Silence(Duration),
    /// The connection broke.
    #[error("the connection broke after {got}: {reason}")]
    Cut {
        /// What had come, of this and earlier connections.
        got: ByteSize,
        /// What was said about it.
        reason: String,
    },
    /// The file is another one than was published.
    #[error("it is not what was published: it should be {expected} and is {found}")]
    Digest {
        /// What was published.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More came, or was announced, than such a thing has.
    #[error("it is larger than {0}, and no more is taken of what is asked for here")]
    TooLarge(ByteSize),
    /// A text is none.
    #[error("it is no text")]
    NoText,
    /// A list of digests does not have the one that is wanted.
    #[error("it says no digest of {file}")]
    NotListed {
        /// Of which file.
        file: String,
    },
    /// There is no room for it.
    #[error("too little disk space: {needed} needed, {available} available")]
    DiskFull {
        /// What is still to come.
        needed: ByteSize,
        /// What this user may still write.
        available: ByteSize,
    },
    /// It could not be written.
    #[error("it cannot be written: {0}")]
    Write(#[source] io::Error),
}

impl DownloadFault {
    /// What a person can do about it.
    fn advice(&self, key: SourceKey) -> String {
        let mirror =
            format!("another address for `{key}` goes into a file for --config (docs/sources.md)");
        match self {
            Self::NameUnknown(_) | Self::Refused(_) | Self::Unreachable(_) => format!(
                "is this host online? A proxy goes into https_proxy and http_proxy; {mirror}"
            ),
            Self::Proxy(_) => {
                format!("https_proxy, all_proxy and no_proxy say which one is asked; {mirror}")
            }
            Self::Tls(_) => {
                format!("the host's clock and its certificates (ca-certificates) decide; {mirror}")
            }
            Self::NotFound(_) => format!("is there such a version? If it is, {mirror}"),
            Self::Status(_) => format!("try later; {mirror}"),
            Self::Silence(_) | Self::Cut { .. } => {
                format!("what has come is kept: the next run goes on from there; {mirror}")
            }
            Self::Digest { .. } => format!(
                "what came was thrown away; if the next run says the same, the mirror is wrong: {mirror}"
            ),
            Self::TooLarge(_)
            | Self::NoText
            | Self::NotListed { .. }
            | Self::RedirectLoop(_)
            | Self::RedirectDown(_) => {
                format!("a proxy or a mirror may answer in its place; {mirror}")
            }
            Self::DiskFull { .. } => "`cargo xtask clean` removes what nobody needs, and \
                 PODWIRE_CACHE names another place; what has come is kept"
                .to_owned(),
            Self::Write(_) => "PODWIRE_CACHE names another place for the cache".to_owned(),
        }
    }

    /// Whether the same may go well right afterwards.
    pub(super) fn is_broken_connection(&self) -> bool {
        matches!(self, Self::Cut { .. })
    }

    /// What the client says; `got` bytes had come before.
    pub(super) fn of(mut error: reqwest::Error, got: u64, silence: Duration) -> Self {
        // It is quoted, and may be where a redirection led.
        if let Some(url) = error.url_mut() {
            address::hide(url);
        }
        let error = &error;
        if let Some(Redirect { to, times }) = find::<Redirect>(error) {
            return match to {
                Some(to) => Self::RedirectDown(to.clone()),
                None => Self::RedirectLoop(*times),
            };
        }
        let reason = causes(error);
        if error.is_connect() {
            let kind = find::<io::Error>(error).map(io::Error::kind);
            // An end in the middle of it has no type of its own.
            let in_tls = find::<rustls::Error>(error).is_some() || reason.contains("tls handshake");
            return if in_tls {
                Self::Tls(reason)
            } else if reason.contains("tunnel error") {
                Self::Proxy(reason)
            } else if reason.contains("dns error") {
                Self::NameUnknown(reason)
            } else if kind == Some(io::ErrorKind::ConnectionRefused) {
                Self::Refused(reason)
            } else {
                Self::Unreachable(reason)
            };
        }
        if error.is_timeout() {
            return Self::Silence(silence);
        }
        Self::Cut {
            got: ByteSize(got),
            reason,
        }
    }
}

/// A redirection that is not followed.
#[derive(Debug, thiserror::Error)]
#[error("a redirection that is not followed")]
pub(super) struct Redirect {
    /// Where it leads, when that alone is wrong with it.
    pub(super) to: Option<String>,
    /// How many there were before.
    pub(super) times: usize,
}

/// The first cause of a type; what an I/O error wraps is a cause too.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}
