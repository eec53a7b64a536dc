//! What runs on every node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use podwire_scenario::{
    Cause, Cells, Failure, Lab, Needs, Pod, PodNetwork, Probe, Profile, Sabotage, Scenario,
    StageName, ensure, ensure_none, listed, secs, steps,
};
use serde_json::{Value, json};

use crate::catalogue::E21;

/// E21: what runs on every node.
pub(crate) const PODS_OF_A_NODE: Scenario = Scenario {
    about: "Every node has one Pod of each DaemonSet, kube-proxy's among them; its container engine \
            runs exactly the Pods that the API binds to it; Pods on the host's network have the \
            node's address, CoreDNS one of its own",
    covers: &[E21],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(90),
    sabotages: &[
        Sabotage::new("sandbox-removed")
            .about("kube-proxy's sandbox is removed behind the back of a kubelet that stands still")
            .inject(steps!(|lab| {
                lab.step("stop node 2's kubelet and remove kube-proxy's sandbox");
                let remove = "crictl rmp -f $(crictl pods -q --label k8s-app=kube-proxy) 2>&1";
                lab.node(2).stop("kubelet").await?;
                lab.node(2).run(remove).await
            }))
            .saying("kube-system/kube-proxy-")
            .caught_by(steps!(pods_of_every_node), Cause::Absent),
        Sabotage::new("sandbox-of-nobody-s")
            .about("the engine runs a Pod that the API has never heard of, and no kubelet ends it")
            .inject(steps!(|lab| {
                lab.step("stop node 2's kubelet, and have its engine run a sandbox (crictl runp)");
                lab.node(2).stop("kubelet").await?;
                let run =
                    format!("echo '{STRAY}' >/root/stray.json && crictl runp /root/stray.json");
                lab.node(2).run(run).within(secs(20)).await
            }))
            .caught_by(steps!(pods_of_every_node), Cause::WrongAnswer),
        Sabotage::new("not-on-every-node")
            .about("kube-proxy's DaemonSet selects node 1 alone")
            .inject(steps!(|lab| {
                // Node 1's stays the one that it is.
                let alone = json!({ "spec": {
                    "updateStrategy": { "type": "OnDelete", "rollingUpdate": null },
                    "template": { "spec": { "nodeSelector": { "kubernetes.io/hostname": "node1" } } },
                } });
                let patch = format!("-n kube-system patch daemonset kube-proxy -p '{alone}'");
                lab.kubectl(patch).await?;
                let of_proxy =
                    lab.pods().of_namespace("kube-system").labelled("k8s-app=kube-proxy");
                let left = of_proxy.on(lab.node(2)).until("no kube-proxy on node2", |pods| {
                    let needs = Needs::ControlPlane("kube-controller-manager");
                    Probe::when(pods.is_empty(), Cause::Answered, "it is there").needs(needs)
                });
                left.await
            }))
            .saying("no such Pod")
            .caught_by(steps!(pods_of_every_node), Cause::Absent),
    ],
    ..Scenario::new("pods_of_every_node", StageName::PodNetwork, steps!(pods_of_every_node))
};

/// Of CRI's `PodSandboxConfig`: on the node's own network (`network: 2`), for which no CNI plugin is asked; systemd makes
/// its cgroup.
const STRAY: &str = r#"{"metadata": {"name": "stray", "namespace": "default", "uid": "stray"},
"linux": {"cgroup_parent": "system.slice", "security_context": {"namespace_options": {"network": 2}}}}"#;

async fn pods_of_every_node(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the DaemonSets: kube-proxy, and the Pod network's own if it has one");
    let sets = lab.kubectl("get daemonsets -A -o name").await?;
    let names = sets.stdout.lines().filter_map(|it| Some(it.split_once('/')?.1));
    let sets: BTreeSet<&str> = names.collect();
    let has_proxy = sets.contains("kube-proxy");
    let all = listed(&sets);
    ensure!(has_proxy, Absent, "a DaemonSet kube-proxy", "{all}");
    for node in lab.nodes() {
        lab.step(format!("the Pods of {node}, by the API and by crictl"));
        let pods = lab.pods().everywhere().on(node).await?;
        one_of_each(&sets, &pods, node.name())?;
        for pod in &pods {
            has_its_address(pod, node.address(), lab.pod_network())?;
        }
        let sandboxes = node.run("crictl pods -o json --state ready 2>/dev/null").await?;
        same_pods(&pods, &serde_json::from_str(&sandboxes.stdout)?, node.name())?;
    }
    Ok(())
}

