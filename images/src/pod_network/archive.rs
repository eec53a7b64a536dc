//! Archives of container images: which ones they hold, without unpacking anything.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use oci_spec::distribution::Reference;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::PodNetworkError;
use super::manifest::full_name;
use crate::digest::{Digest, sha256_file};
use crate::layout::{Descriptor, Index, Manifest, PLATFORM, Platform};

/// Descriptions of images take a few kilobytes; whatever is larger is none.
const LARGEST_JSON: u64 = 16 << 20;

/// An archive that containerd can import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageArchive {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its images that have a name.
    pub held: Vec<HeldImage>,
    /// How many of its images have no name by which a Pod could ask for them.
    pub nameless: usize,
}

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldImage {
    /// The name that it has after the import.
    pub name: String,
    /// Its name in full, as a node's containerd looks for it.
    pub reference: String,
    /// Of the manifest or index that the name stands for, or of the configuration in an archive of
    /// `docker save`.
    pub digest: Digest,
}

impl HeldImage {
    /// Whether a Pod that names `wanted`, in full, means this image.
    pub(super) fn is(&self, wanted: &str) -> bool {
        self.reference == wanted
            || wanted
                .split_once('@')
                .is_some_and(|(_, digest)| digest == self.digest.to_string())
    }
}

/// An element of docker save's manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl ImageArchive {
    /// Looks into an archive: an OCI image layout in a tar file, or what `docker save` writes.
    ///
    /// # Errors
    /// [`PodNetworkError::File`]; [`PodNetworkError::Archive`] for what is no such archive, is cut
    /// short, or has images that are not whole or not for the nodes.
    pub fn read(path: &Path) -> Result<Self, PodNetworkError> {
        let metadata = fs::metadata(path).map_err(PodNetworkError::file("read", path))?;
        if !metadata.is_file() {
            return Err(PodNetworkError::Archive {
                path: path.to_owned(),
                reason: "is no regular file, and an archive is read more than once: save it to a file first \
                         (`docker save -o FILE IMAGE`)"
                    .to_owned(),
            });
        }
        let sha256 = sha256_file(path).map_err(PodNetworkError::file("read", path))?;
        let mut files = Files::of(path)?;
        let (held, nameless) = if files.entries.contains_key("oci-layout") {
            files.oci()?
        } else if files.entries.contains_key("manifest.json") {
            files.docker()?
        } else {
            return Err(files.refused(
                "holds neither an OCI image layout (oci-layout, index.json) nor docker save's manifest.json",
            ));
        };
        Ok(Self {
            path: path.to_owned(),
            sha256,
            held,
            nameless,
        })
    }

    /// Finds out whether the images that a node image has (`present`: their names) stay what they are.
    ///
    /// # Errors
    /// [`PodNetworkError::Archive`] for one with an image of such a name.
    pub fn replaces_none(&self, present: &[String]) -> Result<(), PodNetworkError> {
        let mut held = self.held.iter();
        let Some(image) = held.find(|image| present.contains(&image.reference)) else {
            return Ok(());
        };
        Err(PodNetworkError::Archive {
            path: self.path.clone(),
            reason: format!(
                "holds {}, which nodes have already: it would run in its place, and nothing would say so; a \
                 component of your own is --replace COMPONENT=PATH or --bundle-from DIR, and other images need \
                 another name",
                image.reference
            ),
        })
    }
}

/// The files of a tar archive, by their path: where each begins, and its size.
struct Files<'a> {
    path: &'a Path,
    file: File,
    entries: BTreeMap<String, (u64, u64)>,
}

