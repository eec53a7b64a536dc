//! The segment's rules, for the person at the terminal.

use podwire_lan::{AddressFilter, Check, Ipv4Net, LanError, RulesReport};

use crate::AccessError;
use crate::protocol::WireRequest;
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
        if let Some(node) = node {
            self.room(node)?;
        }
        let mut report = self.rules.report().map_err(refused)?;
        if let Some(node) = node {
            report.rules.retain(|it| it.rule.selector.names(node));
            report.filters.retain(|it| it.filter.port == node);
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

fn refused(error: LanError) -> AccessError {
    AccessError::Refused(error.to_string())
}
