//! What stands out in the nodes' own set-up.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use futures::future::join_all;

use crate::check::nodes::{self, NodeTrouble, Said};
use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::node::Node;

/// What stands out on the nodes, in the attempt's folder.
pub(crate) const NODES: &str = "nodes.txt";

impl Lab {
    /// What of the nodes' own set-up keeps packets or certificates from doing what they should: strict
    /// reverse-path filtering that has dropped something, a FORWARD policy of DROP, a full table of
    /// connections, a wrong clock. Each with its node; the first page of a failure has the same.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn node_troubles(&self) -> anyhow::Result<Vec<(Party, NodeTrouble)>> {
        let said = join_all(self.nodes().map(said)).await;
        let said: anyhow::Result<Vec<Said>> = said.into_iter().collect();
        Ok(nodes::troubles(&said?))
    }

    /// Leaves them in a folder, of the nodes that answer, if there are any.
    pub(crate) async fn leave_node_troubles(&self, folder: &Path) -> io::Result<()> {
        let said = join_all(self.nodes().map(said)).await;
        let said: Vec<Said> = said.into_iter().filter_map(Result::ok).collect();
        match nodes::told(&nodes::troubles(&said)) {
            Some(told) => fs::write(folder.join(NODES), told),
            None => Ok(()),
        }
    }
}

async fn said(node: Node<'_>) -> anyhow::Result<Said> {
    let asked = Instant::now();
    let text = node.run(nodes::QUESTION).await?.stdout;
    Ok(Said {
        node: node.party(),
        asked,
        told: Instant::now(),
        text,
    })
}
