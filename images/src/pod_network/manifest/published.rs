//! What becomes of files as people have them at hand: `images/tests/published`, and the table of them in
//! `docs/pod-network.md`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;

use super::{PodNetworkManifest, Terms};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn terms(pull_policy_as_present: bool) -> Terms {
    Terms {
        pods: Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 16),
        pull_policy_as_present,
        by_hand: true,
    }
}

/// What is said of a file, as `--pod-network` has it.
fn outcome(name: &str, text: &str, pull_policy_as_present: bool) -> String {
    let path = Path::new(name);
    let read = PodNetworkManifest::parse(path, text.to_owned(), terms(pull_policy_as_present));
    let read = read.and_then(|manifest| manifest.check(path, &[]).map(|()| manifest));
    let manifest = match read {
        Err(refused) => {
            let said = refused.to_string();
            let said = said.strip_prefix(&format!("{name}:")).unwrap_or(&said);
            return format!("refused, line {said}");
        }
        Ok(manifest) => manifest,
    };
    let controllers = manifest.controllers.iter();
    let controllers: Vec<_> = controllers
        .map(|it| format!("{:?} {}/{}", it.kind, it.namespace, it.name))
        .collect();
    let images = manifest.images.keys();
    let images: Vec<_> = images.map(|name| format!("`{name}`")).collect();
    format!(
        "accepted: waits for {}; images {}",
        controllers.join(", "),
        images.join(", ")
    )
}

/// The table, a line for each file, and one more where the flag changes what is said.
fn table() -> String {
    let files = fs::read_dir(folder().join("tests/published")).unwrap();
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it != "md"));
    paths.sort();
    let mut table = "| file | what becomes of it |\n|---|---|\n".to_owned();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy();
        let text = fs::read_to_string(&path).unwrap();
        let (written, present) = (outcome(&name, &text, false), outcome(&name, &text, true));
        table += &format!("| `{name}` | {} |\n", written.replace('|', "\\|"));
        if present != written {
            table += &format!(
                "| the same with `--pull-policy-as-present` | {} |\n",
                present.replace('|', "\\|")
            );
        }
    }
    table
}

#[test]
fn what_becomes_of_published_files_is_as_the_docs_have_it() {
    let docs = fs::read_to_string(folder().join("../docs/pod-network.md")).unwrap();
    let table = table();
    assert!(
        docs.contains(&table),
        "docs/pod-network.md is to have\n{table}"
    );
}

#[test]
fn a_published_file_that_asks_no_registry_is_applied_byte_for_byte() {
    for name in ["calico-vxlan.yaml", "install-kindnet.yaml", "antrea.yml"] {
        let text = fs::read_to_string(folder().join("tests/published").join(name)).unwrap();
        for pull_policy_as_present in [false, true] {
            let terms = terms(pull_policy_as_present);
            let read = PodNetworkManifest::parse(Path::new(name), text.clone(), terms);
            assert_eq!(read.unwrap().text, text, "{name}");
        }
    }
}
