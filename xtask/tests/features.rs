//! Whatever is built, cargo resolves the same features for it: with others it would compile a package again, and
//! all that stands on it, which for tokio or serde is nearly everything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::process::Command;

/// The sets of packages that a fresh machine builds one after the other, and the kinds of dependencies that count.
const BUILDS: [(&str, &[&str]); 4] = [
    (
        "cargo xtask",
        &["--package", "xtask", "--edges", "normal,build"],
    ),
    (
        "the tests without QEMU",
        &["--workspace", "--edges", "normal,build,dev"],
    ),
    (
        "the tests of the catalogue",
        &[
            "--package",
            "podwire-scenarios",
            "--edges",
            "normal,build,dev",
        ],
    ),
    (
        "the tests and scenarios",
        &[
            "--package",
            "podwire-tests",
            "--package",
            "podwire-scenarios",
            "--edges",
            "normal,build,dev",
        ],
    ),
];

/// The features of a package, by its name and version: more than one set where those of a build script's are others.
type Features = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_package_is_compiled_once() {
    let resolved = BUILDS.map(|(name, packages)| (name, resolved(packages).unwrap()));
    let (first, features) = &resolved[0];
    assert!(features.len() > 100, "{first} is made of {features:?}");
    for (index, (name, features)) in resolved.iter().enumerate() {
        for (earlier, before) in &resolved[..index] {
            for (package, own) in features {
                let Some(before) = before.get(package) else {
                    continue;
                };
                assert_eq!(
                    before, own,
                    "{package}: compiled for {earlier}, and again for {name}"
                );
            }
        }
    }
}

/// As `cargo tree` tells them, a line for each place of a package in the tree.
fn resolved(packages: &[&str]) -> io::Result<Features> {
    let told = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        // Twice a space: a package without features has nothing behind it.
        .args(["--format", "{p}  {f}"])
        .args(packages)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()?;
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{said}");
    let mut features = Features::new();
    for line in String::from_utf8_lossy(&told.stdout).lines() {
        let Some((package, own)) = line.split_once("  ") else {
            continue;
        };
        let own = own.trim_end_matches(" (*)").trim_end();
        features
            .entry(package.to_owned())
            .or_default()
            .insert(own.to_owned());
    }
    Ok(features)
}
