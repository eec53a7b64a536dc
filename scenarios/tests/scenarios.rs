//! The program that nextest lists and runs: one process per scenario.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.parent().unwrap_or(package);
    podwire_scenario::run_main(podwire_scenarios::all(), workspace)
}
