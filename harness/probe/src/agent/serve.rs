//! The agent: one loop that waits for the host and for everything that it has started.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::child::{Dying, Event, Running, Writing};
use super::port::{self, PortError};
use super::wire::{self, Decoder, End, RequestId, ToGuest, ToHost};

/// Between two looks for a port that is not there, or has nobody at its other end.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the kernel may take to find the port.
const PORT_LIMIT: Duration = Duration::from_secs(120);

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why an agent ends.
#[derive(Debug)]
pub enum AgentError {
    /// The port cannot be used.
    Port(PortError),
    /// The kernel does not let it wait.
    Wait(io::Error),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(error) => error.fmt(f),
            Self::Wait(error) => write!(f, "cannot wait for the host: {error}"),
        }
    }
}

impl std::error::Error for AgentError {}

/// Serves the machine's port for ever.
///
/// # Errors
/// [`AgentError`]; a host that is not there is none.
pub fn serve() -> Result<Infallible, AgentError> {
    let mut waited = Duration::ZERO;
    let mut port = loop {
        match port::open() {
            Ok(port) => break port,
            Err(PortError::Absent) if waited < PORT_LIMIT => {
                thread::sleep(AGAIN);
                waited += AGAIN;
            }
            Err(error) => return Err(AgentError::Port(error)),
        }
    };
    loop {
        serve_port(&mut port)?;
        thread::sleep(AGAIN);
    }
}

