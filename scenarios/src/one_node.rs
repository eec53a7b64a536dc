//! Chapter B, on the workload's nodes: ClusterIPs, and the way outside.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use podwire_cluster::{Break, StageName, WORKLOAD_SERVICE, addresses};
use podwire_lan::ContactProtocol;
use podwire_probe::{FetchRequest, Outcome};
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Profile, Sabotage, Scenario, assert, eventually,
};
use serde_json::json;

use crate::steps::on;

/// B12!, B13, B14: a ClusterIP is kube-proxy's work.
pub(crate) const CLUSTER_IP: Scenario = Scenario {
    name: "cluster_ip",
    about: "A ClusterIP is dead while kube-proxy has never run, answers once it runs, spreads \
            requests evenly over the Pods, and lives on until kube-proxy's rules are cleaned up",
    covers: &["B12", "B13", "B14"],
    stage: StageName::WorkloadBare,
    cells: Cells::ByHand,
    profile: Profile::Default,
    nodes: 1,
    limit: Duration::from_secs(180),
    prepare: None,
    run: |lab| Box::pin(cluster_ip(lab)),
    sabotages: &[
        Sabotage {
            name: "kube-proxy-runs-already",
            about: "kube-proxy runs before the first look",
            expects: Cause::Answered,
            run: |lab| {
                Box::pin(async {
                    lab.add_all_routes().await?;
                    lab.start_kube_proxy().await?;
                    answers(lab).await?;
                    dead_without_kube_proxy(lab).await
                })
            },
        },
        Sabotage {
            name: "kube-proxy-not-started",
            about: "kube-proxy is not started",
            expects: Cause::TimedOut,
            run: |lab| {
                Box::pin(async {
                    lab.add_all_routes().await?;
                    answers(lab).await
                })
            },
        },
        Sabotage {
            name: "session-affinity",
            about: "the Service sends each client to one Pod",
            expects: Cause::Unbalanced,
            run: |lab| {
                Box::pin(async {
                    lab.add_all_routes().await?;
                    lab.step("set the Service's session affinity to ClientIP");
                    let affinity = json!({ "spec": { "sessionAffinity": "ClientIP" } });
                    services(lab)
                        .patch(
                            WORKLOAD_SERVICE,
                            &PatchParams::default(),
                            &Patch::Merge(affinity),
                        )
                        .await?;
                    lab.start_kube_proxy().await?;
                    answers(lab).await?;
                    spreads(lab).await
                })
            },
        },
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
};

async fn cluster_ip(lab: &Lab) -> anyhow::Result<()> {
    lab.add_all_routes().await?;
    dead_without_kube_proxy(lab).await?;
    lab.start_kube_proxy().await?;
    answers(lab).await?;
    let pods = lab.pods().await?.len() + 1;
    lab.step(format!("scale up to {pods} Pods (B14)"));
    lab.cluster().scale_workload(u32::try_from(pods)?).await?;
    everybody_seen(lab, pods).await?;
    spreads(lab).await?;
    outlives_kube_proxy(lab).await
}

/// The rules are the kernel's: they outlive the daemon that wrote them, until it cleans up.
async fn outlives_kube_proxy(lab: &Lab) -> anyhow::Result<()> {
    let address = service_address(lab).await?;
    let nodes = lab.node_parties();
    lab.step("stop kube-proxy on node 1: its rules stay (B12)");
    on(lab, 1, "systemctl stop kube-proxy").await?;
    let report = lab.fetch_one(&nodes[0], address, 5).await?;
    let expected = "the ClusterIP to answer from node 1 although kube-proxy stopped";
    assert::all_ended(expected, &report, Outcome::Answered)?;

    lab.step("clean its rules up: the ClusterIP is dead on node 1, and on no other node");
    let cleanup = format!("kube-proxy --cleanup --hostname-override={}", nodes[0].name);
    on(lab, 1, &cleanup).await?;
    let report = lab.fetch_one(&nodes[0], address, 1).await?;
    let expected = "the ClusterIP to time out on node 1, whose rules are gone";
    assert::all_ended(expected, &report, Outcome::TimedOut)?;
    for node in nodes.iter().skip(1) {
        let report = lab.fetch_one(node, address, 1).await?;
        let expected = format!("the ClusterIP to answer from {}", node.name);
        assert::all_ended(&expected, &report, Outcome::Answered)?;
    }
    Ok(())
}

async fn dead_without_kube_proxy(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask the ClusterIP from node 1, and a Pod beside it (B12)");
    let endpoints = ready_endpoints(lab).await?;
    if endpoints == 0 {
        let expected = "an EndpointSlice with the Pods' addresses";
        return Err(Failure::new(Cause::Absent, expected, "it is empty").into());
    }
    let address = service_address(lab).await?;
    let pod = lab.pod_on(1).await?;
    let request = FetchRequest::new([format!("{address}:80"), format!("{}:80", pod.address)]);
    let node1 = lab.node_parties().swap_remove(0);
    let dropped = |lab: &Lab| {
        let flows = lab.cluster().segment().gateway().dropped();
        flows
            .iter()
            .filter(|flow| flow.destination == address)
            .map(|flow| flow.packets)
            .sum::<u64>()
    };
    let before = dropped(lab);
    let report = lab.fetch(&node1, &request).await?;
    let [service, beside] = report.targets.as_slice() else {
        anyhow::bail!("two targets asked, {} reported", report.targets.len());
    };
    assert::all_ended("the Pod's own address to answer", beside, Outcome::Answered)?;
    assert::all_ended(
        "the ClusterIP to time out, not to be refused",
        service,
        Outcome::TimedOut,
    )?;
    if dropped(lab) == before {
        let expected = "the connection requests to leave by the default route, to the gateway";
        return Err(Failure::new(Cause::Absent, expected, "the gateway saw none").into());
    }
    Ok(())
}

async fn answers(lab: &Lab) -> anyhow::Result<()> {
    let address = service_address(lab).await?;
    let node1 = lab.node_parties().swap_remove(0);
    lab.step("ask the ClusterIP until it answers (B13)");
    eventually(
        "the ClusterIP to answer from node 1",
        lab.limit(Duration::from_secs(15)),
        async || {
            let report = lab.fetch_one(&node1, address, 1).await?;
            if report.all(Outcome::Answered) {
                return Ok(Probe::Done(()));
            }
            let state = report.to_string();
            let cause = report
                .results
                .first()
                .map_or(Cause::Absent, |result| result.outcome.into());
            let unit = on(lab, 1, "systemctl is-active kube-proxy || true").await?;
            Ok(if unit.trim() == "inactive" {
                Probe::Hopeless(cause, format!("{state}, and kube-proxy does not run"))
            } else {
                Probe::NotYet(cause, state)
            })
        },
    )
    .await?;
    forget_early_attempts(lab, address).await
}

/// The kernel remembers a connection attempt from before the rules, untranslated, for two minutes.
/// A new request that happens to get the same source port counts as its repetition: it is not
/// translated either, and kube-proxy's rules reject it (`cluster-ips-check` of its nftables mode).
async fn forget_early_attempts(lab: &Lab, address: Ipv4Addr) -> anyhow::Result<()> {
    // It exits with 1 when there is nothing to forget.
    on(lab, 1, &format!("conntrack -D -p tcp -d {address} || true")).await?;
    Ok(())
}

/// kube-proxy follows the EndpointSlice with a delay of its own: the measurement starts when every
/// Pod has been seen once.
async fn everybody_seen(lab: &Lab, pods: usize) -> anyhow::Result<()> {
    let address = service_address(lab).await?;
    let node1 = lab.node_parties().swap_remove(0);
    let expected = format!("all {pods} Pods behind the ClusterIP");
    eventually(&expected, lab.limit(Duration::from_secs(30)), async || {
        let running = lab.pods().await?;
        if running.len() < pods {
            let state = format!("{} of {pods} Pods run", running.len());
            return Ok(Probe::NotYet(Cause::NotReady, state));
        }
        // One of two Pods with the same address stays silent for ever.
        if let Err(shared) = assert::addresses_unique(&running) {
            return Ok(Probe::Hopeless(shared.cause, shared.seen));
        }
        let report = lab
            .fetch_one(&node1, address, u32::try_from(pods * 8)?)
            .await?;
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
        Ok(Probe::NotYet(cause, state))
    })
    .await
}

async fn spreads(lab: &Lab) -> anyhow::Result<()> {
    let backends: Vec<String> = lab.pods().await?.into_iter().map(|pod| pod.name).collect();
    let requests = assert::requests_for(backends.len());
    lab.step(format!(
        "send {requests} requests, each on a fresh connection (B14)"
    ));
    let node1 = lab.node_parties().swap_remove(0);
    let report = lab
        .fetch_one(&node1, service_address(lab).await?, requests)
        .await?;
    assert::balanced(&report, &backends)?;
    Ok(())
}

fn services(lab: &Lab) -> Api<Service> {
    Api::default_namespaced(lab.cluster().api())
}

async fn service_address(lab: &Lab) -> anyhow::Result<Ipv4Addr> {
    let service = services(lab).get(WORKLOAD_SERVICE).await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip);
    Ok(address
        .context("the workload's Service has no ClusterIP")?
        .parse()?)
}

