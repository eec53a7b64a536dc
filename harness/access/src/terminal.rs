//! This process's own terminal and signals, while a command on a node has them.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use russh::Sig;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::AccessError;

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
}

/// This process in front of a command on a node: its signals are for the command, and so is every
/// key of its terminal, Ctrl-C too. The terminal is restored when this is dropped.
pub struct Foreground {
    before: Option<Termios>,
    resized: Signal,
    signals: [Signal; 4],
}

impl Foreground {
    /// Takes the signals; and the terminal, if standard input and output both are one.
    ///
    /// # Errors
    /// [`AccessError::Local`].
    pub fn take() -> Result<Self, AccessError> {
        Self::taken().map_err(AccessError::local("take the terminal"))
    }

    fn taken() -> io::Result<Self> {
        // Before the mode: a signal that comes in between must not leave the terminal raw.
        let resized = signal(SignalKind::window_change())?;
        let signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ];
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let before = terminal.then(|| tcgetattr(io::stdin())).transpose()?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        }
        Ok(Self {
            before,
            resized,
            signals,
        })
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.before.is_some()
    }

    /// What programs on the node should take the terminal for.
    pub(crate) fn kind() -> String {
        std::env::var("TERM").unwrap_or_else(|_| "dumb".into())
    }

    /// The terminal's size now; one that has none gets a usual one.
    pub(crate) fn size() -> Size {
        let stdout = io::stdout();
        let size = tcgetwinsize(stdout.as_fd()).ok();
        let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
        size.map_or(
            Size {
                rows: 24,
                columns: 80,
            },
            |size| Size {
                rows: size.ws_row.into(),
                columns: size.ws_col.into(),
            },
        )
    }

    /// The next thing that happens.
    pub(crate) async fn event(&mut self) -> Event {
        let [interrupt, terminate, hangup, quit] = &mut self.signals;
        tokio::select! {
            _ = self.resized.recv() => Event::Resized(Self::size()),
            _ = interrupt.recv() => Event::Signal(Sig::INT),
            _ = terminate.recv() => Event::Signal(Sig::TERM),
            _ = hangup.recv() => Event::Signal(Sig::HUP),
            _ = quit.recv() => Event::Signal(Sig::QUIT),
        }
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that has gone needs no restoring.
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// What happens to the process in front.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The terminal's window has another size.
    Resized(Size),
    /// Somebody wants the command to end.
    Signal(Sig),
}

/// OpenSSH's escape: `~.` at the beginning of a line leaves a node that answers no more, `~~` sends
/// one tilde.
#[derive(Debug)]
pub(crate) struct Escape {
    line_start: bool,
    tilde: bool,
}

impl Escape {
    pub(crate) fn new() -> Self {
        Self {
            line_start: true,
            tilde: false,
        }
    }

    /// What of the typed bytes goes to the node, and whether the person leaves.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut sent = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            if std::mem::take(&mut self.tilde) {
                match byte {
                    b'.' => return (sent, true),
                    b'~' => {}
                    _ => sent.push(b'~'),
                }
            } else if self.line_start && byte == b'~' {
                self.tilde = true;
                self.line_start = false;
                continue;
            }
            sent.push(byte);
            self.line_start = matches!(byte, b'\r' | b'\n');
        }
        (sent, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn typed(pieces: &[&[u8]]) -> (String, bool) {
        let mut escape = Escape::new();
        let mut sent = Vec::new();
        for piece in pieces {
            let (bytes, left) = escape.filter(piece);
            sent.extend(bytes);
            if left {
                return (String::from_utf8(sent).unwrap(), true);
            }
        }
        (String::from_utf8(sent).unwrap(), false)
    }

    #[test]
    fn only_a_tilde_and_a_point_at_the_beginning_of_a_line_leave() {
        assert_eq!(typed(&[b"~."]), (String::new(), true));
        assert_eq!(typed(&[b"ls\r~", b".more"]), ("ls\r".into(), true));
        assert_eq!(typed(&[b"cd ~.\r"]), ("cd ~.\r".into(), false));
        assert_eq!(typed(&[b"~~.\r"]), ("~.\r".into(), false));
        assert_eq!(typed(&[b"~/bin\r"]), ("~/bin\r".into(), false));
        assert_eq!(typed(&[b"~\r~."]), ("~\r".into(), true));
    }

    proptest! {
        #[test]
        fn without_a_tilde_everything_goes_as_it_is(text in "[^~]{0,40}", cut in 0_usize..40) {
            let (a, b) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(typed(&[a, b]), (text.clone(), false));
        }
    }
}
