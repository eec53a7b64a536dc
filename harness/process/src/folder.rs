//! Folders that are in use as long as somebody has a lock on them (flock(2)).

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Uses what is at a path, beside others, as long as the value lives; waits for whoever has it alone.
///
/// # Errors
/// The operating system's, `NotFound` when nothing is there (any more).
pub fn held(path: &Path) -> io::Result<File> {
    loop {
        let held = File::open(path)?;
        held.lock_shared()?;
        // It may have been removed, or replaced, before the lock came.
        if is_at(&held, path) {
            return Ok(held);
        }
    }
}

/// Has what is at a path alone, as long as the value lives; nothing when somebody uses it.
///
/// # Errors
/// The operating system's, `NotFound` when nothing is there (any more).
pub fn held_alone(path: &Path) -> io::Result<Option<File>> {
    loop {
        let held = File::open(path)?;
        match held.try_lock() {
            Ok(()) if is_at(&held, path) => return Ok(Some(held)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let of = |metadata: io::Result<fs::Metadata>| metadata.ok().map(identity);
    let there = of(fs::metadata(path));
    there.is_some() && of(file.metadata()) == there
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_lock_is_on_what_is_there_when_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let (place, aside) = (dir.path().join("entry"), dir.path().join("aside"));
        fs::create_dir(&place).unwrap();
        let removing = held_alone(&place).unwrap().unwrap();
        assert!(held_alone(&place).unwrap().is_none());
        let waiting = thread::spawn({
            let place = place.clone();
            move || held(&place).unwrap()
        });
        // One that begins to wait only later finds what is there then: nothing is shown, nothing fails.
        thread::sleep(Duration::from_millis(200));
        fs::rename(&place, &aside).unwrap();
        fs::create_dir(&place).unwrap();
        drop(removing);
        let held = waiting.join().unwrap();
        assert!(is_at(&held, &place));
        assert!(held_alone(&place).unwrap().is_none());
        fs::remove_dir(&place).unwrap();
        let gone = held_alone(&place).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
