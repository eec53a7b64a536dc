//! Commands and files in a guest, by the agent that runs in it (`probe agent`) and a virtio-serial
//! port: whatever its network does.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use podwire_probe::agent::wire::{
    self, CHUNK, Decoder, End, RequestId, Stream, ToGuest, ToHost, WINDOW,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::fault::{FaultWatch, MachineFault};
use crate::machine::REMAINS_LIMIT;
use crate::output::{Collected, ExitStatus, Lines, Output, signal};
use crate::transcript::Transcript;

/// Why a command in a guest, or a file, gave no usable result.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Its agent did not answer in time.
    #[error(
        "the guest's agent did not answer within {0:?}; has the guest booted, and does \
         podwire-agent.service run in it?"
    )]
    NoAnswer(Duration),
    /// The agent began anew under the command: the guest rebooted, or the agent died.
    #[error("the guest's agent began anew during `{command}`; did the guest reboot?")]
    BeganAnew {
        /// The command.
        command: String,
    },
    /// The port closed under the command: the machine is ended, or its session was.
    #[error("the way into the guest was closed during `{command}`")]
    Closed {
        /// The command.
        command: String,
    },
    /// The guest could not do it.
    #[error("`{command}`: the guest {why}")]
    Refused {
        /// The command.
        command: String,
        /// What the agent says, completing "the guest ...".
        why: String,
    },
    /// The command line fits into no message.
    #[error("`{command}...` is too long")]
    TooLong {
        /// How it begins.
        command: String,
        /// How long it may be.
        source: wire::TooLong,
    },
    /// The command ran longer than allowed. It was killed with what it started, unless that left
    /// its process group.
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

/// A way into a guest, as root. Cheap to clone; requests run side by side.
#[derive(Clone)]
pub struct Guest {
    line: Arc<Line>,
    faults: FaultWatch,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

/// The host's end of the port.
struct Line {
    outgoing: mpsc::UnboundedSender<Said>,
    requests: Mutex<Requests>,
    /// The boot id that the agent gave in the present session; none until it has.
    boot: watch::Sender<Option<Arc<str>>>,
    transcript: Transcript,
}

/// What is said to the guest.
enum Said {
    /// A session begins.
    Hello(u64),
    /// A frame about one of its requests.
    About(Vec<u8>),
}

struct Requests {
    session: u64,
    /// Its hello waits to be written.
    opening: bool,
    next: RequestId,
    waiting: HashMap<RequestId, mpsc::UnboundedSender<ToHost>>,
    /// Nothing is asked any more.
    closed: bool,
    /// The port has closed by itself.
    ended: bool,
}

impl Guest {
    /// Takes up the conversation on `stream`, the host's end of the port. It waits for nobody: a guest
    /// that boots or wakes up answers later.
    pub(crate) fn over<S>(stream: S, transcript: Transcript, faults: FaultWatch) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (outgoing, mut frames) = mpsc::unbounded_channel();
        let line = Arc::new(Line {
            outgoing,
            requests: Mutex::new(Requests {
                session: 0,
                opening: false,
                next: 1,
                waiting: HashMap::new(),
                closed: false,
                ended: false,
            }),
            boot: watch::Sender::new(None),
            transcript,
        });
        // Both end with the stream; the first also when the last handle goes.
        let opened = Arc::downgrade(&line);
        tokio::spawn(async move {
            while let Some(said) = frames.recv().await {
                let frame = match said {
                    Said::About(frame) => frame,
                    Said::Hello(session) => {
                        if let Some(line) = opened.upgrade() {
                            line.opens(session);
                        }
                        wire::encode(&ToGuest::Hello { session }).unwrap_or_default()
                    }
                };
                if writer.write_all(&frame).await.is_err() {
                    break;
                }
            }
        });
        let routed = Arc::downgrade(&line);
        tokio::spawn(async move {
            let mut decoder = Decoder::default();
            let mut bytes = vec![0; 2 * CHUNK];
            loop {
                let count = reader.read(&mut bytes).await.unwrap_or(0);
                let Some(line) = routed.upgrade() else {
                    break;
                };
                if count == 0 {
                    line.end();
                    break;
                }
                for message in decoder.feed(&bytes[..count]) {
                    line.take(message);
                }
            }
        });
        line.hello();
        Self { line, faults }
    }

