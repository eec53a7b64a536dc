//! Going when an ancestor goes.

use std::os::fd::OwnedFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Why ancestors cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum AncestorError {
    /// One of them is already gone: the caller should go as well.
    #[error("process {0}, on whose behalf this one runs, is already gone")]
    Gone(i32),
    /// The kernel gives no handle on it (pidfd_open(2), Linux 5.3).
    #[error("cannot watch process {pid}")]
    Watch {
        /// Whose end was to be watched.
        pid: i32,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The watching thread could not be made.
    #[error("cannot start the thread that watches the ancestors")]
    Thread(#[source] std::io::Error),
}

/// Calls `gone` once, from a thread of its own, when the first of the processes ends.
///
/// # Errors
/// [`AncestorError`] when one is gone already or cannot be watched.
pub fn watch_ancestors(
    pids: &[Pid],
    gone: impl FnOnce() + Send + 'static,
) -> Result<(), AncestorError> {
    let handles = pids
        .iter()
        .map(|pid| {
            pidfd_open(*pid, PidfdFlags::empty()).map_err(|error| match error {
                rustix::io::Errno::SRCH => AncestorError::Gone(pid.as_raw_nonzero().get()),
                error => AncestorError::Watch {
                    pid: pid.as_raw_nonzero().get(),
                    source: error.into(),
                },
            })
        })
        .collect::<Result<Vec<OwnedFd>, _>>()?;
    thread::Builder::new()
        .name("ancestors".into())
        .spawn(move || {
            loop {
                let mut polled: Vec<PollFd<'_>> = handles
                    .iter()
                    .map(|fd| PollFd::new(fd, PollFlags::IN))
                    .collect();
                match poll(&mut polled, None) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => {}
                    // An unusable poll means that nothing is watched any more: going is the safe side.
                    Ok(_) | Err(_) => break,
                }
            }
            gone();
        })
        .map_err(AncestorError::Thread)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn the_end_of_a_watched_process_is_told_once_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (sender, told) = mpsc::channel();
        let pid = Pid::from_child(&child);
        watch_ancestors(&[pid], move || sender.send(()).unwrap()).unwrap();
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        told.recv_timeout(Duration::from_secs(60)).unwrap();
        let error = watch_ancestors(&[pid], || {}).unwrap_err();
        assert!(matches!(error, AncestorError::Gone(_)), "{error}");
    }
}
