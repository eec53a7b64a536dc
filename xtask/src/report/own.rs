//! What lies in a folder, wherever links lead.

use std::fs;
use std::path::{Path, PathBuf};

/// Where this is in truth, if it is there and below the folder: what came from another machine may have any link.
pub(super) fn own(folder: &Path, name: impl AsRef<Path>) -> Option<PathBuf> {
    let folder = fs::canonicalize(folder).ok()?;
    let path = fs::canonicalize(folder.join(name)).ok()?;
    path.starts_with(&folder).then_some(path)
}
