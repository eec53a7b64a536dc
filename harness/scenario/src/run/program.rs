//! A program in the place of a scenario's function.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use podwire_access::{Beside, Served, ended};
use podwire_cluster::StageName;
use podwire_process::{BoundedLog, ChildCommand, Family, Spawner, Stream, Tail, plain};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::check::failure::{Cause, Failure};
use crate::lab::Lab;
use crate::run::cases::{self, Case};
use crate::scenario::{Scenario, Steps};

/// What it said, in the attempt's folder.
pub(crate) const OUTPUT: &str = "output.txt";

/// Where it may leave a JUnit file, in the attempt's folder.
pub(crate) const JUNIT: &str = "cases.xml";

/// Names that file to the program.
const JUNIT_VARIABLE: &str = "PODWIRE_JUNIT";

/// How long it may take, before stretching.
const LIMIT: Duration = Duration::from_secs(600);

/// How many of its last lines a failure shows, and how many octets of them at most.
const LAST_LINES: usize = 20;
const LAST_OCTETS: usize = 4096;

/// How long whoever holds its output may take to let go once it has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// A program that is a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// What it is given.
    pub arguments: Vec<String>,
    /// What people call it: the file, or what of it these arguments choose.
    pub called: String,
    /// Whether its kubeconfig is the one by way of a proxy, see [`Beside::variables_by_proxy`].
    pub by_proxy: bool,
}

/// A run's scenarios where these are programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// The programs, by the scenarios' names.
    pub programs: BTreeMap<String, Program>,
    /// The cluster's own kubectl.
    pub kubectl: PathBuf,
}

/// What each of these programs is as a scenario. Scenarios are constants: the text of these stays for as long as
/// the process, which makes them once.
pub fn scenarios(programs: &BTreeMap<String, Program>) -> Vec<Scenario> {
    let scenario = |(name, program): (&String, &Program)| Scenario {
        about: format!("{} ends with 0 beside a cluster of its own", program.called).leak(),
        nodes: 1,
        limit: LIMIT,
        ..Scenario::new(name.clone().leak(), StageName::Workload, UNKNOWN)
    };
    programs.iter().map(scenario).collect()
}

/// For a process whose run does not say which program is meant.
const UNKNOWN: Steps = |_| Box::pin(async { bail!("the run does not say which program this is") });

/// Where a program works.
pub(crate) struct Place<'a> {
    pub(crate) program: &'a Program,
    pub(crate) kubectl: &'a Path,
    pub(crate) spawner: &'a Spawner,
    /// Variables of this run's own, which a podwire that the program starts would take for its.
    pub(crate) hidden: &'a [&'static str],
    pub(crate) served: Served,
    /// The lab's folder.
    pub(crate) lab: &'a Path,
    /// The attempt's folder.
    pub(crate) attempt: &'a Path,
}

impl Place<'_> {
    /// Removes what the run before has left, where a scenario is repeated.
    ///
    /// # Errors
    /// When that is not possible.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        for name in [JUNIT, OUTPUT] {
            match fs::remove_file(self.attempt.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {name} of the run before"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Runs the program beside the lab's cluster, until it ends or `cut` says why it has to; nothing that it has started
    /// stays. The cases that it tells of come to `cases`, whatever the verdict.
    ///
    /// # Errors
    /// A [`Failure`] when it ends with another status than 0, or its JUnit file tells of a failure or is none; or what
    /// cut it short.
    pub(crate) async fn passes(
        &self,
        lab: &Lab,
        cut: impl Future<Output = anyhow::Error>,
        cases: &mut Vec<Case>,
    ) -> anyhow::Result<()> {
        let junit = self.attempt.join(JUNIT);
        let tell = |line: &str| eprintln!("{}", plain::text(line));
        let (cluster, stage) = (lab.cluster(), StageName::Workload);
        let beside = Beside::open(cluster, stage, self.lab, &self.served, self.kubectl, tell);
        let beside = beside.await?;
        lab.step(format!("run {}", self.program.called));
        let program = ChildCommand::new(&self.program.path).args(&self.program.arguments);
        let program = match self.program.by_proxy {
            false => beside.given(program),
            true => beside.given_by_proxy(program),
        };
        let (ended, said) = self.ran(program.env(JUNIT_VARIABLE, &junit), cut).await?;
        drop(beside);
        let found = spawn_blocking(move || cases::read(&junit));
        let found = found.await.context("nobody read its JUnit file")?;
        let last = last_of(&said);
        let verdict = match ended {
            Ok(ended) => judged(&self.program.called, ended, &last, &found),
            Err(error) => Err(cut_short(&error, &last)),
        };
        *cases = found.unwrap_or_default();
        verdict
    }

    /// Runs it to its end; gives how it ended, or what cut it short, and the last that it said.
    async fn ran(
        &self,
        program: ChildCommand,
        cut: impl Future<Output = anyhow::Error>,
    ) -> anyhow::Result<(anyhow::Result<ExitStatus>, Vec<u8>)> {
        // What it forgets there goes when it has ended.
        let temporary = TempDir::with_prefix("podwire-").context("cannot make its $TMPDIR")?;
        let (output, writer) = io::pipe().context("cannot make a pipe")?;
        let also = writer.try_clone().context("cannot make a pipe")?;
        let hidden = self.hidden.iter();
        let program = hidden.fold(program, |program, name| program.env_remove(*name));
        let mut command = program.env("TMPDIR", temporary.path());
        command.dir = self.program.path.parent().map(Path::to_owned);
        // What it does to its own group is to reach nobody else.
        command.own_group = true;
        command.stdout = Stream::File(File::from(OwnedFd::from(writer)));
        command.stderr = Stream::File(File::from(OwnedFd::from(also)));
        let kept = File::create(self.attempt.join(OUTPUT)).context("cannot keep what it says")?;
        let family = Family::to_come().context("cannot become the parent of its orphans")?;
        let child = family.start(self.spawner, command)?;
        let said = Said::listen(output, kept).context("cannot listen to it")?;
        let ended = ended(family, child, cut).await;
        let (ended, _theirs) = ended.context("cannot wait for it")?;
        Ok((ended, said.last().await))
    }
}

