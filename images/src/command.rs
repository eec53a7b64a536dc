//! Long commands of a build: their output goes to a file, its last line to the report.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use podwire_process::{BoundedLog, ChildCommand, Report, Stream};

use crate::{Error, Workshop};

/// How often the end of a command and its last line are looked for.
const POLL: Duration = Duration::from_millis(100);

/// Lines that an error quotes.
const TAIL: usize = 25;

/// Runs one step to its end; everything that it prints is appended to `log`. It holds the log itself, so that
/// what outlives this process can go on.
pub(crate) fn run_step(
    workshop: &Workshop<'_>,
    step: &str,
    mut command: ChildCommand,
    log: &Path,
    limit: Duration,
) -> Result<(), Error> {
    command.stdout = Stream::File(append_to(log)?);
    command.stderr = Stream::File(append_to(log)?);
    let child = workshop.spawner.spawn(command)?;
    let failed = watch(workshop, step, child, log, limit)?;
    failed.map_or(Ok(()), |ended| Err(failure(step, ended, log)))
}

/// The same for a machine whose console is its output: a guest may print without end, and of the log no more
/// than 64 MiB are kept.
pub(crate) fn run_guest(
    workshop: &Workshop<'_>,
    step: &str,
    mut command: ChildCommand,
    log: &Path,
    limit: Duration,
) -> Result<(), Error> {
    let file = append_to(log)?;
    let written = file.metadata().map_or(0, |about| about.len());
    let mut bounded = BoundedLog::new(file, written);
    let piped = || io::pipe().and_then(|(from, to)| Ok((from, to.try_clone()?, to)));
    let (mut printed, stdout, stderr) = piped().map_err(Error::file("write", log))?;
    command.stdout = Stream::File(OwnedFd::from(stdout).into());
    command.stderr = Stream::File(OwnedFd::from(stderr).into());
    let child = workshop.spawner.spawn(command)?;
    // Its last lines are in the log when this is over.
    let failed = thread::scope(|scope| {
        // A full disk ends the log, and the machine by its own disk.
        scope.spawn(move || io::copy(&mut printed, &mut bounded));
        watch(workshop, step, child, log, limit)
    })?;
    failed.map_or(Ok(()), |ended| Err(failure(step, ended, log)))
}

fn append_to(log: &Path) -> Result<File, Error> {
    let open = File::options().create(true).append(true).open(log);
    open.map_err(Error::file("write", log))
}

/// Tells the last line until the step ends, at its limit at the latest; how it ended where that is a failure.
fn watch(
    workshop: &Workshop<'_>,
    step: &str,
    mut child: Child,
    log: &Path,
    limit: Duration,
) -> Result<Option<String>, Error> {
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let polled = child
            .try_wait()
            .map_err(Error::file("wait for the writer of", log))?;
        if let Some(status) = polled {
            return Ok((!status.success()).then(|| status.to_string()));
        }
        if started.elapsed() > limit {
            // It may have ended in between.
            let killed = child.kill();
            let ended = over_limit(workshop.report, step, child, limit, killed);
            return Ok(Some(ended));
        }
        thread::sleep(POLL);
        let last = last_lines(log, 1);
        if last != told {
            workshop.report.waiting(&last);
            told = last;
        }
    }
}

fn failure(step: &str, ended: String, log: &Path) -> Error {
    Error::Step {
        step: step.to_owned(),
        ended,
        log: log.to_owned(),
        tail: last_lines(log, TAIL),
    }
}

/// How a step over its limit ended, by what came of killing it. What is root's through sudo cannot be killed:
/// it ends with its input, which the wait closes, or by itself.
fn over_limit(
    report: &dyn Report,
    step: &str,
    mut child: Child,
    limit: Duration,
    killed: io::Result<()>,
) -> String {
    let seconds = limit.as_secs();
    if killed.is_err() {
        let text = format!("{step} is over its limit of {seconds} s: waiting for its end");
        report.waiting(&text);
    }
    let _ = child.wait();
    match killed {
        Ok(()) => format!("killed after its limit of {seconds} s"),
        Err(_) => format!("ended after its limit of {seconds} s"),
    }
}

