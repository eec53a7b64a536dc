//! The pictures of the docs: of what real runs have left.

use std::fs;
use std::path::{Path, PathBuf};

use super::chromium::picture;
use super::compared::{compare, finds_a_delay, left};
use super::{laid, latest, workspace};

/// A folder for files over the nodes', as pages are to name it: relative to where the command is typed.
fn files(name: &str) -> PathBuf {
    let asked = Path::new("target/tmp").join(name);
    let there = workspace().join(&asked);
    if there.exists() {
        fs::remove_dir_all(&there).unwrap();
    }
    asked
}

fn take(page: &Path, name: &str) {
    let pictures = workspace().join("docs/pictures");
    fs::create_dir_all(&pictures).unwrap();
    let to = pictures.join(name);
    picture(page, &to);
    assert!(fs::metadata(&to).unwrap().len() > 10_000, "{name}");
}

#[test]
#[ignore = "runs clusters of machines, needs Chromium, and writes docs/pictures/"]
fn of_what_is_broken() {
    let asked = files("firewall");
    laid::lay_out(&workspace().join(&asked));
    let head = format!("--node-files {}", asked.display());
    let output = compare(&head, "every_pair").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (data, _) = left();
    let broken = data["head"]["runs"][0]["folder"].as_str().unwrap();
    take(&latest().join("report.html"), "comparison.png");
    take(&latest().join(broken).join("report.html"), "broken.png");
}

#[test]
#[ignore = "runs clusters of machines for an hour, needs Chromium, and writes docs/pictures/"]
fn of_what_is_slower() {
    finds_a_delay(&files("slow-network"));
    take(&latest().join("report.html"), "slower.png");
}
