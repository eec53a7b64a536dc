//! When the packet filter's rules changed, and who changed them.

use futures::future::{join_all, try_join_all};
use podwire_cluster::units;

use crate::check::clock::millis;
use crate::check::rules::RuleChange;
use crate::lab::Lab;

impl Lab {
    /// Those of all nodes since the clone answered, the first first; of a node that does not answer, none.
    pub(crate) async fn rule_changes(&self) -> Vec<RuleChange> {
        let question = RuleChange::question(units::RULES);
        let asked = self.nodes().map(async |node| {
            let ages = (millis(self.age_at_first_answer()), millis(self.age()));
            let answer = node.run(&question).may_fail().await.ok()?;
            Some(RuleChange::read(node.name(), ages, &answer.stdout))
        });
        let of_each = join_all(asked).await;
        let mut all: Vec<RuleChange> = of_each.into_iter().flatten().flatten().collect();
        all.sort_by_key(|change| change.at_ms);
        all
    }

    /// Has no node listen to changes of its rules from now on: that takes processor time of what is measured.
    ///
    /// # Errors
    /// When a node does not carry it out.
    pub(crate) async fn hear_no_rule_changes(&self) -> anyhow::Result<()> {
        let stopped = self.nodes().map(async |node| node.stop(units::RULES).await);
        try_join_all(stopped).await.map(drop)
    }
}