pub(crate) fn last_lines(log: &Path, count: usize) -> String {
    // Only ever shown: a log that cannot be read shows as nothing.
    let text = tail_bytes(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn tail_bytes(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;
    use crate::test_host::Heard;
    use podwire_process::Spawner;
    use std::fs;

    /// Where steps are done, and what was heard of them.
    struct Place {
        dir: tempfile::TempDir,
        cache: Cache,
        spawner: Spawner,
        heard: Heard,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self {
                cache: Cache::at(dir.path()).unwrap(),
                dir,
                spawner: Spawner::start().unwrap(),
                heard: Heard::default(),
            }
        }

        fn workshop(&self) -> Workshop<'_> {
            Workshop {
                cache: &self.cache,
                spawner: &self.spawner,
                report: &self.heard,
                source: self.dir.path(),
            }
        }
    }

    #[test]
    fn the_last_line_is_told_and_a_failure_quotes_the_output() {
        let place = Place::new();
        let (workshop, dir) = (place.workshop(), place.dir.path());
        let log = dir.join("log");
        let script = "echo begun; sleep 1; echo why >&2; exit 7";
        let command = ChildCommand::new("sh").args(["-c", script]);
        let error = run_step(
            &workshop,
            "the step",
            command,
            &log,
            Duration::from_secs(60),
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("the step failed (exit status: 7)"),
            "{error}"
        );
        assert!(error.contains("begun\nwhy"), "{error}");
        assert!(place.heard.0.borrow().contains(&"begun".to_owned()));
    }

    #[test]
    fn a_step_over_its_limit_is_killed() {
        let place = Place::new();
        let (workshop, dir) = (place.workshop(), place.dir.path());
        let command = ChildCommand::new("sleep").args(["60"]);
        let log = dir.join("log");
        let error =
            run_step(&workshop, "it", command, &log, Duration::from_millis(50)).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("killed after its limit of 0 s"), "{said}");
        assert_eq!(*place.heard.0.borrow(), [""; 0]);
    }

    #[test]
    fn a_step_that_cannot_be_killed_is_waited_for_and_its_input_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (spawner, heard) = (Spawner::start().unwrap(), Heard::default());
        let done = dir.path().join("done");
        let script = "read line; echo done >\"$0\"";
        let mut command = ChildCommand::new("sh").args(["-c", script]).args([&done]);
        command.stdin = Stream::Piped;
        let child = spawner.spawn(command).unwrap();
        let refused = Err(io::ErrorKind::PermissionDenied.into());
        let ended = over_limit(&heard, "it", child, Duration::from_secs(9), refused);
        assert_eq!(ended, "ended after its limit of 9 s");
        let told = "it is over its limit of 9 s: waiting for its end";
        assert_eq!(*heard.0.borrow(), [told]);
        assert!(done.exists());
    }

    #[test]
    fn a_guest_that_never_stops_printing_fills_no_disk() {
        let place = Place::new();
        let (workshop, dir) = (place.workshop(), place.dir.path());
        let log = dir.join("log");
        let limit = Duration::from_secs(60);
        let sh = |script| ChildCommand::new("sh").args(["-c", script]);
        // What the steps before have printed is there, and counts.
        let before = sh("echo before; truncate -s 60M log").dir(dir);
        run_step(&workshop, "before", before, &log, limit).unwrap();
        let guest = sh("head -c 9000000 /dev/zero; echo end >&2; exit 7");
        let error = run_guest(&workshop, "it", guest, &log, limit).unwrap_err();
        assert!(
            error.to_string().contains("it failed (exit status: 7)"),
            "{error}"
        );
        let text = fs::read(&log).unwrap();
        assert!(text.starts_with(b"before\n"));
        let end = "\n(cut: no more than 64 MiB are kept)\n";
        assert!(text.ends_with(end.as_bytes()));
        assert_eq!(text.len(), (64 << 20) + end.len());

        let log = dir.join("short");
        let guest = sh("echo first; echo second >&2; exit 7");
        let error = run_guest(&workshop, "it", guest, &log, limit).unwrap_err();
        let quoted = error.to_string();
        assert!(quoted.ends_with("first\nsecond"), "{quoted}");
    }
}
