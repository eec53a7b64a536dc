//! What was said, for whoever looks for a fault.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Everything said on a channel to QEMU or a guest, one line each: seconds since the start, direction
/// (`>` from us, `<` to us, `!` a remark), text.
pub struct Transcript {
    out: Mutex<Box<dyn Write + Send>>,
    started: Instant,
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcript").finish_non_exhaustive()
    }
}

impl Transcript {
    /// A transcript written to `out`, each line at once.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self {
            out: Mutex::new(Box::new(out)),
            started: Instant::now(),
        }
    }

    pub(crate) fn note(&self, direction: char, text: &str) {
        let at = self.started.elapsed().as_secs_f64();
        let line = format!("{at:.3} {direction} {}\n", text.trim_end());
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A transcript that cannot be written must not stop what it describes.
        let _ = out.write_all(line.as_bytes());
    }
}
