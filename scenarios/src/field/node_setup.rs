//! A node's own set-up against the network, named.

use podwire_scenario::RequestOutcome::TimedOut;
use podwire_scenario::{
    Break, Cause, Cells, Lab, Node, NodeTrouble, Party, Profile, Sabotage, Scenario, StageName,
    ensure, ensure_none, listed, secs, steps,
};

use crate::catalogue::F19;

/// F19: four set-ups that look like a broken network, or like a broken Kubernetes.
///
/// What is asked here is what a failure's first page tells, "What stands out on the nodes".
pub(crate) const NODE_SETUP: Scenario = Scenario {
    about: "Strict reverse-path filtering, a FORWARD policy of DROP, a full table of connections and a wrong \
            clock are each named as what they are, with their node, and nothing is named on sound nodes",
    covers: &[F19],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("not-sound")
            .about("one of them is there from the beginning")
            .inject(steps!(|lab| drops_what_it_forwards(lab.last_node(), "drop").await))
            .caught_by(steps!(nothing_is_named), Cause::WrongAnswer),
        Sabotage::new("loose-filter")
            .about("reverse paths are filtered loosely, which drops nothing here")
            .inject(steps!(|lab| {
                let [from, to] = two_ways(lab).await?;
                filters_reverse_paths(lab.node(to.node), LOOSE).await?;
                answers_by_the_other_way(lab, &from, &to).await
            }))
            .caught_by(steps!(strict_filter_is_named), Cause::Absent),
        Sabotage::new("policy-accept")
            .about("the chain's policy is ACCEPT")
            .inject(steps!(|lab| drops_what_it_forwards(lab.last_node(), "accept").await))
            .caught_by(steps!(policy_is_named), Cause::Absent),
        Sabotage::new("room-for-one-more")
            .about("the table has room for a thousand more")
            .inject(steps!(|lab| tracks_at_most(
                lab.last_node(),
                "$(($(cat nf_conntrack_count) + 1000))"
            )
            .await))
            .caught_by(steps!(full_table_is_named), Cause::Absent),
        Sabotage::new("a-little-late")
            .about("the clock is five seconds off")
            .inject(steps!(|lab| sets_its_clock(lab.node(2), 5).await))
            .caught_by(steps!(wrong_clock_is_named), Cause::Absent),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("node_setup_is_named", StageName::Workload, steps!(node_setup))
};

/// Values of `rp_filter` (the kernel's ip-sysctl).
const STRICT: u32 = 1;
const LOOSE: u32 = 2;

/// Seconds of a day.
const A_DAY: i64 = 24 * 60 * 60;

async fn node_setup(lab: &Lab) -> anyhow::Result<()> {
    nothing_is_named(lab).await?;

    let [from, to] = two_ways(lab).await?;
    answers_by_the_other_way(lab, &from, &to).await?;
    filters_reverse_paths(lab.node(to.node), STRICT).await?;
    lab.ask(&from, to.address).all_end(TimedOut, "what comes by it to be dropped").await?;
    strict_filter_is_named(lab).await?;

    drops_what_it_forwards(lab.last_node(), "drop").await?;
    policy_is_named(lab).await?;

    tracks_at_most(lab.last_node(), "1").await?;
    full_table_is_named(lab).await?;

    sets_its_clock(lab.node(2), A_DAY).await?;
    wrong_clock_is_named(lab).await
}

async fn nothing_is_named(lab: &Lab) -> anyhow::Result<()> {
    lab.step("nothing stands out on sound nodes");
    ensure_none!(told(&lab.node_troubles().await?), WrongAnswer, "nothing to stand out");
    Ok(())
}

fn told(all: &[(Party, NodeTrouble)]) -> Vec<String> {
    all.iter().map(|(node, trouble)| format!("{}: {trouble}", node.name)).collect()
}

async fn strict_filter_is_named(lab: &Lab) -> anyhow::Result<()> {
    let is = |it: &NodeTrouble| matches!(it, NodeTrouble::StrictReversePath { .. });
    named(lab, lab.node(2), "strict reverse-path filtering", is).await
}

