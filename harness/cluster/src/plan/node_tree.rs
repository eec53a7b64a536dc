//! Files of the user's that nodes have before anything of Kubernetes starts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What is made anew with every boot.
/// <https://www.debian.org/releases/trixie/release-notes/issues.en.html>
const IN_MEMORY: [&str; 7] = [
    "/dev",
    "/proc",
    "/run",
    "/sys",
    "/tmp",
    "/var/lock",
    "/var/run",
];

/// What is laid over nodes: for each path what is there. All of it shapes the stages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTree {
    /// On every node, by absolute path.
    pub every: BTreeMap<String, Laid>,
    /// On one node alone, by its number; there it takes the place of what every node has.
    pub one: BTreeMap<u32, BTreeMap<String, Laid>>,
}

/// What is laid at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Laid {
    /// A file.
    File {
        /// Permission bits.
        mode: u32,
        /// Content.
        text: String,
    },
    /// A symbolic link, as units are enabled by one.
    Link {
        /// What it says.
        to: String,
    },
}

impl NodeTree {
    /// What a node gets, by path.
    pub(crate) fn of(&self, node: u32) -> BTreeMap<&str, &Laid> {
        let own = self.one.get(&node).into_iter().flatten();
        let all = self.every.iter().chain(own);
        all.map(|(path, laid)| (path.as_str(), laid)).collect()
    }

    /// All paths that are laid somewhere.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let own = self.one.values().flat_map(BTreeMap::keys);
        self.every.keys().chain(own).map(String::as_str)
    }

    /// A path that would be gone when a node has booted, and what is made anew then.
    pub(crate) fn in_memory(&self) -> Option<(&str, &'static str)> {
        let gone = |path: &str| {
            let mut folders = IN_MEMORY.into_iter();
            folders.find(|folder| Path::new(path).starts_with(folder))
        };
        let mut paths = self.paths();
        paths.find_map(|path| Some((path, gone(path)?)))
    }

    /// A node on which one path would be a file and another lie below it: it, and both.
    pub(crate) fn file_and_folder(&self) -> Option<(u32, &str, &str)> {
        // Of every node's alone none can, since they come from one folder.
        self.one.keys().find_map(|node| {
            let laid = self.of(*node);
            let is_file = |path: &Path| match laid.get_key_value(path.to_str()?)? {
                (path, Laid::File { .. }) => Some(*path),
                // It may lead to a folder.
                (_, Laid::Link { .. }) => None,
            };
            laid.keys().find_map(|below| {
                let mut above = Path::new(below).ancestors().skip(1);
                Some((*node, above.find_map(is_file)?, *below))
            })
        })
    }

    /// How many files and links there are.
    pub fn count(&self) -> usize {
        self.paths().count()
    }

    /// SHA-256 of all of it, hexadecimal.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex(&Sha256::digest(json))
    }
}

/// Two digits for each octet.
pub(crate) fn hex(octets: &[u8]) -> String {
    let mut text = String::new();
    for octet in octets {
        // Writing to a string cannot fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Laid {
        Laid::File {
            mode: 0o644,
            text: text.into(),
        }
    }

    #[test]
    fn a_node_s_own_file_takes_the_place_of_every_node_s() {
        let tree = NodeTree {
            every: [("/etc/a", "all"), ("/etc/b", "all")]
                .map(|(path, text)| (path.to_owned(), file(text)))
                .into(),
            one: [(2, [("/etc/b".to_owned(), file("two"))].into())].into(),
        };
        let (all, two) = (file("all"), file("two"));
        assert_eq!(tree.of(1), [("/etc/a", &all), ("/etc/b", &all)].into());
        assert_eq!(tree.of(2), [("/etc/a", &all), ("/etc/b", &two)].into());
        assert_eq!(tree.count(), 3);
        let mut other = tree.clone();
        other.one.clear();
        assert_ne!(tree.digest(), other.digest());
    }
}
