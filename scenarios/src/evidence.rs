//! What is kept of a failure must not depend on the network that failed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use podwire_cluster::StageName;
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Profile, Sabotage, Scenario, eventually,
};

use crate::catalogue::EVIDENCE;
use crate::steps::{COMMAND, on};

/// Evidence comes by the agent's port, whatever becomes of the node's card.
pub(crate) const WITHOUT_NETWORK: Scenario = Scenario {
    name: "evidence_without_a_network",
    about: "A node whose card has lost its link is asked for its evidence all the same, and gives it",
    covers: &[EVIDENCE],
    stage: StageName::Workload,
    cells: Cells::ByHand,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(90),
    prepare: None,
    run: |lab| Box::pin(without_network(lab)),
    sabotages: &[
        Sabotage {
            name: "no-shell",
            about: "node 2 has no shell, so that no question to it is answered",
            expects: Cause::Absent,
            run: |lab| {
                Box::pin(async {
                    take_link(lab).await?;
                    on(lab, NODE, "mv /usr/bin/bash /usr/bin/bash.away").await?;
                    lab.injected();
                    evidence_is_there(lab).await
                })
            },
        },
        Sabotage {
            name: "linked",
            about: "the card of node 2 has its link, so that the evidence is of another node than it \
                    should be",
            expects: Cause::WrongAnswer,
            run: |lab| {
                Box::pin(async {
                    lab.injected();
                    evidence_is_there(lab).await
                })
            },
        },
    ],
    red_when: &[],
};

/// Whose link is taken.
const NODE: u32 = 2;

/// Of the evidence: a file, and what a node of the cluster says in it in any case.
const SAID: [(&str, &str); 4] = [
    ("network.txt", "# ip route"),
    ("kubelet.txt", "kubelet.service"),
    ("crictl.txt", "# crictl pods"),
    ("journal.txt", " node2 systemd[1]: "),
];

/// How ip(8) shows a card without a link.
const NO_LINK: &str = "NO-CARRIER";

async fn without_network(lab: &Lab) -> anyhow::Result<()> {
    take_link(lab).await?;
    evidence_is_there(lab).await
}

async fn take_link(lab: &Lab) -> anyhow::Result<()> {
    lab.step("take the link of node2's card away");
    lab.cluster().node(NODE).machine().set_link(false).await?;
    let limit = lab.limit(COMMAND);
    eventually("node2's card to notice it", limit, async || {
        let seen = on(lab, NODE, "ip -o link show").await?;
        Ok(if seen.contains(NO_LINK) {
            Probe::Done(())
        } else {
            Probe::not_yet(Cause::NotReady, seen)
        })
    })
    .await
}

async fn evidence_is_there(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask node2 for its evidence");
    let cluster = lab.cluster();
    let folder = cluster.dir().join("evidence-without-network");
    cluster.node_evidence(NODE, &folder).await;
    let folder = folder.join(cluster.node(NODE).name());
    let files = SAID.map(|(name, said)| (name, said, read(&folder, name)));
    for (name, said, text) in files {
        is_said(name, said, &text?)?;
    }
    Ok(has_no_link(&read(&folder, "network.txt")?)?)
}

fn read(folder: &Path, name: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    fs::read_to_string(&path).with_context(|| format!("no evidence {}", path.display()))
}

fn is_said(name: &str, said: &str, text: &str) -> Result<(), Failure> {
    if text.contains(said) {
        return Ok(());
    }
    let expected = format!("node2's answer in {name}, with `{said}` in it");
    let begins: String = text.chars().take(300).collect();
    Err(Failure::new(Cause::Absent, expected, begins).look("`agent.log` of node2's machine"))
}

fn has_no_link(network: &str) -> Result<(), Failure> {
    if network.contains(NO_LINK) {
        return Ok(());
    }
    let expected = format!("evidence of a node whose card shows {NO_LINK}");
    let links = network.lines().filter(|line| line.contains("state "));
    let links: Vec<&str> = links.take(4).collect();
    Err(Failure::new(Cause::WrongAnswer, expected, links.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_instead_of_an_answer_is_no_evidence() {
        let why = "`ip route`: the guest cannot start a process: No such file or directory";
        let failure = is_said("network.txt", "# ip route", why).unwrap_err();
        assert_eq!(failure.cause, Cause::Absent);
        assert!(is_said("network.txt", "# ip route", "# ip address\n# ip route\n").is_ok());
    }

    #[test]
    fn a_card_with_a_link_is_not_the_one_that_was_meant() {
        let up = "2: eth0: <BROADCAST,UP,LOWER_UP> mtu 1500 state UP";
        let down = "2: eth0: <NO-CARRIER,BROADCAST,UP> mtu 1500 state DOWN";
        assert!(has_no_link(down).is_ok());
        assert_eq!(has_no_link(up).unwrap_err().cause, Cause::WrongAnswer);
    }
}
