//! What several chapters do to a cluster, in words of the documents.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use podwire_cluster::{WORKLOAD_SERVICE, addresses};
use podwire_probe::{FetchRequest, Outcome};
use podwire_scenario::assert::{Mesh, Party};
use podwire_scenario::{Cause, Evidence, Failure, Lab, Probe, assert, eventually_unless};
use serde_json::json;

use crate::prospects;

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
pub(crate) async fn all_nodes_ready(lab: &Lab) -> anyhow::Result<()> {
    all_nodes_ready_unless(lab, async || Ok(None)).await
}

/// The same; `prospects` finds a reason beside a stopped kubelet why waiting longer is useless.
pub(crate) async fn all_nodes_ready_unless(
    lab: &Lab,
    prospects: impl AsyncFn() -> anyhow::Result<Option<Evidence>>,
) -> anyhow::Result<()> {
    let expected = format!("{} Ready Nodes with their machines' addresses", lab.nodes());
    nodes_ready(lab, 1..=lab.nodes(), &expected, NODE_READY, prospects).await
}

/// One Node is listed, Ready within the limit, and has its machine's address, as
/// [`all_nodes_ready_unless`].
pub(crate) async fn node_ready(
    lab: &Lab,
    number: u32,
    limit: Duration,
    prospects: impl AsyncFn() -> anyhow::Result<Option<Evidence>>,
) -> anyhow::Result<()> {
    let expected = format!("{} Ready", addresses::node_name(number));
    nodes_ready(lab, number..=number, &expected, limit, prospects).await
}

async fn nodes_ready(
    lab: &Lab,
    numbers: RangeInclusive<u32>,
    expected: &str,
    limit: Duration,
    prospects: impl AsyncFn() -> anyhow::Result<Option<Evidence>>,
) -> anyhow::Result<()> {
    let waited_for = Cell::new(*numbers.start());
    let stopped = async || match prospects::kubelet(lab, waited_for.get()).await? {
        Some(found) => Ok(Some(found)),
        None => prospects().await,
    };
    eventually_unless(expected, lab.limit(limit), stopped, async || {
        let listed = nodes(lab).list(&ListParams::default()).await?.items;
        let mut lacking = numbers
            .clone()
            .filter_map(|number| Some((number, lacking(&listed, number)?)));
        Ok(match lacking.next() {
            None => Probe::Done(()),
            Some((number, (cause, state))) => {
                waited_for.set(number);
                let name = addresses::node_name(number);
                Probe::not_yet(cause, state)
                    .look(format!("`journalctl -u kubelet` of {name}, and its Node"))
            }
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
    let limit = lab.limit(Duration::from_secs(60));
    let stuck = async || prospects::workload(lab, wanted).await;
    eventually_unless(&expected, limit, stuck, async || {
        let pods = lab.pods().await?;
        let state = match lacking(&pods) {
            Some(state) => state,
            None if pods.len() == wanted => return Ok(Probe::Done(())),
            None => format!("{} run", pods.len()),
        };
        Ok(Probe::not_yet(Cause::NotReady, state).look("the Pods and events of the evidence"))
    })
    .await
}

/// Every Pod's address is its own, and from its node's range.
pub(crate) async fn addresses_unique_and_in_range(lab: &Lab) -> anyhow::Result<()> {
    let pods = lab.pods().await?;
    let Some(ranges) = lab.cluster().pod_ranges().await? else {
        return Ok(assert::addresses_unique(&pods)?);
    };
    for pod in &pods {
        anyhow::ensure!(
            ranges.contains_key(&pod.node),
            "{pod} runs, and its node has no range for Pods"
        );
    }
    assert::addresses_unique_and_in_range(&pods, |node| ranges[&node])?;
    Ok(())
}

/// The Services' API.
pub(crate) fn services(lab: &Lab) -> Api<Service> {
    Api::default_namespaced(lab.cluster().api())
}

/// Gives every client of the workload's Service one Pod.
pub(crate) async fn set_session_affinity(lab: &Lab) -> anyhow::Result<()> {
    lab.step("set the Service's session affinity to ClientIP");
    let affinity = Patch::Merge(json!({ "spec": { "sessionAffinity": "ClientIP" } }));
    let services = services(lab);
    services
        .patch(WORKLOAD_SERVICE, &PatchParams::default(), &affinity)
        .await?;
    Ok(())
}

/// Hides node 2's Pods from other nodes, as the bridge plugin's ipMasq=true does.
pub(crate) async fn masquerade_between_nodes(lab: &Lab) -> anyhow::Result<()> {
    lab.step("masquerade what leaves node 2's Pods");
    let own = lab.pod_addresses(2).await?;
    on(
        lab,
        2,
        &format!(
            "nft 'add table ip sabotage; \
             add chain ip sabotage post {{ type nat hook postrouting priority 100; }}; \
             add rule ip sabotage post ip saddr {own} ip daddr != {own} masquerade'"
        ),
    )
    .await?;
    Ok(())
}

/// The workload's ClusterIP.
pub(crate) async fn service_address(lab: &Lab) -> anyhow::Result<Ipv4Addr> {
    let service = services(lab).get(WORKLOAD_SERVICE).await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip);
    Ok(address
        .context("the workload's Service has no ClusterIP")?
        .parse()?)
}

/// The addresses that the workload's EndpointSlices call ready.
pub(crate) async fn ready_endpoints(lab: &Lab) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(lab.cluster().api());
    let of_service = format!("kubernetes.io/service-name={WORKLOAD_SERVICE}");
    let slices = slices
        .list(&ListParams::default().labels(&of_service))
        .await?;
    let endpoints = slices
        .items
        .into_iter()
        .flat_map(|slice| slice.endpoints.unwrap_or_default());
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.is_some_and(|conditions| conditions.ready == Some(true))
    });
    Ok(ready
        .flat_map(|endpoint| endpoint.addresses)
        .filter_map(|address| address.parse().ok())
        .collect())
}

