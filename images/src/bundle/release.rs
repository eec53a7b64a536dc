use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::version::numbers;
use super::{
    Bundle, BundleFile, BundleImage, BundleManifest, Origin, RECIPE, described, kubeadm_images,
    modules, publish,
};
use crate::digest::{Inputs, sha256_file};
use crate::download::Downloader;
use crate::files::{Bounded, link, make_executable, place};
use crate::oci;
use crate::registry::{self, PullError};
use crate::sources::{SourceKey, Sources};
use crate::{Error, Workshop};

/// Which releases of other projects go with which minor version of Kubernetes.
const PINS: &str = "images/bundle/releases.toml";

/// What an archive of programs may unpack to: etcd's has 90 MiB.
const UNPACKED_LIMIT: u64 = 2 << 30;

/// The programs that Kubernetes publishes one by one.
pub(super) const PROGRAMS: [&str; 7] = [
    "kubeadm",
    "kubectl",
    "kubelet",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
];

/// Those of the CNI plugins that are used.
pub(super) const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// An official release, and where it and what goes with it are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    version: String,
    pins: Pins,
    sources: Sources,
}

/// Versions, without `v`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Pins {
    cni_plugins: String,
    crictl: String,
}

/// An archive of a release of another project.
struct Tarball<'a> {
    key: SourceKey,
    /// Its folder below the source's address.
    folder: String,
    name: String,
    /// The file in the same folder that says its digest.
    sums: String,
    /// Programs in it, and their folder in the bundle.
    programs: &'a [&'a str],
    to: &'a str,
}

impl Release {
    /// # Errors
    /// [`Error::Malformed`] for pins without an entry that fits.
    pub(super) fn read(source: &Path, sources: &Sources, version: &str) -> Result<Self, Error> {
        let path = source.join(PINS);
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let malformed = |reason: String| Error::Malformed {
            path: path.clone(),
            reason,
        };
        let all: BTreeMap<String, Pins> =
            toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let minor = |version: &str| numbers(version).get(1).copied().unwrap_or_default();
        let fitting = all
            .into_iter()
            .filter(|(entry, _)| minor(entry) <= minor(version))
            .max_by_key(|(entry, _)| minor(entry));
        let (_, pins) = fitting.ok_or_else(|| malformed(format!("nothing goes with {version}")))?;
        Ok(Self {
            version: version.to_owned(),
            pins,
            sources: sources.clone(),
        })
    }

    /// The name of its bundle.
    pub(super) fn name(&self, source: &Path) -> Result<String, Error> {
        let inputs = Inputs::of("bundle of a release")
            .with("recipe", RECIPE)
            .with("version", &self.version)
            .with("pins", format!("{:?}", self.pins))
            .with("flannel", modules::name_of_flannel(source)?);
        let keys = [
            SourceKey::Kubernetes,
            SourceKey::CniPlugins,
            SourceKey::Crictl,
            SourceKey::Etcd,
            SourceKey::Images,
        ];
        let inputs = keys.into_iter().fold(inputs, |inputs, key| {
            inputs.with(&key.to_string(), self.sources.shown(key))
        });
        Ok(inputs.name())
    }

