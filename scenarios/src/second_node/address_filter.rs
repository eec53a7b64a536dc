//! A segment that lets through what carries a machine's own address, and nothing else.

use podwire_scenario::{
    Break, Cause, Cells, Check, Checked, Lab, Party, Place, Profile, RequestOutcome, Sabotage,
    Scenario, StageName, ensure, secs, steps,
};

use crate::catalogue::C9;

/// C9!, with ipMasq=false: between nodes Pods' packets carry the Pods' addresses.
pub(crate) const ADDRESS_FILTER: Scenario = Scenario {
    about: "With all routes, on a segment that checks addresses as clouds do, nodes reach each other, and no \
            Pod of another node: a source and destination check takes the request, port security the \
            answer. Unchecked, every pair answers; checked, once a VXLAN carries what Pods send",
    covers: &[C9],
    profile: Profile::Full,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("one-node-unchecked")
            .about("node 2 may send and get under whatever address")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                check_for_good(lab, Check::Both, |node| node != 2).await
            }))
            .caught_by(steps!(no_pod_of_another_node), Cause::Answered),
        Sabotage::new("sources-alone")
            .about("the check is port security's: nobody looks at destinations")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                check_for_good(lab, Check::Source, |_| true).await
            }))
            .caught_by(steps!(the_request_is_taken), Cause::Absent),
        Sabotage::new("destinations-too")
            .about("port security is a cloud's that looks at destinations as well")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                check_for_good(lab, Check::Both, |_| true).await
            }))
            .caught_by(steps!(the_answer_is_taken), Cause::Absent),
        Sabotage::new("one-node-still-checked")
            .about("node 2 may still send and get under its own address alone")
            .inject(steps!(|lab| {
                lab.add_all_routes().await?;
                check_for_good(lab, Check::Both, |node| node == 2).await
            }))
            .at(Place::Node(2))
            .caught_by(steps!(every_pair_answers), Cause::TimedOut),
        Sabotage::new("past-the-tunnel")
            .about("node 1 sends what is for node 2's Pods past the tunnel, as before")
            .inject(steps!(|lab| {
                check_for_good(lab, Check::Both, |_| true).await?;
                lab.lay_vxlan().await?;
                lab.node(1).send_past_the_tunnel(lab.node(2)).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(every_pair_answers), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("address_filter", StageName::WorkloadBare, steps!(address_filter))
};

/// C9: what flannel's VXLAN carries.
pub(crate) const TUNNEL_AND_FILTER: Scenario = Scenario {
    about: "On a segment that checks addresses every pair answers by flannel's VXLAN; what a node sends past \
            it is lost, until nobody checks",
    covers: &[C9],
    cells: Cells::Vxlan,
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("past-the-tunnel")
            .about("node 1 sends what is for node 2's Pods past the tunnel")
            .inject(steps!(|lab| {
                check_for_good(lab, Check::Both, |_| true).await?;
                lab.node(1).send_past_the_tunnel(lab.node(2)).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(every_pair_in_the_tunnel), Cause::TimedOut),
        Sabotage::new("one-node-unchecked")
            .about("node 2 may send and get under whatever address")
            .inject(steps!(|lab| check_for_good(lab, Check::Both, |node| node != 2).await))
            .caught_by(steps!(lost_past_the_tunnel), Cause::Answered),
        Sabotage::new("one-node-still-checked")
            .about("node 1 sends past the tunnel, and may still send under its own address alone")
            .inject(steps!(|lab| {
                lab.node(1).send_past_the_tunnel(lab.node(2)).await?;
                check_for_good(lab, Check::Both, |node| node == 1).await
            }))
            .at(Place::Node(2))
            .caught_by(steps!(every_pair_answers), Cause::TimedOut),
    ],
    ..Scenario::new("tunnel_and_address_filter", StageName::Workload, steps!(tunnel_and_filter))
};

async fn address_filter(lab: &Lab) -> anyhow::Result<()> {
    lab.add_all_routes().await?;

    lab.step("a source and destination check, as on AWS");
    let checked = check(lab, Check::Both, |_| true).await?;
    no_pod_of_another_node(lab).await?;
    the_request_is_taken(lab).await?;
    drop(checked);

    lab.step("port security, as on OpenStack: sources alone");
    let checked = check(lab, Check::Source, |_| true).await?;
    no_pod_of_another_node(lab).await?;
    the_answer_is_taken(lab).await?;
    drop(checked);

    lab.step("nobody checks: the same routes do");
    every_pair_answers(lab).await?;

    let _checked = check(lab, Check::Both, |_| true).await?;
    lab.lay_vxlan().await?;
    every_pair_answers(lab).await
}

async fn tunnel_and_filter(lab: &Lab) -> anyhow::Result<()> {
    let checked = check(lab, Check::Both, |_| true).await?;
    every_pair_in_the_tunnel(lab).await?;
    lost_past_the_tunnel(lab).await?;
    drop(checked);
    lab.step("nobody checks: the way past the tunnel does as well");
    every_pair_answers(lab).await
}

/// Checks the addresses of some nodes, by their numbers.
async fn check(
    lab: &Lab,
    check: Check,
    whose: impl Fn(u32) -> bool,
) -> anyhow::Result<Vec<Checked<'_>>> {
    let mut checked = Vec::new();
    for node in lab.nodes().filter(|node| whose(node.number())) {
        checked.push(node.check_addresses(check).await?);
    }
    Ok(checked)
}

async fn check_for_good(lab: &Lab, how: Check, whose: impl Fn(u32) -> bool) -> anyhow::Result<()> {
    let checked = check(lab, how, whose).await?;
    checked.into_iter().for_each(Checked::forget);
    Ok(())
}

async fn no_pod_of_another_node(lab: &Lab) -> anyhow::Result<()> {
    lab.step("nodes reach each other: nobody listens there, and that is said");
    for node in lab.nodes().skip(1) {
        let expected = format!("node 1 to be refused by {node} itself");
        lab.ask(lab.node(1), node.address()).all_end(RequestOutcome::Refused, expected).await?;
    }
    lab.step("exactly the Pods of other nodes time out");
    let mesh = lab.mesh_of_everybody().await?;
    let expected = "everybody to reach the Pods of the own node, and no other's";
    Ok(mesh.exactly_dead(expected, |from, to| from.node != to.node)?)
}

async fn the_request_is_taken(lab: &Lab) -> anyhow::Result<()> {
    taken_from(lab, 1, "the request, which is for a Pod").await
}

async fn the_answer_is_taken(lab: &Lab) -> anyhow::Result<()> {
    taken_from(lab, 2, "the answer, which comes from a Pod").await
}

/// Of what goes between node 1 and a Pod of node 2 the segment takes what this node sends, and nothing
/// else.
async fn taken_from(lab: &Lab, sender: u32, what: &str) -> anyhow::Result<()> {
    let (node1, pod) = (lab.node(1), lab.pods().on(lab.node(2)).first().await?);
    lab.step(format!("node 1 asks {pod}: what the segment takes is {what}"));
    let since = lab.wire().now()?;
    lab.ask(node1, pod.address).all_end(RequestOutcome::TimedOut, "no answer").await?;
    let mut taken = lab.wire().between(node1.address(), pod.address, since)?.frames;
    taken.retain(|frame| !frame.lost.is_empty());
    let sender = lab.node(sender).name();
    let exactly = !taken.is_empty() && taken.iter().all(|frame| *frame.from == *sender);
    let taken: Vec<String> = taken.iter().map(|frame| format!("\n  {frame}")).collect();
    let taken = taken.concat();
    ensure!(exactly, Absent, "what the segment takes to be {what}", "it took: {taken}");
    Ok(())
}

async fn every_pair_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every ordered pair answers");
    let mesh = lab.mesh_of_everybody().await?;
    Ok(mesh.all_answer("every ordered pair to answer")?)
}

async fn every_pair_in_the_tunnel(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every ordered pair answers, by the direct way in the tunnel");
    let mesh = lab.mesh_of_everybody().await?;
    mesh.all_answer("every ordered pair to answer, checked as it is")?;
    lab.wire().carried(&mesh)
}

/// In the tunnel a node is known by an address of its Pods' range: its answers go the same way.
async fn lost_past_the_tunnel(lab: &Lab) -> anyhow::Result<()> {
    lab.node(1).send_past_the_tunnel(lab.node(2)).await?;
    lab.step("exactly the pairs between the two time out");
    let between = |from: &Party, to: &Party| [(1, 2), (2, 1)].contains(&(from.node, to.node));
    let mesh = lab.mesh_of_everybody().await?;
    Ok(mesh.exactly_dead("all pairs but those between node 1 and node 2 to answer", between)?)
}
