//! Memory files: large, mostly holes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, ioctl_ficlone, seek};
use rustix::io::Errno;
use twox_hash::XxHash3_64;

/// What is looked at, and given back, at once: a page of the guest's.
const PAGE: usize = 4096;
const BUFFER: usize = 1 << 20;
static ZEROS: [u8; PAGE] = [0; PAGE];

/// Copies a file without its holes: as a reflink where the file system can, else what is allocated.
/// The copy is its owner's to read and write.
///
/// # Errors
/// The operating system's, with the copy left as it was then.
pub fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let copy = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    if ioctl_ficlone(&copy, &source).is_ok() {
        return Ok(());
    }
    let size = source.metadata()?.len();
    copy.set_len(size)?;
    for extent in Extents::of(&source, size) {
        let (mut at, end) = extent?;
        while at < end {
            let (mut read, mut written) = (at, at);
            let length = usize::try_from(end - at).unwrap_or(usize::MAX);
            let copied =
                copy_file_range(&source, Some(&mut read), &copy, Some(&mut written), length)?;
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += copied as u64;
        }
    }
    Ok(())
}

/// Gives the pages that hold nothing but zeros back to the file system. Bytes given back.
///
/// Nobody may have the file mapped.
///
/// # Errors
/// The operating system's; what the file reads as never changes.
pub fn punch_zeros(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let mut buffer = vec![0; BUFFER];
    let mut given_back = 0;
    for extent in Extents::of(&file, size) {
        let (mut at, end) = extent?;
        while at < end {
            let length = usize::try_from(end - at).map_or(BUFFER, |rest| rest.min(BUFFER));
            let piece = &mut buffer[..length];
            file.read_exact_at(piece, at)?;
            for (start, zeros) in zero_runs(piece) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                match fallocate(&file, flags, at + start as u64, zeros as u64) {
                    Ok(()) => given_back += zeros as u64,
                    // A file system without holes keeps the zeros.
                    Err(Errno::OPNOTSUPP) => return Ok(given_back),
                    Err(error) => return Err(error.into()),
                }
            }
            at += length as u64;
        }
    }
    Ok(given_back)
}

/// What tells a file's content from any other that chance may bring about, as 16 hexadecimal digits:
/// XXH3 (64 bits) of the offsets and hashes of all pages that are not all zeros. Holes cost nothing,
/// and whether zeros are stored or not makes no difference.
///
/// # Errors
/// The operating system's.
pub fn digest(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut buffer = vec![0; BUFFER];
    // Hashed as a whole in the end: piece by piece costs ten times as much.
    let mut pages = Vec::new();
    let mut done = 0;
    for extent in Extents::of(&file, size) {
        let (start, end) = extent?;
        // Blocks of a file system may be smaller than pages.
        let mut at = (start - start % PAGE as u64).max(done);
        let end = end.next_multiple_of(PAGE as u64).min(size);
        while at < end {
            let length = usize::try_from(end - at).map_or(BUFFER, |rest| rest.min(BUFFER));
            let piece = &mut buffer[..length];
            file.read_exact_at(piece, at)?;
            for (index, page) in piece.chunks(PAGE).enumerate() {
                if page != &ZEROS[..page.len()] {
                    let offset = at + (index * PAGE) as u64;
                    pages.extend(offset.to_le_bytes());
                    pages.extend(XxHash3_64::oneshot(page).to_le_bytes());
                }
            }
            at += length as u64;
        }
        done = at;
    }
    Ok(format!("{:016x}", XxHash3_64::oneshot(&pages)))
}

/// Start and length of every run of whole pages of zeros.
fn zero_runs(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, page) in bytes.chunks_exact(PAGE).enumerate() {
        if page != ZEROS {
            continue;
        }
        let at = index * PAGE;
        match runs.last_mut() {
            Some((start, length)) if *start + *length == at => *length += PAGE,
            _ => runs.push((at, PAGE)),
        }
    }
    runs
}

/// The allocated parts of a file, from start to end (lseek(2), `SEEK_DATA`).
struct Extents<'a> {
    file: &'a File,
    at: u64,
    size: u64,
}

impl<'a> Extents<'a> {
    fn of(file: &'a File, size: u64) -> Self {
        Self { file, at: 0, size }
    }

    fn next_extent(&mut self) -> io::Result<Option<(u64, u64)>> {
        let start = match seek(self.file, SeekFrom::Data(self.at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = seek(self.file, SeekFrom::Hole(start))?;
        self.at = end;
        Ok(Some((start, end)))
    }
}

impl Iterator for Extents<'_> {
    type Item = io::Result<(u64, u64)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.size {
            return None;
        }
        let extent = self.next_extent();
        if extent.is_err() {
            self.at = self.size;
        }
        extent.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn allocated(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn holes_are_neither_copied_nor_filled() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&[7; 10_000], 5 << 20).unwrap();
        file.write_all_at(&[9; 100], (64 << 20) - 100).unwrap();
        copy_sparse(&from, &to).unwrap();
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
        assert!(allocated(&to) < 1 << 20, "{}", allocated(&to));
        assert!(copy_sparse(&from, &to).is_err(), "it never overwrites");
    }

    #[test]
    fn pages_of_zeros_are_given_back_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram");
        let mut bytes = vec![0; 8 << 20];
        bytes[3 << 20] = 1;
        bytes[(5 << 20) + 4095] = 2;
        std::fs::write(&path, &bytes).unwrap();
        let before = allocated(&path);
        let given_back = punch_zeros(&path).unwrap();
        assert_eq!(given_back, (8 << 20) - 2 * PAGE as u64);
        assert!(allocated(&path) < before / 100);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_digest_is_of_what_a_file_reads_as() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram");
        let mut bytes = vec![0; (8 << 20) + 100];
        bytes[3 << 20] = 1;
        bytes[(8 << 20) + 99] = 2;
        std::fs::write(&path, &bytes).unwrap();
        let whole = digest(&path).unwrap();
        punch_zeros(&path).unwrap();
        assert_eq!(digest(&path).unwrap(), whole, "zeros became holes");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0; 3 * PAGE + 1], 5 << 20).unwrap();
        assert_eq!(digest(&path).unwrap(), whole, "a hole became zeros");

        file.write_all_at(&[1, 1], 3 << 20).unwrap();
        let altered = digest(&path).unwrap();
        assert_ne!(altered, whole, "another byte");
        file.write_all_at(&[1, 0], 3 << 20).unwrap();
        assert_eq!(digest(&path).unwrap(), whole);
        file.write_all_at(&[0], 3 << 20).unwrap();
        file.write_all_at(&[1], 4 << 20).unwrap();
        let moved = digest(&path).unwrap();
        assert_ne!(moved, whole, "the same page elsewhere");
    }

    #[test]
    fn neighbouring_pages_make_one_run() {
        let mut bytes = vec![0; 5 * PAGE];
        bytes[2 * PAGE + 1] = 1;
        assert_eq!(zero_runs(&bytes), [(0, 2 * PAGE), (3 * PAGE, 2 * PAGE)]);
        assert_eq!(zero_runs(&[1; PAGE]), []);
    }
}
