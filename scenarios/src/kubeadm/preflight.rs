//! What `kubeadm init` looks at before it begins, and what stops it.

use std::collections::BTreeSet;

use podwire_scenario::{
    Cause, Cells, Kubeadm, Lab, Profile, Sabotage, Scenario, StageName, assert, ensure,
    ensure_none, secs, steps,
};
use serde_json::json;

use crate::catalogue::{E3b, E3d, E45};

/// E3b!, of E3d what a wrong socket does, and of E45 what init warns of.
///
/// The documents' kubeadm warned of Docker's cgroup driver, and that nobody had validated its
/// configuration.
pub(crate) const PREFLIGHT: Scenario = Scenario {
    about: "On a node that is prepared kubeadm's checks before init pass, with one warning at most; a busy port, \
            forwarding switched off or an engine's socket that is not there stop it, each by its own \
            name, before anything is written",
    covers: &[E3b, E3d, E45],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(180),
    prepare: Some(steps!(|lab| lab.kubeadm(1).prepare(&lab.init_config()?).await)),
    sabotages: &[
        Sabotage::new("kubelet-not-enabled")
            .about("nobody enabled the kubelet, of which kubeadm warns as well")
            .inject(steps!(|lab| lab.node(1).run("systemctl disable kubelet").await))
            .caught_by(steps!(passes_with_the_usual_warnings), Cause::WrongAnswer),
        Sabotage::new("engine-stopped")
            .about("the container engine does not run")
            .inject(steps!(|lab| lab.node(1).stop("containerd").await))
            .saying("[ERROR CRI]")
            .caught_by(steps!(passes_with_the_usual_warnings), Cause::Absent),
        Sabotage::new("another-port-busy")
            .about("the kubelet's port is busy, too")
            .inject(steps!(|lab| lab.node(1).occupy_port(10250).await))
            .caught_by(steps!(busy_port), Cause::WrongAnswer),
        Sabotage::new("manifest-written")
            .about("the scheduler's manifest was written all the same")
            .inject(steps!(|lab| lab.kubeadm(1).run(INIT_SCHEDULER).await))
            .caught_by(steps!(no_manifest), Cause::Answered),
        Sabotage::new("socket-is-there")
            .about("at the path that is meant to be wrong the engine's socket is found")
            .inject(steps!(|lab| {
                let link = "ln -s /run/containerd/containerd.sock /run/nowhere.sock";
                lab.node(1).run(link).await
            }))
            .caught_by(steps!(wrong_socket), Cause::Answered),
    ],
    ..Scenario::new("kubeadm_init_preflight", StageName::Identified, steps!(preflight))
};

async fn preflight(lab: &Lab) -> anyhow::Result<()> {
    passes_with_the_usual_warnings(lab).await?;
    busy_port(lab).await?;
    forwarding_off(lab).await?;
    no_manifest(lab).await?;
    wrong_socket(lab).await
}

const INIT: &str = "init --config /root/podwire/init.json";
const INIT_PREFLIGHT: &str = "init phase preflight --config /root/podwire/init.json";
const INIT_SCHEDULER: &str = "init phase control-plane scheduler --config /root/podwire/init.json";

/// What the documents' kubeadm warned of.
const OF_OLD: [&str; 3] =
    ["IsDockerSystemdCheck", "no validator is available", "settings will be ignored"];

/// What kubeadm warns of on a node as it should be: of containerd 1.7, since 1.35.
pub(super) async fn usual_warnings(kubeadm: Kubeadm<'_>) -> anyhow::Result<BTreeSet<&'static str>> {
    let warns = kubeadm.minor().await? >= 35;
    Ok(warns.then_some("ContainerRuntimeVersion").into_iter().collect())
}

async fn passes_with_the_usual_warnings(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kubeadm's checks pass, and warn of nothing but containerd 1.7 (E45)");
    let answer = lab.kubeadm(1).run(INIT_PREFLIGHT).may_fail().await?;
    assert::passed_warning_of(&answer, &usual_warnings(lab.kubeadm(1)).await?)?;
    let said = answer.said();
    let none = OF_OLD.iter().all(|words| !said.contains(words));
    ensure!(none, WrongAnswer, "none of the lab's warnings", "{said}");
    Ok(())
}

async fn busy_port(lab: &Lab) -> anyhow::Result<()> {
    lab.step("something listens at the API server's port (E3b)");
    lab.node(1).occupy_port(6443).await?;
    stopped_by(lab, "Port-6443").await?;
    lab.node(1).free_port(6443).await
}

async fn forwarding_off(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the node forwards no packets (E3b)");
    lab.node(1).run("sysctl -w net.ipv4.ip_forward=0").await?;
    stopped_by(lab, "FileContent--proc-sys-net-ipv4-ip_forward").await?;
    lab.node(1).run("sysctl -w net.ipv4.ip_forward=1").await?;
    Ok(())
}

async fn stopped_by(lab: &Lab, check: &str) -> anyhow::Result<()> {
    lab.step(format!("kubeadm init: {check} stops it, and nothing else"));
    let answer = lab.kubeadm(1).run(INIT).may_fail().await?;
    Ok(assert::stopped_by(&answer, &[check])?)
}

async fn no_manifest(lab: &Lab) -> anyhow::Result<()> {
    lab.step("it has written no manifest");
    let list = "find /etc/kubernetes/manifests -type f 2>/dev/null; true";
    let found = lab.node(1).run(list).await?;
    ensure_none!(found.text().lines(), Answered, "no manifest");
    Ok(())
}

async fn wrong_socket(lab: &Lab) -> anyhow::Result<()> {
    lab.step("criSocket names a socket that is not there (E3d)");
    let mut config = lab.init_config()?;
    let socket = json!("unix:///run/nowhere.sock");
    config.document("InitConfiguration")?["nodeRegistration"]["criSocket"] = socket;
    lab.kubeadm(1).configure(&config).await?;
    let answer = lab.kubeadm(1).run(INIT_PREFLIGHT).may_fail().await?;
    assert::refused(&answer, "[preflight] Some fatal errors occurred", "the checks to fail")?;
    Ok(assert::refused(&answer, "unix:///run/nowhere.sock", "a check to name the socket")?)
}