async fn ready_endpoints(lab: &Lab) -> anyhow::Result<usize> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(lab.cluster().api());
    let of_service = format!("kubernetes.io/service-name={WORKLOAD_SERVICE}");
    let slices = slices
        .list(&ListParams::default().labels(&of_service))
        .await?;
    let endpoints = slices
        .items
        .into_iter()
        .flat_map(|slice| slice.endpoints.unwrap_or_default());
    Ok(endpoints
        .filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .is_some_and(|c| c.ready == Some(true))
        })
        .count())
}

/// B11: a Pod reaches the outside, which sees its node.
pub(crate) const OUTSIDE_HOST: Scenario = Scenario {
    name: "outside_host",
    about: "A Pod reaches a host outside the cluster, which sees the node's address; without the \
            masquerade rule it sees the Pod's",
    covers: &["B11"],
    stage: StageName::WorkloadBare,
    cells: Cells::ByHand,
    profile: Profile::Default,
    nodes: 1,
    limit: Duration::from_secs(60),
    prepare: None,
    run: |lab| Box::pin(outside_host(lab)),
    sabotages: &[Sabotage {
        name: "no-masquerade",
        about: "the node's masquerade rule is gone",
        expects: Cause::WrongAnswer,
        run: |lab| {
            Box::pin(async {
                remove_masquerade(lab).await?;
                let node1 = addresses::node_address(1);
                outside_sees(lab, node1, "the outside host to see the node's address").await
            })
        },
    }],
    red_when: &[],
};

