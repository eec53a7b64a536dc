mod room;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, FileTimes, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytesize::ByteSize;

use podwire_process::{Report, Stream, held};
use podwire_vm::keys::{KeyError, SshKeyPair, ssh_key_pair};
use russh::keys::PrivateKey;
use serde::{Deserialize, Serialize};

use crate::digest::sha256_file;

pub(crate) use room::PARTIAL;
pub use room::{Entry, Made, Removal, Room, allocated, victims};

/// The file that records what an artefact's folder must hold.
pub(crate) const SEAL: &str = "seal.json";

/// The folder of what is being built or thrown away.
const TEMPORARY: &str = "tmp";

/// How the names of folders begin that are locked while they are in use.
const STAGING: &str = "staging-";

/// How the names of those begin that are on their way out.
const REMOVED: &str = "removed-";

/// The file in an artefact's folder whose modification time says when it was last used.
pub(crate) const USED: &str = "used";

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// No folder for it is known.
    #[error("no place for the cache: set PODWIRE_CACHE, XDG_CACHE_HOME or HOME")]
    NoPlace,
    /// A file or folder of it could not be used.
    #[error("cannot {action} {path:?} in the cache")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// There is not enough room for what is about to be written.
    #[error(
        "too little disk space in {path:?}: {needed} needed, {available} available; `cargo xtask clean` \
         removes what nobody needs, and PODWIRE_CACHE names another place"
    )]
    NoSpace {
        /// The cache.
        path: PathBuf,
        /// What is about to be written.
        needed: ByteSize,
        /// What this user may still write.
        available: ByteSize,
    },
    /// An SSH key could not be made.
    #[error("cannot make an SSH key")]
    Key(#[from] KeyError),
}

impl CacheError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// What an artefact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A program that this project builds for its own use on the host.
    Tool,
    /// The Kubernetes binaries of one version.
    Bundle,
    /// A machine image: disk, kernel, initrd.
    Image,
    /// A file that was downloaded, named by its digest.
    Download,
    /// A container image that this host has pulled.
    Pulled,
    /// A layer over a machine image.
    Layer,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Bundle => "bundles",
            Self::Image => "images",
            Self::Download => "downloads",
            Self::Pulled => "pulled",
            Self::Layer => "layers",
        }
    }
}

/// How closely an artefact is looked at before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every file is there with its recorded size: finds what was cut short or truncated.
    Sizes,
    /// Every file has its recorded SHA-256 as well: finds what was altered. Reads everything.
    Contents,
}

/// What a look into the cache gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Never built, or removed.
    Absent,
    /// There, and as it was sealed.
    Intact(PathBuf),
    /// There, but not as it was sealed: to be built again.
    Damaged(String),
}

impl Found {
    /// What can be used of it; of what is damaged, `what` it is and why is said.
    pub fn usable(self, what: impl fmt::Display, report: &dyn Report) -> Option<PathBuf> {
        match self {
            Self::Intact(dir) => Some(dir),
            Self::Absent => None,
            Self::Damaged(why) => {
                report.step(&format!(
                    "the cached {what} is damaged and is made again: {why}"
                ));
                None
            }
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    files: BTreeMap<String, Sealed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    size: u64,
    sha256: String,
}

/// The cache folder: the only place beside `target/` that is ever written to.
///
/// Whatever was found through a value of it stays in use as long as that or a clone of it lives, see
/// [`Cache::hold`].
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    /// Folders with a shared lock, by their path.
    held: Arc<Mutex<BTreeMap<PathBuf, File>>>,
}

/// A lock held on one name, in this process against all others; released when dropped or when the
/// process ends, however it ends (flock(2)).
#[derive(Debug)]
pub struct CacheLock {
    file: File,
}

impl CacheLock {
    /// The lock as a child's standard input, which is empty: it is held until the child has ended, and
    /// whatever has its input from it. That is the one thing that sudo hands on.
    pub(crate) fn into_input(self) -> Stream {
        Stream::File(self.file)
    }
}

/// A folder in which an artefact is put together before it is published; removed when dropped
/// without that.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    /// A shared lock: what nobody holds is a leftover of a process that was killed. Steps of an image's
    /// build hold it too, which may outlive that process.
    _held: File,
}

