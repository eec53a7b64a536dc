//! The program that nextest lists and runs: one process per scenario, or per measurement.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.parent().unwrap_or(package);
    let mut all = podwire_scenarios::all();
    all.extend(podwire_scenarios::measurements::measurements());
    podwire_scenario::run_main(all, workspace)
}
