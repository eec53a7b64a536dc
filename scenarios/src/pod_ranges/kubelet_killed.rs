//! A node whose kubelet is killed.

use std::collections::BTreeSet;

use podwire_scenario::{
    Break, Cause, Cells, Lab, Node, Party, Profile, Sabotage, Scenario, StageName, ensure, secs,
    steps,
};

use crate::catalogue::D10;

/// D10: containers do not need the kubelet that has started them.
pub(crate) const KUBELET_KILLED: Scenario = Scenario {
    about: "A node whose kubelet is killed becomes NotReady, and its Pods still answer; when it is \
            started again the Node is Ready, with the same containers as before",
    covers: &[D10],
    cells: Cells::ByHand,
    profile: Profile::Full,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("not-killed")
            .about("the kubelet runs on")
            .inject(steps!(look_before))
            .caught_by(steps!(node_goes_not_ready), Cause::Answered),
        Sabotage::new("containers-end-with-it")
            .about("the containers end when their kubelet does")
            .inject(steps!(|lab| {
                look_before(lab).await?;
                kill_kubelet(lab).await?;
                end_containers(killed(lab), "").await
            }))
            .caught_by(steps!(its_pods_answer), Cause::Refused),
        Sabotage::new("a-container-started-anew")
            .about("a container ends while nobody looks after it, and another takes its place")
            .inject(steps!(|lab| {
                look_before(lab).await?;
                kill_kubelet(lab).await?;
                end_containers(killed(lab), "| head -n 1").await
            }))
            .caught_by(steps!(same_containers_when_it_starts), Cause::Died),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("kubelet_killed", StageName::Workload, steps!(kubelet_killed))
};

async fn kubelet_killed(lab: &Lab) -> anyhow::Result<()> {
    look_before(lab).await?;
    kill_kubelet(lab).await?;
    node_goes_not_ready(lab).await?;
    its_pods_answer(lab).await?;
    same_containers_when_it_starts(lab).await?;
    its_pods_answer(lab).await
}

/// The node whose kubelet is killed: to its Pods a route leads from node 1.
fn killed(lab: &Lab) -> Node<'_> {
    lab.node(2)
}

/// What there was before.
#[derive(Clone)]
struct Before {
    /// Who asks: whoever is not among its Pods, which a sabotage ends.
    others: Vec<Party>,
    its_pods: Vec<Party>,
    containers: BTreeSet<String>,
}

async fn look_before(lab: &Lab) -> anyhow::Result<()> {
    let node = killed(lab);
    lab.step(format!("the Pods of {node}, and their containers"));
    let its_pods = lab.pods().on(node).running().await?;
    let mut others = lab.everybody().await?;
    others.retain(|it| !its_pods.contains(it));
    let before = Before { others, its_pods, containers: containers(node).await? };
    let some = !before.its_pods.is_empty() && !before.containers.is_empty();
    ensure!(some, Absent, "Pods of {node}, and their containers", "there are none");
    lab.keep(before);
    Ok(())
}

async fn containers(node: Node<'_>) -> anyhow::Result<BTreeSet<String>> {
    let ids = node.run("crictl ps -q 2>/dev/null").await?;
    Ok(ids.stdout.lines().map(ToOwned::to_owned).collect())
}

/// systemd would start one again that has died.
async fn kill_kubelet(lab: &Lab) -> anyhow::Result<()> {
    let node = killed(lab);
    lab.step(format!("kill the kubelet of {node}"));
    node.run("systemctl kill --signal KILL kubelet && systemctl stop kubelet").await.map(drop)
}

/// Those that the shell's filter leaves.
async fn end_containers(node: Node<'_>, filter: &str) -> anyhow::Result<()> {
    let end = "xargs crictl stop --timeout 0 2>/dev/null";
    node.run(format!("crictl ps -q 2>/dev/null {filter} | {end}")).within(secs(30)).await.map(drop)
}

async fn node_goes_not_ready(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("{} becomes NotReady (D10)", killed(lab)));
    killed(lab).until_silent().await
}

async fn its_pods_answer(lab: &Lab) -> anyhow::Result<()> {
    lab.step("its Pods answer everybody else (D10)");
    let before: Before = lab.kept()?;
    let mesh = lab.mesh(&before.others, &before.its_pods).await?;
    Ok(mesh.all_answer("its Pods to answer everybody else, as before")?)
}

async fn same_containers_when_it_starts(lab: &Lab) -> anyhow::Result<()> {
    let (node, before) = (killed(lab), lab.kept::<Before>()?);
    lab.step(format!("start the kubelet of {node}: its containers are the same (D10)"));
    node.start("kubelet").await?;
    node.ready_within(secs(30)).await?;
    // The controller manager has called them unready with their Node: whoever says otherwise has looked.
    lab.pods().all_running().await?;
    let after = containers(node).await?;
    let expected = format!("the containers {:?}", before.containers);
    ensure!(
        after == before.containers,
        Died,
        "{expected}",
        "{after:?}",
        "`crictl ps -a` of {node}"
    );
    Ok(())
}
