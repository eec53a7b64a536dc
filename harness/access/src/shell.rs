//! An SSH session with a node, with our own terminal or streams at this end.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use podwire_vm::{SshCredentials, SshSession};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig, client};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::AccessError;
use crate::terminal::{Escape, Event, Foreground};

/// How long a command may take to end once it was sent a signal; without a terminal, one that takes
/// no notice goes on without us.
const FAREWELL: Duration = Duration::from_secs(3);

/// How much is read from standard input at once.
const PIECE: usize = 32 << 10;

/// How a command on a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(u8),
    /// By a signal: `TERM`.
    Signal(String),
    /// The person left it by the escape.
    Left,
}

impl Exit {
    /// The exit status that says the same: 128 and the signal's number for a signal, as shells do
    /// it; 255 for a session that was left, as OpenSSH does it.
    pub fn status(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(name) => number(name).map_or(255, |number| 128 + number),
            Self::Left => 255,
        }
    }
}

/// Numbers of the signals that RFC 4254, 6.10 names, and of those that this process passes on.
fn number(signal: &str) -> Option<u8> {
    let known = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
    ];
    known
        .into_iter()
        .find_map(|(name, number)| (name == signal).then_some(number))
}

/// What a command's streams are connected to.
pub struct Streams<I, O, E> {
    /// Its standard input.
    pub stdin: I,
    /// Takes its standard output.
    pub stdout: O,
    /// Takes its standard error.
    pub stderr: E,
}

impl Streams<File, File, File> {
    /// Those of this process.
    ///
    /// # Errors
    /// [`AccessError::Local`].
    pub fn own() -> Result<Self, AccessError> {
        // Through a copy of the descriptor: no buffer of the standard library's is in between.
        fn copy(of: impl std::os::fd::AsFd) -> io::Result<File> {
            let fd = of.as_fd().try_clone_to_owned()?;
            Ok(File::from_std(fs::File::from(fd)))
        }
        let copied = || {
            Ok(Self {
                stdin: copy(io::stdin())?,
                stdout: copy(io::stdout())?,
                stderr: copy(io::stderr())?,
            })
        };
        copied().map_err(AccessError::local("use the standard streams"))
    }
}

/// A session with a node. Commands in it share one connection and one authentication.
pub struct Shell {
    node: String,
    session: SshSession,
}

impl Shell {
    /// Opens a session over `stream`, which leads to the node's sshd.
    pub(crate) async fn open<S>(
        stream: S,
        node: &str,
        user_key: &Path,
        host_key: &str,
        limit: Duration,
    ) -> Result<Self, AccessError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |source| AccessError::Ssh {
            node: node.to_owned(),
            source: Box::new(source),
        };
        let credentials = SshCredentials::read(user_key, host_key).map_err(failed)?;
        let session = SshSession::open(stream, &credentials, limit).await;
        Ok(Self {
            node: node.to_owned(),
            session: session.map_err(failed)?,
        })
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Runs a command line in root's shell, or the shell itself, until it ends. Where the process
    /// in front has a terminal, the command gets one too, and standard error is not apart.
    ///
    /// # Errors
    /// [`AccessError::Session`] when the session ends before the command does,
    /// [`AccessError::Local`] when our own streams fail; but another exit status than 0 is not one.
    pub async fn run<I, O, E>(
        &self,
        command: Option<&str>,
        streams: Streams<I, O, E>,
        mut foreground: Option<Foreground>,
    ) -> Result<Exit, AccessError>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let failed = || lost(&self.node, "ended before the command did");
        let channel = self.session.channel().await;
        let channel = channel.map_err(|source| AccessError::Ssh {
            node: self.node.clone(),
            source: Box::new(source),
        })?;
        let (reader, writer) = channel.split();
        let terminal = foreground.as_ref().is_some_and(Foreground::has_terminal);
        if terminal {
            let size = Foreground::size();
            let (columns, rows) = (size.columns, size.rows);
            writer
                .request_pty(false, &Foreground::kind(), columns, rows, 0, 0, &[])
                .await
                .map_err(failed())?;
        }
        match command {
            Some(command) => writer.exec(true, command).await,
            None => writer.request_shell(true).await,
        }
        .map_err(failed())?;

