//! Waiting for a place on the machine, told to whoever watches the attempt's folder.
//!
//! What a scenario's process prints is nextest's, which keeps it: so it is a file.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::time::Instant;

use podwire_process::{Report, plain};

use crate::run::result::PhaseTime;

/// The file in an attempt's folder that says whom it waits for; there only while it waits.
const FILE: &str = "waiting";

/// The phase of an attempt's result, and of a run's, in which it waited for a place.
pub const WAITING: &str = "waiting for a place";

/// Whom the attempt in this folder waits for before it may start its first machine; `None` when it
/// does not wait.
pub fn awaited(attempt: &Path) -> Option<String> {
    fs::read_to_string(attempt.join(FILE)).ok()
}

/// An attempt that asks for a place, in its folder.
pub(crate) struct Queue<'a> {
    attempt: &'a Path,
    /// When it first had to wait.
    since: Cell<Option<Instant>>,
}

impl<'a> Queue<'a> {
    pub(crate) fn at(attempt: &'a Path) -> Self {
        Self {
            attempt,
            since: Cell::new(None),
        }
    }

    /// How long it has waited, if it had to.
    pub(crate) fn left(&self) -> Option<PhaseTime> {
        let since = self.since.take()?;
        Some(PhaseTime {
            name: WAITING.to_owned(),
            seconds: since.elapsed().as_secs_f64(),
            processors: None,
            longest: Vec::new(),
        })
    }
}

impl Report for Queue<'_> {
    fn step(&self, what: &str) {
        eprintln!("{}", plain::text(what));
    }

    fn waiting(&self, whom: &str) {
        eprintln!("waiting for {}", plain::text(whom));
        if self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
        // Written beside and renamed: a reader sees it whole. That nobody can be told is no reason
        // not to wait.
        let beside = self.attempt.join(format!("{FILE}.new"));
        let _ = fs::write(&beside, whom).and_then(|()| fs::rename(beside, self.attempt.join(FILE)));
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // It is there when the attempt had to wait.
        let _ = fs::remove_file(self.attempt.join(FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_it_waits_for_is_told_while_it_waits_and_the_wait_is_a_phase() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::at(folder.path());
        assert_eq!(awaited(folder.path()), None);
        assert_eq!(queue.left(), None);
        queue.waiting("a (process 7): this machine runs 1 at once");
        queue.waiting("its turn, after b (process 8)");
        let told = awaited(folder.path());
        assert_eq!(told.as_deref(), Some("its turn, after b (process 8)"));
        assert_eq!(queue.left().map(|phase| phase.name), Some(WAITING.into()));
        drop(queue);
        assert_eq!(awaited(folder.path()), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
