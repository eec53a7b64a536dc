use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

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
