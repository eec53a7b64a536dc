//! What a lost packet met on the node that had it last.

use crate::check::pairs::{Met, Trace};
use crate::lab::Lab;

impl Lab {
    /// That node's route to where the packet was going, and its rules that let something not pass. Nothing
    /// where no node is known to have had it, or that one does not answer.
    pub(crate) async fn met(&self, trace: &Trace) -> Option<Met> {
        let number = trace.held_by?;
        let node = (1..=self.node_count()).contains(&number);
        let node = node.then(|| self.node(number))?;
        let asked = node.run(Met::question(trace.heading)).may_fail().await;
        Some(Met::read(number, trace.heading, &asked.ok()?.stdout))
    }
}
