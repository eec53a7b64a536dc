//! What cuts an attempt short.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::run::ending::Ending;

/// Exit status of a process that went because it was told to, not because of what it saw.
pub(super) const INTERRUPTED: i32 = 130;

/// Why a run in a lab was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its own limit has passed.
    Limit,
    /// nextest asks it to end, see [`Ending`].
    Terminated,
}

/// Tells when an attempt must end. While it lives, SIGINT ends the process at once.
pub(super) struct Stopping {
    told: watch::Receiver<Option<Stop>>,
    listening: AbortHandle,
}

impl Stopping {
    /// Listens from now on, and tells when so much time has passed.
    pub(super) fn listen(limit: Duration) -> Self {
        let (sender, told) = watch::channel(None);
        let listening = tokio::spawn(async move {
            let (Ok(mut ending), Ok(mut interrupt)) =
                (Ending::listen(), signal(SignalKind::interrupt()))
            else {
                return;
            };
            let stop = tokio::select! {
                () = tokio::time::sleep(limit) => Stop::Limit,
                () = ending.come() => Stop::Terminated,
                _ = interrupt.recv() => std::process::exit(INTERRUPTED),
            };
            // The attempt may have ended by itself meanwhile.
            let _ = sender.send(Some(stop));
            interrupt.recv().await;
            std::process::exit(INTERRUPTED);
        });
        Self {
            told,
            listening: listening.abort_handle(),
        }
    }

    pub(super) async fn come(&self) -> Stop {
        let mut told = self.told.clone();
        match told.wait_for(Option::is_some).await {
            Ok(stop) => stop.unwrap_or(Stop::Terminated),
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether it must end now.
    pub(super) fn is_told(&self) -> bool {
        self.told.borrow().is_some()
    }

    /// Whether whoever started this process wants it to end.
    pub(super) fn is_terminated(&self) -> bool {
        *self.told.borrow() == Some(Stop::Terminated)
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
