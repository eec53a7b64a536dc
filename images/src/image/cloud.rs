//! Ubuntu's cloud images: which one, where it comes from, and who says that it is the right one.

mod disk;
mod machine;
pub(super) use machine::texts;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use podwire_process::{ChildCommand, run};
use podwire_vm::Accelerator;
use serde::Deserialize;

use super::lock::{Lock, LockDifference};
use super::recipe::{Recipe, RecipeFile};
use crate::address::Address;
use crate::digest::Digest;
use crate::download::{self, DownloadError};
use crate::{Check, Downloader, Error, Found, Kind, SourceKey, Sources, Workshop};

/// Where `VALIDSIG` says the hash algorithm.
const HASH: usize = 8;
/// SHA-256, SHA-384, SHA-512, by their numbers in RFC 9580, 9.5. gpgv accepts SHA-1 as well.
const STRONG: [&str; 3] = ["8", "9", "10"];

/// How long a signature may take to be checked.
const GPGV_LIMIT: Duration = Duration::from_secs(30);

/// What the pin says: the release's date, with a number behind it where that day had several.
const SERIAL: &str = "serial";
/// And the image's SHA-256.
const SHA256: &str = "sha256";

/// What nodes run: `--from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageFrom {
    /// `debian`: installed from Debian's packages.
    #[default]
    Debian,
    /// `ubuntu:24.04`: the official cloud image.
    Ubuntu2404,
}

/// There is no such system to take an image from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no image is made from {0:?}; there are: debian, ubuntu:24.04")]
pub struct UnknownFrom(String);

impl FromStr for ImageFrom {
    type Err = UnknownFrom;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "debian" => Ok(Self::Debian),
            "ubuntu:24.04" => Ok(Self::Ubuntu2404),
            other => Err(UnknownFrom(other.to_owned())),
        }
    }
}

impl fmt::Display for ImageFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "debian",
            Self::Ubuntu2404 => "ubuntu:24.04",
        })
    }
}

/// Where a cloud image comes from, and what the machine that it is customised in runs on.
#[derive(Debug, Clone, Copy)]
pub struct CloudOrder<'a> {
    /// The addresses.
    pub sources: &'a Sources,
    /// What guests run on here.
    pub accelerator: Accelerator,
}

/// Name of the files in images/recipes/ that say what an Ubuntu image is: what differs, and the pin.
pub const UBUNTU: &str = "ubuntu-24.04";

/// A cloud image, and what differs in it: `images/recipes/ubuntu-24.04.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloudRecipe {
    /// As people call it.
    pub name: String,
    /// Folder of its releases below the address of its source.
    folder: String,
    /// The image in a release's folder.
    file: String,
    /// File in images/keys/.
    image_keyring: String,
    /// Fingerprints of the primary keys that may sign.
    image_keys: Vec<String>,
    suite: String,
    components: Vec<String>,
    /// File in images/keys/.
    archive_keyring: String,
    /// The partition with the root file system, as the kernel names it.
    pub root: String,
    /// Packages of the recipe that are not asked for.
    leave_out: Vec<String>,
    /// Packages that are removed.
    pub purge: Vec<String>,
    disable: Vec<String>,
    mask: Vec<String>,
    /// Each takes the place of the recipe's file with its path.
    files: Vec<RecipeFile>,
}

impl CloudRecipe {
    pub(super) fn read(source: &Path) -> Result<(Self, String), Error> {
        let path = Recipe::path(source, UBUNTU, "toml");
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let cloud = toml::from_str(&text).map_err(|error| Error::Malformed {
            path,
            reason: error.to_string(),
        })?;
        Ok((cloud, text))
    }

    /// A recipe of Debian's as it holds for this image.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a word that is no name.
    pub(super) fn changed(&self, source: &Path, recipe: Recipe) -> Result<Recipe, Error> {
        let Recipe {
            mut packages,
            mut disable,
            mut mask,
            mut files,
            ..
        } = recipe.clone();
        packages.retain(|package| !self.leave_out.contains(package));
        disable.extend(self.disable.iter().cloned());
        mask.extend(self.mask.iter().cloned());
        for file in &mut files {
            if let Some(other) = self.files.iter().find(|it| it.path == file.path) {
                file.clone_from(other);
            }
        }
        let changed = Recipe {
            suite: self.suite.clone(),
            root: self.root.clone(),
            packages,
            disable,
            mask,
            files,
            purge: self.purge.clone(),
            // The kernel's package is not installed any more.
            before: Vec::new(),
            ..recipe
        };
        changed.check().map_err(|reason| Error::Malformed {
            path: Recipe::path(source, UBUNTU, "toml"),
            reason,
        })?;
        Ok(changed)
    }
}

