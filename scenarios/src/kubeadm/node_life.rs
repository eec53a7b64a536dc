//! A node at work: the Pods that belong to it, static Pods, taints, draining and deleting.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use podwire_cluster::workload::{WORKLOAD_IMAGE, WORKLOAD_SELECTOR};
use podwire_cluster::{StageName, addresses};
use podwire_probe::Outcome;
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Profile, Sabotage, Scenario, assert, eventually_unless,
};
use serde_json::{Value, json};

use crate::catalogue::{E21, E22, E22b, E23, E24, E27, E27b, E28};
use crate::leaving::{delete, drain};
use crate::prospects;
use crate::steps::{node_ready, nodes, on, pods_running};

use super::init::address;
use super::reset;
use super::steps::{
    READY_AFTER_JOIN, belongs_to_its_node, full_name, holds, kubectl, kubectl_says, of_daemon_set,
    pods_bound_to, probe_container, static_hash,
};

/// E21: what runs on every node.
pub(crate) const PODS_OF_A_NODE: Scenario = Scenario {
    name: "pods_of_every_node",
    about: "Every node has one Pod of each DaemonSet, kube-proxy's among them; its container engine \
            runs exactly the Pods that the API binds to it; Pods on the host's network have the \
            node's address, CoreDNS one of its own",
    covers: &[E21],
    stage: StageName::PodNetwork,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(90),
    prepare: None,
    run: |lab| Box::pin(pods_of_every_node(lab)),
    sabotages: &[Sabotage {
        name: "sandbox-removed",
        about: "kube-proxy's sandbox is removed behind the back of a kubelet that stands still",
        expects: Cause::Absent,
        run: |lab| {
            Box::pin(async {
                lab.step("stop node 2's kubelet and remove kube-proxy's sandbox");
                on(
                    lab,
                    2,
                    "systemctl stop kubelet && \
                     crictl rmp -f $(crictl pods -q --label k8s-app=kube-proxy) 2>&1",
                )
                .await?;
                lab.injected();
                pods_of_every_node(lab).await
            })
        },
    }],
    red_when: &[],
};

async fn pods_of_every_node(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the DaemonSets: kube-proxy, and the Pod network's own if it has one");
    let sets: Api<DaemonSet> = Api::all(lab.cluster().api());
    let sets = sets.list(&ListParams::default()).await?.items;
    let sets: BTreeSet<String> = sets.into_iter().filter_map(|it| it.metadata.name).collect();
    if !sets.contains("kube-proxy") {
        let expected = "a DaemonSet kube-proxy";
        return Err(Failure::new(Cause::Absent, expected, format!("{sets:?}")).into());
    }
    for number in 1..=lab.nodes() {
        let name = addresses::node_name(number);
        lab.step(format!("the Pods of {name}, by the API and by crictl"));
        let pods = pods_bound_to(lab, number).await?;
        one_of_each(&sets, &pods, &name)?;
        addresses_of(&pods, number)?;
        let said = on(lab, number, "crictl pods -o json --state ready 2>/dev/null").await?;
        same_pods(&pods, &serde_json::from_str(&said)?, &name)?;
    }
    Ok(())
}

fn one_of_each(sets: &BTreeSet<String>, pods: &[Pod], node: &str) -> Result<(), Failure> {
    for set in sets {
        let count = pods
            .iter()
            .filter(|pod| of_daemon_set(pod) == Some(set))
            .count();
        if count != 1 {
            let cause = if count == 0 {
                Cause::Absent
            } else {
                Cause::NotUnique
            };
            let expected = format!("one Pod of {set} on {node}");
            return Err(Failure::new(cause, expected, format!("{count}")));
        }
    }
    Ok(())
}

