//! The way to a running segment's frames.

use crate::mailbox::{Command, Mailbox};
use crate::{Filter, LanError, Tap};

/// Lets people read along while a segment switches. As many may be handed out as are needed.
#[derive(Debug, Clone)]
pub struct TapsHandle {
    mailbox: Mailbox,
}

impl TapsHandle {
    pub(crate) fn new(mailbox: Mailbox) -> Self {
        TapsHandle { mailbox }
    }

    /// The frames that are switched from now on, each once, where it enters and before any rule; or those
    /// that enter and leave by one port, as its machine sends and gets them.
    ///
    /// # Errors
    /// [`LanError::UnknownPort`], [`LanError::Tap`], [`LanError::Stopped`].
    pub fn open(&self, port: Option<&str>, filter: Filter) -> Result<Tap, LanError> {
        let port = port.map(str::to_owned);
        self.mailbox.ask(|reply| Command::Tap {
            port,
            filter,
            reply,
        })?
    }
}
