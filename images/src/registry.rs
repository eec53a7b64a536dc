//! Images pulled by this host (OCI distribution specification 1.1): once, with the digest recorded.

#[cfg(test)]
pub(crate) mod test_registry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use oci_spec::distribution::Reference;
use podwire_process::Report;
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

use crate::address;
use crate::digest::{Digest, Inputs};
use crate::download::{DownloadFault, LIMITS, Wire, is_downgrade};
use crate::error::causes;
use crate::layout::{
    self, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Document, Manifest, OCI_INDEX, OCI_MANIFEST,
    PLATFORM,
};
use crate::{Cache, CacheError, Check, Found, Kind};

/// The most that a manifest or an index may have: what registries take at least, and hardly any takes
/// more (OCI distribution specification 1.1, "Pushing Manifests").
const MANIFEST_LIMIT: u64 = 4 << 20;
/// What a registry may say beside images: a token, or what is wrong.
const WORD_LIMIT: u64 = 64 << 10;
/// Which image a name stood for when it was pulled first: `{"quay.io/a:1": "sha256:..."}`.
pub(crate) const RECORD: &str = "pulled-images.json";
/// The archive in an image's folder.
const ARCHIVE: &str = "image.tar";

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// The registry did not give it.
    #[error("{0}")]
    Registry(String),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<DownloadFault> for PullError {
    fn from(fault: DownloadFault) -> Self {
        Self::Registry(fault.to_string())
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
    let refused = |reason: String| PullError::Registry(reason);
    let reference: Reference = from
        .parse()
        .map_err(|error| refused(format!("its name is not understood: {error}")))?;
    let _lock = cache.lock("pulled-images", report)?;
    if kept(cache, name)?.is_some() {
        return Ok(());
    }
    let mut digests = recorded(cache)?;
    let asked = match (digests.get(name), reference.digest()) {
        (Some(known), _) => Some(known.clone()),
        (None, Some(text)) => Some(layout::named(text).map_err(|e| refused(e.to_string()))?),
        (None, None) => None,
    };
    report.step(&format!("pulling {name}"));
    let mut puller = Puller::new(&reference, cache, report)?;
    let image = puller.image(asked.as_ref()).await?;
    let staging = cache.staging("pulled-image")?;
    puller.blobs(&image, staging.path()).await?;
    archive(staging.path(), name, &image)?;
    cache.publish(Kind::Pulled, &folder(name, &image.meant), staging)?;
    if digests.insert(name.to_owned(), image.meant).is_none() {
        store(cache, &digests)?;
    }
    Ok(())
}

fn folder(name: &str, digest: &Digest) -> String {
    let inputs = Inputs::of("pulled image");
    let inputs = inputs.with("reference", name);
    inputs.with("digest", digest.to_string()).name()
}

fn recorded(cache: &Cache) -> Result<BTreeMap<String, Digest>, CacheError> {
    let path = cache.root().join(RECORD);
    match fs::read(&path) {
        // Whoever has damaged it wants to have it anew.
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(CacheError::io("read", path)(error)),
    }
}

fn store(cache: &Cache, digests: &BTreeMap<String, Digest>) -> Result<(), CacheError> {
    let staging = cache.staging("pulled-images")?;
    let beside = staging.path().join(RECORD);
    let text = format!("{:#}\n", json!(digests));
    fs::write(&beside, text).map_err(CacheError::io("write", &beside))?;
    let record = cache.root().join(RECORD);
    fs::rename(&beside, &record).map_err(CacheError::io("write", &record))?;
    Ok(())
}

/// An image as its manifest describes it.
struct Image {
    /// What the name stands for: the manifest, or the index that leads to it.
    meant: Digest,
    /// The manifest's own.
    digest: Digest,
    media_type: &'static str,
    bytes: Vec<u8>,
    /// Its configuration and its layers, each once.
    parts: Vec<Descriptor>,
}

struct Puller<'a> {
    wire: Wire,
    /// `https://quay.io/v2/org/agent`.
    base: Url,
    image: &'a Reference,
    token: Option<String>,
    cache: &'a Cache,
    report: &'a dyn Report,
}

impl<'a> Puller<'a> {
    fn new(
        image: &'a Reference,
        cache: &'a Cache,
        report: &'a dyn Report,
    ) -> Result<Self, PullError> {
        let registry = image.resolve_registry();
        let scheme = if is_this_host(registry) {
            "http"
        } else {
            "https"
        };
        let base = format!("{scheme}://{registry}/v2/{}", image.repository());
        let base = Url::parse(&base)
            .map_err(|error| PullError::Registry(format!("{registry:?} is no host: {error}")))?;
        Ok(Self {
            wire: Wire::new(Client::builder(), LIMITS)
                .map_err(|error| PullError::Registry(causes(&error)))?,
            base,
            image,
            token: None,
            cache,
            report,
        })
    }

