//! The static guest program, built from this workspace.
//!
//! It is kept under the digest of the sources that go into it: two checkouts with the same sources
//! share one program, and cargo, whose own notion of what is current has the checkout's path in it,
//! is only asked for sources that were never built.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::ChildCommand;

use crate::cache::remove_all;
use crate::command::run_step;
use crate::digest::sha256_file;
use crate::files::files_below;
use crate::{Check, Error, Inputs, Kind, Workshop};

/// The target whose glibc can be linked statically without another toolchain.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the compiler is told, beside where the sources are.
const FLAGS: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Cstrip=symbols"];

/// Its package's folder, in the project.
const PACKAGE: &str = "harness/probe";

/// Its name.
const PROGRAM: &str = "probe";

/// How long cargo may take for it.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The built program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it is.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
}

/// The program of the workshop's sources, built when these never were.
///
/// # Errors
/// [`Error::Step`] with cargo's last lines; [`Error::File`] or [`Error::Malformed`] for sources that
/// cannot be read.
pub fn build(workshop: &Workshop<'_>) -> Result<Probe, Error> {
    get(workshop, |target| {
        let log = workshop.cache.log("probe.log")?;
        let command = cargo(workshop.source, target);
        run_step(workshop, "building the guest program", command, &log, LIMIT)?;
        Ok(target.join(TARGET).join("release").join(PROGRAM))
    })
}

fn cargo(source: &Path, target: &Path) -> ChildCommand {
    let remap = format!("--remap-path-prefix={}=podwire", source.display());
    let flags = FLAGS.iter().copied().chain([remap.as_str()]);
    ChildCommand::new("cargo")
        .args([
            "build",
            "--locked",
            "--release",
            "--package",
            "podwire-probe",
            "--bin",
            PROGRAM,
        ])
        .args(["--target", TARGET])
        .outside_cargo()
        .env("CARGO_TARGET_DIR", target)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags.collect::<Vec<_>>().join("\u{1f}"),
        )
        .dir(source)
}

/// The stored program, or what `compile` makes in the folder that it is given.
fn get(
    workshop: &Workshop<'_>,
    compile: impl FnOnce(&Path) -> Result<PathBuf, Error>,
) -> Result<Probe, Error> {
    let cache = workshop.cache;
    let name = format!("{PROGRAM}-{}", key(workshop.source)?);
    let find = || -> Result<Option<PathBuf>, Error> {
        let found = cache.find(Kind::Tool, &name, Check::Contents)?;
        Ok(found.usable("guest program", workshop.report))
    };
    if let Some(dir) = find()? {
        return program(&dir);
    }
    let _lock = cache.lock(PROGRAM, workshop.report)?;
    // Somebody else may have built it meanwhile.
    if let Some(dir) = find()? {
        return program(&dir);
    }
    workshop
        .report
        .step("building the guest program (about 20 seconds, once)");
    let staging = cache.staging(PROGRAM)?;
    // Kept when interrupted, so that the next run goes on where this one stopped.
    cache.hold(&cache.folder("build")?)?;
    let target = cache.folder("build/probe")?;
    let built = compile(&target)?;
    fs::copy(&built, staging.path().join(PROGRAM)).map_err(Error::file("copy", built))?;
    let dir = cache.publish(Kind::Tool, &name, staging)?;
    remove_all(&target).map_err(Error::file("remove", target))?;
    program(&dir)
}

fn program(dir: &Path) -> Result<Probe, Error> {
    let path = dir.join(PROGRAM);
    let sha256 = sha256_file(&path).map_err(Error::file("read", &path))?;
    Ok(Probe { path, sha256 })
}

/// The digest of all that decides what the program becomes. Where the project is does not.
fn key(source: &Path) -> Result<String, Error> {
    let mut files: BTreeSet<PathBuf> = [
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
        ".cargo/config.toml",
    ]
    .into_iter()
    .map(PathBuf::from)
    .filter(|file| source.join(file).exists())
    .collect();
    for package in packages(source)? {
        files.insert(package.join("Cargo.toml"));
        files.extend(Some(package.join("build.rs")).filter(|file| source.join(file).exists()));
        files_below(source, &package.join("src"), &mut files)?;
    }
    let inputs = Inputs::of("guest program")
        .with("target", TARGET)
        .with("flags", FLAGS.join(" "));
    let inputs = files.iter().try_fold(inputs, |inputs, file| {
        let path = source.join(file);
        let text = fs::read(&path).map_err(Error::file("read", &path))?;
        Ok::<_, Error>(inputs.with(&file.to_string_lossy(), text))
    })?;
    Ok(inputs.name())
}

