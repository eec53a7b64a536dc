//! What nodes get beside their image: a Pod network of the user's, with the images that its Pods run, and images of
//! the user's own Pods.
//!
//! Nodes reach no registry. What a manifest needs is in archives that the user gives, in the node
//! image, or pulled by this host, before any machine boots. Whatever else is in these archives, the nodes have too.

mod archive;
mod error;
mod foreign;
mod manifest;
mod policy;
mod yaml;

use oci_spec::distribution::Reference;
use podwire_process::Report;

pub use archive::{HeldImage, ImageArchive};
pub use error::{FailedPull, PodNetworkError};
pub use manifest::{Controller, ControllerKind, Place, PodNetworkManifest, Terms};

use crate::Cache;
use crate::digest::{Digest, Inputs};
use crate::registry::{self, PullError};

/// What can be brought onto nodes: nothing that it needs is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroughtFiles {
    /// The Pod network that is to be applied, where there is one.
    pub manifest: Option<PodNetworkManifest>,
    /// The images that come from archives.
    pub images: Vec<BroughtImage>,
    /// Those of the manifest that a node image holds already, in full.
    pub of_node_image: Vec<String>,
    /// What a node's containerd is to import: all that the user gave, and what was pulled.
    pub archives: Vec<ImageArchive>,
}

/// An image that a Pod may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroughtImage {
    /// Its name in full, as a node's containerd looks for it.
    pub reference: String,
    /// See [`HeldImage::digest`].
    pub digest: Digest,
    /// The name that it has after the import.
    pub name: String,
}

impl BroughtFiles {
    /// What there is without asking any registry: in the archives that the user gave, or pulled by an
    /// earlier run. Nothing when an image is still to be pulled.
    ///
    /// # Errors
    /// [`PodNetworkError`] when an archive cannot be read, or two are at odds.
    pub fn at_hand(
        cache: &Cache,
        manifest: Option<&PodNetworkManifest>,
        given: &[ImageArchive],
    ) -> Result<Option<Self>, PodNetworkError> {
        let found = Found::among(cache, manifest, given)?;
        Ok(found.missing.is_empty().then_some(found.files))
    }

    /// The same, with what is missing pulled by this host.
    ///
    /// # Errors
    /// [`PodNetworkError::Pull`] for an image that no archive holds and no registry gives, and those
    /// of [`BroughtFiles::at_hand`].
    pub async fn gather(
        cache: &Cache,
        report: &dyn Report,
        manifest: Option<&PodNetworkManifest>,
        given: &[ImageArchive],
    ) -> Result<Self, PodNetworkError> {
        for (reference, place) in Found::among(cache, manifest, given)?.missing {
            let name = reference.whole();
            let pulled = registry::pull(cache, report, &name, &name).await;
            pulled.map_err(|error| match error {
                PullError::Registry(reason) => PodNetworkError::Pull(Box::new(FailedPull {
                    place,
                    reference: reference.whole(),
                    registry: reference.resolve_registry().to_owned(),
                    reason,
                    held: unheld(given),
                })),
                PullError::Cache(error) => error.into(),
            })?;
        }
        Ok(Found::among(cache, manifest, given)?.files)
    }

    /// Finds out whether a node image has what no registry could give (`present`: its images).
    ///
    /// # Errors
    /// [`PodNetworkError::Manifest`] for a name that it does not have.
    pub fn check(&self, present: &[String]) -> Result<(), PodNetworkError> {
        let named = self.manifest.iter().flat_map(|manifest| &manifest.images);
        let mut own = named.filter(|(reference, _)| self.of_node_image.contains(reference));
        let Some((absent, place)) = own.find(|(reference, _)| !present.contains(reference)) else {
            return Ok(());
        };
        Err(PodNetworkError::Manifest {
            place: place.clone(),
            reason: format!(
                "no archive is given that holds {absent}, no registry can have it, and the node \
                 image holds {}",
                present.join(", ")
            ),
        })
    }

    /// What names a layer over a node image that holds the images: 20 hexadecimal digits; nothing
    /// when there is none to import.
    pub fn layer_name(&self, node_image: &str) -> Option<String> {
        if self.archives.is_empty() {
            return None;
        }
        let mut inputs = Inputs::of("layer").with("node image", node_image);
        for archive in &self.archives {
            inputs = inputs.with("archive", &archive.sha256);
        }
        for image in &self.images {
            inputs = inputs.with(&image.reference, &image.name);
        }
        Some(inputs.name())
    }
}