    /// Waits until the guest's agent answers, and gives the kernel's boot id (random(4)).
    ///
    /// # Errors
    /// [`GuestError::NoAnswer`], [`GuestError::Fault`].
    pub async fn up(&self, limit: Duration) -> Result<Arc<str>, GuestError> {
        self.boot_that(|_| true, limit).await
    }

    /// Waits until a guest answers that has another boot id than `before`.
    ///
    /// # Errors
    /// As [`Guest::up`].
    pub async fn booted_again(
        &self,
        before: &str,
        limit: Duration,
    ) -> Result<Arc<str>, GuestError> {
        self.boot_that(|boot| boot != before, limit).await
    }

    async fn boot_that(
        &self,
        is_meant: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> Result<Arc<str>, GuestError> {
        let mut boot = self.line.boot.subscribe();
        let answer = async {
            let answered = boot.wait_for(|boot| boot.as_deref().is_some_and(&is_meant));
            // The sender is in `self.line`, so the channel cannot close while this waits.
            answered.await.ok().and_then(|boot| boot.clone())
        };
        match self.faults.unless_faulted(timeout(limit, answer)).await {
            Ok(Ok(Some(boot))) => Ok(boot),
            Ok(_) => Err(GuestError::NoAnswer(limit)),
            Err(fault) => Err(GuestError::Fault {
                command: "(wait for the guest's agent)".to_owned(),
                fault: Box::new(fault),
            }),
        }
    }

    /// Runs a command line in root's shell, with empty input.
    ///
    /// # Errors
    /// [`GuestError`]; but another exit status than 0 is not one.
    pub async fn run(&self, command: &str, limit: Duration) -> Result<Output, GuestError> {
        self.run_reading(command, tokio::io::empty(), limit).await
    }

    /// Runs a command line that must exit with 0, and gives its standard output.
    ///
    /// # Errors
    /// [`GuestError::Failed`] with both streams, or whatever kept it from running.
    pub async fn run_ok(&self, command: &str, limit: Duration) -> Result<String, GuestError> {
        let output = self.run(command, limit).await?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(GuestError::Failed {
            command: command.to_owned(),
            output,
        })
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
        let run = |id| ToGuest::Run {
            id,
            command: command.to_owned(),
        };
        self.ask(command, run, input, limit, |_, _| {}).await
    }

    /// Runs a command line, and hands on each line of its standard output as soon as it is written:
    /// for what shows how far it is, or never ends (`journalctl --follow`).
    ///
    /// # Errors
    /// [`GuestError`]; but another exit status than 0 is not one.
    pub async fn follow(
        &self,
        command: &str,
        limit: Duration,
        mut line: impl FnMut(&str),
    ) -> Result<Output, GuestError> {
        let run = |id| ToGuest::Run {
            id,
            command: command.to_owned(),
        };
        let mut lines = Lines::default();
        let follow = |stream, bytes: &[u8]| {
            if stream == Stream::Stdout {
                lines.take(bytes, &mut line);
            }
        };
        self.ask(command, run, tokio::io::empty(), limit, follow)
            .await
    }

    /// Writes a file, and its folder when there is none, with the given permission bits. What was
    /// there is replaced in one step.
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
        let command = format!("(write {path})");
        let write = |id| ToGuest::Write {
            id,
            path: path.to_owned(),
            mode,
        };
        self.ask(&command, write, bytes, limit, |_, _| {}).await?;
        Ok(())
    }

    /// Ends the conversation: what still runs is killed, and once this returns nothing is on its way,
    /// so that the guest can be frozen. Whoever asks later is told that it is closed.
    ///
    /// # Errors
    /// [`GuestError::NoAnswer`], [`GuestError::Fault`].
    pub async fn close(&self, limit: Duration) -> Result<(), GuestError> {
        {
            let mut requests = self.line.requests();
            requests.closed = true;
            requests.waiting.clear();
        }
        // The answer to this is the last that is said.
        self.line.hello();
        self.up(limit).await?;
        Ok(())
    }

