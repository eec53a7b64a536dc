//! Chapter C: a second node, and static routes.
//!
//! The setting is ipMasq=false: a missing route breaks the direction that it carries *and* the
//! replies of the other.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use podwire_cluster::{Break, StageName, WORKLOAD_SELECTOR, addresses, cni, kubeconfig};
use podwire_scenario::assert::{self, Party};
use podwire_scenario::{
    Cause, Cells, Evidence, Failure, Lab, Probe, Profile, Sabotage, Scenario, eventually_unless,
};

use crate::catalogue::{C1, C2, C3, C4, C6, C7, C8};
use crate::prospects;
use crate::steps::{all_nodes_ready_unless, mesh_of_everybody, nodes, on, take_off};

/// C1, C2!, C3: a node joins with a flattened copy of a kubeconfig, once its server is right.
pub(crate) const JOINS: Scenario = Scenario {
    name: "second_node_joins",
    about: "A node joins with a flattened kubeconfig: not while it says localhost, but once it \
            names the control plane",
    covers: &[C1, C2, C3],
    stage: StageName::WorkloadBare,
    cells: Cells::ByHand,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(120),
    prepare: None,
    run: |lab| Box::pin(joins(lab)),
    sabotages: &[Sabotage {
        name: "kubeconfig-says-localhost",
        about: "the joining kubelet's kubeconfig still names localhost",
        expects: Cause::Absent,
        run: |lab| {
            Box::pin(async {
                let joining = lab.nodes();
                take_off(lab, joining).await?;
                let flattened = flatten(lab, joining).await?;
                start_kubelet_with(lab, joining, &flattened).await?;
                lab.injected();
                everybody_joined(lab, joining).await
            })
        },
    }],
    red_when: &[],
};

const REFUSED: &str = "localhost:6443";

async fn joins(lab: &Lab) -> anyhow::Result<()> {
    let joining = lab.nodes();
    let name = addresses::node_name(joining);
    take_off(lab, joining).await?;

    lab.step("flatten its kubeconfig on node1: key and certificate go into the file (C1)");
    let flattened = flatten(lab, joining).await?;
    embedded(&flattened)?;

    lab.step(format!(
        "start the kubelet of {name} with the copy, which says localhost (C2)"
    ));
    start_kubelet_with(lab, joining, &flattened).await?;
    let expected = "the kubelet to be refused at localhost:6443";
    let limit = lab.limit(Duration::from_secs(20));
    let stuck = async || prospects::kubelet(lab, joining).await;
    eventually_unless(expected, limit, stuck, async || {
        Ok(match refusal(lab, joining).await? {
            Some(_) => Probe::Done(()),
            None => Probe::not_yet(Cause::Absent, "no refusal in its journal"),
        })
    })
    .await?;
    if nodes(lab).get_opt(&name).await?.is_some() {
        let seen = format!("{name} is listed although its kubelet cannot reach the API");
        return Err(Failure::new(Cause::Answered, format!("{name} to stay absent"), seen).into());
    }
    // The positive beside it: the same node reaches the API under its right name.
    on(
        lab,
        joining,
        &format!(
            "curl -sk -o /dev/null -m 20 https://{}:6443/",
            addresses::API_NAME
        ),
    )
    .await
    .context("the joining node does not reach the API server at all: its refusal proves nothing")?;

    lab.step("replace localhost by node1's name and start again (C3)");
    on(
        lab,
        joining,
        &format!(
            "sed -i s/localhost:6443/{}:6443/ {} && systemctl restart kubelet",
            addresses::API_NAME,
            kubeconfig::KUBELET_PATH
        ),
    )
    .await?;
    everybody_joined(lab, joining).await
}

/// `kubectl config view --flatten` on node 1 of a kubeconfig that names files.
async fn flatten(lab: &Lab, number: u32) -> anyhow::Result<String> {
    let pki = lab.cluster().pki()?;
    let node1 = lab.cluster().node(1);
    let limit = lab.limit(Duration::from_secs(20));
    let identity = pki
        .node(number)
        .with_context(|| format!("no certificate for node{number}"))?;
    node1
        .write(
            "/root/join/ca.crt",
            pki.ca.certificate.as_bytes(),
            0o644,
            limit,
        )
        .await?;
    node1
        .write(
            "/root/join/node.crt",
            identity.certificate.as_bytes(),
            0o644,
            limit,
        )
        .await?;
    node1
        .write("/root/join/node.key", identity.key.as_bytes(), 0o600, limit)
        .await?;
    let with_paths = kubeconfig::with_files(
        "https://localhost:6443",
        "/root/join/ca.crt",
        "/root/join/node.crt",
        "/root/join/node.key",
    );
    node1
        .write("/root/join/config", with_paths.as_bytes(), 0o600, limit)
        .await?;
    on(
        lab,
        1,
        "kubectl config view --flatten --kubeconfig /root/join/config",
    )
    .await
}

