//! A connection that stays open, and carries numbers there and back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_probe::{StreamReport, StreamRequest};

use crate::check::party::Party;
use crate::check::streams::{Told, misreported};
use crate::lab::Lab;
use crate::lab::serving::place;

/// For one question to its sender, before stretching; a connection may take ten seconds to come about.
const QUESTION: Duration = Duration::from_secs(30);

/// The last stream from somebody to somebody.
#[derive(Debug)]
struct Stream {
    from: Ipv4Addr,
    to: SocketAddr,
    /// By the host's clock, where this lab has opened it: before it was asked for.
    opened: Option<Instant>,
    told: Told,
}

/// The streams of a lab, as far as they were told of.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<Vec<Stream>>);

impl Streams {
    fn all(&self) -> MutexGuard<'_, Vec<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, from: &Party, request: StreamRequest, at: Instant) {
        let (from, to) = (from.address, request.to);
        let mut all = self.all();
        all.retain(|it| (it.from, it.to) != (from, to));
        all.push(Stream {
            from,
            to,
            opened: Some(at),
            told: Told {
                asked: Some(request),
                before: None,
            },
        });
    }

    /// Judges what somebody tells of a stream, and remembers it.
    fn told(&self, from: &Party, report: &StreamReport, now: Instant) -> anyhow::Result<()> {
        let (address, to) = (from.address, report.request.to);
        let mut all = self.all();
        let known = all.iter().position(|it| (it.from, it.to) == (address, to));
        let index = known.unwrap_or_else(|| {
            all.push(Stream {
                from: address,
                to,
                opened: None,
                told: Told {
                    asked: None,
                    before: None,
                },
            });
            all.len() - 1
        });
        let Stream { opened, told, .. } = &mut all[index];
        let age = opened.map(|opened| now.saturating_duration_since(opened));
        if let Some(wrong) = misreported(told, report, age) {
            anyhow::bail!("what {from} tells of its connection to {to} cannot be: {wrong}");
        }
        told.before = Some(report.clone());
        Ok(())
    }
}

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
        let begun = Instant::now();
        self.ask_for_streams(from, "POST", &body).await?;
        self.streams().opened(from, request, begun);
        Ok(())
    }

    /// How the connection goes on that was opened last from one to the other.
    ///
    /// # Errors
    /// When the sender cannot be asked, has opened none there, or tells what cannot be.
    pub async fn stream_between(&self, from: &Party, to: &Party) -> anyhow::Result<StreamReport> {
        let answer = self.ask_for_streams(from, "GET", "").await?;
        let reports: Vec<StreamReport> = serde_json::from_str(&answer)
            .with_context(|| format!("{from} tells of no connections"))?;
        let there = SocketAddr::from((to.address, 80));
        let mut there = reports
            .into_iter()
            .rev()
            .filter(|it| it.request.to == there);
        let last = there.next();
        let last = last.with_context(|| format!("{from} has opened no connection to {to}"))?;
        self.streams().told(from, &last, Instant::now())?;
        Ok(last)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_judged_by_what_was_asked_and_told_of_it_and_by_its_age() {
        let streams = Streams::default();
        let from = Party::new("blue-a", 1, true, [10, 1, 1, 2]);
        let request = |last: u8| StreamRequest {
            to: SocketAddr::from(([10, 1, 2, last], 80)),
            interval_ms: 50,
        };
        let report = |last: u8, echoed| StreamReport {
            request: request(last),
            host: "blue-b".into(),
            echoed,
            longest_ms: 0,
            failure: None,
        };
        let begun = Instant::now();
        let later = begun + Duration::from_secs(1);
        streams.opened(&from, request(2), begun);
        let told = |report: &StreamReport| streams.told(&from, report, later).is_ok();
        assert!(told(&report(2, 20)));
        assert!(!told(&report(2, 19)));
        assert!(!told(&report(2, 500)));
        // One from before the clone may be as old as it likes; what it has told still holds.
        assert!(told(&report(3, 500)));
        assert!(!told(&report(3, 499)));
        // Another one to the same place begins anew.
        streams.opened(&from, request(2), begun);
        assert!(told(&report(2, 1)));
    }
}