    /// Puts a request, gives it its input, hands on its output, and waits for its end.
    async fn ask(
        &self,
        command: &str,
        request: impl FnOnce(RequestId) -> ToGuest,
        input: impl AsyncRead + Unpin,
        limit: Duration,
        mut output: impl FnMut(Stream, &[u8]),
    ) -> Result<Output, GuestError> {
        let mut collected = Collected::default();
        let exchange = async {
            self.line.up().await;
            let asked = self.line.ask(command, request)?;
            asked
                .carried_out(command, input, &mut collected, &mut output)
                .await
        };
        let work = timeout(limit, exchange);
        let mut done = self.faults.unless_faulted(work).await;
        if let Ok(Ok(Err(GuestError::Closed { .. }))) = done
            && self.line.requests().ended
            && let Ok(fault) = timeout(REMAINS_LIMIT, self.faults.faulted()).await
        {
            // The port closes a moment before the reason is known.
            done = Err(fault);
        }
        let command = command.to_owned();
        match done {
            Ok(Ok(done)) => done.map(|()| collected.output()),
            // It was never put: what was, ends with its session.
            Ok(Err(_)) if self.line.boot.borrow().is_none() => Err(GuestError::NoAnswer(limit)),
            Ok(Err(_)) => Err(GuestError::TimedOut {
                command,
                limit,
                output: collected.output(),
            }),
            Err(fault) => Err(GuestError::Fault {
                command,
                fault: Box::new(fault),
            }),
        }
    }
}

impl Line {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, said: Said) {
        // A closed queue is a closed port: whoever waits is told so by the reading side.
        let _ = self.outgoing.send(said);
    }

    /// Says something about a request, unless that is over: what comes after the session's end would
    /// be of no request, or on its way while the guest is frozen.
    fn say_of(&self, id: RequestId, message: &ToGuest) {
        let frame = wire::encode(message).unwrap_or_default();
        let requests = self.requests();
        if requests.waiting.contains_key(&id) {
            self.say(Said::About(frame));
        }
    }

    /// Opens a session; what was asked in the one before is over.
    fn hello(&self) {
        let session = RandomState::new().build_hasher().finish();
        self.transcript.note('>', &format!("hello {session:x}"));
        // Said before the lock goes: whatever is asked from then on comes behind it.
        let mut requests = self.requests();
        requests.session = session;
        requests.opening = true;
        requests.waiting.clear();
        self.boot.send_replace(None);
        self.say(Said::Hello(session));
    }

    /// A session's hello is about to be written: an agent that starts from now on may not get it.
    fn opens(&self, session: u64) {
        let mut requests = self.requests();
        if requests.session == session {
            requests.opening = false;
        }
    }

    async fn up(&self) {
        let mut boot = self.boot.subscribe();
        // The sender is in `self`, so the channel cannot close while this waits.
        let _ = boot.wait_for(Option::is_some).await;
    }

    fn take(&self, message: ToHost) {
        match message {
            ToHost::Started => {
                self.transcript.note('<', "started");
                // It gets the hello that waits, where one does: a guest that starts over and over and reads
                // nothing would have as many of them wait.
                let is_due = {
                    let requests = self.requests();
                    !requests.closed && !requests.opening
                };
                if is_due {
                    self.hello();
                }
            }
            ToHost::Hello { session, boot_id } => {
                // An answer to an earlier question is overtaken.
                let requests = self.requests();
                if requests.session == session {
                    let note = format!("hello {session:x}, boot id {boot_id:?}");
                    self.transcript.note('<', &note);
                    self.boot.send_replace(Some(boot_id.into()));
                }
            }
            about => {
                let Some(id) = about.request() else { return };
                let requests = self.requests();
                // Nobody may wait for it any more.
                if let Some(waiting) = requests.waiting.get(&id) {
                    let _ = waiting.send(about);
                }
            }
        }
    }

    /// The port is closed.
    fn end(&self) {
        self.transcript.note('!', "the port closed");
        let mut requests = self.requests();
        (requests.closed, requests.ended) = (true, true);
        requests.waiting.clear();
    }

    fn ask(
        self: &Arc<Self>,
        command: &str,
        request: impl FnOnce(RequestId) -> ToGuest,
    ) -> Result<Asked, GuestError> {
        let (sender, answers) = mpsc::unbounded_channel();
        let mut requests = self.requests();
        if requests.closed {
            return Err(GuestError::Closed {
                command: command.to_owned(),
            });
        }
        let id = requests.next;
        let frame = wire::encode(&request(id)).map_err(|source| GuestError::TooLong {
            command: command.chars().take(80).collect(),
            source,
        })?;
        requests.next = id.wrapping_add(1);
        requests.waiting.insert(id, sender);
        self.transcript.note('>', &format!("{id}: {command:?}"));
        // With the lock held: a session that begins meanwhile ends it, or comes before it.
        self.say(Said::About(frame));
        Ok(Asked {
            line: Arc::clone(self),
            id,
            answers,
            over: false,
        })
    }
}