        let escape = terminal.then(Escape::new);
        let Streams {
            stdin,
            stdout,
            stderr,
        } = streams;
        let send = send(stdin, escape, &writer);
        let receive = self.receive(reader, stdout, stderr);
        tokio::pin!(send, receive);
        let mut sending = true;
        loop {
            tokio::select! {
                exit = &mut receive => return exit,
                // A command may end without reading its input: only its own end counts.
                sent = &mut send, if sending => {
                    sending = false;
                    if sent? == Sent::Left {
                        return Ok(Exit::Left);
                    }
                }
                event = event(foreground.as_mut()) => match event {
                    Event::Resized(size) => {
                        let (columns, rows) = (size.columns, size.rows);
                        // Not worth an end: the next change may get through.
                        let _ = writer.window_change(columns, rows, 0, 0).await;
                    }
                    Event::Signal(signal) => {
                        // Whether it gets there or not, the person wants to go.
                        let _ = writer.signal(signal.clone()).await;
                        return match timeout(FAREWELL, receive).await {
                            Ok(exit) => exit,
                            Err(_) => Ok(Exit::Signal(name(signal))),
                        };
                    }
                },
            }
        }
    }

    /// Runs a short command with `input`; what it printed, and how it ended.
    pub(crate) async fn capture(
        &self,
        command: &str,
        input: &[u8],
    ) -> Result<(Exit, String, String), AccessError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let streams = Streams {
            stdin: input,
            stdout: &mut stdout,
            stderr: &mut stderr,
        };
        let exit = self.run(Some(command), streams, None).await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok((exit, text(stdout), text(stderr)))
    }

    async fn receive(
        &self,
        mut reader: ChannelReadHalf,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
    ) -> Result<Exit, AccessError> {
        let mut exit = None;
        while let Some(message) = reader.wait().await {
            let written = match message {
                ChannelMsg::Data { data } => put(&mut stdout, &data).await,
                // RFC 4254, 5.2: type 1 is standard error, the only one defined.
                ChannelMsg::ExtendedData { data, ext: 1 } => put(&mut stderr, &data).await,
                ChannelMsg::ExitStatus { exit_status } => {
                    // A wait status has eight bits.
                    exit = Some(Exit::Code(u8::try_from(exit_status & 0xff).unwrap_or(255)));
                    Ok(())
                }
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    exit = Some(Exit::Signal(name(signal_name)));
                    Ok(())
                }
                ChannelMsg::Failure => {
                    return Err(AccessError::Session {
                        node: self.node.clone(),
                        what: "came about, but the command was refused",
                        source: None,
                    });
                }
                ChannelMsg::Close => break,
                _ => Ok(()),
            };
            match written {
                Ok(()) => {}
                // Nobody reads on: `... | head`. The node's program learns of it as any other does.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(Exit::Signal("PIPE".into()));
                }
                Err(source) => {
                    let doing = "write what the node sends";
                    return Err(AccessError::Local { doing, source });
                }
            }
        }
        exit.ok_or_else(|| AccessError::Session {
            node: self.node.clone(),
            what: "ended before the command did; was the cluster ended, or the node restarted?",
            source: None,
        })
    }
}

async fn put(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

async fn event(foreground: Option<&mut Foreground>) -> Event {
    match foreground {
        Some(foreground) => foreground.event().await,
        None => std::future::pending().await,
    }
}

/// How sending standard input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// All of it.
    All,
    /// The person typed the escape.
    Left,
}

async fn send(
    mut stdin: impl AsyncRead + Unpin,
    mut escape: Option<Escape>,
    writer: &ChannelWriteHalf<client::Msg>,
) -> Result<Sent, AccessError> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = match stdin.read(&mut buffer).await {
            Ok(count) => count,
            // A terminal that has gone.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => 0,
            Err(source) => {
                let doing = "read standard input";
                return Err(AccessError::Local { doing, source });
            }
        };
        let piece = buffer.get(..count).unwrap_or_default();
        // That the session is gone is what the receiver says, who knows more.
        if piece.is_empty() {
            let _ = writer.eof().await;
            return Ok(Sent::All);
        }
        let sent = match &mut escape {
            None => writer.data(piece).await,
            Some(escape) => {
                let (bytes, left) = escape.filter(piece);
                if left {
                    return Ok(Sent::Left);
                }
                writer.data(&*bytes).await
            }
        };
        if sent.is_err() {
            return Ok(Sent::All);
        }
    }
}

fn name(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        known => format!("{known:?}"),
    }
}

fn lost(node: &str, what: &'static str) -> impl FnOnce(russh::Error) -> AccessError {
    move |source| AccessError::Session {
        node: node.to_owned(),
        what,
        source: Some(Box::new(source)),
    }
}
