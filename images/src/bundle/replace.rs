use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::component::{Component, OwnFileError};
use super::{Bundle, BundleFile, BundleManifest, Origin, RECIPE, kubeadm_images, publish};
use crate::digest::{Inputs, sha256_file};
use crate::files::{link, make_executable, place};
use crate::image;
use crate::{Error, Workshop};

/// `--replace COMPONENT=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Which.
    pub component: Component,
    /// By what.
    pub path: PathBuf,
}

impl FromStr for Replacement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text
            .split_once('=')
            .filter(|(_, path)| !path.is_empty())
            .ok_or("it has the form COMPONENT=PATH, like kube-proxy=./out/kube-proxy")?;
        let component = Component::named(name).ok_or_else(|| {
            format!(
                "there is no component {name}; there are {}",
                Component::names()
            )
        })?;
        Ok(Self {
            component,
            path: path.into(),
        })
    }
}

impl Replacement {
    /// # Errors
    /// [`Error::OwnFile`].
    pub(super) fn read(&self) -> Result<OwnFile, Error> {
        OwnFile::read(self.component, &self.path, true)
    }
}

/// A file of the user's, seen and fit to be a part of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// What it is.
    pub component: Component,
    /// As the user wrote it.
    pub path: PathBuf,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Whether it replaces this component alone, and is not just one file of a folder.
    pub replaces: bool,
}

impl OwnFile {
    /// # Errors
    /// [`Error::OwnFile`].
    pub(super) fn read(component: Component, path: &Path, replaces: bool) -> Result<Self, Error> {
        component.check(path)?;
        let sha256 = sha256_file(path)
            .map_err(|error| OwnFileError::new(path, format!("it cannot be read: {error}")))?;
        Ok(Self {
            component,
            path: path.to_owned(),
            sha256,
            replaces,
        })
    }

    fn origin(&self) -> Origin {
        Origin::File {
            path: self.path.clone(),
        }
    }
}

/// The name of a bundle with files of one's own in place of the base's.
pub(super) fn name(base: &str, own: &[OwnFile]) -> String {
    let inputs = Inputs::of("bundle of one's own")
        .with("recipe", RECIPE)
        .with("base", base);
    let mut own: Vec<&OwnFile> = own.iter().collect();
    own.sort_by_key(|file| file.component);
    own.iter()
        .fold(inputs, |it, file| {
            it.with(file.component.path, &file.sha256)
        })
        .name()
}

/// A bundle in the cache that was made of the same files, wherever they were then.
pub(super) fn with_paths(mut bundle: Bundle, own: &[OwnFile]) -> Bundle {
    for file in own {
        if let Some(known) = bundle.manifest.files.get_mut(file.component.path) {
            known.origin = file.origin();
        }
    }
    bundle
}

/// Makes a bundle of another one and files of one's own.
pub(super) fn make(
    workshop: &Workshop<'_>,
    base: &Bundle,
    own: &[OwnFile],
) -> Result<Bundle, Error> {
    let names: Vec<String> = own.iter().map(|file| file.component.to_string()).collect();
    workshop
        .report
        .step(&format!("making a bundle with your {}", names.join(", ")));
    let staging = workshop.cache.staging("bundle")?;
    let mut manifest = base.manifest.clone();
    for file in own {
        let to = place(staging.path(), file.component.path)?;
        fs::copy(&file.path, &to).map_err(Error::file("copy", &file.path))?;
        make_executable(&to)?;
        let made = super::described(&to, file.origin())?;
        if made.sha256 != file.sha256 {
            let reason = "it changed while it was copied: is it being built just now?";
            return Err(OwnFileError::new(&file.path, reason).into());
        }
        let path = file.component.path.to_owned();
        manifest.files.insert(path, made);
    }
    for (path, BundleFile { origin, .. }) in &manifest.files {
        if !matches!(origin, Origin::File { .. }) {
            link(&base.dir.join(path), &place(staging.path(), path)?)?;
        }
    }
    if own.iter().any(|file| file.component.path == "bin/kubeadm") {
        manifest.kubeadm_images = kubeadm_images(workshop, staging.path(), &manifest.kubernetes)?;
    }
    keep_images(&mut manifest, own);
    for image in manifest.images.values() {
        let archive = &image.archive;
        link(&base.dir.join(archive), &place(staging.path(), archive)?)?;
    }
    publish(workshop, name(&base.name, own), staging, manifest)
}

/// An image of a release is not used where a program of it is one's own: it is then made of that.
fn keep_images(manifest: &mut BundleManifest, own: &[OwnFile]) {
    let is_own = |path: &str| own.iter().any(|file| file.component.path == path);
    manifest.images.retain(|reference, _| {
        let programs = image::programs_of(reference);
        !programs.iter().any(|path| is_own(path))
    });
}