async fn policy_is_named(lab: &Lab) -> anyhow::Result<()> {
    let is = |it: &NodeTrouble| matches!(it, NodeTrouble::ForwardDrop { .. });
    named(lab, lab.last_node(), "a FORWARD policy of DROP", is).await
}

async fn full_table_is_named(lab: &Lab) -> anyhow::Result<()> {
    let is = |it: &NodeTrouble| matches!(it, NodeTrouble::ConntrackFull { .. });
    named(lab, lab.last_node(), "a full table of connections", is).await
}

async fn wrong_clock_is_named(lab: &Lab) -> anyhow::Result<()> {
    let is = |it: &NodeTrouble| matches!(it, NodeTrouble::Clock { ahead } if *ahead > A_DAY / 2);
    named(lab, lab.node(2), "a wrong clock", is).await
}

async fn named(
    lab: &Lab,
    node: Node<'_>,
    what: &str,
    is: impl Fn(&NodeTrouble) -> bool,
) -> anyhow::Result<()> {
    lab.step(format!("{what} is named, and {node}"));
    let all = lab.node_troubles().await?;
    let found = all.iter().any(|(on, trouble)| on.node == node.number() && is(trouble));
    let all = listed(told(&all));
    ensure!(found, Absent, "{what} to be named on {node}", "{all}");
    Ok(())
}

/// A Pod of node 1 and one of node 2, where node 2 has a second way to the first: what the Pod answers is
/// marked, and goes as before by that mark; what is not marked goes elsewhere. By which way an answer would
/// leave is asked without the mark (`src_valid_mark` of the kernel's ip-sysctl).
async fn two_ways(lab: &Lab) -> anyhow::Result<[Party; 2]> {
    let node = lab.node(2);
    let from = lab.pods().on(lab.node(1)).first().await?;
    let to = lab.pods().on(node).first().await?;
    lab.step(format!("{node} has two ways to {from}: one for what {to} answers, one for the rest"));
    let mark = format!("ip saddr {} ip daddr {} meta mark set 7", to.address, from.address);
    node.add_rule("type filter hook prerouting priority mangle", &mark).await?;
    let other = from.address;
    node.run(format!(
        "way=$(ip -o route get {other} | sed -n 's/.*\\(via [^ ]* dev [^ ]*\\).*/\\1/p') && \
         ip route add table 100 {other} $way onlink && ip rule add fwmark 7 lookup 100 && \
         ip link add other0 type dummy && ip link set other0 up && ip route add {other} dev other0"
    ))
    .await?;
    Ok([from, to])
}

async fn answers_by_the_other_way(lab: &Lab, from: &Party, to: &Party) -> anyhow::Result<()> {
    lab.ask(from, to.address).all_answered_by(to, "an answer by the other way").await?;
    Ok(())
}

async fn filters_reverse_paths(node: Node<'_>, how: u32) -> anyhow::Result<()> {
    let every = "/proc/sys/net/ipv4/conf/*/rp_filter";
    node.run(format!("for filter in {every}; do echo {how} > $filter; done")).await.map(drop)
}

/// As a firewall's own chain does, beside those of iptables.
async fn drops_what_it_forwards(node: Node<'_>, policy: &str) -> anyhow::Result<()> {
    let chain = format!("type filter hook forward priority filter; policy {policy};");
    let firewall = "add table inet firewall; add chain inet firewall forward";
    node.run(format!("nft '{firewall} {{ {chain} }}'")).await.map(drop)
}

/// So many connections, as the shell says it: it tracks more than one at any time.
async fn tracks_at_most(node: Node<'_>, most: &str) -> anyhow::Result<()> {
    let set = format!("cd /proc/sys/net/netfilter && echo {most} > nf_conntrack_max");
    node.run(set).await.map(drop)
}

async fn sets_its_clock(node: Node<'_>, ahead: i64) -> anyhow::Result<()> {
    node.run(format!("date -s @$(($(date +%s) + {ahead}))")).await.map(drop)
}