impl Staging {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is left to `clean`.
        let _ = remove_all(&self.path);
    }
}

/// What is on its way out of the cache.
#[derive(Debug)]
struct Aside {
    path: PathBuf,
    /// As long as it is locked, nobody else takes it for a leftover and removes it too.
    _locked: Option<File>,
}

impl Aside {
    fn remove(self) -> Result<(), CacheError> {
        remove_all(&self.path).map_err(CacheError::io("remove", &self.path))
    }
}

/// Figures of the file system that holds the cache, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub total: u64,
    /// What this user may still write.
    pub available: u64,
}

/// The keys with which guests are reached, made once per cache: part of every image's inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKeys {
    /// The user's private key in OpenSSH's format, mode 0600.
    pub user: PathBuf,
    /// The user's public key: one line for `authorized_keys`.
    pub user_public: String,
    /// The guests' private host key in OpenSSH's format, mode 0600.
    pub host: PathBuf,
    /// The guests' public host key: one line.
    pub host_public: String,
}

impl Cache {
    /// The cache of this user: `$PODWIRE_CACHE`, or `podwire` in the XDG cache folder.
    ///
    /// # Errors
    /// [`CacheError`] when no place is known or it cannot be made.
    pub fn open() -> Result<Self, CacheError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = variable("PODWIRE_CACHE")
            .map(PathBuf::from)
            .or_else(|| variable("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("podwire")))
            .or_else(|| variable("HOME").map(|dir| Path::new(&dir).join(".cache/podwire")))
            .ok_or(CacheError::NoPlace)?;
        Self::at(&root)
    }

    /// The cache in a given folder, which is made when missing.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it cannot be made.
    pub fn at(root: &Path) -> Result<Self, CacheError> {
        let root = std::path::absolute(root).map_err(CacheError::io("find", root))?;
        fs::create_dir_all(root.join(TEMPORARY)).map_err(CacheError::io("make", &root))?;
        Ok(Self {
            root,
            held: Arc::default(),
        })
    }

    /// Its folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder of it for lasting use by a tool of its own (Go's modules, cargo's target folders);
    /// made when missing, not sealed.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, CacheError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(CacheError::io("make", &path))?;
        Ok(path)
    }

    /// Waits until no other process holds the lock `name`, then holds it.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the lock file cannot be used.
    pub fn lock(&self, name: &str, report: &dyn Report) -> Result<CacheLock, CacheError> {
        if let Some(lock) = self.try_lock(name)? {
            return Ok(lock);
        }
        report.waiting(&format!("another run of podwire, which works on {name}"));
        let (file, path) = self.open_lock(name)?;
        file.lock().map_err(CacheError::io("lock", &path))?;
        Ok(CacheLock { file })
    }

