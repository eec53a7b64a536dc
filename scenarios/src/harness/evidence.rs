//! What is kept of a failure must not depend on the network that failed.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Sabotage, Scenario, StageName, ensure, secs, steps,
};

use crate::catalogue::EVIDENCE;

/// Evidence comes by the agent's port, whatever becomes of the node's card.
pub(crate) const WITHOUT_NETWORK: Scenario = Scenario {
    about: "A node whose card has lost its link is asked for its evidence all the same, and gives it",
    covers: &[EVIDENCE],
    cells: Cells::ByHand,
    limit: secs(90),
    sabotages: &[
        Sabotage::new("no-shell")
            .about("node 2 has no shell, so that no question to it is answered")
            .inject(steps!(|lab| {
                take_link(lab).await?;
                lab.node(2).run("mv /usr/bin/bash /usr/bin/bash.away").await
            }))
            .caught_by(steps!(evidence_is_there), Cause::Absent),
        Sabotage::new("linked")
            .about(
                "the card of node 2 has its link, so that the evidence is of another node than \
                 it should be",
            )
            .caught_by(steps!(evidence_is_there), Cause::WrongAnswer),
    ],
    ..Scenario::new(
        "evidence_without_a_network",
        StageName::Workload,
        steps!(|lab| {
            take_link(lab).await?;
            evidence_is_there(lab).await
        }),
    )
};

/// Of the evidence: a file, and what a node of the cluster says in it in any case.
const SAID: [(&str, &str); 4] = [
    ("network.txt", "# ip route"),
    ("kubelet.txt", "kubelet.service"),
    ("crictl.txt", "# crictl pods"),
    ("journal.txt", " node2 systemd[1]: "),
];

/// How ip(8) shows a card without a link.
const NO_LINK: &str = "NO-CARRIER";

async fn take_link(lab: &Lab) -> anyhow::Result<()> {
    let node2 = lab.node(2);
    lab.step("take the link of node2's card away");
    node2.set_link(false).await?;
    lab.eventually("node2's card to notice it", secs(10), async || {
        let shown = node2.run("ip -o link show").await?.stdout;
        Ok(Probe::when(shown.contains(NO_LINK), Cause::NotReady, shown))
    })
    .await
}

async fn evidence_is_there(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask node2 for its evidence");
    let folder = lab.node(2).evidence().await;
    for (name, said) in SAID {
        is_said(name, said, &read(&folder, name)?)?;
    }
    Ok(has_no_link(&read(&folder, "network.txt")?)?)
}

fn read(folder: &Path, name: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    fs::read_to_string(&path).with_context(|| format!("no evidence {}", path.display()))
}

fn is_said(name: &str, said: &str, text: &str) -> Result<(), Failure> {
    let begins: String = text.chars().take(300).collect();
    ensure!(
        text.contains(said),
        Absent,
        "node2's answer in {name}, with `{said}` in it",
        "{begins}",
        "`agent.log` of node2's machine"
    );
    Ok(())
}

fn has_no_link(network: &str) -> Result<(), Failure> {
    let links = network.lines().filter(|line| line.contains("state "));
    let links = links.take(4).collect::<Vec<_>>().join("; ");
    ensure!(
        network.contains(NO_LINK),
        WrongAnswer,
        "evidence of a node whose card shows {NO_LINK}",
        "{links}"
    );
    Ok(())
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