/// The kernel remembers a connection attempt from before the rules, untranslated, for two minutes.
/// A new request that happens to get the same source port counts as its repetition: it is not
/// translated either, and kube-proxy's rules reject it (`cluster-ips-check` of its nftables mode).
pub(crate) async fn forget_early_attempts(
    lab: &Lab,
    node: u32,
    address: Ipv4Addr,
) -> anyhow::Result<()> {
    // It exits with 1 when there is nothing to forget.
    on(
        lab,
        node,
        &format!("conntrack -D -p tcp -d {address} || true"),
    )
    .await?;
    Ok(())
}

/// Requests to a ClusterIP for each Pod behind it, among which each is almost certainly seen: one of
/// six is missed in one of a thousand looks, and in all four that end a wait once in 10^12.
const PER_POD: usize = 8;

/// kube-proxy follows the EndpointSlice with a delay of its own: the measurement starts when every
/// Pod has been seen once.
pub(crate) async fn everybody_seen(lab: &Lab, from: &Party, pods: usize) -> anyhow::Result<()> {
    let address = service_address(lab).await?;
    let expected = format!("all {pods} Pods behind the ClusterIP, seen from {from}");
    // All at once, and no second round for a Service that is dead.
    let requests = u32::try_from(pods * PER_POD)?;
    let request = FetchRequest::new([format!("{address}:80")])
        .count(requests)
        .concurrency(EARLY_TIME_OUTS)
        .give_up_after(EARLY_TIME_OUTS);
    let follows = async || {
        let running: Vec<Ipv4Addr> = lab.pods().await?.iter().map(|pod| pod.address).collect();
        if running.len() < pods {
            return prospects::workload(lab, pods).await;
        }
        prospects::kube_proxy(lab, from.node, address, &running).await
    };
    let limit = lab.limit(Duration::from_secs(30));
    let seen = eventually_unless(&expected, limit, follows, async || {
        let running = lab.pods().await?;
        if running.len() < pods {
            let state = format!("{} of {pods} Pods run", running.len());
            return Ok(Probe::not_yet(Cause::NotReady, state));
        }
        // One of two Pods with the same address stays silent for ever.
        if let Err(shared) = assert::addresses_unique(&running) {
            return Ok(Probe::hopeless(shared.cause, shared.seen).look(shared.look));
        }
        let report = lab.fetch(from, &request).await?;
        let report = report.targets.into_iter().next();
        let report = report.with_context(|| format!("no report for {address} from {from}"))?;
        let hosts = report.hosts();
        let silent: Vec<String> = running
            .iter()
            .filter(|pod| !hosts.contains_key(pod.name.as_str()))
            .map(ToString::to_string)
            .collect();
        if silent.is_empty() {
            return Ok(Probe::Done(()));
        }
        let failed = report
            .results
            .iter()
            .find(|result| result.outcome != Outcome::Answered);
        let (cause, others) = match failed {
            Some(result) => (
                result.outcome.into(),
                format!("; other requests: {}", result.outcome),
            ),
            None => (Cause::Unbalanced, String::new()),
        };
        let state = format!("no answer from {}{others}", silent.join(", "));
        Ok(Probe::not_yet(cause, state))
    })
    .await;
    match seen {
        Ok(()) => Ok(()),
        Err(error) => Err(asked_directly(lab, from, error).await),
    }
}

/// Time-outs after which one look at a ClusterIP has seen enough.
const EARLY_TIME_OUTS: u32 = 16;

/// Says of a Service's failure whether the Pods answer at their own addresses: it, or the way.
async fn asked_directly(lab: &Lab, from: &Party, error: anyhow::Error) -> anyhow::Error {
    let failure = match error.downcast::<Failure>() {
        Ok(failure) => failure,
        Err(error) => return error,
    };
    let told = async {
        let pods = lab.pods().await?;
        let mesh = lab.mesh(std::slice::from_ref(from), &pods).await?;
        let cells = mesh.cells.iter().map(|cell| format!("\n  {cell}"));
        Ok::<_, anyhow::Error>(cells.collect::<String>())
    };
    match told.await {
        Ok(cells) => Failure {
            seen: format!("{}\nAsked at their own addresses:{cells}", failure.seen),
            ..failure
        }
        .into(),
        // What was seen is worth more than that no more could be.
        Err(_) => failure.into(),
    }
}

/// The balancing rule: requests to the workload's ClusterIP spread evenly over its Pods.
pub(crate) async fn cluster_ip_spreads(lab: &Lab, from: &Party) -> anyhow::Result<()> {
    let backends: Vec<String> = lab.pods().await?.into_iter().map(|pod| pod.name).collect();
    let requests = assert::requests_for(backends.len());
    let address = service_address(lab).await?;
    let report = lab.fetch_one(from, address, requests).await?;
    assert::balanced(&report, &backends)?;
    Ok(())
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
