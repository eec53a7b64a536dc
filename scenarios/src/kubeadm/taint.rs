//! A taint keeps new Pods away, and evicts none.

use podwire_scenario::{Cause, Cells, Lab, Profile, Sabotage, Scenario, StageName, ensure, steps};
use serde_json::json;

use crate::catalogue::E24;

/// E24: a taint keeps new Pods away, and evicts none.
pub(crate) const TAINT: Scenario = Scenario {
    about: "With kubeadm's taint on the control plane a new Deployment's Pods go to the workers; \
            Pods that run there already stay",
    covers: &[E24],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    sabotages: &[Sabotage {
        name: "tolerated",
        about: "the Deployment tolerates the taint and asks for the control plane",
        expects: Cause::WrongAnswer,
        inject: steps!(|lab| {
            taint_the_control_plane(lab).await?;
            lab.step("create a Deployment that tolerates the taint and wants node1");
            let wanting = json!({
                "nodeSelector": { "kubernetes.io/hostname": "node1" },
                "tolerations": [{ "operator": "Exists" }],
            });
            lab.deployment(GREEN).create(2, wanting).await
        }),
        check: steps!(lands_on_workers),
    }],
    ..Scenario::new("tainted_control_plane", StageName::Workload, steps!(taint))
};

/// The taint that kubeadm gives to a control plane; the lab's still said `master`.
pub(super) const OF_A_CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane=:NoSchedule";
const GREEN: &str = "green";

async fn taint(lab: &Lab) -> anyhow::Result<()> {
    let before = lab.pods().on(lab.node(1)).running().await?;
    ensure!(!before.is_empty(), Absent, "Pods on node1 before the taint", "none");
    taint_the_control_plane(lab).await?;
    lab.step("create a Deployment");
    lab.deployment(GREEN).create(2, json!({})).await?;
    lands_on_workers(lab).await?;
    lab.step("the Pods that ran on node1 before still do");
    let after = lab.pods().on(lab.node(1)).running().await?;
    ensure!(after == before, Died, "{before:?} to stay", "{after:?}");
    Ok(())
}

async fn taint_the_control_plane(lab: &Lab) -> anyhow::Result<()> {
    lab.step("taint the control plane");
    lab.kubectl(format!("taint nodes node1 {OF_A_CONTROL_PLANE}")).await?;
    Ok(())
}

async fn lands_on_workers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("its Pods run, on workers only");
    let pods = lab.deployment(GREEN).pods().until_running(2).await?;
    let astray = pods.iter().find(|pod| pod.node == 1);
    let none = astray.is_none();
    ensure!(none, WrongAnswer, "no new Pod on the tainted control plane", "{astray:?}");
    Ok(())
}