async fn outside_host(lab: &Lab) -> anyhow::Result<()> {
    let node1 = addresses::node_address(1);
    outside_sees(lab, node1, "the outside host to see the node's address").await?;
    remove_masquerade(lab).await?;
    let pod = lab.pod_on(1).await?.address;
    outside_sees(lab, pod, "the outside host to see the Pod's own address").await
}

async fn remove_masquerade(lab: &Lab) -> anyhow::Result<()> {
    lab.step("take the masquerade rule off node 1");
    on(lab, 1, podwire_cluster::cni::REMOVE_MASQUERADE).await?;
    Ok(())
}

/// `kubectl exec POD -- probe ping OUTSIDE`: exec itself goes through the API server to the kubelet.
async fn outside_sees(lab: &Lab, wanted: Ipv4Addr, expected: &str) -> anyhow::Result<()> {
    let pod = lab.pod_on(1).await?;
    let outside = addresses::OUTSIDE;
    let gateway = lab.cluster().segment().gateway();
    let contacts = || {
        let log = gateway.outside_log();
        let of = |source: Ipv4Addr| {
            log.iter()
                .filter(|c| c.source == source && c.protocol == ContactProtocol::Icmp)
                .map(|c| c.count)
                .sum::<u64>()
        };
        (
            of(wanted),
            log.iter()
                .map(|c| format!("{} x{}", c.source, c.count))
                .collect::<Vec<_>>(),
        )
    };
    let (before, _) = contacts();
    lab.step(format!("exec a ping to {outside} in {}", pod.name));
    let said = lab
        .cluster()
        .exec_in_pod(
            &pod.name,
            &["/probe", "ping", &outside.to_string(), "3"],
            lab.limit(Duration::from_secs(10)),
        )
        .await?;
    let (after, seen) = contacts();
    if after == before {
        let seen = format!(
            "no new echo request from {wanted}; all so far: {}; ping said: {}",
            seen.join(", "),
            said.stdout
        );
        return Err(Failure::new(Cause::WrongAnswer, expected, seen)
            .look(
                "`nft list ruleset` of node1: is Pod traffic that leaves the cluster masqueraded?",
            )
            .into());
    }
    if !said.status.success() {
        let seen = format!(
            "the requests arrived, but no reply came back: {}{}",
            said.stdout, said.stderr
        );
        return Err(Failure::new(Cause::TimedOut, "the ping to be answered", seen).into());
    }
    Ok(())
}