fn addresses_of(pods: &[Pod], number: u32) -> Result<(), Failure> {
    for pod in pods {
        let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let own = address(pod);
        let right = own.is_some_and(|own| {
            if on_host {
                own == addresses::node_address(number)
            } else {
                addresses::PODS.contains(own)
            }
        });
        if !right {
            let expected = format!(
                "{} to have an address of {}",
                full_name(pod),
                if on_host {
                    "its node"
                } else {
                    "the Pods' range"
                }
            );
            return Err(Failure::new(
                Cause::OutsideRange,
                expected,
                format!("{own:?}"),
            ));
        }
    }
    Ok(())
}

/// `sandboxes` is what `crictl pods -o json` says. A static Pod's sandbox carries the hash of its
/// manifest as UID, not the mirror's.
fn same_pods(pods: &[Pod], sandboxes: &Value, node: &str) -> Result<(), Failure> {
    let of_api: BTreeSet<String> = pods
        .iter()
        .map(|pod| {
            let uid = static_hash(pod).or(pod.metadata.uid.as_deref());
            format!("{} {}", full_name(pod), uid.unwrap_or_default())
        })
        .collect();
    let items = sandboxes["items"].as_array().into_iter().flatten();
    let of_engine: BTreeSet<String> = items
        .map(|item| {
            let of = |key: &str| item["metadata"][key].as_str().unwrap_or_default();
            format!("{}/{} {}", of("namespace"), of("name"), of("uid"))
        })
        .collect();
    let expected = format!("{node}'s sandboxes to be the Pods that are bound to it");
    if let Some(missing) = of_api.difference(&of_engine).next() {
        let seen = format!("no sandbox of {missing}");
        return Err(Failure::new(Cause::Absent, expected, seen));
    }
    if let Some(surplus) = of_engine.difference(&of_api).next() {
        let seen = format!("the API knows nothing of {surplus}");
        return Err(Failure::new(Cause::WrongAnswer, expected, seen));
    }
    Ok(())
}

/// E22, E23!: a Pod that only its kubelet can end.
pub(crate) const STATIC_POD: Scenario = Scenario {
    name: "static_pod",
    about: "A manifest in the kubelet's folder is a running Pod; deleted in the API, only its mirror \
            is made anew while the container runs on; without the file it is gone",
    covers: &[E22, E22b, E23],
    stage: StageName::PodNetwork,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(150),
    prepare: None,
    run: |lab| Box::pin(static_pod(lab)),
    sabotages: &[
        Sabotage {
            name: "manifest-elsewhere",
            about: "the manifest lies beside the folder that the kubelet watches",
            expects: Cause::Absent,
            run: |lab| {
                Box::pin(async {
                    let manifest = print_manifest(lab).await?;
                    place(lab, "/etc/kubernetes/mypod.yaml", &manifest).await?;
                    lab.injected();
                    runs(lab).await.map(drop)
                })
            },
        },
        Sabotage {
            name: "container-restarted",
            about: "the container is stopped while the mirror is deleted",
            expects: Cause::Died,
            run: |lab| {
                Box::pin(async {
                    let manifest = print_manifest(lab).await?;
                    place(lab, MANIFEST, &manifest).await?;
                    let before = runs(lab).await?;
                    lab.step("stop its container: the kubelet starts another");
                    on(lab, NODE, &format!("crictl stop {} 2>&1", before.container)).await?;
                    lab.injected();
                    eventually_unless(
                        "another container",
                        lab.limit(Duration::from_secs(20)),
                        async || prospects::kubelet(lab, NODE).await,
                        async || {
                            let now = container(lab).await?;
                            Ok(if now.is_empty() || now == before.container {
                                Probe::not_yet(Cause::NotReady, now)
                            } else {
                                Probe::Done(())
                            })
                        },
                    )
                    .await?;
                    mirror_returns(lab, &before).await
                })
            },
        },
    ],
    red_when: &[],
};

/// The node that gets the static Pod.
const NODE: u32 = 2;
const MANIFEST: &str = "/etc/kubernetes/manifests/mypod.yaml";
const MIRROR: &str = "mypod-node2";

