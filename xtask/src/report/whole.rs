//! What the parts of a run on several machines have in common.

use std::collections::BTreeMap;
use std::fmt;

use podwire_cluster::{Configurations, NodeTree, PodImages, PodManifest};
use podwire_images::{Digest, ImageManifest};
use serde::{Deserialize, Serialize};

/// What the parts of one run have in common. Where two differ, their verdicts are about two things.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whole {
    /// Podwire's own revision, and whether something was changed since; nothing without git.
    pub(crate) podwire: Option<String>,
    /// The command's arguments, without those that are about the machine alone.
    pub(crate) arguments: Vec<String>,
    /// What all parts together were to run, in the catalogue's order for each cluster.
    pub(crate) scenarios: Vec<Selected>,
}

/// A scenario on one of a run's clusters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Selected {
    /// `kubeadm/nftables/flannel`.
    pub(crate) cell: String,
    pub(crate) name: String,
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.name, self.cell)
    }
}

/// Flags that say how a machine does its part, not what of; with their value, and alone.
const ABOUT_THE_MACHINE: [&str; 2] = ["--shard", "--max-size"];
const ABOUT_THE_MACHINE_ALONE: [&str; 3] = ["--yes", "--require-kvm", "--strict"];

/// The arguments behind `test` that every part must have.
pub(crate) fn common_arguments(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut words = words.into_iter();
    let mut common = Vec::new();
    while let Some(word) = words.next() {
        let flag = word.split_once('=').map_or(word.as_str(), |(flag, _)| flag);
        if ABOUT_THE_MACHINE.contains(&flag) {
            if flag == word {
                words.next();
            }
        } else if !ABOUT_THE_MACHINE_ALONE.contains(&flag) {
            common.push(word);
        }
    }
    common
}

/// What shapes the guests of a run, by digest.
pub(crate) fn inputs(
    node: &ImageManifest,
    (manifest, images): (Option<&PodManifest>, Option<&PodImages>),
    files: Option<&NodeTree>,
    configurations: &Configurations,
) -> BTreeMap<String, String> {
    let mut inputs = BTreeMap::from([
        ("the guest program".to_owned(), node.probe_sha256.clone()),
        ("the packages' suite".to_owned(), node.suite.clone()),
    ]);
    let bundle = node.bundle.clone();
    inputs.extend(bundle.map(|bundle| ("the bundle".to_owned(), bundle)));
    if let Some(manifest) = manifest {
        let digest = Digest::sha256_of(manifest.text.as_bytes()).to_string();
        inputs.insert("the Pod network's manifest".to_owned(), digest);
    }
    if let Some(images) = images {
        let images = images.digests.iter();
        inputs.extend(images.map(|(image, digest)| (format!("the image {image}"), digest.clone())));
    }
    inputs.extend(files.map(|files| ("the files over the nodes'".to_owned(), files.digest())));
    if !configurations.is_empty() {
        let of = "the components' configurations".to_owned();
        inputs.insert(of, configurations.digest());
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_about_the_machine_alone_may_differ() {
        let line =
            "--yes --shard 1/2 --profile=full --max-size=10GiB --require-kvm --nodes 4 --strict";
        let words = line.split(' ').map(str::to_owned);
        assert_eq!(common_arguments(words), ["--profile=full", "--nodes", "4"]);
        let words = ["--shard=auto/3", "--filter", "E7"].map(str::to_owned);
        assert_eq!(common_arguments(words), ["--filter", "E7"]);
    }
}
