//! What several chapters do to a cluster, in words of the documents.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use podwire_cluster::addresses;
use podwire_scenario::assert::{Mesh, Party};
use podwire_scenario::{Cause, Lab, Probe, eventually};

/// Limit of one ordinary command on a node.
pub(crate) const COMMAND: Duration = Duration::from_secs(10);

/// How long a kubelet may take from its start to a Ready Node.
const NODE_READY: Duration = Duration::from_secs(20);

/// Runs a command on a node; a status other than 0 is an error.
pub(crate) async fn on(lab: &Lab, node: u32, command: &str) -> anyhow::Result<String> {
    let node = lab.cluster().node(node);
    node.run_ok(command, lab.limit(COMMAND))
        .await
        .with_context(|| format!("on {}", node.name()))
}

/// The Nodes' API.
pub(crate) fn nodes(lab: &Lab) -> Api<Node> {
    Api::all(lab.cluster().api())
}

/// One request from every node, and from one Pod of each, to every Pod.
pub(crate) async fn mesh_of_everybody(lab: &Lab) -> anyhow::Result<Mesh> {
    let mut senders = lab.node_parties();
    senders.extend(lab.one_pod_per_node().await?);
    lab.mesh(&senders, &lab.pods().await?).await
}

/// Takes a node off the cluster: its kubelet stops and its Node object goes.
pub(crate) async fn take_off(lab: &Lab, number: u32) -> anyhow::Result<()> {
    let name = addresses::node_name(number);
    lab.step(format!("stop the kubelet of {name} and delete its Node"));
    on(lab, number, "systemctl stop kubelet").await?;
    nodes(lab).delete(&name, &DeleteParams::default()).await?;
    let listed = nodes(lab).get_opt(&name).await?;
    anyhow::ensure!(
        listed.is_none(),
        "{name} is still listed after its deletion"
    );
    Ok(())
}

/// Every Node is listed, Ready, and has its machine's address as internal address: the next hops of
/// the routes to come.
///
/// `excuse` looks for a reason why waiting longer is useless.
pub(crate) async fn all_nodes_ready(
    lab: &Lab,
    excuse: impl AsyncFn() -> anyhow::Result<Option<(Cause, String)>>,
) -> anyhow::Result<()> {
    let expected = format!("{} Ready Nodes with their machines' addresses", lab.nodes());
    nodes_ready(lab, 1..=lab.nodes(), &expected, NODE_READY, excuse).await
}

/// One Node is listed, Ready within the limit, and has its machine's address.
pub(crate) async fn node_ready(
    lab: &Lab,
    number: u32,
    limit: Duration,
    excuse: impl AsyncFn() -> anyhow::Result<Option<(Cause, String)>>,
) -> anyhow::Result<()> {
    let expected = format!("{} Ready", addresses::node_name(number));
    nodes_ready(lab, number..=number, &expected, limit, excuse).await
}

async fn nodes_ready(
    lab: &Lab,
    numbers: RangeInclusive<u32>,
    expected: &str,
    limit: Duration,
    excuse: impl AsyncFn() -> anyhow::Result<Option<(Cause, String)>>,
) -> anyhow::Result<()> {
    eventually(expected, lab.limit(limit), async || {
        let listed = nodes(lab).list(&ListParams::default()).await?.items;
        let Some((cause, state)) = numbers.clone().find_map(|number| lacking(&listed, number))
        else {
            return Ok(Probe::Done(()));
        };
        Ok(match excuse().await? {
            Some((cause, reason)) => Probe::Hopeless(cause, format!("{state}: {reason}")),
            None => Probe::NotYet(cause, state),
        })
    })
    .await
}

fn lacking(listed: &[Node], number: u32) -> Option<(Cause, String)> {
    let name = addresses::node_name(number);
    let Some(node) = listed
        .iter()
        .find(|node| node.metadata.name.as_ref() == Some(&name))
    else {
        return Some((Cause::Absent, format!("no Node {name}")));
    };
    let status = node.status.clone().unwrap_or_default();
    let ready = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .find(|c| c.type_ == "Ready");
    match ready {
        Some(ready) if ready.status == "True" => {}
        Some(ready) => {
            let why = ready.message.unwrap_or_default();
            return Some((Cause::NotReady, format!("{name} is not Ready: {why}")));
        }
        None => return Some((Cause::NotReady, format!("{name} has no Ready condition"))),
    }
    let wanted = addresses::node_address(number).to_string();
    let internal: Vec<String> = status
        .addresses
        .unwrap_or_default()
        .into_iter()
        .filter(|address| address.type_ == "InternalIP")
        .map(|address| address.address)
        .collect();
    (internal != [wanted.clone()]).then(|| {
        (
            Cause::WrongAnswer,
            format!("{name} has internal addresses {internal:?}, its machine {wanted}"),
        )
    })
}

/// As many Pods of the workload run as wanted, and nothing else is lacking.
pub(crate) async fn pods_running(
    lab: &Lab,
    wanted: usize,
    lacking: impl Fn(&[Party]) -> Option<String>,
) -> anyhow::Result<()> {
    let expected = format!("{wanted} running Pods");
    eventually(&expected, lab.limit(Duration::from_secs(60)), async || {
        let pods = lab.pods().await?;
        let state = match lacking(&pods) {
            Some(state) => state,
            None if pods.len() == wanted => return Ok(Probe::Done(())),
            None => format!("{} run", pods.len()),
        };
        Ok(Probe::NotYet(Cause::NotReady, state))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str, address: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "node2" },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready, "message": "cni not initialised" }],
                "addresses": [
                    { "type": "InternalIP", "address": address },
                    { "type": "Hostname", "address": "node2" }
                ]
            }
        }))
        .unwrap()
    }

    #[test]
    fn what_a_node_lacks_is_named() {
        let own = addresses::node_address(2).to_string();
        assert_eq!(lacking(&[node("True", &own)], 2), None);
        let cause = |nodes: &[Node]| lacking(nodes, 2).map(|(cause, _)| cause);
        assert_eq!(cause(&[]), Some(Cause::Absent));
        assert_eq!(cause(&[node("False", &own)]), Some(Cause::NotReady));
        assert_eq!(cause(&[node("True", "10.1.2.1")]), Some(Cause::WrongAnswer));
    }
}
