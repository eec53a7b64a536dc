//! The handle on a running segment's rules.

use crate::mailbox::{Command, Mailbox};
use crate::rules::Mode;
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

    /// Puts rules before all others, in this order: what they select, no older rule sees. All of them
    /// or none.
    ///
    /// # Errors
    /// [`LanError::Rule`] for one that contradicts itself, [`LanError::UnknownPort`],
    /// [`LanError::Stopped`].
    pub fn add(&self, rules: Vec<Rule>) -> Result<Vec<RuleId>, LanError> {
        self.set(rules, Mode::Add)
    }

    /// Merges each rule into the first with the same selector, see
    /// [`Impairment::merged`](crate::Impairment::merged). Where there is none it is added. All of
    /// them or none.
    ///
    /// # Errors
    /// As [`RulesHandle::add`].
    pub fn merge(&self, rules: Vec<Rule>) -> Result<Vec<RuleId>, LanError> {
        self.set(rules, Mode::Merge)
    }

    fn set(&self, rules: Vec<Rule>, mode: Mode) -> Result<Vec<RuleId>, LanError> {
        self.mailbox
            .ask(|reply| Command::SetRules { rules, mode, reply })?
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
