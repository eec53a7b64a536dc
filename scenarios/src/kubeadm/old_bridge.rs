//! A node comes back to its old bridge.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use podwire_scenario::{
    Cause, Cells, Ipv4Net, Lab, Needs, Node, PodNetwork, Probe, Profile, READY_AFTER_JOIN,
    Sabotage, Scenario, StageName, secs, steps,
};

use crate::catalogue::E34;

/// E34!: why the administrator is asked to clean up.
pub(crate) const OLD_BRIDGE: Scenario = Scenario {
    about: "A node that comes back with another Pod range and its old bridge gets no Pod to run: \
            the bridge's address is another; without the bridge the Pod runs",
    covers: &[E34],
    cells: Cells::KubeadmWithBridge,
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("same-range")
            .about("the node keeps its range")
            .inject(steps!(replace_pods))
            .caught_by(steps!(sandbox_fails), Cause::Answered),
        Sabotage::new("bridge-stays")
            .about("the bridge with the old address is not deleted")
            .inject(steps!(|lab| {
                change_the_range(lab.last_node()).await?;
                replace_pods(lab).await
            }))
            .caught_by(steps!(|lab| pods_run_in(lab, ANOTHER).await), Cause::NotReady),
    ],
    ..Scenario::new("rejoin_with_the_old_bridge", StageName::Workload, steps!(old_bridge))
};

/// A range that no node has.
const ANOTHER: Ipv4Net = Ipv4Net { address: Ipv4Addr::new(10, 1, 102, 0), prefix: 24 };

async fn old_bridge(lab: &Lab) -> anyhow::Result<()> {
    let (node, kubeadm) = (lab.last_node(), lab.kubeadm(lab.node_count()));
    let old = range_of(node).await?;
    let command = lab.join_command().await?;
    node.drain().await?;
    node.delete().await?;
    kubeadm.reset().await?;
    if lab.pod_network() == PodNetwork::Routes {
        lab.step(format!("give {node} the range {ANOTHER} in its CNI file"));
        node.write_cni_file(ANOTHER).await?;
    }
    kubeadm.join(&command).await?;
    lab.step(format!("{node} is Ready again"));
    node.ready_within(READY_AFTER_JOIN).await?;
    // A network that writes its own file does so some time after the Node is Ready with the old one.
    let expected = format!("{node} to have another range than {old}");
    let new = lab.eventually(expected, secs(60), async || {
        let new = range_of(node).await?;
        let another = Some(new).filter(|new| *new != old);
        Ok(Probe::of(another, Cause::NotReady, format!("it has {new}"))
            .needs(Needs::Kubelet(node.number())))
    });
    let new = new.await?;

    lab.step("scale up: new Pods go to the empty node");
    let pods = lab.pods().running().await?.len() + 2;
    lab.deployment("blue").scale(pods).await?;
    sandbox_fails(lab).await?;
    lab.step("delete the old bridge");
    node.run("ip link delete cni0").await?;
    pods_run_in(lab, new).await
}

/// The range in the node's CNI file: what the plugin goes by, whoever wrote it.
async fn range_of(node: Node<'_>) -> anyhow::Result<Ipv4Net> {
    let files = node.run("cat /etc/cni/net.d/*").await?.stdout;
    subnet_in(&files).with_context(|| format!("no subnet in the CNI files of {node}: {files}"))
}

fn subnet_in(file: &str) -> Option<Ipv4Net> {
    let (_, rest) = file.split_once("\"subnet\"")?;
    rest.split('"').nth(1)?.parse().ok()
}

async fn change_the_range(node: Node<'_>) -> anyhow::Result<()> {
    let old = range_of(node).await?;
    let change = format!("sed -i 's|{old}|{ANOTHER}|' /etc/cni/net.d/*");
    node.run(change).await?;
    Ok(())
}

/// Deletes the workload's Pods of the node; the Deployment makes others, which find their place on
/// it again.
async fn replace_pods(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("replace the Pods of {node}"));
    lab.pods().on(node).delete_all().await
}

async fn sandbox_fails(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step("a new Pod gets no sandbox: the bridge has another address (E34)");
    let expected = format!("an event: \"cni0\" {COMPLAINT} ...");
    lab.eventually(expected, secs(60), async || {
        if complaint(lab).await?.is_some() {
            return Ok(Probe::Done(()));
        }
        let running = lab.pods().on(node).running().await?;
        Ok(match running.first() {
            Some(pod) => Probe::hopeless(Cause::Answered, format!("{pod} runs")),
            None => {
                Probe::not_yet(Cause::Absent, "no such event").needs(Needs::Kubelet(node.number()))
            }
        })
    })
    .await
}

const COMPLAINT: &str = "already has an IP address different from";

/// An event about a sandbox that failed for the bridge's address.
async fn complaint(lab: &Lab) -> anyhow::Result<Option<String>> {
    let failed = lab.events("FailedCreatePodSandBox").await?;
    Ok(failed.into_iter().find(|it| it.contains(COMPLAINT)))
}

async fn pods_run_in(lab: &Lab, range: Ipv4Net) -> anyhow::Result<()> {
    let node = lab.last_node();
    let expected = format!("Pods of {node} to run with addresses of {range}");
    lab.step(&expected);
    lab.eventually(expected, secs(90), async || {
        let pods = lab.pods().on(node).running().await?;
        if pods.iter().any(|pod| range.contains(pod.address)) {
            return Ok(Probe::Done(()));
        }
        let bridge = bridge_address(node).await?;
        let old = bridge.is_some_and(|it| !range.contains(it));
        Ok(match complaint(lab).await? {
            // Without the old bridge the kubelet's next attempt succeeds; with it, none does.
            Some(message) if old => Probe::hopeless(Cause::NotReady, message),
            _ => Probe::not_yet(Cause::NotReady, "none yet").needs(Needs::Kubelet(node.number())),
        })
    })
    .await
}

async fn bridge_address(node: Node<'_>) -> anyhow::Result<Option<Ipv4Addr>> {
    let show = node.run("ip -4 -o address show cni0").may_fail();
    let shown = show.await?.stdout;
    let mut words = shown.split_whitespace().skip_while(|it| *it != "inet");
    let address = words.nth(1).and_then(|it| it.split_once('/'));
    Ok(address.and_then(|(address, _)| address.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_found_in_either_kind_of_cni_file() {
        let range = Some("10.1.2.0/24".parse().unwrap());
        let by_hand = podwire_cluster::cni::bridge("10.1.2.0/24".parse().unwrap());
        assert_eq!(subnet_in(&by_hand), range);
        let list =
            r#"{"name":"cbr0","plugins":[{"type":"bridge","ipam":{"subnet":"10.1.2.0/24"}}]}"#;
        assert_eq!(subnet_in(list), range);
        assert_eq!(subnet_in("{}"), None);
    }
}
