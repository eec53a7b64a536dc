//! One host command, with a limit.

use std::io::{self, Read};
use std::process::ExitStatus;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::kept::Kept;
use crate::spawn::{ChildCommand, SpawnError, Spawner, Stream};

/// A command that ended by itself.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily decoded: at most 32 MiB, and a last line that says what was cut. Empty
    /// when the caller sent it elsewhere.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

/// Why a host command gave no usable result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Its end could not be awaited.
    #[error("cannot wait for `{command}`")]
    Wait {
        /// The command as typed.
        command: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It ran longer than allowed and was killed.
    #[error("`{command}` was killed after its limit of {} s", limit.as_secs())]
    TimedOut {
        /// The command as typed.
        command: String,
        /// What was allowed.
        limit: Duration,
    },
    /// It ended with another status than 0.
    #[error("`{command}` failed with {status}{}", shown(output))]
    Failed {
        /// The command as typed.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        output: String,
    },
}

fn shown(output: &str) -> String {
    if output.is_empty() {
        String::new()
    } else {
        format!(":\n{output}")
    }
}

impl Finished {
    /// This result when the status is 0.
    ///
    /// # Errors
    /// [`RunError::Failed`] with the last 20 lines printed.
    pub fn success(self, command: &str) -> Result<Self, RunError> {
        if self.status.success() {
            return Ok(self);
        }
        let text = format!("{}{}", self.stdout, self.stderr);
        let lines: Vec<&str> = text.lines().collect();
        Err(RunError::Failed {
            command: command.to_owned(),
            status: self.status,
            output: lines[lines.len().saturating_sub(20)..].join("\n"),
        })
    }
}

/// Runs a command to its end. Streams left at [`Stream::Null`] are collected; others go where they say.
///
/// # Errors
/// [`RunError`], but a status other than 0 is not one: see [`Finished::success`].
pub fn run(
    spawner: &Spawner,
    mut command: ChildCommand,
    limit: Duration,
) -> Result<Finished, RunError> {
    let shown = command.display();
    for stream in [&mut command.stdout, &mut command.stderr] {
        if matches!(stream, Stream::Null) {
            *stream = Stream::Piped;
        }
    }
    let started = Instant::now();
    let mut child = spawner.spawn(command)?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = loop {
        let polled = child.try_wait().map_err(|source| RunError::Wait {
            command: shown.clone(),
            source,
        })?;
        if let Some(status) = polled {
            break status;
        }
        if started.elapsed() > limit {
            // It may have ended in between: either way it is gone after the wait.
            let _ = child.kill();
            let _ = child.wait();
            return Err(RunError::TimedOut {
                command: shown,
                limit,
            });
        }
        thread::sleep(Duration::from_millis(10));
    };
    // A grandchild that kept the pipe must not hold the caller: what has come by then counts.
    let text = |stream: Option<mpsc::Receiver<String>>| {
        stream
            .and_then(|text| text.recv_timeout(Duration::from_secs(5)).ok())
            .unwrap_or_default()
    };
    Ok(Finished {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

fn collect(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Kept::default();
        // A read error ends the collection; what came before it is still worth showing.
        let _ = io::copy(&mut stream, &mut kept);
        let _ = sender.send(kept.into_text());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> ChildCommand {
        ChildCommand::new("sh").args(["-c", script])
    }

    #[test]
    fn both_streams_and_the_status_come_back() {
        let spawner = Spawner::start().unwrap();
        let done = run(
            &spawner,
            sh("echo out; echo err >&2; exit 3"),
            Duration::from_secs(60),
        );
        let done = done.unwrap();
        assert_eq!(
            (done.stdout.as_str(), done.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert_eq!(done.status.code(), Some(3));
        let failed = done.success("sh").unwrap_err().to_string();
        assert!(failed.contains("out\nerr"), "{failed}");
    }

    #[test]
    fn what_a_command_prints_is_kept_within_bounds() {
        let spawner = Spawner::start().unwrap();
        let endless = sh("head -c 40000000 /dev/zero; echo err >&2");
        let done = run(&spawner, endless, Duration::from_secs(60)).unwrap();
        assert!(done.stdout.len() < 34_000_000, "{}", done.stdout.len());
        let last = done.stdout.lines().last().unwrap();
        assert_eq!(last, "(6445568 bytes more were cut)");
        assert_eq!(done.stderr, "err\n");
    }

    #[test]
    fn a_command_over_its_limit_is_killed() {
        let spawner = Spawner::start().unwrap();
        let error = run(&spawner, sh("exec sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
    }
}
