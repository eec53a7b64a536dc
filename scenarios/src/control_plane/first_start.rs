//! What etcd and the API server do when they are started without a flag.

use podwire_scenario::{
    Cause, Cells, Component, Lab, Profile, Sabotage, Scenario, StageName, assert, ensure, secs,
    steps,
};

use crate::catalogue::{A1, A2, A4};

/// A1!, A2!, A4: etcd needs no flag, and the API server says which ones it needs.
pub(crate) const FIRST_START: Scenario = Scenario {
    about: "Without flags etcd answers at localhost, and nowhere else; the API server ends, and its \
            last words name the flags that it needs, or, of an ordinary user, the folder that it may \
            not write to",
    covers: &[A1, A2, A4],
    cells: Cells::ByHand,
    profile: Profile::Full,
    limit: secs(60),
    sabotages: &[
        Sabotage::new("folder-is-the-user-s")
            .about("/var/run/kubernetes is there, and belongs to the ordinary user")
            .inject(steps!(|lab| {
                lab.node(1).run("install -d -o nobody /var/run/kubernetes").await
            }))
            .caught_by(steps!(ordinary_user_may_not), Cause::WrongAnswer),
        Sabotage::new("etcd-stopped")
            .about("etcd was started, and stopped again")
            .inject(steps!(|lab| {
                start_etcd(lab).await?;
                lab.node(1).stop_component(&lab.etcd().without_flags()).await
            }))
            .caught_by(steps!(etcd_answers_at_localhost), Cause::Refused),
        Sabotage::new("etcd-is-told")
            .about("the API server is told where etcd is, and lacks the other flags only")
            .inject(steps!(start_etcd))
            .caught_by(
                steps!(|lab| ends_naming_its_flags(lab, &["--etcd-servers"]).await),
                Cause::WrongAnswer,
            ),
        Sabotage::new("issuer-is-told")
            .about("the API server is told who issues tokens, and lacks the other flags only")
            .inject(steps!(start_etcd))
            .caught_by(
                steps!(|lab| ends_naming_its_flags(lab, &["--service-account-issuer"]).await),
                Cause::WrongAnswer,
            ),
    ],
    ..Scenario::new("first_start", StageName::Identified, steps!(first_start))
};

async fn first_start(lab: &Lab) -> anyhow::Result<()> {
    ordinary_user_may_not(lab).await?;
    start_etcd(lab).await?;
    etcd_answers_at_localhost(lab).await?;
    ends_naming_its_flags(lab, &[]).await
}

async fn ordinary_user_may_not(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the API server as an ordinary user: /var/run/kubernetes is not for it (A1)");
    let as_nobody = lab.node(1).run_as_nobody("kube-apiserver");
    let started = as_nobody.within(secs(20)).may_fail().await?;
    let why = "mkdir /var/run/kubernetes: permission denied";
    Ok(assert::refused(&started, why, "the API server to end for want of its folder")?)
}

async fn start_etcd(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start etcd on node 1, without flags");
    lab.node(1).start_component(&lab.etcd().without_flags()).await
}

async fn etcd_answers_at_localhost(lab: &Lab) -> anyhow::Result<()> {
    lab.step("its client port answers on node 1, and not to node 2 (A4)");
    let health = |host: &str| format!("http://{host}:2379/health");
    let at_home = lab.node(1).curl(health("localhost")).await?;
    at_home.ends(Cause::Answered, "localhost:2379 to answer on node 1")?;
    let healthy = at_home.body.contains(r#""health":"true""#);
    ensure!(healthy, NotReady, "a healthy etcd at localhost:2379", "{at_home}");
    let from_node2 = lab.node(2).curl(health("node1")).await?;
    Ok(from_node2.ends(Cause::Refused, "node1:2379 to refuse node 2")?)
}

/// What the API server's last words must have.
const NEEDED: [&str; 4] = [
    "--etcd-servers must be specified",
    "service-account-issuer is a required flag",
    "--service-account-signing-key-file",
    "either `--service-account-key-file` or `--service-account-signing-endpoint` must be set",
];

/// Starts it with these flags only, each with a URL.
async fn ends_naming_its_flags(lab: &Lab, flags: &[&str]) -> anyhow::Result<()> {
    lab.step("start the API server, as root and without flags: it ends, naming what it needs (A2)");
    let bare = lab.api_server().without_flags();
    let with = |all, flag: &&str| Component::with(all, flag, "http://localhost:2379");
    let server = flags.iter().fold(bare, with);
    let serves = "curl -s --insecure https://localhost:6443/readyz";
    lab.node(1).ends_at_its_start(&server, serves, &NEEDED).await
}