/// A request that was put. Dropping it before its end kills what it started.
struct Asked {
    line: Arc<Line>,
    id: RequestId,
    answers: mpsc::UnboundedReceiver<ToHost>,
    over: bool,
}

impl Asked {
    async fn carried_out(
        mut self,
        command: &str,
        mut input: impl AsyncRead + Unpin,
        collected: &mut Collected,
        output: &mut impl FnMut(Stream, &[u8]),
    ) -> Result<(), GuestError> {
        let started = Instant::now();
        let window = Arc::new(Semaphore::new(WINDOW));
        let (line, id) = (Arc::clone(&self.line), self.id);
        let send = feed(&line, id, &mut input, &window);
        tokio::pin!(send);
        let mut sending = true;
        let end = loop {
            tokio::select! {
                // A command may end without reading its input: only its own end counts.
                () = &mut send, if sending => sending = false,
                answer = self.answers.recv() => match answer {
                    Some(ToHost::Taken { bytes, .. }) => {
                        window.add_permits(bytes.min(WINDOW as u32) as usize);
                    }
                    Some(ToHost::Output { stream, bytes, .. }) => {
                        output(stream, &bytes);
                        collected.take(stream, &bytes);
                    }
                    Some(ToHost::Ended { end, .. }) => break Some(end),
                    Some(_) => {}
                    None => break None,
                }
            }
        };
        self.over = true;
        let Some(end) = end else {
            let command = command.to_owned();
            return Err(if self.line.requests().closed {
                GuestError::Closed { command }
            } else {
                GuestError::BeganAnew { command }
            });
        };
        let seconds = started.elapsed().as_secs_f64();
        self.line.transcript.note(
            '<',
            &format!(
                "{id}: {end:?} after {seconds:.2} s, {} bytes of output",
                collected.written()
            ),
        );
        collected.status = match end {
            End::Code(code) => ExitStatus::Code(code),
            End::Signal(number) => ExitStatus::Signal(signal(number)),
            End::Refused(why) => {
                return Err(GuestError::Refused {
                    command: command.to_owned(),
                    why,
                });
            }
        };
        Ok(())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.over {
            let id = self.id;
            self.line.transcript.note('>', &format!("{id}: kill"));
            self.line.say_of(id, &ToGuest::Kill { id });
        }
        self.line.requests().waiting.remove(&self.id);
    }
}

