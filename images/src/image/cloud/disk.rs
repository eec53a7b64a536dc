//! The disk of a cloud image, read without mounting it: GPT (UEFI 2.10, 5.3) and ext4's labels.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use podwire_process::{ChildCommand, Spawner, run};

use super::super::build::CUSTOMISE_LIMIT;
use crate::Error;
use crate::host::find_program;

const SECTOR: u64 = 512;

/// An ext4 file system in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// The file system's label.
    pub label: String,
}

/// All ext4 file systems on a raw disk; none where there is no partition table.
pub(super) fn partitions(disk: &Path) -> io::Result<Vec<Partition>> {
    let file = File::open(disk)?;
    let mut header = [0; 92];
    file.read_exact_at(&mut header, SECTOR)?;
    if &header[..8] != b"EFI PART" {
        return Ok(Vec::new());
    }
    let first = le(&header[72..80]);
    let (count, size) = (le(&header[80..84]), le(&header[84..88]));
    let mut found = Vec::new();
    for index in 0..count.min(128) {
        let mut entry = [0; 40];
        let at = first.saturating_mul(SECTOR).saturating_add(index * size);
        file.read_exact_at(&mut entry, at)?;
        let offset = le(&entry[32..40]).saturating_mul(SECTOR);
        if offset == 0 {
            continue;
        }
        let mut superblock = [0; 136];
        // One that ends before its superblock has none.
        let at = offset.saturating_add(1024);
        if file.read_exact_at(&mut superblock, at).is_err() {
            continue;
        }
        if superblock[56..58] == [0x53, 0xef] {
            let label = superblock[120..136].split(|byte| *byte == 0).next();
            found.push(Partition {
                offset,
                label: String::from_utf8_lossy(label.unwrap_or_default()).into_owned(),
            });
        }
    }
    Ok(found)
}

