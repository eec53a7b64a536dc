//! What the program says of files and numbers that nobody of good will gives it: words, and no abort.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The exit code, and what is said. Nothing is done but planned.
    fn told(&self, words: &[&str]) -> (Option<i32>, String) {
        let done = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["test", "--plan"])
            .args(words)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .env_remove("CI")
            .env("PODWIRE_CACHE", self.0.path().join("cache"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), said)
    }

    /// What it says to an archive of images for a Pod network.
    fn archive(&self, archive: Vec<u8>) -> String {
        let manifest = self.file(
            "net.yaml",
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: 'quay.io/org/agent:v1'}]}\n",
        );
        let archive = self.file("images.tar", archive);
        let words = [
            "--pod-network",
            manifest.to_str().unwrap(),
            "--pod-images",
            archive.to_str().unwrap(),
        ];
        let (code, said) = self.told(&words);
        assert_eq!(code, Some(2), "{said}");
        said.replace(archive.to_str().unwrap(), "ARCHIVE")
    }
}

#[test]
fn an_index_that_contains_itself_ends() {
    let digest = "sha256:".to_owned() + &"a".repeat(64);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json",
        "digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"amd64"}},
        "annotations":{{"io.containerd.image.name":"quay.io/org/agent:v1"}}}}]}}"#
    );
    let blob = digest.replace(':', "/");
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("oci-layout", "{}"),
        ("index.json", &index),
        (&format!("blobs/{blob}"), &index),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let appended = archive.append_data(&mut header, name, bytes.as_bytes());
        appended.unwrap();
    }
    let said = Bench::new().archive(archive.into_inner().unwrap());
    assert!(said.contains("ARCHIVE"), "{said}");
    assert!(said.contains("error: "), "{said}");
}

#[test]
fn a_sparse_file_of_no_size_there_is_is_refused() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("oci-layout").unwrap();
    header.set_mode(0o644);
    header.set_size(0);
    // Binary, as GNU tar writes what octal digits cannot say.
    let big = |field: &mut [u8; 12], value: u64| {
        *field = [0; 12];
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    };
    let gnu = header.as_gnu_mut().unwrap();
    let immense = u64::MAX - 511;
    big(&mut gnu.sparse[0].offset, immense);
    big(&mut gnu.sparse[0].numbytes, 0);
    big(&mut gnu.realsize, immense);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend([0; 1024]);
    let said = Bench::new().archive(archive);
    assert!(said.contains("holds a sparse file"), "{said}");
}

#[test]
fn a_part_of_more_than_there_can_be_is_refused() {
    let (code, said) = Bench::new().told(&["--shard", "1/18446744073709551615"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("1000 at most"), "{said}");
}

#[test]
fn an_address_for_apt_is_one_address() {
    let bench = Bench::new();
    let config = bench.file(
        "config.toml",
        "[sources]\nubuntu-archive = \"http://m.example/ubuntu noble main\\n\
         deb [trusted=yes] http://evil.example/ubuntu\"\n",
    );
    let (code, said) = bench.told(&["--config", config.to_str().unwrap()]);
    assert!([Some(2), Some(3)].contains(&code), "{code:?} {said}");
    assert!(said.contains("ubuntu-archive"), "{said}");
    assert!(!said.contains("\ndeb ["), "{said}");
}
