//! Draining.

use podwire_scenario::{
    Cause, Cells, Lab, Pod, Profile, Sabotage, Scenario, StageName, assert, ensure, ensure_none,
    listed, secs, steps,
};

use crate::catalogue::{E27, E27b};

/// E27, E27b!: draining.
pub(crate) const DRAIN: Scenario = Scenario {
    about: "drain cordons a node and refuses to go on because of DaemonSets, naming their Pods; told \
            to ignore them it leaves only these, and new Pods land elsewhere",
    covers: &[E27, E27b],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("not-drained")
            .about("nobody drained the node")
            .caught_by(steps!(only_its_own_pods_left), Cause::Answered),
        Sabotage::new("not-cordoned").about("the node is schedulable").caught_by(
            steps!(|lab| new_pods_land_elsewhere(lab, lab.nodes().count()).await),
            Cause::WrongAnswer,
        ),
        Sabotage::new("daemonsets-ignored")
            .about("drain is told to ignore DaemonSets at once")
            .caught_by(
                steps!(|lab| refuses_to_drain(lab, "--ignore-daemonsets").await),
                Cause::Answered,
            ),
    ],
    ..Scenario::new("kubectl_drain", StageName::Workload, steps!(drained))
};

async fn drained(lab: &Lab) -> anyhow::Result<()> {
    refuses_to_drain(lab, "").await?;
    lab.last_node().drain().await?;
    only_its_own_pods_left(lab).await?;
    new_pods_land_elsewhere(lab, 1).await
}

async fn refuses_to_drain(lab: &Lab, flags: &str) -> anyhow::Result<()> {
    let node = lab.last_node();
    let before = lab.pods().on(node).running().await?;
    let drain = format!("drain {node} {flags}");
    lab.step(format!("kubectl {drain}: cordoned, and refused (E27b)"));
    let answer = lab.kubectl(drain).may_fail().await?;
    let pods = lab.pods().everywhere().on(node).await?;
    let daemons = pods.iter().filter(|pod| pod.daemon_set().is_some());
    let daemons: Vec<String> = daemons.map(Pod::full_name).collect();
    let expected = format!("drain to refuse, naming {}", daemons.join(" and "));
    let why = "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)";
    assert::refused(&answer, why, &expected)?;
    let said = answer.said();
    let names_all = !daemons.is_empty() && daemons.iter().all(|pod| said.contains(pod));
    ensure!(names_all, WrongAnswer, "{expected}", "{said}");

    let cordoned = node.is_cordoned().await?;
    ensure!(cordoned, Absent, "{node} cordoned although the drain was refused", "it is not");
    let after = lab.pods().on(node).running().await?;
    let (same, stay, run) = (after == before, listed(&before), listed(&after));
    ensure!(same, Died, "these to stay on {node}: {stay}", "these run there: {run}");
    Ok(())
}

async fn only_its_own_pods_left(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("only DaemonSets' and static Pods are left on {node} (E27)"));
    let left = lab.pods().everywhere().on(node).await?;
    let others = left.iter().filter(|pod| !pod.belongs_to_its_node());
    ensure_none!(
        others.map(Pod::full_name),
        Answered,
        "only DaemonSets' and static Pods on {node}"
    );
    Ok(())
}

/// Scales the workload up by as many Pods as there would be room for on every node.
async fn new_pods_land_elsewhere(lab: &Lab, new: usize) -> anyhow::Result<()> {
    let node = lab.last_node();
    let all = lab.pods().await?;
    let here = lab.pods().on(node).running().await?;
    let wanted = all.iter().filter(|pod| !pod.is_terminating()).count() + new;
    lab.step(format!("scale up to {wanted} Pods: none lands on {node}"));
    lab.deployment("blue").scale(wanted).await?;
    lab.pods().until_running(wanted).await?;
    let now = lab.pods().on(node).running().await?;
    let came = now.iter().filter(|pod| !here.contains(pod));
    ensure_none!(came, WrongAnswer, "no new Pod on {node}");
    Ok(())
}