async fn static_pod(lab: &Lab) -> anyhow::Result<()> {
    let manifest = print_manifest(lab).await?;
    place(lab, MANIFEST, &manifest).await?;
    let before = runs(lab).await?;
    mirror_returns(lab, &before).await?;

    lab.step("remove the manifest: the Pod is gone, mirror and container");
    on(lab, NODE, &format!("rm {MANIFEST}")).await?;
    eventually_unless(
        "neither mirror nor container",
        lab.limit(Duration::from_secs(40)),
        async || prospects::kubelet(lab, NODE).await,
        async || {
            let mirror = pods(lab).get_opt(MIRROR).await?.is_some();
            let container = container(lab).await?;
            Ok(if mirror || !container.is_empty() {
                let state = format!("mirror listed: {mirror}, container: {container:?}");
                Probe::not_yet(Cause::Answered, state)
            } else {
                Probe::Done(())
            })
        },
    )
    .await
}

fn pods(lab: &Lab) -> Api<Pod> {
    Api::default_namespaced(lab.cluster().api())
}

/// E22b: the documents' way to a manifest.
async fn print_manifest(lab: &Lab) -> anyhow::Result<String> {
    lab.step("kubectl run --dry-run prints a manifest, and makes no Pod (E22b)");
    let command = format!(
        "run mypod --image={WORKLOAD_IMAGE} --image-pull-policy=Never --port=80 \
         --dry-run=client -o yaml --command -- /probe serve"
    );
    let manifest = kubectl(lab, &command).await?;
    if pods(lab).get_opt("mypod").await?.is_some() {
        let expected = "a dry run to make no Pod";
        return Err(Failure::new(Cause::Answered, expected, "there is a Pod mypod").into());
    }
    Ok(manifest)
}

async fn place(lab: &Lab, path: &str, manifest: &str) -> anyhow::Result<()> {
    lab.step(format!("put it into {path} on node{NODE}"));
    let limit = lab.limit(crate::steps::COMMAND);
    let node = lab.cluster().node(NODE);
    node.write(path, manifest.as_bytes(), 0o600, limit).await?;
    Ok(())
}

/// What makes a static Pod this one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    /// Of its mirror in the API.
    uid: String,
    /// By the container engine.
    container: String,
}

/// The mirror's UID, once it is Ready.
fn ready_mirror(pod: &Pod) -> Option<String> {
    let ready = holds(pod, "Ready") && pod.metadata.deletion_timestamp.is_none();
    ready.then(|| pod.metadata.uid.clone())?
}

async fn container(lab: &Lab) -> anyhow::Result<String> {
    let ids = on(lab, NODE, "crictl ps -q --name mypod 2>/dev/null").await?;
    Ok(ids.trim().to_owned())
}

async fn runs(lab: &Lab) -> anyhow::Result<Running> {
    lab.step(format!("{MIRROR} runs, with an address, and answers (E22)"));
    let (uid, address) = eventually_unless(
        &format!("{MIRROR} Ready"),
        lab.limit(Duration::from_secs(40)),
        async || prospects::kubelet(lab, NODE).await,
        async || {
            let Some(pod) = pods(lab).get_opt(MIRROR).await? else {
                let file = on(lab, NODE, &format!("ls {MANIFEST} 2>/dev/null || true")).await?;
                let state = "no such Pod".to_owned();
                return Ok(if file.trim().is_empty() {
                    Probe::hopeless(Cause::Absent, format!("{state}, and no {MANIFEST}"))
                } else {
                    Probe::not_yet(Cause::Absent, state)
                });
            };
            Ok(match (ready_mirror(&pod), address(&pod)) {
                (Some(uid), Some(address)) => Probe::Done((uid, address)),
                _ => Probe::not_yet(Cause::NotReady, "listed, not Ready"),
            })
        },
    )
    .await?;
    let from = lab.node_parties().swap_remove(NODE as usize - 1);
    let report = lab.fetch_one(&from, address, 1).await?;
    assert::all_ended("the static Pod to answer", &report, Outcome::Answered)?;
    let container = container(lab).await?;
    Ok(Running { uid, container })
}

