//! Files and short texts from the addresses of `images/sources.toml`.
//!
//! A file has a digest that somebody published; it is in the cache under that digest, or it is not
//! there at all. What a broken connection left is kept apart and goes on where it stopped.

mod error;
mod partial;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use podwire_process::Report;
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, ClientBuilder, Response, StatusCode};
use tokio::runtime::Runtime;

pub use error::{DownloadError, DownloadFault};

use crate::address::Address;
use crate::digest::Digest;
use crate::error::causes;
use crate::sources::SourceKey;
use crate::{Cache, Check, Kind};
use partial::Partial;
pub(crate) use wire::{LIMITS, Limits, Wire, is_downgrade};

/// The most that a text may have.
const TEXT_LIMIT: u64 = 1 << 20;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);

/// Downloads, one after the other. It blocks, and is not for use within a runtime of tokio's.
pub struct Downloader<'a> {
    cache: &'a Cache,
    report: &'a dyn Report,
    wire: Wire,
    runtime: Runtime,
    limits: Limits,
}

impl<'a> Downloader<'a> {
    /// Takes the proxies that the environment names (`https_proxy`, `http_proxy`, `all_proxy`,
    /// `no_proxy`), and the host's certificates.
    ///
    /// # Errors
    /// [`DownloadError::Host`] without certificates or threads.
    pub fn new(cache: &'a Cache, report: &'a dyn Report) -> Result<Self, DownloadError> {
        Self::with(cache, report, Client::builder(), LIMITS)
    }

    fn with(
        cache: &'a Cache,
        report: &'a dyn Report,
        builder: ClientBuilder,
        limits: Limits,
    ) -> Result<Self, DownloadError> {
        let wire = Wire::new(builder, limits);
        let wire = wire.map_err(|error| DownloadError::Host(causes(&error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| DownloadError::Host(error.to_string()))?;
        Ok(Self {
            cache,
            report,
            wire,
            runtime,
            limits,
        })
    }

    /// A short text: at most 1 MiB of UTF-8. It is not kept.
    ///
    /// # Errors
    /// [`DownloadError::Failed`].
    pub fn text(&self, key: SourceKey, url: &Address) -> Result<String, DownloadError> {
        String::from_utf8(self.bytes(key, url)?)
            .map_err(|_| failed(key, url, DownloadFault::NoText))
    }

    /// The digest of `file` that a published list says, see [`Digest::published_in`].
    ///
    /// # Errors
    /// [`DownloadError::Failed`], also when the list does not say it.
    pub fn digest(
        &self,
        key: SourceKey,
        url: &Address,
        file: &str,
    ) -> Result<Digest, DownloadError> {
        let text = self.text(key, url)?;
        Digest::published_in(&text, file).ok_or_else(|| {
            let file = file.to_owned();
            failed(key, url, DownloadFault::NotListed { file })
        })
    }

    /// A short file of any kind, like a signature: at most 1 MiB. It is not kept.
    ///
    /// # Errors
    /// [`DownloadError::Failed`].
    pub fn bytes(&self, key: SourceKey, url: &Address) -> Result<Vec<u8>, DownloadError> {
        self.report.step(&format!("downloading {}", url.name()));
        self.retried(|| self.runtime.block_on(self.short(url)))
            .map_err(|fault| failed(key, url, fault))
    }

    /// A file with a published digest; it is taken from the cache where it is there already.
    ///
    /// # Errors
    /// [`DownloadError::Failed`]; what has come is kept for the next time, except when it has
    /// another digest. [`DownloadError::Cache`] when the cache gives trouble.
    pub fn file(
        &self,
        key: SourceKey,
        url: &Address,
        digest: &Digest,
    ) -> Result<PathBuf, DownloadError> {
        let _lock = self.cache.lock("downloads", self.report)?;
        let found = self
            .cache
            .find(Kind::Download, &digest.file_name(), Check::Contents)?;
        if let Some(dir) = found.usable(url.name(), self.report) {
            return Ok(partial::file(&dir));
        }
        let mut partial = Partial::open(self.cache, url, digest)?;
        let step = match partial.validator() {
            Some(_) => format!(
                "downloading {}, of which {} are here",
                url.name(),
                ByteSize(partial.size())
            ),
            None => format!("downloading {}", url.name()),
        };
        self.report.step(&step);
        let came = self.retried(|| self.runtime.block_on(self.stream(url, &mut partial)));
        if let Err(fault) = came {
            // The next run would go on and come to the same end.
            if matches!(fault, DownloadFault::TooLarge(_)) {
                partial.remove()?;
            }
            return Err(failed(key, url, fault));
        }
        let found = partial.digest();
        if found != *digest {
            partial.remove()?;
            let expected = digest.clone();
            return Err(failed(key, url, DownloadFault::Digest { expected, found }));
        }
        Ok(partial.publish(self.cache)?)
    }

    /// Does it again when the connection broke.
    fn retried<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, DownloadFault>,
    ) -> Result<T, DownloadFault> {
        let mut pause = self.limits.pause;
        for _ in 0..self.limits.retries {
            match attempt() {
                Err(fault) if fault.is_broken_connection() => {
                    self.report.waiting(&format!("{fault}; trying again"));
                    thread::sleep(pause);
                    pause *= 2;
                }
                ended => return ended,
            }
        }
        attempt()
    }

    async fn short(&self, url: &Address) -> Result<Vec<u8>, DownloadFault> {
        let answer = self
            .wire
            .sent(self.wire.get(url.secret().clone()), 0)
            .await?;
        self.wire.body(accepted(answer)?, TEXT_LIMIT).await
    }

    /// The whole file, or what is missing of it.
    async fn stream(&self, url: &Address, partial: &mut Partial) -> Result<(), DownloadFault> {
        let from = partial.size();
        let mut request = self.wire.get(url.secret().clone());
        if let Some(validator) = partial.validator() {
            request = request
                .header(RANGE, format!("bytes={from}-"))
                .header(IF_RANGE, validator);
        }
        let resumed = partial.validator().is_some();
        let answer = self.wire.sent(request, from).await?;
        // Everything is here already: its digest decides.
        if resumed && answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(());
        }
        let mut answer = accepted(answer)?;
        if !(resumed && answer.status() == StatusCode::PARTIAL_CONTENT) {
            let begun = partial.begin(url, validator(&answer));
            begun.map_err(|error| self.unwritten(error, answer.content_length()))?;
        } else if first_byte(&answer) != Some(from) {
            let asked = format!("another part than was asked for, from byte {from} on");
            return Err(DownloadFault::Status(asked));
        }
        let most = self.limits.file;
        let too_large = |size: u64| match size > most {
            true => Err(DownloadFault::TooLarge(ByteSize(most))),
            false => Ok(()),
        };
        let rest = answer.content_length();
        let whole = rest.map(|rest| partial.size().saturating_add(rest));
        too_large(whole.unwrap_or_default())?;
        let missing = |partial: &Partial| whole.map(|whole| whole.saturating_sub(partial.size()));
        // Said before half of it is written.
        if let Some(needed) = missing(partial)
            && let Ok(disk) = self.cache.disk()
            && needed > disk.available
        {
            return Err(DownloadFault::DiskFull {
                needed: ByteSize(needed),
                available: ByteSize(disk.available),
            });
        }
        let mut pace = Pace::new(url.name(), partial.size(), whole);
        loop {
            let chunk = self.wire.chunk(&mut answer, partial.size()).await?;
            let Some(chunk) = chunk else { return Ok(()) };
            too_large(partial.size() + chunk.len() as u64)?;
            let appended = partial.append(&chunk);
            appended.map_err(|error| self.unwritten(error, missing(partial)))?;
            if let Some(text) = pace.told(partial.size()) {
                self.report.waiting(&text);
            }
        }
    }

