//! One case: how long it is, and what it has been given so far.

use std::fmt::Write as _;

/// Inputs of a case. Few, so that a failure is short; enough for a connection's life.
pub(super) const INPUTS: u64 = 256;

/// What a case was given, to be shown if it fails.
#[derive(Debug, Default)]
pub(super) struct Log {
    bytes: Vec<u8>,
    /// What each was, and where its octets end.
    entries: Vec<(&'static str, usize)>,
}

impl Log {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Notes an input before it is given.
    pub(super) fn note(&mut self, what: &'static str, octets: &[u8]) {
        self.bytes.extend_from_slice(octets);
        self.entries.push((what, self.bytes.len()));
    }

    pub(super) fn inputs(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether the case has had its inputs.
    pub(super) fn is_full(&self) -> bool {
        self.inputs() >= INPUTS
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut start = 0;
        let mut lines = Vec::new();
        for (what, end) in &self.entries {
            let mut line = format!("{what} ");
            for octet in &self.bytes[start..*end] {
                // Writing to a String cannot fail.
                let _ = write!(line, "{octet:02x}");
            }
            lines.push(line.trim_end().to_owned());
            start = *end;
        }
        lines
    }
}
