//! A machine's private disk.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use podwire_process::{ChildCommand, Spawner, run};

use crate::error::VmError;

/// qemu-img writes a header of a few hundred KiB; longer means a host that is stuck.
const QEMU_IMG_LIMIT: Duration = Duration::from_secs(60);

/// Makes a qcow2 image that reads from `base` (qcow2) and keeps all writes to itself, for its owner only:
/// guests write keys to it.
///
/// The overlay names its base by absolute path, which must stay valid and unchanged as long as the
/// overlay is used.
///
/// # Errors
/// [`VmError::Overlay`] with qemu-img's words; [`VmError::Spawn`] when nothing can be started.
pub fn create_overlay(qemu_img: &Path, base: &Path, overlay: &Path) -> Result<(), VmError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| VmError::File { path, source }
    };
    let base = std::path::absolute(base).map_err(failed(base))?;
    // qemu-img writes into a file that is there, whose mode stays.
    File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(overlay)
        .map_err(failed(overlay))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_disk_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.qcow2");
        create_overlay(Path::new("true"), &dir.path().join("base"), &disk).unwrap();
        let mode = disk.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