async fn mirror_returns(lab: &Lab, before: &Running) -> anyhow::Result<()> {
    lab.step("delete it in the API: its mirror returns with another UID (E23)");
    pods(lab).delete(MIRROR, &DeleteParams::default()).await?;
    eventually_unless(
        "the mirror with another UID",
        lab.limit(Duration::from_secs(40)),
        async || prospects::kubelet(lab, NODE).await,
        async || {
            let pod = pods(lab).get_opt(MIRROR).await?;
            Ok(match pod.as_ref().and_then(ready_mirror) {
                Some(uid) if uid != before.uid => Probe::Done(()),
                Some(_) => Probe::not_yet(Cause::Answered, "the old one"),
                None => Probe::not_yet(Cause::Absent, "none that is Ready"),
            })
        },
    )
    .await?;
    let after = container(lab).await?;
    if after == before.container {
        return Ok(());
    }
    let expected = format!("its container {} to run on", before.container);
    Err(Failure::new(Cause::Died, expected, after).into())
}

/// E24: a taint keeps new Pods away, and evicts none.
pub(crate) const TAINT: Scenario = Scenario {
    name: "tainted_control_plane",
    about: "With kubeadm's taint on the control plane a new Deployment's Pods go to the workers; \
            Pods that run there already stay",
    covers: &[E24],
    stage: StageName::Workload,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(120),
    prepare: None,
    run: |lab| Box::pin(taint(lab)),
    sabotages: &[Sabotage {
        name: "tolerated",
        about: "the Deployment tolerates the taint and asks for the control plane",
        expects: Cause::WrongAnswer,
        run: |lab| {
            Box::pin(async {
                taint_the_control_plane(lab).await?;
                lab.step("create a Deployment that tolerates the taint and wants node1");
                let wanting = json!({
                    "nodeSelector": { "kubernetes.io/hostname": "node1" },
                    "tolerations": [{ "operator": "Exists" }],
                });
                deploy(lab, wanting).await?;
                lab.injected();
                lands_on_workers(lab).await
            })
        },
    }],
    red_when: &[],
};

async fn taint(lab: &Lab) -> anyhow::Result<()> {
    let on_node1 = names_on(lab, 1).await?;
    if on_node1.is_empty() {
        let expected = "Pods of the workload on node1 before the taint";
        return Err(Failure::new(Cause::Absent, expected, "none").into());
    }
    taint_the_control_plane(lab).await?;
    lab.step("create a Deployment");
    deploy(lab, json!({})).await?;
    lands_on_workers(lab).await?;
    lab.step("the Pods that ran on node1 before still do");
    let after = names_on(lab, 1).await?;
    if after != on_node1 {
        let expected = format!("{on_node1:?} to stay");
        return Err(Failure::new(Cause::Died, expected, format!("{after:?}")).into());
    }
    Ok(())
}

async fn taint_the_control_plane(lab: &Lab) -> anyhow::Result<()> {
    lab.step("taint the control plane");
    kubectl(lab, &format!("taint nodes node1 {}", reset::TAINT)).await?;
    Ok(())
}

async fn names_on(lab: &Lab, number: u32) -> anyhow::Result<BTreeSet<String>> {
    let pods = lab.pods().await?.into_iter();
    let here = pods.filter(|pod| pod.node == number);
    Ok(here.map(|pod| pod.name).collect())
}

const GREEN: &str = "green";

/// Two Pods of another Deployment; `more` goes into their spec.
async fn deploy(lab: &Lab, more: Value) -> anyhow::Result<()> {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 2,
        "containers": [probe_container()],
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    let labels = json!({ "app": GREEN });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": GREEN },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": spec },
        },
    });
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::default_namespaced(lab.cluster().api());
    let deployment = serde_json::from_value(deployment)?;
    deployments.create(&Default::default(), &deployment).await?;
    Ok(())
}

