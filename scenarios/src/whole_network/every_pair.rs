//! Every ordered pair.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwire_scenario::{
    Break, Cause, Failure, Families, Lab, Mesh, Party, Place, Probe, Profile, Sabotage, Scenario,
    StageName, ensure, secs, steps,
};

use crate::catalogue::E35;

/// E35: every ordered pair.
pub(crate) const EVERY_PAIR: Scenario = Scenario {
    about: "All Nodes are Ready, and from every node and from a Pod of each every Pod answers by \
            its own name, and sees the sender's own address; each request crosses the wire once, by \
            the direct way; by each family of IP that the cluster has",
    covers: &[E35],
    families: Families::Each,
    profile: Profile::Everywhere,
    limit: secs(120),
    sabotages: &[
        Sabotage::new("masquerade-between-nodes")
            .about("node 2 masquerades its Pods' traffic to other nodes")
            .inject(steps!(|lab| lab.node(2).masquerade_between_nodes().await))
            .caught_by(steps!(every_pair), Cause::WrongAnswer),
        Sabotage::new("one-direction-dropped")
            .about("node 1 drops what it sends to node 2's Pods")
            .inject(steps!(|lab| {
                let (node1, node2) = (lab.node(1), lab.node(2));
                node1.drop_what_goes_to_pods_of(node2).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(every_pair), Cause::TimedOut),
        Sabotage::new("first-packet-lost")
            .about(
                "node 2 loses the first packet of each connection, which is answered when it \
                 comes again",
            )
            .inject(steps!(|lab| lab.node(2).lose_first_packets().await))
            .caught_by(steps!(every_pair), Cause::SentAgain),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("every_pair", StageName::Workload, steps!(every_pair))
};

pub(super) async fn every_pair(lab: &Lab) -> anyhow::Result<()> {
    lab.step("all Nodes are Ready");
    lab.all_nodes_ready().await?;
    lab.step("every ordered pair, node to Pod and Pod to Pod (E35)");
    let (mesh, verdict) = asked(lab).await?;
    verdict?;
    lab.wire().carried(&mesh)
}

/// The same once a node has come back. A network that the suite knows nothing of may take new addresses of Pods for the
/// world's until it has heard of them, and translate what goes there: it gets a time to hear.
pub(super) async fn every_pair_again(lab: &Lab) -> anyhow::Result<()> {
    if lab.pod_network().is_of_a_manifest() {
        lab.step("the network takes the new addresses for Pods'");
        let expected = "every pair to answer, seen as itself";
        lab.eventually(expected, secs(30), async || {
            let (_, verdict) = asked(lab).await?;
            Ok(Probe::judged(verdict))
        })
        .await?;
    }
    every_pair(lab).await
}

/// Every ordered pair, and whether it did as it should.
async fn asked(lab: &Lab) -> anyhow::Result<(Mesh, Result<(), Failure>)> {
    let mesh = lab.mesh_of_everybody().await?;
    let own = own_addresses(lab).await?;
    let answered = mesh.all_answer("every ordered pair to answer");
    let verdict = answered.and_then(|()| senders_seen(&mesh, &own));
    Ok((mesh, verdict))
}

/// That each Pod of these answers saw the sender's own address.
pub(crate) async fn sees_senders(lab: &Lab, mesh: &Mesh) -> anyhow::Result<()> {
    Ok(senders_seen(mesh, &own_addresses(lab).await?)?)
}

/// Each node's, by its number.
async fn own_addresses(lab: &Lab) -> anyhow::Result<BTreeMap<u32, BTreeSet<IpAddr>>> {
    let mut own = BTreeMap::new();
    for node in lab.nodes() {
        own.insert(node.number(), node.addresses().await?);
    }
    Ok(own)
}

/// Each Pod saw an address of the sender's own: a Pod's only one, or any of the node's. A node speaks to a
/// Pod of its own from the bridge's, and through a tunnel from the tunnel's.
fn senders_seen(mesh: &Mesh, of_node: &BTreeMap<u32, BTreeSet<IpAddr>>) -> Result<(), Failure> {
    let own = |from: &Party, client: IpAddr| match from.pod {
        true => from.ip() == client,
        false => of_node.get(&from.node).is_some_and(|own| own.contains(&client)),
    };
    let wrong = mesh.cells.iter().filter(|cell| {
        let client = cell.client.as_deref().and_then(|client| client.parse().ok());
        !client.is_some_and(|client| own(&cell.from, client))
    });
    let wrong: String = wrong.map(|cell| format!("\n  {cell}")).collect();
    ensure!(
        wrong.is_empty(),
        WrongAnswer,
        "each Pod to see the sender's own address",
        "{wrong}",
        "who translates: `nft list ruleset` of the sending node"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_scenario::Cell;
    use podwire_scenario::RequestOutcome;

    fn seen(pod: bool, client: &str) -> Result<(), Cause> {
        let party = |name: &str, pod| Party::new(name, 1, pod, [10, 1, 1, 2]);
        let mesh = Mesh {
            cells: vec![Cell {
                from: party("sender", pod),
                to: party("blue", true),
                outcome: RequestOutcome::Answered,
                host: Some("blue".into()),
                client: Some(client.into()),
                error: None,
                came: None,
            }],
            ..Mesh::default()
        };
        let own = [[172, 30, 0, 11], [10, 1, 1, 1]].map(IpAddr::from);
        let of_node = BTreeMap::from([(1, BTreeSet::from(own))]);
        senders_seen(&mesh, &of_node).map_err(|failure| failure.cause)
    }

    #[test]
    fn a_node_may_be_seen_by_any_of_its_addresses_and_a_pod_by_one() {
        assert_eq!(seen(false, "172.30.0.11"), Ok(()));
        assert_eq!(seen(false, "10.1.1.1"), Ok(()));
        assert_eq!(seen(false, "172.30.0.12"), Err(Cause::WrongAnswer));
        assert_eq!(seen(true, "10.1.1.2"), Ok(()));
        assert_eq!(seen(true, "10.1.1.1"), Err(Cause::WrongAnswer));
    }
}
