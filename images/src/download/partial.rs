use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::cache::{PARTIAL, remove_all};
use crate::digest::{Digest, Hasher};
use crate::{Cache, CacheError, Kind};

/// The file in a partial download's folder, and in that of a whole one.
pub(super) const DATA: &str = "file";
const ABOUT: &str = "about.json";

/// A file as far as it has come: in a folder named by its digest, so that the next run goes on.
pub(super) struct Partial {
    dir: PathBuf,
    digest: Digest,
    hash: Hasher,
    size: u64,
    about: About,
    file: Option<File>,
}

/// Of what it is the beginning.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    /// As it is told: what it is the beginning of decides its digest.
    url: String,
    /// What `If-Range` is to say (RFC 9110, 13.1.5).
    validator: Option<String>,
}

impl Partial {
    /// What is there of a file; nothing of it counts when it came from elsewhere.
    pub(super) fn open(cache: &Cache, url: &Address, digest: &Digest) -> Result<Self, CacheError> {
        let dir = cache.folder(PARTIAL)?.join(digest.file_name());
        fs::create_dir_all(&dir).map_err(CacheError::io("make", &dir))?;
        cache.hold(&dir)?;
        let about: About = fs::read(dir.join(ABOUT))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let mut partial = Self {
            hash: digest.hasher(),
            digest: digest.clone(),
            dir,
            size: 0,
            about,
            file: None,
        };
        if partial.about.url == url.to_string() && partial.about.validator.is_some() {
            partial
                .read()
                .map_err(CacheError::io("read", &partial.dir))?;
        }
        Ok(partial)
    }

    fn read(&mut self) -> io::Result<()> {
        let opened = File::options().read(true).append(true).open(self.data());
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            self.hash.update(&buffer[..read]);
            self.size += read as u64;
        }
        self.file = Some(file);
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// Bytes that are there.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How the rest is asked for, where there is something to go on from.
    pub(super) fn validator(&self) -> Option<&str> {
        let validator = self.about.validator.as_deref();
        validator.filter(|_| self.size > 0)
    }

    /// What comes now is the file from its first byte.
    pub(super) fn begin(&mut self, url: &Address, validator: Option<String>) -> io::Result<()> {
        self.hash = self.digest.hasher();
        self.size = 0;
        self.about = About {
            url: url.to_string(),
            validator,
        };
        // First of all: else the new beginning would be taken for the old one's.
        let file = File::create(self.data())?;
        fs::write(self.dir.join(ABOUT), serde_json::to_vec(&self.about)?)?;
        self.file = Some(file);
        Ok(())
    }

    /// More of it.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
        }
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// What is there hashes to.
    pub(super) fn digest(&self) -> Digest {
        self.hash.clone().finish()
    }

    /// Throws it away.
    pub(super) fn remove(self) -> Result<(), CacheError> {
        remove_all(&self.dir).map_err(CacheError::io("remove", self.dir))
    }

    /// Makes an artefact of it; its digest has been compared.
    pub(super) fn publish(self, cache: &Cache) -> Result<PathBuf, CacheError> {
        let staging = cache.staging("download")?;
        let (from, to) = (self.data(), staging.path().join(DATA));
        fs::rename(&from, to).map_err(CacheError::io("take", from))?;
        let dir = cache.publish(Kind::Download, &self.digest.file_name(), staging)?;
        self.remove()?;
        Ok(file(&dir))
    }
}

/// The file in the folder of a whole download.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join(DATA)
}
