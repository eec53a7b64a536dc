//! SSH keys, made without any program of the host.

use std::fs::File;
use std::io::{self, Read};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::{self, LineEnding};
use serde::{Deserialize, Serialize};

/// Why a key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The kernel gave no random numbers.
    #[error("cannot read random numbers from /dev/urandom")]
    Random(#[from] io::Error),
    /// The key could not be written in OpenSSH's format.
    #[error("cannot encode an SSH key")]
    Encode(#[from] ssh_key::Error),
}

/// An Ed25519 key pair in OpenSSH's formats: for a user or for a host.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKeyPair {
    /// The private key: the text of a file of mode 0600.
    pub private: String,
    /// The public key: one line, as in `authorized_keys` and `*.pub`, without a line end.
    pub public: String,
}

impl std::fmt::Debug for SshKeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshKeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Makes a new Ed25519 key pair; `comment` ends the public line.
///
/// # Errors
/// [`KeyError`].
pub fn ssh_key_pair(comment: &str) -> Result<SshKeyPair, KeyError> {
    let mut seed = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    let key = PrivateKey::new(pair, comment)?;
    Ok(SshKeyPair {
        private: key.to_openssh(LineEnding::LF)?.to_string(),
        public: key.public_key().to_openssh()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SshCredentials;

    #[test]
    fn a_new_pair_is_read_back_and_never_the_same() {
        let pair = ssh_key_pair("podwire").unwrap();
        assert!(pair.public.starts_with("ssh-ed25519 "), "{}", pair.public);
        assert!(pair.public.ends_with(" podwire"), "{}", pair.public);
        SshCredentials::new(&pair.private, &pair.public).unwrap();
        assert_ne!(pair.public, ssh_key_pair("podwire").unwrap().public);
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }
}
