//! A taint keeps new Pods away, and evicts none; without it Pods spread over all nodes.

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Party, Probe, Profile, Sabotage, Scenario, StageName, assert, ensure,
    ensure_none, listed, secs, steps,
};
use serde_json::{Value, json};

use crate::catalogue::{E24, E25, E26};

/// E24, E25!, E26: what the lab shows of the scheduler, from the taint to a Deployment's end.
pub(crate) const TAINT: Scenario = Scenario {
    about: "With kubeadm's taint on the control plane a new Deployment's Pods go to the workers, while \
            Pods that run there stay, and the same taint is refused a second time; once it is removed \
            a Deployment spreads over all nodes, and a deleted one leaves no Pod",
    covers: &[E24, E25, E26],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(240),
    sabotages: &[
        Sabotage::new("tolerated")
            .about("the Deployment tolerates the taint and asks for the control plane")
            .inject(steps!(|lab| {
                taint_the_control_plane(lab).await?;
                lab.step("create a Deployment that tolerates the taint and wants node1");
                let wanting = json!({
                    "nodeSelector": { "kubernetes.io/hostname": "node1" },
                    "tolerations": [{ "operator": "Exists" }],
                });
                lab.deployment(GREEN).create(2, wanting).await
            }))
            .caught_by(steps!(lands_on_workers), Cause::WrongAnswer),
        Sabotage::new("evicted")
            .about("the taint is one that evicts what runs there (NoExecute)")
            .inject(steps!(|lab| {
                remember(lab).await?;
                lab.kubectl("taint nodes node1 node-role.kubernetes.io/control-plane=:NoExecute")
                    .await?;
                let gone = lab.pods().on(lab.node(1)).until("no Pod on node1", |pods| {
                    let needs = Needs::ControlPlane("kube-controller-manager");
                    Probe::when(pods.is_empty(), Cause::Answered, "some").needs(needs)
                });
                gone.await
            }))
            .caught_by(steps!(what_ran_there_stays), Cause::Died),
        Sabotage::new("not-tainted")
            .about("the control plane has no taint when it is tainted again")
            .caught_by(steps!(second_taint_is_refused), Cause::Answered),
        Sabotage::new("not-spread")
            .about("the Deployment says nothing of spreading, and asks for one node")
            .inject(steps!(|lab| {
                let one = json!({ "nodeSelector": { "kubernetes.io/hostname": "node2" } });
                lab.deployment(EVEN).create(1, one).await
            }))
            .caught_by(steps!(one_on_each_node), Cause::NotReady),
        Sabotage::new("on-the-nodes-network")
            .about("the Deployment's Pods have their nodes' addresses")
            .inject(steps!(|lab| {
                let mut spread = spread();
                spread["hostNetwork"] = true.into();
                lab.deployment(EVEN).create(1, spread).await
            }))
            .caught_by(steps!(one_on_each_node), Cause::OutsideRange),
        Sabotage::new("another-like-it")
            .about("a Pod with the Deployment's label belongs to nobody")
            .inject(steps!(|lab| {
                lab.deployment(EVEN).create(1, spread()).await?;
                lab.start_pod(EVEN, lab.node(2)).await
            }))
            .caught_by(steps!(deleted_with_its_pods), Cause::Answered),
    ],
    ..Scenario::new("tainted_control_plane", StageName::Workload, steps!(taint))
};

/// The taint that kubeadm gives to a control plane; the lab's still said `master`.
pub(super) const OF_A_CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane=:NoSchedule";
const REMOVE: &str = "taint nodes node1 node-role.kubernetes.io/control-plane:NoSchedule-";
const GREEN: &str = "green";
const EVEN: &str = "even";

