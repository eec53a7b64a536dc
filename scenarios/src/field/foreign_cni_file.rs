//! Another CNI file than the network's own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use podwire_scenario::{
    Cause, Cells, Ipv4Net, Lab, Node, Party, Profile, Sabotage, Scenario, StageName, ensure,
    listed, secs, steps,
};
use serde_json::json;

use crate::catalogue::F18;

/// F18: the file whose name sorts first is the network.
pub(crate) const FOREIGN_CNI_FILE: Scenario = Scenario {
    about: "With a CNI file on two nodes that sorts before the network's own, as packages bring one, \
            their new Pods get addresses of nobody's range, twice the same; without it new Pods are in \
            order again",
    covers: &[F18],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("sorts-last")
            .about("the foreign file sorts behind the network's own")
            .inject(steps!(|lab| new_pods_with(lab, "zz-foreign.conflist").await))
            .caught_by(steps!(new_pods_are_foreign), Cause::WrongAnswer),
        Sabotage::new("file-left")
            .about("the foreign file is not removed")
            .inject(steps!(|lab| new_pods_with(lab, "00-foreign.conflist").await))
            .caught_by(steps!(Lab::pod_addresses_unique_and_in_range), Cause::NotUnique),
    ],
    ..Scenario::new("foreign_cni_file", StageName::Workload, steps!(foreign))
};

async fn foreign(lab: &Lab) -> anyhow::Result<()> {
    new_pods_with(lab, "00-foreign.conflist").await?;
    new_pods_are_foreign(lab).await?;
    lab.step("remove the file; new Pods take the place of all");
    for node in both(lab) {
        node.run("rm /etc/cni/net.d/00-foreign.conflist").await?;
    }
    lab.deployment("blue").roll_out().await?;
    lab.pod_addresses_unique_and_in_range().await
}

/// A range that no cluster of these tests has.
const FOREIGN: &str = "10.85.0.0/16";

/// The two nodes with the foreign file, both of which take Pods in every cell.
fn both(lab: &Lab) -> [Node<'_>; 2] {
    [lab.node(lab.node_count() - 1), lab.last_node()]
}

async fn new_pods_with(lab: &Lab, name: &str) -> anyhow::Result<()> {
    lab.step(format!("{name} on two nodes; new Pods take the place of theirs"));
    let wanted = lab.deployment("blue").replicas().await?;
    let file = json!({
        "cniVersion": "1.0.0", "name": "foreign",
        "plugins": [{
            "type": "bridge", "bridge": "foreign0", "isDefaultGateway": true,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": FOREIGN }]] },
        }],
    });
    let (path, text) = (format!("/etc/cni/net.d/{name}"), file.to_string());
    for node in both(lab) {
        node.write(&path, &text).await?;
    }
    for node in both(lab) {
        node.until_cni_file_is_read().await?;
        lab.pods().on(node).delete_all().await?;
    }
    lab.pods().until_running(wanted).await.map(drop)
}

async fn new_pods_are_foreign(lab: &Lab) -> anyhow::Result<()> {
    lab.step("their addresses are of nobody's range, and twice the same");
    let range: Ipv4Net = FOREIGN.parse()?;
    let mut owners = BTreeMap::<Ipv4Addr, Vec<Party>>::new();
    for node in both(lab) {
        for pod in lab.pods().on(node).running().await? {
            ensure!(range.contains(pod.address), WrongAnswer, "an address of {FOREIGN}", "{pod}");
            owners.entry(pod.address).or_default().push(pod);
        }
    }
    let shared = owners.values().any(|pods| pods.len() > 1);
    let all = listed(owners.values().flatten());
    ensure!(shared, NotReady, "two Pods with one address", "{all}");
    Ok(())
}
