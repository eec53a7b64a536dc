//! The handle on a running segment's rules.

use crate::mailbox::{Command, Mailbox};
use crate::{AddressFilter, LanError, Rule, RuleId, RulesReport};

/// Sets and takes away what becomes of a segment's frames. As many may be handed out as are needed.
#[derive(Debug, Clone)]
pub struct RulesHandle {
    mailbox: Mailbox,
}

impl RulesHandle {
    pub(crate) fn new(mailbox: Mailbox) -> Self {
        RulesHandle { mailbox }
    }

    /// Puts a rule before all others: what it selects, no older rule sees.
    ///
    /// # Errors
    /// [`LanError::Rule`] for one that contradicts itself, [`LanError::UnknownPort`],
    /// [`LanError::Stopped`].
    pub fn add(&self, rule: Rule) -> Result<RuleId, LanError> {
        self.set(rule, false)
    }

    /// Merges a rule into the first with the same selector, see
    /// [`Impairment::merged`](crate::Impairment::merged). Where there is none it is added.
    ///
    /// # Errors
    /// As [`RulesHandle::add`]; what was set before stays as it was.
    pub fn merge(&self, rule: Rule) -> Result<RuleId, LanError> {
        self.set(rule, true)
    }

    fn set(&self, rule: Rule, merge: bool) -> Result<RuleId, LanError> {
        let rule = Box::new(rule);
        self.mailbox
            .ask(|reply| Command::SetRule { rule, merge, reply })?
    }

    /// Takes a rule away; false when it was gone already. The frames that wait for it go on at once.
    ///
    /// # Errors
    /// [`LanError::Stopped`].
    pub fn heal(&self, id: RuleId) -> Result<bool, LanError> {
        self.mailbox.ask(|reply| Command::Heal { id, reply })
    }

    /// Sets a port's address filter in place of the one before.
    ///
    /// # Errors
    /// [`LanError::UnknownPort`], [`LanError::Stopped`].
    pub fn set_filter(&self, filter: AddressFilter) -> Result<(), LanError> {
        self.mailbox
            .ask(|reply| Command::SetFilter { filter, reply })?
    }

    /// Takes a port's address filter away; false when it has none.
    ///
    /// # Errors
    /// [`LanError::UnknownPort`], [`LanError::Stopped`].
    pub fn remove_filter(&self, port: &str) -> Result<bool, LanError> {
        let port = port.to_owned();
        self.mailbox
            .ask(|reply| Command::RemoveFilter { port, reply })?
    }

    /// What is set, as asked and as realised.
    ///
    /// # Errors
    /// [`LanError::Stopped`].
    pub fn report(&self) -> Result<RulesReport, LanError> {
        self.mailbox.ask(|reply| Command::Rules { reply })
    }
}
