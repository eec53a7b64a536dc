//! What a scenario starts from: what its stage promises is there before it begins.

use std::time::Duration;

use kube::runtime::watcher;
use podwire_cluster::workload::REPLICAS_PER_NODE;
use podwire_cluster::{StageManifest, WORKLOAD_SERVICE, addresses};

use crate::check::failure::{Cause, ensure};
use crate::lab::Lab;
use crate::lab::nodes::READY;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// For Pods that the stage has waited for in vain already: they may have been late, and that is soon seen.
const WAITED_FOR: Duration = Duration::from_secs(5);

impl Lab {
    /// Waits until there is what the stage promises: its Nodes, and the workload with all of its Pods,
    /// as many on every node. A stage is frozen even if it did not settle, and what is missing then
    /// would be missing in what a scenario asks, too, where nobody misses it.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that: of the cluster, not of the scenario.
    pub(crate) async fn begins_as(&self, stage: &StageManifest) -> anyhow::Result<()> {
        let has = stage.name.has(self.cluster().plan().cell);
        if has.nodes_ready {
            self.all_nodes_ready().await?;
        } else if has.nodes_registered {
            self.all_nodes_registered().await?;
        }
        if !has.workload {
            return Ok(());
        }
        let nodes = self.node_count();
        let wanted = (nodes * REPLICAS_PER_NODE) as usize;
        let replicas = self.deployment(WORKLOAD_SERVICE).replicas().await?;
        ensure!(
            replicas == wanted,
            WrongAnswer,
            "the workload to begin with {wanted} Pods",
            "its Deployment asks for {replicas}"
        );
        let pods = match stage.unsettled {
            None => self.pods(),
            Some(_) => self.pods().within(WAITED_FOR),
        };
        let pods = pods.all().await?;
        Ok(pods.spread_evenly(nodes, REPLICAS_PER_NODE)?)
    }

    /// There is a Node for every machine, Ready or not.
    async fn all_nodes_registered(&self) -> anyhow::Result<()> {
        let expected = format!("{} registered Nodes", self.node_count());
        let every = watcher::Config::default();
        self.watch(expected, READY, self.api_nodes(), every, |listed| {
            let is_listed = |name: &String| {
                let mut names = listed.iter().map(|node| node.metadata.name.as_ref());
                names.any(|listed| listed == Some(name))
            };
            let mut all =
                (1..=self.node_count()).map(|number| (number, addresses::node_name(number)));
            Ok(match all.find(|(_, name)| !is_listed(name)) {
                None => Probe::Done(()),
                Some((number, name)) => Probe::not_yet(Cause::Absent, format!("no Node {name}"))
                    .needs(Needs::Kubelet(number)),
            })
        })
        .await
    }
}
