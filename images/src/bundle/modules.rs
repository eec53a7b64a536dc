//! The Kubernetes under test, built from published Go modules.
//!
//! Each folder of `images/bundle/VERSION/`, and those of `images/bundle/` that go with all versions,
//! is a Go module whose `tool` directives name the main packages; `go build -o DIR/ tool` builds them
//! all, and `go.sum` pins what they are made of. A folder with a main.go is a program of its own,
//! made from the packages of the module that the folder is named after.
//!
//! What is pinned and built likewise, and is no part of a bundle, is in [`super::apart`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::run;
use serde::Deserialize;

use super::{
    Bundle, BundleFile, BundleManifest, Origin, RECIPE, described, kubeadm_images, publish,
};
use crate::command::run_step;
use crate::digest::Inputs;
use crate::files::{files_below, place};
use crate::tools::{self, GO_VERSION, Go};
use crate::{Check, Error, Kind, Workshop};

/// The modules of a bundle, the small ones first: what is wrong with Go shows within seconds.
pub(super) const MODULES: [&str; 5] = ["node", "etcd", FLANNEL, "coredns", "kubernetes"];

/// Those of them that are the same whatever the version of Kubernetes.
const FOR_ALL_VERSIONS: [&str; 2] = ["node", FLANNEL];

const FLANNEL: &str = "flannel";

/// Without symbols, which nobody looks at on a node.
const STRIPPED: &str = "-s -w";

/// What makes a program of C one that needs no library of this host's.
const STATIC: &str = " -linkmode external -extldflags -static";

/// How long one module may take: kubernetes needs 5 minutes on 2 free cores.
pub(super) const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);

const CNI_PLUGINS: &str = "github.com/containernetworking/plugins";
const CRICTL: &str = "sigs.k8s.io/cri-tools";
const FLANNEL_MODULE: &str = "github.com/flannel-io/flannel";
const ETCD: &str = "go.etcd.io/etcd/server/v3";
const COREDNS: &str = "github.com/coredns/coredns";

/// One program that a module builds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tool {
    package: String,
    module: String,
    module_version: String,
}

impl Tool {
    /// The file that `go build` names after the package: its last element that is no major version.
    fn built_as(&self) -> &str {
        let is_version = |part: &str| {
            part.strip_prefix('v')
                .is_some_and(|digits| digits.parse::<u32>().is_ok())
        };
        self.package
            .rsplit('/')
            .find(|part| !is_version(part))
            .unwrap_or_default()
    }

    /// Its path in the bundle. etcd's main package is called `server`.
    fn path(&self) -> String {
        match self.built_as() {
            "server" if self.module.contains("etcd") => "bin/etcd".to_owned(),
            name if self.package.contains("/plugins/plugins/") => format!("cni/{name}"),
            name => format!("bin/{name}"),
        }
    }

    fn origin(&self) -> Origin {
        Origin::Module {
            package: self.package.clone(),
            module: self.module.clone(),
            version: self.module_version.clone(),
            go: GO_VERSION.to_owned(),
        }
    }
}

