//! A Pod CIDR by hand, on nodes whose container engine follows it.

use podwire_scenario::{
    Cause, Cells, Ipv4Net, Lab, Needs, Profile, Sabotage, Scenario, StageName, assert, ensure,
    ensure_none, secs, steps,
};

use super::template::{
    ANOTHER, CONFIGURATION, RESTART, files_are_made_of_a_template, net, new_pod_is_in, range_of,
    ready_with_another_range, set_pod_cidr,
};
use crate::catalogue::{D5a, D5b, D5d};

/// D5a!, D5b, D5d: what kubenet did with the Node's range, containerd does with a template.
pub(crate) const POD_CIDR_BY_HAND: Scenario = Scenario {
    about: "A Node without a Pod CIDR has no network, if its engine makes the CNI file of that; one that is \
            given a Pod CIDR by hand gives its Pods addresses from it, even if another Node has the \
            same, and keeps it; one whose CNI file names a range needs none",
    covers: &[D5a, D5b, D5d],
    cells: Cells::ByHandWithRoutes,
    profile: Profile::Full,
    nodes: 3,
    limit: secs(240),
    prepare: Some(steps!(files_are_made_of_a_template)),
    sabotages: &[
        Sabotage::new("cni-file-is-there")
            .about("the last node has a CNI file that is not made of the template")
            .inject(steps!(|lab| ready_with_another_range(lab.last_node()).await))
            .caught_by(steps!(|lab| nodes_from_lack_a_network(lab, 2).await), Cause::Answered),
        Sabotage::new("no-template")
            .about("node 1's containerd is not told of the template")
            .inject(steps!(|lab| {
                let forget = format!("sed -i /conf_template/d {CONFIGURATION} && {RESTART}");
                lab.node(1).run(forget).await
            }))
            .caught_by(steps!(|lab| takes_a_range_by_hand(lab, 1).await), Cause::NotReady),
        Sabotage::new("another-cni-file")
            .about("node 1 has a CNI file with another range already")
            .inject(steps!(|lab| ready_with_another_range(lab.node(1)).await))
            .caught_by(steps!(|lab| takes_a_range_by_hand(lab, 1).await), Cause::OutsideRange),
        Sabotage::new("has-a-range")
            .about("node 2 has been given another range")
            .inject(steps!(|lab| set_pod_cidr(lab, lab.node(2), ANOTHER).await))
            .saying("may not change podCIDR")
            .caught_by(steps!(|lab| takes_a_range_by_hand(lab, 2).await), Cause::HttpStatus),
        Sabotage::new("has-no-range")
            .about("node 1 has been given no range yet")
            .caught_by(steps!(keeps_its_range), Cause::Answered),
        Sabotage::new("file-of-the-template")
            .about("node 3 is given a Pod CIDR, of which its containerd makes the CNI file")
            .inject(steps!(|lab| set_pod_cidr(lab, lab.node(3), ANOTHER).await))
            .caught_by(steps!(needs_no_range), Cause::Answered),
        Sabotage::new("no-file")
            .about("node 3 has no CNI file either")
            .caught_by(steps!(needs_no_range), Cause::NotReady),
        Sabotage::new("file-names-another")
            .about("node 3's CNI file names another range")
            .inject(steps!(|lab| lab.node(3).write_cni_file(RANGE).await))
            .caught_by(steps!(needs_no_range), Cause::OutsideRange),
    ],
    ..Scenario::new("pod_cidr_by_hand", StageName::Joined, steps!(by_hand))
};

/// The Pod CIDR that is given by hand.
const RANGE: Ipv4Net = net(1, 24);

async fn by_hand(lab: &Lab) -> anyhow::Result<()> {
    nodes_from_lack_a_network(lab, 1).await?;
    takes_a_range_by_hand(lab, 1).await?;
    nodes_from_lack_a_network(lab, 2).await?;
    lab.step("the same range for node 2, too: nobody minds");
    takes_a_range_by_hand(lab, 2).await?;
    nodes_from_lack_a_network(lab, 3).await?;
    keeps_its_range(lab).await?;
    lab.step("give node3 a CNI file that names a range (D5d)");
    lab.node(3).write_cni_file(ANOTHER).await?;
    needs_no_range(lab).await
}

async fn nodes_from_lack_a_network(lab: &Lab, first: u32) -> anyhow::Result<()> {
    lab.step("who has no Pod CIDR has no network, and is not Ready (D5a)");
    for node in lab.nodes().filter(|node| node.number() >= first) {
        node.lacks_a_network().await?;
        let given = range_of(node).await?;
        ensure_none!(given, Answered, "{node} to have no Pod CIDR");
    }
    Ok(())
}

/// How containerd says that it has no template.
const NO_TEMPLATE: &str = "No cni config template is specified";

async fn takes_a_range_by_hand(lab: &Lab, number: u32) -> anyhow::Result<()> {
    let node = lab.node(number);
    lab.step(format!(
        "give {node} the Pod CIDR {RANGE}: it is Ready, and its Pods are in it (D5b)"
    ));
    let set = set_pod_cidr(lab, node, RANGE).await?;
    let (taken, said) = (set.succeeded(), set.said());
    ensure!(taken, HttpStatus, "the API server to take it", "{said}");
    let template = Needs::Silence {
        node: number,
        command: node.journal_lines("containerd", &[NO_TEMPLATE]),
        means: "its containerd makes no CNI file".to_owned(),
    };
    node.ready_within_or(secs(20), template).await?;
    new_pod_is_in(lab, node, RANGE).await
}

async fn keeps_its_range(lab: &Lab) -> anyhow::Result<()> {
    let node1 = lab.node(1);
    lab.step("give node1 another Pod CIDR: refused (D5b)");
    let change = set_pod_cidr(lab, node1, ANOTHER).await?;
    let expected = "the API server to refuse another Pod CIDR";
    Ok(assert::refused(&change, "may not change podCIDR", expected)?)
}

async fn needs_no_range(lab: &Lab) -> anyhow::Result<()> {
    let node3 = lab.node(3);
    lab.step("it has no Pod CIDR, is Ready, and its Pods are in the range of its file (D5d)");
    let file = Needs::Silence {
        node: 3,
        command: "ls /etc/cni/net.d/* >/dev/null 2>&1 || echo none".to_owned(),
        means: "it has no CNI file".to_owned(),
    };
    node3.ready_within_or(secs(20), file).await?;
    let given = range_of(node3).await?;
    ensure_none!(given, Answered, "{node3} to have no Pod CIDR");
    new_pod_is_in(lab, node3, ANOTHER).await
}
