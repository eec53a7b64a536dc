use std::io;
use std::path::PathBuf;

use super::manifest::Place;
use crate::CacheError;

/// Why a Pod network of the user's cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    /// A file could not be read or written.
    #[error("cannot {action} {path:?}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The cache folder gave trouble.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The manifest does not say what kubectl could apply here.
    #[error("{place}: {reason}")]
    Manifest {
        /// Where.
        place: Place,
        /// What is wrong there, and what to write instead.
        reason: String,
    },
    /// A file is no archive of container images, or lacks a part of one.
    #[error("the image archive {path:?} {reason}")]
    Archive {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two archives hold different images of one name.
    #[error("{first:?} and {second:?} hold different images named {reference}")]
    Ambiguous {
        /// The image.
        reference: String,
        /// An archive with it.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// An image that no archive holds could not be pulled either.
    #[error("{0}")]
    Pull(Box<FailedPull>),
}

/// An image that is not to be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "{place}: {held} {reference}, and this host cannot pull it from {registry}: {reason}; give an \
     archive with it: --pod-images FILE, of `docker save -o FILE {reference}` or \
     `skopeo copy docker://{reference} oci-archive:FILE:{reference}`"
)]
pub struct FailedPull {
    /// Where the manifest names it.
    pub place: Place,
    /// Its name in full.
    pub reference: String,
    /// The registry that was asked.
    pub registry: String,
    /// What came of it.
    pub reason: String,
    /// `no archive is given that holds`, or which ones do not.
    pub held: String,
}

impl PodNetworkError {
    pub(super) fn file(
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
