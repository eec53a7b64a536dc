//! What a command in a guest leaves.

use std::fmt;
use std::io::Write as _;

use podwire_probe::agent::wire::Stream;
use podwire_process::Kept;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By a signal, `KILL`.
    Signal(String),
    /// It has not ended.
    Unknown,
}

impl ExitStatus {
    /// Whether the command exited with 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(name) => write!(f, "ended by signal {name}"),
            Self::Unknown => f.write_str("no exit status"),
        }
    }
}

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output as [`Kept`] gives it.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// Whether the command exited with 0.
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// Its exit code, where it ended by itself.
    pub fn code(&self) -> Option<i32> {
        match self.status {
            ExitStatus::Code(code) => Some(code),
            ExitStatus::Signal(_) | ExitStatus::Unknown => None,
        }
    }

    /// Standard output without the white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// All that it said: standard output, then standard error.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n{name}: {}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// What a command has left so far.
pub(crate) struct Collected {
    pub(crate) status: ExitStatus,
    stdout: Kept,
    stderr: Kept,
}

impl Default for Collected {
    fn default() -> Self {
        Self {
            status: ExitStatus::Unknown,
            stdout: Kept::default(),
            stderr: Kept::default(),
        }
    }
}

impl Collected {
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let kept = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        // Writing to it never fails.
        let _ = kept.write_all(bytes);
    }

    /// How many bytes it printed, kept or not.
    pub(crate) fn written(&self) -> u64 {
        self.stdout.written() + self.stderr.written()
    }

    pub(crate) fn output(self) -> Output {
        Output {
            status: self.status,
            stdout: self.stdout.into_text(),
            stderr: self.stderr.into_text(),
        }
    }
}

/// Longest line that is put together.
const LINE_BYTES: usize = 4096;

/// Puts lines together from pieces of output.
#[derive(Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    pub(crate) fn take(&mut self, bytes: &[u8], line: &mut impl FnMut(&str)) {
        for byte in bytes {
            let ends = *byte == b'\n';
            if ends || self.0.len() == LINE_BYTES {
                line(String::from_utf8_lossy(&self.0).trim_end_matches('\r'));
                self.0.clear();
            }
            if !ends {
                self.0.push(*byte);
            }
        }
    }
}

/// A signal's name (signal(7)), without `SIG`.
pub(crate) fn signal(number: i32) -> String {
    const NAMES: [&str; 15] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM",
    ];
    let index = usize::try_from(number)
        .ok()
        .and_then(|number| number.checked_sub(1));
    match index.and_then(|index| NAMES.get(index)) {
        Some(name) => (*name).to_owned(),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_comes_in_pieces_and_whole() {
        let text = format!("{}b\nc\n\n", "a".repeat(LINE_BYTES));
        let mut came = Vec::new();
        Lines::default().take(text.as_bytes(), &mut |line| came.push(line.to_owned()));
        assert_eq!(came, [&"a".repeat(LINE_BYTES), "b", "c", ""]);
    }
}
