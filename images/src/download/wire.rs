use std::ops::Deref;
use std::time::Duration;

use bytesize::ByteSize;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, IntoUrl, RequestBuilder, Response, Url};

use super::DownloadFault;
use super::error::Redirect;
use crate::address;

/// Redirections that are followed.
const REDIRECTS: usize = 10;

/// What is not waited for, and not taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the first packet to a connection.
    pub(crate) connect: Duration,
    /// Silence before or in the middle of an answer.
    pub(crate) silence: Duration,
    /// Connections after the first one, when one broke.
    pub(crate) retries: u32,
    /// Before the first of those; before each further one twice as long.
    pub(crate) pause: Duration,
    /// Bytes of a file.
    pub(crate) file: u64,
}

pub(crate) const LIMITS: Limits = Limits {
    connect: Duration::from_secs(15),
    silence: Duration::from_secs(60),
    retries: 4,
    pause: Duration::from_secs(1),
    // The largest, a cloud image, has 600 MiB.
    file: 2 << 30,
};

/// What asks servers, and takes no more of their answers than it is told.
pub(crate) struct Wire {
    client: Client,
    silence: Duration,
}

impl Wire {
    /// Takes the proxies that the environment names, and the host's certificates.
    pub(crate) fn new(client: ClientBuilder, limits: Limits) -> Result<Self, reqwest::Error> {
        // The client takes whatever the process uses; that it is set already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = client
            .user_agent(concat!("podwire/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .read_timeout(limits.silence)
            .redirect(Policy::custom(|attempt| {
                let times = attempt.previous().len();
                if attempt
                    .previous()
                    .iter()
                    .any(|from| is_downgrade(from, attempt.url()))
                {
                    let to = Some(address::shown(attempt.url()));
                    return attempt.error(Redirect { to, times });
                }
                if times > REDIRECTS {
                    return attempt.error(Redirect { to: None, times });
                }
                attempt.follow()
            }))
            .build()?;
        Ok(Self {
            client,
            silence: limits.silence,
        })
    }

    pub(crate) fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.client.get(url)
    }

    /// The head of an answer; `got` bytes had come before.
    pub(crate) async fn sent(
        &self,
        request: RequestBuilder,
        got: u64,
    ) -> Result<Response, DownloadFault> {
        let answer = request.send().await;
        answer.map_err(|error| DownloadFault::of(error, got, self.silence))
    }

    /// What comes next of an answer; nothing at its end.
    pub(crate) async fn chunk(
        &self,
        answer: &mut Response,
        got: u64,
    ) -> Result<Option<impl Deref<Target = [u8]>>, DownloadFault> {
        let chunk = answer.chunk().await;
        chunk.map_err(|error| DownloadFault::of(error, got, self.silence))
    }

    /// The whole of an answer that is short.
    pub(crate) async fn body(
        &self,
        mut answer: Response,
        limit: u64,
    ) -> Result<Vec<u8>, DownloadFault> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(&mut answer, bytes.len() as u64).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(DownloadFault::TooLarge(ByteSize(limit)));
            }
        }
        Ok(bytes)
    }
}

/// Whether a redirection gives up that somebody vouches for what comes.
pub(crate) fn is_downgrade(from: &Url, to: &Url) -> bool {
    from.scheme() == "https" && to.scheme() != "https"
}
