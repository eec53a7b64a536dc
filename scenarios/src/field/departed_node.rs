//! A Node that leaves while a network daemon is down.

use podwire_scenario::{
    Cause, Cells, Ipv4Net, Lab, Needs, Node, Probe, Profile, Sabotage, Scenario, StageName, ensure,
    secs, steps,
};

use crate::catalogue::F15;

/// F15: what was done for a Node is undone when it leaves.
///
/// flanneld undoes it when it is told of a Node's end, and compares nothing when it starts
/// (flannel-io/flannel#2554). Up to [`KEEPS_ENTRIES`] that is what is asserted of one that was down
/// meanwhile: route, neighbour and forwarding entry stay.
pub(crate) const DEPARTED_NODE: Scenario = Scenario {
    about: "When a Node leaves, a node whose flannel runs forgets its route, neighbour and forwarding \
            entry; one whose flannel was down meanwhile catches up with what it lacks, and (up to flannel \
            0.28.9) keeps what is too much",
    covers: &[F15],
    cells: Cells::WithFlannel,
    profile: Profile::Full,
    nodes: 3,
    limit: secs(180),
    sabotages: &[
        Sabotage {
            name: "has-not-left",
            about: "the Node is there",
            expects: Cause::Answered,
            inject: steps!(|lab| remember(lab).await),
            check: steps!(|lab| nothing_left_on(lab, lab.node(1)).await),
        },
        Sabotage {
            name: "flannel-stays-down",
            about: "flannel is not restarted",
            expects: Cause::Absent,
            inject: steps!(|lab| {
                remember(lab).await?;
                goes_down(lab).await
            }),
            check: steps!(catches_up),
        },
        Sabotage {
            name: "removed-by-hand",
            about: "somebody has removed the entries that flannel keeps",
            expects: Cause::WrongAnswer,
            inject: steps!(|lab| {
                remember(lab).await?;
                goes_down(lab).await?;
                remove_by_hand(lab).await
            }),
            check: steps!(keeps_what_is_too_much),
        },
    ],
    ..Scenario::new("departed_node", StageName::Workload, steps!(departed_node))
};

/// The last flannel that is known to keep what became too much while it was down.
const KEEPS_ENTRIES: [u32; 3] = [0, 28, 9];

async fn departed_node(lab: &Lab) -> anyhow::Result<()> {
    remember(lab).await?;
    goes_down(lab).await?;
    lab.last_node().take_off().await?;

    let node1 = lab.node(1);
    lab.step(format!("{node1} forgets {}", lab.last_node()));
    lab.eventually(format!("nothing of {} on {node1}", lab.last_node()), secs(30), async || {
        let left = entries(lab, node1).await?;
        let state = left.join("; ");
        Ok(Probe::when(left.is_empty(), Cause::Answered, state).needs(does_something(node1)))
    })
    .await?;
    nothing_left_on(lab, node1).await?;

    was_down(lab).restart_flannel().await?;
    catches_up(lab).await?;
    match keeps_entries(&flannel(lab).await?) {
        Some(true) => keeps_what_is_too_much(lab).await,
        Some(false) => nothing_left_on(lab, was_down(lab)).await,
        None => anyhow::bail!("flannel's image tells no version"),
    }
}

/// The node whose flannel is down meanwhile.
fn was_down(lab: &Lab) -> Node<'_> {
    lab.node(2)
}

/// The ranges of the Pods of the node that leaves, and of one that stays.
#[derive(Clone)]
struct Ranges {
    leaving: Ipv4Net,
    staying: Ipv4Net,
}

/// While it has a Node, which says its range.
async fn remember(lab: &Lab) -> anyhow::Result<()> {
    let ranges = lab.cluster().pod_ranges().await?.unwrap_or_default();
    let of = |node: Node<'_>| {
        let range = ranges.get(&node.number()).copied();
        range.ok_or_else(|| anyhow::anyhow!("{node} has no range for its Pods"))
    };
    lab.keep(Ranges { leaving: of(lab.last_node())?, staying: of(lab.node(1))? });
    Ok(())
}

/// flannel of one node hears of nothing any more, and a route is lost that it had made.
async fn goes_down(lab: &Lab) -> anyhow::Result<()> {
    let (node, Ranges { staying, .. }) = (was_down(lab), lab.kept()?);
    node.halt("flanneld").await?;
    lab.step(format!("{node} loses the route to {}'s Pods", lab.node(1)));
    node.run(format!("ip route delete {staying}")).await.map(drop)
}