    /// Downloads and pulls all of it, and has flannel built, of which there is no such release.
    pub(super) fn make_with(
        &self,
        workshop: &Workshop<'_>,
        build_flannel: impl Fn(&Path) -> Result<modules::Flannel, Error>,
    ) -> Result<Bundle, Error> {
        let name = self.name(workshop.source)?;
        let downloader = Downloader::new(workshop.cache, workshop.report)?;
        let staging = workshop.cache.staging("bundle")?;
        let dir = staging.path();
        let mut files = BTreeMap::new();
        for program in PROGRAMS {
            let (path, file) = self.program(&downloader, dir, program)?;
            files.insert(path, file);
        }
        // What else goes with a release is what its kubeadm says.
        let wanted = kubeadm_images(workshop, dir, &self.version)?;
        for tarball in [self.cni_plugins(), self.crictl(), self.etcd(dir, &wanted)?] {
            files.extend(self.unpacked(&downloader, dir, &tarball)?);
        }
        let images = self.images(workshop, dir, &wanted)?;
        let flannel = build_flannel(dir)?;
        files.extend(flannel.files);
        let versions = [
            ("cni-plugins", self.pins.cni_plugins.clone()),
            ("crictl", self.pins.crictl.clone()),
            ("flannel", flannel.version),
        ];
        let manifest = BundleManifest {
            kubernetes: self.version.clone(),
            versions: versions
                .map(|(of, version)| (of.to_owned(), version))
                .into(),
            files,
            kubeadm_images: wanted,
            images,
        };
        publish(workshop, name, staging, manifest)
    }

    fn program(
        &self,
        downloader: &Downloader<'_>,
        dir: &Path,
        program: &str,
    ) -> Result<(String, BundleFile), Error> {
        let key = SourceKey::Kubernetes;
        let folder = format!("v{}/bin/linux/amd64", self.version);
        let address = |file: &str| self.sources.url(key, &format!("{folder}/{file}"));
        let url = address(program);
        let digest = downloader.digest(key, &address(&format!("{program}.sha256")), program)?;
        let file = downloader.file(key, &url, &digest)?;
        let path = format!("bin/{program}");
        let to = place(dir, &path)?;
        link(&file, &to)?;
        let url = url.to_string();
        let origin = Origin::Release { url, digest };
        Ok((path, executable(&to, origin)?))
    }

    fn cni_plugins(&self) -> Tarball<'static> {
        let version = &self.pins.cni_plugins;
        let name = format!("cni-plugins-linux-amd64-v{version}.tgz");
        Tarball {
            key: SourceKey::CniPlugins,
            folder: format!("v{version}"),
            sums: format!("{name}.sha256"),
            name,
            programs: &PLUGINS,
            to: "cni",
        }
    }

    fn crictl(&self) -> Tarball<'static> {
        let version = &self.pins.crictl;
        let name = format!("crictl-v{version}-linux-amd64.tar.gz");
        Tarball {
            key: SourceKey::Crictl,
            folder: format!("v{version}"),
            sums: format!("{name}.sha256"),
            name,
            programs: &["crictl"],
            to: "bin",
        }
    }

    /// etcd in the version that kubeadm's image has: its tag has a revision of the image's own
    /// behind it.
    fn etcd(&self, dir: &Path, wanted: &[String]) -> Result<Tarball<'static>, Error> {
        let mut tags = wanted.iter().filter_map(|image| image.split_once("/etcd:"));
        let version = tags.next().and_then(|(_, tag)| tag.rsplit_once('-'));
        let (version, _) = version.ok_or_else(|| Error::UnfitBundle {
            dir: dir.to_owned(),
            version: self.version.clone(),
            reason: format!(
                "its kubeadm wants no etcd whose version could be told; it wants {}",
                wanted.join(", ")
            ),
        })?;
        Ok(Tarball {
            key: SourceKey::Etcd,
            folder: format!("v{version}"),
            sums: "SHA256SUMS".to_owned(),
            name: format!("etcd-v{version}-linux-amd64.tar.gz"),
            programs: &["etcd", "etcdctl", "etcdutl"],
            to: "bin",
        })
    }

    fn unpacked(
        &self,
        downloader: &Downloader<'_>,
        dir: &Path,
        tarball: &Tarball<'_>,
    ) -> Result<Vec<(String, BundleFile)>, Error> {
        let Tarball {
            key, folder, name, ..
        } = tarball;
        let address = |file: &str| self.sources.url(*key, &format!("{folder}/{file}"));
        let url = address(name);
        let digest = downloader.digest(*key, &address(&tarball.sums), name)?;
        let archive = downloader.file(*key, &url, &digest)?;
        let malformed = |reason: String| Error::Malformed {
            path: archive.clone(),
            reason: format!("it came from {url}, and {reason}"),
        };
        place(dir, &format!("{}/x", tarball.to))?;
        let missing = unpack(
            &archive,
            UNPACKED_LIMIT,
            tarball.programs,
            &dir.join(tarball.to),
        );
        let missing = missing.map_err(|error| malformed(format!("cannot be unpacked: {error}")))?;
        if !missing.is_empty() {
            return Err(malformed(format!("has no {}", missing.join(", "))));
        }
        let programs = tarball.programs.iter().map(|program| {
            let path = format!("{}/{program}", tarball.to);
            let origin = Origin::Release {
                url: url.to_string(),
                digest: digest.clone(),
            };
            let file = executable(&dir.join(&path), origin)?;
            Ok((path, file))
        });
        programs.collect()
    }

    fn images(
        &self,
        workshop: &Workshop<'_>,
        dir: &Path,
        wanted: &[String],
    ) -> Result<BTreeMap<String, BundleImage>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::file("start the threads that fill", dir))?;
        let mut images = BTreeMap::new();
        for reference in wanted {
            // kubeadm's names begin with the registry, which may be another one here.
            let path = reference.split_once('/').map_or("", |(_, path)| path);
            let from = format!("{}/{path}", self.sources.registry());
            let failed = |reason: String| Error::Pull {
                reference: reference.clone(),
                from: from.clone(),
                reason,
            };
            let pull = registry::pull(workshop.cache, workshop.report, reference, &from);
            runtime.block_on(pull).map_err(|error| match error {
                PullError::Cache(error) => error.into(),
                PullError::Registry(reason) => failed(reason),
            })?;
            let kept = registry::kept(workshop.cache, reference)?;
            let kept = kept.ok_or_else(|| failed("it has gone from the cache".to_owned()))?;
            let archive = format!("images/{}", oci::archive_name(reference));
            let to = place(dir, &archive)?;
            link(&kept, &to)?;
            let sha256 = sha256_file(&to).map_err(Error::file("read", &to))?;
            let image = BundleImage {
                archive,
                sha256,
                from,
            };
            images.insert(reference.clone(), image);
        }
        Ok(images)
    }
}

