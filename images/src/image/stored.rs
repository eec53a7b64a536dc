//! Images in the cache, and the requests that have led to them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inquiry::{ImageRequest, Inquiry, NodeImage};
use crate::files::read_json;
use crate::{Check, Error, Kind, Workshop};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DISK: &str = "disk.qcow2";
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRD: &str = "initrd";
pub(super) const PACKAGES: &str = "packages";

/// Which image a request led to: what makes a warm run need no network.
#[derive(Serialize, Deserialize)]
struct Known {
    name: String,
}

/// The image of a request when it is in the cache, whole and unaltered; builds nothing but the
/// guest program, whose digest is part of the image's name.
///
/// # Errors
/// [`Error`] when inputs or cache cannot be read.
pub fn cached(
    workshop: &Workshop<'_>,
    request: &ImageRequest<'_>,
) -> Result<Option<NodeImage>, Error> {
    find(workshop, &Inquiry::make(workshop, request)?)
}

fn index_path(workshop: &Workshop<'_>, requested: &str) -> Result<PathBuf, Error> {
    Ok(workshop
        .cache
        .folder("requests")?
        .join(format!("{requested}.json")))
}

pub(super) fn find(
    workshop: &Workshop<'_>,
    inquiry: &Inquiry<'_>,
) -> Result<Option<NodeImage>, Error> {
    let path = index_path(workshop, &inquiry.requested())?;
    // No entry, or one that was cut short: then the image is made again.
    let Some(known) = fs::read(path)
        .ok()
        .and_then(|t| serde_json::from_slice::<Known>(&t).ok())
    else {
        return Ok(None);
    };
    let what = format!("{} image", inquiry.recipe.name);
    // Gigabytes are read.
    let digests = format!("the digests of the cached {what}");
    workshop.report.waiting(&digests);
    let found = workshop
        .cache
        .find(Kind::Image, &known.name, Check::Contents)?;
    workshop.report.waiting("");
    let dir = found.usable(what, workshop.report);
    dir.map(|dir| open(&dir)).transpose()
}

/// An image by its folder.
///
/// # Errors
/// [`Error::File`], [`Error::Malformed`] when there is none.
pub fn open(dir: &Path) -> Result<NodeImage, Error> {
    let manifest = read_json(dir.join(MANIFEST))?;
    Ok(NodeImage {
        disk: dir.join(DISK),
        kernel: dir.join(KERNEL),
        initrd: dir.join(INITRD),
        dir: dir.to_owned(),
        manifest,
    })
}

/// From now on the request leads to the image of this name.
pub(super) fn remember(
    workshop: &Workshop<'_>,
    inquiry: &Inquiry<'_>,
    name: String,
) -> Result<(), Error> {
    let index = index_path(workshop, &inquiry.requested())?;
    let text = serde_json::to_vec(&Known { name })
        .map_err(|error| Error::file("write", &index)(error.into()))?;
    fs::write(&index, text).map_err(Error::file("write", index))
}

/// The archives of container images in a folder.
pub(super) fn archives(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(dir).map_err(Error::file("list", dir))?;
    let paths = listed.flatten().map(|entry| entry.path());
    let mut archives: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "tar"))
        .collect();
    archives.sort();
    Ok(archives)
}

#[cfg(test)]
mod tests {
    use super::super::inquiry::tests::{inquiry, source};
    use super::*;
    use crate::Cache;
    use crate::image::{BASE, ImageManifest};
    use crate::test_host::Heard;

    #[test]
    fn a_known_request_leads_to_its_image_until_that_is_altered() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let (spawner, heard) = (podwire_process::Spawner::start().unwrap(), Heard::default());
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &heard,
            source: source(),
        };
        let inquiry = inquiry(&cache, None);
        assert_eq!(find(&workshop, &inquiry).unwrap(), None);
        let manifest = ImageManifest {
            name: "n".to_owned(),
            recipe: BASE.to_owned(),
            from: "debian".to_owned(),
            suite: "trixie".to_owned(),
            disk_mib: 2048,
            kernel_command_line: "root=/dev/vda".to_owned(),
            kubernetes: None,
            bundle: None,
            upgrade: None,
            oci_images: Vec::new(),
            probe_sha256: "p".to_owned(),
            ssh_host_key: "k".to_owned(),
            kernel: None,
            packages: 1,
            differences: Vec::new(),
        };
        let staging = cache.staging("image").unwrap();
        let text = serde_json::to_vec(&manifest).unwrap();
        fs::write(staging.path().join(MANIFEST), text).unwrap();
        fs::write(staging.path().join(DISK), "disk").unwrap();
        cache.publish(Kind::Image, "n", staging).unwrap();
        let index = index_path(&workshop, &inquiry.requested()).unwrap();
        fs::write(&index, r#"{"name":"n"}"#).unwrap();
        let image = find(&workshop, &inquiry).unwrap().unwrap();
        assert_eq!(image.manifest, manifest);
        fs::write(&image.disk, "dask").unwrap();
        assert_eq!(find(&workshop, &inquiry).unwrap(), None);
        insta::assert_snapshot!(heard.0.borrow().last().unwrap(), @"the cached base image is damaged and is made again: disk.qcow2 has other contents than when it was built");
    }
}
