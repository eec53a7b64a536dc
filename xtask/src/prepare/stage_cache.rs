//! The cache's stages.

use podwire_cluster::{StageManifest, Stages};

use crate::command::session::Session;

/// The group of the cache's entries that are stages.
pub(crate) const STAGES: &str = "stages";

/// Where the cache keeps stages.
pub(crate) fn stages(session: &Session) -> anyhow::Result<Stages> {
    Ok(Stages::at(&session.cache.folder(STAGES)?))
}

/// Whether the same plan leads to another stage today.
pub(crate) fn is_outdated(manifest: &StageManifest) -> anyhow::Result<bool> {
    Ok(manifest.plan.key(manifest.name)? != manifest.key)
}