/// The release that is taken, and its image's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pin {
    serial: String,
    digest: Digest,
}

impl Pin {
    /// # Errors
    /// [`Error::NotPinned`] where nothing is said yet, [`Error::Malformed`] where it is not understood.
    fn of(lock: &Lock, source: &Path) -> Result<Self, Error> {
        let path = Recipe::path(source, UBUNTU, "lock");
        let (Some(serial), Some(digest)) = (lock.0.get(SERIAL), lock.0.get(SHA256)) else {
            return Err(Error::NotPinned {
                path,
                from: ImageFrom::Ubuntu2404,
            });
        };
        let digest = digest.parse().map_err(|error| Error::Malformed {
            path,
            reason: format!("{error}"),
        })?;
        Ok(Self {
            serial: serial.clone(),
            digest,
        })
    }

    fn lock(&self) -> Lock {
        let digest = self.digest.to_string();
        let digest = digest.strip_prefix("sha256:").unwrap_or(&digest);
        Lock(
            [(SERIAL, self.serial.as_str()), (SHA256, digest)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        )
    }
}

/// What has been published of an image.
struct Published<'a> {
    workshop: &'a Workshop<'a>,
    sources: &'a Sources,
    cloud: &'a CloudRecipe,
    downloader: Downloader<'a>,
}

impl<'a> Published<'a> {
    fn new(
        workshop: &'a Workshop<'a>,
        sources: &'a Sources,
        cloud: &'a CloudRecipe,
    ) -> Result<Self, Error> {
        Ok(Self {
            workshop,
            sources,
            cloud,
            downloader: Downloader::new(workshop.cache, workshop.report)?,
        })
    }

    fn url(&self, rest: &str) -> Address {
        let path = format!("{}/{rest}", self.cloud.folder);
        self.sources.url(SourceKey::Ubuntu, &path)
    }

    /// The newest release's serial, as the listing of their folder says it.
    fn newest(&self) -> Result<String, Error> {
        let url = self.url("");
        let page = self.downloader.text(SourceKey::Ubuntu, &url)?;
        newest_serial(&page).ok_or(Error::NoCloudImage {
            key: SourceKey::Ubuntu,
            url,
        })
    }

    /// The digest of a release's image, which its signature vouches for.
    fn digest(&self, serial: &str) -> Result<Digest, Error> {
        let key = SourceKey::Ubuntu;
        let of_release = |file: &str| self.url(&format!("release-{serial}/{file}"));
        let url = of_release("SHA256SUMS");
        let sums = self.downloader.bytes(key, &url)?;
        let signature = self.downloader.bytes(key, &of_release("SHA256SUMS.gpg"))?;
        let keyring = self.workshop.source.join("images/keys");
        let keyring = keyring.join(&self.cloud.image_keyring);
        let dir = self.workshop.cache.staging("signature")?;
        signed(self.workshop, dir.path(), &keyring, &sums, &signature)?
            .judged(&self.cloud.image_keys)
            .map_err(|reason| Error::Signature {
                key,
                url: url.clone(),
                keyring,
                reason,
            })?;
        let file = self.cloud.file.clone();
        let text = String::from_utf8_lossy(&sums);
        Digest::published_in(&text, &file).ok_or_else(|| {
            let fault = download::DownloadFault::NotListed { file };
            DownloadError::Failed { key, url, fault }.into()
        })
    }

    /// The pinned image. Only one that is not in the cache is asked for.
    fn image(&self, pin: &Pin) -> Result<PathBuf, Error> {
        let name = pin.digest.file_name();
        let cache = self.workshop.cache;
        // It is checked against its digest in any case, by whoever takes it from there.
        if cache.find(Kind::Download, &name, Check::Sizes)? == Found::Absent {
            let published = self.digest(&pin.serial)?;
            if published != pin.digest {
                return Err(Error::PinnedDigest {
                    key: SourceKey::Ubuntu,
                    url: self.url(&format!("release-{}/{}", pin.serial, self.cloud.file)),
                    published,
                    pinned: pin.digest.clone(),
                });
            }
        }
        let url = self.url(&format!("release-{}/{}", pin.serial, self.cloud.file));
        Ok(self.downloader.file(SourceKey::Ubuntu, &url, &pin.digest)?)
    }
}