    /// Holds the lock `name` unless another process does.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the lock file cannot be used.
    pub fn try_lock(&self, name: &str) -> Result<Option<CacheLock>, CacheError> {
        let (file, path) = self.open_lock(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(CacheLock { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(CacheError::io("lock", &path)(error)),
        }
    }

    fn open_lock(&self, name: &str) -> Result<(File, PathBuf), CacheError> {
        let path = self.folder("locks")?.join(format!("{name}.lock"));
        File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(CacheError::io("open", &path))
            .map(|file| (file, path))
    }

    /// An empty folder on the cache's file system, for building in. Folders of processes that were
    /// killed while they built are removed on the way, as far as this user may.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it cannot be made.
    pub fn staging(&self, label: &str) -> Result<Staging, CacheError> {
        // Else another process could take a folder that is not locked yet for a leftover.
        let (guard, path) = self.open_lock("tmp")?;
        guard.lock().map_err(CacheError::io("lock", path))?;
        self.sweep_locked()?;
        // Private: images carry the guests' host key.
        let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        let made = self.temporary(&format!("{STAGING}{label}"), private);
        let ((), path) = made.map_err(CacheError::io("make", self.root.join(TEMPORARY)))?;
        let held = File::open(&path).map_err(CacheError::io("open", &path))?;
        held.lock_shared().map_err(CacheError::io("lock", &path))?;
        Ok(Staging { path, _held: held })
    }

    /// Removes what processes left in the folder for temporary things that were killed meanwhile,
    /// as far as this user may.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the folder cannot be listed.
    pub fn sweep(&self) -> Result<(), CacheError> {
        let (guard, path) = self.open_lock("tmp")?;
        guard.lock().map_err(CacheError::io("lock", path))?;
        self.sweep_locked()
    }

    fn sweep_locked(&self) -> Result<(), CacheError> {
        for path in children(&self.root.join(TEMPORARY))? {
            let name = file_name(&path);
            let abandoned = [STAGING, REMOVED].iter().any(|sort| name.starts_with(sort))
                && File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if abandoned {
                // One that needs more power than this user has is left to `clean`.
                let _ = remove_all(&path);
            }
        }
        Ok(())
    }

    /// Holds a folder of the cache in use as long as this value or a clone of it lives: nobody makes
    /// room at its cost meanwhile. Notes that it was used now. False when there is none.
    ///
    /// A folder is in use as long as somebody has a shared lock on it (flock(2)); whoever removes it
    /// wants it alone first.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it can be neither opened nor locked.
    pub fn hold(&self, folder: &Path) -> Result<bool, CacheError> {
        let held = match held(folder) {
            Ok(held) => held,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(CacheError::io("hold", folder)(error)),
        };
        let now = FileTimes::new().set_modified(SystemTime::now());
        // It only decides what goes first when space is needed.
        let _ = File::create(folder.join(USED)).and_then(|used| used.set_times(now));
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(folder.to_owned(), held);
        Ok(true)
    }

    /// Where a build's log goes; it stays as long as this process may write to it.
    ///
    /// # Errors
    /// [`CacheError::Io`] when its folder can be neither made nor locked.
    pub fn log(&self, name: &str) -> Result<PathBuf, CacheError> {
        let folder = self.folder("logs")?;
        self.hold(&folder)?;
        Ok(folder.join(name))
    }

    /// Makes something in the folder for temporary things, under a name that no other process uses, not
    /// even one with the same number in another container.
    fn temporary<T>(
        &self,
        label: &str,
        make: impl FnMut(&Path) -> io::Result<T>,
    ) -> io::Result<(T, PathBuf)> {
        let named = tempfile::Builder::new()
            .prefix(&format!("{label}-"))
            .rand_bytes(12)
            .make_in(self.root.join(TEMPORARY), make)?;
        let (made, path) = named.into_parts();
        let path = path.keep().map_err(|error| error.error)?;
        Ok((made, path))
    }

    /// Where an artefact is, or would be.
    pub fn path(&self, kind: Kind, name: &str) -> PathBuf {
        self.root.join(kind.folder()).join(name)
    }

    /// Looks for an artefact; one that is there is in use from now on, see [`Cache::hold`].
    ///
    /// # Errors
    /// [`CacheError::Io`] when it is there but cannot be looked at; what is missing or differs is no
    /// error but [`Found`].
    pub fn find(&self, kind: Kind, name: &str, check: Check) -> Result<Found, CacheError> {
        let dir = self.path(kind, name);
        if !self.hold(&dir)? {
            return Ok(Found::Absent);
        }
        let text = match fs::read(dir.join(SEAL)) {
            Ok(text) => text,
            Err(error) => return Ok(Found::Damaged(format!("{SEAL} cannot be read: {error}"))),
        };
        let Ok(seal) = serde_json::from_slice::<Seal>(&text) else {
            return Ok(Found::Damaged(format!("{SEAL} is not what was written")));
        };
        for (file, sealed) in &seal.files {
            if let Some(damage) = damage(&dir.join(file), sealed, check) {
                return Ok(Found::Damaged(format!("{file} {damage}")));
            }
        }
        Ok(Found::Intact(dir))
    }

    /// Seals what is in a staging folder and renames it into place; an artefact of that name which
    /// was there before is replaced.
    ///
    /// # Errors
    /// [`CacheError::Io`]; the old artefact, if any, is then still there or gone, never half new.
    pub fn publish(&self, kind: Kind, name: &str, staging: Staging) -> Result<PathBuf, CacheError> {
        let mut files = BTreeMap::new();
        seal_files(staging.path(), "", &mut files)?;
        let seal = staging.path().join(SEAL);
        let text = serde_json::to_vec_pretty(&Seal { files })
            .map_err(|error| CacheError::io("write", &seal)(error.into()))?;
        fs::write(&seal, text).map_err(CacheError::io("write", &seal))?;
        let to = self.path(kind, name);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(CacheError::io("make", parent))?;
        }
        self.place(staging, &to)?;
        Ok(to)
    }

    /// Moves a staging folder to its place, in use from now on; what was there before is removed.
    fn place(&self, staging: Staging, to: &Path) -> Result<(), CacheError> {
        let placing = self.placing()?;
        let old = self.set_aside(to)?;
        fs::rename(staging.path(), to).map_err(CacheError::io("publish", to))?;
        drop(staging);
        self.hold(to)?;
        drop(placing);
        old.map_or(Ok(()), Aside::remove)
    }

    /// Held while something comes to its place or goes: else whoever removes what was there may remove
    /// what has just come.
    fn placing(&self) -> Result<CacheLock, CacheError> {
        let (file, path) = self.open_lock("places")?;
        file.lock().map_err(CacheError::io("lock", &path))?;
        Ok(CacheLock { file })
    }

    /// Moves something out of its place in one step, so that no other process can pick up half of it;
    /// nothing when there is none. The caller holds [`Cache::placing`].
    fn set_aside(&self, path: &Path) -> Result<Option<Aside>, CacheError> {
        let moved = self.temporary(&format!("{REMOVED}{}", file_name(path)), |aside| {
            fs::rename(path, aside)
        });
        let path = match moved {
            Ok(((), aside)) => aside,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::io("remove", path)(error)),
        };
        let locked = File::open(&path).inspect(|aside| {
            let _ = aside.try_lock_shared();
        });
        Ok(Some(Aside {
            path,
            _locked: locked.ok(),
        }))
    }

