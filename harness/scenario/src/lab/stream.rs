//! A connection that stays open, and carries numbers there and back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use podwire_probe::{StreamReport, StreamRequest};

use crate::check::assert::Party;
use crate::lab::Lab;
use crate::lab::serving::place;

/// For one question to its sender, before stretching; a connection may take ten seconds to come about.
const QUESTION: Duration = Duration::from_secs(30);

impl Lab {
    /// Has a Pod or a node open a TCP connection to port 80 of another and count into it, the next number
    /// so long after the last one came back, until it breaks.
    ///
    /// # Errors
    /// When no connection comes about.
    pub async fn open_stream(
        &self,
        from: &Party,
        to: &Party,
        every: Duration,
    ) -> anyhow::Result<()> {
        self.step(format!(
            "open a connection from {from} to {to} and count into it"
        ));
        self.serve_on(from).await?;
        let request = StreamRequest {
            to: SocketAddr::from((to.address, 80)),
            interval_ms: u64::try_from(every.as_millis())?,
        };
        let body = serde_json::to_string(&request)?;
        self.ask_for_streams(from, "POST", &body).await.map(drop)
    }

    /// How the connection goes on that was opened last from one to the other.
    ///
    /// # Errors
    /// When the sender cannot be asked, or has opened none there.
    pub async fn stream_between(&self, from: &Party, to: &Party) -> anyhow::Result<StreamReport> {
        let answer = self.ask_for_streams(from, "GET", "").await?;
        let reports: Vec<StreamReport> = serde_json::from_str(&answer)
            .with_context(|| format!("{from} tells of no connections"))?;
        let there = SocketAddr::from((to.address, 80));
        let mut there = reports
            .into_iter()
            .rev()
            .filter(|it| it.request.to == there);
        there
            .next()
            .with_context(|| format!("{from} has opened no connection to {to}"))
    }

    async fn ask_for_streams(
        &self,
        from: &Party,
        method: &str,
        body: &str,
    ) -> anyhow::Result<String> {
        let limit = self.limit(QUESTION);
        let command = format!(
            "curl -sS --fail-with-body --max-time {} -X {method} --data-binary @- \
             http://{}/streams",
            limit.as_secs(),
            place(from)
        );
        let node = self.cluster().node(from.node);
        let answer = node.run_with_input(&command, body.as_bytes(), limit).await;
        answer.with_context(|| format!("cannot ask {from} for its connections"))
    }
}
