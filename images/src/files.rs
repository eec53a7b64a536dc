//! Files of artefacts while they are put together.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Reads so many bytes and fails at the next one, where `take` would let it look like the end.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Bounded<R> {
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        let left = limit;
        Self { inner, left, limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.checked_sub(read as u64);
        let limit = ByteSize(self.limit);
        self.left = left.ok_or_else(|| io::Error::other(format!("it has more than {limit}")))?;
        Ok(read)
    }
}

/// A text of the user's; 16 MiB at most.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    Bounded::new(File::open(path)?, 16 << 20).read_to_string(&mut text)?;
    Ok(text)
}

/// What a JSON file says.
pub(crate) fn read_json<T: DeserializeOwned>(path: PathBuf) -> Result<T, Error> {
    let text = fs::read(&path).map_err(Error::file("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| Error::Malformed {
        path,
        reason: error.to_string(),
    })
}

/// Writes a JSON file for people as well.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::file("write", path)(error.into()))?;
    fs::write(path, text).map_err(Error::file("write", path))
}

/// Where a file goes below `dir`, with its folder made.
pub(crate) fn place(dir: &Path, path: &str) -> Result<PathBuf, Error> {
    let to = dir.join(path);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(Error::file("make", parent))?;
    }
    Ok(to)
}

/// Puts a file of the cache somewhere else as well; a link where the file system allows it, since
/// there are hundreds of megabytes.
pub(crate) fn link(from: &Path, to: &Path) -> Result<(), Error> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).map_err(Error::file("copy", from))?;
    }
    Ok(())
}

/// Lets everybody run a file.
pub(crate) fn make_executable(path: &Path) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(Error::file("make executable", path))
}

/// Adds the files of a folder of `source`, and of all folders in it, by their paths in `source`.
pub(crate) fn files_below(
    source: &Path,
    dir: &Path,
    files: &mut BTreeSet<PathBuf>,
) -> Result<(), Error> {
    let absolute = source.join(dir);
    for entry in fs::read_dir(&absolute).map_err(Error::file("list", &absolute))? {
        let entry = entry.map_err(Error::file("list", &absolute))?;
        let path = dir.join(entry.file_name());
        if entry.path().is_dir() {
            files_below(source, &path, files)?;
        } else {
            files.insert(path);
        }
    }
    Ok(())
}
