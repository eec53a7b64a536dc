//! A kernel of the user's, which the nodes boot instead of their system's own.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use podwire_process::plain;

use crate::digest::sha256_file;

/// What a Debian package begins with: an archive of ar(1), and the name of its first member (deb(5)).
const PACKAGE: &[u8] = b"!<arch>\ndebian-binary";

/// Debian packages with one kernel, `/boot/vmlinuz-VERSION`, and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnKernel {
    /// Never none.
    pub(super) packages: Vec<KernelPackage>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelPackage {
    /// As the user wrote it.
    pub(super) path: PathBuf,
    /// SHA-256 in hexadecimal.
    pub(super) sha256: String,
}

/// A file is no package that a kernel could be in.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", plain::line(&path.display().to_string()))]
pub struct KernelPackageError {
    path: PathBuf,
    reason: String,
}

impl OwnKernel {
    /// The packages of these files; nothing of none. What is in them is seen when an image is made.
    ///
    /// # Errors
    /// [`KernelPackageError`] for a file that cannot be read, or is no Debian package.
    pub fn read(files: &[PathBuf]) -> Result<Option<Self>, KernelPackageError> {
        let packages = files.iter().map(|path| KernelPackage::read(path));
        let packages = packages.collect::<Result<Vec<_>, _>>()?;
        Ok((!packages.is_empty()).then_some(Self { packages }))
    }
}

impl KernelPackage {
    fn read(path: &Path) -> Result<Self, KernelPackageError> {
        let wrong = |reason: String| KernelPackageError {
            path: path.to_owned(),
            reason,
        };
        let read = |error: std::io::Error| wrong(format!("it cannot be read: {error}"));
        let mut begins = Vec::new();
        let file = File::open(path).map_err(read)?;
        let length = PACKAGE.len() as u64;
        file.take(length).read_to_end(&mut begins).map_err(read)?;
        if begins != PACKAGE {
            return Err(wrong(
                "it is no Debian package; `make bindeb-pkg` of a kernel's sources makes one"
                    .to_owned(),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            sha256: sha256_file(path).map_err(read)?,
        })
    }
}

impl std::fmt::Display for OwnKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, package) in self.packages.iter().enumerate() {
            let name = package.path.file_name().unwrap_or_default();
            let name = plain::line(&name.to_string_lossy());
            let before = if index == 0 { "" } else { ", " };
            write!(f, "{before}{name} (sha256 {:.12})", package.sha256)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_kernel_is_of_debian_packages_and_told_by_their_names_and_digests() {
        let dir = tempfile::tempdir().unwrap();
        let [image, modules, other, absent] =
            ["image.deb", "modules.deb", "bzImage", "absent"].map(|name| dir.path().join(name));
        fs::write(&image, "!<arch>\ndebian-binary   1").unwrap();
        fs::write(&modules, "!<arch>\ndebian-binary   2").unwrap();
        fs::write(&other, "MZ").unwrap();
        assert_eq!(OwnKernel::read(&[]).unwrap(), None);
        let kernel = OwnKernel::read(&[image.clone(), modules]).unwrap().unwrap();
        insta::assert_snapshot!(kernel, @"image.deb (sha256 f2eb0d4ee3a0), modules.deb (sha256 d5079ef04dab)");
        let refused = |path: &PathBuf| {
            let files = [image.clone(), path.clone()];
            let error = OwnKernel::read(&files).unwrap_err().to_string();
            error.replace(&dir.path().display().to_string(), "DIR")
        };
        insta::assert_snapshot!(refused(&other), @"DIR/bzImage: it is no Debian package; `make bindeb-pkg` of a kernel's sources makes one");
        insta::assert_snapshot!(refused(&absent), @"DIR/absent: it cannot be read: No such file or directory (os error 2)");
        assert!(refused(&dir.path().to_owned()).starts_with("DIR: it cannot be read"));
    }
}
