use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::component::{Component, OwnFileError};
use super::replace::OwnFile;
use crate::Error;
use crate::cache::{SEAL, USED};

/// Where a bundle comes from: `--bundle-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleFrom {
    /// Go modules, built here.
    Modules,
    /// An official release.
    Release,
    /// A folder of one's own files, and the rest from one of the others.
    Directory(PathBuf),
}

impl BundleFrom {
    /// What a name stands for: a source that needs no folder, or a folder.
    pub fn named(name: &str) -> Self {
        match name {
            "modules" => Self::Modules,
            "release" => Self::Release,
            dir => Self::Directory(dir.into()),
        }
    }

    /// The name that stands for it.
    pub fn name(&self) -> &OsStr {
        match self {
            Self::Modules => "modules".as_ref(),
            Self::Release => "release".as_ref(),
            Self::Directory(dir) => dir.as_os_str(),
        }
    }
}

impl FromStr for BundleFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::named(text) {
            Self::Directory(dir) if !dir.is_dir() => Err(
                "there is no such folder, and the sources that need none are modules, release"
                    .to_owned(),
            ),
            known => Ok(known),
        }
    }
}

/// What the cache adds to a bundle: so that a bundle's own folder can be given, too.
const NO_PROGRAMS: [&str; 4] = [super::MANIFEST, SEAL, USED, "images"];

/// The programs in a folder of the user's: `bin/NAME`, `cni/NAME`, or just `NAME`.
///
/// # Errors
/// [`Error::OwnFile`] for a file that is no component, is there twice, or cannot run on a node.
pub(super) fn read(dir: &Path) -> Result<Vec<OwnFile>, Error> {
    let mut found: BTreeMap<Component, PathBuf> = BTreeMap::new();
    for folder in ["", "bin", "cni"] {
        let folder_path = dir.join(folder);
        if !folder.is_empty() && !folder_path.is_dir() {
            continue;
        }
        let entries = fs::read_dir(&folder_path).map_err(Error::file("list", &folder_path))?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<String>>>()
            .map_err(Error::file("list", &folder_path))?;
        names.sort();
        for name in names {
            let path = folder_path.join(&name);
            let ours = NO_PROGRAMS.contains(&name.as_str()) || ["bin", "cni"].contains(&&*name);
            if folder.is_empty() && ours {
                continue;
            }
            let meant = match folder {
                "" => name,
                folder => format!("{folder}/{name}"),
            };
            let Some(component) = Component::named(&meant) else {
                let reason = format!(
                    "{meant} is no component of a bundle; those are {}",
                    Component::names()
                );
                return Err(OwnFileError::new(&path, reason).into());
            };
            if let Some(other) = found.get(&component) {
                let reason = format!("{} is the same component", other.display());
                return Err(OwnFileError::new(&path, reason).into());
            }
            found.insert(component, path);
        }
    }
    if found.is_empty() {
        let reason = format!(
            "it holds no component of a bundle (bin/NAME, cni/NAME or NAME); those are {}",
            Component::names()
        );
        return Err(OwnFileError::new(dir, reason).into());
    }
    let files = found.into_iter();
    files
        .map(|(component, path)| OwnFile::read(component, &path, false))
        .collect()
}
