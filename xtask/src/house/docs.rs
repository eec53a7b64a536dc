//! `cargo xtask docs`: the page that is made of the code.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use podwire_scenarios::catalogue::{PAGE, page};

use crate::say::stop::Stop;

/// Writes docs/scenarios.md in a project's folder.
pub(crate) fn write(project: &Path) -> Result<(), Stop> {
    let path = project.join(PAGE);
    fs::write(&path, page(&podwire_scenarios::all()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    outln!("{PAGE}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_page_is_written_anew() {
        let project = tempfile::tempdir().unwrap();
        let path = project.path().join(PAGE);
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "of yesterday").unwrap();
        write(project.path()).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written, page(&podwire_scenarios::all()));
    }
}
