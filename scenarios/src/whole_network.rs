//! Chapter E's promise for the whole cluster, whoever made it: every pair, and every way to a
//! ClusterIP.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::try_join_all;
use podwire_cluster::{Break, StageName};
use podwire_scenario::assert::{Mesh, Party};
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Profile, Sabotage, Scenario, eventually_unless,
};

use crate::catalogue::{E35, E36};
use crate::prospects;
use crate::steps::{
    all_nodes_ready, cluster_ip_spreads, everybody_seen, masquerade_between_nodes,
    mesh_of_everybody, on, pods_running, service_address, set_session_affinity,
};

/// E35: every ordered pair.
pub(crate) const EVERY_PAIR: Scenario = Scenario {
    name: "every_pair",
    about: "All Nodes are Ready, and from every node and from a Pod of each every Pod answers by \
            its own name, and sees the sender's own address",
    covers: &[E35],
    stage: StageName::Workload,
    cells: Cells::Any,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(90),
    prepare: None,
    run: |lab| Box::pin(every_pair(lab)),
    sabotages: &[
        Sabotage {
            name: "masquerade-between-nodes",
            about: "node 2 masquerades its Pods' traffic to other nodes",
            expects: Cause::WrongAnswer,
            run: |lab| {
                Box::pin(async {
                    masquerade_between_nodes(lab).await?;
                    lab.injected();
                    every_pair(lab).await
                })
            },
        },
        Sabotage {
            name: "one-direction-dropped",
            about: "node 1 drops what it sends to node 2's Pods",
            expects: Cause::TimedOut,
            run: |lab| {
                Box::pin(async {
                    let own = lab.pod_addresses(2).await?;
                    drop_on_node1(lab, &own).await?;
                    lab.injected();
                    every_pair(lab).await
                })
            },
        },
    ],
    red_when: &[Break::Route, Break::PodRange],
};

pub(crate) async fn every_pair(lab: &Lab) -> anyhow::Result<()> {
    lab.step("all Nodes are Ready");
    all_nodes_ready(lab).await?;
    lab.step("every ordered pair, node to Pod and Pod to Pod (E35)");
    let mesh = mesh_of_everybody(lab).await?;
    mesh.all_answer("every ordered pair to answer")?;
    let own = try_join_all((1..=lab.nodes()).map(|number| async move {
        let shown = on(lab, number, "ip -4 -o address show").await?;
        Ok::<_, anyhow::Error>((number, own_addresses(&shown)))
    }));
    Ok(senders_seen(&mesh, &own.await?.into_iter().collect())?)
}

/// The addresses in what `ip -4 -o address` shows. A node speaks to a Pod of its own from the
/// bridge's, and through a tunnel from the tunnel's.
fn own_addresses(shown: &str) -> BTreeSet<String> {
    let words: Vec<&str> = shown.split_whitespace().collect();
    words
        .windows(2)
        .filter(|pair| pair[0] == "inet")
        .filter_map(|pair| Some(pair[1].split_once('/')?.0.to_owned()))
        .collect()
}

/// Each Pod saw an address of the sender's own: a Pod's only one, or any of the node's.
fn senders_seen(mesh: &Mesh, of_node: &BTreeMap<u32, BTreeSet<String>>) -> Result<(), Failure> {
    let own = |from: &Party, client: &str| {
        if from.pod {
            from.address.to_string() == client
        } else {
            let known = of_node.get(&from.node);
            known.is_some_and(|addresses| addresses.contains(client))
        }
    };
    let wrong: Vec<String> = mesh
        .cells
        .iter()
        .filter(|cell| {
            let client = cell.client.as_deref();
            !client.is_some_and(|client| own(&cell.from, client))
        })
        .map(|cell| format!("\n  {cell}"))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let expected = "each Pod to see the sender's own address";
    Err(Failure::new(Cause::WrongAnswer, expected, wrong.concat())
        .look("who translates: `nft list ruleset` of the sending node"))
}

