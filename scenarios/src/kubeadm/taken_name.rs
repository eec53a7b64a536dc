//! A machine joins under the name of a node that is there.

use podwire_scenario::{
    Cause, Cells, Lab, Profile, READY_AFTER_JOIN, Sabotage, Scenario, StageName, assert, ensure,
    secs, steps,
};

use super::rejoin::emptied;
use crate::catalogue::{E29, E31};

/// E29! as it is today, and E31's `--force`.
pub(crate) const TAKEN_NAME: Scenario = Scenario {
    about: "A machine that joins under the name of a Ready Node is refused, after its join has written two \
            files, on which the next one fails, under its own name too; reset --force asks nothing, and \
            takes them away; then it joins",
    covers: &[E29, E31],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(300),
    prepare: Some(steps!(|lab| {
        lab.last_node().wipe().await?;
        lab.last_node().delete().await
    })),
    sabotages: &[
        Sabotage::new("name-is-free")
            .about("a script before kubeadm gives another name, which nobody has")
            .inject(steps!(|lab| last(lab).types_otherwise("s/=node2/=node9/").await))
            .caught_by(steps!(refused_for_its_name), Cause::Answered),
        Sabotage::new("reset-before")
            .about("the machine is reset before the next join")
            .inject(steps!(|lab| {
                refused_for_its_name(lab).await?;
                last(lab).reset().await
            }))
            .caught_by(steps!(refused_for_what_it_has_written), Cause::Answered),
        Sabotage::new("asks-all-the-same")
            .about("a script before kubeadm leaves out --force")
            .inject(steps!(|lab| last(lab).types_otherwise("s/ --force//").await))
            .caught_by(steps!(reset_asks_nothing), Cause::Answered),
    ],
    ..Scenario::new("taken_name", StageName::PodNetwork, steps!(taken_name))
};

fn last(lab: &Lab) -> podwire_scenario::Kubeadm<'_> {
    lab.kubeadm(lab.node_count())
}

async fn taken_name(lab: &Lab) -> anyhow::Result<()> {
    refused_for_its_name(lab).await?;
    refused_for_what_it_has_written(lab).await?;
    reset_asks_nothing(lab).await?;
    emptied(lab).await?;
    last(lab).join(&lab.join_command().await?).await?;
    lab.last_node().ready_within(READY_AFTER_JOIN).await
}

async fn refused_for_its_name(lab: &Lab) -> anyhow::Result<()> {
    lab.step("join under node2's name, which is Ready: refused, for that (E29)");
    let flags = lab.join_command().await?.arguments();
    let answer = last(lab).try_to_join_by(&format!("{flags} --node-name=node2")).await?;
    let why = r#"a Node with name "node2" and status "Ready" already exists in the cluster"#;
    Ok(assert::refused(&answer, why, "no join under the name of a Ready Node")?)
}

/// What that join has written before it looked.
const WRITTEN: [&str; 2] = [
    "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf",
    "FileAvailable--etc-kubernetes-pki-ca.crt",
];

async fn refused_for_what_it_has_written(lab: &Lab) -> anyhow::Result<()> {
    let answer = last(lab).try_to_join(&lab.join_command().await?).await?;
    lab.step("under its own name too: the first join has left two files (E29)");
    Ok(assert::stopped_by(&answer, &WRITTEN)?)
}

async fn reset_asks_nothing(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kubeadm reset --force asks nothing (E31)");
    let answer = last(lab).run("reset --force").may_fail().await?;
    let (said, done) = (answer.said(), answer.succeeded());
    let asked = said.contains("[y/N]");
    ensure!(!asked && done, Answered, "reset to ask nothing", "{said}");
    Ok(())
}
