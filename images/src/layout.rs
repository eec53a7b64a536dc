//! OCI image format 1.1, as far as it is read: image-index.md, manifest.md, descriptor.md.

use std::collections::BTreeMap;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::digest::Digest;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's names for the same (image manifest version 2, schema 2).
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Nodes are machines of this kind.
pub(crate) const PLATFORM: (&str, &str) = ("linux", "amd64");

/// One image for several platforms, or the images of an archive.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// One image for one platform.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What leads to a part of an image. Other addresses that it names (`urls`) are nothing to follow.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(deserialize_with = "digest")]
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
}

/// What a registry gives for a name.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// No digest by which parts of images are found here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no SHA-256 as images write it, and nodes find their parts by no other digest")]
pub(crate) struct NotNamed(String);

/// The digest that names an image or a part of one: `sha256:` and 64 lower-case digits. containerd
/// keeps what it imports by that, whatever an archive says.
///
/// # Errors
/// [`NotNamed`] for everything else, a SHA-512 too.
pub(crate) fn named(text: &str) -> Result<Digest, NotNamed> {
    let digest = text.parse::<Digest>().ok();
    let digest = digest.filter(|digest| text.starts_with("sha256:") && digest.to_string() == text);
    digest.ok_or_else(|| NotNamed(text.chars().take(200).collect()))
}

fn digest<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
    named(&String::deserialize(from)?).map_err(D::Error::custom)
}

impl Document {
    /// # Errors
    /// Why it is neither an index nor a manifest.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Fields {
            manifests: Option<IgnoredAny>,
            config: Option<IgnoredAny>,
            layers: Option<IgnoredAny>,
        }
        let fields: Fields = serde_json::from_slice(bytes)?;
        match (fields.manifests, fields.config.or(fields.layers)) {
            // Else it would be one thing here and another on a node (CVE-2021-41190).
            (Some(_), Some(_)) => Err(serde_json::Error::custom(
                "it is both an index and an image",
            )),
            (Some(_), None) => serde_json::from_slice(bytes).map(Self::Index),
            (None, _) => serde_json::from_slice(bytes).map(Self::Manifest),
        }
    }
}

impl Index {
    /// The image for nodes.
    ///
    /// # Errors
    /// The platforms that there are instead: `linux/arm64, windows/amd64`.
    pub(crate) fn fitting(self) -> Result<Descriptor, String> {
        let platforms = self
            .manifests
            .iter()
            .filter_map(|one| one.platform.as_ref());
        let mut platforms: Vec<String> = platforms.map(Platform::shown).collect();
        platforms.sort_unstable();
        platforms.dedup();
        let mut fitting = self.manifests.into_iter().filter(|one| {
            let platform = one.platform.as_ref();
            platform.is_some_and(Platform::fits)
        });
        fitting.next().ok_or_else(|| platforms.join(", "))
    }
}

impl Descriptor {
    pub(crate) fn is_index(&self) -> bool {
        self.media_type == OCI_INDEX || self.media_type == DOCKER_INDEX
    }

    /// Its place in an image layout (image-layout.md).
    pub(crate) fn blob(&self) -> String {
        blob(&self.digest)
    }

    /// The name that an import gives: the first annotation as it is, the other one where it is more
    /// than a tag (containerd's `ctr images import` without `--base-name`).
    pub(crate) fn name(&self) -> Option<&str> {
        let named = self.annotations.get("io.containerd.image.name");
        let tagged = || {
            let name = self.annotations.get("org.opencontainers.image.ref.name")?;
            name.contains(['/', ':', '@']).then_some(name)
        };
        named.or_else(tagged).map(String::as_str)
    }
}

/// Where an image layout has what a digest names.
pub(crate) fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

impl Platform {
    pub(crate) fn fits(&self) -> bool {
        (self.os.as_str(), self.architecture.as_str()) == PLATFORM
    }

    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_part_is_never_outside_of_a_layout(text in r"(sha256:|sha512:|)([./a-fA-F0-9:\\]{0,130}|[0-9a-f]{64}|[0-9a-f]{128})") {
            if let Ok(digest) = named(&text) {
                prop_assert_eq!(blob(&digest), format!("blobs/sha256/{}", &text[7..]));
                prop_assert!(text.len() == 71 && text[7..].bytes().all(|it| it.is_ascii_hexdigit()));
            }
        }
    }
}
