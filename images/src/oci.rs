//! One-layer OCI images of a single static program, as archives that `ctr images import` takes.
//!
//! The layout is that of the OCI image format specification 1.1 (image-layout.md, manifest.md,
//! config.md) in a tar archive; containerd takes the image's name from an annotation of the index.

use std::io;

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::digest::sha256;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image to make: its program is the only file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OciImage {
    /// Full reference; the host name under `.invalid` can never be pulled (RFC 2606).
    pub name: &'static str,
    /// What the container runs, the program's path first.
    pub entrypoint: &'static [&'static str],
}

/// What every sandbox runs; containerd's `sandbox_image` names it.
pub const PAUSE: OciImage = OciImage {
    name: "podwire.invalid/pause:1",
    entrypoint: &["/probe", "pause"],
};

/// The workload: answers on port 80.
pub const PROBE: OciImage = OciImage {
    name: "podwire.invalid/probe:1",
    entrypoint: &["/probe", "serve", "--port", "80"],
};

impl OciImage {
    /// File name of the archive.
    pub fn file_name(&self) -> String {
        let name = self.name.rsplit('/').next().unwrap_or(self.name);
        format!("{}.tar", name.replace(':', "-"))
    }

    /// The archive; the same program gives the same bytes.
    ///
    /// # Errors
    /// The tar writer's, which on memory means that a name is too long.
    pub fn archive(&self, program: &[u8]) -> io::Result<Vec<u8>> {
        let path = self
            .entrypoint
            .first()
            .map_or("", |path| path.trim_start_matches('/'));
        let mut layer = Builder::new(Vec::new());
        append(&mut layer, path, 0o755, program)?;
        let layer = layer.into_inner()?;
        let digest = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": ["PATH=/"] },
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
        reference["annotations"] = json!({ "io.containerd.image.name": self.name });
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

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        files
    }

    #[test]
    fn every_digest_leads_to_a_blob_and_the_layer_holds_the_program() {
        let files = unpack(&PROBE.archive(b"ELF").unwrap());
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let blob = |descriptor: &Value| -> &Vec<u8> {
            let digest = descriptor["digest"]
                .as_str()
                .unwrap()
                .strip_prefix("sha256:")
                .unwrap();
            let bytes = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!(sha256(bytes), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        let index = json(&files["index.json"]);
        let reference = &index["manifests"][0];
        assert_eq!(
            reference["annotations"]["io.containerd.image.name"],
            PROBE.name
        );
        let manifest = json(blob(reference));
        let config = json(blob(&manifest["config"]));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", sha256(layer))
        );
        assert_eq!(
            config["config"]["Entrypoint"],
            json!(["/probe", "serve", "--port", "80"])
        );
        assert_eq!(unpack(layer)["probe"], b"ELF");
        let mode = tar::Archive::new(layer.as_slice());
        let modes: Vec<u32> = { mode }
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().header().mode().unwrap())
            .collect();
        assert_eq!(modes, [0o755]);
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        assert_eq!(PAUSE.archive(b"x").unwrap(), PAUSE.archive(b"x").unwrap());
        assert_ne!(PAUSE.archive(b"x").unwrap(), PAUSE.archive(b"y").unwrap());
        assert_eq!(PAUSE.file_name(), "pause-1.tar");
    }
}
