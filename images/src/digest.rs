use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// What a publisher says that a file's contents hash to.
///
/// Written as `sha256:` or `sha512:` and hexadecimal digits; read without the prefix too, since the
/// number of digits tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Algorithm {
    Sha256,
    Sha512,
}

/// A text that is no SHA-256 and no SHA-512.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no SHA-256 or SHA-512 in hexadecimal")]
pub struct NoDigest(String);

impl NoDigest {
    /// Whoever sends one may send megabytes.
    fn new(text: &str) -> Self {
        Self(text.chars().take(200).collect())
    }
}

impl Digest {
    /// The digest of `file` in a published text: one that is nothing but a digest, or lines of
    /// `DIGEST  FILE` as sha256sum(1) writes them.
    pub fn published_in(text: &str, file: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let mut named = lines.clone().filter_map(|line| {
            let (digest, name) = line.trim().split_once(char::is_whitespace)?;
            let name = name.trim_start().trim_start_matches('*');
            let name = name.strip_prefix("./").unwrap_or(name);
            (name == file).then(|| digest.parse().ok())?
        });
        match (lines.next(), lines.next()) {
            (Some(only), None) if !only.trim().contains(char::is_whitespace) => {
                only.trim().parse().ok()
            }
            _ => named.next(),
        }
    }

    /// The SHA-256 of some bytes.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::Sha256,
            hex: sha256(bytes),
        }
    }

    /// A name for files and folders: `sha256-` and the digits.
    pub(crate) fn file_name(&self) -> String {
        self.to_string().replace(':', "-")
    }

    /// The hash that is compared with it.
    pub(crate) fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let hex = hex.strip_prefix("sha512:").unwrap_or(hex);
        let algorithm = match hex.len() {
            64 if !text.starts_with("sha512:") => Algorithm::Sha256,
            128 if !text.starts_with("sha256:") => Algorithm::Sha512,
            _ => return Err(NoDigest::new(text)),
        };
        if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoDigest::new(text));
        }
        let hex = hex.to_ascii_lowercase();
        Ok(Self { algorithm, hex })
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        };
        write!(f, "{algorithm}:{}", self.hex)
    }
}

/// A hash on its way.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest {
                algorithm: Algorithm::Sha256,
                hex: hex(&hash.finalize()),
            },
            Self::Sha512(hash) => Digest {
                algorithm: Algorithm::Sha512,
                hex: hex(&hash.finalize()),
            },
        }
    }
}

/// The SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file's contents, in hexadecimal.
///
/// # Errors
/// The operating system's answer when the file cannot be read.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Collects everything that shapes an artefact into the name under which it is kept.
///
/// Names and values are counted, so that no two different lists give the same bytes.
#[derive(Debug, Clone)]
pub struct Inputs(Sha256);

impl Inputs {
    /// The inputs of one kind of artefact.
    pub fn of(kind: &str) -> Self {
        Self(Sha256::new()).with("kind", kind)
    }

    /// The same with one more input; their order counts.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The name: 20 hexadecimal digits.
    pub fn name(self) -> String {
        let mut name = hex(&self.0.finalize());
        name.truncate(20);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_digest_is_sha_256() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), known);
        assert_eq!(sha256_file(file.path()).unwrap(), known);
    }

    #[test]
    fn a_published_digest_is_read_with_and_without_its_prefix() {
        for (algorithm, digits) in [("sha256", 64), ("sha512", 128)] {
            let hex = "Ab".repeat(digits / 2);
            let digest: Digest = hex.parse().unwrap();
            assert_eq!(
                digest.to_string(),
                format!("{algorithm}:{}", hex.to_lowercase())
            );
            assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
            assert_ne!(digest.hasher().finish(), digest);
        }
        let (short, long) = ("a".repeat(64), "a".repeat(128));
        for wrong in [
            "",
            "x",
            &short[1..],
            &"g".repeat(64),
            &format!("sha512:{short}"),
            &format!("sha256:{long}"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_digest_is_found_in_every_form_that_publishers_use() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let found = |text: &str, file: &str| Digest::published_in(text, file);
        let digest = Some(a.parse().unwrap());
        assert_eq!(found(&a, "kubelet"), digest);
        assert_eq!(found(&format!("{a}\n"), "kubelet"), digest);
        assert_eq!(found(&format!("{a}  x.tgz\n"), "x.tgz"), digest);
        let list = format!("{b}  y.tgz\n{a} *./x.tgz\n{b}  x.tgz.asc\n");
        assert_eq!(found(&list, "x.tgz"), digest);
        assert_eq!(found(&list, "z.tgz"), None);
        assert_eq!(found(&format!("{b}  y.tgz\n"), "x.tgz"), None);
        assert_eq!(found("<html>not here</html>", "x.tgz"), None);
        assert_eq!(found("", "x.tgz"), None);
    }

    proptest! {
        #[test]
        fn moving_a_byte_between_inputs_changes_the_name(left in "[a-z]{1,8}", right in "[a-z]{1,8}") {
            let moved = format!("{left}{}", &right[..1]);
            prop_assert_ne!(
                Inputs::of("x").with("a", &left).with("b", &right).name(),
                Inputs::of("x").with("a", moved).with("b", &right[1..]).name()
            );
        }
    }
}
