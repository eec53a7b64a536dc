//! Long commands of a build: their output goes to a file, its last line to the report.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use podwire_process::{ChildCommand, Stream};

use crate::{Error, Workshop};

/// How often the end of a command and its last line are looked for.
const POLL: Duration = Duration::from_millis(100);

/// Lines that an error quotes.
const TAIL: usize = 25;

/// Runs one step to its end; everything that it prints is appended to `log`.
pub(crate) fn run_step(
    workshop: &Workshop<'_>,
    step: &str,
    mut command: ChildCommand,
    log: &Path,
    limit: Duration,
) -> Result<(), Error> {
    let open = || {
        File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(Error::file("write", log))
    };
    command.stdout = Stream::File(open()?);
    command.stderr = Stream::File(open()?);
    let started = Instant::now();
    let mut child = workshop.spawner.spawn(command)?;
    let mut told = String::new();
    let ended = loop {
        let polled = child
            .try_wait()
            .map_err(Error::file("wait for the writer of", log))?;
        if let Some(status) = polled {
            if status.success() {
                return Ok(());
            }
            break status.to_string();
        }
        if started.elapsed() > limit {
            // It may have ended in between. What is root's through sudo cannot be killed: it ends with its
            // input, which the wait closes, or by itself.
            let killed = child.kill();
            let seconds = limit.as_secs();
            if killed.is_err() {
                let text = format!("{step} is over its limit of {seconds} s: waiting for its end");
                workshop.report.waiting(&text);
            }
            let _ = child.wait();
            break match killed {
                Ok(()) => format!("killed after its limit of {seconds} s"),
                Err(_) => format!("ended after its limit of {seconds} s"),
            };
        }
        thread::sleep(POLL);
        let last = last_lines(log, 1);
        if last != told {
            workshop.report.waiting(&last);
            told = last;
        }
    };
    Err(Error::Step {
        step: step.to_owned(),
        ended,
        log: log.to_owned(),
        tail: last_lines(log, TAIL),
    })
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

    #[test]
    fn the_last_line_is_told_and_a_failure_quotes_the_output() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let (spawner, heard) = (Spawner::start().unwrap(), Heard::default());
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &heard,
            source: dir.path(),
        };
        let log = dir.path().join("log");
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
        assert!(heard.0.borrow().contains(&"begun".to_owned()));
    }

    #[test]
    fn a_step_over_its_limit_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let (spawner, heard) = (Spawner::start().unwrap(), Heard::default());
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &heard,
            source: dir.path(),
        };
        let command = ChildCommand::new("sleep").args(["60"]);
        let log = dir.path().join("log");
        let error =
            run_step(&workshop, "it", command, &log, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("limit"), "{error}");
    }
}