    /// The file system that holds the cache.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn disk(&self) -> Result<Disk, CacheError> {
        let figures = rustix::fs::statvfs(&self.root)
            .map_err(|error| CacheError::io("measure", &self.root)(error.into()))?;
        Ok(Disk {
            total: figures.f_blocks * figures.f_frsize,
            available: figures.f_bavail * figures.f_frsize,
        })
    }

    /// The keys with which guests are reached: made on first use, and again when one is unreadable
    /// (the images made with them are then built again, since the keys are among their inputs).
    ///
    /// # Errors
    /// [`CacheError`] when they can be neither read nor made.
    pub fn ssh_keys(&self, report: &dyn Report) -> Result<SshKeys, CacheError> {
        let _lock = self.lock("keys", report)?;
        let dir = self.root.join("keys");
        self.hold(&dir)?;
        if let Ok(keys) = read_keys(&dir) {
            return Ok(keys);
        }
        let staging = self.staging("keys")?;
        for (file, comment) in [("user", "podwire"), ("host", "podwire-guest")] {
            let SshKeyPair { private, public } = ssh_key_pair(comment)?;
            write_new(&staging.path().join(file), private.as_bytes(), 0o600)?;
            let name = format!("{file}.pub");
            write_new(
                &staging.path().join(name),
                format!("{public}\n").as_bytes(),
                0o644,
            )?;
        }
        self.place(staging, &dir)?;
        read_keys(&dir)
    }
}

