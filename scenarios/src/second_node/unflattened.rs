//! A node joins with a copy of a kubeconfig that names files.

use podwire_scenario::{
    Cause, Cells, Lab, Probe, Profile, Sabotage, Scenario, StageName, ensure, secs, steps,
};

use crate::catalogue::{C1b, C5};

/// C1b!, C5: the other way than to flatten it, on a node from which etcd was removed.
pub(crate) const UNFLATTENED: Scenario = Scenario {
    about: "With an unflattened copy of a kubeconfig alone the kubelet ends, and names a file that is \
            missing; with the files the node joins, although it has no etcd",
    covers: &[C1b, C5],
    cells: Cells::ByHand,
    profile: Profile::Full,
    limit: secs(120),
    sabotages: &[
        Sabotage::new("files-are-there")
            .about("the files that the kubeconfig names are on the node already")
            .inject(steps!(|lab| {
                copy_kubeconfig(lab).await?;
                lab.last_node().write_files_of_kubeconfig(lab.last_node()).await
            }))
            .caught_by(steps!(kubelet_ends_naming_a_file), Cause::Answered),
        Sabotage::new("key-is-missing")
            .about("one of the files is not copied: the key")
            .inject(steps!(|lab| {
                copy_kubeconfig(lab).await?;
                let node = lab.last_node();
                node.write_files_of_kubeconfig(node).await?;
                node.run("rm /root/join/node.key").await?;
                start_kubelet(lab).await
            }))
            .caught_by(steps!(registers), Cause::Absent),
        Sabotage::new("etcd-runs-there")
            .about("etcd runs on the second node as well")
            .inject(steps!(|lab| {
                lab.last_node().start_component(&lab.etcd().without_flags()).await
            }))
            .caught_by(steps!(without_etcd), Cause::Answered),
    ],
    ..Scenario::new("unflattened_kubeconfig", StageName::Joined, steps!(unflattened))
};

async fn unflattened(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("remove etcd from {node}, as if it had never been installed (C5)"));
    node.run("rm $(command -v etcd)").await?;

    copy_kubeconfig(lab).await?;
    kubelet_ends_naming_a_file(lab).await?;

    lab.step("copy the files as well, and start the kubelet again (C1b)");
    node.write_files_of_kubeconfig(node).await?;
    start_kubelet(lab).await?;
    registers(lab).await?;
    without_etcd(lab).await
}

/// From node 1, where the files are; with node 1's name instead of localhost, for that is another story.
async fn copy_kubeconfig(lab: &Lab) -> anyhow::Result<()> {
    let (node, node1) = (lab.last_node(), lab.node(1));
    node.take_off().await?;
    lab.step(format!(
        "copy a kubeconfig from node1 to {node}, and not the files that it names (C1b)"
    ));
    node.write_kubeconfig_with_files(node1).await?;
    node.write_files_of_kubeconfig(node1).await?;
    let copy = node1.run("sed s/localhost:6443/node1:6443/ /root/join/config").await?;
    node.write_secret("/root/join/config", copy.stdout).await
}

async fn start_kubelet(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    let kubelet = node.kubelet().with("--kubeconfig", "/root/join/config");
    node.start_component(&kubelet).await
}

async fn kubelet_ends_naming_a_file(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the kubelet: it ends, and names a file that is missing (C1b)");
    let node = lab.last_node();
    start_kubelet(lab).await?;
    let said = lab.eventually("the kubelet to end", secs(20), async || {
        if node.listed().await?.is_some() {
            return Ok(Probe::hopeless(Cause::Answered, format!("{node} has joined")));
        }
        let said = node.last_words(&node.kubelet()).await;
        let ended = said.contains("command failed").then(|| said.clone());
        Ok(Probe::of(ended, Cause::NotReady, said))
    });
    let said = said.await?;
    let named = said.contains("/root/join/node.crt: no such file or directory");
    ensure!(named, WrongAnswer, "its last words to name /root/join/node.crt", "{said}");
    Ok(())
}

async fn registers(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("{node} is listed (C1b, C5)"));
    node.until(format!("the Node {node}"), secs(20), |listed| {
        Probe::when(listed.is_some(), Cause::Absent, "no such Node")
    })
    .await
}

/// The one that the cluster has answers beside it, on node 1.
async fn without_etcd(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("etcd answers on node1, and {node} has none (C5)"));
    let health = "http://localhost:2379/health";
    let on_node1 = lab.node(1).curl(health).await?;
    on_node1.ends(Cause::Answered, "etcd to answer on node1")?;
    let here = node.curl(health).await?;
    Ok(here.ends(Cause::Refused, "nobody at etcd's port")?)
}