    fn unwritten(&self, error: io::Error, missing: Option<u64>) -> DownloadFault {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match (error.kind(), self.cache.disk()) {
            (StorageFull | QuotaExceeded | FileTooLarge, Ok(disk)) => DownloadFault::DiskFull {
                needed: ByteSize(missing.unwrap_or_default()),
                available: ByteSize(disk.available),
            },
            _ => DownloadFault::Write(error),
        }
    }
}

fn failed(key: SourceKey, url: &Address, fault: DownloadFault) -> DownloadError {
    DownloadError::Failed {
        key,
        url: url.clone(),
        fault,
    }
}

fn accepted(answer: Response) -> Result<Response, DownloadFault> {
    match answer.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
        status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => {
            Err(DownloadFault::NotFound(status.as_u16()))
        }
        status => Err(DownloadFault::Status(status.to_string())),
    }
}

/// What tells this version of a file from others: a weak `ETag` does not (RFC 9110, 13.1.5).
fn validator(answer: &Response) -> Option<String> {
    let header = |name| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
    let strong = header(ETAG).filter(|tag| !tag.starts_with("W/"));
    strong.or_else(|| header(LAST_MODIFIED))
}

/// Where the part of a file begins that came (`bytes 100-199/200`).
fn first_byte(answer: &Response) -> Option<u64> {
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.parse().ok()
}

/// How fast it comes.
struct Pace<'a> {
    name: &'a str,
    whole: Option<u64>,
    first: u64,
    begun: Instant,
    told: Instant,
}

impl<'a> Pace<'a> {
    fn new(name: &'a str, first: u64, whole: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            name,
            whole,
            first,
            begun: now,
            told: now,
        }
    }

    /// What there is to say now, if it is time.
    fn told(&mut self, size: u64) -> Option<String> {
        if self.told.elapsed() < TELL {
            return None;
        }
        self.told = Instant::now();
        Some(self.text(size, self.begun.elapsed()))
    }

    fn text(&self, size: u64, elapsed: Duration) -> String {
        let come = (size - self.first) as f64;
        let rate = ByteSize((come / elapsed.as_secs_f64().max(0.001)) as u64);
        let name = self.name;
        match self.whole {
            Some(whole) => {
                let percent = u128::from(size) * 100 / u128::from(whole.max(1));
                let (size, whole) = (ByteSize(size), ByteSize(whole));
                format!("{name}: {size} of {whole} ({percent} %), {rate}/s")
            }
            None => format!("{name}: {}, {rate}/s", ByteSize(size)),
        }
    }
}
