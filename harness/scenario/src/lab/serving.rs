//! The server of whoever sends: a Pod's own, or one that is started on a node; and one that is in the
//! way of somebody else's.

use std::time::Duration;

use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::node::Node;

/// Where a node's listens; Pods have theirs at port 80.
const NODE_PORT: u16 = 8137;

/// For a node to start its own, before stretching.
const STARTED: Duration = Duration::from_secs(20);

/// Serves at a port of the node; another sender there may have started it before.
const SERVE: &str = "\
systemctl is-active --quiet podwire-traffic || \
systemd-run --quiet --collect --unit podwire-traffic probe serve --port $port && \
until curl -s -o /dev/null http://127.0.0.1:$port/; do sleep 0.1; done";

/// Where its server listens, as its node sees it.
pub(super) fn place(of: &Party) -> String {
    match of.pod {
        true => format!("{}:80", of.address),
        false => format!("127.0.0.1:{NODE_PORT}"),
    }
}

impl Lab {
    /// Starts a node's server, where it has none; a Pod has one.
    pub(super) async fn serve_on(&self, party: &Party) -> anyhow::Result<()> {
        if !party.pod {
            let start = format!("port={NODE_PORT}; {SERVE}");
            let node = self.cluster().node(party.node);
            node.run_ok(&start, self.limit(STARTED)).await?;
        }
        Ok(())
    }
}

impl Node<'_> {
    /// Has a server listen at one of its ports, on every address, which answers HTTP by its name: from now
    /// on nobody else can.
    ///
    /// # Errors
    /// When it does not come to that: somebody else may listen there.
    pub async fn occupy_port(self, port: u16) -> anyhow::Result<()> {
        let occupy = format!(
            "systemd-run --quiet --collect --unit port-{port} probe serve --port {port} && \
             until curl -s -o /dev/null http://127.0.0.1:{port}/; do sleep 0.1; done"
        );
        self.run(occupy).within(STARTED).await?;
        Ok(())
    }

    /// Ends the server of [`Node::occupy_port`].
    ///
    /// # Errors
    /// When there is none.
    pub async fn free_port(self, port: u16) -> anyhow::Result<()> {
        self.stop(&format!("port-{port}")).await
    }
}
