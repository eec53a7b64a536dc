//! A kernel of the user's, which the nodes boot instead of their system's own.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::{ChildCommand, RunError, Spawner, plain, run};

use crate::digest::sha256_file;

/// What a Debian package begins with: an archive of ar(1), and the name of its first member (deb(5)).
const PACKAGE: &[u8] = b"!<arch>\ndebian-binary";

/// The nodes' machine, and what is for every machine, as packages call them (deb-control(5)).
const MACHINES: [&str; 2] = ["amd64", "all"];

/// Reading a package's control file is a matter of milliseconds.
const ASK_LIMIT: Duration = Duration::from_secs(20);

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

    /// Asks whether the packages are for the nodes' machine: any other kernel would only show as a guest that says
    /// nothing.
    ///
    /// # Errors
    /// [`KernelPackageError`] for one that is not, or of which dpkg-deb does not say it.
    pub fn check(&self, spawner: &Spawner) -> Result<(), KernelPackageError> {
        self.packages.iter().try_for_each(|it| it.check(spawner))
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

    fn check(&self, spawner: &Spawner) -> Result<(), KernelPackageError> {
        let wrong = |reason: String| KernelPackageError {
            path: self.path.clone(),
            reason,
        };
        let ask = ChildCommand::new("dpkg-deb")
            .args(["--field".as_ref(), self.path.as_os_str()])
            .args(["Architecture"]);
        let shown = ask.display();
        let told = match run(spawner, ask, ASK_LIMIT) {
            // No image is made on such a host: what it has was made where somebody could ask.
            Err(RunError::Spawn(_)) => return Ok(()),
            told => told.and_then(|told| told.success(&shown)),
        };
        let told = told.map_err(|error| wrong(plain::text(&error.to_string())))?;
        match told.stdout.trim() {
            machine if MACHINES.contains(&machine) => Ok(()),
            machine => Err(wrong(format!(
                "it is for machines of {}, and the nodes are amd64; give the package of that architecture",
                plain::line(machine)
            ))),
        }
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

    /// A Debian package with nothing but a control file.
    fn package(architecture: &str) -> Vec<u8> {
        let tar = |name: &str, text: &str| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
            builder.into_inner().unwrap()
        };
        let control = format!(
            "Package: linux-image\nVersion: 1\nArchitecture: {architecture}\nMaintainer: a <a@example.org>\nDescription: a\n"
        );
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", tar("./control", &control)),
            ("data.tar", tar("./boot/vmlinuz-1", "MZ")),
        ];
        let mut archive = b"!<arch>\n".to_vec();
        for (name, content) in members {
            let header = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100644,
                content.len()
            );
            archive.extend(header.as_bytes());
            archive.extend(&content);
            // Members begin at even places.
            archive.extend(vec![b'\n'; content.len() % 2]);
        }
        archive
    }

    #[test]
    fn a_kernel_of_another_machine_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let spawner = Spawner::start().unwrap();
        let path = dir.path().join("image.deb");
        let said = |package: &[u8]| {
            fs::write(&path, package).unwrap();
            let kernel = OwnKernel::read(std::slice::from_ref(&path))
                .unwrap()
                .unwrap();
            let checked = kernel.check(&spawner).map_err(|error| error.to_string());
            checked.map_err(|error| error.replace(&dir.path().display().to_string(), "DIR"))
        };
        assert_eq!(said(&package("amd64")), Ok(()));
        assert_eq!(said(&package("all")), Ok(()));
        insta::assert_snapshot!(said(&package("arm64")).unwrap_err(), @"DIR/image.deb: it is for machines of arm64, and the nodes are amd64; give the package of that architecture");
        let cut = said(&package("amd64")[..100]).unwrap_err();
        assert!(
            cut.starts_with("DIR/image.deb: `dpkg-deb --field DIR/image.deb Architecture` failed"),
            "{cut}"
        );
    }
}