/// The tools that a go.mod names, with the module that each belongs to; or, where the folder has a
/// main.go, its own program, with the required module that the folder is named after.
fn parse_go_mod(path: &Path, text: &str, has_main: bool) -> Result<Vec<Tool>, Error> {
    let mut block = None;
    let mut own = None;
    let (mut packages, mut required) = (Vec::new(), BTreeMap::new());
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = match (block, words.as_slice()) {
            (_, []) => continue,
            (_, [")"]) => {
                block = None;
                continue;
            }
            (None, [verb, "("]) => {
                block = Some(*verb);
                continue;
            }
            (None, [verb, rest @ ..]) => (*verb, rest),
            (Some(verb), rest) => (verb, rest),
        };
        match (verb, rest) {
            ("module", [module]) => own = Some((*module).to_owned()),
            ("tool", [package]) => packages.push((*package).to_owned()),
            ("require", [module, version]) => {
                required.insert((*module).to_owned(), (*version).to_owned());
            }
            _ => {}
        }
    }
    let malformed = |reason: String| Error::Malformed {
        path: path.to_owned(),
        reason,
    };
    if has_main {
        let folder = path.parent().and_then(Path::file_name);
        let named_after = |module: &str| folder.is_some_and(|f| Path::new(module).ends_with(f));
        let found = required.into_iter().find(|(module, _)| named_after(module));
        let (module, module_version) = found
            .ok_or_else(|| malformed("no required module has the name of the folder".to_owned()))?;
        let package = own.ok_or_else(|| malformed("it names no `module`".to_owned()))?;
        return Ok(vec![Tool {
            package,
            module,
            module_version,
        }]);
    }
    if packages.is_empty() {
        return Err(malformed("it names no `tool`".to_owned()));
    }
    packages
        .into_iter()
        .map(|package| {
            let within = |module: &str| {
                package
                    .strip_prefix(module)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let owner = required
                .iter()
                .filter(|(module, _)| within(module))
                .max_by_key(|(m, _)| m.len());
            let (module, version) =
                owner.ok_or_else(|| malformed(format!("no required module has {package}")))?;
            Ok(Tool {
                module: module.clone(),
                module_version: version.clone(),
                package,
            })
        })
        .collect()
}

/// The linker's settings. Kubernetes takes its own version only from here: an empty gitMajor breaks
/// kubeadm's version rules. A fixed date and no commit keep the result reproducible and honest: the
/// sources are published modules, not a checkout.
pub(super) fn ldflags(version: &str) -> String {
    let package = "k8s.io/component-base/version";
    let mut numbers = version.split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    let settings = [
        ("gitVersion", format!("v{version}")),
        ("gitMajor", major.to_owned()),
        ("gitMinor", minor.to_owned()),
        ("gitCommit", "unknown".to_owned()),
        ("gitTreeState", "clean".to_owned()),
        ("buildDate", "1970-01-01T00:00:00Z".to_owned()),
    ];
    let set: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("-X {package}.{name}={value}"))
        .collect();
    format!("{STRIPPED} {}", set.join(" "))
}

/// What `go mod download -json` prints of a module.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    dir: PathBuf,
}

/// One folder of a bundle's pins.
struct Module {
    name: &'static str,
    dir: PathBuf,
    /// What `go build` is given: its tools, or the folder's own program.
    target: &'static str,
}

pub(super) struct Recipe {
    modules: Vec<Module>,
    tools: Vec<Tool>,
    ldflags: String,
    /// Whether this host's C compiler is needed.
    c: bool,
    /// The build's tags, joined by commas (`go help buildconstraint`).
    tags: String,
    name: String,
}

/// How what stands alone is built.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Alone<'a> {
    /// The variables that are told a value: a program with Kubernetes' libraries of its own ends at once when the
    /// version of those is empty, so that it is told none.
    pub(super) told: &'a [(&'a str, &'a str)],
    /// Whether some of it is of C.
    pub(super) c: bool,
    /// Its tags, joined by commas.
    pub(super) tags: &'a str,
}

impl Recipe {
    pub(super) fn read(
        source: &Path,
        version: &str,
        names: &[&'static str],
    ) -> Result<Self, Error> {
        let bundles = source.join("images/bundle");
        let folder = |name: &&'static str| match FOR_ALL_VERSIONS.contains(name) {
            true => bundles.join(name),
            false => bundles.join(version).join(name),
        };
        let folders = names.iter().map(|name| (*name, folder(name)));
        Self::of(version, folders.collect(), ldflags(version), "")
    }

