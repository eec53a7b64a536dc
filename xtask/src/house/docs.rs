//! `cargo xtask docs`: what of the documentation is made of the code.
//!
//! docs/scenarios.md is, as a whole, of the catalogue and the scenarios, which make it themselves, and so is
//! docs/measurements.md of the measurements.
//! docs/writing-a-scenario.md is in parts, of sources of several crates: only a tool reads those.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use podwire_scenarios::{catalogue, measurements};

use crate::say::stop::Stop;

mod guide;
mod source;

/// Writes these pages in a project's folder.
pub(crate) fn write(project: &Path) -> Result<(), Stop> {
    let scenarios = catalogue::page(&podwire_scenarios::all());
    for (page, text) in [
        (catalogue::PAGE, scenarios),
        (
            measurements::PAGE,
            measurements::page(&measurements::measurements()),
        ),
        (guide::PAGE, guide::page(project)?),
    ] {
        let path = project.join(page);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        outln!("{page}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn the_guide_is_of_today_s_code() {
        let there = fs::read_to_string(project().join(guide::PAGE)).unwrap();
        let wanted = guide::page(project()).unwrap();
        let same = wanted.lines().zip(there.lines());
        let same = same.take_while(|(wanted, there)| wanted == there).count();
        assert!(
            there == wanted,
            "{} is stale from line {} on: `cargo xtask docs` writes it anew",
            guide::PAGE,
            same + 1
        );
    }
}
