//! The Kubernetes under test, built from published Go modules.
//!
//! Each folder of `images/bundle/VERSION/` is a Go module whose `tool` directives name the main
//! packages; `go build -o DIR/ tool` builds them all, and `go.sum` pins what they are made of. A
//! folder with a main.go is a program of its own, made from the packages of the module that the
//! folder is named after.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::run_step;
use crate::digest::{Inputs, sha256_file};
use crate::tools::{self, GO_VERSION};
use crate::{Check, Error, Found, Kind, Workshop};

/// The modules of a bundle, the small ones first: what is wrong with Go shows within seconds.
const MODULES: [&str; 5] = ["node", "etcd", "flannel", "coredns", "kubernetes"];

/// Counted up when the way in which a bundle is put together changes.
const RECIPE: &str = "2";

/// How long one module may take: kubernetes needs 5 minutes on 2 free cores.
const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);

const MANIFEST: &str = "manifest.json";

/// A bundle in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Its name: the digest of its inputs.
    pub name: String,
    /// Its folder, with the programs in `bin/` and the CNI plugins in `cni/`.
    pub dir: PathBuf,
    /// What is in it.
    pub manifest: BundleManifest,
}

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleManifest {
    /// Version of Kubernetes, without `v`.
    pub kubernetes: String,
    /// The Go release that built it.
    pub go: String,
    /// Versions of the modules that the programs come from.
    pub modules: BTreeMap<String, String>,
    /// The programs, by path in the bundle: `bin/kubelet`, `cni/bridge`.
    pub files: BTreeMap<String, BundleFile>,
}

/// One program of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleFile {
    /// The main package that it was built from.
    pub package: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The versions that there are pins for, oldest first.
///
/// # Errors
/// [`Error::File`] when images/bundle/ cannot be read.
pub fn versions(source: &Path) -> Result<Vec<String>, Error> {
    let dir = source.join("images/bundle");
    let entries = fs::read_dir(&dir).map_err(Error::file("list", &dir))?;
    let mut versions: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| numbers(name).len() == 3)
        .collect();
    versions.sort_by_key(|version| numbers(version));
    Ok(versions)
}

fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .unwrap_or_default()
}

/// The version that is meant: the newest when none is asked for, `1.36` or `v1.36.4` otherwise.
///
/// # Errors
/// [`Error::UnknownVersion`] with the list of those there are.
pub fn resolve(known: &[String], asked: Option<&str>) -> Result<String, Error> {
    let unknown = || Error::UnknownVersion {
        asked: asked.unwrap_or("(any)").to_owned(),
        known: known.to_vec(),
    };
    let wanted = asked.map(|asked| asked.strip_prefix('v').unwrap_or(asked));
    let fits = |version: &&String| {
        wanted.is_none_or(|wanted| {
            *version == wanted
                || version
                    .strip_prefix(wanted)
                    .is_some_and(|rest| rest.starts_with('.'))
        })
    };
    known.iter().rfind(fits).cloned().ok_or_else(unknown)
}

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
fn ldflags(version: &str) -> String {
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
    format!("-s -w {}", set.join(" "))
}

/// One folder of a bundle's pins.
struct Module {
    name: &'static str,
    dir: PathBuf,
    /// What `go build` is given: its tools, or the folder's own program.
    target: &'static str,
}

struct Recipe {
    version: String,
    modules: Vec<Module>,
    tools: Vec<Tool>,
    name: String,
}

impl Recipe {
    fn read(source: &Path, version: &str) -> Result<Self, Error> {
        let dir = source.join("images/bundle").join(version);
        let mut inputs = Inputs::of("bundle")
            .with("recipe", RECIPE)
            .with("version", version)
            .with("go", GO_VERSION)
            .with("ldflags", ldflags(version));
        let (mut modules, mut tools) = (Vec::new(), Vec::new());
        for name in MODULES {
            let dir = dir.join(name);
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
            let target = if has_main { "." } else { "tool" };
            modules.push(Module { name, dir, target });
        }
        Ok(Self {
            version: version.to_owned(),
            modules,
            tools,
            name: inputs.name(),
        })
    }
}

/// The bundle of a version when it is in the cache, whole and unaltered; builds nothing.
///
/// # Errors
/// [`Error`] when pins or cache cannot be read.
pub fn cached(workshop: &Workshop<'_>, version: &str) -> Result<Option<Bundle>, Error> {
    find(workshop, &Recipe::read(workshop.source, version)?)
}

fn find(workshop: &Workshop<'_>, recipe: &Recipe) -> Result<Option<Bundle>, Error> {
    match workshop
        .cache
        .find(Kind::Bundle, &recipe.name, Check::Contents)?
    {
        Found::Absent => Ok(None),
        Found::Damaged(why) => {
            workshop.report.step(&format!(
                "the cached bundle is damaged and is built again: {why}"
            ));
            Ok(None)
        }
        Found::Intact(dir) => {
            let path = dir.join(MANIFEST);
            let text = fs::read(&path).map_err(Error::file("read", &path))?;
            let manifest = serde_json::from_slice(&text).map_err(|error| Error::Malformed {
                path,
                reason: error.to_string(),
            })?;
            Ok(Some(Bundle {
                name: recipe.name.clone(),
                dir,
                manifest,
            }))
        }
    }
}