    /// Modules, by their names, in these folders.
    fn of(
        version: &str,
        folders: Vec<(&'static str, PathBuf)>,
        ldflags: String,
        tags: &str,
    ) -> Result<Self, Error> {
        let mut inputs = Inputs::of("bundle")
            .with("recipe", RECIPE)
            .with("version", version)
            .with("go", GO_VERSION)
            .with("ldflags", &ldflags);
        if !tags.is_empty() {
            inputs = inputs.with("tags", tags);
        }
        let (mut modules, mut tools) = (Vec::new(), Vec::new());
        for (name, dir) in folders {
            let has_main = dir.join("main.go").exists();
            let main = has_main.then_some("main.go");
            for file in ["go.mod", "go.sum"].into_iter().chain(main) {
                let path = dir.join(file);
                let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
                inputs = inputs.with(&format!("{name}/{file}"), &text);
                if file == "go.mod" {
                    tools.extend(parse_go_mod(&path, &text, has_main)?);
                }
            }
            let mut files = BTreeSet::new();
            files_below(&dir, Path::new(""), &mut files)?;
            // Those in folders of it stand in for modules that nobody serves.
            for file in files.iter().filter(|file| file.components().count() > 1) {
                let path = dir.join(file);
                let text = fs::read_to_string(&path).map_err(Error::file("read", path))?;
                inputs = inputs.with(&format!("{name}/{}", file.display()), &text);
            }
            let target = if has_main { "." } else { "tool" };
            modules.push(Module { name, dir, target });
        }
        Ok(Self {
            modules,
            tools,
            ldflags,
            c: false,
            tags: tags.to_owned(),
            name: inputs.name(),
        })
    }

    /// A module that is built for itself, in its folder of `images/bundle/`.
    pub(super) fn alone(
        source: &Path,
        name: &'static str,
        Alone { told, c, tags }: Alone<'_>,
    ) -> Result<Self, Error> {
        let told = told
            .iter()
            .map(|(name, value)| format!(" -X {name}={value}"));
        let folder = source.join("images/bundle").join(name);
        let linked = c.then(|| STATIC.to_owned());
        let flags = [STRIPPED.to_owned()].into_iter().chain(told).chain(linked);
        let recipe = Self::of("", vec![(name, folder)], flags.collect(), tags)?;
        Ok(Self { c, ..recipe })
    }

    /// Where its programs are in the folder that they are built into.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<String> {
        self.tools.iter().map(Tool::path).collect()
    }

    /// The name that its programs have among the tools.
    pub(super) fn tool_name(&self, what: &str) -> String {
        format!("{what}-{}", self.name)
    }

    /// The folder of its programs among the tools, when they have been built from today's pins.
    pub(super) fn cached_tool(
        &self,
        workshop: &Workshop<'_>,
        what: &'static str,
    ) -> Result<Option<PathBuf>, Error> {
        let found = (workshop.cache).find(Kind::Tool, &self.tool_name(what), Check::Contents)?;
        Ok(found.usable(what, workshop.report))
    }

