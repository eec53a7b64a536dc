//! A node leaves the cluster and comes back, by the means of whoever made the cluster.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, EvictParams, ListParams};
use podwire_cluster::{Bootstrap, PodNetwork, addresses, cni};
use podwire_scenario::{Cause, Failure, Lab};

use crate::kubeadm::steps as kubeadm;
use crate::steps::{all_nodes_ready, nodes, on, pods_running};

fn bootstrap(lab: &Lab) -> Bootstrap {
    lab.cluster().plan().cell.bootstrap
}

/// Drains a node: no new Pods, and none left but those that belong to it.
pub(crate) async fn drain(lab: &Lab, number: u32) -> anyhow::Result<()> {
    let name = addresses::node_name(number);
    lab.step(format!("drain {name}"));
    match bootstrap(lab) {
        Bootstrap::Kubeadm => kubeadm::drain(lab, number).await,
        Bootstrap::ByHand => cordon_and_evict(lab, &name).await,
    }
}

/// What `kubectl drain` does: cordon, then an eviction for every Pod of the node.
async fn cordon_and_evict(lab: &Lab, name: &str) -> anyhow::Result<()> {
    nodes(lab).cordon(name).await?;
    let pods: Api<Pod> = Api::default_namespaced(lab.cluster().api());
    let of_node = ListParams::default().fields(&format!("spec.nodeName={name}"));
    for pod in pods.list(&of_node).await?.items {
        let pod_name = pod.metadata.name.unwrap_or_default();
        pods.evict(&pod_name, &EvictParams::default()).await?;
    }
    Ok(())
}

/// Deletes a Node: it is off the list at once.
pub(crate) async fn delete(lab: &Lab, number: u32) -> anyhow::Result<()> {
    let name = addresses::node_name(number);
    lab.step(format!("delete {name}: it is off the list at once"));
    nodes(lab).delete(&name, &DeleteParams::default()).await?;
    match nodes(lab).get_opt(&name).await? {
        None => Ok(()),
        Some(_) => {
            let expected = format!("{name} off the list");
            Err(Failure::new(Cause::Answered, expected, "it is listed").into())
        }
    }
}

/// Takes away what a node kept of the cluster.
pub(crate) async fn wipe(lab: &Lab, number: u32) -> anyhow::Result<()> {
    match bootstrap(lab) {
        Bootstrap::Kubeadm => {
            kubeadm::reset_for_good(lab, number).await?;
        }
        Bootstrap::ByHand => {
            let name = addresses::node_name(number);
            lab.step(format!("stop {name}'s daemons and wipe what they kept"));
            on(lab, number, WIPE).await?;
        }
    }
    clean_up_the_network(lab, number).await
}

/// What `kubeadm reset` does, as far as a node by hand has it. Its kubeconfig stays.
const WIPE: &str = "\
systemctl stop kubelet && \
crictl pods -q 2>/dev/null | xargs -r crictl rmp -f >/dev/null 2>&1; \
grep -o ' /var/lib/kubelet/[^ ]*' /proc/mounts | xargs -r umount; \
systemctl stop containerd && rm -rf /var/lib/kubelet/*";

/// Removes what `kubeadm reset` leaves and says so: the bridge, the plugins' state, and the CNI file
/// of a network that writes its own. The file of a network by hand stays: nobody would write it
/// again.
pub(crate) async fn clean_up_the_network(lab: &Lab, number: u32) -> anyhow::Result<()> {
    let name = addresses::node_name(number);
    lab.step(format!("remove the old Pod network from {name}"));
    let bridge = cni::BRIDGE;
    let mut command = format!("ip link delete {bridge} 2>/dev/null; rm -rf /var/lib/cni");
    if lab.cluster().plan().cell.network != PodNetwork::Routes {
        command += " /etc/cni/net.d/*; ip link delete flannel.1 2>/dev/null; true";
    }
    on(lab, number, &command).await?;
    Ok(())
}

/// Joins the node again, and waits until every Node is Ready.
pub(crate) async fn join_again(lab: &Lab, number: u32) -> anyhow::Result<()> {
    match bootstrap(lab) {
        Bootstrap::Kubeadm => {
            let command = kubeadm::join_command(lab).await?;
            kubeadm::join(lab, number, &command).await?;
        }
        Bootstrap::ByHand => {
            lab.step("start its daemons again: it joins with its own kubeconfig");
            on(lab, number, "systemctl start containerd kubelet").await?;
        }
    }
    back_again(lab).await
}

/// Every Node is Ready, one that came back among them.
pub(crate) async fn back_again(lab: &Lab) -> anyhow::Result<()> {
    all_nodes_ready(lab).await
}

/// Scales the workload to `wanted` Pods, until all run and the node has some of them.
pub(crate) async fn takes_pods(lab: &Lab, number: u32, wanted: usize) -> anyhow::Result<()> {
    let name = addresses::node_name(number);
    lab.cluster().scale_workload(u32::try_from(wanted)?).await?;
    pods_running(lab, wanted, |pods| {
        let some = pods.iter().any(|pod| pod.node == number);
        (!some).then(|| format!("no Pod on {name} yet"))
    })
    .await
}
