//! A connection that stays open, and carries numbers there and back.

use anyhow::Context as _;
use podwire_probe::StreamReport;

use crate::check::assert::Party;
use crate::lab::Lab;

impl Lab {
    /// Has a Pod open a TCP connection to port 80 of another and count into it, a number after the
    /// other as each comes back, until it breaks.
    ///
    /// # Errors
    /// When no connection comes about.
    pub async fn open_stream(&self, from: &Party, to: &Party) -> anyhow::Result<()> {
        self.step(format!(
            "open a connection from {from} to {to} and count into it"
        ));
        let (sender, to) = (from.address, to.address);
        let open =
            format!("curl -sS --fail-with-body --max-time 60 -d {to}:80 http://{sender}/streams");
        self.node(from.node).run(open).await?;
        Ok(())
    }

    /// How the first connection that this Pod has opened goes on.
    ///
    /// # Errors
    /// When the Pod cannot be asked, or has opened none.
    pub async fn stream_of(&self, from: &Party) -> anyhow::Result<StreamReport> {
        let ask = format!("curl -sSf --max-time 10 http://{}/streams", from.address);
        let answer = self.node(from.node).run(ask).await?;
        let reports: Vec<StreamReport> = serde_json::from_str(&answer.stdout)?;
        let first = reports.into_iter().next();
        first.with_context(|| format!("{from} has no open connection"))
    }
}
