//! Commands in the guest, over SSH on any stream.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Disconnect, Sig, client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::fault::{FaultWatch, MachineFault};

/// Everything runs as this user.
const USER: &str = "root";

/// Commands at once on one connection; OpenSSH refuses more than 10 (`MaxSessions`).
const PARALLEL: usize = 8;

/// Silence after which the connection is tested, and how often before it counts as dead: an
/// emulated guest under load may be silent for a minute.
const KEEPALIVE: (Duration, usize) = (Duration::from_secs(20), 6);

/// Output kept per stream.
const OUTPUT_BYTES: usize = 32 << 20;

/// Why a guest cannot be reached or a command in it gave no usable result.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A key is not in OpenSSH's format.
    #[error("cannot read the SSH key {what}")]
    Key {
        /// Which one.
        what: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No SSH session came about in time.
    #[error("the guest did not answer SSH within {0:?}")]
    ConnectTimedOut(Duration),
    /// The SSH session could not be opened.
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
    /// The session ended under the command.
    #[error("the SSH session ended during `{command}`")]
    Lost {
        /// The command.
        command: String,
        /// What the SSH library says, if anything.
        source: Option<russh::Error>,
    },
    /// The command ran longer than allowed. It was sent SIGKILL; what it started may live on.
    #[error("`{command}` was given up after {limit:?}; until then:\n{output}")]
    TimedOut {
        /// The command.
        command: String,
        /// What was allowed.
        limit: Duration,
        /// What it had printed.
        output: Output,
    },
    /// The command did not exit with 0.
    #[error("`{command}` failed:\n{output}")]
    Failed {
        /// The command.
        command: String,
        /// How, and what it printed.
        output: Output,
    },
    /// The machine failed.
    #[error("`{command}`: {fault}")]
    Fault {
        /// The command.
        command: String,
        /// Why and with what last words.
        fault: Box<MachineFault>,
    },
}

/// How we prove who we are, and whom we expect.
#[derive(Clone)]
pub struct SshCredentials {
    user_key: Arc<PrivateKey>,
    host_key: Option<PublicKey>,
}

impl fmt::Debug for SshCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshCredentials")
            .field("host_key", &self.host_key)
            .finish_non_exhaustive()
    }
}

impl SshCredentials {
    /// From a private key (OpenSSH PEM) and the guest's public host key (one line), if it is known.
    ///
    /// # Errors
    /// [`GuestError::Key`].
    pub fn new(private_pem: &str, host_public: Option<&str>) -> Result<Self, GuestError> {
        let unreadable = |what: &str, source: russh::keys::ssh_key::Error| GuestError::Key {
            what: what.into(),
            source: source.into(),
        };
        let user_key = PrivateKey::from_openssh(private_pem)
            .map_err(|source| unreadable("of the user", source))?;
        let host_key = host_public
            .map(|line| PublicKey::from_openssh(line.trim()))
            .transpose()
            .map_err(|source| unreadable("of the host", source))?;
        Ok(Self {
            user_key: Arc::new(user_key),
            host_key,
        })
    }

    /// The same for a guest with another host key (one line).
    ///
    /// # Errors
    /// [`GuestError::Key`].
    pub fn with_host_key(&self, host_public: &str) -> Result<Self, GuestError> {
        let host_key = PublicKey::from_openssh(host_public.trim());
        let host_key = host_key.map_err(|source| GuestError::Key {
            what: "of the host".into(),
            source: source.into(),
        })?;
        Ok(Self {
            user_key: Arc::clone(&self.user_key),
            host_key: Some(host_key),
        })
    }

    /// The same from files.
    ///
    /// # Errors
    /// [`GuestError::Key`] naming the file.
    pub fn read(private: &Path, host_public: Option<&Path>) -> Result<Self, GuestError> {
        let text = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| GuestError::Key {
                what: format!("file {path:?}"),
                source: source.into(),
            })
        };
        Self::new(
            &text(private)?,
            host_public.map(text).transpose()?.as_deref(),
        )
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By a signal, `KILL`.
    Signal(String),
    /// The session closed the command without saying how it ended, or it has not ended.
    Unknown,
}