/// Why an archive is of no use by itself.
const NAMELESS: &str = "names none of its images in full, so that no Pod could ask for one: `docker save -o FILE IMAGE` \
                        and `skopeo copy docker://IMAGE oci-archive:FILE:IMAGE` do";

/// What there is of a manifest's images, and what is not.
struct Found {
    files: BroughtFiles,
    missing: Vec<(Reference, Place)>,
}

impl Found {
    fn among(
        cache: &Cache,
        manifest: Option<&PodNetworkManifest>,
        given: &[ImageArchive],
    ) -> Result<Self, PodNetworkError> {
        let mut files = BroughtFiles {
            manifest: manifest.cloned(),
            images: Vec::new(),
            of_node_image: Vec::new(),
            archives: given.to_vec(),
        };
        let nobody_s = given.iter().find(|archive| archive.held.is_empty());
        if let (None, Some(archive)) = (manifest, nobody_s) {
            return Err(PodNetworkError::Archive {
                path: archive.path.clone(),
                reason: NAMELESS.to_owned(),
            });
        }
        let mut missing = Vec::new();
        for (name, place) in manifest.iter().flat_map(|manifest| &manifest.images) {
            if let Some(image) = among(&files.archives, name)? {
                files.images.push(image);
                continue;
            }
            let reference = name.parse::<Reference>();
            let reference = reference.map_err(|error| PodNetworkError::Manifest {
                place: place.clone(),
                reason: format!("{name:?} names no image: {error}"),
            })?;
            // There is no such registry (RFC 2606): it is an image of podwire's own.
            if reference.registry().ends_with(".invalid") {
                files.of_node_image.push(name.clone());
                continue;
            }
            match registry::kept(cache, name)? {
                Some(path) => {
                    files.archives.push(ImageArchive::read(&path)?);
                    files.images.extend(among(&files.archives, name)?);
                }
                None => missing.push((reference, place.clone())),
            }
        }
        for image in given.iter().flat_map(|archive| &archive.held) {
            let known = |it: &BroughtImage| it.reference == image.reference;
            if !files.images.iter().any(known) {
                files.images.extend(among(given, &image.reference)?);
            }
        }
        Ok(Self { files, missing })
    }
}

/// The image that a Pod means, when an archive has it.
fn among(
    archives: &[ImageArchive],
    reference: &str,
) -> Result<Option<BroughtImage>, PodNetworkError> {
    let held = archives.iter().flat_map(|archive| {
        let held = archive.held.iter().filter(|image| image.is(reference));
        held.map(move |image| (archive, image))
    });
    let mut found: Option<(&ImageArchive, &HeldImage)> = None;
    for (archive, image) in held {
        match found {
            Some((first, other)) if other.digest != image.digest => {
                return Err(PodNetworkError::Ambiguous {
                    reference: reference.to_owned(),
                    first: first.path.clone(),
                    second: archive.path.clone(),
                });
            }
            Some(_) => {}
            None => found = Some((archive, image)),
        }
    }
    Ok(found.map(|(_, image)| BroughtImage {
        reference: reference.to_owned(),
        digest: image.digest.clone(),
        name: image.name.clone(),
    }))
}