fn one_of_each(sets: &BTreeSet<&str>, pods: &[Pod], node: &str) -> Result<(), Failure> {
    for set in sets {
        let own = pods.iter().filter(|pod| pod.daemon_set() == Some(set));
        let count = own.count();
        ensure!(count > 0, Absent, "one Pod of {set} on {node}", "no such Pod");
        ensure!(count == 1, NotUnique, "one Pod of {set} on {node}", "{count}");
    }
    Ok(())
}

fn has_its_address(pod: &Pod, node: Ipv4Addr, network: PodNetwork) -> Result<(), Failure> {
    let address = pod.address();
    let (right, whose) = match pod.is_on_host_network() {
        true => (address == Some(node), "its node"),
        false => (pod.has_pod_address(network), "the Pods' range"),
    };
    ensure!(right, OutsideRange, "{pod} to have an address of {whose}", "{address:?}");
    Ok(())
}

/// `sandboxes` is what `crictl pods -o json` says. A static Pod's sandbox carries the hash of its
/// manifest as UID, not the mirror's.
fn same_pods(pods: &[Pod], sandboxes: &Value, node: &str) -> Result<(), Failure> {
    let of_api = pods.iter().map(|pod| {
        let uid = pod.static_hash().unwrap_or(pod.uid());
        format!("{pod} {uid}")
    });
    let items = sandboxes["items"].as_array().into_iter().flatten();
    let of_engine = items.map(|item| {
        let of = |key: &str| item["metadata"][key].as_str().unwrap_or_default();
        format!("{}/{} {}", of("namespace"), of("name"), of("uid"))
    });
    let (of_api, of_engine): (BTreeSet<_>, BTreeSet<_>) = (of_api.collect(), of_engine.collect());
    let missing = of_api.difference(&of_engine);
    ensure_none!(missing, Absent, "no Pod bound to {node} without a sandbox there");
    let surplus = of_engine.difference(&of_api);
    ensure_none!(surplus, WrongAnswer, "no sandbox on {node} of which the API knows nothing");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NODE2: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 12);

    fn pod(metadata: Value, host_network: bool, address: &str) -> Pod {
        Pod::from_json(json!({
            "metadata": metadata,
            "spec": { "hostNetwork": host_network, "containers": [] },
            "status": { "podIP": address },
        }))
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
        let sets = BTreeSet::from(["kube-proxy"]);
        let one = [of_set("kube-proxy", "a")];
        assert_eq!(one_of_each(&sets, &one, "node2"), Ok(()));
        let cause = |pods: &[Pod]| one_of_each(&sets, pods, "node2").unwrap_err().cause;
        assert_eq!(cause(&[]), Cause::Absent);
        let two = [of_set("kube-proxy", "a"), of_set("kube-proxy", "b")];
        assert_eq!(cause(&two), Cause::NotUnique);
    }

    #[test]
    fn whose_address_a_pod_has_depends_on_its_network() {
        let of = |network: PodNetwork, pod: Pod| {
            has_its_address(&pod, NODE2, network).map_err(|failure| failure.cause)
        };
        let cause = |pod: Pod| of(PodNetwork::Routes, pod);
        assert_eq!(cause(pod(json!({}), true, "172.30.0.12")), Ok(()));
        assert_eq!(cause(pod(json!({}), false, "10.1.2.3")), Ok(()));
        let elsewhere = Err(Cause::OutsideRange);
        assert_eq!(cause(pod(json!({}), true, "172.30.0.13")), elsewhere);
        assert_eq!(cause(pod(json!({}), false, "172.30.0.12")), elsewhere);
        assert_eq!(cause(pod(json!({}), false, "192.168.3.4")), elsewhere);
        let of_a_user_s = |address| of(PodNetwork::Manifest, pod(json!({}), false, address));
        assert_eq!(of_a_user_s("192.168.3.4"), Ok(()));
        assert_eq!(of_a_user_s("172.30.0.12"), elsewhere);
        assert_eq!(of_a_user_s("10.0.0.17"), elsewhere);
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
}
