//! One-layer OCI images, as archives that `ctr images import` takes.
//!
//! The layout is that of the OCI image format specification 1.1 (image-layout.md, manifest.md,
//! config.md) in a tar archive; containerd takes the image's name from an annotation of the index.
//! One layer, since a container runtime needs no mount to unpack one.

use std::borrow::Cow;
use std::io;

use serde_json::{Value, json};
use tar::{Archive, Builder, EntryType, Header};

use crate::digest::sha256;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Where programs are found by name.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciImage {
    /// Full reference; a host name under `.invalid` can never be pulled (RFC 2606).
    pub reference: String,
    /// Its programs.
    pub files: Vec<OciFile>,
    /// Whether Debian's network tools are beneath the programs; else they are all that there is.
    pub debian: bool,
    /// What the container runs when its Pod names no command, the program's path first.
    pub entrypoint: Vec<&'static str>,
    /// The user who runs it, `UID:GID`; root where none is named.
    pub user: Option<&'static str>,
}

/// A program of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciFile {
    /// Absolute path in the container.
    pub path: Cow<'static, str>,
    /// What it is.
    pub program: Program,
    /// A capability that the program has whoever runs it (capabilities(7), file capabilities).
    pub capability: Option<Capability>,
}

/// Where a program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The guest program.
    Probe,
    /// The bundle: path in it, `bin/etcd`.
    Bundle(String),
    /// The bundle that clusters can be upgraded to: path in it.
    Newer(String),
    /// One that is part of no bundle: path in the folder where it was built.
    Apart(String),
    /// No program, but a file of the sources that those were built of: path in them.
    Source(String),
    /// All files of a folder of those sources, below the path in the container.
    Sources(String),
    /// No program, but a file with this text.
    Text(&'static str),
}

impl Program {
    /// Its path in the bundle, where it is of that.
    pub(crate) fn in_bundle(&self) -> Option<&str> {
        match self {
            Self::Bundle(path) => Some(path),
            Self::Probe
            | Self::Newer(_)
            | Self::Apart(_)
            | Self::Source(_)
            | Self::Sources(_)
            | Self::Text(_) => None,
        }
    }
}

/// A capability, by its number in linux/capability.h; below 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability(u32);

/// To listen on a port below 1024.
pub const NET_BIND_SERVICE: Capability = Capability(10);

impl Capability {
    /// The extended attribute `security.capability`: permitted and effective (`struct vfs_cap_data`
    /// of linux/capability.h, revision 2).
    fn attribute(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
        bytes[4..8].copy_from_slice(&(1_u32 << self.0).to_le_bytes());
        bytes
    }
}

/// File name of an image's archive.
pub(crate) fn archive_name(reference: &str) -> String {
    format!("{}.tar", reference.replace(['/', ':'], "-"))
}

impl OciImage {
    /// File name of the archive.
    pub fn file_name(&self) -> String {
        archive_name(&self.reference)
    }

    /// The archive; the same programs and root give the same bytes.
    ///
    /// `root` is a tar archive of what is beneath the programs where [`Self::debian`] asks for it.
    ///
    /// # Errors
    /// `read`'s, or the tar writer's, which on memory means that a name is too long.
    pub fn archive(
        &self,
        root: &[u8],
        read: impl Fn(&Program) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        self.archive_given(&[], root, read)
    }

    /// The same of an image whose entrypoint is given these arguments where its Pod names none.
    ///
    /// # Errors
    /// As [`Self::archive`].
    pub fn archive_given(
        &self,
        arguments: &[&str],
        root: &[u8],
        read: impl Fn(&Program) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        if self.debian {
            for entry in Archive::new(root).entries()?.raw(true) {
                let entry = entry?;
                layer.append(&entry.header().clone(), entry)?;
            }
        }
        for file in &self.files {
            if let Some(capability) = file.capability {
                let attribute = capability.attribute();
                layer.append_pax_extensions([(
                    "SCHILY.xattr.security.capability",
                    attribute.as_slice(),
                )])?;
            }
            let path = file.path.trim_start_matches('/');
            append(&mut layer, path, 0o755, &read(&file.program)?)?;
        }
        let layer = layer.into_inner()?;
        let digest = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
        let mut run = json!({ "Entrypoint": self.entrypoint, "Env": [PATH], "WorkingDir": "/" });
        if !arguments.is_empty() {
            run["Cmd"] = arguments.into();
        }
        if let Some(user) = self.user {
            run["User"] = user.into();
        }
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": run,
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let described = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described("application/vnd.oci.image.config.v1+json", &config),
            "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut reference = described(MANIFEST_TYPE, &manifest);
        reference["annotations"] = json!({ "io.containerd.image.name": self.reference });
        reference["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        let index: Value = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [reference],
        });
        let mut archive = Builder::new(Vec::new());
        append(
            &mut archive,
            "oci-layout",
            0o644,
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        append(
            &mut archive,
            "index.json",
            0o644,
            index.to_string().as_bytes(),
        )?;
        for blob in [&config, &manifest, &layer] {
            append(
                &mut archive,
                &format!("blobs/sha256/{}", sha256(blob)),
                0o644,
                blob,
            )?;
        }
        archive.into_inner()
    }
}

