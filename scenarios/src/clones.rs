//! What every other scenario relies on: nodes that were cloned from one machine are different
//! machines, and a cluster that was frozen and brought back has not noticed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use podwire_cluster::{Break, StageName, addresses};
use podwire_probe::{Outcome, StreamReport};
use podwire_scenario::assert::Party;
use podwire_scenario::{
    Cause, Cells, Evidence, Failure, Lab, Probe, Profile, Sabotage, Scenario, eventually_unless,
};

use crate::catalogue::{CONNECTIONS, IDENTITY};
use crate::steps::{COMMAND, on};

/// Nodes are cloned from one booted machine and must not show it.
pub(crate) const IDENTITIES: Scenario = Scenario {
    name: "nodes_have_their_own_identity",
    about: "Nodes that were cloned from one booted machine share no id, address, key or random \
            number",
    covers: &[IDENTITY],
    stage: StageName::Workload,
    cells: Cells::Any,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(60),
    prepare: None,
    run: |lab| Box::pin(identities(lab)),
    sabotages: &[Sabotage {
        name: "same-machine-id",
        about: "node 2 has node 1's machine-id",
        expects: Cause::NotUnique,
        run: |lab| {
            Box::pin(async {
                let id = on(lab, 1, "cat /etc/machine-id").await?;
                on(lab, 2, &format!("echo {} >/etc/machine-id", id.trim())).await?;
                lab.injected();
                identities(lab).await
            })
        },
    }],
    red_when: &[],
};

/// What each node says of itself, as `what value` lines; a value may occur once in the cluster. The
/// kernel numbers a bridge's or a tunnel's MAC by chance, so every interface with one of its own
/// counts.
const ASK: &str = "\
    echo hostname $(cat /proc/sys/kernel/hostname); \
    echo machine-id $(cat /etc/machine-id); \
    echo boot-id $(cat /proc/sys/kernel/random/boot_id); \
    echo host-key $(cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub); \
    echo random $(od -An -tx1 -N16 /dev/urandom | tr -d ' '); \
    for i in /sys/class/net/*; do case $i in */lo) ;; *) echo mac $(cat $i/address);; esac; done";

async fn identities(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask every node for its ids, keys, MAC addresses and a random number");
    let asked = (1..=lab.nodes()).map(|number| async move {
        Ok::<_, anyhow::Error>((addresses::node_name(number), on(lab, number, ASK).await?))
    });
    Ok(nothing_shared(&try_join_all(asked).await?)?)
}

/// Finds a line that two nodes have in common, and a kind of line that one lacks.
fn nothing_shared(answers: &[(String, String)]) -> Result<(), Failure> {
    const KINDS: [&str; 6] = [
        "hostname",
        "machine-id",
        "boot-id",
        "host-key",
        "random",
        "mac",
    ];
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (node, answer) in answers {
        for kind in KINDS {
            let has = |line: &str| {
                line.split_once(' ')
                    .is_some_and(|(it, of)| it == kind && !of.is_empty())
            };
            if !answer.lines().any(has) {
                let seen = format!("{node} has no {kind}");
                return Err(Failure::new(
                    Cause::Absent,
                    "every node to tell its identity",
                    seen,
                ));
            }
        }
        for line in answer.lines() {
            if let Some(other) = owners.insert(line, node)
                && other != node
            {
                return Err(Failure::new(
                    Cause::NotUnique,
                    "nothing that two nodes share",
                    format!("{other} and {node} both have {line}"),
                ));
            }
        }
    }
    Ok(())
}

/// A connection that is older than the clone.
pub(crate) const OPEN_CONNECTION: Scenario = Scenario {
    name: "open_connection_outlives_the_freeze",
    about: "A TCP connection between Pods of two nodes, open while the cluster is frozen, goes on \
            in its clones without losing a byte",
    covers: &[CONNECTIONS],
    stage: StageName::Workload,
    cells: Cells::Any,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(90),
    prepare: Some(|lab| Box::pin(open_connection(lab))),
    run: |lab| {
        Box::pin(async {
            lab.step("the connection is as it was, and goes on");
            goes_on(lab).await
        })
    },
    sabotages: &[Sabotage {
        name: "connection-reset",
        about: "node 2 resets what comes for the Pod at the other end",
        expects: Cause::Died,
        run: |lab| {
            Box::pin(async {
                let to = lab.pod_on(2).await?;
                lab.step(format!("reset connections to {to}"));
                let address = to.address;
                on(
                    lab,
                    2,
                    &format!(
                        "nft 'add table ip sabotage; \
                         add chain ip sabotage resets {{ type filter hook forward priority -10; }}; \
                         add rule ip sabotage resets ip daddr {address} reject with tcp reset'"
                    ),
                )
                .await?;
                lab.injected();
                goes_on(lab).await
            })
        },
    }],
    red_when: &[Break::Route, Break::PodRange],
};