async fn lands_on_workers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("its Pods run, on workers only");
    let pods = eventually_unless(
        "both Pods of the Deployment Ready",
        lab.limit(Duration::from_secs(40)),
        async || prospects::pods(lab, &format!("app={GREEN}"), 2).await,
        async || {
            let pods = lab.cluster().pods(&format!("app={GREEN}")).await?;
            let ready = pods.iter().filter(|pod| pod.ready).count();
            Ok(if ready == 2 {
                Probe::Done(pods)
            } else {
                Probe::not_yet(Cause::NotReady, format!("{ready} are"))
            })
        },
    )
    .await?;
    match pods.iter().find(|pod| pod.node_number == Some(1)) {
        None => Ok(()),
        Some(pod) => {
            let expected = "no new Pod on the tainted control plane";
            Err(Failure::new(Cause::WrongAnswer, expected, pod.name.clone()).into())
        }
    }
}

/// E27, E27b!: draining.
pub(crate) const DRAIN: Scenario = Scenario {
    name: "kubectl_drain",
    about: "drain cordons a node and refuses to go on because of DaemonSets, naming their Pods; told \
            to ignore them it leaves only these, and new Pods land elsewhere",
    covers: &[E27, E27b],
    stage: StageName::Workload,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(180),
    prepare: None,
    run: |lab| Box::pin(drained(lab)),
    sabotages: &[
        Sabotage {
            name: "not-drained",
            about: "nobody drained the node",
            expects: Cause::Answered,
            run: |lab| Box::pin(only_its_own_pods_left(lab)),
        },
        Sabotage {
            name: "not-cordoned",
            about: "the node is schedulable",
            expects: Cause::WrongAnswer,
            run: |lab| {
                Box::pin(async {
                    let new = lab.nodes() as usize;
                    lab.injected();
                    new_pods_land_elsewhere(lab, new).await
                })
            },
        },
        Sabotage {
            name: "daemonsets-ignored",
            about: "drain is told to ignore DaemonSets at once",
            expects: Cause::Answered,
            run: |lab| {
                Box::pin(async {
                    let name = addresses::node_name(lab.nodes());
                    lab.injected();
                    refuses_to_drain(lab, &format!("drain {name} --ignore-daemonsets")).await
                })
            },
        },
    ],
    red_when: &[],
};

async fn drained(lab: &Lab) -> anyhow::Result<()> {
    let leaving = lab.nodes();
    let name = addresses::node_name(leaving);
    refuses_to_drain(lab, &format!("drain {name}")).await?;
    drain(lab, leaving).await?;
    only_its_own_pods_left(lab).await?;
    new_pods_land_elsewhere(lab, 1).await
}

async fn refuses_to_drain(lab: &Lab, command: &str) -> anyhow::Result<()> {
    let leaving = lab.nodes();
    let name = addresses::node_name(leaving);
    let before = names_on(lab, leaving).await?;
    lab.step(format!("kubectl {command}: cordoned, and refused (E27b)"));
    let said = kubectl_says(lab, command).await?;
    let daemons = pods_bound_to(lab, leaving).await?;
    let daemons: Vec<String> = daemons
        .iter()
        .filter(|pod| of_daemon_set(pod).is_some())
        .map(full_name)
        .collect();
    let expected = format!("drain to refuse, naming {}", daemons.join(" and "));
    if said.success {
        return Err(Failure::new(Cause::Answered, expected, said.text).into());
    }
    let refused = "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)";
    let names_all = daemons.iter().all(|pod| said.text.contains(pod));
    if daemons.is_empty() || !said.text.contains(refused) || !names_all {
        return Err(Failure::new(Cause::WrongAnswer, expected, said.text).into());
    }
    let spec = nodes(lab).get(&name).await?.spec;
    if spec.and_then(|spec| spec.unschedulable) != Some(true) {
        let expected = format!("{name} cordoned although the drain was refused");
        return Err(Failure::new(Cause::Absent, expected, "it is schedulable").into());
    }
    let after = names_on(lab, leaving).await?;
    if after != before {
        let expected = format!("{before:?} to stay on {name}");
        return Err(Failure::new(Cause::Died, expected, format!("{after:?}")).into());
    }
    Ok(())
}

