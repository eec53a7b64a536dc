//! Children with a parent-death signal, started from one permanent thread.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::{io, thread};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::environment;

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The thread that starts children could not be made.
    #[error("cannot start the thread that starts child processes")]
    Thread(#[source] io::Error),
    /// The thread that starts children is gone; only a panic in it can do that.
    #[error("the thread that starts child processes has ended; nothing can be started any more")]
    Gone,
    /// The program could not be executed.
    #[error(
        "cannot start {program:?}; is it installed? (`cargo xtask doctor` lists what is needed)"
    )]
    Program {
        /// What was to be executed.
        program: OsString,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Where one of a child's output streams goes.
#[derive(Debug, Default)]
pub enum Stream {
    /// Thrown away.
    #[default]
    Null,
    /// Read by us, through the child's handle.
    Piped,
    /// Ours, shared with the child.
    Inherit,
    /// Appended to an open file.
    File(File),
}

impl From<Stream> for Stdio {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Null => Stdio::null(),
            Stream::Piped => Stdio::piped(),
            Stream::Inherit => Stdio::inherit(),
            Stream::File(file) => file.into(),
        }
    }
}

/// A program to start: plain data until [`Spawner::spawn`].
#[derive(Debug)]
pub struct ChildCommand {
    /// Program, looked up in `PATH` when it has no slash.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables set beside the inherited ones; `None` removes one.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// Working directory; ours when absent.
    pub dir: Option<PathBuf>,
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// Descriptors that the child keeps, under the same numbers; ours are closed after the start.
    pub inherit: Vec<OwnedFd>,
    /// Whether the child leads a process group of its own, which a terminal's Ctrl-C does not reach.
    pub own_group: bool,
}

impl ChildCommand {
    /// A command with no arguments, no input and no output.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            stdin: Stream::Null,
            stdout: Stream::Null,
            stderr: Stream::Null,
            inherit: Vec::new(),
            own_group: false,
        }
    }

    /// The same command with more arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The same command with a variable set.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), Some(value.into())));
        self
    }

    /// The same command without an inherited variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.env.push((name.into(), None));
        self
    }

    /// The same command for one that runs cargo: without what `cargo run` tells a program about its
    /// package. Build scripts name these variables (`rerun-if-env-changed`), so that cargo would
    /// compile anew whatever is built by a person and by such a program in turn.
    #[must_use]
    pub fn outside_cargo(self) -> Self {
        let names = std::env::vars_os().map(|(name, _)| name);
        let told = names.filter(|name| environment::is_of_package(name));
        told.fold(self, Self::env_remove)
    }

    /// The same command for a program of the user's, who has called cargo maybe: with the environment that he had
    /// before. So another repository's cargo takes that repository's toolchain.
    #[must_use]
    pub fn for_the_user(mut self) -> Self {
        let inherited: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let own = std::env::current_exe().ok();
        self.env
            .extend(environment::users(&inherited, own.as_deref()));
        self
    }

    /// The same command in another working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The command as a person would type it, for logs and errors.
    pub fn display(&self) -> String {
        std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| quote(&word.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

type Job = (ChildCommand, mpsc::SyncSender<Result<Child, SpawnError>>);

/// Starts children that the kernel kills with `SIGKILL` when this process ends.
///
/// The signal fires when the *thread* that started the child ends (prctl(2)), which is why one
/// thread does all the starting and lives as long as the `Spawner`. Dropping the last clone ends
/// that thread, and with it every child still running.
#[derive(Debug, Clone)]
pub struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`SpawnError::Thread`] when the operating system gives no thread.
    pub fn start() -> Result<Self, SpawnError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (command, reply) in queue {
                    // A caller that went away has no use for the child: dropping the answer is right.
                    let _ = reply.send(start(command));
                }
            })
            .map_err(SpawnError::Thread)?;
        Ok(Self { jobs })
    }

    /// Starts one child. Reaping it (`wait`) is the caller's.
    ///
    /// # Errors
    /// [`SpawnError::Program`] when it cannot be executed.
    pub fn spawn(&self, command: ChildCommand) -> Result<Child, SpawnError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.jobs
            .send((command, reply))
            .map_err(|_| SpawnError::Gone)?;
        answer.recv().map_err(|_| SpawnError::Gone)?
    }
}

fn start(command: ChildCommand) -> Result<Child, SpawnError> {
    let mut built = Command::new(&command.program);
    built
        .args(&command.args)
        .stdin(command.stdin)
        .stdout(command.stdout)
        .stderr(command.stderr);
    for (name, value) in &command.env {
        match value {
            Some(value) => built.env(name, value),
            None => built.env_remove(name),
        };
    }
    if let Some(dir) = &command.dir {
        built.current_dir(dir);
    }
    if command.own_group {
        built.process_group(0);
    }
    let kept: Vec<RawFd> = command.inherit.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = rustix::process::getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died between fork and prctl: then the signal never comes.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        for fd in &kept {
            keep_open(*fd)?;
        }
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "pre_exec is how std runs code between fork and exec"
    )]
    // SAFETY: the closure makes only async-signal-safe system calls (prctl, getppid, fcntl) and
    // allocates nothing.
    unsafe {
        built.pre_exec(prepare);
    }
    built.spawn().map_err(|source| SpawnError::Program {
        program: command.program.clone(),
        source,
    })
}

/// Clears close-on-exec in the child only, so that no other child started meanwhile inherits it.
fn keep_open(fd: RawFd) -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "a raw descriptor number is all that crosses fork"
    )]
    // SAFETY: the descriptor is owned by the `ChildCommand`, which outlives the fork.
    let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_build_is_told_nothing_of_the_program_that_runs_it() {
        // Cargo has set these for whoever runs the tests, as `cargo run` does. A person who starts
        // this program bare has none of them, and nothing is asked then.
        let package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let command = ChildCommand::new("cargo").outside_cargo();
        for name in set.filter(|name| package(name)) {
            assert!(command.env.contains(&(name.clone().into(), None)), "{name}");
        }
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        let command = ChildCommand::new("sh").args(["-c", "echo 'hi'", ""]);
        assert_eq!(command.display(), r"sh -c 'echo '\''hi'\''' ''");
    }

    #[test]
    fn an_inherited_descriptor_keeps_its_number() {
        let spawner = Spawner::start().unwrap();
        let (read, write) = io::pipe().unwrap();
        // One that a caller's own descriptors leave free, and that a shell's `>&` may be too short
        // for: POSIX asks for one digit, and dash takes no more.
        let write = rustix::io::fcntl_dupfd_cloexec(write, 100).unwrap();
        let to = format!("/proc/self/fd/{}", write.as_raw_fd());
        let mut command = ChildCommand::new("sh").args(["-c", "echo kept >\"$0\"", &to]);
        command.inherit.push(write);
        let mut child = spawner.spawn(command).unwrap();
        let mut text = String::new();
        { read }.read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(text, "kept\n");
    }

    #[test]
    fn children_die_with_the_spawner() {
        let spawner = Spawner::start().unwrap();
        let mut command = ChildCommand::new("sh").args(["-c", "read line; echo $line"]);
        command.stdin = Stream::Piped;
        let mut child = spawner.spawn(command).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(spawner);
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(Signal::KILL.as_raw())
        );
        // Written after the death: nobody may have read it.
        assert!(stdin.write_all(b"x\n").is_err() || !status.success());
    }

    #[test]
    fn a_missing_program_is_named() {
        let spawner = Spawner::start().unwrap();
        let error = spawner
            .spawn(ChildCommand::new("no-such-program-here"))
            .unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"));
    }
}
