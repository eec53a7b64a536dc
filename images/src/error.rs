use std::io;
use std::path::PathBuf;

use podwire_process::{RunError, SpawnError};

use crate::address::Address;
use crate::bundle::OwnFileError;
use crate::image::{ImageFrom, LockDifference};
use crate::{CacheError, Digest, DownloadError, SourceKey};

/// Why something could not be set up or built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache folder gave trouble.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Something could not be downloaded.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A file of the project or of a build could not be read or written.
    #[error("cannot {action} {path:?}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file of the project does not say what it should.
    #[error("{path:?} is not understood: {reason}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A program did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A short command of the host failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A step of a build failed.
    #[error("{step} failed ({ended}); its whole output is in {log:?}, the last lines:\n{tail}")]
    Step {
        /// What was being done.
        step: String,
        /// How it ended: a status, or the limit that it ran over.
        ended: String,
        /// Everything that it printed.
        log: PathBuf,
        /// The last lines that it printed.
        tail: String,
    },
    /// Neither root, nor a user namespace, nor sudo can be had.
    #[error(
        "building a machine image needs root, a user namespace or sudo, and none works here: {0}; \
         run as root, or install the package `uidmap` and give the user a range in /etc/subuid and /etc/subgid"
    )]
    NoPrivilege(String),
    /// A program that is needed is not there.
    #[error(
        "{program} is missing: it comes with the package `{package}` (`cargo xtask doctor` gives the command)"
    )]
    MissingProgram {
        /// The program.
        program: String,
        /// The package that has it on Debian and Ubuntu.
        package: String,
    },
    /// There is no bundle of that version.
    #[error(
        "no modules are pinned for Kubernetes {asked}; there is: {}; `--bundle-from release` takes \
         any version since 1.33",
        known.join(", ")
    )]
    UnknownVersion {
        /// What was asked for.
        asked: String,
        /// The folders of images/bundle/.
        known: Vec<String>,
    },
    /// There is no release of that version, or it cannot be told which one is meant.
    #[error("no release of Kubernetes {asked}: {reason}")]
    UnknownRelease {
        /// What was asked for.
        asked: String,
        /// Why not.
        reason: String,
    },
    /// kubeadm upgrades no cluster so.
    #[error(
        "kubeadm upgrades no cluster of Kubernetes {from} to {to}: it takes a newer patch, or the next minor \
         version (--kubernetes says which it is upgraded from)"
    )]
    NoUpgrade {
        /// The clusters' version.
        from: String,
        /// The one asked for.
        to: String,
    },
    /// A file of the user's cannot be a part of a bundle.
    #[error(transparent)]
    OwnFile(#[from] OwnFileError),
    /// An image of a release did not come.
    #[error(
        "cannot pull {reference} as {from} (source `images`): {reason}; another registry goes into a \
         file for --config (docs/sources.md)"
    )]
    Pull {
        /// The image, as kubeadm names it.
        reference: String,
        /// Its name at the registry that was asked.
        from: String,
        /// What came of it.
        reason: String,
    },
    /// No node can be made of a bundle.
    #[error("no node can be made of the bundle {dir:?} (Kubernetes {version}): {reason}")]
    UnfitBundle {
        /// Its folder.
        dir: PathBuf,
        /// Its version of Kubernetes.
        version: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No image of that system is pinned.
    #[error(
        "{path:?} does not say yet which image `--from {from}` means: `cargo xtask image bump --from \
         {from}` takes the newest that is published"
    )]
    NotPinned {
        /// The file with the pin.
        path: PathBuf,
        /// The system.
        from: ImageFrom,
    },
    /// A listing names no release.
    #[error("no release is listed at {url} (source `{key}`)")]
    NoCloudImage {
        /// Whose address it is.
        key: SourceKey,
        /// The listing.
        url: Address,
    },
    /// Nobody whom the project trusts vouches for what was published.
    #[error(
        "the signature of {url} (source `{key}`) is not accepted: {reason}; the keyring is {keyring:?}"
    )]
    Signature {
        /// Whose address it is.
        key: SourceKey,
        /// What was signed.
        url: Address,
        /// The keys that were tried.
        keyring: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What is published now is not what the project means.
    #[error(
        "{url} (source `{key}`) is published as {published}, and the project means {pinned}: \
         nothing was taken; `cargo xtask image bump` moves the pin"
    )]
    PinnedDigest {
        /// Whose address it is.
        key: SourceKey,
        /// The image.
        url: Address,
        /// What its list of digests says.
        published: Digest,
        /// What the pin says.
        pinned: Digest,
    },
    /// apt's list names the keyring, and takes a path apart at blanks.
    #[error(
        "{path:?} has a blank in it, which apt's lists cannot name: move the project to a folder without"
    )]
    Blank {
        /// The folder of the keyrings.
        path: PathBuf,
    },
    /// A cloud image is not laid out as expected.
    #[error("{path:?} is no disk of a cloud image: {reason}")]
    CloudDisk {
        /// The disk.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// The archive has other package versions than the lock, and nobody agreed to them.
    #[error(
        "the package archive differs from images/recipes/{recipe}.lock:\n{}\n`--yes` takes the current \
         versions for this build; `cargo xtask image bump` moves the lock to them",
        shown(differences)
    )]
    LockOutdated {
        /// The recipe whose lock it is.
        recipe: String,
        /// What differs.
        differences: Vec<LockDifference>,
    },
}

/// An error with all its causes, each said once.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let one = error.to_string();
        if !text.contains(&one) {
            text = format!("{text}: {one}");
        }
        cause = error.source();
    }
    text
}

fn shown(differences: &[LockDifference]) -> String {
    differences
        .iter()
        .map(|difference| format!("  {difference}"))
        .collect::<Vec<_>>()
        .join("\n")
}

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
