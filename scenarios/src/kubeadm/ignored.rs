//! A worker on which somebody joins again, and one that is reset: what kubeadm says.

use podwire_scenario::{
    Cause, Cells, Lab, Profile, Sabotage, Scenario, StageName, assert, ensure, secs, steps,
};

use super::preflight::usual_warnings;
use super::rejoin::IN_THE_WAY;
use crate::catalogue::{E30, E44, E45};

/// E30, E44, and of E45 what a join warns of.
///
/// A worker never had an etcd. The documents' kubeadm assumed an external one, which was to be reset by
/// hand; today's takes it that the data is where it would be, and says that it has deleted it.
pub(crate) const IGNORED: Scenario = Scenario {
    about: "kubeadm's checks before a second join only warn where they are to be ignored; reset of a \
            worker says that it has deleted the data of an etcd, which never was there, and asks for \
            nothing to be done by hand",
    covers: &[E30, E44, E45],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(120),
    sabotages: &[
        Sabotage::new("another-check")
            .about("the node forwards no packets, of which nobody said that it is to be ignored")
            .inject(steps!(|lab| lab.node(WORKER).run("sysctl -w net.ipv4.ip_forward=0").await))
            .saying("[ERROR FileContent--proc-sys-net-ipv4-ip_forward]")
            .caught_by(steps!(ignored_checks_warn), Cause::Absent),
        Sabotage::new("kubelet-stopped")
            .about("the kubelet has stopped, and its port is free")
            .inject(steps!(|lab| lab.node(WORKER).stop("kubelet").await))
            .caught_by(steps!(ignored_checks_warn), Cause::WrongAnswer),
        Sabotage::new("half-a-manifest")
            .about("there is a manifest of an etcd, which does not say where its data is")
            .inject(steps!(|lab| lab.node(WORKER).write(MANIFEST, HALF).await))
            .caught_by(steps!(reset_tells_of_an_etcd), Cause::WrongAnswer),
        Sabotage::new("empty-folder")
            .about("an etcd's folder is there, and empty")
            .inject(steps!(|lab| lab.node(WORKER).run("mkdir /var/lib/etcd").await))
            .caught_by(steps!(reset_tells_of_an_etcd), Cause::WrongAnswer),
    ],
    ..Scenario::new("ignored_checks", StageName::Joined, steps!(ignored))
};

/// Any node but the control plane's.
const WORKER: u32 = 2;

async fn ignored(lab: &Lab) -> anyhow::Result<()> {
    ignored_checks_warn(lab).await?;
    reset_tells_of_an_etcd(lab).await
}

async fn ignored_checks_warn(lab: &Lab) -> anyhow::Result<()> {
    let flags = lab.join_command().await?.arguments();
    let ignore = IN_THE_WAY.join(",");
    lab.step(format!("join's checks, with {ignore} to be ignored (E30)"));
    let checks = format!("join phase preflight {flags} --ignore-preflight-errors={ignore}");
    let answer = lab.kubeadm(WORKER).run(&checks).may_fail().await?;
    let usual = usual_warnings(lab.kubeadm(WORKER)).await?;
    let wanted = usual.into_iter().chain(IN_THE_WAY).collect();
    Ok(assert::passed_warning_of(&answer, &wanted)?)
}

const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
const HALF: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd}\nspec: {containers: []}\n";

async fn reset_tells_of_an_etcd(lab: &Lab) -> anyhow::Result<()> {
    let said = lab.kubeadm(WORKER).reset().await?;
    lab.step("it tells of an etcd that the worker never had, and leaves nothing to be done (E44)");
    for words in [
        "No kubeadm config, using etcd pod spec to get data directory",
        "Deleted contents of the etcd data directory: /var/lib/etcd",
    ] {
        let says = said.contains(words);
        ensure!(says, WrongAnswer, "it to say {words:?}", "{said}");
    }
    let by_hand = ["Assuming external etcd", "manually reset etcd"];
    let none = by_hand.iter().all(|words| !said.contains(words));
    ensure!(none, WrongAnswer, "nothing to be done by hand", "{said}");
    Ok(())
}
