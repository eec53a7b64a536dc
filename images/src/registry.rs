//! Images pulled by this host (OCI distribution specification 1.1): once, with the digest recorded.

#[cfg(test)]
pub(crate) mod test_registry;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol, linux_amd64_resolver};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest, OciManifest,
};
use oci_client::secrets::RegistryAuth;
use podwire_process::Report;
use serde_json::json;

use crate::digest::Inputs;
use crate::error::causes;
use crate::{Cache, CacheError, Check, Found, Kind};

/// From the first packet to a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Silence in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// Which image a name stood for when it was pulled first: `{"quay.io/a:1": "sha256:..."}`.
pub(crate) const RECORD: &str = "pulled-images.json";
/// The archive in an image's folder.
const ARCHIVE: &str = "image.tar";
/// In the layout while it is put together.
const BLOBS: &str = "blobs/sha256";

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// The registry did not give it.
    #[error("{0}")]
    Registry(String),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<OciDistributionError> for PullError {
    fn from(error: OciDistributionError) -> Self {
        Self::Registry(causes(&error))
    }
}

/// The OCI archive with an image that was pulled before.
pub(crate) fn kept(cache: &Cache, name: &str) -> Result<Option<PathBuf>, CacheError> {
    let digests = recorded(cache)?;
    let Some(digest) = digests.get(name) else {
        return Ok(None);
    };
    let found = cache.find(Kind::Pulled, &folder(name, digest), Check::Sizes)?;
    Ok(match found {
        Found::Intact(dir) => Some(dir.join(ARCHIVE)),
        Found::Absent | Found::Damaged(_) => None,
    })
}

/// Makes an OCI archive of one image, named as Pods of this cluster name it, unless another process
/// has just done so: of what the name stands for at `from` (where it is another name of a mirror's,
/// or the same), or stood for when it was pulled first.
pub(crate) async fn pull(
    cache: &Cache,
    report: &dyn Report,
    name: &str,
    from: &str,
) -> Result<(), PullError> {
    let reference: Reference = from
        .parse()
        .map_err(|error| PullError::Registry(format!("its name is not understood: {error}")))?;
    let _lock = cache.lock("pulled-images", report)?;
    if kept(cache, name)?.is_some() {
        return Ok(());
    }
    let mut digests = recorded(cache)?;
    let known = digests.get(name).cloned();
    report.step(&format!("pulling {name}"));
    let asked = match &known {
        Some(digest) => reference.clone_with_digest(digest.clone()),
        None => reference.clone(),
    };
    let puller = Puller::new(asked, report)?;
    let (digest, manifest) = puller.manifest().await?;
    let staging = cache.staging("pulled-image")?;
    let blobs = puller.blobs(&manifest, staging.path()).await?;
    archive(staging.path(), name, &manifest, &blobs)?;
    cache.publish(Kind::Pulled, &folder(name, &digest), staging)?;
    if known.is_none() {
        digests.insert(name.to_owned(), digest);
        store(cache, &digests)?;
    }
    Ok(())
}

fn folder(name: &str, digest: &str) -> String {
    let inputs = Inputs::of("pulled image");
    inputs.with("reference", name).with("digest", digest).name()
}

fn recorded(cache: &Cache) -> Result<BTreeMap<String, String>, CacheError> {
    let path = cache.root().join(RECORD);
    match fs::read(&path) {
        // Whoever has damaged it wants to have it anew.
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(CacheError::io("read", path)(error)),
    }
}

fn store(cache: &Cache, digests: &BTreeMap<String, String>) -> Result<(), CacheError> {
    let staging = cache.staging("pulled-images")?;
    let beside = staging.path().join(RECORD);
    let text = format!("{:#}\n", json!(digests));
    fs::write(&beside, text).map_err(CacheError::io("write", &beside))?;
    let record = cache.root().join(RECORD);
    fs::rename(&beside, &record).map_err(CacheError::io("write", &record))?;
    Ok(())
}

/// An image's own manifest, as the registry gave it.
struct Fetched {
    digest: String,
    media_type: String,
    bytes: Vec<u8>,
    parsed: OciImageManifest,
}

struct Puller<'a> {
    client: Client,
    image: Reference,
    report: &'a dyn Report,
}

