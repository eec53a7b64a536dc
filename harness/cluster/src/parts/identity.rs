//! Who a node is, given to a machine that was cloned from a booted one.
//!
//! Such machines share everything that was drawn at boot. The kernel draws anew by itself when the
//! VM generation id changes (vmgenid); the ids that systemd, the journal, sshd and the kubelet know
//! a machine by are replaced here, before any daemon of Kubernetes starts.

use std::fs::File;
use std::io::{self, Read as _};

use podwire_vm::keys::{SshKeyPair, ssh_key_pair};
use serde::{Deserialize, Serialize};

use super::file::NodeFile;
use crate::plan::addresses::node_name;
use crate::plan::error::ClusterError;

/// What hides the kernel's boot id, the same in all clones of a machine and fixed until it boots.
const BOOT_ID: &str = "/run/podwire/boot-id";

/// Follows the unpacking of [`NodeIdentity::files`]: the journal changes to a folder of the new
/// machine-id, where `journalctl` looks, and sshd reads its keys again. Sessions live on.
pub(crate) const TAKE: &str = "mount --bind /run/podwire/boot-id /proc/sys/kernel/random/boot_id && \
     systemctl restart systemd-journald && systemctl kill -s HUP --kill-whom=main ssh";

/// What makes a node itself, beside its MAC address, from which address and host name follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// machine-id(5): 32 hexadecimal digits. The kubelet's system UUID as well.
    pub machine_id: String,
    /// A UUID.
    pub boot_id: String,
    /// What sshd shows.
    pub ssh_host: SshKeyPair,
}

impl NodeIdentity {
    /// A new one.
    ///
    /// # Errors
    /// [`ClusterError::File`] without /dev/urandom, [`ClusterError::Key`].
    pub fn new(number: u32) -> Result<Self, ClusterError> {
        let random = || uuid().map_err(ClusterError::file("read", "/dev/urandom"));
        Ok(Self {
            machine_id: random()?.replace('-', ""),
            boot_id: random()?,
            ssh_host: ssh_key_pair(&format!("root@{}", node_name(number)))?,
        })
    }

    /// The same text in every stage, see [`crate::parts::pki::Pki::placeholder`].
    pub(crate) fn placeholder(number: u32) -> Self {
        let of = |what: &str| format!("{what} of {}", node_name(number));
        Self {
            machine_id: of("machine-id"),
            boot_id: of("boot id"),
            ssh_host: SshKeyPair {
                private: of("SSH key"),
                public: of("public SSH key"),
            },
        }
    }

    /// The files that carry it.
    pub(crate) fn files(&self, number: u32) -> Vec<NodeFile> {
        let file = |path: &str, mode, text: &str| NodeFile {
            path: path.to_owned(),
            mode,
            text: format!("{}\n", text.trim_end()),
        };
        vec![
            file("/etc/machine-id", 0o444, &self.machine_id),
            file("/etc/hostname", 0o644, &node_name(number)),
            file(
                "/etc/ssh/ssh_host_ed25519_key",
                0o600,
                &self.ssh_host.private,
            ),
            file(
                "/etc/ssh/ssh_host_ed25519_key.pub",
                0o644,
                &self.ssh_host.public,
            ),
            file(BOOT_ID, 0o444, &self.boot_id),
        ]
    }
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) | (0x4 << 76);
    let number = number & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{number:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Ok(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_nodes_are_the_same() {
        let (one, two) = (NodeIdentity::new(1).unwrap(), NodeIdentity::new(2).unwrap());
        let drawn = |of: &NodeIdentity| {
            [
                of.machine_id.clone(),
                of.boot_id.clone(),
                of.ssh_host.public.clone(),
            ]
        };
        for (one, two) in drawn(&one).iter().zip(drawn(&two)) {
            assert_ne!(one, &two);
        }
        assert_eq!(one.machine_id.len(), 32);
        assert!(one.files(1).iter().any(|file| file.text == "node1\n"));
    }

    #[test]
    fn a_uuid_says_that_it_is_random() {
        let uuid = uuid().unwrap();
        let digits: Vec<char> = uuid.chars().collect();
        assert_eq!((digits[8], digits[14]), ('-', '4'), "{uuid}");
        assert!(matches!(digits[19], '8' | '9' | 'a' | 'b'), "{uuid}");
    }
}