/// What the archives that a person gave hold instead: ends before the name of what they do not.
fn unheld(given: &[ImageArchive]) -> String {
    let each: Vec<String> = given
        .iter()
        .map(|archive| {
            let held = archive.held.iter();
            let mut held: Vec<String> = held.map(|image| image.reference.clone()).collect();
            if archive.nameless > 0 {
                held.push(format!("{} without a full name", archive.nameless));
            }
            format!("{} ({})", archive.path.display(), held.join(", "))
        })
        .collect();
    if each.is_empty() {
        return "no archive is given that holds".to_owned();
    }
    format!("{} does not hold", each.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::archive::tests::oci_archive;
    use super::*;
    use crate::cache::tests_support::Silent;
    use crate::registry::test_registry::TestRegistry;
    use crate::test_host::nobody;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::slice;
    use tempfile::TempDir;

    fn read(path: &Path) -> PodNetworkManifest {
        let terms = Terms {
            pods: ipnet::Ipv4Net::new_assert([10, 1, 0, 0].into(), 16),
            pull_policy_as_present: false,
            by_hand: true,
        };
        PodNetworkManifest::read(path, terms).unwrap()
    }

    struct Bench {
        dir: TempDir,
        cache: Cache,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let cache = Cache::at(&dir.path().join("cache")).unwrap();
            Self { dir, cache }
        }

        fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        }

        fn archive(&self, file: &str, image: &str) -> ImageArchive {
            ImageArchive::read(&self.file(file, oci_archive(image))).unwrap()
        }

        /// What it takes to run Pods of these images.
        async fn gather(
            &self,
            images: &[&str],
            archives: &[ImageArchive],
        ) -> Result<BroughtFiles, String> {
            let pods = images.iter().map(|image| {
                format!("apiVersion: v1\nkind: Pod\nspec:\n  containers: [{{image: \"{image}\"}}]\n---\n")
            });
            let path = self.file("net.yaml", pods.collect::<String>());
            let manifest = read(&path);
            let before = BroughtFiles::at_hand(&self.cache, Some(&manifest), archives);
            let gathered =
                BroughtFiles::gather(&self.cache, &Silent, Some(&manifest), archives).await;
            let gathered = gathered.map_err(|error| self.told(&error))?;
            if let Some(before) = before.unwrap() {
                assert_eq!(before, gathered);
            }
            let after = BroughtFiles::at_hand(&self.cache, Some(&manifest), archives);
            assert_eq!(after.unwrap().as_ref(), Some(&gathered));
            Ok(gathered)
        }

        fn told(&self, error: &PodNetworkError) -> String {
            let place = self.dir.path().display().to_string();
            error.to_string().replace(&place, "")
        }

        fn record(&self) -> BTreeMap<String, String> {
            let text = fs::read(self.cache.root().join(registry::RECORD)).unwrap();
            serde_json::from_slice(&text).unwrap()
        }

        fn forget_pulled(&self) {
            fs::remove_dir_all(self.cache.root().join("pulled")).unwrap();
        }
    }

    fn shown(files: &BroughtFiles) -> Vec<&str> {
        let images = files.images.iter();
        images.map(|image| image.reference.as_str()).collect()
    }

    #[tokio::test]
    async fn what_archives_hold_is_not_asked_for() {
        let bench = Bench::new();
        let agent = bench.archive("a.tar", "nowhere.invalid/agent:v1");
        let digest = agent.held[0].digest.clone();
        let other = bench.archive("b.tar", "nowhere.invalid/other:v1");
        let by_digest = format!("nowhere.invalid/agent@{digest}");
        let images = [
            "nowhere.invalid/agent:v1",
            &by_digest,
            "podwire.invalid/probe:1",
        ];
        let archives = [agent, other];
        let files = bench.gather(&images, &archives).await.unwrap();
        let (agent, other) = ("nowhere.invalid/agent:v1", "nowhere.invalid/other:v1");
        assert_eq!(shown(&files), [agent, &by_digest, other]);
        // Both become names of the one that was imported.
        let imported = files.images[..2].iter().map(|it| it.name.as_str());
        assert_eq!(
            imported.collect::<BTreeSet<_>>(),
            ["nowhere.invalid/agent:v1"].into()
        );
        // An operator may run images that only it knows of, and so may whoever is at the terminal.
        assert_eq!(files.archives, archives);

        assert_eq!(files.of_node_image, ["podwire.invalid/probe:1"]);
        files.check(&files.of_node_image).unwrap();
        let absent = files.check(&["registry.k8s.io/pause:3".to_owned()]);
        insta::assert_snapshot!(bench.told(&absent.unwrap_err()), @"/net.yaml:14: no archive is given that holds podwire.invalid/probe:1, no registry can have it, and the node image holds registry.k8s.io/pause:3");
    }

    #[tokio::test]
    async fn a_layer_is_named_by_all_that_is_in_it() {
        let bench = Bench::new();
        let agent = bench.archive("a.tar", "nowhere.invalid/agent:v1");
        let other = bench.archive("b.tar", "nowhere.invalid/other:v1");
        let asked = ["nowhere.invalid/agent:v1"];
        let name = async |asked: &[&str], archives: &[ImageArchive], image: &str| {
            let files = bench.gather(asked, archives).await.unwrap();
            files.layer_name(image)
        };
        let archives = [agent, other];
        let own = name(&asked, &archives, "image").await.unwrap();
        assert_eq!(own.len(), 20);
        assert_ne!(name(&asked, &archives, "image 2").await.unwrap(), own);
        assert_ne!(name(&asked, &archives[..1], "image").await.unwrap(), own);
        // All that is in it is there for whoever asks.
        let more = ["nowhere.invalid/agent:v1", "nowhere.invalid/other:v1"];
        assert_eq!(name(&more, &archives, "image").await.unwrap(), own);
        let by_digest = format!("nowhere.invalid/agent@{}", archives[0].held[0].digest);
        let more = [asked[0], &by_digest];
        assert_ne!(name(&more, &archives, "image").await.unwrap(), own);
        assert_eq!(name(&["podwire.invalid/probe:1"], &[], "image").await, None);
    }

    #[test]
    fn archives_are_of_use_without_a_manifest() {
        let bench = Bench::new();
        let mut agent = bench.archive("a.tar", "nowhere.invalid/agent:v1");
        let given = |archive: &ImageArchive| {
            BroughtFiles::at_hand(&bench.cache, None, slice::from_ref(archive))
        };
        let files = given(&agent).unwrap().unwrap();
        assert_eq!(shown(&files), ["nowhere.invalid/agent:v1"]);
        assert!(files.layer_name("image").is_some());
        agent.held.clear();
        insta::assert_snapshot!(bench.told(&given(&agent).unwrap_err()), @r#"the image archive "/a.tar" names none of its images in full, so that no Pod could ask for one: `docker save -o FILE IMAGE` and `skopeo copy docker://IMAGE oci-archive:FILE:IMAGE` do"#);
    }

    #[tokio::test]
    async fn two_images_of_one_name_are_refused() {
        let bench = Bench::new();
        let first = bench.archive("a.tar", "nowhere.invalid/agent:v1");
        let mut second = first.clone();
        second.path = "/b.tar".into();
        let asked = ["nowhere.invalid/agent:v1"];
        let same = bench.gather(&asked, &[first.clone(), second.clone()]).await;
        assert_eq!(shown(&same.unwrap()), asked);
        second.held[0].digest = Digest::sha256_of(b"other");
        let path = bench.file(
            "net.yaml",
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: 'nowhere.invalid/agent:v1'}]}",
        );
        let manifest = read(&path);
        let refused = BroughtFiles::at_hand(&bench.cache, Some(&manifest), &[first, second]);
        let refused = bench.told(&refused.unwrap_err());
        insta::assert_snapshot!(refused, @r#""/a.tar" and "/b.tar" hold different images named nowhere.invalid/agent:v1"#);
    }

    #[tokio::test]
    async fn an_image_is_pulled_once_and_stays_the_same() {
        let bench = Bench::new();
        let registry = TestRegistry::start();
        let name = format!("{}/org/agent:v1", registry.host);
        let digest = registry.offer("org/agent", "v1", &oci_archive(&name), &[]);
        let asked = [name.as_str()];
        let files = bench.gather(&asked, &[]).await.unwrap();
        assert_eq!(shown(&files), asked);
        assert_eq!(files.images[0].digest.to_string(), digest);
        assert_eq!(files.images[0].name, name);
        assert_eq!(bench.record(), [(name.clone(), digest.clone())].into());
        // Manifest, configuration, layer.
        assert_eq!(registry.asked().len(), 3, "{:?}", registry.asked());

        let again = bench.gather(&asked, &[]).await.unwrap();
        assert_eq!(again, files);
        assert_eq!(registry.asked().len(), 3);

        // Where the tag has moved meanwhile and the archive is gone, the recorded image comes back.
        let moved = registry.offer("org/agent", "v1", &oci_archive("other"), &[]);
        assert_ne!(moved, digest);
        bench.forget_pulled();
        let back = bench.gather(&asked, &[]).await.unwrap();
        assert_eq!(back.images, files.images);
        assert_eq!(back.archives[0].sha256, files.archives[0].sha256);
    }

    #[tokio::test]
    async fn of_an_index_the_nodes_platform_is_pulled() {
        let bench = Bench::new();
        let registry = TestRegistry::start();
        let name = format!("{}/agent:v1", registry.host);
        let image = oci_archive(&name);
        let platforms = ["linux/arm64", "linux/amd64"];
        let index = registry.offer("agent", "v1", &image, &platforms);
        let by_digest = format!("{}/agent@{index}", registry.host);
        let asked = [name.as_str(), by_digest.as_str()];
        let files = bench.gather(&asked, &[]).await.unwrap();
        assert_eq!(files.images.len(), 2);
        assert!(bench.record().values().all(|digest| *digest == index));

        registry.offer("agent", "v2", &image, &["linux/arm64", "windows/amd64"]);
        let foreign = format!("{}/agent:v2", registry.host);
        let refused = bench.gather(&[foreign.as_str()], &[]).await;
        let refused = refused.unwrap_err().replace(&registry.host, "HOST");
        insta::assert_snapshot!(refused, @"/net.yaml:4: no archive is given that holds HOST/agent:v2, and this host cannot pull it from HOST: it is there for linux/arm64, windows/amd64 only, and nodes are linux/amd64; give an archive with it: --pod-images FILE, of `docker save -o FILE HOST/agent:v2` or `skopeo copy docker://HOST/agent:v2 oci-archive:FILE:HOST/agent:v2`");
    }

    #[tokio::test]
    async fn a_registry_may_want_a_token_first() {
        let bench = Bench::new();
        let registry = TestRegistry::start();
        registry.demand_token(&format!("http://{}/token", registry.host));
        let name = format!("{}/agent:v1", registry.host);
        registry.offer("agent", "v1", &oci_archive(&name), &[]);
        let asked = [name.as_str()];
        let files = bench.gather(&asked, &[]).await.unwrap();
        assert_eq!(shown(&files), asked);
    }

    #[tokio::test]
    async fn what_cannot_be_pulled_is_told_with_what_was_given() {
        let bench = Bench::new();
        let registry = TestRegistry::start();
        let host = registry.host.clone();
        let name = format!("{host}/agent:v1");
        let refusal = async |archives: &[ImageArchive]| {
            let refused = bench.gather(&[name.as_str()], archives).await;
            refused.unwrap_err().replace(&host, "HOST")
        };
        insta::assert_snapshot!(refusal(&[]).await, @"/net.yaml:4: no archive is given that holds HOST/agent:v1, and this host cannot pull it from HOST: the registry answered 404 Not Found to manifests/v1: manifest unknown; give an archive with it: --pod-images FILE, of `docker save -o FILE HOST/agent:v1` or `skopeo copy docker://HOST/agent:v1 oci-archive:FILE:HOST/agent:v1`");
        let mut given = bench.archive("a.tar", "nowhere.invalid/agent:v1");
        given.nameless = 1;
        insta::assert_snapshot!(refusal(&[given]).await, @"/net.yaml:4: /a.tar (nowhere.invalid/agent:v1, 1 without a full name) does not hold HOST/agent:v1, and this host cannot pull it from HOST: the registry answered 404 Not Found to manifests/v1: manifest unknown; give an archive with it: --pod-images FILE, of `docker save -o FILE HOST/agent:v1` or `skopeo copy docker://HOST/agent:v1 oci-archive:FILE:HOST/agent:v1`");

        registry.offer("agent", "v1", &oci_archive(&name), &[]);
        registry.damage("agent");
        let damaged = refusal(&[]).await;
        assert!(
            damaged.contains("it is not what was published"),
            "{damaged}"
        );
        // Nothing of it is left that a later run could take for an image.
        assert!(!bench.cache.root().join(registry::RECORD).exists());
        assert!(!bench.cache.root().join("pulled").exists());
    }

    #[tokio::test]
    async fn an_unreachable_registry_is_named() {
        let bench = Bench::new();
        let (host, _port) = nobody();
        let name = format!("{host}/agent:v1");
        let refused = bench.gather(&[name.as_str()], &[]).await;
        let refused = refused.unwrap_err().replace(&host, "HOST");
        assert!(refused.starts_with("/net.yaml:4: no archive is given that holds HOST/agent:v1, and this host cannot pull it from HOST: "), "{refused}");
        assert!(refused.contains("refused"), "{refused}");
    }
}
