//! What a request becomes in the guest: a process with three pipes, or a file being written.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::wire::{CHUNK, End, Stream};

/// Root's shell, and what sshd gives it of an environment: the same command line means the same,
/// whatever systemd's own environment holds.
const SHELL: &str = "/bin/bash";
const ENVIRONMENT: [(&str, &str); 5] = [
    ("HOME", "/root"),
    ("LOGNAME", "root"),
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("SHELL", SHELL),
    ("USER", "root"),
];

/// Output that is still taken from the pipes of a process that has ended: what two full pipes hold.
/// Others may hold their other ends and write on.
const LAST_OUTPUT: usize = 2 << 20;

/// A command that runs.
pub(super) struct Running {
    child: Child,
    ended: OwnedFd,
    stdin: Option<ChildStdin>,
    /// Input that the pipe has not taken yet, and whether more comes.
    input: Vec<u8>,
    more: bool,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// What of a command can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// It has ended.
    End,
    /// Its input takes more.
    Input,
    /// It has printed something.
    Output(Stream),
}

impl Running {
    pub(super) fn start(command: &str) -> io::Result<Self> {
        let home = if Path::new("/root").is_dir() {
            "/root"
        } else {
            "/"
        };
        let mut child = Command::new(SHELL)
            .args(["-c", command])
            .env_clear()
            .envs(ENVIRONMENT)
            .current_dir(home)
            // All that it starts, unless that leaves the group, is killed with it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let watched = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pipes = [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ];
        let ready = watched.and_then(|ended| {
            pipes.into_iter().flatten().try_for_each(never_block)?;
            Ok(ended)
        });
        match ready {
            Ok(ended) => Ok(Self {
                child,
                ended,
                stdin,
                input: Vec::new(),
                more: true,
                stdout,
                stderr,
            }),
            Err(error) => {
                // Nobody could ever tell when it ends.
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }

    /// What to wait for.
    pub(super) fn events(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags, Event)> {
        let fed = self.stdin.as_ref().filter(|_| !self.input.is_empty());
        let input = fed.map(|fd| (fd.as_fd(), PollFlags::OUT, Event::Input));
        let output = |fd, stream| (fd, PollFlags::IN, Event::Output(stream));
        let stdout = self
            .stdout
            .as_ref()
            .map(|fd| output(fd.as_fd(), Stream::Stdout));
        let stderr = self
            .stderr
            .as_ref()
            .map(|fd| output(fd.as_fd(), Stream::Stderr));
        let ended = (self.ended.as_fd(), PollFlags::IN, Event::End);
        [input, stdout, stderr].into_iter().flatten().chain([ended])
    }

    /// Takes input; true when the command has closed its own, so that it is of no use.
    pub(super) fn input(&mut self, bytes: &[u8]) -> bool {
        if self.stdin.is_some() {
            self.input.extend_from_slice(bytes);
        }
        self.stdin.is_none()
    }

    /// No more input comes.
    pub(super) fn no_more(&mut self) {
        self.more = false;
        if self.input.is_empty() {
            self.stdin = None;
        }
    }

    /// Gives the command what its pipe takes of the input; how many bytes are off our hands.
    pub(super) fn feed(&mut self) -> usize {
        let Some(stdin) = &mut self.stdin else {
            return std::mem::take(&mut self.input).len();
        };
        let taken = match stdin.write(&self.input) {
            Ok(taken) => taken,
            Err(error) if would_block(&error) => 0,
            // It reads no more: the rest is nobody's.
            Err(_) => {
                self.stdin = None;
                return std::mem::take(&mut self.input).len();
            }
        };
        self.input.drain(..taken);
        if self.input.is_empty() && !self.more {
            self.stdin = None;
        }
        taken
    }

    /// The next piece of what it printed; nothing when there is none at the moment.
    pub(super) fn output(&mut self, stream: Stream) -> Option<Vec<u8>> {
        match stream {
            Stream::Stdout => piece(&mut self.stdout),
            Stream::Stderr => piece(&mut self.stderr),
        }
    }

    /// After its end: what is left in its pipes goes to `tell`, then how it ended.
    pub(super) fn finish(mut self, mut tell: impl FnMut(Stream, Vec<u8>)) -> End {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut left = LAST_OUTPUT;
            while left > 0 {
                let Some(bytes) = self.output(stream) else {
                    break;
                };
                left = left.saturating_sub(bytes.len());
                tell(stream, bytes);
            }
        }
        match self.child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => End::Code(code),
                (None, Some(signal)) => End::Signal(signal),
                (None, None) => End::Refused(format!("it ended with {status}")),
            },
            Err(error) => End::Refused(format!("how it ended cannot be told: {error}")),
        }
    }

    /// Kills it with all that is in its group. It is to be waited for, then dropped.
    pub(super) fn kill(self) -> Dying {
        let pid = Pid::from_child(&self.child);
        // It fails only where nothing is left to kill: the child itself is not waited for yet.
        let _ = kill_process_group(pid, Signal::KILL);
        Dying {
            child: self.child,
            ended: self.ended,
        }
    }
}

/// A killed command that the kernel may still be busy with.
pub(super) struct Dying {
    child: Child,
    ended: OwnedFd,
}

impl Dying {
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    pub(super) fn reap(mut self) {
        // How it ended is nobody's business any more.
        let _ = self.child.wait();
    }
}

fn never_block(pipe: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = fcntl_getfl(pipe)?;
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK)
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// What can be read of a pipe at the moment, up to a chunk. A pipe that has ended is closed.
fn piece<P: Read>(pipe: &mut Option<P>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; CHUNK];
    match pipe.as_mut()?.read(&mut bytes) {
        Ok(0) => {
            *pipe = None;
            None
        }
        Ok(count) => {
            bytes.truncate(count);
            Some(bytes)
        }
        Err(error) if would_block(&error) => None,
        Err(_) => {
            *pipe = None;
            None
        }
    }
}

/// A file that is being written beside its place.
pub(super) struct Writing {
    file: File,
    beside: PathBuf,
    path: PathBuf,
    mode: u32,
    /// The first error: what comes after it is not written.
    failed: Option<io::Error>,
}

impl Writing {
    pub(super) fn start(path: &str, mode: u32) -> Result<Self, String> {
        let told = |error: io::Error| format!("cannot write {path}: {error}");
        let to = Path::new(path);
        let (Some(folder), Some(name), true) = (to.parent(), to.file_name(), to.is_absolute())
        else {
            return Err(format!("{path} is no absolute path of a file"));
        };
        fs::create_dir_all(folder).map_err(told)?;
        // Whoever watches the folder takes no notice of hidden files.
        let beside = folder.join(format!(".{}.podwire", name.to_string_lossy()));
        let file = File::create(&beside).map_err(told)?;
        Ok(Self {
            file,
            beside,
            path: to.to_owned(),
            mode,
            failed: None,
        })
    }

    pub(super) fn input(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.file.write_all(bytes).err();
        }
    }

    /// Puts it in its place.
    pub(super) fn finish(mut self) -> End {
        let placed = match self.failed.take() {
            Some(error) => Err(error),
            None => self
                .file
                .set_permissions(Permissions::from_mode(self.mode & 0o7777))
                .and_then(|()| fs::rename(&self.beside, &self.path)),
        };
        match placed {
            Ok(()) => End::Code(0),
            Err(error) => {
                let told = format!("cannot write {}: {error}", self.path.display());
                self.give_up();
                End::Refused(told)
            }
        }
    }

    pub(super) fn give_up(self) {
        // It may never have come to be.
        let _ = fs::remove_file(&self.beside);
    }
}