    /// The image for nodes that the name stands for, or a digest where one is given.
    async fn image(&mut self, asked: Option<&Digest>) -> Result<Image, PullError> {
        let named = asked.map(Digest::to_string);
        let named = named
            .as_deref()
            .or(self.image.tag())
            .unwrap_or("latest")
            .to_owned();
        let (meant, bytes, document) = self.document(&named, asked).await?;
        let index = match document {
            Document::Manifest(manifest) => {
                return Image::new(meant.clone(), meant, bytes, manifest);
            }
            Document::Index(index) => index,
        };
        let own = index.fitting().map_err(|platforms| {
            let (os, architecture) = PLATFORM;
            PullError::Registry(format!(
                "it is there for {platforms} only, and nodes are {os}/{architecture}"
            ))
        })?;
        let asked = own.digest;
        match self.document(&asked.to_string(), Some(&asked)).await? {
            (own, bytes, Document::Manifest(manifest)) => Image::new(meant, own, bytes, manifest),
            (_, _, Document::Index(_)) => Err(PullError::Registry(
                "its index leads to another index".to_owned(),
            )),
        }
    }

    /// A manifest or an index, and its digest: the one that was asked for, else its own, whatever
    /// the registry calls it.
    async fn document(
        &mut self,
        named: &str,
        asked: Option<&Digest>,
    ) -> Result<(Digest, Vec<u8>, Document), PullError> {
        let answer = self.ask(&format!("manifests/{named}")).await?;
        let bytes = self.wire.body(answer, MANIFEST_LIMIT).await?;
        let found = Digest::sha256_of(&bytes);
        if let Some(expected) = asked.filter(|asked| **asked != found) {
            let expected = expected.clone();
            return Err(DownloadFault::Digest { expected, found }.into());
        }
        let document = Document::read(&bytes)
            .map_err(|error| PullError::Registry(format!("{named} is no manifest: {error}")))?;
        Ok((found, bytes, document))
    }

    /// The image's parts, into files of a layout in `dir`.
    async fn blobs(&mut self, image: &Image, dir: &Path) -> Result<(), PullError> {
        let folder = dir.join(layout::blob(&image.digest));
        let folder = folder.parent().unwrap_or(dir);
        fs::create_dir_all(folder).map_err(CacheError::io("make", folder))?;
        let sizes = image.parts.iter().map(|part| part.size);
        let all = sizes.fold(0, u64::saturating_add);
        // All of them are there twice while the archive is made of them.
        let needed = all.saturating_mul(2);
        let available = self.cache.disk()?.available;
        if needed > available {
            let (needed, available) = (ByteSize(needed), ByteSize(available));
            return Err(DownloadFault::DiskFull { needed, available }.into());
        }
        for (index, part) in image.parts.iter().enumerate() {
            let (number, all) = (index + 1, image.parts.len());
            self.report
                .waiting(&format!("part {number} of {all}, {}", ByteSize(part.size)));
            self.blob(part, &dir.join(part.blob())).await?;
        }
        Ok(())
    }

    async fn blob(&mut self, part: &Descriptor, path: &Path) -> Result<(), PullError> {
        let Descriptor { digest, size, .. } = part;
        let mut answer = self.ask(&format!("blobs/{digest}")).await?;
        let mut file = fs::File::create_new(path).map_err(CacheError::io("write", path))?;
        let mut hash = digest.hasher();
        let mut come = 0;
        while let Some(chunk) = self.wire.chunk(&mut answer, come).await? {
            come += chunk.len() as u64;
            if come > *size {
                return Err(PullError::Registry(format!(
                    "{digest} is larger than the {} that its manifest says",
                    ByteSize(*size)
                )));
            }
            hash.update(&chunk);
            file.write_all(&chunk)
                .map_err(CacheError::io("write", path))?;
        }
        if come < *size {
            return Err(PullError::Registry(format!(
                "{digest} has {come} bytes, and its manifest says {size}"
            )));
        }
        let (expected, found) = (digest.clone(), hash.finish());
        match expected == found {
            true => Ok(()),
            false => Err(DownloadFault::Digest { expected, found }.into()),
        }
    }