async fn only_its_own_pods_left(lab: &Lab) -> anyhow::Result<()> {
    let name = addresses::node_name(lab.nodes());
    lab.step(format!(
        "only DaemonSets' and static Pods are left on {name} (E27)"
    ));
    let left = pods_bound_to(lab, lab.nodes()).await?;
    let others: Vec<String> = left
        .iter()
        .filter(|pod| !belongs_to_its_node(pod))
        .map(full_name)
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let expected = format!("only DaemonSets' and static Pods on {name}");
    Err(Failure::new(Cause::Answered, expected, others.join(", ")).into())
}

/// Scales the workload up by as many Pods as there would be room for on every node.
async fn new_pods_land_elsewhere(lab: &Lab, new: usize) -> anyhow::Result<()> {
    let drained = lab.nodes();
    let name = addresses::node_name(drained);
    let old = lab.cluster().pods(WORKLOAD_SELECTOR).await?;
    let here: BTreeSet<String> = names_on(lab, drained).await?;
    let live = old.iter().filter(|pod| !pod.terminating).count();
    let wanted = live + new;
    lab.step(format!("scale up to {wanted} Pods: none lands on {name}"));
    lab.cluster().scale_workload(u32::try_from(wanted)?).await?;
    pods_running(lab, wanted, |_| None).await?;
    let now = names_on(lab, drained).await?;
    match now.difference(&here).next() {
        None => Ok(()),
        Some(pod) => {
            let expected = format!("no new Pod on {name}");
            Err(Failure::new(Cause::WrongAnswer, expected, pod.clone()).into())
        }
    }
}

/// E28: what a deleted Node leaves on its machine, and how it comes back unasked.
pub(crate) const DELETED: Scenario = Scenario {
    name: "deleted_node",
    about: "A deleted Node is off the list at once; its containers run on until the Pods' garbage \
            collection, and then vanish; a restart of its kubelet registers it again",
    covers: &[E28],
    stage: StageName::Workload,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(240),
    prepare: None,
    run: |lab| Box::pin(deleted(lab)),
    sabotages: &[Sabotage {
        name: "kubelet-stopped",
        about: "the deleted node's kubelet does not run",
        expects: Cause::Answered,
        run: |lab| {
            Box::pin(async {
                on(lab, lab.nodes(), "systemctl stop kubelet").await?;
                delete(lab, lab.nodes()).await?;
                lab.injected();
                containers_vanish(lab).await
            })
        },
    }],
    red_when: &[],
};

const CONTAINERS: &str = "crictl ps -q 2>/dev/null";

async fn deleted(lab: &Lab) -> anyhow::Result<()> {
    let number = lab.nodes();
    let before = on(lab, number, CONTAINERS).await?;
    delete(lab, number).await?;
    lab.step("its containers are still there");
    let after = on(lab, number, CONTAINERS).await?;
    if before.trim().is_empty() || !same_lines(&before, &after) {
        let expected = format!("the containers of before:\n{before}");
        return Err(Failure::new(Cause::Died, expected, after).into());
    }
    containers_vanish(lab).await?;
    lab.step("restart its kubelet: the Node registers again");
    on(lab, number, "systemctl restart kubelet").await?;
    node_ready(lab, number, READY_AFTER_JOIN, async || Ok(None)).await
}

fn same_lines(a: &str, b: &str) -> bool {
    let lines = |text: &str| text.lines().map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    lines(a) == lines(b)
}