/// The bundle of a version, built when it is not in the cache or its inputs have changed.
///
/// # Errors
/// [`Error::MissingProgram`] without Go, [`Error::Step`] when something does not build.
pub fn get(workshop: &Workshop<'_>, version: &str) -> Result<Bundle, Error> {
    let recipe = Recipe::read(workshop.source, version)?;
    let _lock = workshop.cache.lock("bundle", workshop.report)?;
    if let Some(bundle) = find(workshop, &recipe)? {
        return Ok(bundle);
    }
    let go = tools::go(workshop)?;
    let staging = workshop.cache.staging("bundle")?;
    let built = workshop.cache.staging("go-build")?;
    let log = workshop.cache.folder("logs")?.join("bundle.log");
    let flags = ldflags(version);
    for Module { name, dir, target } in &recipe.modules {
        let about = match *name {
            "flannel" | "coredns" => " (about a minute on 2 cores, once)",
            "kubernetes" => " (about 5 minutes on 2 cores, once)",
            _ => "",
        };
        workshop
            .report
            .step(&format!("building {name} of the bundle {version}{about}"));
        let out = format!("{}/", built.path().display());
        // -v names each package as it is compiled: the progress that is shown.
        let args = [
            "build",
            "-v",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            &flags,
            "-o",
            &out,
            target,
        ];
        run_step(
            workshop,
            &format!("building {name} for the bundle"),
            go.command(dir, &args),
            &log,
            BUILD_LIMIT,
        )?;
    }
    let manifest = collect(&recipe, built.path(), staging.path())?;
    let path = staging.path().join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Error::file("write", &path)(error.into()))?;
    fs::write(&path, text).map_err(Error::file("write", &path))?;
    let dir = workshop
        .cache
        .publish(Kind::Bundle, &recipe.name, staging)?;
    go.remove_build_cache()?;
    Ok(Bundle {
        name: recipe.name,
        dir,
        manifest,
    })
}

fn collect(recipe: &Recipe, from: &Path, to: &Path) -> Result<BundleManifest, Error> {
    let (mut modules, mut files) = (BTreeMap::new(), BTreeMap::new());
    for tool in &recipe.tools {
        let (built, path) = (from.join(tool.built_as()), tool.path());
        let target = to.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::file("make", parent))?;
        }
        fs::rename(&built, &target).map_err(Error::file("take", &built))?;
        let size = fs::metadata(&target)
            .map_err(Error::file("look at", &target))?
            .len();
        let sha256 = sha256_file(&target).map_err(Error::file("read", &target))?;
        modules.insert(tool.module.clone(), tool.module_version.clone());
        files.insert(
            path,
            BundleFile {
                package: tool.package.clone(),
                size,
                sha256,
            },
        );
    }
    Ok(BundleManifest {
        kubernetes: recipe.version.clone(),
        go: GO_VERSION.to_owned(),
        modules,
        files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn known() -> Vec<String> {
        ["1.35.9", "1.35.10", "1.36.4"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_version_is_found_by_any_of_its_spellings() {
        let resolved = |asked| resolve(&known(), asked).unwrap();
        assert_eq!(resolved(None), "1.36.4");
        assert_eq!(resolved(Some("1.36")), "1.36.4");
        assert_eq!(resolved(Some("v1.36.4")), "1.36.4");
        assert_eq!(resolved(Some("1.35")), "1.35.10");
        for unknown in ["1.3", "1.37", "1.36.40", "", "latest"] {
            let error = resolve(&known(), Some(unknown)).unwrap_err().to_string();
            assert!(
                error.ends_with("there is: 1.35.9, 1.35.10, 1.36.4"),
                "{error}"
            );
        }
    }

    #[test]
    fn versions_are_the_folders_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["1.36.4", "1.35.10", "1.35.9", "notes", "1.36"] {
            fs::create_dir_all(dir.path().join("images/bundle").join(name)).unwrap();
        }
        assert_eq!(versions(dir.path()).unwrap(), known());
    }

    #[test]
    fn the_pinned_versions_hold_every_program_that_a_cluster_runs() {
        let versions = versions(source()).unwrap();
        assert!(versions.contains(&"1.36.4".to_owned()));
        let recipe = Recipe::read(source(), "1.36.4").unwrap();
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
            let dir = dir.path().join("images/bundle/1.2.3").join(module);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("go.mod"), "tool a/b\nrequire a v1\n").unwrap();
            fs::write(dir.join("go.sum"), "").unwrap();
        }
        let name = || Recipe::read(dir.path(), "1.2.3").unwrap().name;
        let before = name();
        assert_eq!(name(), before);
        fs::write(dir.path().join("images/bundle/1.2.3/etcd/go.sum"), "x").unwrap();
        assert_ne!(name(), before);
    }

    proptest! {
        #[test]
        fn resolving_never_gives_another_minor_version(minor in 0_u32..60, patch in 0_u32..20) {
            let asked = format!("1.{minor}.{patch}");
            match resolve(&known(), Some(&asked)) {
                Ok(version) => prop_assert_eq!(version, asked),
                Err(_) => prop_assert!(!known().contains(&asked)),
            }
        }
    }
}
