//! SSH sessions, for people: on any stream that leads to a guest's sshd.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// Everybody is this user.
const USER: &str = "root";

/// Silence after which the connection is tested, and how often before it counts as dead: an
/// emulated guest under load may be silent for a minute.
const KEEPALIVE: (Duration, usize) = (Duration::from_secs(20), 6);

/// Why there is no SSH session.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// A key is not in OpenSSH's format.
    #[error("cannot read the SSH key {what}")]
    Key {
        /// Which one.
        what: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No session came about in time.
    #[error("the guest did not answer SSH within {0:?}")]
    TimedOut(Duration),
    /// The session could not be opened.
    #[error("cannot open an SSH session")]
    Connect(#[source] russh::Error),
    /// The guest's sshd does not know the key.
    #[error("the guest refuses the SSH key for user {USER}; was its image made with another key?")]
    Denied,
    /// The guest has another host key than expected.
    #[error("the guest shows the SSH host key {seen}, expected {expected}; is it another machine?")]
    HostKey {
        /// What the guest showed.
        seen: String,
        /// What its image holds.
        expected: String,
    },
}

/// How we prove who we are, and whom we expect.
#[derive(Clone)]
pub struct SshCredentials {
    user_key: Arc<PrivateKey>,
    host_key: PublicKey,
}

impl fmt::Debug for SshCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshCredentials")
            .field("host_key", &self.host_key)
            .finish_non_exhaustive()
    }
}

impl SshCredentials {
    /// From a private key (OpenSSH PEM) and the guest's public host key (one line).
    ///
    /// # Errors
    /// [`SshError::Key`].
    pub fn new(private_pem: &str, host_public: &str) -> Result<Self, SshError> {
        let unreadable = |what: &str, source: russh::keys::ssh_key::Error| SshError::Key {
            what: what.into(),
            source: source.into(),
        };
        let user_key = PrivateKey::from_openssh(private_pem)
            .map_err(|source| unreadable("of the user", source))?;
        let host_key = PublicKey::from_openssh(host_public.trim())
            .map_err(|source| unreadable("of the host", source))?;
        Ok(Self {
            user_key: Arc::new(user_key),
            host_key,
        })
    }

    /// The same with the private key in a file.
    ///
    /// # Errors
    /// [`SshError::Key`], naming the file when it cannot be read.
    pub fn read(private: &Path, host_public: &str) -> Result<Self, SshError> {
        let private_pem = std::fs::read_to_string(private).map_err(|source| SshError::Key {
            what: format!("file {private:?}"),
            source: source.into(),
        })?;
        Self::new(&private_pem, host_public)
    }
}

struct HostCheck {
    expected: PublicKey,
}

impl client::Handler for HostCheck {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let seen = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => {
                PublicKey::from(certificate.public_key().clone())
            }
        };
        if seen.key_data() == self.expected.key_data() {
            return Ok(true);
        }
        let line = |key: &PublicKey| key.to_openssh().unwrap_or_else(|error| error.to_string());
        Err(SshError::HostKey {
            seen: line(&seen),
            expected: line(&self.expected),
        })
    }
}

impl From<russh::Error> for SshError {
    fn from(error: russh::Error) -> Self {
        Self::Connect(error)
    }
}

/// An SSH session with a guest, as root.
pub struct SshSession(client::Handle<HostCheck>);

impl fmt::Debug for SshSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshSession").finish_non_exhaustive()
    }
}

impl SshSession {
    /// Opens a session over `stream`, which leads to the guest's sshd.
    ///
    /// # Errors
    /// [`SshError`]; nothing is retried.
    pub async fn open<S>(
        stream: S,
        credentials: &SshCredentials,
        limit: Duration,
    ) -> Result<Self, SshError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = client::Config {
            keepalive_interval: Some(KEEPALIVE.0),
            keepalive_max: KEEPALIVE.1,
            ..client::Config::default()
        };
        let check = HostCheck {
            expected: credentials.host_key.clone(),
        };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&credentials.user_key), None);
        let open = async {
            let mut session = client::connect_stream(Arc::new(config), stream, check).await?;
            let accepted = session.authenticate_publickey(USER, key).await?;
            if accepted.success() {
                Ok(session)
            } else {
                Err(SshError::Denied)
            }
        };
        let session = timeout(limit, open).await;
        Ok(Self(session.map_err(|_| SshError::TimedOut(limit))??))
    }

    /// A channel of the session (RFC 4254, 6), for a caller that drives it by itself.
    ///
    /// # Errors
    /// [`SshError::Connect`] when the session has ended, or the guest refuses another channel.
    pub async fn channel(&self) -> Result<Channel<client::Msg>, SshError> {
        Ok(self.0.channel_open_session().await?)
    }
}