impl ExitStatus {
    /// Whether the command exited with 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(name) => write!(f, "ended by signal {name}"),
            Self::Unknown => f.write_str("no exit status"),
        }
    }
}

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily decoded, at most 32 MiB.
    pub stdout: String,
    /// Standard error, lossily decoded, at most 32 MiB.
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n{name}: {}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// An SSH session with a guest, as root. Cheap to clone; commands may run in parallel.
#[derive(Clone)]
pub struct Guest {
    session: Arc<client::Handle<HostCheck>>,
    slots: Arc<Semaphore>,
    faults: Option<FaultWatch>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

struct HostCheck {
    expected: Option<PublicKey>,
}

impl client::Handler for HostCheck {
    type Error = GuestError;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, GuestError> {
        let Some(expected) = &self.expected else {
            return Ok(true);
        };
        let seen = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => {
                PublicKey::from(certificate.public_key().clone())
            }
        };
        if seen.key_data() == expected.key_data() {
            return Ok(true);
        }
        let line = |key: &PublicKey| key.to_openssh().unwrap_or_else(|error| error.to_string());
        Err(GuestError::HostKey {
            seen: line(&seen),
            expected: line(expected),
        })
    }
}

impl From<russh::Error> for GuestError {
    fn from(error: russh::Error) -> Self {
        Self::Connect(error)
    }
}

impl Guest {
    /// Opens a session over `stream`, which leads to the guest's sshd.
    ///
    /// # Errors
    /// [`GuestError`]; nothing is retried.
    pub async fn connect<S>(
        stream: S,
        credentials: &SshCredentials,
        limit: Duration,
    ) -> Result<Self, GuestError>
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
                Err(GuestError::Denied)
            }
        };
        let session = timeout(limit, open)
            .await
            .map_err(|_| GuestError::ConnectTimedOut(limit))??;
        Ok(Self {
            session: Arc::new(session),
            slots: Arc::new(Semaphore::new(PARALLEL)),
            faults: None,
        })
    }

    /// The same guest, whose commands fail at once when its machine does.
    #[must_use]
    pub fn watched(mut self, faults: FaultWatch) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Runs a command line in root's shell, with empty input.
    ///
    /// # Errors
    /// [`GuestError`]; but another exit status than 0 is not one.
    pub async fn run(&self, command: &str, limit: Duration) -> Result<Output, GuestError> {
        self.run_with_input(command, &[], limit).await
    }

    /// Runs a command line that must exit with 0, and gives its standard output.
    ///
    /// # Errors
    /// [`GuestError::Failed`] with both streams, or whatever kept it from running.
    pub async fn run_ok(&self, command: &str, limit: Duration) -> Result<String, GuestError> {
        let output = self.run(command, limit).await?;
        succeeded(command, output)
    }

    /// Runs a command line with `input` as its standard input.
    ///
    /// # Errors
    /// [`GuestError`]; but another exit status than 0 is not one.
    pub async fn run_with_input(
        &self,
        command: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<Output, GuestError> {
        self.run_reading(command, input, limit).await
    }

    /// Runs a command line with what can be read from `input` as its standard input: what is too
    /// large for the memory. Where reading fails, the command's input ends.
    ///
    /// # Errors
    /// [`GuestError`]; but another exit status than 0 is not one.
    pub async fn run_reading(
        &self,
        command: &str,
        input: impl AsyncRead + Unpin,
        limit: Duration,
    ) -> Result<Output, GuestError> {
        let mut collected = Collected::default();
        let work = timeout(limit, self.exchange(command, input, &mut collected));
        let done = match &self.faults {
            Some(faults) => faults.unless_faulted(work).await,
            None => Ok(work.await),
        };
        match done {
            Ok(Ok(Ok(()))) => Ok(collected.output()),
            Ok(Ok(Err(source))) => Err(GuestError::Lost {
                command: command.to_owned(),
                source,
            }),
            Ok(Err(_)) => Err(GuestError::TimedOut {
                command: command.to_owned(),
                limit,
                output: collected.output(),
            }),
            Err(fault) => Err(GuestError::Fault {
                command: command.to_owned(),
                fault: Box::new(fault),
            }),
        }
    }

    /// Writes a file, and its folder when there is none, with the given permission bits.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn write(
        &self,
        path: &str,
        bytes: &[u8],
        mode: u32,
        limit: Duration,
    ) -> Result<(), GuestError> {
        let command = format!("install -D -m {mode:04o} /dev/stdin {}", quoted(path));
        let output = self.run_with_input(&command, bytes, limit).await?;
        succeeded(&command, output)?;
        Ok(())
    }

    /// A channel of the session for a caller that drives it by itself (RFC 4254, 6): with a terminal,
    /// for one. Neither the limit on parallel commands nor the machine's faults concern it.
    ///
    /// # Errors
    /// [`GuestError::Connect`] when the session has ended, or the guest refuses another channel.
    pub async fn channel(&self) -> Result<Channel<client::Msg>, GuestError> {
        Ok(self.session.channel_open_session().await?)
    }

    /// Ends the session in an orderly way; commands still running lose theirs.
    pub async fn close(self) {
        // A session that is gone already needs no farewell.
        let _ = self
            .session
            .disconnect(Disconnect::ByApplication, "done", "en")
            .await;
    }

    async fn exchange(
        &self,
        command: &str,
        input: impl AsyncRead + Unpin,
        collected: &mut Collected,
    ) -> Result<(), Option<russh::Error>> {
        let _slot = self.slots.acquire().await.map_err(|_| None)?;
        let channel = self.session.channel_open_session().await?;
        let (mut reader, writer) = channel.split();
        let running = Running(Some(writer));
        running.writer()?.exec(true, command).await?;
        let send = async {
            let writer = running.writer()?;
            let sent = writer.data(input).await;
            writer.eof().await?;
            sent?;
            Ok::<(), Option<russh::Error>>(())
        };
        let receive = async {
            let mut closed = false;
            while let Some(message) = reader.wait().await {
                closed = collected.take(message);
            }
            closed || collected.status != ExitStatus::Unknown
        };
        let ended = {
            tokio::pin!(send, receive);
            let mut sending = true;
            loop {
                tokio::select! {
                    ended = &mut receive => break ended,
                    // A command may end without reading its input: only its own end counts.
                    _ = &mut send, if sending => sending = false,
                }
            }
        };
        running.over();
        if ended { Ok(()) } else { Err(None) }
    }
}