/// Takes programs out of an archive that unpacks to so many bytes at most, into `to`; gives those that
/// it does not have.
fn unpack<'a>(
    archive: &Path,
    limit: u64,
    programs: &[&'a str],
    to: &Path,
) -> io::Result<Vec<&'a str>> {
    let mut missing = programs.to_vec();
    let file = GzDecoder::new(io::BufReader::new(File::open(archive)?));
    for entry in tar::Archive::new(Bounded::new(file, limit)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let found = missing.iter().position(|it| path.ends_with(it));
        if let (Some(index), true) = (found, entry.header().entry_type().is_file()) {
            let to = to.join(missing.swap_remove(index));
            io::copy(&mut entry, &mut File::create(to)?)?;
        }
    }
    Ok(missing)
}

fn executable(program: &Path, origin: Origin) -> Result<BundleFile, Error> {
    make_executable(program)?;
    described(program, origin)
}

#[cfg(test)]
mod tests {
    use super::super::test_publisher::tarball;
    use super::*;

    #[test]
    fn an_archive_is_not_unpacked_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("x.tgz");
        let files = [("bin/a", 100), ("bin/b", 3 << 20), ("bin/c", 100)];
        let files = files.map(|(name, size)| (name.to_owned(), vec![0; size]));
        fs::write(&archive, tarball(&files)).unwrap();
        let unpack = |limit| unpack(&archive, limit, &["a", "c", "d"], dir.path());
        // What is not taken is unpacked as well.
        let refused = unpack(2 << 20).unwrap_err().to_string();
        assert!(refused.contains("it has more than 2.0 MiB"), "{refused}");
        assert_eq!(unpack(4 << 20).unwrap(), ["d"]);
    }
}
