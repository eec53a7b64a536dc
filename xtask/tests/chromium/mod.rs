//! Chromium, without a screen.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-headless-shell",
    "google-chrome",
    "chromium-browser",
];

fn browser() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let mut programs = folders.flat_map(|folder| BROWSERS.map(|name| folder.join(name)));
    let found = programs.find(|program| program.is_file());
    assert!(
        found.is_some(),
        "none of {BROWSERS:?} is on the path: apt-get install chromium"
    );
    found.unwrap()
}

/// Opens a file; what its console gets is on standard error.
pub(crate) fn open(file: &Path, flags: &[&str]) -> Output {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser());
    command.arg("--headless");
    command.args(["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
    command.args([
        "--window-size=1280,800",
        "--enable-logging=stderr",
        "--log-level=0",
    ]);
    command.args(["--disable-background-networking", "--no-first-run"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command
        .args(flags)
        .arg(format!("file://{}", file.display()));
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    done
}

/// Takes a picture of a page's first screen, by day.
pub(crate) fn picture(page: &Path, to: &Path) -> Output {
    let shot = format!("--screenshot={}", to.display());
    // Blink's enumeration: 0 is dark, 1 is light.
    open(page, &[&shot, "--blink-settings=preferredColorScheme=1"])
}
