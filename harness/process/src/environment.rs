//! The environment of a user's program: as it was before cargo, rustup and nextest added to it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What `cargo run` and nextest tell a program about its package, rustup's proxies whoever they start, and nextest a
/// test (Cargo Book, "Environment Variables"; rustup's and nextest's chapters of that name). What says how the user
/// wants cargo to work (`CARGO_HOME`, `CARGO_TARGET_DIR`) stays.
const NAMES: [&str; 6] = [
    "CARGO",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "RUST_RECURSION_COUNT",
];

/// The same, by how their names begin.
const BEGINNINGS: [&str; 4] = ["CARGO_BIN_EXE_", "NEXTEST", "RUSTUP_TOOLCHAIN", "__NEXTEST"];

/// How the names of those begin by which `cargo run` tells a program about its package.
const OF_PACKAGE: [&str; 2] = ["CARGO_MANIFEST_", "CARGO_PKG_"];

/// To which `cargo run` and rustup's proxies add folders in front.
const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// What is to be set, or removed, of these variables for a program of the user's, where this one is at `own`.
pub(crate) fn users(
    inherited: &[(OsString, OsString)],
    own: Option<&Path>,
) -> Vec<(OsString, Option<OsString>)> {
    let value = |name: &str| inherited.iter().find(|(it, _)| it == name).map(|it| &it.1);
    let added = added(value("CARGO"), value("RUSTUP_HOME"), own);
    let changed = inherited.iter().filter_map(|(name, value)| {
        let known = name.to_str()?;
        if known == LIBRARIES {
            Some((name.clone(), behind(value, &added)))
        } else {
            let begins = BEGINNINGS.iter().any(|it| known.starts_with(it));
            let ours = NAMES.contains(&known) || begins || is_of_package(name);
            ours.then(|| (name.clone(), None))
        }
    });
    changed.collect()
}

/// Whether a variable of this name tells a program about its package.
pub(crate) fn is_of_package(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    OF_PACKAGE.iter().any(|it| name.starts_with(it.as_bytes()))
}

/// Below which folders the libraries are that cargo and rustup add.
fn added(cargo: Option<&OsString>, rustup: Option<&OsString>, own: Option<&Path>) -> Vec<PathBuf> {
    let toolchain = cargo.and_then(|cargo| Path::new(cargo).parent()?.parent());
    // `target/debug`, also of a test's program in `target/debug/deps`.
    let profile = own.and_then(Path::parent);
    let profile = profile.and_then(|it| {
        if it.ends_with("deps") {
            it.parent()
        } else {
            Some(it)
        }
    });
    let all = [
        toolchain.map(|it| it.join("lib/rustlib")),
        rustup.map(|it| Path::new(it).join("toolchains")),
        profile.map(Path::to_owned),
    ];
    all.into_iter().flatten().collect()
}

/// What stands in a search path behind folders that lie in one of these; nothing where that is all.
fn behind(path: &OsStr, added: &[PathBuf]) -> Option<OsString> {
    let ours = |folder: &PathBuf| added.iter().any(|it| folder.starts_with(it));
    let rest: Vec<PathBuf> = env::split_paths(path).skip_while(ours).collect();
    // What was split has no separator in it.
    env::join_paths(&rest).ok().filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(inherited: &[(&str, &str)], own: &str) -> String {
        let inherited: Vec<(OsString, OsString)> = inherited
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let changed = users(&inherited, Some(Path::new(own)));
        let lines = changed.iter().map(|(name, value)| match value {
            None => format!("-{}", name.display()),
            Some(value) => format!("{}={}", name.display(), value.display()),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_program_of_the_user_s_is_told_nothing_of_the_cargo_that_runs_podwire() {
        let kept = [
            ("CARGO_HOME", "/home/u/.cargo"),
            ("CARGO_INCREMENTAL", "0"),
            ("CARGO_TARGET_DIR", "/t"),
            ("CARGOES", "1"),
            ("HOME", "/home/u"),
            ("RUSTFLAGS", "-g"),
            ("RUSTUP_HOME", "/home/u/.rustup"),
        ];
        assert_eq!(changed(&kept, "/p/target/debug/xtask"), "");
        // By cargo, by rustup, by nextest.
        let gone = [
            "CARGO",
            "CARGO_BIN_NAME",
            "CARGO_BIN_EXE_xtask",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_VERSION_PRE",
            "RUSTUP_TOOLCHAIN",
            "RUSTUP_TOOLCHAIN_SOURCE",
            "RUST_RECURSION_COUNT",
            "NEXTEST",
            "NEXTEST_RUN_ID",
            "__NEXTEST_ATTEMPT",
        ];
        let inherited = gone.map(|name| (name, "x"));
        let expected = gone.map(|name| format!("-{name}")).join("\n");
        assert_eq!(changed(&inherited, "/p/target/debug/xtask"), expected);
    }

    #[test]
    fn a_search_path_for_libraries_is_the_user_s_again() {
        let toolchains = "/home/u/.rustup/toolchains";
        let of = |path: &str, own: &str| {
            let cargo = format!("{toolchains}/stable/bin/cargo");
            let inherited = [
                ("RUSTUP_HOME", "/home/u/.rustup"),
                ("CARGO_HOME", "/home/u/.cargo"),
                ("LD_LIBRARY_PATH", path),
            ];
            let with_cargo = [&inherited[..], &[("CARGO", cargo.as_str())]].concat();
            let said = changed(&with_cargo, own);
            said.replace("\n-CARGO", "").replace("-CARGO\n", "")
        };
        let own = "/p/target/debug/xtask";
        let cargos = format!(
            "/p/target/debug/build/a-1/out:/p/target/debug:/p/target/debug/deps:\
             {toolchains}/stable/lib/rustlib/x86_64-unknown-linux-gnu/lib:{toolchains}/1.95.0/lib"
        );
        assert_eq!(of(&cargos, own), "-LD_LIBRARY_PATH");
        let path = format!("{cargos}:/opt/lib:/p/target/debug");
        let users = "LD_LIBRARY_PATH=/opt/lib:/p/target/debug";
        assert_eq!(of(&path, own), users);
        assert_eq!(of(&path, "/p/target/debug/deps/podwire_scenarios-1"), users);
        assert_eq!(of("/opt/lib", own), "LD_LIBRARY_PATH=/opt/lib");

        // A cargo of the system's has its libraries beside those of others.
        let of_system = [
            ("CARGO", "/usr/bin/cargo"),
            (
                "LD_LIBRARY_PATH",
                "/p/target/debug:/usr/lib/rustlib/x/lib:/usr/lib/mine",
            ),
        ];
        assert_eq!(
            changed(&of_system, own),
            "-CARGO\nLD_LIBRARY_PATH=/usr/lib/mine"
        );
    }
}