/// What there is on a node for the one that leaves: routes, and in the tunnel its neighbour and forwarding
/// entries.
async fn entries(lab: &Lab, on: Node<'_>) -> anyhow::Result<Vec<String>> {
    let Ranges { leaving, .. } = lab.kept()?;
    let listed = on
        .run(format!(
            "{{ ip -4 route; ip -4 neighbour show dev flannel.1; bridge fdb show dev flannel.1; }} \
             2>/dev/null | grep -F -e '{}' -e 'dst {}'; true",
            front(leaving),
            lab.last_node().address()
        ))
        .await?;
    Ok(listed.text().lines().map(|line| line.trim().to_owned()).collect())
}

/// What all addresses of a range of 256 begin with.
fn front(range: Ipv4Net) -> String {
    let [a, b, c, _] = range.address.octets();
    format!("{a}.{b}.{c}.")
}

async fn nothing_left_on(lab: &Lab, node: Node<'_>) -> anyhow::Result<()> {
    let left = entries(lab, node).await?;
    let (gone, left) = (lab.last_node(), left.join("\n  "));
    ensure!(left.is_empty(), Answered, "nothing of {gone} on {node}", "{left}");
    Ok(())
}

/// It begins with all Nodes that there are: when a lost route is back, it has been through them.
async fn catches_up(lab: &Lab) -> anyhow::Result<()> {
    let (node, Ranges { staying, .. }) = (was_down(lab), lab.kept()?);
    lab.step(format!("flannel of {node} catches up: the lost route is back"));
    lab.eventually(format!("a route to {staying} on {node}"), secs(30), async || {
        let routes = node.run(format!("ip -4 route show {staying}")).await?;
        let back = !routes.text().is_empty();
        Ok(Probe::when(back, Cause::Absent, "none").needs(does_something(node)))
    })
    .await
}

/// A flannel that is not halted.
fn does_something(node: Node<'_>) -> Needs {
    Needs::Silence {
        node: node.number(),
        command: "grep -s -l '(flanneld) T ' /proc/[0-9]*/stat; true".to_owned(),
        means: "its flanneld is halted (SIGSTOP)".to_owned(),
    }
}

async fn keeps_what_is_too_much(lab: &Lab) -> anyhow::Result<()> {
    let (node, gone) = (was_down(lab), lab.last_node());
    lab.step(format!("{node} keeps what it had for {gone}, as this flannel does"));
    let left = entries(lab, node).await?;
    let expected = "what was made for it before, until somebody removes it";
    ensure!(!left.is_empty(), WrongAnswer, "{node} to keep {expected}", "nothing");
    Ok(())
}

async fn remove_by_hand(lab: &Lab) -> anyhow::Result<()> {
    let (node, Ranges { leaving, .. }) = (was_down(lab), lab.kept()?);
    let remove = format!(
        "ip route delete {leaving}; ip link show flannel.1 >/dev/null 2>&1 || exit 0; \
         ip neighbour delete {} dev flannel.1; \
         bridge fdb show dev flannel.1 | grep -F 'dst {}' | while read mac _; do \
         bridge fdb delete $mac dev flannel.1; done",
        leaving.address,
        lab.last_node().address()
    );
    node.run(remove).await.map(drop)
}

/// The image of the flannel that was down: `REGISTRY/flannel:0.28.9`.
async fn flannel(lab: &Lab) -> anyhow::Result<String> {
    let pods = lab.pods().of_namespace("kube-flannel").on(was_down(lab)).await?;
    let containers = pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|it| &it.containers);
    let image = containers.filter_map(|it| it.image.clone()).next();
    image.ok_or_else(|| anyhow::anyhow!("{} has no Pod of flannel's", was_down(lab)))
}

/// Whether a flannel of this image is known to keep what became too much while it was down.
fn keeps_entries(image: &str) -> Option<bool> {
    let (_, version) = image.rsplit_once(':')?;
    let numbers = version.trim_start_matches('v').split(['.', '-']);
    let numbers: Result<Vec<u32>, _> = numbers.take(3).map(str::parse).collect();
    Some(<[u32; 3]>::try_from(numbers.ok()?).ok()? <= KEEPS_ENTRIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_flannel_does_is_known_by_its_image() {
        for (image, keeps) in [
            ("podwire.invalid/flannel:0.28.9", Some(true)),
            ("ghcr.io/flannel-io/flannel:v0.27.4", Some(true)),
            ("registry:5000/flannel:v0.28.10-rc1", Some(false)),
            ("flannel:1.0.0", Some(false)),
            ("registry:5000/flannel", None),
            ("flannel:latest", None),
        ] {
            assert_eq!(keeps_entries(image), keeps, "{image}");
        }
    }

    #[test]
    fn a_range_s_addresses_begin_alike() {
        assert_eq!(front("10.1.3.0/24".parse().unwrap()), "10.1.3.");
    }
}