/// Its package and those of this project that it needs, by their folders in the project.
fn packages(source: &Path) -> Result<BTreeSet<PathBuf>, Error> {
    let workspace = manifest(&source.join("Cargo.toml"))?;
    let shared = workspace
        .get("workspace")
        .and_then(|it| it.get("dependencies"));
    let (mut found, mut next) = (BTreeSet::new(), vec![PathBuf::from(PACKAGE)]);
    while let Some(package) = next.pop() {
        if !found.insert(package.clone()) {
            continue;
        }
        let manifest = manifest(&source.join(&package).join("Cargo.toml"))?;
        let path = |it: &toml::Value| Some(PathBuf::from(it.get("path")?.as_str()?));
        for section in ["dependencies", "build-dependencies"] {
            let dependencies = manifest.get(section).and_then(toml::Value::as_table);
            for (name, dependency) in dependencies.into_iter().flatten() {
                let own = path(dependency).map(|it| package.join(it));
                let inherited = || path(shared?.get(name)?);
                let is_inherited = dependency.get("workspace").is_some();
                next.extend(own.or_else(|| is_inherited.then(inherited).flatten()));
            }
        }
    }
    Ok(found)
}

fn manifest(path: &Path) -> Result<toml::Table, Error> {
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    text.parse()
        .map_err(|error: toml::de::Error| Error::Malformed {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;
    use crate::test_host::Heard;
    use podwire_process::Spawner;
    use std::cell::Cell;

    /// A project whose guest program needs one other package of it, and one that it does not need.
    fn checkout(dir: &Path) {
        let files = [
            (
                "Cargo.toml",
                "[workspace.dependencies]\nserde = \"1\"\nwire = { path = \"harness/wire\" }\n",
            ),
            ("Cargo.lock", "version = 4\n"),
            (
                "harness/probe/Cargo.toml",
                "[dependencies]\nserde.workspace = true\nwire.workspace = true\n",
            ),
            ("harness/probe/src/main.rs", "fn main() {}\n"),
            (
                "harness/wire/Cargo.toml",
                "[build-dependencies]\nframes = { path = \"frames\" }\n",
            ),
            ("harness/wire/src/lib.rs", ""),
            ("harness/wire/frames/Cargo.toml", "[package]\n"),
            ("harness/wire/frames/src/deep/frame.rs", ""),
            ("harness/other/Cargo.toml", ""),
            ("harness/other/src/lib.rs", ""),
        ];
        for (file, text) in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn checkouts_with_the_same_sources_share_one_program() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let (spawner, heard) = (Spawner::start().unwrap(), Heard::default());
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        checkout(&one);
        checkout(&two);
        let compiled = Cell::new(0);
        let build = |source: &Path| {
            let workshop = Workshop {
                cache: &cache,
                spawner: &spawner,
                report: &heard,
                source,
            };
            get(&workshop, |target| {
                compiled.set(compiled.get() + 1);
                let path = target.join("out");
                fs::write(&path, format!("program {}", compiled.get())).unwrap();
                Ok(path)
            })
            .unwrap()
        };
        let first = build(&one);
        assert_eq!(first, build(&two));
        assert_eq!(first, build(&one));
        assert_eq!(compiled.get(), 1);
        // Nothing of cargo's stays, and each build was said.
        assert!(!cache.root().join("build/probe").exists());
        assert_eq!(heard.0.borrow().len(), 1);

        // Beside each other, two different ones stay.
        fs::write(two.join("harness/wire/frames/src/deep/frame.rs"), "x").unwrap();
        assert_ne!(first, build(&two));
        assert_eq!(first, build(&one));
        assert_eq!(compiled.get(), 2);

        // A damaged one is not used.
        fs::write(&first.path, "altered").unwrap();
        assert_ne!(build(&one).sha256, first.sha256);
        assert_eq!(compiled.get(), 3);
    }

    #[test]
    fn all_that_goes_into_the_program_and_nothing_else_decides_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        checkout(root);
        let before = key(root).unwrap();
        let changes = |file: &str| {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), format!("{text}\n# more\n")).unwrap();
            let changed = key(root).unwrap() != before;
            fs::remove_file(root.join(file)).unwrap();
            checkout(root);
            changed
        };
        for file in [
            "Cargo.toml",
            "Cargo.lock",
            "rust-toolchain.toml",
            ".cargo/config.toml",
            "harness/probe/Cargo.toml",
            "harness/probe/src/main.rs",
            "harness/wire/src/lib.rs",
            "harness/wire/build.rs",
            "harness/wire/frames/src/deep/frame.rs",
        ] {
            assert!(changes(file), "{file}");
        }
        for file in ["harness/other/src/lib.rs", "harness/probe/tests/program.rs"] {
            assert!(!changes(file), "{file}");
        }
        assert_eq!(key(root).unwrap(), before);
    }

    #[test]
    fn the_guest_program_of_this_project_has_a_key() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert!(packages(source).unwrap().contains(Path::new(PACKAGE)));
        assert_eq!(key(source).unwrap().len(), 20);
    }
}
