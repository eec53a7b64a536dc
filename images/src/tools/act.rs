//! act, which runs GitHub's workflows on this machine: for the tests of this repository's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{GO_VERSION, go};
use crate::command::run_step;
use crate::digest::Inputs;
use crate::{Check, Error, Kind, Workshop};

/// The Go module that names act as its tool, in the project; `go.sum` pins what it is made of.
const MODULE: &str = "images/tools/act";

/// How it is built; the folder that gets the program follows.
const BUILD: [&str; 6] = [
    "build",
    "-trimpath",
    "-buildvcs=false",
    "-ldflags",
    "-s -w",
    "-o",
];

/// How long building it may take on a small, busy host: 2 minutes on 2 free cores.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The pinned act, built on first use.
///
/// # Errors
/// [`Error::Step`] when it does not build, [`Error::MissingProgram`] without any Go.
pub fn act(workshop: &Workshop<'_>) -> Result<PathBuf, Error> {
    let module = workshop.source.join(MODULE);
    let name = name(&module)?;
    let _lock = workshop.cache.lock("act", workshop.report)?;
    let found = workshop.cache.find(Kind::Tool, &name, Check::Contents)?;
    if let Some(dir) = found.usable("act", workshop.report) {
        return Ok(binary(&dir));
    }
    let go = go(workshop)?;
    // Whoever makes a bundle removes Go's build cache.
    let _bundle = workshop.cache.lock("bundle", workshop.report)?;
    workshop
        .report
        .step("building act (about 2 minutes on 2 cores, once)");
    let staging = workshop.cache.staging("act")?;
    let out = format!("{}/bin/", staging.path().display());
    let log = workshop.cache.log("act.log")?;
    let args = [&BUILD[..], &[&out, "tool"]].concat();
    let command = go.command(&module, &args);
    run_step(workshop, "building act", command, &log, BUILD_LIMIT)?;
    go.remove_build_cache()?;
    let dir = workshop.cache.publish(Kind::Tool, &name, staging)?;
    Ok(binary(&dir))
}

fn binary(dir: &Path) -> PathBuf {
    dir.join("bin/act")
}

/// Its name in the cache, by all that it is made of.
fn name(module: &Path) -> Result<String, Error> {
    let mut inputs = Inputs::of("act").with("go", GO_VERSION);
    for file in ["go.mod", "go.sum"] {
        let path = module.join(file);
        let text = fs::read(&path).map_err(Error::file("read", &path))?;
        inputs = inputs.with(file, text);
    }
    let inputs = inputs.with("build", BUILD.join(" "));
    Ok(format!("act-{}", inputs.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_named_by_its_pins() {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(MODULE);
        for file in ["go.mod", "go.sum"] {
            fs::copy(source.join(file), dir.path().join(file)).unwrap();
        }
        let pinned = name(&source).unwrap();
        assert_eq!(name(dir.path()).unwrap(), pinned);
        let text = fs::read_to_string(dir.path().join("go.mod")).unwrap();
        assert!(text.contains("tool github.com/nektos/act\n"), "{text}");
        fs::write(dir.path().join("go.sum"), "").unwrap();
        assert_ne!(name(dir.path()).unwrap(), pinned);
    }
}