impl<'a> Files<'a> {
    fn of(path: &'a Path) -> Result<Self, PodNetworkError> {
        let read = |error| PodNetworkError::file("read", path)(error);
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut files = Self {
            path,
            file: file.try_clone().map_err(read)?,
            entries: BTreeMap::new(),
        };
        let mut head = Vec::new();
        (&file).take(6).read_to_end(&mut head).map_err(read)?;
        if let Some(unpack) = unpacker(&head) {
            return Err(files.refused(format!("is compressed: unpack it first ({unpack})")));
        }
        file.rewind().map_err(read)?;
        // Its words quote the bytes that it stumbled over.
        let broken = |_: io::Error| files.refused("is no tar archive, or is damaged");
        let mut entries = BTreeMap::new();
        let mut end = 0;
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            // Its size is no measure of what is in the file, and no image has one.
            if entry.header().entry_type().is_gnu_sparse() {
                return Err(files.refused("holds a sparse file, which no archive of images does"));
            }
            let name = entry.path().map_err(broken)?;
            let name = name.to_string_lossy();
            let name = name.trim_start_matches("./").to_owned();
            let (begin, size) = (entry.raw_file_position(), entry.size());
            end = begin.saturating_add(size);
            entries.insert(name, (begin, size));
        }
        if end > length {
            return Err(files.refused(format!("is cut short: it ends after {length} bytes")));
        }
        files.entries = entries;
        Ok(files)
    }

    fn refused(&self, reason: impl Into<String>) -> PodNetworkError {
        PodNetworkError::Archive {
            path: self.path.to_owned(),
            reason: reason.into(),
        }
    }

    fn require(&self, name: &str, what: &str) -> Result<(), PodNetworkError> {
        if self.entries.contains_key(name) {
            return Ok(());
        }
        Err(self.refused(format!("lacks {name}, which is {what}")))
    }

    fn bytes(&mut self, name: &str, what: &str) -> Result<Vec<u8>, PodNetworkError> {
        self.require(name, what)?;
        let (begin, size) = self.entries[name];
        if size > LARGEST_JSON {
            return Err(self.refused(format!(
                "has {size} bytes of {name}, which should be {what}"
            )));
        }
        let mut bytes = Vec::new();
        let read = self
            .file
            .seek(SeekFrom::Start(begin))
            .and_then(|_| (&self.file).take(size).read_to_end(&mut bytes));
        read.map_err(PodNetworkError::file("read", self.path))?;
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(
        &self,
        bytes: &[u8],
        name: &str,
        what: &str,
    ) -> Result<T, PodNetworkError> {
        serde_json::from_slice(bytes).map_err(|error| {
            self.refused(format!(
                "is damaged: {name}, {what}, is not understood: {error}"
            ))
        })
    }

    /// What a descriptor leads to, and nothing else.
    fn described(
        &mut self,
        descriptor: &Descriptor,
        what: &str,
    ) -> Result<Vec<u8>, PodNetworkError> {
        let name = descriptor.blob();
        let bytes = self.bytes(&name, what)?;
        let found = Digest::sha256_of(&bytes);
        if found == descriptor.digest {
            return Ok(bytes);
        }
        Err(self.refused(format!(
            "is damaged: {name}, {what}, has the digest {found}"
        )))
    }

    fn oci(&mut self) -> Result<(Vec<HeldImage>, usize), PodNetworkError> {
        let what = "the layout's index";
        let index = self.bytes("index.json", what)?;
        let index: Index = self.json(&index, "index.json", what)?;
        let (mut held, mut nameless) = (Vec::new(), 0);
        for descriptor in index.manifests {
            let parsed = descriptor.name().and_then(|name| {
                let reference = name.parse::<Reference>().ok()?;
                Some((name.to_owned(), full_name(reference)))
            });
            let Some((name, reference)) = parsed else {
                nameless += 1;
                continue;
            };
            self.whole(&name, &descriptor)?;
            held.push(HeldImage {
                name,
                reference,
                digest: descriptor.digest,
            });
        }
        Ok((held, nameless))
    }

    /// Finds out whether everything that a node needs of an image is there.
    fn whole(&mut self, name: &str, descriptor: &Descriptor) -> Result<(), PodNetworkError> {
        if !descriptor.is_index() {
            return self.complete(name, descriptor);
        }
        let what = format!("the index of {name}");
        let index = self.described(descriptor, &what)?;
        let index: Index = self.json(&index, &descriptor.blob(), &what)?;
        let fitting = index.fitting();
        let fitting = fitting.map_err(|platforms| self.for_others(name, &platforms))?;
        if fitting.is_index() {
            let blob = fitting.blob();
            return Err(self.refused(format!("has {what}, which leads to another index, {blob}")));
        }
        self.complete(name, &fitting)
    }

    /// The same of an image for one platform.
    fn complete(&mut self, name: &str, descriptor: &Descriptor) -> Result<(), PodNetworkError> {
        let what = format!("the manifest of {name}");
        let manifest = self.described(descriptor, &what)?;
        let manifest: Manifest = self.json(&manifest, &descriptor.blob(), &what)?;
        for layer in &manifest.layers {
            self.require(&layer.blob(), &format!("a layer of {name}"))?;
        }
        let what = format!("the configuration of {name}");
        let config = self.described(&manifest.config, &what)?;
        self.fits(name, &config)
    }

    fn docker(&mut self) -> Result<(Vec<HeldImage>, usize), PodNetworkError> {
        let what = "the list of images";
        let saved = self.bytes("manifest.json", what)?;
        let saved: Vec<Saved> = self.json(&saved, "manifest.json", what)?;
        let (mut held, mut nameless) = (Vec::new(), 0);
        for image in saved {
            let names = image.repo_tags.unwrap_or_default();
            if names.is_empty() {
                nameless += 1;
                continue;
            }
            let shown = names.join(" and ");
            for layer in &image.layers {
                self.require(layer, &format!("a layer of {shown}"))?;
            }
            let config = self.bytes(&image.config, &format!("the configuration of {shown}"))?;
            self.fits(&shown, &config)?;
            for name in names {
                let reference: Reference = name.parse().map_err(|error| {
                    self.refused(format!("has {name:?}, which is no image's name: {error}"))
                })?;
                let reference = full_name(reference);
                held.push(HeldImage {
                    // containerd completes the names of such archives.
                    name: reference.clone(),
                    reference,
                    digest: Digest::sha256_of(&config),
                });
            }
        }
        Ok((held, nameless))
    }

    fn fits(&self, name: &str, config: &[u8]) -> Result<(), PodNetworkError> {
        match serde_json::from_slice::<Platform>(config) {
            Ok(platform) if platform.fits() => Ok(()),
            Ok(other) => Err(self.for_others(name, &other.shown())),
            Err(error) => Err(self.refused(format!("has no configuration for {name}: {error}"))),
        }
    }

    fn for_others(&self, name: &str, platforms: &str) -> PodNetworkError {
        let (os, architecture) = PLATFORM;
        self.refused(format!(
            "holds {name} for {platforms}, and nodes are {os}/{architecture}"
        ))
    }
}

