//! Debian's packages as the root of a container image.

use std::fs;

use super::build::{Build, CUSTOMISE_LIMIT, bump_lock};
use super::lock::{Lock, LockDifference};
use super::recipe::{BASE, Recipe};
use crate::digest::Inputs;
use crate::{Error, Workshop};

const PACK: &str = include_str!("../../recipes/image-root.sh");

/// What a root is made of.
pub(super) struct DebianRoot {
    pub(super) recipe: Recipe,
    /// The recipe whose lock pins it.
    pub(super) locked_by: &'static str,
    pub(super) lock: Lock,
}

impl DebianRoot {
    /// The root called `name`, of these packages in the versions that a recipe's lock says.
    pub(super) fn read(
        workshop: &Workshop<'_>,
        name: &str,
        packages: &[&str],
        locked_by: &'static str,
    ) -> Result<Self, Error> {
        Ok(Self {
            recipe: Recipe {
                name: name.to_owned(),
                packages: packages.iter().map(|it| (*it).to_owned()).collect(),
                before: Vec::new(),
                files: Vec::new(),
                ..Recipe::read(workshop.source, BASE)?
            },
            locked_by,
            lock: Lock::read(&Recipe::path(workshop.source, locked_by, "lock"))?,
        })
    }

    /// These inputs, and all that goes into it.
    pub(super) fn among(&self, inputs: Inputs) -> Inputs {
        inputs
            .with("suite", &self.recipe.debian_suite)
            .with("packages", self.recipe.packages.join(" "))
            .with("lock", self.lock.text())
            .with("script", PACK)
    }

    /// Installs the packages, and gives the root as a tar archive.
    pub(super) fn pack(&self, workshop: &Workshop<'_>) -> Result<Vec<u8>, Error> {
        let build = Build::start(workshop, &self.recipe)?;
        build.bootstrap(&self.lock, &self.recipe.packages)?;
        let about = format!("packing the root of {}", self.recipe.name);
        workshop.report.step(&about);
        build.script(PACK, &[], &about, CUSTOMISE_LIMIT)?;
        let root = build.work.path().join("out/root.tar");
        fs::read(&root).map_err(Error::file("read", root))
    }

    /// Moves its lock to the archive's current versions, and tells what changed.
    pub(super) fn bump(&self, workshop: &Workshop<'_>) -> Result<Vec<LockDifference>, Error> {
        let path = Recipe::path(workshop.source, self.locked_by, "lock");
        bump_lock(workshop, &self.recipe, &path)
    }
}