/// Kills a command whose caller has stopped waiting.
struct Running(Option<russh::ChannelWriteHalf<client::Msg>>);

impl Running {
    fn writer(&self) -> Result<&russh::ChannelWriteHalf<client::Msg>, Option<russh::Error>> {
        self.0.as_ref().ok_or(None)
    }

    /// The command has ended by itself.
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                // Whether it arrives is beyond us: the caller has been told that it gave up.
                let _ = writer.signal(Sig::KILL).await;
                let _ = writer.close().await;
            });
        }
    }
}

struct Collected {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Default for Collected {
    fn default() -> Self {
        Self {
            status: ExitStatus::Unknown,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }
}

impl Collected {
    /// Takes in one message; true once the far side has closed the command.
    fn take(&mut self, message: ChannelMsg) -> bool {
        let keep = |kept: &mut Vec<u8>, data: &[u8]| {
            let room = OUTPUT_BYTES.saturating_sub(kept.len());
            kept.extend_from_slice(data.get(..room).unwrap_or(data));
        };
        match message {
            ChannelMsg::Data { data } => keep(&mut self.stdout, &data),
            // RFC 4254, 5.2: type 1 is standard error, the only one defined.
            ChannelMsg::ExtendedData { data, ext: 1 } => keep(&mut self.stderr, &data),
            ChannelMsg::ExitStatus { exit_status } => {
                self.status = ExitStatus::Code(exit_status.cast_signed());
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                self.status = ExitStatus::Signal(signal(signal_name));
            }
            ChannelMsg::Close => return true,
            _ => {}
        }
        false
    }

    fn output(self) -> Output {
        Output {
            status: self.status,
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
        }
    }
}

fn signal(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        known => format!("{known:?}"),
    }
}

fn succeeded(command: &str, output: Output) -> Result<String, GuestError> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(GuestError::Failed {
        command: command.to_owned(),
        output,
    })
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
