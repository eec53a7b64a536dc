//! The kubelet and containerd have different makers of cgroups.

use std::collections::BTreeSet;

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Pod, Pods, Probe, Profile, Sabotage, Scenario, StageName, secs, steps,
};
use serde_json::json;

use crate::catalogue::{B4, B4b};

/// B4!, B4b!: with a containerd that does not tell the kubelet which driver it uses (1.7).
///
/// A Pod's slice is systemd's, and has none of its processes: systemd takes the controllers from it that
/// nobody in it asks for, so that the kubelet takes the Pod's cgroup for gone, kills the Pod and makes it
/// anew (Kubernetes issues 131567 and 137695).
pub(crate) const CGROUP_DRIVERS: Scenario = Scenario {
    about: "Where the kubelet has systemd make cgroups and containerd makes its own, a Pod starts, and is \
            killed again and again; the other way round it never starts, and an event says why",
    covers: &[B4, B4b],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(600),
    sabotages: &[
        Sabotage::new("containerd-as-the-kubelet")
            .about("containerd has systemd make cgroups, as the kubelet has")
            .inject(steps!(start_pod_with_one_driver))
            .caught_by(steps!(killed_again_and_again), Cause::Answered),
        Sabotage::new("kubelet-as-containerd")
            .about("the kubelet has systemd make cgroups, as containerd has")
            .inject(steps!(start_pod_with_one_driver))
            .caught_by(steps!(never_gets_its_sandbox), Cause::Answered),
    ],
    ..Scenario::new("cgroup_drivers", StageName::Joined, steps!(cgroup_drivers))
};

async fn cgroup_drivers(lab: &Lab) -> anyhow::Result<()> {
    containerd_by_systemd(lab, false).await?;
    start_pod(lab).await?;
    killed_again_and_again(lab).await?;
    pods(lab).delete_all().await?;

    containerd_by_systemd(lab, true).await?;
    lab.step("start the kubelet, which makes its own cgroups");
    let node1 = lab.node(1);
    node1.start_component(&node1.kubelet().with("--cgroup-driver", "cgroupfs")).await?;
    start_pod(lab).await?;
    never_gets_its_sandbox(lab).await?;
    pods(lab).delete_all().await
}

/// The image's own configuration has systemd make cgroups, and runc start containers.
async fn containerd_by_systemd(lab: &Lab, systemd: bool) -> anyhow::Result<()> {
    lab.step(format!("start containerd with SystemdCgroup = {systemd}"));
    let (node1, config) = (lab.node(1), "/root/containerd.toml");
    let change = format!("s/SystemdCgroup = true/SystemdCgroup = {systemd}/");
    node1.run(format!("sed '{change}' /etc/containerd/config.toml >{config}")).await?;
    node1.start_component(&lab.containerd().with("--config", config)).await
}

async fn start_pod_with_one_driver(lab: &Lab) -> anyhow::Result<()> {
    containerd_by_systemd(lab, true).await?;
    start_pod(lab).await
}

/// On the host's network: there is no other, and its Node is never Ready.
async fn start_pod(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start a Pod on node 1");
    lab.apply(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": NAME, "labels": { "app": NAME } },
        "spec": {
            "nodeName": lab.node(1).name(),
            "hostNetwork": true,
            "tolerations": [{ "operator": "Exists" }],
            "terminationGracePeriodSeconds": 2,
            "containers": [Pod::container()],
        },
    }))
    .await
}

const NAME: &str = "driven";

fn pods(lab: &Lab) -> Pods<'_> {
    lab.pods().labelled(format!("app={NAME}"))
}

/// Prints the cgroup of the Pod's process (cgroups(7), `/proc/PID/cgroup`).
const CGROUP: &str = "cat /proc/$(pgrep -n -f '^/probe serve')/cgroup";

/// The kubelet has systemd set its slices anew once a minute, and looks at a Pod of which it hears nothing
/// as often: on a fast machine, too, the Pod lives for a minute or two.
async fn killed_again_and_again(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the Pod runs, and gets another sandbox again and again (B4)");
    pods(lab).until_running(1).await?;
    let (node1, mut sandboxes) = (lab.node(1), BTreeSet::new());
    lab.eventually("a third sandbox of the Pod's, for it has changed", secs(400), async || {
        let listed = node1.run(format!("crictl pods -q --name {NAME} 2>/dev/null")).await?;
        sandboxes.extend(listed.text().lines().map(str::to_owned));
        let changed = lab.events("SandboxChanged").await?;
        let again = sandboxes.len() >= 3 && !changed.is_empty();
        let state = format!("{} sandboxes, {changed:?}", sandboxes.len());
        let cgroup = node1.run(CGROUP).may_fail().await?;
        let cgroup = cgroup.text();
        Ok(match cgroup.starts_with("0::/kubepods.slice/") {
            true => Probe::hopeless(Cause::Answered, format!("it runs where it should, {cgroup}")),
            false => Probe::when(again, Cause::Absent, state).needs(Needs::Kubelet(1)),
        })
    })
    .await
}

async fn never_gets_its_sandbox(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the Pod never gets a sandbox, since its cgroup's name is none of systemd's (B4b)");
    let words = r#"expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups"#;
    lab.eventually("the Pod's sandbox to be refused", secs(60), async || {
        let running = pods(lab).running().await?;
        if let Some(pod) = running.first() {
            return Ok(Probe::hopeless(Cause::Answered, format!("{pod} runs")));
        }
        let refused = lab.events("FailedCreatePodSandBox").await?;
        let named = refused.iter().any(|it| it.contains(words));
        Ok(Probe::when(named, Cause::WrongAnswer, format!("{refused:?}")).needs(Needs::Kubelet(1)))
    })
    .await
}