fn le(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What a cloud image holds that its first boot needs on the host.
pub(super) struct Found {
    /// Name of the kernel, and of the initrd that goes with it.
    pub kernel: String,
    /// Name of the initrd.
    pub initrd: String,
}

/// Copies kernel, initrd and dpkg's status from a raw disk into `to`, which is there already; both are
/// names in the build's folder `work`.
///
/// # Errors
/// [`Error::CloudDisk`] for one that is not laid out as a cloud image; [`Error::Step`].
pub(super) fn extract(
    spawner: &Spawner,
    work: &Path,
    disk: &str,
    to: &str,
) -> Result<Found, Error> {
    let strange = |reason: String| Error::CloudDisk {
        path: work.join(disk),
        reason,
    };
    let partitions = partitions(&work.join(disk)).map_err(Error::file("read", disk))?;
    let labelled = |label: &str| partitions.iter().find(|it| it.label == label);
    let root = labelled("cloudimg-rootfs").ok_or_else(|| {
        let labels: Vec<&str> = partitions.iter().map(|it| it.label.as_str()).collect();
        strange(format!(
            "none of its ext4 file systems has the label cloudimg-rootfs, but there are: {}",
            labels.join(", ")
        ))
    })?;
    let debugfs = |partition: &Partition, request: &str| {
        // It takes a request apart at blanks, which the build's folder may have in its name.
        let image = format!("{disk}?offset={}", partition.offset);
        let program = find_program("debugfs").unwrap_or("debugfs".into());
        let command = ChildCommand::new(program).args(["-R", request, &image]);
        let done = run(spawner, command.dir(work), CUSTOMISE_LIMIT)?;
        Ok::<_, Error>(done.success("debugfs")?.stdout)
    };
    let dump = |partition: &Partition, from: &str, name: &str| {
        let target = format!("{to}/{name}");
        debugfs(partition, &format!("dump {from} {target}"))?;
        // debugfs succeeds whatever came of it.
        match work.join(target).metadata() {
            Ok(about) if about.len() > 0 => Ok(()),
            _ => Err(strange(format!("there is no {from} in it"))),
        }
    };
    dump(root, "/var/lib/dpkg/status", "status")?;
    // Apart since 24.04.
    let (boot, folder) = match labelled("BOOT") {
        Some(boot) => (boot, ""),
        None => (root, "/boot"),
    };
    let listing = debugfs(boot, &format!("ls -p {folder}/"))?;
    // /inode/mode/uid/gid/name/size/
    let names = listing.lines().filter_map(|line| line.split('/').nth(5));
    let names: Vec<&str> = names.collect();
    let versions = names
        .iter()
        .filter_map(|name| name.strip_prefix("vmlinuz-"));
    let version = versions
        .filter(|version| names.contains(&format!("initrd.img-{version}").as_str()))
        .max()
        .ok_or_else(|| {
            let there = names.join(" ");
            strange(format!("there is no kernel with an initrd, but {there}"))
        })?;
    let (kernel, initrd) = (
        format!("vmlinuz-{version}"),
        format!("initrd.img-{version}"),
    );
    for name in [&kernel, &initrd] {
        dump(boot, &format!("{folder}/{name}"), name)?;
    }
    Ok(Found { kernel, initrd })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn numbers_in_a_partition_table_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let disk = |first: u64, size: u32, offset: u64| {
            let mut bytes = vec![0; 4096];
            bytes[512..520].copy_from_slice(b"EFI PART");
            bytes[584..592].copy_from_slice(&first.to_le_bytes());
            bytes[592..596].copy_from_slice(&u32::MAX.to_le_bytes());
            bytes[596..600].copy_from_slice(&size.to_le_bytes());
            bytes[1024 + 32..1024 + 40].copy_from_slice(&offset.to_le_bytes());
            std::fs::write(&path, bytes).unwrap();
            partitions(&path)
        };
        assert!(disk(u64::MAX, 128, 1).is_err());
        assert!(disk(u64::MAX / SECTOR, u32::MAX, 1).is_err());
        // All entries are the first.
        assert_eq!(disk(2, 0, u64::MAX).unwrap(), []);
        assert_eq!(disk(2, 0, u64::MAX / SECTOR).unwrap(), []);
    }

    #[test]
    fn a_folder_with_a_blank_in_its_name_is_no_matter() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("my cache");
        let (root, to) = (work.join("root"), work.join("boot"));
        for folder in [&root.join("var/lib/dpkg"), &root.join("boot"), &to] {
            fs::create_dir_all(folder).unwrap();
        }
        let files = [
            ("var/lib/dpkg/status", "Package: apt"),
            ("boot/vmlinuz-6.8", "kernel"),
            ("boot/initrd.img-6.8", "initrd"),
        ];
        for (file, text) in files {
            fs::write(root.join(file), text).unwrap();
        }
        let mke2fs = find_program("mke2fs").expect("debugfs and mke2fs come together");
        let made = ChildCommand::new(mke2fs)
            .args(["-q", "-F", "-t", "ext4", "-L", "cloudimg-rootfs"])
            .args(["-E", "offset=1048576", "-d", "root", "disk", "8M"])
            .dir(&work);
        let spawner = Spawner::start().unwrap();
        let done = run(&spawner, made, CUSTOMISE_LIMIT).unwrap();
        done.success("mke2fs").unwrap();
        let disk = File::options().write(true).open(work.join("disk")).unwrap();
        let mut table = vec![0; 1024];
        table[..8].copy_from_slice(b"EFI PART");
        table[72..80].copy_from_slice(&2_u64.to_le_bytes());
        table[80..84].copy_from_slice(&1_u32.to_le_bytes());
        table[84..88].copy_from_slice(&128_u32.to_le_bytes());
        table[512 + 32..512 + 40].copy_from_slice(&2048_u64.to_le_bytes());
        disk.write_all_at(&table, SECTOR).unwrap();

        let found = extract(&spawner, &work, "disk", "boot").unwrap();
        assert_eq!(found.kernel, "vmlinuz-6.8");
        for (file, text) in files {
            let name = file.rsplit('/').next().unwrap();
            assert_eq!(fs::read_to_string(to.join(name)).unwrap(), text);
        }
    }
}
