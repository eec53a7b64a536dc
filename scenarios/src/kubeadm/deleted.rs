//! What a deleted Node leaves on its machine, and how it comes back unasked.

use std::collections::BTreeSet;

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Node, Probe, Profile, READY_AFTER_JOIN, Sabotage, Scenario,
    StageName, ensure, secs, steps,
};

use crate::catalogue::E28;

/// E28: what a deleted Node leaves on its machine, and how it comes back unasked.
pub(crate) const DELETED: Scenario = Scenario {
    about: "A deleted Node is off the list at once; its containers run on until the Pods' garbage \
            collection, and then vanish; a restart of its kubelet registers it again",
    covers: &[E28],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(240),
    sabotages: &[Sabotage {
        name: "kubelet-stopped",
        about: "the deleted node's kubelet does not run",
        expects: Cause::Answered,
        inject: steps!(|lab| {
            lab.last_node().stop("kubelet").await?;
            lab.last_node().delete().await
        }),
        check: steps!(containers_vanish),
    }],
    ..Scenario::new("deleted_node", StageName::Workload, steps!(deleted))
};

async fn deleted(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    let before = containers(node).await?;
    node.delete().await?;
    lab.step("its containers are still there");
    let after = containers(node).await?;
    let same = !before.is_empty() && after == before;
    ensure!(same, Died, "the containers of before: {before:?}", "{after:?}");
    containers_vanish(lab).await?;
    lab.step("restart its kubelet: the Node registers again");
    node.restart("kubelet").await?;
    node.ready_within(READY_AFTER_JOIN).await
}

async fn containers(node: Node<'_>) -> anyhow::Result<BTreeSet<String>> {
    let ids = node.run("crictl ps -q 2>/dev/null").await?;
    Ok(ids.stdout.lines().map(ToOwned::to_owned).collect())
}

async fn containers_vanish(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step("its containers vanish: garbage collection takes its Pods, its kubelet the rest");
    let needs = Needs::All(vec![
        Needs::Kubelet(node.number()),
        Needs::ControlPlane("kube-controller-manager"),
    ]);
    lab.eventually("no container on the deleted node", secs(120), async || {
        let left = containers(node).await?.len();
        Ok(Probe::when(left == 0, Cause::Answered, format!("{left} containers"))
            .needs(needs.clone()))
    })
    .await
}
