//! With real machines, from an empty cache: podwire, its tools and its images are built in the first runs.

use std::fs;
use std::path::Path;

use crate::github::GitHub;

/// A cluster and one scenario of a few seconds.
const QUICK: &str = "--bootstrap=by-hand\n            --filter=api_server_names";

fn step(args: &str, more: &str) -> String {
    format!(
        "  network:
    runs-on: ubuntu-24.04
    steps:
      - uses: owner/podwire@v1
        with:
          args: |
            {args}
{more}"
    )
}

/// The names of all files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let entries = entries.map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path.display().to_string()],
    });
    below.collect()
}

#[test]
#[ignore = "builds act and all of podwire, and runs clusters of machines"]
fn refused_green_and_red_each_begin_with_what_the_one_before_has_built() {
    let github = GitHub::new();
    let emulated = "          require-kvm: false\n";

    let refused = github.push(&step("--filter=nothing_of_that_name", emulated));
    assert!(!refused.passed, "{}", refused.log);
    let page = &refused.page;
    assert!(
        page.starts_with("podwire ended before it had results."),
        "{page}"
    );
    assert!(page.contains("nothing_of_that_name"), "{page}");
    assert!(!page.contains("Compiling"), "{page}");
    assert!(!refused.artifact("podwire-results").exists());

    let green = github.push(&step(QUICK, emulated));
    assert!(green.passed, "{}\n{}", green.page, green.log);
    assert!(
        green.page.starts_with("### podwire: 1 passed\n"),
        "{}",
        green.page
    );
    let results = green.results("podwire-results");
    assert_eq!(results["scenarios"][0]["name"], "api_server_names");
    assert_eq!(results["scenarios"][0]["outcome"], "passed");
    let artifact = files(&green.artifact("podwire-results"));
    assert!(artifact.iter().any(|name| name.ends_with("/junit.xml")));
    let large = |name: &&String| name.ends_with(".qcow2") || name.ends_with(".ram");
    assert_eq!(artifact.iter().find(large), None);
    let caches = github.caches();
    let cargo = "restore podwire-cargo-Linux:v1:podwire-results:B:2-1: podwire-cargo-Linux:v1:podwire-results:A:1-1";
    assert!(caches.iter().any(|line| line == cargo), "{caches:#?}");

    let red = github.push(
        r#"  network:
    uses: owner/podwire/.github/workflows/podwire.yml@v1
    with:
      podwire: owner/podwire
      version: v1
      args: |
        --bootstrap=by-hand
        --filter=static_routes
        --break=route
      require-kvm: false
"#,
    );
    assert!(!red.passed, "{}", red.log);
    assert!(
        red.page.starts_with("### podwire: 1 failed\n"),
        "{}\n{}",
        red.page,
        red.log
    );
    let results = red.results("podwire-results");
    let scenario = &results["scenarios"][0];
    assert_eq!(scenario["outcome"], "failed");
    let reason = scenario["reason"].as_str().unwrap();
    assert!(reason.contains("expected "), "{reason}");
    let folder = scenario["folder"].as_str().unwrap();
    let folder = red.artifact("podwire-results").join(folder);
    assert!(folder.join("first-page.md").exists());
    assert!(folder.join("evidence/node1/journal.txt").exists());
    let phases = results["phases"].as_array().unwrap();
    for built in ["tools", "base image", "bundle", "node image"] {
        let phase = phases.iter().find(|phase| phase["name"] == built);
        assert_eq!(phase.unwrap()["cached"], true, "{phases:#?}");
    }

    if !Path::new("/dev/kvm").exists() {
        let demanded = github.push(&step(QUICK, ""));
        assert!(!demanded.passed, "{}", demanded.log);
        assert!(demanded.page.contains("--require-kvm"), "{}", demanded.page);
    }
}
