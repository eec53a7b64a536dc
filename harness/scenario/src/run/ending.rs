//! The signals by which a process is told to end.

use std::future;
use std::io;

use podwire_process::hangup_is_ignored;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens to SIGTERM, and to SIGHUP: the terminal is gone, but there is a report to write.
#[derive(Debug)]
pub struct Ending {
    terminate: Signal,
    /// Nothing where whoever started this process wants it to outlive its terminal.
    hangup: Option<Signal>,
}

impl Ending {
    /// Listens from now on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen() -> io::Result<Self> {
        Self::beside(hangup_is_ignored())
    }

    fn beside(hangup_is_ignored: bool) -> io::Result<Self> {
        let hangup = (!hangup_is_ignored).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: hangup.transpose()?,
        })
    }

    /// Resolves when one of them comes.
    pub async fn come(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn a_terminal_that_ends_tells_as_a_person_does() {
        let mut ending = Ending::beside(false).unwrap();
        for signal in [Signal::HUP, Signal::TERM] {
            kill_process(getpid(), signal).unwrap();
            ending.come().await;
        }
    }
}