/// What a program says, heard by a thread of its own: whoever is beyond our reach, as root's processes are, may hold
/// the pipe for ever, and a runtime waits for its own threads.
struct Said {
    last: Arc<Mutex<Tail>>,
    ended: oneshot::Receiver<()>,
}

impl Said {
    /// Keeps what comes, within bounds, until nobody can write any more.
    fn listen(mut output: PipeReader, kept: File) -> io::Result<Self> {
        // One more than is shown tells that there was more.
        let last = Arc::new(Mutex::new(Tail::new(LAST_OCTETS + 1)));
        let (tell, ended) = oneshot::channel();
        let heard = Arc::clone(&last);
        let hear = move || {
            let mut log = Some(BoundedLog::new(kept, 0));
            let mut piece = vec![0; 64 << 10];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                let piece = &piece[..length];
                // A tail takes everything.
                let _ = lock(&heard).write_all(piece);
                // Who reads no more would end the program.
                if let Some(Err(error)) = log.as_mut().map(|log| log.write_all(piece)) {
                    eprintln!("{OUTPUT} ends before what the program said: {error}");
                    log = None;
                }
            }
            // Nobody waits for long.
            let _ = tell.send(());
        };
        thread::Builder::new().name("output".into()).spawn(hear)?;
        Ok(Self { last, ended })
    }

    /// The last of it, once nobody writes any more, or soon.
    async fn last(self) -> Vec<u8> {
        // What has come by then counts.
        let _ = timeout(FAREWELL, self.ended).await;
        lock(&self.last).bytes().to_vec()
    }
}

