//! This process's own terminal, while a node has it.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::AccessError;

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
}

/// The terminal in raw mode: every key goes to the node, Ctrl-C too. Restored when dropped.
pub struct Terminal {
    before: Termios,
    resized: Signal,
    ends: [(Signal, &'static str); 4],
}

impl Terminal {
    /// Takes the terminal if standard input and output both are one.
    ///
    /// # Errors
    /// [`AccessError::Local`].
    pub fn take() -> Result<Option<Self>, AccessError> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(None);
        }
        Self::raw()
            .map(Some)
            .map_err(AccessError::local("take the terminal"))
    }

    fn raw() -> io::Result<Self> {
        // Before the mode: a signal that comes in between must not leave the terminal raw.
        let resized = signal(SignalKind::window_change())?;
        let ends = [
            (signal(SignalKind::interrupt())?, "INT"),
            (signal(SignalKind::terminate())?, "TERM"),
            (signal(SignalKind::hangup())?, "HUP"),
            (signal(SignalKind::quit())?, "QUIT"),
        ];
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self {
            before,
            resized,
            ends,
        })
    }

    /// What programs on the node should take it for.
    pub(crate) fn kind() -> String {
        std::env::var("TERM").unwrap_or_else(|_| "dumb".into())
    }

    /// Its size now; one that has none gets a usual one.
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

    /// The next thing that happens to it.
    pub(crate) async fn event(&mut self) -> Event {
        let [
            (int, int_name),
            (term, term_name),
            (hup, hup_name),
            (quit, quit_name),
        ] = &mut self.ends;
        tokio::select! {
            _ = self.resized.recv() => Event::Resized(Self::size()),
            _ = int.recv() => Event::Ended(int_name),
            _ = term.recv() => Event::Ended(term_name),
            _ = hup.recv() => Event::Ended(hup_name),
            _ = quit.recv() => Event::Ended(quit_name),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// What happens to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its window has another size.
    Resized(Size),
    /// Somebody sent this process a signal that ends it.
    Ended(&'static str),
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
