//! Chapter B, on the workload's nodes: ClusterIPs, and the way outside.

use std::net::Ipv4Addr;
use std::time::Duration;

use podwire_cluster::{Break, StageName, addresses};
use podwire_lan::ContactProtocol;
use podwire_probe::{FetchRequest, Outcome};
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Profile, Sabotage, Scenario, assert, eventually_unless,
};

use crate::catalogue::{B11, B12, B13, B14};
use crate::prospects;
use crate::steps::{
    cluster_ip_spreads, everybody_seen, forget_early_attempts, on, ready_endpoints,
    service_address, set_session_affinity,
};

/// B12!, B13, B14: a ClusterIP is kube-proxy's work.
pub(crate) const CLUSTER_IP: Scenario = Scenario {
    name: "cluster_ip",
    about: "A ClusterIP is dead while kube-proxy has never run, answers once it runs, spreads \
            requests evenly over the Pods, and lives on until kube-proxy's rules are cleaned up",
    covers: &[B12, B13, B14],
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
                    lab.injected();
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
                    lab.injected();
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
                    set_session_affinity(lab).await?;
                    lab.start_kube_proxy().await?;
                    answers(lab).await?;
                    lab.injected();
                    spreads_from_node1(lab).await
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
    let node1 = lab.node_parties().swap_remove(0);
    everybody_seen(lab, &node1, pods).await?;
    spreads_from_node1(lab).await?;
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

async fn spreads_from_node1(lab: &Lab) -> anyhow::Result<()> {
    lab.step("send a hundred requests per Pod, each on a fresh connection (B14)");
    let node1 = lab.node_parties().swap_remove(0);
    cluster_ip_spreads(lab, &node1).await
}

async fn dead_without_kube_proxy(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask the ClusterIP from node 1, and a Pod beside it (B12)");
    let endpoints = ready_endpoints(lab).await?.len();
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
    let stuck = async || {
        let endpoints: Vec<Ipv4Addr> = ready_endpoints(lab).await?.into_iter().collect();
        prospects::kube_proxy(lab, 1, address, &endpoints).await
    };
    let expected = "the ClusterIP to answer from node 1";
    let limit = lab.limit(Duration::from_secs(15));
    eventually_unless(expected, limit, stuck, async || {
        let report = lab.fetch_one(&node1, address, 1).await?;
        if report.all(Outcome::Answered) {
            return Ok(Probe::Done(()));
        }
        let result = report.results.first();
        let cause = result.map_or(Cause::Absent, |result| result.outcome.into());
        Ok(Probe::not_yet(cause, report.to_string()))
    })
    .await?;
    forget_early_attempts(lab, 1, address).await
}

/// B11: a Pod reaches the outside, which sees its node.
pub(crate) const OUTSIDE_HOST: Scenario = Scenario {
    name: "outside_host",
    about: "A Pod reaches a host outside the cluster, which sees the node's address; without the \
            masquerade rule it sees the Pod's",
    covers: &[B11],
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
                lab.injected();
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
