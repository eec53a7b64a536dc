//! Tickets between processes. The other processes are this same program, which is told by a
//! variable what to be.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use podwire_admission::{Admission, Claim};
use podwire_process::Report;

const FOLDER: &str = "ADMISSION_TEST_FOLDER";
const SLOTS: &str = "ADMISSION_TEST_SLOTS";

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Says what it waits for, one line each.
struct Told;

impl Report for Told {
    fn step(&self, _: &str) {}
    fn waiting(&self, text: &str) {
        say(&format!("waiting for {text}"));
    }
}

fn say(line: &str) {
    // Not `println!`: the test harness would keep it.
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

#[test]
#[ignore = "the process that the other tests start"]
fn contender() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let claim = Claim {
        what: format!("contender {}", std::process::id()),
        slots: std::env::var(SLOTS).unwrap().parse().unwrap(),
        memory_mib: 1,
        keep_free_mib: 0,
    };
    let admission = Admission::at(Path::new(&folder)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut words = std::io::stdin().lines();
    while let Some(word) = words.next() {
        assert_eq!(word.unwrap(), "enter");
        let ticket = runtime.block_on(admission.enter(&claim, &Told)).unwrap();
        say("in");
        // Whatever comes next ends it, an end of the input too.
        let _ = words.next();
        say("out");
        drop(ticket);
    }
}

struct Contender {
    child: Child,
    stdin: ChildStdin,
    said: mpsc::Receiver<String>,
}

impl Contender {
    fn start(folder: &Path, slots: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "contender", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(SLOTS, slots.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, said) = mpsc::channel();
        thread::spawn(move || forward(stdout, &sender));
        Self { child, stdin, said }
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.stdin, "{word}").unwrap();
    }

    fn next(&self) -> String {
        self.said.recv_timeout(LONG).unwrap()
    }

    fn says_nothing(&self) -> bool {
        self.said.recv_timeout(Duration::from_millis(600)).is_err()
    }

    fn name(&self) -> String {
        let pid = self.child.id();
        format!("contender {pid} (process {pid})")
    }

    fn kill(self) {
        drop(self);
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What the contender said, without the words of the test harness around it.
fn forward(stdout: ChildStdout, to: &mpsc::Sender<String>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let ours = ["in", "out"].contains(&line.as_str()) || line.starts_with("waiting for ");
        if ours && to.send(line).is_err() {
            return;
        }
    }
}

#[test]
fn a_holder_that_is_killed_makes_room_for_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Contender::start(dir.path(), 1);
    holder.tell("enter");
    assert_eq!(holder.next(), "in");
    let mut first = Contender::start(dir.path(), 1);
    first.tell("enter");
    assert_eq!(
        first.next(),
        format!("waiting for {}: this machine runs 1 at once", holder.name())
    );
    let mut second = Contender::start(dir.path(), 1);
    second.tell("enter");
    assert_eq!(
        second.next(),
        format!("waiting for its turn, after {}", first.name())
    );
    assert!(first.says_nothing());
    // In the queue: its place must not keep the next one out.
    first.kill();
    assert_eq!(
        second.next(),
        format!("waiting for {}: this machine runs 1 at once", holder.name())
    );
    holder.kill();
    assert_eq!(second.next(), "in");
    second.kill();
    let mut last = Contender::start(dir.path(), 1);
    last.tell("enter");
    assert_eq!(last.next(), "in");
    last.kill();
}

#[test]
fn many_that_come_go_and_are_killed_are_never_more_than_the_slots() {
    const SLOTS: usize = 2;
    let dir = tempfile::tempdir().unwrap();
    let mut inside: Vec<Contender> = Vec::new();
    let mut outside: Vec<Contender> = (0..5)
        .map(|_| Contender::start(dir.path(), SLOTS))
        .collect();
    for contender in &mut outside {
        contender.tell("enter");
    }
    for round in 0..9 {
        // Two get in, the others only say for whom they wait.
        while inside.len() < SLOTS {
            let entered = outside
                .iter()
                .position(|contender| contender.said.try_iter().any(|line| line == "in"));
            match entered {
                Some(index) => inside.push(outside.remove(index)),
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
        // Long enough for everybody to look again.
        thread::sleep(Duration::from_millis(300));
        let more = outside
            .iter()
            .filter(|contender| contender.said.try_iter().any(|line| line == "in"));
        assert_eq!(more.count(), 0, "more than {SLOTS} in round {round}");
        let mut leaving = inside.remove(round % SLOTS);
        if round % 3 == 0 {
            leaving.kill();
            leaving = Contender::start(dir.path(), SLOTS);
        } else {
            leaving.tell("leave");
            while leaving.next() != "out" {}
        }
        leaving.tell("enter");
        outside.push(leaving);
    }
}
