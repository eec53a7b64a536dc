//! Programs of Pod networks that are built from published Go modules as a bundle is, and are part of none.
//!
//! Only runs that name such a network, or have a scenario that starts one, build it: as a part of the bundle it
//! would cost every first run minutes, and a change of its pins would change every image and stage.

use std::path::{Path, PathBuf};

use super::modules::{Alone, Recipe};
use crate::{Error, Workshop};

/// A Pod network's programs, pinned in a folder of `images/bundle/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart {
    /// The folder.
    folder: &'static str,
    /// The module that they are of.
    module: &'static str,
    /// Its release, where the module proxy has it under another version.
    release: Option<&'static str>,
    /// The variables in which they are told their version.
    told: &'static [&'static str],
    /// Whether some of them are of C as well.
    c: bool,
    /// The tags of their build, joined by commas (`go help buildconstraint`).
    tags: &'static str,
}

/// kube-router: one program.
pub const KUBE_ROUTER: Apart = Apart {
    folder: "kube-router",
    module: "github.com/cloudnativelabs/kube-router/v2",
    release: None,
    told: &[],
    c: false,
    tags: "",
};

/// Calico: the node's daemon, its CNI plugin, and the controllers.
pub const CALICO: Apart = Apart {
    folder: "calico",
    module: "github.com/projectcalico/calico",
    // v1.11.0-cni-plugin.0.20250813170300-a0db560f0520 is the commit of this release: releases have tags that no Go
    // module may have.
    release: Some("v3.28.5"),
    told: &[
        "main.VERSION",
        "github.com/projectcalico/calico/felix/buildinfo.GitVersion",
        "github.com/projectcalico/calico/node/buildinfo.GitVersion",
        "github.com/projectcalico/calico/node/pkg/lifecycle/startup.VERSION",
    ],
    c: false,
    tags: "",
};

/// Cilium: the node's daemon and what starts beside it, its CNI plugin, its tool, and the operator.
pub const CILIUM: Apart = Apart {
    folder: "cilium",
    module: "github.com/cilium/cilium",
    release: None,
    told: &["github.com/cilium/cilium/pkg/version.ciliumVersion"],
    c: false,
    // As its Makefile.defs and operator/Makefile have them for what is published: the operator of no cloud.
    tags: "osusergo,ipam_provider_operator",
};

/// flannel with its own entry point, which has every backend.
pub const FLANNEL_PUBLISHED: Apart = Apart {
    folder: "flannel-published",
    module: "github.com/flannel-io/flannel",
    release: None,
    told: &["github.com/flannel-io/flannel/pkg/version.Version"],
    // Its backend `udp`.
    c: true,
    // What Go does itself where the libraries of C could not be linked statically: names of hosts and users.
    tags: "netgo,osusergo",
};

/// The CNI plugin that flannel's own configuration names. The module proxy does not serve flannel's own repository of
/// it; this is the last one that CNI's plugins had.
pub const FLANNEL_CNI_PLUGIN: Apart = Apart {
    folder: "flannel-cni-plugin",
    module: "github.com/containernetworking/plugins",
    release: None,
    told: &[],
    c: false,
    tags: "",
};

impl Apart {
    fn recipe(self, source: &Path) -> Result<Recipe, Error> {
        let alone = |told: &[(&str, &str)]| {
            let Self { c, tags, .. } = self;
            Recipe::alone(source, self.folder, Alone { told, c, tags })
        };
        let pinned = alone(&[])?;
        if self.told.is_empty() {
            return Ok(pinned);
        }
        let tag = self.tag_of(&pinned);
        let told: Vec<_> = self.told.iter().map(|name| (*name, tag.as_str())).collect();
        alone(&told)
    }

    /// The name that they have in the cache, by all that goes into them.
    ///
    /// # Errors
    /// [`Error`] when the pins cannot be read.
    pub(crate) fn name(self, workshop: &Workshop<'_>) -> Result<String, Error> {
        Ok(self.recipe(workshop.source)?.tool_name(self.folder))
    }

    /// Their version as the tag of an image: `v2.1.0`.
    ///
    /// # Errors
    /// As [`Self::name`].
    pub(crate) fn tag(self, workshop: &Workshop<'_>) -> Result<String, Error> {
        Ok(self.tag_of(&self.recipe(workshop.source)?))
    }

    fn tag_of(self, pinned: &Recipe) -> String {
        match self.release {
            Some(release) => release.to_owned(),
            None => format!("v{}", pinned.version_of(self.module)),
        }
    }

    /// Their folder, when they have been built from today's pins.
    ///
    /// # Errors
    /// [`Error`] when pins or cache cannot be read.
    pub fn cached(self, workshop: &Workshop<'_>) -> Result<Option<PathBuf>, Error> {
        self.recipe(workshop.source)?
            .cached_tool(workshop, self.folder)
    }

    /// Their folder, in which they are built on first use: `bin/NAME`, and `cni/NAME` for CNI's own plugins.
    ///
    /// # Errors
    /// [`Error::MissingProgram`] without Go, [`Error::Step`] when they do not build.
    pub fn built(self, workshop: &Workshop<'_>) -> Result<PathBuf, Error> {
        self.recipe(workshop.source)?
            .tool(workshop, self.folder, |_, _| Ok(()))
    }

    /// The folder of their module's sources, as published.
    ///
    /// # Errors
    /// [`Error::MissingProgram`] without Go, or when it cannot download the module.
    pub(crate) fn sources(self, workshop: &Workshop<'_>) -> Result<PathBuf, Error> {
        self.recipe(workshop.source)?.sources(workshop, self.module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::modules::MODULES;

    #[test]
    fn each_is_pinned_for_itself_and_part_of_no_bundle() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let all = [
            KUBE_ROUTER,
            CALICO,
            CILIUM,
            FLANNEL_PUBLISHED,
            FLANNEL_CNI_PLUGIN,
        ];
        let shown = all.map(|apart| {
            assert!(!MODULES.contains(&apart.folder), "{apart:?}");
            let recipe = apart.recipe(source).unwrap();
            let programs = recipe.paths().join(" ");
            format!("{} {}: {programs}", apart.folder, apart.tag_of(&recipe))
        });
        insta::assert_snapshot!(shown.join("\n"), @r"
        kube-router v2.1.0: bin/kube-router
        calico v3.28.5: cni/bandwidth bin/calico bin/install bin/check-status bin/kube-controllers bin/calico-node
        cilium v1.20.2: bin/cilium-dbg bin/daemon bin/operator bin/cilium-cni bin/mount bin/sysctlfix
        flannel-published v0.28.10: bin/flannel bin/install_conf
        flannel-cni-plugin v0.9.1: cni/flannel
        ");
    }
}