/// Serves a port until nobody is at its other end.
///
/// # Errors
/// [`AgentError::Wait`].
pub fn serve_port(port: &mut (impl Read + Write + AsFd)) -> Result<(), AgentError> {
    let mut agent = Agent::default();
    let mut decoder = Decoder::default();
    // The zero ends what an agent before this one may have left half said.
    let mut hello = vec![0];
    hello.extend(encoded(&ToHost::Started));
    if port.write_all(&hello).is_err() {
        return Ok(());
    }
    let mut bytes = vec![0; 2 * wire::CHUNK];
    loop {
        for happened in agent.wait(port).map_err(AgentError::Wait)? {
            match happened {
                Happened::Said => match port.read(&mut bytes) {
                    Ok(0) => return Ok(()),
                    Ok(count) => {
                        for message in decoder.feed(&bytes[..count]) {
                            agent.told(message);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Ok(()),
                },
                Happened::Request(id, event) => agent.happened(id, event),
                Happened::Died(index) => agent.dying.remove(index).reap(),
            }
        }
        for message in agent.to_say.drain(..) {
            if port.write_all(&message).is_err() {
                return Ok(());
            }
        }
    }
}

/// A message that is well below a frame's size by its own limits.
fn encoded(message: &ToHost) -> Vec<u8> {
    wire::encode(message).unwrap_or_default()
}

enum Happened {
    /// The host has said something, or is gone.
    Said,
    Request(RequestId, Event),
    /// The place of a killed command that has ended; later ones come first.
    Died(usize),
}

#[derive(Default)]
struct Agent {
    /// Whether the host has opened a session.
    session: bool,
    running: BTreeMap<RequestId, Running>,
    writing: BTreeMap<RequestId, Writing>,
    dying: Vec<Dying>,
    /// Frames for the host.
    to_say: Vec<Vec<u8>>,
}

impl Agent {
    fn wait(&self, port: &impl AsFd) -> io::Result<Vec<Happened>> {
        let mut fds = Vec::new();
        let mut meant = Vec::new();
        for (index, dying) in self.dying.iter().enumerate().rev() {
            fds.push(PollFd::from_borrowed_fd(dying.ended(), PollFlags::IN));
            meant.push(Happened::Died(index));
        }
        for (id, running) in &self.running {
            for (fd, flags, event) in running.events() {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                meant.push(Happened::Request(*id, event));
            }
        }
        // What the host says may change what the rest is about: it comes last.
        fds.push(PollFd::new(port, PollFlags::IN));
        meant.push(Happened::Said);
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let happened = fds.iter().map(|fd| !fd.revents().is_empty());
        let happened = meant.into_iter().zip(happened);
        Ok(happened
            .filter_map(|(what, happened)| happened.then_some(what))
            .collect())
    }

    fn say(&mut self, message: &ToHost) {
        self.to_say.push(encoded(message));
    }

    fn ended(&mut self, id: RequestId, end: End) {
        self.say(&ToHost::Ended { id, end });
    }

    fn told(&mut self, message: ToGuest) {
        match message {
            ToGuest::Hello { session } => {
                self.give_up_all();
                self.session = true;
                let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default();
                let boot_id = boot_id.trim().to_owned();
                self.say(&ToHost::Hello { session, boot_id });
            }
            // Meant for an agent that is no more.
            _ if !self.session => {}
            ToGuest::Run { id, command } => match Running::start(&command) {
                Ok(running) => {
                    self.running.insert(id, running);
                }
                Err(error) => {
                    self.ended(id, End::Refused(format!("cannot start a process: {error}")));
                }
            },
            ToGuest::Write { id, path, mode } => match Writing::start(&path, mode) {
                Ok(writing) => {
                    self.writing.insert(id, writing);
                }
                Err(why) => self.ended(id, End::Refused(why)),
            },
            ToGuest::Input { id, bytes } => {
                let taken = if let Some(writing) = self.writing.get_mut(&id) {
                    writing.input(&bytes);
                    true
                } else {
                    self.running
                        .get_mut(&id)
                        .is_none_or(|running| running.input(&bytes))
                };
                if taken {
                    self.taken(id, bytes.len());
                }
            }
            ToGuest::End { id } => {
                if let Some(writing) = self.writing.remove(&id) {
                    let end = writing.finish();
                    self.ended(id, end);
                } else if let Some(running) = self.running.get_mut(&id) {
                    running.no_more();
                }
            }
            ToGuest::Kill { id } => {
                if let Some(writing) = self.writing.remove(&id) {
                    writing.give_up();
                } else if let Some(running) = self.running.remove(&id) {
                    self.dying.push(running.kill());
                }
            }
        }
    }

    fn taken(&mut self, id: RequestId, bytes: usize) {
        // A chunk's length.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > 0 {
            self.say(&ToHost::Taken { id, bytes });
        }
    }

    fn happened(&mut self, id: RequestId, event: Event) {
        // It may have ended by what happened in the same moment.
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        match event {
            Event::Input => {
                let taken = running.feed();
                self.taken(id, taken);
            }
            Event::Output(stream) => {
                if let Some(bytes) = running.output(stream) {
                    self.say(&ToHost::Output { id, stream, bytes });
                }
            }
            Event::End => {
                if let Some(running) = self.running.remove(&id) {
                    let end = running.finish(|stream, bytes| {
                        self.to_say
                            .push(encoded(&ToHost::Output { id, stream, bytes }));
                    });
                    self.ended(id, end);
                }
            }
        }
    }

    /// Ends all that the session has begun.
    fn give_up_all(&mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            self.dying.push(running.kill());
        }
        for (_, writing) in std::mem::take(&mut self.writing) {
            writing.give_up();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.give_up_all();
        for dying in self.dying.drain(..) {
            dying.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::wire::{CHUNK, Stream, encode};
    use std::os::unix::net::UnixStream;
    use std::thread::JoinHandle;

    /// An agent of this machine, and the host's end of its port.
    struct Host {
        port: Option<UnixStream>,
        decoder: Decoder,
        came: std::collections::VecDeque<ToHost>,
        agent: Option<JoinHandle<()>>,
    }

    impl Host {
        fn before_hello() -> Self {
            let (port, mut theirs) = UnixStream::pair().unwrap();
            let agent = thread::spawn(move || serve_port(&mut theirs).unwrap());
            let mut host = Self {
                port: Some(port),
                decoder: Decoder::default(),
                came: Default::default(),
                agent: Some(agent),
            };
            assert_eq!(host.next(), ToHost::Started);
            host
        }

        fn new() -> Self {
            let mut host = Self::before_hello();
            host.hello(7);
            host
        }

        fn hello(&mut self, session: u64) {
            self.say(&ToGuest::Hello { session });
            loop {
                if let ToHost::Hello {
                    session: answered,
                    boot_id,
                } = self.next()
                {
                    assert_eq!((answered, boot_id.len()), (session, 36));
                    return;
                }
            }
        }

        fn port(&self) -> &UnixStream {
            self.port.as_ref().unwrap()
        }

        fn say(&self, message: &ToGuest) {
            self.port().write_all(&encode(message).unwrap()).unwrap();
        }

        fn run(&self, id: RequestId, command: &str) {
            let command = command.to_owned();
            self.say(&ToGuest::Run { id, command });
        }

        fn next(&mut self) -> ToHost {
            let mut bytes = [0; 4096];
            loop {
                if let Some(message) = self.came.pop_front() {
                    return message;
                }
                let count = self.port().read(&mut bytes).unwrap();
                assert!(count > 0, "the agent has ended");
                self.came
                    .extend(self.decoder.feed::<ToHost>(&bytes[..count]));
            }
        }

        /// Both streams of a request until its end; other requests' messages are skipped.
        fn end(&mut self, id: RequestId) -> (String, String, End) {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            loop {
                match self.next() {
                    ToHost::Output {
                        id: of,
                        stream,
                        bytes,
                    } if of == id => match stream {
                        Stream::Stdout => out.extend(bytes),
                        Stream::Stderr => err.extend(bytes),
                    },
                    ToHost::Ended { id: of, end } if of == id => {
                        let text = |bytes| String::from_utf8(bytes).unwrap();
                        return (text(out), text(err), end);
                    }
                    _ => {}
                }
            }
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            self.port = None;
            if let Some(agent) = self.agent.take() {
                let _ = agent.join();
            }
        }
    }

    fn said(out: &str, err: &str, code: i32) -> (String, String, End) {
        (out.to_owned(), err.to_owned(), End::Code(code))
    }

    #[test]
    fn a_command_gives_its_status_and_both_streams() {
        let mut host = Host::new();
        host.run(1, "echo out; echo err >&2; exit 3");
        assert_eq!(host.end(1), said("out\n", "err\n", 3));
        host.run(2, "kill -TERM $$");
        assert_eq!(host.end(2).2, End::Signal(15));
        host.run(3, "echo $HOME $USER $PATH | cut -c -30; env | wc -l");
        let (out, ..) = host.end(3);
        assert!(out.starts_with("/root root /usr/local/sbin:"), "{out}");
    }

    #[test]
    fn many_commands_run_at_once() {
        let mut host = Host::new();
        // Each waits for the next one: none ends unless all run.
        let folder = std::env::temp_dir().join(format!("podwire-agent-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let fifo = |n: u32| folder.join(n.to_string()).display().to_string();
        host.run(
            100,
            &(1..=20)
                .map(|n| format!("mkfifo {};", fifo(n)))
                .collect::<String>(),
        );
        assert_eq!(host.end(100).2, End::Code(0));
        for id in 1..20 {
            host.run(id, &format!("cat {} > {}", fifo(id), fifo(id + 1)));
        }
        host.run(20, &format!("cat {}", fifo(20)));
        host.run(21, &format!("echo passed on > {}", fifo(1)));
        assert_eq!(host.end(20).0, "passed on\n");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn input_flows_as_fast_as_it_is_taken() {
        let mut host = Host::new();
        host.run(1, "sleep 0.2; wc -c");
        let chunk = ToGuest::Input {
            id: 1,
            bytes: vec![0; CHUNK],
        };
        let (mut sent, mut taken) = (0, 0);
        while sent < 40 * CHUNK {
            while sent - taken + CHUNK <= wire::WINDOW {
                host.say(&chunk);
                sent += CHUNK;
            }
            if let ToHost::Taken { id: 1, bytes } = host.next() {
                taken += bytes as usize;
            }
        }
        host.say(&ToGuest::End { id: 1 });
        assert_eq!(host.end(1).0, format!("{sent}\n"));
    }

    #[test]
    fn input_that_nobody_reads_holds_nothing_up() {
        let mut host = Host::new();
        host.run(1, "sleep 1000");
        for _ in 0..16 {
            host.say(&ToGuest::Input {
                id: 1,
                bytes: vec![1; CHUNK],
            });
        }
        host.run(2, "echo meanwhile");
        assert_eq!(host.end(2).0, "meanwhile\n");
    }

    #[test]
    fn what_a_command_leaves_running_does_not_keep_it() {
        let mut host = Host::new();
        host.run(1, "sleep 1000 & echo $!");
        let (pid, _, end) = host.end(1);
        assert_eq!(end, End::Code(0));
        host.run(2, &format!("kill {pid}"));
        assert_eq!(host.end(2).2, End::Code(0));
    }

    #[test]
    fn a_killed_command_takes_its_group_along() {
        let mut host = Host::new();
        host.run(1, "sleep 1000 & echo $!; sleep 1000");
        let ToHost::Output { bytes, .. } = host.next() else {
            panic!("no output");
        };
        let pid = String::from_utf8(bytes).unwrap();
        host.say(&ToGuest::Kill { id: 1 });
        // Whoever inherits an orphan need not have waited for it: dead is dead.
        let pid = pid.trim();
        host.run(
            2,
            &format!("while grep -qs '^State:.[^XZ]' /proc/{pid}/status; do sleep 0.01; done"),
        );
        assert_eq!(host.end(2).2, End::Code(0));
    }

    #[test]
    fn a_file_is_in_its_place_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("podwire-write-{}", std::process::id()));
        let path = folder.join("a/b.conf");
        let write = |id, mode| ToGuest::Write {
            id,
            path: path.display().to_string(),
            mode,
        };
        let mut host = Host::new();
        host.say(&write(1, 0o640));
        host.say(&ToGuest::Input {
            id: 1,
            bytes: b"one".to_vec(),
        });
        assert_eq!(host.next(), ToHost::Taken { id: 1, bytes: 3 });
        assert!(!path.exists());
        host.say(&ToGuest::End { id: 1 });
        assert_eq!(host.end(1).2, End::Code(0));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((fs::read(&path).unwrap(), mode()), (b"one".to_vec(), 0o640));

        host.say(&write(2, 0o600));
        host.say(&ToGuest::Kill { id: 2 });
        host.say(&write(3, 0o600));
        host.say(&ToGuest::End { id: 3 });
        assert_eq!(host.end(3).2, End::Code(0));
        assert_eq!((fs::read(&path).unwrap(), mode()), (Vec::new(), 0o600));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        let path = path.join("below a file").display().to_string();
        host.say(&ToGuest::Write {
            id: 4,
            path,
            mode: 0o600,
        });
        let End::Refused(why) = host.end(4).2 else {
            panic!("written below a file");
        };
        assert!(
            why.ends_with("Not a directory (os error 20)") || why.contains("File exists"),
            "{why}"
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_new_session_ends_what_the_one_before_began() {
        let mut host = Host::new();
        host.run(1, "echo $$; sleep 1000");
        let ToHost::Output { bytes, .. } = host.next() else {
            panic!("no output");
        };
        let pid = String::from_utf8(bytes).unwrap();
        host.hello(8);
        host.run(
            1,
            &format!(
                "while kill -0 {} 2>/dev/null; do sleep 0.01; done; echo gone",
                pid.trim()
            ),
        );
        assert_eq!(host.end(1), said("gone\n", "", 0));
    }

    #[test]
    fn what_was_meant_for_an_agent_before_is_not_carried_out() {
        let mut host = Host::before_hello();
        // The end of a message whose beginning went to somebody else, then a whole one.
        host.port().write_all(&[9, 9, 9, 0]).unwrap();
        host.run(1, "echo stale");
        host.hello(3);
        host.run(2, "echo fresh");
        assert_eq!(
            host.next(),
            ToHost::Output {
                id: 2,
                stream: Stream::Stdout,
                bytes: b"fresh\n".to_vec(),
            }
        );
    }
}