/// The newest of the releases that a folder's listing links to: `href="release-20250805.1/"`.
fn newest_serial(page: &str) -> Option<String> {
    let serials = page.split("release-").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let serial = &rest[..end.unwrap_or(rest.len())];
        let (date, number) = serial.split_once('.').unwrap_or((serial, "0"));
        let number: u32 = number.parse().ok()?;
        (date.len() == 8).then(|| (date.to_owned(), number, serial.to_owned()))
    });
    serials.max().map(|(_, _, serial)| serial)
}

/// What gpgv said of a signature (`--status-fd`, GnuPG's doc/DETAILS).
struct Judgement {
    accepted: bool,
    status: String,
    told: String,
}

fn signed(
    workshop: &Workshop<'_>,
    dir: &Path,
    keyring: &Path,
    text: &[u8],
    signature: &[u8],
) -> Result<Judgement, Error> {
    if crate::host::find_program("gpgv").is_none() {
        return Err(Error::MissingProgram {
            program: "gpgv".to_owned(),
            package: "gpgv".to_owned(),
        });
    }
    // Else gpgv's word about it would be taken for one about the signature.
    fs::metadata(keyring).map_err(Error::file("read", keyring))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(Error::file("write", &path))?;
        Ok::<_, Error>(path)
    };
    let (text, signature) = (write("text", text)?, write("signature", signature)?);
    let command = ChildCommand::new("gpgv")
        .args(["--status-fd", "1", "--keyring"])
        .args([keyring])
        .args([signature, text])
        .env("LC_ALL", "C.UTF-8");
    let done = run(workshop.spawner, command, GPGV_LIMIT)?;
    Ok(Judgement {
        accepted: done.status.success(),
        status: done.stdout,
        told: done.stderr,
    })
}

impl Judgement {
    /// Whether one of `keys` vouches for it today: gpgv's exit status does not say that about an
    /// expired key.
    fn judged(&self, keys: &[String]) -> Result<(), String> {
        let lines = self.status.lines();
        let words: Vec<Vec<&str>> = lines
            .filter_map(|line| line.strip_prefix("[GNUPG:] "))
            .map(|line| line.split(' ').collect())
            .collect();
        let said = |what: &str| words.iter().find(|line| line.first() == Some(&what));
        let by = |line: &Vec<&str>| line.get(1).map_or(String::new(), |it| (*it).to_owned());
        if let Some(line) = said("EXPKEYSIG") {
            return Err(format!("the key {} that signed it has expired", by(line)));
        }
        if let Some(line) = said("REVKEYSIG") {
            return Err(format!("the key {} that signed it is revoked", by(line)));
        }
        if said("EXPSIG").is_some() {
            return Err("the signature has expired".to_owned());
        }
        if let Some(line) = said("BADSIG") {
            return Err(format!(
                "the signature of {} is one of another text",
                by(line)
            ));
        }
        if let Some(line) = said("NO_PUBKEY") {
            return Err(format!(
                "the key {} that signed it is not in the keyring",
                by(line)
            ));
        }
        let valid = said("VALIDSIG").filter(|_| self.accepted && said("GOODSIG").is_some());
        let Some((line, primary)) = valid.and_then(|line| Some((line, line.last()?))) else {
            let told = self.told.trim().replace('\n', "; ");
            return Err(format!("it is no signature that gpgv accepts: {told}"));
        };
        let hash = line.get(HASH).copied().unwrap_or_default();
        if !STRONG.contains(&hash) {
            return Err(format!(
                "it is made with {}, with which others can make the same signature fit another text",
                match hash {
                    "1" => "MD5".to_owned(),
                    "2" => "SHA-1".to_owned(),
                    other => format!("the hash algorithm {other} of RFC 9580, 9.5"),
                }
            ));
        }
        if keys.iter().any(|key| key == primary) {
            return Ok(());
        }
        Err(format!(
            "the key {primary} that signed it is none of those that may: {}",
            keys.join(", ")
        ))
    }
}

/// Moves the pin to the newest image that is published and signed, and tells what changed.
pub(super) fn bump(
    workshop: &Workshop<'_>,
    sources: &Sources,
) -> Result<Vec<LockDifference>, Error> {
    let (cloud, _) = CloudRecipe::read(workshop.source)?;
    let path = Recipe::path(workshop.source, UBUNTU, "lock");
    let old = Lock::read(&path)?;
    let published = Published::new(workshop, sources, &cloud)?;
    let serial = published.newest()?;
    let digest = published.digest(&serial)?;
    let new = Pin { serial, digest }.lock();
    let differences = old.differences(&new);
    if !differences.is_empty() {
        fs::write(&path, new.text()).map_err(Error::file("write", path))?;
    }
    Ok(differences)
}
