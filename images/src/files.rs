//! Files of artefacts while they are put together.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

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