/// E36: the balancing rule, from everywhere.
pub(crate) const CLUSTER_IP: Scenario = Scenario {
    name: "cluster_ip_from_everywhere",
    about: "Requests to a ClusterIP with at least five Pods behind it spread evenly over them, from \
            every node and from a Pod",
    covers: &[E36],
    stage: StageName::Workload,
    cells: Cells::Any,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(120),
    prepare: None,
    run: |lab| Box::pin(cluster_ip(lab)),
    sabotages: &[
        Sabotage {
            name: "session-affinity",
            about: "the Service sends each client to one Pod",
            expects: Cause::Unbalanced,
            run: |lab| {
                Box::pin(async {
                    set_session_affinity(lab).await?;
                    lab.injected();
                    stuck_to_one_pod(lab).await?;
                    spreads_from_everywhere(lab).await
                })
            },
        },
        Sabotage {
            name: "dropped-on-one-node",
            about: "node 1 drops what goes to the Pods of node 2",
            // A client that repeats its first packet is sent to another Pod, and few requests end.
            expects: Cause::Unbalanced,
            run: |lab| {
                Box::pin(async {
                    let own = lab.pod_addresses(2).await?;
                    drop_on_node1(lab, &own).await?;
                    lab.injected();
                    spreads_from_everywhere(lab).await
                })
            },
        },
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
};

/// Fewer backends would hide a skew among few.
const BACKENDS: usize = 5;

async fn cluster_ip(lab: &Lab) -> anyhow::Result<()> {
    let pods = lab.pods().await?.len();
    if pods < BACKENDS {
        lab.step(format!("scale up to {BACKENDS} Pods"));
        lab.cluster()
            .scale_workload(u32::try_from(BACKENDS)?)
            .await?;
        pods_running(lab, BACKENDS, |_| None).await?;
    }
    every_sender_sees_every_pod(lab).await?;
    spreads_from_everywhere(lab).await
}

async fn senders(lab: &Lab) -> anyhow::Result<Vec<Party>> {
    let mut senders = lab.node_parties();
    senders.push(lab.pod_on(lab.nodes()).await?);
    Ok(senders)
}

/// Each node's kube-proxy has the same Pods behind the ClusterIP before anything is counted.
pub(crate) async fn every_sender_sees_every_pod(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node's kube-proxy knows every Pod");
    let pods = lab.pods().await?.len();
    for from in senders(lab).await? {
        everybody_seen(lab, &from, pods).await?;
    }
    Ok(())
}

pub(crate) async fn spreads_from_everywhere(lab: &Lab) -> anyhow::Result<()> {
    for from in senders(lab).await? {
        lab.step(format!("a hundred requests per Pod from {from} (E36)"));
        cluster_ip_spreads(lab, &from).await?;
    }
    Ok(())
}

/// kube-proxy has seen the affinity: one client gets one Pod.
async fn stuck_to_one_pod(lab: &Lab) -> anyhow::Result<()> {
    let address = service_address(lab).await?;
    let node1 = lab.node_parties().swap_remove(0);
    let expected = "node 1 to get one Pod only";
    let limit = lab.limit(Duration::from_secs(20));
    let stuck = async || prospects::kube_proxy(lab, 1, address, &[]).await;
    eventually_unless(expected, limit, stuck, async || {
        let report = lab.fetch_one(&node1, address, 16).await?;
        let pods = report.hosts().len();
        Ok(if pods == 1 {
            Probe::Done(())
        } else {
            Probe::not_yet(Cause::NotReady, format!("{pods} Pods"))
        })
    })
    .await
}

/// Packets of node 1 and its Pods to these addresses, also within a tunnel.
async fn drop_on_node1(lab: &Lab, addresses: &str) -> anyhow::Result<()> {
    lab.step(format!("drop what node 1 sends to {addresses}"));
    on(
        lab,
        1,
        &format!(
            "nft 'add table ip sabotage; \
             add chain ip sabotage drops {{ type filter hook postrouting priority 0; }}; \
             add rule ip sabotage drops ip daddr {addresses} drop'"
        ),
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_probe::Outcome;
    use podwire_scenario::assert::Cell;

    fn seen(pod: bool, client: &str) -> Result<(), Cause> {
        let party = |name: &str, pod| Party {
            name: name.into(),
            node: 1,
            pod,
            address: [10, 1, 1, 2].into(),
        };
        let mesh = Mesh {
            cells: vec![Cell {
                from: party("sender", pod),
                to: party("blue", true),
                outcome: Outcome::Answered,
                host: Some("blue".into()),
                client: Some(client.into()),
            }],
        };
        let of_node = BTreeMap::from([(1, own_addresses(ADDRESSES))]);
        senders_seen(&mesh, &of_node).map_err(|failure| failure.cause)
    }

    const ADDRESSES: &str = "\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever
2: enp1s0    inet 172.30.0.11/24 brd 172.30.0.255 scope global enp1s0
5: cni0    inet 10.1.1.1/24 brd 10.1.1.255 scope global cni0";

    #[test]
    fn a_node_may_be_seen_by_any_of_its_addresses_and_a_pod_by_one() {
        assert_eq!(seen(false, "172.30.0.11"), Ok(()));
        assert_eq!(seen(false, "10.1.1.1"), Ok(()));
        assert_eq!(seen(false, "172.30.0.12"), Err(Cause::WrongAnswer));
        assert_eq!(seen(true, "10.1.1.2"), Ok(()));
        assert_eq!(seen(true, "10.1.1.1"), Err(Cause::WrongAnswer));
    }
}