async fn taint(lab: &Lab) -> anyhow::Result<()> {
    remember(lab).await?;
    taint_the_control_plane(lab).await?;
    lab.step("create a Deployment");
    lab.deployment(GREEN).create(2, json!({})).await?;
    lands_on_workers(lab).await?;
    what_ran_there_stays(lab).await?;

    second_taint_is_refused(lab).await?;
    lab.step("create a Deployment of one Pod that is to spread, and remove the taint");
    lab.deployment(EVEN).create(1, spread()).await?;
    lab.deployment(EVEN).pods().until_running(1).await?;
    lab.kubectl(REMOVE).await?;
    one_on_each_node(lab).await?;
    deleted_with_its_pods(lab).await
}

async fn taint_the_control_plane(lab: &Lab) -> anyhow::Result<()> {
    lab.step("taint the control plane");
    lab.kubectl(format!("taint nodes node1 {OF_A_CONTROL_PLANE}")).await?;
    Ok(())
}

/// The Pods that run on node 1 before the taint.
#[derive(Clone)]
struct Before(Vec<Party>);

async fn remember(lab: &Lab) -> anyhow::Result<()> {
    let before = lab.pods().on(lab.node(1)).running().await?;
    ensure!(!before.is_empty(), Absent, "Pods on node1 before the taint", "none");
    lab.keep(Before(before));
    Ok(())
}

async fn what_ran_there_stays(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the Pods that ran on node1 before still do (E24)");
    let Before(before) = lab.kept()?;
    let after = lab.pods().on(lab.node(1)).running().await?;
    let (same, stay, run) = (after == before, listed(&before), listed(&after));
    ensure!(same, Died, "these to stay on node1: {stay}", "these run there: {run}");
    Ok(())
}

async fn lands_on_workers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("its Pods run, on workers only");
    let pods = lab.deployment(GREEN).pods().until_running(2).await?;
    let astray = pods.iter().filter(|pod| pod.node == 1);
    ensure_none!(astray, WrongAnswer, "no new Pod on the tainted control plane");
    Ok(())
}

async fn second_taint_is_refused(lab: &Lab) -> anyhow::Result<()> {
    lab.step("taint it again: refused without --overwrite (E25)");
    let again = format!("taint nodes node1 {OF_A_CONTROL_PLANE}");
    let answer = lab.kubectl(again).may_fail().await?;
    let why = "taint(s) with same effect(s) and --overwrite is false";
    Ok(assert::refused(&answer, why, "a second taint to be refused")?)
}

/// Nodes' numbers of its Pods differ by one at most, or the next Pod waits.
fn spread() -> Value {
    json!({ "topologySpreadConstraints": [{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": EVEN } },
    }] })
}

/// The documents' two nodes had two Pods.
async fn one_on_each_node(lab: &Lab) -> anyhow::Result<()> {
    let nodes = lab.node_count();
    lab.step(format!("scale it to {nodes}: each node has one, with an address of its range (E25)"));
    let deployment = lab.deployment(EVEN);
    deployment.scale(nodes as usize).await?;
    let pods = deployment.pods().until_running(nodes as usize).await?;
    assert::spread_evenly(&pods, nodes, 1)?;
    let listed = deployment.pods().await?;
    let network = lab.pod_network();
    let outside = listed.iter().filter(|pod| !pod.has_pod_address(network));
    ensure_none!(outside, OutsideRange, "addresses of the Pods' range");
    lab.unique_and_in_range(&pods).await
}

async fn deleted_with_its_pods(lab: &Lab) -> anyhow::Result<()> {
    lab.step("delete the Deployment: no Pod is left (E26)");
    lab.kubectl(format!("delete deployment {EVEN}")).within(secs(40)).await?;
    let pods = lab.deployment(EVEN).pods();
    pods.until("no Pods", |pods| {
        let Some(pod) = pods.first() else {
            return Probe::Done(());
        };
        let nobodys = pods.iter().find(|it| it.metadata.owner_references.is_none());
        if let Some(pod) = nobodys {
            return Probe::hopeless(Cause::Answered, format!("{pod}, which is nobody's"));
        }
        Probe::not_yet(Cause::Answered, format!("{pod}"))
            .needs(Needs::ControlPlane("kube-controller-manager"))
    })
    .await
}
