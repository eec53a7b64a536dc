//! Nodes that were cloned from one machine are different machines.

use std::collections::BTreeMap;

use podwire_scenario::{Cause, Failure, Lab, Sabotage, Scenario, StageName, ensure, secs, steps};

use crate::catalogue::IDENTITY;

/// Nodes are cloned from one booted machine and must not show it.
pub(crate) const IDENTITIES: Scenario = Scenario {
    about: "Nodes that were cloned from one booted machine share no id, address, key or random \
            number",
    covers: &[IDENTITY],
    limit: secs(60),
    sabotages: &[Sabotage::new("same-machine-id")
        .about("node 2 has node 1's machine-id")
        .inject(steps!(|lab| {
            let id = lab.node(1).run("cat /etc/machine-id").await?;
            let give = format!("echo {} >/etc/machine-id", id.text());
            lab.node(2).run(give).await
        }))
        .caught_by(steps!(identities), Cause::NotUnique)],
    ..Scenario::new("nodes_have_their_own_identity", StageName::Workload, steps!(identities))
};

/// What each node says of itself, as `what value` lines; a value may occur once in the cluster. The
/// kernel numbers a bridge's or a tunnel's MAC by chance, so every interface with one of its own
/// counts; Calico gives its ends of all Pods' cables the same one.
const ASK: &str = "\
    echo hostname $(cat /proc/sys/kernel/hostname); \
    echo machine-id $(cat /etc/machine-id); \
    echo boot-id $(cat /proc/sys/kernel/random/boot_id); \
    echo host-key $(cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub); \
    echo random $(od -An -tx1 -N16 /dev/urandom | tr -d ' '); \
    for i in /sys/class/net/*; do case $i in */lo|*/cali*) ;; *) echo mac $(cat $i/address);; esac; done";

const KINDS: &str = "hostname machine-id boot-id host-key random mac";

async fn identities(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask every node for its ids, keys, MAC addresses and a random number");
    let answers = lab.run_everywhere(ASK).await?;
    let told = answers.iter().map(|(node, said)| (node.name(), said.text()));
    Ok(nothing_shared(&told.collect::<Vec<_>>())?)
}

/// Finds a line that two nodes have in common, and a kind of line that one lacks.
fn nothing_shared(told: &[(&str, &str)]) -> Result<(), Failure> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (node, said) in told {
        for kind in KINDS.split(' ') {
            let mut pairs = said.lines().filter_map(|line| line.split_once(' '));
            let has = pairs.any(|(it, value)| it == kind && !value.is_empty());
            ensure!(has, Absent, "every node to tell its identity", "{node} has no {kind}");
        }
        for line in said.lines() {
            let other = owners.insert(line, node).unwrap_or(node);
            ensure!(
                other == *node,
                NotUnique,
                "nothing that two nodes share",
                "{other} and {node} both have {line}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u32, mac: &str) -> String {
        format!(
            "hostname node{number}\nmachine-id m{number}\nboot-id b{number}\nhost-key k{number}\n\
             random r{number}\nmac 00:0{number}\nmac {mac}\n"
        )
    }

    fn of_two(first: &str, second: &str) -> Result<(), Failure> {
        nothing_shared(&[("node1", first), ("node2", second)])
    }

    #[test]
    fn what_two_nodes_share_is_named() {
        assert_eq!(of_two(&answer(1, "02:01"), &answer(2, "02:02")), Ok(()));
        // The same twice on one node is its own affair.
        assert_eq!(of_two(&answer(1, "00:01"), &answer(2, "02:02")), Ok(()));
        let failure = of_two(&answer(1, "02:01"), &answer(2, "02:01")).unwrap_err();
        assert_eq!(failure.cause, Cause::NotUnique);
        let named = "node1 and node2 both have mac 02:01";
        assert!(failure.seen.contains(named), "{failure}");
    }

    #[test]
    fn a_node_that_does_not_tell_proves_nothing() {
        let silent = "hostname node2\nmachine-id\n";
        let failure = of_two(&answer(1, "02:01"), silent).unwrap_err();
        assert_eq!(failure.cause, Cause::Absent);
    }
}
