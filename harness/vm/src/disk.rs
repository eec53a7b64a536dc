//! A machine's private disk.

use std::path::Path;
use std::time::Duration;

use podwire_process::{ChildCommand, Spawner, run};

use crate::machine::VmError;

/// qemu-img writes a header of a few hundred KiB; longer means a host that is stuck.
const QEMU_IMG_LIMIT: Duration = Duration::from_secs(60);

/// Makes a qcow2 image that reads from `base` (qcow2) and keeps all writes to itself.
///
/// The overlay names its base by absolute path, which must stay valid and unchanged as long as the
/// overlay is used.
///
/// # Errors
/// [`VmError::Overlay`] with qemu-img's words; [`VmError::Spawn`] when nothing can be started.
pub fn create_overlay(qemu_img: &Path, base: &Path, overlay: &Path) -> Result<(), VmError> {
    let base = std::path::absolute(base).map_err(|source| VmError::File {
        path: base.to_owned(),
        source,
    })?;
    let command = ChildCommand::new(qemu_img)
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .args([&base, overlay]);
    let shown = command.display();
    run(&Spawner::start()?, command, QEMU_IMG_LIMIT)
        .and_then(|done| done.success(&shown))
        .map_err(|source| VmError::Overlay {
            overlay: overlay.to_owned(),
            base,
            source,
        })?;
    Ok(())
}
