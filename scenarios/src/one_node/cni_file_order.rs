//! Which of two CNI files is the network.

use podwire_scenario::{
    Cause, Cells, Ipv4Net, Lab, Profile, Sabotage, Scenario, StageName, ensure, secs, steps,
};
use serde_json::json;

use crate::catalogue::B9;

/// B9: the first file in lexicographic order is the network.
pub(crate) const CNI_FILE_ORDER: Scenario = Scenario {
    about: "Of two CNI files with different subnets the one whose name sorts first gives Pods their \
            addresses; when the other one is renamed to sort first, it gives new Pods theirs",
    covers: &[B9],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(120),
    sabotages: &[
        Sabotage::new("other-sorts-first")
            .about("the other file's name sorts first from the start")
            .inject(steps!(|lab| write_both(lab, "05-b.conf").await))
            .caught_by(steps!(first_file_is_the_network), Cause::OutsideRange),
        Sabotage::new("not-renamed")
            .about("nobody renames the other file")
            .inject(steps!(|lab| write_both(lab, "20-b.conf").await))
            .caught_by(steps!(other_file_is_the_network), Cause::OutsideRange),
    ],
    ..Scenario::new("cni_file_order", StageName::Joined, steps!(order))
};

async fn order(lab: &Lab) -> anyhow::Result<()> {
    write_both(lab, "20-b.conf").await?;
    first_file_is_the_network(lab).await?;

    lab.step("rename 20-b.conf to 05-b.conf");
    let node = lab.last_node();
    node.run("mv /etc/cni/net.d/20-b.conf /etc/cni/net.d/05-b.conf").await?;
    node.until_cni_file_is_read().await?;
    other_file_is_the_network(lab).await
}

const OF_A: &str = "10.1.101.0/24";
const OF_B: &str = "10.1.102.0/24";

/// Each has a bridge of its own: the plugin gives none a second subnet's address.
async fn write_both(lab: &Lab, b: &str) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("write 10-a.conf with {OF_A} and {b} with {OF_B} on {node}"));
    for (file, name, subnet) in [("10-a.conf", "a", OF_A), (b, "b", OF_B)] {
        let text = json!({
            "cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": format!("cni-{name}"),
            "isDefaultGateway": true, "ipam": { "type": "host-local", "subnet": subnet },
        });
        node.write(&format!("/etc/cni/net.d/{file}"), text.to_string()).await?;
    }
    node.until_cni_file_is_read().await?;
    node.ready_within(secs(20)).await
}

async fn first_file_is_the_network(lab: &Lab) -> anyhow::Result<()> {
    new_pod_is_of(lab, "first", OF_A).await
}

async fn other_file_is_the_network(lab: &Lab) -> anyhow::Result<()> {
    new_pod_is_of(lab, "second", OF_B).await
}

async fn new_pod_is_of(lab: &Lab, name: &str, range: &str) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("a new Pod on {node} has an address of {range} (B9)"));
    let pod = lab.run_pod(name, node).await?;
    let range: Ipv4Net = range.parse()?;
    ensure!(range.contains(pod.address), OutsideRange, "an address of {range}", "{pod}");
    Ok(())
}
