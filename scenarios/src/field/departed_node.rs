//! A Node that leaves while a network daemon is down.

use podwire_scenario::{
    Cause, Cells, Ipv4Net, Lab, Node, Probe, Profile, Sabotage, Scenario, StageName, ensure,
    ensure_none, secs, steps,
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
        Sabotage::new("has-not-left")
            .about("the Node is there")
            .inject(steps!(|lab| remember(lab).await))
            .caught_by(steps!(|lab| nothing_left_on(lab, lab.node(1)).await), Cause::Answered),
        Sabotage::new("flannel-stays-down")
            .about("flannel is not restarted")
            .inject(steps!(|lab| {
                remember(lab).await?;
                goes_down(lab).await
            }))
            .caught_by(steps!(catches_up), Cause::Absent),
        Sabotage::new("removed-by-hand")
            .about("somebody has removed the entries that flannel keeps")
            .inject(steps!(|lab| {
                remember(lab).await?;
                goes_down(lab).await?;
                remove_by_hand(lab).await
            }))
            .caught_by(steps!(keeps_what_is_too_much), Cause::WrongAnswer),
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
    let Ranges { leaving, .. } = lab.kept()?;
    node1.until_nothing_laid_for(lab.last_node(), leaving).await?;

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
    let (leaving, staying) = (lab.last_node(), lab.node(1));
    let (leaving, staying) = (leaving.range_of_pods().await?, staying.range_of_pods().await?);
    lab.keep(Ranges { leaving, staying });
    Ok(())
}

/// flannel of one node hears of nothing any more, and a route is lost that it had made.
async fn goes_down(lab: &Lab) -> anyhow::Result<()> {
    let (node, Ranges { staying, .. }) = (was_down(lab), lab.kept()?);
    node.halt("flanneld").await?;
    lab.step(format!("{node} loses the route to {}'s Pods", lab.node(1)));
    node.run(format!("ip route delete {staying}")).await.map(drop)
}

/// What there is on a node for the one that leaves.
async fn entries(lab: &Lab, on: Node<'_>) -> anyhow::Result<Vec<String>> {
    let Ranges { leaving, .. } = lab.kept()?;
    on.laid_for(lab.last_node(), leaving).await
}

async fn nothing_left_on(lab: &Lab, node: Node<'_>) -> anyhow::Result<()> {
    let left = entries(lab, node).await?;
    let gone = lab.last_node();
    ensure_none!(left, Answered, "nothing of {gone} on {node}");
    Ok(())
}

/// It begins with all Nodes that there are: when a lost route is back, it has been through them.
async fn catches_up(lab: &Lab) -> anyhow::Result<()> {
    let (node, Ranges { staying, .. }) = (was_down(lab), lab.kept()?);
    lab.step(format!("flannel of {node} catches up: the lost route is back"));
    lab.eventually(format!("a route to {staying} on {node}"), secs(30), async || {
        let routes = node.run(format!("ip -4 route show {staying}")).await?;
        let back = !routes.text().is_empty();
        Ok(Probe::when(back, Cause::Absent, "none").needs(node.needs_flannel()))
    })
    .await
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
}