fn embedded(flattened: &str) -> Result<(), Failure> {
    let has = |key: &str| flattened.lines().any(|line| line.trim().starts_with(key));
    let data = [
        "certificate-authority-data:",
        "client-certificate-data:",
        "client-key-data:",
    ];
    let paths = [
        "certificate-authority:",
        "client-certificate:",
        "client-key:",
    ];
    let missing = data.iter().find(|key| !has(key));
    let left = paths.iter().find(|key| has(key));
    match (missing, left) {
        (None, None) => Ok(()),
        (Some(key), _) => Err(format!("no {key}")),
        (_, Some(key)) => Err(format!("still a file path under {key}")),
    }
    .map_err(|seen| {
        Failure::new(
            Cause::WrongAnswer,
            "key and certificates embedded, and no file paths",
            seen,
        )
    })
}

async fn start_kubelet_with(lab: &Lab, number: u32, kubeconfig: &str) -> anyhow::Result<()> {
    let node = lab.cluster().node(number);
    let limit = lab.limit(Duration::from_secs(20));
    node.write(
        kubeconfig::KUBELET_PATH,
        kubeconfig.as_bytes(),
        0o600,
        limit,
    )
    .await?;
    // --rotate empties nothing: what counts from here on is found by the unit's invocation.
    on(lab, number, "systemctl restart kubelet").await?;
    Ok(())
}

/// The last refusal at localhost in the journal of the kubelet that runs now.
async fn refusal(lab: &Lab, number: u32) -> anyhow::Result<Option<String>> {
    let journal = on(
        lab,
        number,
        "journalctl -u kubelet -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID kubelet) \
         | grep -F localhost:6443 | grep -F 'connection refused' | tail -n 1",
    )
    .await?;
    Ok(Some(journal.trim().to_owned()).filter(|line| line.contains(REFUSED)))
}

async fn everybody_joined(lab: &Lab, joining: u32) -> anyhow::Result<()> {
    all_nodes_ready_unless(lab, async || {
        let refused = refusal(lab, joining).await?;
        Ok(refused.map(|line| Evidence::certain(format!("its kubelet is refused: {line}"))))
    })
    .await
}

/// C4: Pod addresses are unique, each in its node's range.
pub(crate) const POD_ADDRESSES: Scenario = Scenario {
    name: "pod_addresses",
    about: "Every Pod has an address of its own, from the range of the node it runs on",
    covers: &[C4],
    stage: StageName::WorkloadBare,
    cells: Cells::ByHand,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(90),
    prepare: None,
    run: |lab| Box::pin(pod_addresses(lab)),
    sabotages: &[Sabotage {
        name: "two-nodes-one-range",
        about: "node 2 hands out addresses from node 1's range",
        expects: Cause::NotUnique,
        run: |lab| {
            Box::pin(async {
                give_node2_the_range_of_node1(lab).await?;
                lab.injected();
                pod_addresses(lab).await
            })
        },
    }],
    red_when: &[Break::PodRange],
};

async fn pod_addresses(lab: &Lab) -> anyhow::Result<()> {
    let pods = lab.pods().await?;
    lab.step(format!("look at the addresses of {} Pods", pods.len()));
    for number in 1..=lab.nodes() {
        if !pods.iter().any(|pod| pod.node == number) {
            let seen = format!("none on node{number}");
            return Err(Failure::new(Cause::Absent, "running Pods on every node", seen).into());
        }
    }
    assert::addresses_unique_and_in_range(&pods, addresses::pod_range)?;
    Ok(())
}

async fn give_node2_the_range_of_node1(lab: &Lab) -> anyhow::Result<()> {
    let node2 = lab.cluster().node(2);
    let limit = lab.limit(Duration::from_secs(20));
    lab.step("give node 2 the CNI range of node 1, and replace its Pods");
    node2
        .write(
            cni::PATH,
            cni::bridge(addresses::pod_range(1)).as_bytes(),
            0o644,
            limit,
        )
        .await?;
    // The bridge keeps its first address, and the plugin refuses another: it has to go as well.
    on(lab, 2, "ip link delete cni0").await?;
    let pods: Api<Pod> = Api::default_namespaced(lab.cluster().api());
    let of_node2 = ListParams::default()
        .labels(WORKLOAD_SELECTOR)
        .fields("spec.nodeName=node2");
    let old: Vec<String> = lab
        .pods()
        .await?
        .into_iter()
        .filter(|pod| pod.node == 2)
        .map(|pod| pod.name)
        .collect();
    pods.delete_collection(&DeleteParams::default().grace_period(0), &of_node2)
        .await?;
    let stuck = async || prospects::workload(lab, old.len()).await;
    let limit = lab.limit(Duration::from_secs(40));
    eventually_unless("new Pods on node 2", limit, stuck, async || {
        let pods = lab.pods().await?;
        let fresh = pods
            .iter()
            .filter(|pod| pod.node == 2 && !old.contains(&pod.name))
            .count();
        Ok(if fresh >= old.len() {
            Probe::Done(())
        } else {
            Probe::not_yet(Cause::NotReady, format!("{fresh} of {} run", old.len()))
        })
    })
    .await
}

