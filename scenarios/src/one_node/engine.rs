//! What the kubelet wants of its node: root, and a container engine that serves it.

use podwire_scenario::{
    Cause, Cells, Component, Lab, Profile, Sabotage, Scenario, StageName, assert, ensure, secs,
    steps,
};

use crate::catalogue::{B0, B1, B2, B3};
use crate::one_node::{KUBELET_SERVES, kubelet};

/// B0!, B1!, B2!, B3!: kubelet and containerd, started one after the other on a node that has nothing
/// else. Today's kubelet ends where it misses its engine; so it starts by itself in the end.
pub(crate) const ENGINE: Scenario = Scenario {
    about: "The kubelet ends when an ordinary user starts it, when no container engine runs, and when \
            the one that runs does not serve Kubernetes; containerd ends when it cannot read its \
            configuration. Each says why",
    covers: &[B0, B1, B2, B3],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("folder-is-the-user-s")
            .about("the kubelet's folder belongs to the ordinary user")
            .inject(steps!(|lab| lab.node(1).run("install -d -o nobody /var/lib/kubelet").await))
            .caught_by(steps!(ordinary_user_may_not), Cause::WrongAnswer),
        Sabotage::new("engine-runs")
            .about("containerd runs already")
            .inject(steps!(|lab| lab.node(1).start_component(&lab.containerd()).await))
            .caught_by(steps!(kubelet_misses_its_engine), Cause::Answered),
        Sabotage::new("engine-serves-others")
            .about("containerd runs already, and does not serve Kubernetes")
            .inject(steps!(start_containerd_without_cri))
            .caught_by(steps!(kubelet_misses_its_engine), Cause::WrongAnswer),
        Sabotage::new("configuration-is-valid")
            .about("containerd's configuration says nothing that cannot be read")
            .inject(steps!(|lab| configure(lab, "").await))
            .caught_by(steps!(containerd_cannot_read_it), Cause::Answered),
        Sabotage::new("plugin-unknown")
            .about("containerd's configuration can be read, and names what is no plugin")
            .inject(steps!(|lab| configure(lab, "disabled_plugins = ['cri']").await))
            .caught_by(steps!(containerd_cannot_read_it), Cause::WrongAnswer),
        Sabotage::new("socket-is-left")
            .about("a containerd that was killed has left its socket")
            .inject(steps!(|lab| {
                lab.node(1).start_component(&lab.containerd().once()).await?;
                lab.node(1).run("systemctl kill --signal KILL containerd").await?;
                configure(lab, UNREADABLE).await
            }))
            .caught_by(steps!(containerd_cannot_read_it), Cause::Answered),
        Sabotage::new("engine-serves-kubernetes")
            .about("containerd serves Kubernetes")
            .inject(steps!(|lab| lab.node(1).start_component(&lab.containerd()).await))
            .caught_by(steps!(kubelet_misses_its_service), Cause::Answered),
        Sabotage::new("engine-not-started")
            .about("containerd is not started")
            .caught_by(steps!(kubelet_misses_its_service), Cause::Absent),
    ],
    ..Scenario::new("kubelet_and_engine", StageName::Identified, steps!(kubelet_and_engine))
};

async fn kubelet_and_engine(lab: &Lab) -> anyhow::Result<()> {
    ordinary_user_may_not(lab).await?;
    kubelet_misses_its_engine(lab).await?;

    configure(lab, UNREADABLE).await?;
    containerd_cannot_read_it(lab).await?;

    start_containerd_without_cri(lab).await?;
    kubelet_misses_its_service(lab).await
}

async fn ordinary_user_may_not(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the kubelet as an ordinary user: its folder is not for it (B0)");
    let started = lab.node(1).run_as_nobody("kubelet").within(secs(20)).may_fail().await?;
    let why = "mkdir /var/lib/kubelet: permission denied";
    Ok(assert::refused(&started, why, "the kubelet to end for want of its folder")?)
}

const SOCKET: &str = "/run/containerd/containerd.sock";

async fn kubelet_misses_its_engine(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the kubelet: it ends, naming containerd's socket, which is not there (B1)");
    let missing = format!("dial unix {SOCKET}: connect: no such file or directory");
    let node1 = lab.node(1);
    node1.ends_at_its_start(&kubelet(lab), KUBELET_SERVES, &[&missing]).await
}

const CONFIG: &str = "/root/containerd.toml";
/// In the second line is a text without its quotes.
const UNREADABLE: &str = "root = /var/lib/containerd";

/// Writes containerd's configuration: this, in its second line.
async fn configure(lab: &Lab, line: &str) -> anyhow::Result<()> {
    lab.step(format!("containerd's configuration is: {line}"));
    lab.node(1).write(CONFIG, format!("version = 2\n{line}\n")).await
}

fn containerd(lab: &Lab) -> Component {
    lab.containerd().with("--config", CONFIG)
}

async fn containerd_cannot_read_it(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start containerd: it ends, naming the file and the place in it (B2)");
    let (node1, place) = (lab.node(1), format!("{CONFIG}: (2, "));
    node1.ends_at_its_start(&containerd(lab), "ctr version", &[&place]).await?;
    let socket = node1.run(format!("ls {SOCKET}")).may_fail().await?.succeeded();
    ensure!(!socket, Answered, "no {SOCKET}", "it is there");
    Ok(())
}

async fn start_containerd_without_cri(lab: &Lab) -> anyhow::Result<()> {
    configure(lab, "disabled_plugins = ['io.containerd.grpc.v1.cri']").await?;
    lab.step("start containerd");
    lab.node(1).start_component(&containerd(lab)).await
}

async fn kubelet_misses_its_service(lab: &Lab) -> anyhow::Result<()> {
    lab.step("containerd's socket is there; start the kubelet: it ends, unserved (B3)");
    let node1 = lab.node(1);
    let socket = node1.run(format!("test -S {SOCKET}")).may_fail().await?.succeeded();
    ensure!(socket, Absent, "{SOCKET}", "it is not there");
    let unserved = "unknown service runtime.v1.RuntimeService";
    node1.ends_at_its_start(&kubelet(lab), KUBELET_SERVES, &[unserved]).await
}