fn append(builder: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn image() -> OciImage {
        OciImage {
            reference: "podwire.invalid/a/dns:1".to_owned(),
            files: vec![
                OciFile {
                    path: "/dns".into(),
                    program: Program::Bundle("bin/dns".to_owned()),
                    capability: Some(NET_BIND_SERVICE),
                },
                OciFile {
                    path: "/usr/local/bin/probe".into(),
                    program: Program::Probe,
                    capability: None,
                },
            ],
            debian: true,
            entrypoint: vec!["/dns", "--port", "53"],
            user: Some("65532:65532"),
        }
    }

    fn read(program: &Program) -> io::Result<Vec<u8>> {
        Ok(format!("{program:?}").into_bytes())
    }

    fn root() -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let mut link = Header::new_ustar();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        link.set_uid(0);
        link.set_gid(0);
        builder.append_link(&mut link, "sbin", "usr/sbin").unwrap();
        append(&mut builder, "usr/sbin/nft", 0o755, b"nft").unwrap();
        builder.into_inner().unwrap()
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = Archive::new(archive);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        files
    }

    /// The one layer of an archive, after following every digest to it.
    fn layer_and_config(archive: &[u8], reference: &str) -> (Vec<u8>, Value) {
        let files = unpack(archive);
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let blob = |descriptor: &Value| -> &Vec<u8> {
            let digest = descriptor["digest"].as_str().unwrap();
            let digest = digest.strip_prefix("sha256:").unwrap();
            let bytes = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!(sha256(bytes), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        let index = json(&files["index.json"]);
        let described = &index["manifests"][0];
        assert_eq!(
            described["annotations"]["io.containerd.image.name"],
            reference
        );
        let manifest = json(blob(described));
        let config = json(blob(&manifest["config"]));
        let layer = blob(&manifest["layers"][0]);
        let diff_id = &config["rootfs"]["diff_ids"][0];
        assert_eq!(diff_id, &format!("sha256:{}", sha256(layer)));
        (layer.clone(), config["config"].clone())
    }

    #[test]
    fn every_digest_leads_to_a_blob_and_the_layer_holds_root_and_programs() {
        let archive = image().archive(&root(), read).unwrap();
        let (layer, config) = layer_and_config(&archive, "podwire.invalid/a/dns:1");
        insta::assert_snapshot!(config, @r#"{"Entrypoint":["/dns","--port","53"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"User":"65532:65532","WorkingDir":"/"}"#);
        let mut shown = Vec::new();
        for entry in Archive::new(layer.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            let attributes: Vec<String> = entry
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .map(|extension| {
                    let extension = extension.unwrap();
                    let value = extension.value_bytes();
                    format!(" {}={value:02x?}", extension.key().unwrap())
                })
                .collect();
            let link = entry.link_name().unwrap();
            let link = link.map(|link| format!("-> {}", link.display()));
            let mut bytes = String::new();
            entry.read_to_string(&mut bytes).unwrap();
            shown.push(format!(
                "{:o} {}:{} {} {}{bytes}{}",
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                entry.path().unwrap().display(),
                link.unwrap_or_default(),
                attributes.join("")
            ));
        }
        insta::assert_snapshot!(shown.join("\n"), @r#"
        777 0:0 sbin -> usr/sbin
        755 0:0 usr/sbin/nft nft
        755 0:0 dns Bundle("bin/dns") SCHILY.xattr.security.capability=[01, 00, 00, 02, 00, 04, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00]
        755 0:0 usr/local/bin/probe Probe
        "#);
    }

    #[test]
    fn without_a_root_the_programs_are_all_that_there_is() {
        let mut image = image();
        image.debian = false;
        image.user = None;
        let archive = image.archive(&root(), read).unwrap();
        let (layer, config) = layer_and_config(&archive, &image.reference);
        let paths: Vec<String> = unpack(&layer).into_keys().collect();
        assert_eq!(paths, ["dns", "usr/local/bin/probe"]);
        assert_eq!(config.get("User"), None);
        assert_eq!(config.get("Cmd"), None);
        let given = image.archive_given(&["pause"], &root(), read).unwrap();
        let (_, config) = layer_and_config(&given, &image.reference);
        assert_eq!(config["Cmd"], serde_json::json!(["pause"]));
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let archive = |text: &'static str| image().archive(&root(), |_| Ok(text.into())).unwrap();
        assert_eq!(archive("x"), archive("x"));
        assert_ne!(archive("x"), archive("y"));
        assert_eq!(image().file_name(), "podwire.invalid-a-dns-1.tar");
    }
}
