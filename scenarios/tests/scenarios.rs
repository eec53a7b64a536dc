//! The program that nextest lists and runs: one process per scenario.

fn main() -> std::process::ExitCode {
    podwire_scenario::run_main(podwire_scenarios::catalogue())
}