async fn containers_vanish(lab: &Lab) -> anyhow::Result<()> {
    let number = lab.nodes();
    lab.step("its containers vanish: garbage collection takes its Pods, its kubelet the rest");
    eventually_unless(
        "no container on the deleted node",
        lab.limit(Duration::from_secs(120)),
        async || match prospects::kubelet(lab, number).await? {
            Some(found) => Ok(Some(found)),
            None => prospects::control_plane(lab, "kube-controller-manager").await,
        },
        async || {
            let left = on(lab, number, CONTAINERS).await?.lines().count();
            if left == 0 {
                return Ok(Probe::Done(()));
            }
            Ok(Probe::not_yet(
                Cause::Answered,
                format!("{left} containers"),
            ))
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(metadata: Value, host_network: bool, address: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": metadata,
            "spec": { "hostNetwork": host_network, "containers": [] },
            "status": { "podIP": address },
        }))
        .unwrap()
    }

    fn of_set(set: &str, uid: &str) -> Pod {
        let owner =
            json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": set, "uid": "s" });
        let metadata = json!({
            "name": set, "namespace": "kube-system", "uid": uid, "ownerReferences": [owner],
        });
        pod(metadata, true, "172.30.0.12")
    }

    #[test]
    fn a_daemon_sets_pod_is_there_once() {
        let sets = BTreeSet::from(["kube-proxy".to_owned()]);
        let one = [of_set("kube-proxy", "a")];
        assert_eq!(one_of_each(&sets, &one, "node2"), Ok(()));
        let cause = |pods: &[Pod]| one_of_each(&sets, pods, "node2").unwrap_err().cause;
        assert_eq!(cause(&[]), Cause::Absent);
        let two = [of_set("kube-proxy", "a"), of_set("kube-proxy", "b")];
        assert_eq!(cause(&two), Cause::NotUnique);
    }

    #[test]
    fn whose_address_a_pod_has_depends_on_its_network() {
        let cause = |pod: Pod| addresses_of(&[pod], 2).map_err(|failure| failure.cause);
        assert_eq!(cause(pod(json!({}), true, "172.30.0.12")), Ok(()));
        assert_eq!(cause(pod(json!({}), false, "10.1.2.3")), Ok(()));
        let elsewhere = Err(Cause::OutsideRange);
        assert_eq!(cause(pod(json!({}), true, "172.30.0.13")), elsewhere);
        assert_eq!(cause(pod(json!({}), false, "172.30.0.12")), elsewhere);
    }

    #[test]
    fn sandboxes_and_pods_are_compared_by_name_and_uid() {
        let mirror = json!({
            "name": "etcd-node1", "namespace": "kube-system", "uid": "m", "annotations": {
                "kubernetes.io/config.mirror": "h", "kubernetes.io/config.hash": "h",
            },
        });
        let pods = [of_set("kube-proxy", "u"), pod(mirror, true, "172.30.0.11")];
        let sandbox = |name: &str, uid: &str| json!({ "metadata": { "name": name, "namespace": "kube-system", "uid": uid } });
        let (proxy, etcd) = (sandbox("kube-proxy", "u"), sandbox("etcd-node1", "h"));
        let same = |items: &[&Value]| same_pods(&pods, &json!({ "items": items }), "node1");
        assert_eq!(same(&[&proxy, &etcd]), Ok(()));
        assert_eq!(same(&[&etcd]).unwrap_err().cause, Cause::Absent);
        let old = sandbox("kube-proxy", "older");
        let failure = same(&[&proxy, &etcd, &old]).unwrap_err();
        assert_eq!(failure.cause, Cause::WrongAnswer);
        assert!(failure.seen.contains("older"), "{failure}");
    }

    #[test]
    fn a_mirror_that_is_being_deleted_does_not_run() {
        let of = |more: Value| {
            let mut metadata = json!({ "name": MIRROR, "uid": "u" });
            if let (Value::Object(metadata), Value::Object(more)) = (&mut metadata, more) {
                metadata.extend(more);
            }
            serde_json::from_value::<Pod>(json!({
                "metadata": metadata,
                "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
            }))
            .unwrap()
        };
        assert_eq!(ready_mirror(&of(json!({}))), Some("u".to_owned()));
        let deleted = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert_eq!(ready_mirror(&of(deleted)), None);
    }
}