fn lock(last: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last lines of what was said, as they may be shown.
fn last_of(said: &[u8]) -> String {
    let from = said.len().saturating_sub(LAST_OCTETS);
    let mut last = &said[from..];
    // A line of which the beginning is left out says nothing.
    if from > 0
        && let Some(end) = last.iter().position(|octet| *octet == b'\n')
    {
        last = &last[end + 1..];
    }
    let text = plain::text(&String::from_utf8_lossy(last));
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// What ended a program before it ended by itself, with the last that it had said by then.
fn cut_short(error: &anyhow::Error, last: &str) -> anyhow::Error {
    anyhow!("{error:#}; {}", told(last))
}

/// What its end and the cases that it tells of come to.
fn judged(
    program: &str,
    ended: ExitStatus,
    last: &str,
    cases: &anyhow::Result<Vec<Case>>,
) -> anyhow::Result<()> {
    let of_cases = match cases {
        Ok(cases) => failed_of(cases),
        // What else is known counts all the same.
        Err(error) => Some(plain::text(&format!("{error:#}"))),
    };
    let how = match (ended.code(), ended.signal()) {
        (Some(0), _) if of_cases.is_none() => return Ok(()),
        (Some(code), _) => format!("it ended with {code}"),
        (None, signal) => format!("signal {} ended it", signal.unwrap_or_default()),
    };
    let seen: Vec<String> = [Some(how), of_cases, Some(told(last))]
        .into_iter()
        .flatten()
        .collect();
    let failure = Failure::new(
        Cause::Other,
        format!("{program} to end with 0, and no case of it to fail"),
        seen.join("; "),
    );
    Err(failure
        .look(format!("what it said (`{OUTPUT}`), then the evidence"))
        .into())
}

/// Which cases failed, if any did.
fn failed_of(cases: &[Case]) -> Option<String> {
    let failed = cases.iter().filter(|case| case.has_failed());
    let failed: Vec<&str> = failed.map(|case| case.name.as_str()).collect();
    (!failed.is_empty()).then(|| {
        format!(
            "{} of {} cases failed: {}",
            failed.len(),
            cases.len(),
            failed.join(", ")
        )
    })
}

fn told(last: &str) -> String {
    match last.is_empty() {
        true => "it said nothing".to_owned(),
        false => format!("the last that it said:\n{last}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::run::cases::Verdict;

    fn case(name: &str, verdict: Verdict) -> Case {
        Case {
            name: name.to_owned(),
            verdict,
            reason: String::new(),
            seconds: 0.0,
        }
    }

    #[test]
    fn a_program_is_judged_by_its_status_and_its_cases() {
        let of = |raw: i32, last: &str, cases: &[Case]| {
            let cases = Ok(cases.to_vec());
            let judged = judged("dns.sh", ExitStatus::from_raw(raw), last, &cases);
            judged.map_err(|error| error.downcast::<Failure>().unwrap().seen)
        };
        let good = [case("a", Verdict::Passed), case("b", Verdict::Skipped)];
        let bad = [case("a", Verdict::Passed), case("b", Verdict::Failed)];
        assert_eq!(of(0, "", &[]), Ok(()));
        assert_eq!(of(0, "", &good), Ok(()));
        let seen = |raw, last, cases| of(raw, last, cases).unwrap_err();
        insta::assert_snapshot!(seen(3 << 8, "one\ntwo", &[]), @"
        it ended with 3; the last that it said:
        one
        two
        ");
        insta::assert_snapshot!(seen(9, "", &good), @"signal 9 ended it; it said nothing");
        insta::assert_snapshot!(seen(0, "", &bad), @"it ended with 0; 1 of 2 cases failed: b; it said nothing");
    }

    #[test]
    fn cases_that_cannot_be_read_do_not_hide_how_a_program_ended() {
        let of = |raw: i32, last: &str| {
            let cases = Err(anyhow!("syntax error").context("cases.xml is no JUnit file"));
            let judged = judged("dns.sh", ExitStatus::from_raw(raw), last, &cases);
            judged.unwrap_err().downcast::<Failure>().unwrap().seen
        };
        insta::assert_snapshot!(of(3 << 8, "one"), @"
        it ended with 3; cases.xml is no JUnit file: syntax error; the last that it said:
        one
        ");
        insta::assert_snapshot!(of(0, ""), @"it ended with 0; cases.xml is no JUnit file: syntax error; it said nothing");
    }

    #[test]
    fn what_is_cut_short_has_said_something_as_well() {
        let error = anyhow!("node2 is gone").context("a machine failed");
        insta::assert_snapshot!(cut_short(&error, "one\ntwo"), @"
        a machine failed: node2 is gone; the last that it said:
        one
        two
        ");
        insta::assert_snapshot!(cut_short(&error, ""), @"a machine failed: node2 is gone; it said nothing");
    }

    /// What a thread that may not come back brings.
    fn soon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, done) = mpsc::channel();
        thread::spawn(move || sender.send(work()).unwrap());
        done.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn who_holds_the_output_for_ever_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(OUTPUT);
        let (output, mut writer) = io::pipe().unwrap();
        let kept = File::create(&file).unwrap();
        writer.write_all(b"one\n").unwrap();
        let last = soon(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let said = Said::listen(output, kept).unwrap();
            let last = runtime.block_on(said.last());
            drop(runtime);
            last
        });
        assert_eq!(last, b"one\n");
        assert_eq!(fs::read(&file).unwrap(), b"one\n");
        drop(writer);
    }

    #[test]
    fn the_last_that_was_said_is_that_also_where_the_log_has_long_ended() {
        let (output, mut writer) = io::pipe().unwrap();
        // On which no octet can be kept.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let last = soon(move || {
            let said = Said::listen(output, full).unwrap();
            for piece in [&[b'x'; 200_000][..], b"\nlast\n"] {
                writer.write_all(piece).unwrap();
            }
            drop(writer);
            tokio::runtime::Runtime::new()
                .unwrap()
                .block_on(said.last())
        });
        assert_eq!(last.len(), LAST_OCTETS + 1);
        assert_eq!(last_of(&last), "last");
    }

    #[test]
    fn the_last_lines_command_no_terminal() {
        let many: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        let last = last_of(many.as_bytes());
        assert_eq!(last.lines().count(), LAST_LINES);
        assert!(last.ends_with("line 999"));
        assert_eq!(last_of(b"\x1b[2Jx\xff\n"), "\\u001b[2Jx\u{fffd}");
        assert_eq!(last_of(b""), "");
        assert!(last_of(&[b'x'; 10_000]).len() <= LAST_OCTETS);
        let cut = [&[b'x'; 10_000][..], b"\nwhole\n"].concat();
        assert_eq!(last_of(&cut), "whole");
    }

    #[test]
    fn a_program_is_a_scenario_of_its_own() {
        let program = Program {
            path: "tests/dns.sh".into(),
            arguments: Vec::new(),
            called: "tests/dns.sh".into(),
            by_proxy: false,
        };
        let programs = BTreeMap::from([("dns".to_owned(), program)]);
        let scenarios = scenarios(&programs);
        assert_eq!(scenarios.len(), 1);
        assert_eq!(scenarios[0].name, "dns");
        assert_eq!(
            scenarios[0].about,
            "tests/dns.sh ends with 0 beside a cluster of its own"
        );
    }
}
