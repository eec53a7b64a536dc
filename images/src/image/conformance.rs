//! The images that upstream's network conformance tests run, under upstream's own names.

use std::fs;
use std::path::PathBuf;

use super::debian_root::DebianRoot;
use super::lock::LockDifference;
use super::stored::archives;
use crate::bundle::{self, EndToEnd};
use crate::digest::Inputs;
use crate::oci::{OciFile, OciImage, Program};
use crate::{Check, Error, Kind, Workshop};

/// The name of the root, of its lock, and of the images in the cache.
pub const CONFORMANCE: &str = "conformance";

/// What their Pods call: dig, curl, nc, ss, nginx.
const PACKAGES: [&str; 6] = [
    "bind9-dnsutils",
    "curl",
    "iproute2",
    "iputils-ping",
    "netcat-openbsd",
    "nginx-light",
];

/// Where upstream keeps them.
const REGISTRY: &str = "registry.k8s.io/e2e-test-images/";

/// What agnhost's image has beside it: the certificate that `agnhost porter` shows, where upstream's Dockerfile has it.
const OF_AGNHOST: [(&str, &str); 2] = [
    ("/localhost.crt", "porter/localhost.crt"),
    ("/localhost.key", "porter/localhost.key"),
];

/// Where its program is built.
const AGNHOST: &str = "bin/agnhost";

/// What agnhost does where its Pod does not say.
const NOTHING: &str = "pause";

/// Those that the network's tests run, and how each starts where its Pod does not say.
const IMAGES: [(&str, &[&str]); 4] = [
    ("agnhost", &["/agnhost"]),
    ("glibc-dns-testing", &[]),
    ("jessie-dnsutils", &[]),
    ("nginx", &["/usr/sbin/nginx", "-g", "daemon off;"]),
];

fn root(workshop: &Workshop<'_>) -> Result<DebianRoot, Error> {
    DebianRoot::read(workshop, CONFORMANCE, &PACKAGES, CONFORMANCE)
}

fn name(workshop: &Workshop<'_>, version: &str, root: &DebianRoot) -> Result<String, Error> {
    let program = bundle::e2e_name(workshop.source, version)?;
    let inputs = Inputs::of("conformance images").with("program", program);
    let images = IMAGES.map(|(image, starts)| format!("{image} {}", starts.join(" ")));
    let beside = OF_AGNHOST.map(|(path, from)| format!("{path} {from}"));
    let inputs = inputs
        .with("images", images.join(", "))
        .with("beside agnhost", beside.join(", "))
        .with("agnhost does", NOTHING);
    let inputs = root.among(inputs);
    Ok(format!("{CONFORMANCE}-images-{}", inputs.name()))
}

/// Each of these that a version's tests name, with what it starts.
fn images(named: &[String]) -> Vec<OciImage> {
    let known = |reference: &String| {
        let image = reference.strip_prefix(REGISTRY)?.split(':').next()?;
        let (image, starts) = IMAGES.iter().find(|(name, _)| *name == image)?;
        let file = |path: &'static str, program| OciFile {
            path: path.into(),
            program,
            capability: None,
        };
        let beside = OF_AGNHOST.map(|(path, from)| file(path, Program::Source(from.to_owned())));
        let agnhost = [file("/agnhost", Program::Apart(AGNHOST.to_owned()))]
            .into_iter()
            .chain(beside);
        let is_agnhost = *image == "agnhost";
        Some(OciImage {
            reference: reference.clone(),
            files: agnhost.filter(|_| is_agnhost).collect(),
            debian: true,
            entrypoint: starts.to_vec(),
            user: None,
        })
    };
    named.iter().filter_map(known).collect()
}

/// The archives of a version's images, when they have been built from today's pins.
///
/// # Errors
/// [`Error`] when pins or cache cannot be read.
pub fn cached_conformance(
    workshop: &Workshop<'_>,
    version: &str,
) -> Result<Option<Vec<PathBuf>>, Error> {
    let name = name(workshop, version, &root(workshop)?)?;
    let found = (workshop.cache).find(Kind::Tool, &name, Check::Sizes)?;
    let dir = found.usable(&name, workshop.report);
    dir.map(|dir| archives(&dir)).transpose()
}

/// The archives of a version's images, built on first use: upstream's agnhost of its module, over Debian's packages
/// where upstream has Alpine's; nginx is Debian's.
///
/// # Errors
/// [`Error::NoPrivilege`]; [`Error::Step`] with the output of what failed; those of [`bundle::e2e`].
pub fn conformance(workshop: &Workshop<'_>, version: &str) -> Result<Vec<PathBuf>, Error> {
    let built = bundle::e2e(workshop, version)?;
    let root = root(workshop)?;
    let name = name(workshop, version, &root)?;
    let _lock = (workshop.cache).lock("image-conformance", workshop.report)?;
    if let Some(archives) = cached_conformance(workshop, version)? {
        return Ok(archives);
    }
    let named = built.images(workshop)?;
    let sources = EndToEnd::sources(workshop, version)?;
    let packed = root.pack(workshop)?;
    let staging = workshop.cache.staging("image-conformance")?;
    for image in images(&named) {
        let path = staging.path().join(image.file_name());
        let arguments: &[&str] = if image.files.is_empty() {
            &[]
        } else {
            &[NOTHING]
        };
        let archive = image.archive_given(arguments, &packed, |program| match program {
            Program::Source(path) => fs::read(sources.join(path)),
            _ => fs::read(&built.agnhost),
        });
        let archive = archive.map_err(Error::file("pack", &path))?;
        fs::write(&path, archive).map_err(Error::file("write", path))?;
    }
    let dir = (workshop.cache).publish(Kind::Tool, &name, staging)?;
    archives(&dir)
}

/// Moves the images' lock to the archive's current versions, and tells what changed.
///
/// # Errors
/// As [`conformance`]; the lock is unchanged then.
pub fn bump_conformance(workshop: &Workshop<'_>) -> Result<Vec<LockDifference>, Error> {
    root(workshop)?.bump(workshop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::inquiry::tests::source;
    use crate::image::lock::Lock;
    use crate::image::recipe::Recipe;

    #[test]
    fn of_all_that_tests_name_the_network_s_are_made() {
        let named = [
            "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
            "gcr.io/k8s-authenticated-test/agnhost:2.6",
            "registry.k8s.io/e2e-test-images/nginx:1.15-4",
            "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
            "registry.k8s.io/e2e-test-images/nautilus:1.8",
            "registry.k8s.io/pause:3.10.2",
        ];
        let images = images(&named.map(str::to_owned));
        let shown = images.iter().map(|image| {
            let files: Vec<&str> = image.files.iter().map(|file| &*file.path).collect();
            format!("{} {files:?} {:?}", image.reference, image.entrypoint)
        });
        insta::assert_snapshot!(shown.collect::<Vec<_>>().join("\n"), @r#"
        registry.k8s.io/e2e-test-images/agnhost:2.63.0 ["/agnhost", "/localhost.crt", "/localhost.key"] ["/agnhost"]
        registry.k8s.io/e2e-test-images/nginx:1.15-4 [] ["/usr/sbin/nginx", "-g", "daemon off;"]
        registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0 [] []
        "#);
    }

    #[test]
    fn every_package_of_them_is_locked() {
        let lock = Lock::read(&Recipe::path(source(), CONFORMANCE, "lock")).unwrap();
        for package in PACKAGES {
            assert!(lock.0.contains_key(package), "{package}");
        }
    }
}
