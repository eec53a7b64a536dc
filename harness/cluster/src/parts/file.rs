//! One file of a node, and how many are sent to it at once: a process start in an emulated guest costs
//! up to a second.

use std::io;

use serde::Serialize;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeFile {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub text: String,
}

/// The command that unpacks [`archive`] on a node.
pub(crate) const UNPACK: &str = "tar -x -p -C /";

pub(crate) fn public(path: impl Into<String>, text: impl Into<String>) -> NodeFile {
    NodeFile {
        path: path.into(),
        mode: 0o644,
        text: text.into(),
    }
}

pub(crate) fn secret(path: impl Into<String>, text: impl Into<String>) -> NodeFile {
    NodeFile {
        mode: 0o600,
        ..public(path, text)
    }
}

/// A tar archive of the files, with paths relative to the root.
pub(crate) fn archive(files: &[NodeFile]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.text.len() as u64);
        header.set_mode(file.mode);
        // The epoch, not now: a guest's clock may be behind ours, and tar complains of the future.
        header.set_mtime(0);
        let path = file.path.trim_start_matches('/');
        archive.append_data(&mut header, path, file.text.as_bytes())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_holds_every_file() {
        let files = [public("/etc/a", "public"), secret("/etc/b/c", "key\n")];
        let bytes = archive(&files).unwrap();
        let mut unpacked = tar::Archive::new(bytes.as_slice());
        let unpacked: Vec<NodeFile> = unpacked
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                NodeFile {
                    path: format!("/{}", entry.path().unwrap().display()),
                    mode: entry.header().mode().unwrap(),
                    text: io::read_to_string(&mut entry).unwrap(),
                }
            })
            .collect();
        assert_eq!(unpacked, files);
    }
}
