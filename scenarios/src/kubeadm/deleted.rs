//! What a deleted Node leaves on its machine, and how it comes back unasked.

use std::collections::BTreeSet;

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Node, Probe, Profile, READY_AFTER_JOIN, Sabotage, Scenario,
    StageName, ensure, listed, secs, steps,
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
    sabotages: &[
        Sabotage::new("container-stopped")
            .about("a container of the deleted node is stopped")
            .inject(steps!(|lab| {
                let node = lab.last_node();
                lab.keep(containers(node).await?);
                node.delete().await?;
                node.run("crictl stop --timeout 0 $(crictl ps -q 2>/dev/null | head -n 1)").await
            }))
            .caught_by(steps!(|lab| containers_stay(lab, &lab.kept()?).await), Cause::Died),
        Sabotage::new("kubelet-stopped")
            .about("the deleted node's kubelet does not run")
            .inject(steps!(|lab| {
                lab.last_node().stop("kubelet").await?;
                lab.last_node().delete().await
            }))
            .caught_by(steps!(containers_vanish), Cause::Answered),
        Sabotage::new("kubelet-cannot-start")
            .about("the deleted node's kubelet ends whenever it is started")
            .inject(steps!(|lab| {
                lab.last_node().delete().await?;
                lab.last_node().run(ENDS_AT_ONCE).await
            }))
            .caught_by(steps!(registers_again), Cause::Absent),
    ],
    ..Scenario::new("deleted_node", StageName::Workload, steps!(deleted))
};

async fn deleted(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    let before = containers(node).await?;
    node.delete().await?;
    containers_stay(lab, &before).await?;
    containers_vanish(lab).await?;
    registers_again(lab).await
}

async fn containers_stay(lab: &Lab, before: &BTreeSet<String>) -> anyhow::Result<()> {
    lab.step("its containers are still there (E28)");
    let after = containers(lab.last_node()).await?;
    let same = !before.is_empty() && after == *before;
    let (before, after) = (listed(before), listed(&after));
    ensure!(same, Died, "the containers of before: {before}", "{after}");
    Ok(())
}

async fn registers_again(lab: &Lab) -> anyhow::Result<()> {
    lab.step("restart its kubelet: the Node registers again (E28)");
    lab.last_node().restart("kubelet").await?;
    lab.last_node().ready_within(READY_AFTER_JOIN).await
}

const ENDS_AT_ONCE: &str = "\
printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' | install -D -m 644 /dev/stdin \
/etc/systemd/system/kubelet.service.d/99-sabotage.conf && systemctl daemon-reload";

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
