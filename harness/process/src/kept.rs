//! What somebody else prints, with a bound: a guest or a program that never stops must fill neither
//! memory nor disk.

use std::io::{self, Write};

/// Bytes kept of each stream of a command.
const OUTPUT: usize = 32 << 20;

/// Bytes kept of a log.
const LOG: u64 = 64 << 20;

/// The beginning of a command's stream. Writing to it never fails: what comes beyond 32 MiB is counted.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    bytes: Vec<u8>,
    cut: u64,
}

impl Kept {
    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.bytes.len() as u64 + self.cut
    }

    /// What was kept, lossily decoded; a last line says how much was not.
    pub fn into_text(self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.cut > 0 {
            text.push_str(&format!("\n({} bytes more were cut)\n", self.cut));
        }
        text
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = OUTPUT.saturating_sub(self.bytes.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend_from_slice(kept);
        self.cut += (bytes.len() - kept.len()) as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log of which the first 64 MiB are written; a last line says that there was more.
#[derive(Debug)]
pub struct BoundedLog<W> {
    out: W,
    room: u64,
    cut: bool,
}

impl<W: Write> BoundedLog<W> {
    /// A log that goes on where `out` has `written` bytes already.
    pub fn new(out: W, written: u64) -> Self {
        Self {
            out,
            room: LOG.saturating_sub(written),
            cut: false,
        }
    }
}

impl<W: Write> Write for BoundedLog<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.out.write_all(kept)?;
        self.room -= kept.len() as u64;
        if kept.len() < bytes.len() && !self.cut {
            self.cut = true;
            let said = format!("\n(cut: no more than {} MiB are kept)\n", LOG >> 20);
            self.out.write_all(said.as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The end of a stream, of so many bytes at most. Writing to it never fails.
#[derive(Debug)]
pub struct Tail {
    bytes: Vec<u8>,
    most: usize,
}

impl Tail {
    /// One of a stream that says nothing yet.
    pub fn new(most: usize) -> Self {
        let bytes = Vec::new();
        Self { bytes, most }
    }

    /// The end so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let last = &bytes[bytes.len().saturating_sub(self.most)..];
        let surplus = (self.bytes.len() + last.len()).saturating_sub(self.most);
        self.bytes.drain(..surplus);
        self.bytes.extend_from_slice(last);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_within_the_bound_is_kept_as_it_is() {
        let mut kept = Kept::default();
        kept.write_all(b"one ").unwrap();
        kept.write_all(b"two\n").unwrap();
        assert_eq!(kept.written(), 8);
        assert_eq!(kept.into_text(), "one two\n");
    }

    #[test]
    fn a_longer_stream_says_how_much_was_cut() {
        let mut kept = Kept::default();
        for _ in 0..33 {
            kept.write_all(&vec![b'x'; 1 << 20]).unwrap();
        }
        kept.write_all(b"end").unwrap();
        assert_eq!(kept.written(), (33 << 20) + 3);
        let text = kept.into_text();
        assert!(text.ends_with("xxx\n(1048579 bytes more were cut)\n"));
        assert!(text.len() < OUTPUT + 100, "{}", text.len());
    }

    #[test]
    fn a_log_ends_with_a_line_that_says_so_whoever_began_it() {
        let mut out = Vec::new();
        let mut log = BoundedLog::new(&mut out, LOG - 6);
        log.write_all(b"first\nsecond\n").unwrap();
        log.write_all(b"third\n").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "first\n\n(cut: no more than 64 MiB are kept)\n");
    }

    #[test]
    fn the_end_of_a_stream_is_what_came_last() {
        let after = |pieces: &[&str]| {
            let mut tail = Tail::new(4);
            for piece in pieces {
                tail.write_all(piece.as_bytes()).unwrap();
            }
            String::from_utf8(tail.bytes().to_vec()).unwrap()
        };
        assert_eq!(after(&[]), "");
        assert_eq!(after(&["a", "bc"]), "abc");
        assert_eq!(after(&["abc", "def"]), "cdef");
        assert_eq!(after(&["a", "bcdefgh"]), "efgh");
        assert_eq!(after(&["abcd", "efgh", ""]), "efgh");
    }
}