/// How many numbers must have come back before the freeze, and how many more after it.
const NUMBERS: u64 = 20;

async fn open_connection(lab: &Lab) -> anyhow::Result<()> {
    let (from, to) = (lab.pod_on(1).await?, lab.pod_on(2).await?);
    lab.step(format!(
        "open a connection from {from} to {to} and count into it"
    ));
    let (from, to) = (from.address, to.address);
    let open = format!("curl -sS --fail-with-body --max-time 60 -d {to}:80 http://{from}/streams");
    on(lab, 1, &open).await?;
    numbers_beyond(lab, NUMBERS).await?;
    Ok(())
}

async fn goes_on(lab: &Lab) -> anyhow::Result<()> {
    let before = numbers_beyond(lab, NUMBERS).await?;
    numbers_beyond(lab, before + NUMBERS).await?;
    Ok(())
}

/// Waits until more numbers than that have come back; a connection that ended is hopeless.
async fn numbers_beyond(lab: &Lab, count: u64) -> anyhow::Result<u64> {
    let from = lab.pod_on(1).await?;
    let expected = format!("more than {count} numbers to come back, each in its turn");
    eventually_unless(
        &expected,
        lab.limit(Duration::from_secs(10)),
        async || new_connection(lab, &from).await,
        async || {
            let report = stream(lab, &from).await?;
            Ok(match report.failure {
                Some(why) => {
                    Probe::hopeless(Cause::Died, format!("{} came back: {why}", report.echoed))
                }
                None if report.echoed > count => Probe::Done(report.echoed),
                None => Probe::not_yet(Cause::TimedOut, format!("{} came back", report.echoed)),
            })
        },
    )
    .await
}

/// Whether a new connection to the other end goes through: where none does, the old one stands still
/// for the same reason.
async fn new_connection(lab: &Lab, from: &Party) -> anyhow::Result<Option<Evidence>> {
    let to = lab.pod_on(2).await?;
    let report = lab.fetch_one(from, to.address, 1).await?;
    let dead = !report.all(Outcome::Answered);
    Ok(dead.then(|| Evidence::unchanged_for(3, format!("nor does a new connection to {to}"))))
}

async fn stream(lab: &Lab, from: &Party) -> anyhow::Result<StreamReport> {
    let ask = format!("curl -sSf --max-time 10 http://{}/streams", from.address);
    let answer = lab
        .cluster()
        .node(1)
        .run_ok(&ask, lab.limit(COMMAND))
        .await?;
    let reports: Vec<StreamReport> = serde_json::from_str(&answer)?;
    reports
        .into_iter()
        .next()
        .with_context(|| format!("{from} has no open connection"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u32, mac: &str) -> (String, String) {
        let lines = format!(
            "hostname node{number}\nmachine-id m{number}\nboot-id b{number}\nhost-key k{number}\n\
             random r{number}\nmac 00:0{number}\nmac {mac}\n"
        );
        (addresses::node_name(number), lines)
    }

    #[test]
    fn what_two_nodes_share_is_named() {
        assert!(nothing_shared(&[answer(1, "02:01"), answer(2, "02:02")]).is_ok());
        // The same twice on one node is its own affair.
        assert!(nothing_shared(&[answer(1, "00:01"), answer(2, "02:02")]).is_ok());
        let failure = nothing_shared(&[answer(1, "02:01"), answer(2, "02:01")]).unwrap_err();
        assert_eq!(failure.cause, Cause::NotUnique);
        assert!(
            failure
                .to_string()
                .contains("node1 and node2 both have mac 02:01"),
            "{failure}"
        );
    }

    #[test]
    fn a_node_that_does_not_tell_proves_nothing() {
        let silent = (
            addresses::node_name(2),
            "hostname node2\nmachine-id\n".to_owned(),
        );
        let failure = nothing_shared(&[answer(1, "02:01"), silent]).unwrap_err();
        assert_eq!(failure.cause, Cause::Absent);
    }
}