    /// What the registry has at a path below the image's name; with a token, where it wants one.
    async fn ask(&mut self, path: &str) -> Result<Response, PullError> {
        let mut answer = self.get(path).await?;
        // It wants one, or the one that there was has run out meanwhile.
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.token = Some(self.token(&answer).await?);
            answer = self.get(path).await?;
        }
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let said = self.wire.body(answer, WORD_LIMIT).await.unwrap_or_default();
        Err(PullError::Registry(match complaint(&said) {
            Some(said) => format!("the registry answered {status} to {path}: {said}"),
            None => format!("the registry answered {status} to {path}"),
        }))
    }

    async fn get(&self, path: &str) -> Result<Response, DownloadFault> {
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let request = self.wire.get(format!("{}/{path}", self.base));
        let mut request = request.header(ACCEPT, accepted);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        self.wire.sent(request, 0).await
    }

    /// A token for everybody, of whom the registry says that he gives them.
    async fn token(&self, answer: &Response) -> Result<String, PullError> {
        // By one of its names, or by both ("Token Authentication Specification" of the distribution project).
        #[derive(Deserialize)]
        struct Given {
            token: Option<String>,
            access_token: Option<String>,
        }
        let closed = |reason: &str| {
            PullError::Registry(format!("the registry is not open to everybody: {reason}"))
        };
        let header = answer.headers().get(WWW_AUTHENTICATE);
        let header = header
            .and_then(|header| header.to_str().ok())
            .unwrap_or_default();
        let challenges = http_auth::parse_challenges(header).unwrap_or_default();
        let bearer = challenges
            .iter()
            .find(|it| it.scheme.eq_ignore_ascii_case("bearer"));
        let bearer = bearer.ok_or_else(|| closed("it gives no tokens"))?;
        let parameter = |name: &str| {
            let mut all = bearer.params.iter();
            let found = all.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
        let mut realm = realm.ok_or_else(|| closed("it names nobody who gives tokens"))?;
        if is_downgrade(&self.base, &realm) {
            return Err(DownloadFault::RedirectDown(address::shown(&realm)).into());
        }
        let scope = format!("repository:{}:pull", self.image.repository());
        realm.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = parameter("service") {
            realm.query_pairs_mut().append_pair("service", &service);
        }
        let answer = self.wire.sent(self.wire.get(realm), 0).await?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(closed(&format!(
                "a token was asked for, and the answer is {status}"
            )));
        }
        let said = self.wire.body(answer, WORD_LIMIT).await?;
        let given = serde_json::from_slice::<Given>(&said).ok();
        given
            .and_then(|given| given.token.or(given.access_token))
            .ok_or_else(|| closed("what it gave is no token"))
    }
}

/// What a registry says in its answer (OCI distribution specification 1.1, error codes).
fn complaint(said: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let said: Said = serde_json::from_slice(said).ok()?;
    let first = said.errors.into_iter().next()?;
    let text = if first.message.is_empty() {
        first.code
    } else {
        first.message
    };
    // It goes to a terminal.
    let text: String = text
        .chars()
        .take(300)
        .flat_map(char::escape_debug)
        .collect();
    (!text.is_empty()).then_some(text)
}

impl Image {
    fn new(
        meant: Digest,
        digest: Digest,
        bytes: Vec<u8>,
        manifest: Manifest,
    ) -> Result<Self, PullError> {
        let media_type = match manifest.media_type.as_deref() {
            None | Some(OCI_MANIFEST) => OCI_MANIFEST,
            Some(DOCKER_MANIFEST) => DOCKER_MANIFEST,
            Some(other) => {
                let reason = format!("{digest} is no manifest of an image, but {other:?}");
                return Err(PullError::Registry(reason));
            }
        };
        let mut parts: Vec<Descriptor> = Vec::new();
        for part in [manifest.config].into_iter().chain(manifest.layers) {
            match parts.iter().find(|other| other.digest == part.digest) {
                Some(other) if other.size != part.size => {
                    let (one, other) = (part.size, other.size);
                    let reason = format!("{} has both {other} and {one} bytes", part.digest);
                    return Err(PullError::Registry(reason));
                }
                Some(_) => {}
                None => parts.push(part),
            }
        }
        Ok(Self {
            meant,
            digest,
            media_type,
            bytes,
            parts,
        })
    }
}

/// Whether a registry is a program on this host, which need not speak TLS.
fn is_this_host(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Makes an archive of the layout in a folder, whose blobs go.
fn archive(dir: &Path, name: &str, image: &Image) -> Result<(), CacheError> {
    let own = layout::blob(&image.digest);
    let written = dir.join(&own);
    fs::write(&written, &image.bytes).map_err(CacheError::io("write", written))?;
    let (os, architecture) = PLATFORM;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": image.bytes.len(),
            "annotations": { "io.containerd.image.name": name },
            "platform": { "os": os, "architecture": architecture },
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
        for blob in image.parts.iter().map(Descriptor::blob).chain([own]) {
            let file = fs::File::open(dir.join(&blob))?;
            let mut header = header(file.metadata()?.len());
            archive.append_data(&mut header, blob, file)?;
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
