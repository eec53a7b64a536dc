//! The segment's rules and frames, for the person at the terminal.

use podwire_lan::{AddressFilter, Check, FilterError, Ipv4Net, LanError, RulesReport, Tap};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::AccessError;
use crate::protocol::{self, Answer, WireRequest};
use crate::server::{Dial, House};

impl<D: Dial> House<D> {
    pub(crate) fn wire(&self, request: WireRequest) -> Result<RulesReport, AccessError> {
        match request {
            WireRequest::Impair { rules, check } => {
                let filter = match check {
                    Some((node, check)) => Some(self.filter(node, check)?),
                    None => None,
                };
                let port = filter.as_ref().map(|filter| filter.port.clone());
                let set = self.rules.merge(rules).map_err(refused)?;
                if let Some(filter) = filter {
                    self.rules.set_filter(filter).map_err(refused)?;
                }
                let mut report = self.rules.report().map_err(refused)?;
                report.rules.retain(|rule| set.contains(&rule.id));
                let is_meant = |of: &String| port.as_ref() == Some(of);
                report.filters.retain(|it| is_meant(&it.filter.port));
                Ok(report)
            }
            WireRequest::Show => self.rules.report().map_err(refused),
            WireRequest::Heal { node } => self.heal(node.as_deref()),
        }
    }

    pub(crate) fn tap(&self, node: Option<&str>, filter: &str) -> Result<Tap, AccessError> {
        let filter = filter.parse();
        let filter =
            filter.map_err(|error: FilterError| AccessError::Refused(error.to_string()))?;
        self.taps.open(node, filter).map_err(refused)
    }

    fn filter(&self, node: String, check: Check) -> Result<AddressFilter, AccessError> {
        let address = self.room(&node)?.node.address;
        Ok(AddressFilter {
            port: node,
            own: vec![Ipv4Net {
                address,
                prefix: 32,
            }],
            check,
        })
    }

    /// Heals what is set for a node, or everything; gives what that was.
    fn heal(&self, node: Option<&str>) -> Result<RulesReport, AccessError> {
        let mut report = self.rules.report().map_err(refused)?;
        if let Some(node) = node {
            report.rules.retain(|it| it.rule.selector.names(node));
            report.filters.retain(|it| it.filter.port == node);
            // What rules are for may be a port of none of these: the gateway's, a router's.
            if report.rules.is_empty() && report.filters.is_empty() {
                self.room(node)?;
            }
        }
        for rule in &report.rules {
            self.rules.heal(rule.id).map_err(refused)?;
        }
        for filter in &report.filters {
            let port = &filter.filter.port;
            self.rules.remove_filter(port).map_err(refused)?;
        }
        Ok(report)
    }
}

/// Sends frames on until the reader leaves or the segment ends.
pub(crate) async fn capture(
    mut tap: Tap,
    stream: &mut BufReader<UnixStream>,
) -> Result<(), AccessError> {
    protocol::write(stream, &Answer::Capture).await?;
    let mut ignored = [0; 256];
    loop {
        let bytes = tokio::select! {
            bytes = tap.next() => bytes,
            read = stream.read(&mut ignored) => match read {
                Ok(0) | Err(_) => None,
                Ok(_) => continue,
            },
        };
        let Some(bytes) = bytes else {
            return Ok(());
        };
        stream
            .write_all(&bytes)
            .await
            .map_err(AccessError::closed)?;
        stream.flush().await.map_err(AccessError::closed)?;
    }
}

fn refused(error: LanError) -> AccessError {
    AccessError::Refused(error.to_string())
}