    /// The same, built on first use; `more` adds to the folder what no module's `tool` names.
    pub(super) fn tool(
        &self,
        workshop: &Workshop<'_>,
        what: &'static str,
        more: impl FnOnce(&Go, &Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        // Nobody builds a bundle meanwhile: they share Go's build cache, which goes at the end.
        let _lock = workshop.cache.lock("bundle", workshop.report)?;
        if let Some(dir) = self.cached_tool(workshop, what)? {
            return Ok(dir);
        }
        let go = tools::go(workshop)?;
        let staging = workshop.cache.staging(what)?;
        self.build(workshop, &go, staging.path())?;
        more(&go, staging.path())?;
        let dir = (workshop.cache).publish(Kind::Tool, &self.tool_name(what), staging)?;
        go.remove_build_cache()?;
        Ok(dir)
    }

    /// The folder of a module's sources, as published.
    pub(super) fn sources(&self, workshop: &Workshop<'_>, module: &str) -> Result<PathBuf, Error> {
        let pins = self.modules.first().map(|module| module.dir.clone());
        let pins = pins.unwrap_or_default();
        let args = ["mod", "download", "-json", module];
        let command = tools::go(workshop)?.command(&pins, &args);
        let shown = command.display();
        let told = run(workshop.spawner, command, BUILD_LIMIT)?.success(&shown)?;
        let folder = serde_json::from_str(&told.stdout).map(|Downloaded { dir }| dir);
        folder.map_err(|error| Error::Malformed {
            path: pins,
            reason: format!("what `{shown}` says of it: {error}"),
        })
    }

    /// The version of a module, without `v`.
    pub(super) fn version_of(&self, module: &str) -> String {
        let mut tools = self.tools.iter();
        let tool = tools.find(|tool| tool.module == module);
        let version = tool.map_or("", |tool| &tool.module_version);
        version.trim_start_matches('v').to_owned()
    }

    /// Builds all modules, and puts their programs into `dir`.
    pub(super) fn build(
        &self,
        workshop: &Workshop<'_>,
        go: &Go,
        dir: &Path,
    ) -> Result<BTreeMap<String, BundleFile>, Error> {
        let built = workshop.cache.staging("go-build")?;
        let log = workshop.cache.log("bundle.log")?;
        for Module {
            name,
            dir: module,
            target,
        } in &self.modules
        {
            let about = match *name {
                FLANNEL | "flannel-published" | "coredns" => " (about a minute on 2 cores, once)",
                "kube-router" => " (about 2 minutes on 2 cores, once)",
                "calico" | "cilium" | "kubernetes" => " (about 5 minutes on 2 cores, once)",
                _ => "",
            };
            workshop.report.step(&format!("building {name}{about}"));
            let out = format!("{}/", built.path().display());
            // -v names each package as it is compiled: the progress that is shown.
            let args = [
                "build",
                "-v",
                "-trimpath",
                "-buildvcs=false",
                "-tags",
                &self.tags,
                "-ldflags",
                &self.ldflags,
                "-o",
                &out,
                target,
            ];
            run_step(
                workshop,
                &format!("building {name}"),
                go.command(module, &args)
                    .env("CGO_ENABLED", if self.c { "1" } else { "0" }),
                &log,
                BUILD_LIMIT,
            )?;
        }
        let mut files = BTreeMap::new();
        for tool in &self.tools {
            let path = tool.path();
            let (from, to) = (built.path().join(tool.built_as()), place(dir, &path)?);
            fs::rename(&from, &to).map_err(Error::file("take", from))?;
            files.insert(path, described(&to, tool.origin())?);
        }
        Ok(files)
    }
}

/// The name of a version's bundle.
pub(super) fn name(source: &Path, version: &str) -> Result<String, Error> {
    Ok(Recipe::read(source, version, &MODULES)?.name)
}

/// Builds a version's bundle.
pub(super) fn make(workshop: &Workshop<'_>, version: &str) -> Result<Bundle, Error> {
    let recipe = Recipe::read(workshop.source, version, &MODULES)?;
    let go = tools::go(workshop)?;
    let staging = workshop.cache.staging("bundle")?;
    let files = recipe.build(workshop, &go, staging.path())?;
    let wanted = kubeadm_images(workshop, staging.path(), version)?;
    let (etcd, coredns) = (recipe.version_of(ETCD), recipe.version_of(COREDNS));
    agree(&wanted, version, &etcd, &coredns).map_err(|reason| Error::Malformed {
        path: workshop.source.join("images/bundle").join(version),
        reason,
    })?;
    let versions = [
        ("cni-plugins", recipe.version_of(CNI_PLUGINS)),
        ("crictl", recipe.version_of(CRICTL)),
        ("flannel", recipe.version_of(FLANNEL_MODULE)),
    ];
    let manifest = BundleManifest {
        kubernetes: version.to_owned(),
        versions: versions
            .map(|(of, version)| (of.to_owned(), version))
            .into(),
        files,
        kubeadm_images: wanted,
        images: BTreeMap::new(),
    };
    let bundle = publish(workshop, recipe.name, staging, manifest)?;
    go.remove_build_cache()?;
    Ok(bundle)
}

/// Finds out whether the pins are what the version's own kubeadm would run.
fn agree(wanted: &[String], version: &str, etcd: &str, coredns: &str) -> Result<(), String> {
    let tags = [
        ("kube-apiserver:v", version),
        ("coredns:v", coredns),
        // An image has a revision of its own behind etcd's version.
        ("etcd:", etcd),
    ];
    for (image, pinned) in tags {
        let mut found = wanted.iter().filter_map(|name| name.rsplit('/').next());
        let tag = found.find_map(|name| name.strip_prefix(image));
        let agrees = tag.is_some_and(|tag| match image {
            "etcd:" => tag.rsplit_once('-').is_some_and(|(tag, _)| tag == pinned),
            _ => tag == pinned,
        });
        if !agrees {
            return Err(format!(
                "{image}{pinned} is what the pins give, and its kubeadm wants {}",
                wanted.join(", ")
            ));
        }
    }
    Ok(())
}

/// flannel alone, for bundles that have everything else from elsewhere.
pub(super) struct Flannel {
    pub(super) version: String,
    pub(super) files: BTreeMap<String, BundleFile>,
}

/// What flannel is built from, as a part of a bundle's name.
pub(super) fn name_of_flannel(source: &Path) -> Result<String, Error> {
    Ok(Recipe::alone(source, FLANNEL, Alone::default())?.name)
}

/// Builds flannel into a bundle's folder.
pub(super) fn build_flannel(workshop: &Workshop<'_>, dir: &Path) -> Result<Flannel, Error> {
    let recipe = Recipe::alone(workshop.source, FLANNEL, Alone::default())?;
    let go = tools::go(workshop)?;
    let files = recipe.build(workshop, &go, dir)?;
    go.remove_build_cache()?;
    Ok(Flannel {
        version: recipe.version_of(FLANNEL_MODULE),
        files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::component::COMPONENTS;

    fn source() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn every_pinned_version_holds_every_program_that_a_cluster_runs() {
        let versions = super::super::versions(source()).unwrap();
        assert!(versions.contains(&"1.36.4".to_owned()));
        for version in &versions {
            let recipe = Recipe::read(source(), version, &MODULES).unwrap();
            let paths: BTreeSet<String> = recipe.tools.iter().map(Tool::path).collect();
            let components = COMPONENTS.map(|it| it.path.to_owned());
            assert_eq!(paths, components.into(), "{version}");
            assert_eq!(recipe.version_of("k8s.io/kubernetes"), *version);
        }
        let recipe = Recipe::read(source(), "1.36.4", &MODULES).unwrap();
        let mut shown: Vec<String> = recipe
            .tools
            .iter()
            .map(|tool| format!("{} {} {}", tool.path(), tool.module, tool.module_version))
            .collect();
        shown.sort();
        insta::assert_snapshot!(shown.join("\n"), @r"
        bin/coredns github.com/coredns/coredns v1.14.2
        bin/crictl sigs.k8s.io/cri-tools v1.36.0
        bin/etcd go.etcd.io/etcd/server/v3 v3.6.8
        bin/etcdctl go.etcd.io/etcd/etcdctl/v3 v3.6.8
        bin/etcdutl go.etcd.io/etcd/etcdutl/v3 v3.6.8
        bin/flanneld github.com/flannel-io/flannel v0.28.9
        bin/kube-apiserver k8s.io/kubernetes v1.36.4
        bin/kube-controller-manager k8s.io/kubernetes v1.36.4
        bin/kube-proxy k8s.io/kubernetes v1.36.4
        bin/kube-scheduler k8s.io/kubernetes v1.36.4
        bin/kubeadm k8s.io/kubernetes v1.36.4
        bin/kubectl k8s.io/kubernetes v1.36.4
        bin/kubelet k8s.io/kubernetes v1.36.4
        cni/bridge github.com/containernetworking/plugins v1.9.1
        cni/host-local github.com/containernetworking/plugins v1.9.1
        cni/loopback github.com/containernetworking/plugins v1.9.1
        cni/portmap github.com/containernetworking/plugins v1.9.1
        ");
    }

    #[test]
    fn every_version_field_is_given_to_the_linker() {
        insta::assert_snapshot!(ldflags("1.36.4").replace(" -X ", "\n-X "), @r"
        -s -w
        -X k8s.io/component-base/version.gitVersion=v1.36.4
        -X k8s.io/component-base/version.gitMajor=1
        -X k8s.io/component-base/version.gitMinor=36
        -X k8s.io/component-base/version.gitCommit=unknown
        -X k8s.io/component-base/version.gitTreeState=clean
        -X k8s.io/component-base/version.buildDate=1970-01-01T00:00:00Z
        ");
    }

    #[test]
    fn a_go_mod_that_cannot_be_built_is_refused() {
        let path = Path::new("go.mod");
        let refused = |text| parse_go_mod(path, text, false).unwrap_err().to_string();
        insta::assert_snapshot!(refused("module x\n"), @r#""go.mod" is not understood: it names no `tool`"#);
        insta::assert_snapshot!(refused("tool a.b/c/d\nrequire a.b/cc v1\n"), @r#""go.mod" is not understood: no required module has a.b/c/d"#);
        let tools = parse_go_mod(
            path,
            "tool a.b/c/d // x\nrequire (\n\ta.b v0\n\ta.b/c v1 // indirect\n)\n",
            false,
        );
        assert_eq!((tools.unwrap()[0]).module_version, "v1");
        let path = Path::new("x/go.mod");
        let own = |text| parse_go_mod(path, text, true);
        let error = own("module m\nrequire a.b/xx v1\n")
            .unwrap_err()
            .to_string();
        insta::assert_snapshot!(error, @r#""x/go.mod" is not understood: no required module has the name of the folder"#);
        let tools = own("module m/xd\nrequire a.b/x v1\n").unwrap();
        assert_eq!(
            (tools[0].path(), tools[0].module_version.as_str()),
            ("bin/xd".to_owned(), "v1")
        );
    }

    #[test]
    fn a_change_of_any_pin_changes_the_name() {
        let dir = tempfile::tempdir().unwrap();
        for module in MODULES {
            let version = match FOR_ALL_VERSIONS.contains(&module) {
                true => "",
                false => "1.2.3",
            };
            let dir = dir.path().join("images/bundle").join(version).join(module);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("go.mod"), "tool a/b\nrequire a v1\n").unwrap();
            fs::write(dir.join("go.sum"), "").unwrap();
        }
        let name = || name(dir.path(), "1.2.3").unwrap();
        let before = name();
        assert_eq!(name(), before);
        fs::write(dir.path().join("images/bundle/1.2.3/etcd/go.sum"), "x").unwrap();
        let with_etcd = name();
        assert_ne!(with_etcd, before);
        fs::write(dir.path().join("images/bundle/node/go.sum"), "x").unwrap();
        let with_node = name();
        assert_ne!(with_node, with_etcd);
        // What stands in for a module that nobody serves.
        let stand_in = dir.path().join("images/bundle/node/stub/v1");
        fs::create_dir_all(&stand_in).unwrap();
        fs::write(stand_in.join("stub.go"), "package stub").unwrap();
        assert_ne!(name(), with_node);
    }

    #[test]
    fn pins_that_kubeadm_would_not_run_are_refused() {
        let wanted = [
            "registry.k8s.io/kube-apiserver:v1.36.4",
            "registry.k8s.io/coredns/coredns:v1.14.2",
            "registry.k8s.io/etcd:3.6.8-0",
        ]
        .map(str::to_owned);
        let agree = |version, etcd, coredns| agree(&wanted, version, etcd, coredns);
        assert_eq!(agree("1.36.4", "3.6.8", "1.14.2"), Ok(()));
        insta::assert_snapshot!(agree("1.36.4", "3.6.9", "1.14.2").unwrap_err(), @"etcd:3.6.9 is what the pins give, and its kubeadm wants registry.k8s.io/kube-apiserver:v1.36.4, registry.k8s.io/coredns/coredns:v1.14.2, registry.k8s.io/etcd:3.6.8-0");
        agree("1.36.4", "3.6", "1.14.2").unwrap_err();
        agree("1.36.4", "3.6.8", "1.14").unwrap_err();
        agree("1.36.3", "3.6.8", "1.14.2").unwrap_err();
    }
}
