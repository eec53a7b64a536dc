//! The addresses that a node's CNI plugin `host-local` has given to its Pods.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::lab::node::Node;

/// Where it keeps a file for each, and one with the last (CNI plugins, "host-local").
const GIVEN: &str = "/var/lib/cni/networks/*";

impl Node<'_> {
    /// Those that are given and have not come back.
    ///
    /// # Errors
    /// When it does not answer, or has given none.
    pub async fn given_addresses(self) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
        let listed = self.run(format!("cd {GIVEN} && ls")).await?;
        let given = listed.text().lines().filter_map(|it| it.parse().ok());
        Ok(given.collect())
    }

    /// Has it give this one to the next Pod, if it is free.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn gives_next(self, address: Ipv4Addr) -> anyhow::Result<()> {
        let before = Ipv4Addr::from(u32::from(address).wrapping_sub(1));
        let last = format!("echo {before} > $(echo {GIVEN}/last_reserved_ip.0)");
        self.run(last).await?;
        Ok(())
    }

    /// Has it believe that this one is given, to nobody.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn leaks_address(self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.run(format!("echo nobody > $(echo {GIVEN})/{address}"))
            .await?;
        Ok(())
    }
}