fn damage(path: &Path, sealed: &Sealed, check: Check) -> Option<String> {
    let size = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) => return Some(format!("cannot be looked at: {error}")),
    };
    if size != sealed.size {
        return Some(format!("has {size} bytes instead of {}", sealed.size));
    }
    if check == Check::Sizes {
        return None;
    }
    match sha256_file(path) {
        Ok(digest) if digest == sealed.sha256 => None,
        Ok(_) => Some("has other contents than when it was built".to_owned()),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

fn seal_files(
    dir: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Sealed>,
) -> Result<(), CacheError> {
    for path in children(dir)? {
        let name = format!("{prefix}{}", file_name(&path));
        let metadata = fs::symlink_metadata(&path).map_err(CacheError::io("look at", &path))?;
        if metadata.is_dir() {
            seal_files(&path, &format!("{name}/"), files)?;
        } else {
            let sha256 = sha256_file(&path).map_err(CacheError::io("read", &path))?;
            files.insert(
                name,
                Sealed {
                    size: metadata.len(),
                    sha256,
                },
            );
        }
    }
    Ok(())
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let mut paths = fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(CacheError::io("list", dir))?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Removes a file or a folder with all in it, write-protected folders (Go's modules) included.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unprotect(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn unprotect(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unprotect(&entry.path())?;
        }
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CacheError> {
    File::options()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(CacheError::io("write", path))
}

fn read_keys(dir: &Path) -> Result<SshKeys, CacheError> {
    let read = |file: &str| -> Result<(PathBuf, String), CacheError> {
        let path = dir.join(file);
        let text = fs::read_to_string(&path).map_err(CacheError::io("read", &path))?;
        let public = PrivateKey::from_openssh(text).and_then(|key| key.public_key().to_openssh());
        Ok((path, public.map_err(KeyError::from)?))
    };
    let (user, user_public) = read("user")?;
    let (host, host_public) = read("host")?;
    Ok(SshKeys {
        user,
        user_public,
        host,
        host_public,
    })
}

#[cfg(test)]
pub(crate) mod tests_support {
    pub(crate) struct Silent;
    impl podwire_process::Report for Silent {
        fn step(&self, _: &str) {}
        fn waiting(&self, _: &str) {}
    }
}

#[cfg(test)]
mod tests {
    use super::tests_support::Silent;
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::mpsc;
    use std::time::Duration;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    fn published(cache: &Cache) -> PathBuf {
        let staging = cache.staging("bundle").unwrap();
        fs::create_dir(staging.path().join("bin")).unwrap();
        fs::write(staging.path().join("bin/kubelet"), "eight by").unwrap();
        cache.publish(Kind::Bundle, "k", staging).unwrap()
    }

    #[test]
    fn what_is_published_is_found_and_nothing_temporary_stays() {
        let (_dir, cache) = cache();
        assert_eq!(
            cache.find(Kind::Bundle, "k", Check::Contents).unwrap(),
            Found::Absent
        );
        let path = published(&cache);
        assert_eq!(
            cache.find(Kind::Bundle, "k", Check::Contents).unwrap(),
            Found::Intact(path.clone())
        );
        assert_eq!(
            cache.find(Kind::Image, "k", Check::Contents).unwrap(),
            Found::Absent
        );
        // Publishing again replaces.
        published(&cache);
        assert_eq!(
            children(&cache.root.join(TEMPORARY)).unwrap(),
            Vec::<PathBuf>::new()
        );
    }

    #[test]
    fn a_staging_folder_that_is_not_published_leaves_nothing() {
        let (_dir, cache) = cache();
        let staging = cache.staging("image").unwrap();
        let path = staging.path().to_owned();
        fs::create_dir(path.join("protected")).unwrap();
        fs::write(path.join("protected/file"), "x").unwrap();
        fs::set_permissions(path.join("protected"), Permissions::from_mode(0o500)).unwrap();
        drop(staging);
        assert!(!path.exists());
        assert_eq!(
            cache.find(Kind::Image, "k", Check::Sizes).unwrap(),
            Found::Absent
        );
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
        let (_dir, cache) = cache();
        let used = cache.staging("image").unwrap();
        let left = cache.root.join(TEMPORARY).join("staging-image-1-0");
        let other = cache.root.join(TEMPORARY).join("other");
        fs::create_dir(&other).unwrap();
        fs::create_dir(&left).unwrap();
        fs::write(left.join("disk.raw"), "x").unwrap();
        cache.staging("bundle").unwrap();
        assert!(!left.exists() && used.path().exists() && other.exists());
    }

    #[test]
    fn damage_is_found_and_named() {
        let (_dir, cache) = cache();
        let file = published(&cache).join("bin/kubelet");
        let look = |check| match cache.find(Kind::Bundle, "k", check).unwrap() {
            Found::Damaged(why) => why,
            other => panic!("{other:?}"),
        };
        fs::write(&file, "altered!").unwrap();
        // The same length: only reading it can tell.
        assert!(matches!(
            cache.find(Kind::Bundle, "k", Check::Sizes).unwrap(),
            Found::Intact(_)
        ));
        insta::assert_snapshot!(look(Check::Contents), @"bin/kubelet has other contents than when it was built");
        fs::write(&file, "eight").unwrap();
        insta::assert_snapshot!(look(Check::Sizes), @"bin/kubelet has 5 bytes instead of 8");
        fs::remove_file(&file).unwrap();
        insta::assert_snapshot!(look(Check::Sizes), @"bin/kubelet cannot be looked at: No such file or directory (os error 2)");
        published(&cache);
        let seal = cache.path(Kind::Bundle, "k").join(SEAL);
        fs::write(&seal, "{").unwrap();
        insta::assert_snapshot!(look(Check::Sizes), @"seal.json is not what was written");
        fs::remove_file(&seal).unwrap();
        insta::assert_snapshot!(look(Check::Sizes), @"seal.json cannot be read: No such file or directory (os error 2)");
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let (_dir, cache) = cache();
        let held = cache.lock("image", &Silent).unwrap();
        assert!(cache.try_lock("image").unwrap().is_none());
        // Another name is free meanwhile.
        cache.lock("bundle", &Silent).unwrap();
        let (sender, got) = mpsc::channel();
        let other = cache.clone();
        let waiter = std::thread::spawn(move || {
            let lock = other.lock("image", &Silent).unwrap();
            sender.send(()).unwrap();
            drop(lock);
        });
        assert!(got.recv_timeout(Duration::from_millis(100)).is_err());
        drop(held);
        got.recv_timeout(Duration::from_secs(60)).unwrap();
        waiter.join().unwrap();
    }

    #[test]
    fn keys_are_made_once_and_again_when_one_is_unreadable() {
        let (_dir, cache) = cache();
        let keys = cache.ssh_keys(&Silent).unwrap();
        assert_eq!(cache.ssh_keys(&Silent).unwrap(), keys);
        assert_eq!(fs::metadata(&keys.user).unwrap().mode() & 0o777, 0o600);
        assert!(
            keys.user_public.starts_with("ssh-ed25519 "),
            "{}",
            keys.user_public
        );
        assert_ne!(keys.user_public, keys.host_public);
        let text = fs::read_to_string(&keys.host).unwrap();
        fs::write(&keys.host, &text[..text.len() / 2]).unwrap();
        let again = cache.ssh_keys(&Silent).unwrap();
        assert_ne!(again.host_public, keys.host_public);
    }

    #[test]
    fn the_figures_of_the_disk_are_plausible() {
        let (_dir, cache) = cache();
        let disk = cache.disk().unwrap();
        assert!(disk.available <= disk.total && disk.total > 1 << 20);
    }
}
