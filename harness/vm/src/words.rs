//! What QEMU and its guest say, in logs with a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use podwire_process::BoundedLog;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio};

use crate::error::VmError;

/// How much of QEMU's standard error a fault carries.
const LAST_WORDS_BYTES: u64 = 4096;

/// What a pipe holds (pipe(7)).
const PIPE_BYTES: usize = 64 << 10;

/// What QEMU itself says, in `qemu.log`. A guest can have it say the same again and again (a device that it
/// breaks is an error each time), so the log has its bound like all that a guest can add to.
#[derive(Debug)]
pub(crate) struct Words {
    /// Read without waiting, by whoever holds the log.
    said: PipeReader,
    log: Mutex<BoundedLog<File>>,
    path: PathBuf,
    /// How long the log was before.
    start: u64,
}

impl Words {
    /// And what QEMU is to say it to. It goes on until all have closed that.
    pub(crate) fn new(path: &Path) -> Result<(Arc<Self>, File), VmError> {
        let file = |source| VmError::File {
            path: path.to_owned(),
            source,
        };
        let log = append_to(path)?;
        let start = log.metadata().map_err(file)?.len();
        let (said, to) = io::pipe().map_err(file)?;
        ioctl_fionbio(&said, true).map_err(|error| file(error.into()))?;
        let words = Arc::new(Self {
            said,
            log: Mutex::new(BoundedLog::new(log, start)),
            path: path.to_owned(),
            start,
        });
        let recorded = Arc::clone(&words);
        thread::Builder::new()
            .name("words".into())
            .spawn(move || while recorded.come() && !recorded.take() {})
            .map_err(file)?;
        Ok((words, OwnedFd::from(to).into()))
    }

    /// Waits until there is something to take.
    fn come(&self) -> bool {
        let mut ready = [PollFd::new(&self.said, PollFlags::IN)];
        matches!(poll(&mut ready, None), Ok(_) | Err(Errno::INTR))
    }

    /// Writes down what has been said so far, as much as a pipe holds; whether nothing more will come.
    fn take(&self) -> bool {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0_u8; 4096];
        for _ in 0..PIPE_BYTES.div_ceil(buffer.len()) {
            match (&self.said).read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count @ 1..) => {
                    // A full disk must not hold QEMU up.
                    let _ = log.write_all(buffer.get(..count).unwrap_or_default());
                }
                Ok(0) | Err(_) => return true,
            }
        }
        false
    }

    /// The end of what it has said.
    pub(crate) fn last(&self) -> String {
        self.take();
        last_words(&self.path, self.start)
    }
}

fn last_words(log: &Path, start: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(
            start.max(end.saturating_sub(LAST_WORDS_BYTES)),
        ))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_else(|error| format!("({} cannot be read: {error})", log.display()))
}

pub(crate) fn append_to(path: &Path) -> Result<File, VmError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| VmError::File {
        path: path.to_owned(),
        source,
    })
}

/// A log that a guest can add to.
pub(crate) fn bounded_log(path: &Path) -> Result<BoundedLog<File>, VmError> {
    let file = append_to(path)?;
    let written = file.metadata().map_or(0, |metadata| metadata.len());
    Ok(BoundedLog::new(file, written))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU's words come before the news of its end; whoever is told of that has them.
    #[test]
    fn what_was_said_is_there_before_anybody_has_waited_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (words, mut to) = Words::new(&dir.path().join("qemu.log")).unwrap();
        to.write_all(b"KVM internal error\n").unwrap();
        assert_eq!(words.last(), "KVM internal error");
    }

    #[test]
    fn a_log_that_a_guest_has_filled_grows_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        // What the machine's processes before have written counts.
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let mut log = bounded_log(&path).unwrap();
        for _ in 0..1000 {
            log.write_all(&[b'x'; 1000]).unwrap();
        }
        let mut end = File::open(&path).unwrap();
        end.seek(SeekFrom::Start(1 << 30)).unwrap();
        let said = io::read_to_string(end).unwrap();
        assert_eq!(said, "\n(cut: no more than 64 MiB are kept)\n");
    }
}
