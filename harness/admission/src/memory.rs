//! The memory that can be had here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why the machine's memory is not known.
#[derive(Debug, thiserror::Error)]
#[error("cannot learn from {path} how much memory there is")]
pub struct MemoryError {
    /// The kernel's file.
    path: PathBuf,
    /// The operating system's answer.
    source: io::Error,
}

/// Figures of the host's memory in bytes, or of the control group's where that gives less
/// (a container's limit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All there is: `MemTotal` (proc_meminfo(5)), or the limit.
    pub total: u64,
    /// What can be had without swapping: `MemAvailable`, or what the limit leaves.
    pub available: u64,
}

/// Where cgroup v2 is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

impl Memory {
    /// The memory of this host now.
    ///
    /// # Errors
    /// [`MemoryError`] when /proc/meminfo cannot be read or lacks a figure.
    pub fn of_host() -> Result<Self, MemoryError> {
        let path = Path::new("/proc/meminfo");
        let failed = |source| MemoryError {
            path: path.to_owned(),
            source,
        };
        let text = fs::read_to_string(path).map_err(failed)?;
        let memory = Self::parse(&text)
            .ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidData)))?;
        Ok(own_groups()
            .iter()
            .filter_map(|group| Self::of_group(group))
            .fold(memory, Self::at_most))
    }

    fn parse(meminfo: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = meminfo
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)
        };
        Some(Self {
            total: bytes("MemTotal")?,
            available: bytes("MemAvailable")?,
        })
    }

    fn at_most(self, other: Self) -> Self {
        Self {
            total: self.total.min(other.total),
            available: self.available.min(other.available),
        }
    }

    /// A control group's, if it has a limit (Documentation/admin-guide/cgroup-v2.rst, memory). Its
    /// page cache counts as available, as it does for the host.
    fn of_group(dir: &Path) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let total: u64 = read("memory.max")?.trim().parse().ok()?;
        let used: u64 = read("memory.current")?.trim().parse().ok()?;
        let cache: u64 = read("memory.stat")?
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"))
            .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
            .sum();
        Some(Self {
            total,
            available: total.saturating_sub(used.saturating_sub(cache)),
        })
    }
}

/// This process's control group and all above it.
fn own_groups() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let root = Path::new(CGROUPS);
    root.join(own)
        .ancestors()
        .take_while(|dir| dir.starts_with(root))
        .map(Path::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_figures_are_read() {
        let memory = Memory::of_host().unwrap();
        assert!(0 < memory.available && memory.available <= memory.total);
        let text = "MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\n";
        let expected = Memory {
            total: 2 << 20,
            available: 1 << 20,
        };
        assert_eq!(Memory::parse(text), Some(expected));
        assert_eq!(Memory::parse("MemTotal: 2048 kB\n"), None);
    }

    #[test]
    fn a_containers_limit_is_a_smaller_machine() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Memory::of_group(dir.path()), None);
        for (name, text) in [
            ("memory.max", "4000\n"),
            ("memory.current", "3500\n"),
            (
                "memory.stat",
                "anon 100\nactive_file 1000\ninactive_file 500\n",
            ),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let limited = Memory {
            total: 4000,
            available: 2000,
        };
        assert_eq!(Memory::of_group(dir.path()), Some(limited));
        let host = Memory {
            total: 8000,
            available: 1500,
        };
        assert_eq!(
            host.at_most(limited),
            Memory {
                total: 4000,
                available: 1500
            }
        );
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(Memory::of_group(dir.path()), None);
    }
}