impl<'a> Puller<'a> {
    fn new(image: Reference, report: &'a dyn Report) -> Result<Self, PullError> {
        // The client takes whatever the process uses; that it is set already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = image.resolve_registry().to_owned();
        let protocol = if is_this_host(&registry) {
            ClientProtocol::HttpsExcept(vec![registry])
        } else {
            ClientProtocol::Https
        };
        let client = Client::try_from(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            ..ClientConfig::default()
        })?;
        Ok(Self {
            client,
            image,
            report,
        })
    }

    /// What the name stands for (a manifest's digest, or an index'), and the manifest for nodes.
    async fn manifest(&self) -> Result<(String, Fetched), PullError> {
        let (digest, bytes, manifest) = self.fetch(&self.image).await?;
        let index = match manifest {
            OciManifest::Image(parsed) => {
                return Ok((digest.clone(), Fetched::new(digest, bytes, parsed)));
            }
            OciManifest::ImageIndex(index) => index,
        };
        let Some(fitting) = linux_amd64_resolver(&index.manifests) else {
            let platforms = index
                .manifests
                .iter()
                .filter_map(|one| one.platform.as_ref());
            let platforms: Vec<String> = platforms
                .map(|one| format!("{}/{}", one.os, one.architecture))
                .collect();
            return Err(PullError::Registry(format!(
                "it is there for {} only, and nodes are linux/amd64",
                platforms.join(", ")
            )));
        };
        let (own, bytes, manifest) = self.fetch(&self.image.clone_with_digest(fitting)).await?;
        match manifest {
            OciManifest::Image(parsed) => Ok((digest, Fetched::new(own, bytes, parsed))),
            OciManifest::ImageIndex(_) => Err(PullError::Registry(
                "its index leads to another index".to_owned(),
            )),
        }
    }

    async fn fetch(&self, image: &Reference) -> Result<(String, Vec<u8>, OciManifest), PullError> {
        let accepted = [
            OCI_IMAGE_MEDIA_TYPE,
            OCI_IMAGE_INDEX_MEDIA_TYPE,
            IMAGE_MANIFEST_MEDIA_TYPE,
            IMAGE_MANIFEST_LIST_MEDIA_TYPE,
        ];
        let auth = RegistryAuth::Anonymous;
        let (bytes, digest) = self
            .client
            .pull_manifest_raw(image, &auth, &accepted)
            .await?;
        let manifest = serde_json::from_slice(&bytes);
        let manifest = manifest
            .map_err(|error| PullError::Registry(format!("{digest} is no manifest: {error}")))?;
        Ok((digest, bytes.to_vec(), manifest))
    }

    /// Configuration and layers, into files below `dir`; their digests.
    async fn blobs(&self, manifest: &Fetched, dir: &Path) -> Result<Vec<String>, PullError> {
        let folder = dir.join(BLOBS);
        fs::create_dir_all(&folder).map_err(CacheError::io("make", &folder))?;
        let parsed = &manifest.parsed;
        let blobs: Vec<&OciDescriptor> =
            [&parsed.config].into_iter().chain(&parsed.layers).collect();
        let mut pulled = Vec::new();
        for (index, blob) in blobs.iter().enumerate() {
            let Some(hex) = blob.digest.strip_prefix("sha256:") else {
                let digest = &blob.digest;
                return Err(PullError::Registry(format!("{digest} is no SHA-256")));
            };
            if pulled.iter().any(|one| one == hex) {
                continue;
            }
            let size = ByteSize(blob.size.unsigned_abs());
            let (number, all) = (index + 1, blobs.len());
            self.report
                .waiting(&format!("part {number} of {all}, {size}"));
            let path = folder.join(hex);
            let file = tokio::fs::File::create(&path).await;
            let file = file.map_err(CacheError::io("write", &path))?;
            // It compares the digest as well.
            self.client.pull_blob(&self.image, *blob, file).await?;
            pulled.push(hex.to_owned());
        }
        Ok(pulled)
    }
}

impl Fetched {
    fn new(digest: String, bytes: Vec<u8>, parsed: OciImageManifest) -> Self {
        let media_type = parsed.media_type.as_deref().unwrap_or(OCI_IMAGE_MEDIA_TYPE);
        Self {
            digest,
            media_type: media_type.to_owned(),
            bytes,
            parsed,
        }
    }
}

/// Whether a registry is a program on this host, which need not speak TLS.
fn is_this_host(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Makes an archive of the blobs in a folder, which go.
fn archive(dir: &Path, name: &str, manifest: &Fetched, blobs: &[String]) -> Result<(), CacheError> {
    let hex = manifest.digest.trim_start_matches("sha256:");
    let folder = dir.join(BLOBS);
    let own = folder.join(hex);
    fs::write(&own, &manifest.bytes).map_err(CacheError::io("write", &own))?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE,
        "manifests": [{
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": manifest.bytes.len(),
            "annotations": { "io.containerd.image.name": name },
            "platform": { "os": "linux", "architecture": "amd64" },
        }],
    });
    let path = dir.join(ARCHIVE);
    let write = || {
        let file = fs::File::create_new(&path)?;
        let mut archive = tar::Builder::new(std::io::BufWriter::new(file));
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice();
        let index = index.to_string();
        for (name, bytes) in [("oci-layout", layout), ("index.json", index.as_bytes())] {
            let mut header = header(bytes.len() as u64);
            archive.append_data(&mut header, name, bytes)?;
        }
        for hex in blobs.iter().map(String::as_str).chain([hex]) {
            let blob = fs::File::open(folder.join(hex))?;
            let mut header = header(blob.metadata()?.len());
            archive.append_data(&mut header, format!("{BLOBS}/{hex}"), blob)?;
        }
        archive.into_inner()?.into_inner()?.sync_all()?;
        fs::remove_dir_all(dir.join("blobs"))
    };
    write().map_err(CacheError::io("write", &path))
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(size);
    header
}
