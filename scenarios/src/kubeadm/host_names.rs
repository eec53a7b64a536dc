//! Names of nodes: in hosts files, of themselves, and in the cluster.

use std::net::Ipv4Addr;

use podwire_scenario::{
    Cause, ContactProtocol, Lab, Node, Probe, Profile, Sabotage, Scenario, StageName, assert,
    ensure, secs, steps,
};

use super::preflight::usual_warnings;
use crate::catalogue::{E1, E1b, E1c, E45};

/// E1, E1b, E1c, and of E45 what a join warns of: how the lab prepares its second node, up to the join.
pub(crate) const HOST_NAMES: Scenario = Scenario {
    about: "A node that hostnamectl renames has that name at the next login and in the cluster; with \
            hosts files nodes reach each other by name, and by DNS a host outside",
    covers: &[E1, E1b, E1c, E45],
    profile: Profile::Full,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("kernel-renamed-only")
            .about("the name was given to the kernel alone, and not to be kept")
            .inject(steps!(|lab| lab.node(RENAMED).run(format!("hostname {NAME}")).await))
            .caught_by(steps!(keeps_its_name), Cause::WrongAnswer),
        Sabotage::new("missing-in-a-hosts-file")
            .about("node1's hosts file lacks the new name")
            .inject(steps!(|lab| {
                rename(lab).await?;
                write_hosts_files(lab).await?;
                lab.node(1).run(format!("sed -i /{NAME}/d /etc/hosts")).await
            }))
            .caught_by(steps!(ping_each_other), Cause::NameNotFound),
        Sabotage::new("wrong-in-a-hosts-file")
            .about("node1's hosts file has another node's address for the new name")
            .inject(steps!(|lab| {
                rename(lab).await?;
                write_hosts_files(lab).await?;
                let wrong = format!("sed -i 's/.* {NAME}$/172.30.0.11 {NAME}/' /etc/hosts");
                lab.node(1).run(wrong).await
            }))
            .caught_by(steps!(ping_each_other), Cause::WrongAnswer),
        Sabotage::new("no-nameserver")
            .about("the renamed node's resolv.conf names nobody")
            .inject(steps!(|lab| lab.node(RENAMED).run("sed -i d /etc/resolv.conf").await))
            .caught_by(steps!(ping_outside), Cause::NameNotFound),
        Sabotage::new("unknown-to-itself")
            .about("the node joins, and no hosts file has its name")
            .inject(steps!(rename))
            .caught_by(steps!(joins), Cause::WrongAnswer),
        Sabotage::new("not-renamed")
            .about("the node joins by the name that it had")
            .inject(steps!(|lab| lab.kubeadm(RENAMED).join(&lab.join_command().await?).await))
            .caught_by(steps!(listed_by_that_name), Cause::WrongAnswer),
    ],
    ..Scenario::new("names_of_nodes", StageName::Init, steps!(host_names))
};

/// The second node, and what the lab calls it.
const RENAMED: u32 = 2;
const NAME: &str = "nodeb";

async fn host_names(lab: &Lab) -> anyhow::Result<()> {
    rename(lab).await?;
    write_hosts_files(lab).await?;
    keeps_its_name(lab).await?;
    ping_each_other(lab).await?;
    ping_outside(lab).await?;
    joins(lab).await?;
    listed_by_that_name(lab).await
}

async fn rename(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(RENAMED);
    lab.step(format!("hostnamectl renames {node}"));
    let rename = format!("hostnamectl set-hostname {NAME}");
    node.run(rename).within(secs(20)).await?;
    Ok(())
}

fn name(node: Node<'_>) -> &str {
    match node.number() {
        RENAMED => NAME,
        _ => node.name(),
    }
}

async fn write_hosts_files(lab: &Lab) -> anyhow::Result<()> {
    lab.step("write every node's name and address into every hosts file");
    let lines = lab.nodes().map(|node| format!("{} {}\n", node.address(), name(node)));
    let hosts = format!("127.0.0.1 localhost\n{}", lines.collect::<String>());
    for node in lab.nodes() {
        node.write("/etc/hosts", &hosts).await?;
    }
    Ok(())
}

/// A key of node 1's, and its address in the place of a name: whatever the node is called.
const KEY: &str = "[ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; \
cat /root/.ssh/id_ed25519.pub";

async fn keeps_its_name(lab: &Lab) -> anyhow::Result<()> {
    let (node1, node) = (lab.node(1), lab.node(RENAMED));
    lab.step(format!("log in to {node} anew: it is called {NAME} (E1b)"));
    let key = node1.run(KEY).await?;
    let key = format!("printf '\\n%s\\n' '{}' >>/root/.ssh/authorized_keys", key.text());
    node.run(key).await?;
    let ask = format!(
        "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new root@{} \
         'hostname; cat /etc/hostname'",
        node.address()
    );
    let answer = node1.run(ask).within(secs(20)).await?;
    let said = answer.text();
    let kept = said.lines().count() == 2 && said.lines().all(|line| line == NAME);
    ensure!(kept, WrongAnswer, "{NAME}, and so in /etc/hostname", "{said}");
    Ok(())
}

async fn ping_each_other(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the nodes ping each other by name (E1)");
    let (node1, node) = (lab.node(1), lab.node(RENAMED));
    ping(node1, name(node), node.address()).await?;
    ping(node, name(node1), node1.address()).await
}

/// As the documents type it.
async fn ping(from: Node<'_>, name: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    let answer = from.run(format!("ping -c 1 -W 5 {name}")).within(secs(20)).may_fail().await?;
    let said = answer.said();
    let known = !said.contains("Name or service not known") && !said.contains("name resolution");
    ensure!(known, NameNotFound, "{from} to know {name}", "{said}");
    let right = said.contains(&format!("PING {name} ({address})"));
    ensure!(right, WrongAnswer, "{name} to be {address}", "{said}");
    ensure!(answer.succeeded(), TimedOut, "{name} to answer {from}", "{said}");
    Ok(())
}

async fn ping_outside(lab: &Lab) -> anyhow::Result<()> {
    let outside = lab.outside();
    lab.step(format!("every node resolves and reaches {} (E1c)", outside.name()));
    for node in lab.nodes() {
        let before = outside.contacts_from(node.address(), ContactProtocol::Icmp);
        ping(node, outside.name(), outside.address()).await?;
        let after = outside.contacts_from(node.address(), ContactProtocol::Icmp);
        ensure!(after > before, WrongAnswer, "it to be asked by {node}", "nothing new from it");
    }
    Ok(())
}

async fn joins(lab: &Lab) -> anyhow::Result<()> {
    let answer = lab.kubeadm(RENAMED).try_to_join(&lab.join_command().await?).await?;
    lab.step("it has joined, and warned of nothing but containerd 1.7 (E45)");
    let usual = usual_warnings(lab.kubeadm(RENAMED)).await?;
    Ok(assert::passed_warning_of(&answer, &usual)?)
}

async fn listed_by_that_name(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("its Node is called {NAME} (E1b)"));
    let old = format!("node/{}", lab.node(RENAMED));
    lab.eventually(format!("a Node {NAME}"), secs(20), async || {
        let listed = lab.kubectl("get nodes -o name").await?.stdout;
        let is_there = |name: &str| listed.lines().any(|line| line == name);
        if is_there(&old) {
            return Ok(Probe::hopeless(Cause::WrongAnswer, listed));
        }
        let there = is_there(&format!("node/{NAME}"));
        Ok(Probe::when(there, Cause::Absent, listed))
    })
    .await
}