/// C6!, C7, C8: which pairs a route connects, and which its absence cuts.
pub(crate) const STATIC_ROUTES: Scenario = Scenario {
    name: "static_routes",
    about: "Without routes a Pod on another node times out; one route connects one direction, all \
            routes every pair, and deleting one cuts exactly its pairs",
    covers: &[C6, C7, C8],
    stage: StageName::WorkloadBare,
    cells: Cells::ByHand,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(120),
    prepare: None,
    run: |lab| Box::pin(static_routes(lab)),
    sabotages: &[
        Sabotage {
            name: "a-route-is-missing",
            about: "the route from node 1 to node 2's Pods is missing",
            expects: Cause::TimedOut,
            run: |lab| {
                Box::pin(async {
                    lab.add_all_routes().await?;
                    lab.delete_route(1, 2).await?;
                    lab.injected();
                    every_pair_answers(lab).await
                })
            },
        },
        Sabotage {
            name: "the-routes-are-there-already",
            about: "all routes exist before the first look",
            expects: Cause::Answered,
            run: |lab| {
                Box::pin(async {
                    lab.add_all_routes().await?;
                    lab.injected();
                    remote_pods_time_out(lab).await
                })
            },
        },
    ],
    red_when: &[Break::Route, Break::PodRange],
};

async fn static_routes(lab: &Lab) -> anyhow::Result<()> {
    remote_pods_time_out(lab).await?;

    lab.add_route(1, 2).await?;
    lab.step("node 1 reaches node 2's Pods now; nothing else changed (C7)");
    let (nodes, pods) = (lab.node_parties(), lab.pods().await?);
    let only_first_two = [nodes[0].clone(), nodes[1].clone()];
    lab.mesh(&only_first_two, &pods).await?.exactly_dead(
        "node 1 to reach the Pods of node 2, and no other node's Pods but its own",
        |from, to| from.node != to.node && (from.node, to.node) != (1, 2),
    )?;

    lab.add_all_routes().await?;
    every_pair_answers(lab).await?;

    lab.delete_route(1, 2).await?;
    lab.step("exactly the pairs of that route fail (C8)");
    mesh_of_everybody(lab).await?.exactly_dead(
        "all pairs but those that need node 1's route to node 2's Pods",
        |from, to| needs_route(from, to, (1, 2)),
    )?;
    Ok(())
}

/// Whether a request or its reply takes a route: with ipMasq=false both keep the Pods' addresses.
fn needs_route(from: &Party, to: &Party, route: (u32, u32)) -> bool {
    let request = (from.node, to.node) == route;
    let reply = from.pod && (to.node, from.node) == route;
    request || reply
}

async fn remote_pods_time_out(lab: &Lab) -> anyhow::Result<()> {
    lab.step("no route: node 1 reaches its own Pods only, the rest goes to the gateway (C6)");
    let pods = lab.pods().await?;
    let gateway = lab.cluster().segment().gateway();
    let before = gateway.counters().dropped_unrouted;
    let node1 = lab.node_parties().into_iter().take(1).collect::<Vec<_>>();
    lab.mesh(&node1, &pods)
        .await?
        .exactly_dead("node 1 to reach its own Pods only", |from, to| {
            from.node != to.node
        })?;
    if gateway.counters().dropped_unrouted == before {
        let expected = "the requests to take the default route to the gateway, which drops them";
        return Err(Failure::new(Cause::Absent, expected, "the gateway dropped nothing").into());
    }
    Ok(())
}

async fn every_pair_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every ordered pair answers, node to Pod and Pod to Pod (C8)");
    mesh_of_everybody(lab)
        .await?
        .all_answer("every ordered pair to answer")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(node: u32, pod: bool) -> Party {
        let address = if pod {
            addresses::pod_range(node).address
        } else {
            addresses::node_address(node)
        };
        Party {
            name: String::new(),
            node,
            pod,
            address,
        }
    }

    #[test]
    fn a_deleted_route_takes_its_direction_and_the_replies_to_pods() {
        let dead = |from: (u32, bool), to: u32| {
            needs_route(&party(from.0, from.1), &party(to, true), (1, 2))
        };
        assert!(dead((1, false), 2), "node 1 -> Pods of node 2");
        assert!(dead((1, true), 2), "Pods of node 1 -> Pods of node 2");
        assert!(
            dead((2, true), 1),
            "the reply to a Pod of node 2 needs it too"
        );
        assert!(!dead((2, false), 1), "the reply to node 2 itself does not");
        assert!(!dead((1, false), 1) && !dead((3, true), 2) && !dead((1, true), 3));
    }

    #[test]
    fn flattened_means_data_and_no_paths() {
        let good = "clusters:\n- cluster:\n    certificate-authority-data: eA==\nusers:\n- user:\n    client-certificate-data: eA==\n    client-key-data: eA==\n";
        assert!(embedded(good).is_ok());
        let path = format!("{good}    client-key: /root/key\n");
        assert!(embedded(&path).unwrap_err().seen.contains("client-key"));
        assert!(embedded("").is_err());
    }
}