/// What undoes the compression that a file begins with.
fn unpacker(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1f, 0x8b, ..] => Some("gunzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("unzstd"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Some("unxz"),
        [b'B', b'Z', b'h', ..] => Some("bunzip2"),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::digest::sha256;
    use crate::layout;
    use crate::oci::{OciFile, OciImage, Program};
    use serde_json::{Value, json};
    use std::os::fd::AsRawFd as _;
    use tempfile::TempDir;

    /// An image with one program.
    pub(in crate::pod_network) fn oci_archive(name: &str) -> Vec<u8> {
        let image = OciImage {
            reference: name.to_owned(),
            files: vec![OciFile {
                path: "/probe".into(),
                program: Program::Probe,
                capability: None,
            }],
            debian: false,
            entrypoint: vec!["/probe"],
            user: None,
        };
        image
            .archive(&[], |_| Ok(name.as_bytes().to_vec()))
            .unwrap()
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            files.insert(name, bytes);
        }
        files
    }

    fn packed(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let bytes = bytes.as_slice();
            builder.append_data(&mut header, name, bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn look(bytes: &[u8]) -> Result<ImageArchive, String> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.tar");
        fs::write(&path, bytes).unwrap();
        ImageArchive::read(&path).map_err(|error| {
            let place = dir.path().display().to_string();
            error.to_string().replace(&place, "")
        })
    }

    /// An OCI archive after a change to one of its JSON files.
    fn altered(file: &str, alter: impl Fn(&mut Value)) -> Vec<u8> {
        let mut files = entries(&oci_archive("quay.io/org/agent:v1"));
        let mut json: Value = serde_json::from_slice(&files[file]).unwrap();
        alter(&mut json);
        files.insert(file.to_owned(), json.to_string().into_bytes());
        packed(&files)
    }

    fn with_annotations(annotations: &Value) -> Vec<u8> {
        altered("index.json", |index| {
            index["manifests"][0]["annotations"] = annotations.clone();
        })
    }

    fn names(archive: &ImageArchive) -> Vec<String> {
        let held = archive.held.iter();
        held.map(|it| format!("{} = {}", it.name, it.reference))
            .collect()
    }

    #[test]
    fn an_oci_archive_tells_its_images() {
        let bytes = oci_archive("quay.io/org/agent:v1");
        let archive = look(&bytes).unwrap();
        assert_eq!(
            names(&archive),
            ["quay.io/org/agent:v1 = quay.io/org/agent:v1"]
        );
        assert_eq!(archive.sha256, sha256(&bytes));
        let index: Value = serde_json::from_slice(&entries(&bytes)["index.json"]).unwrap();
        let digest = archive.held[0].digest.to_string();
        assert_eq!(index["manifests"][0]["digest"], digest);
        assert_eq!(archive.nameless, 0);
    }

    #[test]
    fn names_are_read_as_an_import_gives_them() {
        let named = |annotations: Value| {
            let archive = look(&with_annotations(&annotations)).unwrap();
            (names(&archive).join(" "), archive.nameless)
        };
        let short = json!({ "io.containerd.image.name": "busybox:1" });
        assert_eq!(
            named(short),
            ("busybox:1 = docker.io/library/busybox:1".to_owned(), 0)
        );
        let other = json!({ "org.opencontainers.image.ref.name": "org/a:1" });
        assert_eq!(named(other), ("org/a:1 = docker.io/org/a:1".to_owned(), 0));
        let tag = json!({ "org.opencontainers.image.ref.name": "v1" });
        assert_eq!(named(tag), (String::new(), 1));
        assert_eq!(named(json!({})), (String::new(), 1));
    }

    #[test]
    fn an_image_is_meant_by_its_name_or_its_digest() {
        let archive = look(&oci_archive("quay.io/org/agent:v1")).unwrap();
        let held = &archive.held[0];
        assert!(held.is("quay.io/org/agent:v1"));
        assert!(held.is(&format!("quay.io/org/agent@{}", held.digest)));
        assert!(!held.is("quay.io/org/agent:v2"));
        assert!(!held.is(&format!("quay.io/org/agent@sha256:{}", "0".repeat(64))));
    }

    #[test]
    fn an_archive_replaces_no_image_that_nodes_have() {
        let present = ["registry.k8s.io/kube-proxy:v1.36.4".to_owned()];
        let of = |name: &str| {
            let mut archive = look(&oci_archive(name)).unwrap();
            archive.path = "/a.tar".into();
            let checked = archive.replaces_none(&present);
            checked.map_err(|error| error.to_string())
        };
        insta::assert_snapshot!(of(&present[0]).unwrap_err(), @r#"the image archive "/a.tar" holds registry.k8s.io/kube-proxy:v1.36.4, which nodes have already: it would run in its place, and nothing would say so; a component of your own is --replace COMPONENT=PATH or --bundle-from DIR, and other images need another name"#);
        assert_eq!(of("registry.k8s.io/kube-proxy:v1.36.5"), Ok(()));
        assert_eq!(of("quay.io/org/agent:v1"), Ok(()));
    }

    #[test]
    fn what_docker_saved_tells_its_images() {
        let config = json!({ "os": "linux", "architecture": "amd64" }).to_string();
        let list = json!([
            { "Config": "c.json", "RepoTags": ["busybox:1", "quay.io/b:2"], "Layers": ["l/layer.tar"] },
            { "Config": "c.json", "RepoTags": null, "Layers": [] },
        ]);
        let mut files: BTreeMap<String, Vec<u8>> = [
            ("c.json", config.clone().into_bytes()),
            ("l/layer.tar", b"layer".to_vec()),
            ("manifest.json", list.to_string().into_bytes()),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into();
        let archive = look(&packed(&files)).unwrap();
        assert_eq!(
            names(&archive),
            [
                "docker.io/library/busybox:1 = docker.io/library/busybox:1",
                "quay.io/b:2 = quay.io/b:2"
            ]
        );
        assert_eq!(archive.nameless, 1);
        assert_eq!(archive.held[0].digest, Digest::sha256_of(config.as_bytes()));

        files.remove("l/layer.tar");
        insta::assert_snapshot!(look(&packed(&files)).unwrap_err(), @r#"the image archive "/a.tar" lacks l/layer.tar, which is a layer of busybox:1 and quay.io/b:2"#);
    }

    #[test]
    fn an_index_is_followed_to_what_nodes_run() {
        let mut files = entries(&oci_archive("quay.io/org/agent:v1"));
        let mut index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let image = index["manifests"][0].clone();
        let mut with_platforms = |files: &mut BTreeMap<String, Vec<u8>>, platforms: &[&str]| {
            let manifests = platforms.iter().map(|architecture| {
                let mut one = image.clone();
                one["platform"] = json!({ "os": "linux", "architecture": architecture });
                if *architecture != "amd64" {
                    // Archives of one platform keep the index that names all of them.
                    one["digest"] = format!("sha256:{}", "0".repeat(64)).into();
                }
                one
            });
            let inner = json!({ "manifests": manifests.collect::<Vec<_>>() }).to_string();
            let digest = sha256(inner.as_bytes());
            files.insert(format!("blobs/sha256/{digest}"), inner.into_bytes());
            let outer = &mut index["manifests"][0];
            outer["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
            outer["digest"] = format!("sha256:{digest}").into();
            files.insert("index.json".into(), index.to_string().into_bytes());
            packed(files)
        };
        let both = with_platforms(&mut files, &["arm64", "amd64"]);
        assert_eq!(names(&look(&both).unwrap()).len(), 1);
        let foreign = with_platforms(&mut files, &["arm64", "s390x"]);
        insta::assert_snapshot!(look(&foreign).unwrap_err(), @r#"the image archive "/a.tar" holds quay.io/org/agent:v1 for linux/arm64, linux/s390x, and nodes are linux/amd64"#);
    }

    #[test]
    fn what_no_node_could_run_is_refused() {
        let whole = oci_archive("quay.io/org/agent:v1");
        let files = entries(&whole);
        let archive = look(&whole).unwrap();
        let manifest = layout::blob(&archive.held[0].digest);
        let json: Value = serde_json::from_slice(&files[&manifest]).unwrap();
        let blob = |digest: &Value| {
            let digest = digest.as_str().unwrap();
            format!("blobs/{}", digest.replace(':', "/"))
        };
        let without = |name: &str| {
            let mut files = files.clone();
            files.remove(name).unwrap();
            let error = look(&packed(&files)).unwrap_err();
            error.replace(name, "BLOB")
        };
        insta::assert_snapshot!(without(&blob(&json["layers"][0]["digest"])), @r#"the image archive "/a.tar" lacks BLOB, which is a layer of quay.io/org/agent:v1"#);
        insta::assert_snapshot!(without(&blob(&json["config"]["digest"])), @r#"the image archive "/a.tar" lacks BLOB, which is the configuration of quay.io/org/agent:v1"#);
        insta::assert_snapshot!(without(&manifest), @r#"the image archive "/a.tar" lacks BLOB, which is the manifest of quay.io/org/agent:v1"#);
        insta::assert_snapshot!(without("index.json"), @r#"the image archive "/a.tar" lacks BLOB, which is the layout's index"#);
        let config = blob(&json["config"]["digest"]);
        let other = altered(&config, |config| config["architecture"] = "arm64".into());
        let told = look(&other).unwrap_err().replace(&config, "BLOB");
        let digest = Digest::sha256_of(&entries(&other)[&config]).to_string();
        insta::assert_snapshot!(told.replace(&digest, "OTHER"), @r#"the image archive "/a.tar" is damaged: BLOB, the configuration of quay.io/org/agent:v1, has the digest OTHER"#);
        // Where each digest up to the index says so too.
        let mut foreign = entries(&other);
        for (from, to) in [
            (config, manifest.clone()),
            (manifest, "index.json".to_owned()),
        ] {
            let bytes = foreign.remove(&from).unwrap();
            let digest = Digest::sha256_of(&bytes);
            foreign.insert(layout::blob(&digest), bytes);
            let text = String::from_utf8_lossy(&foreign[&to]);
            let named = from.replacen("blobs/sha256/", "sha256:", 1);
            let text = text.replace(&named, &digest.to_string());
            foreign.insert(to, text.into_bytes());
        }
        insta::assert_snapshot!(look(&packed(&foreign)).unwrap_err(), @r#"the image archive "/a.tar" holds quay.io/org/agent:v1 for linux/arm64, and nodes are linux/amd64"#);
        insta::assert_snapshot!(look(&altered("index.json", |index| *index = json!([]))).unwrap_err(), @r#"the image archive "/a.tar" is damaged: index.json, the layout's index, is not understood: invalid length 0, expected struct Index with 1 element at line 1 column 2"#);
    }

    /// The archive with an index in the place of its image's manifest, which leads to `entry` of it.
    fn below_an_index(index: &Value) -> Vec<u8> {
        let mut files = entries(&oci_archive("quay.io/org/agent:v1"));
        let index = index.to_string();
        let digest = Digest::sha256_of(index.as_bytes());
        files.insert(layout::blob(&digest), index.into_bytes());
        let mut outer: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        outer["manifests"][0]["mediaType"] = layout::OCI_INDEX.into();
        outer["manifests"][0]["digest"] = digest.to_string().into();
        files.insert("index.json".into(), outer.to_string().into_bytes());
        packed(&files)
    }

    #[test]
    fn an_index_leads_to_an_image_and_not_on() {
        let platform = json!({ "os": "linux", "architecture": "amd64" });
        let entry = |digest: &str| {
            let entry = json!({ "mediaType": layout::OCI_INDEX, "digest": digest, "size": 1, "platform": platform });
            below_an_index(&json!({ "manifests": [entry] }))
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        insta::assert_snapshot!(look(&entry(&digest)).unwrap_err(), @r#"the image archive "/a.tar" has the index of quay.io/org/agent:v1, which leads to another index, blobs/sha256/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"#);
        // What names itself would be followed for ever; no digest can do that.
        insta::assert_snapshot!(look(&entry("sha256:aa")).unwrap_err(), @r#"the image archive "/a.tar" is damaged: blobs/sha256/3b9cbad6110adfd269239cb3698878223b063a0de019549703de83e31b201fdb, the index of quay.io/org/agent:v1, is not understood: "sha256:aa" is no SHA-256 as images write it, and nodes find their parts by no other digest at line 1 column 35"#);
        let own = altered("index.json", |index| {
            let mut own = index["manifests"][0].clone();
            own["mediaType"] = layout::OCI_INDEX.into();
            index["manifests"] = json!([own]);
        });
        let mut files = entries(&own);
        let digest = look(&oci_archive("quay.io/org/agent:v1")).unwrap().held[0]
            .digest
            .clone();
        files.insert(layout::blob(&digest), files["index.json"].clone());
        insta::assert_snapshot!(look(&packed(&files)).unwrap_err().replace(&sha256(&files["index.json"]), "OTHER"), @r#"the image archive "/a.tar" is damaged: blobs/sha256/3d2c37c2b324a830c0e964c021679bec8b36ce11d43b038bdef40ff19aa43b60, the index of quay.io/org/agent:v1, has the digest sha256:OTHER"#);
    }

    #[test]
    fn sizes_in_a_tar_archive_are_not_believed() {
        let member = |kind: tar::EntryType, alter: &dyn Fn(&mut tar::GnuHeader)| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_path("oci-layout").unwrap();
            header.set_mode(0o644);
            header.set_size(0);
            alter(header.as_gnu_mut().unwrap());
            header.set_cksum();
            let mut archive = header.as_bytes().to_vec();
            archive.extend([0; 1024]);
            look(&archive).unwrap_err()
        };
        // Binary, as GNU tar writes what octal digits cannot say.
        let big = |field: &mut [u8; 12], value: u64| {
            *field = [0; 12];
            field[0] = 0x80;
            field[4..].copy_from_slice(&value.to_be_bytes());
        };
        let immense = u64::MAX - 511;
        let sparse = member(tar::EntryType::GNUSparse, &|header| {
            big(&mut header.sparse[0].offset, immense);
            big(&mut header.sparse[0].numbytes, 0);
            big(&mut header.realsize, immense);
        });
        insta::assert_snapshot!(sparse, @r#"the image archive "/a.tar" holds a sparse file, which no archive of images does"#);
        for size in [immense, u64::MAX, u64::MAX / 2, 1 << 62] {
            let told = member(tar::EntryType::Regular, &|header| {
                big(&mut header.size, size)
            });
            assert!(
                told.contains("is cut short") || told.contains("is damaged"),
                "{size}: {told}"
            );
        }
    }

    #[test]
    fn what_can_be_read_once_only_or_never_ends_is_refused() {
        let told = |path: &Path| ImageArchive::read(path).unwrap_err().to_string();
        insta::assert_snapshot!(told(Path::new("/dev/zero")), @r#"the image archive "/dev/zero" is no regular file, and an archive is read more than once: save it to a file first (`docker save -o FILE IMAGE`)"#);
        // As a shell has it of `<(docker save web)`.
        let (reader, _writer) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let refused = told(Path::new(&path));
        assert!(refused.contains("is no regular file"), "{refused}");
        assert!(told(Path::new("/nowhere.tar")).starts_with("cannot read"));
    }

    #[test]
    fn what_is_no_archive_is_told_from_what_is() {
        insta::assert_snapshot!(look(b"").unwrap_err(), @r#"the image archive "/a.tar" holds neither an OCI image layout (oci-layout, index.json) nor docker save's manifest.json"#);
        insta::assert_snapshot!(look(&[b'x'; 1024]).unwrap_err(), @r#"the image archive "/a.tar" is no tar archive, or is damaged"#);
        insta::assert_snapshot!(look(b"\x1f\x8b\x08\x00 and so on").unwrap_err(), @r#"the image archive "/a.tar" is compressed: unpack it first (gunzip)"#);
        let whole = oci_archive("quay.io/org/agent:v1");
        let last = whole.iter().rposition(|byte| *byte != 0).unwrap();
        insta::assert_snapshot!(look(&whole[..last]).unwrap_err(), @r#"the image archive "/a.tar" is cut short: it ends after 5139 bytes"#);
        let other = packed(&[("readme".to_owned(), Vec::new())].into());
        insta::assert_snapshot!(look(&other).unwrap_err(), @r#"the image archive "/a.tar" holds neither an OCI image layout (oci-layout, index.json) nor docker save's manifest.json"#);
    }
}
