//! The port in the guest.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The port's name, by which QEMU and the guest know it (QEMU, `virtserialport,name=`).
pub const PORT: &str = "podwire.agent";

/// Where the kernel lists ports, each with its name (Linux, drivers/char/virtio_console.c).
const PORTS: &str = "/sys/class/virtio-ports";

/// Why the port cannot be used.
#[derive(Debug)]
pub enum PortError {
    /// No port of that name: the machine has none, or the kernel has not found it yet.
    Absent,
    /// It is there and cannot be opened: another agent has it, for one.
    Open(PathBuf, io::Error),
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "this machine has no virtio-serial port named {PORT}"),
            Self::Open(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for PortError {}

/// Opens the port. It is looked for where the kernel lists it: udev's link under /dev/virtio-ports
/// comes late in a boot, or never.
pub(super) fn open() -> Result<File, PortError> {
    let device = device(Path::new(PORTS)).ok_or(PortError::Absent)?;
    let opened = File::options().read(true).write(true).open(&device);
    opened.map_err(|error| PortError::Open(device, error))
}

fn device(ports: &Path) -> Option<PathBuf> {
    fs::read_dir(ports).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_known_by_its_name() {
        let ports = std::env::temp_dir().join(format!("podwire-ports-{}", std::process::id()));
        for (port, name) in [("vport1p1", "org.qemu.guest_agent.0"), ("vport1p2", PORT)] {
            fs::create_dir_all(ports.join(port)).unwrap();
            fs::write(ports.join(port).join("name"), format!("{name}\n")).unwrap();
        }
        assert_eq!(device(&ports), Some(PathBuf::from("/dev/vport1p2")));
        fs::remove_dir_all(&ports).unwrap();
        assert_eq!(device(&ports), None);
    }
}