/// Sends what can be read, never more than the window ahead of what was taken.
async fn feed(
    line: &Line,
    id: RequestId,
    input: &mut (impl AsyncRead + Unpin),
    window: &Semaphore,
) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(count @ 1..) = input.read(&mut bytes).await {
        // A chunk's length.
        let Ok(permits) = window.acquire_many(count as u32).await else {
            return;
        };
        permits.forget();
        let bytes = bytes[..count].to_vec();
        line.say_of(id, &ToGuest::Input { id, bytes });
    }
    line.say_of(id, &ToGuest::End { id });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(120);

    /// A guest whose agent runs in a thread of this process.
    fn guest() -> Guest {
        let (ours, theirs) = UnixStream::pair().unwrap();
        serve(theirs);
        over(ours)
    }

    fn serve(mut port: UnixStream) {
        thread::spawn(move || podwire_probe::agent::serve_port(&mut port).unwrap());
    }

    fn over(port: UnixStream) -> Guest {
        port.set_nonblocking(true).unwrap();
        let port = tokio::net::UnixStream::from_std(port).unwrap();
        let transcript = Transcript::new(std::io::sink());
        Guest::over(port, transcript, FaultWatch::new("node1"))
    }

    #[tokio::test]
    async fn a_command_has_a_status_and_both_streams() {
        let guest = guest();
        let output = guest.run("echo out; echo err >&2; exit 3", LIMIT).await;
        insta::assert_snapshot!(output.unwrap(), @"
        exit status 3
        stdout: out
        stderr: err
        ");
        let output = guest.run("kill -KILL $$", LIMIT).await.unwrap();
        assert_eq!(output.status, ExitStatus::Signal("KILL".into()));
        let error = guest.run_ok("echo why >&2; false", LIMIT).await;
        insta::assert_snapshot!(error.unwrap_err(), @"
        `echo why >&2; false` failed:
        exit status 1
        stderr: why
        ");
    }

    #[tokio::test]
    async fn a_megabyte_goes_in_and_comes_out() {
        let text = "0123456789abcdef".repeat(1 << 16);
        let output = guest().run_with_input("cat", text.as_bytes(), LIMIT).await;
        assert!(output.unwrap().stdout == text);
    }

    #[tokio::test]
    async fn what_is_not_kept_of_a_long_output_is_said() {
        let endless = "head -c 33555000 /dev/zero | tr '\\0' x";
        let output = guest().run(endless, LIMIT).await.unwrap();
        assert!(output.status.success());
        assert!(output.stdout.ends_with("x\n(568 bytes more were cut)\n"));
    }

    #[tokio::test]
    async fn a_command_that_reads_nothing_ends_all_the_same() {
        let input = vec![0; 4 * WINDOW];
        let output = guest().run_with_input("true", &input, LIMIT).await;
        assert!(output.unwrap().status.success());
    }

    #[tokio::test]
    async fn a_command_beyond_its_limit_is_killed_and_tells_what_it_printed() {
        let guest = guest();
        let mut limit = Duration::from_millis(100);
        // On a busy machine it prints later.
        let output = loop {
            match guest.run("echo $$; exec sleep 1000", limit).await {
                Err(GuestError::TimedOut { output, .. }) if output.stdout.is_empty() => limit *= 2,
                Err(GuestError::TimedOut { output, .. }) => break output,
                other => panic!("{other:?}"),
            }
        };
        let gone = format!(
            "while kill -0 {} 2>/dev/null; do sleep 0.01; done",
            output.stdout.trim()
        );
        guest.run_ok(&gone, LIMIT).await.unwrap();
    }

    #[tokio::test]
    async fn lines_come_while_their_command_runs() {
        let guest = guest();
        let (sender, mut lines) = mpsc::unbounded_channel();
        // It ends only because its first line was seen.
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        let command = format!(
            "echo one; until [ -e {0} ]; do sleep 0.01; done; printf 'two\\r\\nrest'",
            seen.display()
        );
        let follow = guest.follow(&command, LIMIT, |line| {
            sender.send(line.to_owned()).unwrap();
        });
        let answer = async {
            assert_eq!(lines.recv().await.unwrap(), "one");
            guest
                .write(seen.to_str().unwrap(), b"", 0o600, LIMIT)
                .await
                .unwrap();
            assert_eq!(lines.recv().await.unwrap(), "two");
        };
        let (output, ()) = tokio::join!(follow, answer);
        assert_eq!(output.unwrap().stdout, "one\ntwo\r\nrest");
    }

    #[tokio::test]
    async fn what_runs_while_the_guest_reboots_is_lost_and_the_guest_is_not() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let again = theirs.try_clone().unwrap();
        let guest = over(ours);
        serve(theirs);
        guest.up(LIMIT).await.unwrap();
        let running = tokio::spawn({
            let guest = guest.clone();
            async move { guest.run("echo begun; sleep 1000", LIMIT).await }
        });
        guest.run_ok("true", LIMIT).await.unwrap();
        // Half a message of the agent that ends, then one that starts.
        (&again).write_all(&[7, 3]).unwrap();
        (&again)
            .write_all(&[&[0][..], &wire::encode(&ToHost::Started).unwrap()].concat())
            .unwrap();
        let error = running.await.unwrap().unwrap_err();
        assert!(matches!(error, GuestError::BeganAnew { .. }), "{error}");
        assert_eq!(guest.run_ok("echo there", LIMIT).await.unwrap(), "there\n");
    }

    #[tokio::test]
    async fn once_closed_nothing_is_on_its_way_and_nothing_is_asked() {
        let guest = guest();
        let running = tokio::spawn({
            let guest = guest.clone();
            async move { guest.run("yes", LIMIT).await }
        });
        guest.run_ok("true", LIMIT).await.unwrap();
        guest.close(LIMIT).await.unwrap();
        let error = running.await.unwrap().unwrap_err();
        assert!(matches!(error, GuestError::Closed { .. }), "{error}");
        let error = guest.run("true", LIMIT).await.unwrap_err();
        insta::assert_snapshot!(error, @"the way into the guest was closed during `true`");
    }

    #[tokio::test]
    async fn a_guest_that_starts_without_end_and_reads_nothing_fills_no_memory() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let transcript = Transcript::new(std::io::sink());
        let guest = Guest::over(ours, transcript, FaultWatch::new("node1"));
        let started = wire::encode(&ToHost::Started).unwrap();
        theirs.write_all(&started.repeat(10_000)).await.unwrap();

        // All that waited for it comes before the number that is good.
        let mut sessions = 0;
        let answering = async {
            let (mut decoder, mut bytes) = (Decoder::default(), vec![0; CHUNK]);
            loop {
                let count = theirs.read(&mut bytes).await.unwrap();
                for message in decoder.feed::<ToGuest>(&bytes[..count]) {
                    let ToGuest::Hello { session } = message else {
                        panic!("{message:?}");
                    };
                    sessions += 1;
                    let boot_id = "boot".to_owned();
                    let answer = wire::encode(&ToHost::Hello { session, boot_id });
                    theirs.write_all(&answer.unwrap()).await.unwrap();
                }
            }
        };
        tokio::select! {
            up = guest.up(LIMIT) => assert_eq!(&*up.unwrap(), "boot"),
            never = answering => never,
        }
        assert!(sessions < 100, "{sessions} sessions were opened");
    }

    /// An agent that answers whoever opens a session, and gives what came between the second opening
    /// and the third.
    async fn said_between_sessions(port: UnixStream) -> Vec<ToGuest> {
        port.set_nonblocking(true).unwrap();
        let mut port = tokio::net::UnixStream::from_std(port).unwrap();
        let mut decoder = Decoder::default();
        let mut bytes = vec![0; CHUNK];
        let (mut sessions, mut said) = (0, Vec::new());
        loop {
            let count = port.read(&mut bytes).await.unwrap();
            for message in decoder.feed::<ToGuest>(&bytes[..count]) {
                match message {
                    ToGuest::Hello { .. } if sessions == 2 => return said,
                    ToGuest::Hello { session } => {
                        sessions += 1;
                        let boot_id = "boot".to_owned();
                        let answer = wire::encode(&ToHost::Hello { session, boot_id });
                        port.write_all(&answer.unwrap()).await.unwrap();
                    }
                    message if sessions == 2 => said.push(message),
                    _ => {}
                }
            }
        }
    }

    #[tokio::test]
    async fn input_that_comes_late_does_not_follow_the_end_of_its_session() {
        // Which of two events a request sees first is chance.
        for _ in 0..20 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let guest = over(ours);
            let agent = tokio::spawn(said_between_sessions(theirs));
            let (mut late, input) = tokio::io::duplex(16);
            let running = tokio::spawn({
                let guest = guest.clone();
                async move { guest.run_reading("cat", input, LIMIT).await }
            });
            while guest.line.requests().waiting.is_empty() {
                tokio::task::yield_now().await;
            }
            let (closed, written) = tokio::join!(guest.close(LIMIT), late.write_all(b"late"));
            closed.unwrap();
            written.unwrap();
            running.await.unwrap().unwrap_err();
            guest.line.hello();
            assert_eq!(agent.await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn a_guest_without_an_agent_is_told_as_that() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let brief = Duration::from_millis(20);
        let guest = over(ours);
        let error = guest.run("true", brief).await.unwrap_err();
        assert!(matches!(error, GuestError::NoAnswer(_)), "{error}");
        let error = guest.up(brief).await.unwrap_err();
        insta::assert_snapshot!(error, @"the guest's agent did not answer within 20ms; has the guest booted, and does podwire-agent.service run in it?");
    }

    #[tokio::test]
    async fn what_the_guest_cannot_do_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("b"), "").unwrap();
        let error = guest()
            .write(path.to_str().unwrap(), b"x", 0o600, LIMIT)
            .await
            .unwrap_err();
        let told = error
            .to_string()
            .replace(folder.path().to_str().unwrap(), "");
        insta::assert_snapshot!(told, @"`(write /a)`: the guest cannot write /a: Is a directory (os error 21)");
        let long = "x".repeat(wire::FRAME);
        let error = guest().run(&long, LIMIT).await.unwrap_err();
        assert!(matches!(error, GuestError::TooLong { .. }), "{error}");
    }
}
