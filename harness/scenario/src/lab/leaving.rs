//! A node leaves the cluster and comes back, by the means of whoever made the cluster.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, EvictParams};
use podwire_cluster::{Bootstrap, PodNetwork};

use crate::check::failure::ensure;
use crate::lab::node::Node;

/// `kubectl drain`, which waits until the last Pod is gone.
const DRAIN: Duration = Duration::from_secs(60);

/// What `kubeadm reset` does, as far as a node by hand has it. Its kubeconfig stays.
const WIPE: &str = "\
systemctl stop kubelet && \
crictl pods -q 2>/dev/null | xargs -r crictl rmp -f >/dev/null 2>&1; \
grep -o ' /var/lib/kubelet/[^ ]*' /proc/mounts | xargs -r umount; \
systemctl stop containerd && rm -rf /var/lib/kubelet/*";

/// Every bridge of a node is one of its Pod network's, whatever its name: `cni0`, `kube-bridge`.
const REMOVE_BRIDGES: &str = "\
for bridge in /sys/class/net/*/bridge; do \
[ -e \"$bridge\" ] && ip link delete \"$(basename \"$(dirname \"$bridge\")\")\"; done; \
rm -rf /var/lib/cni";

impl Node<'_> {
    /// Deletes its Node; whether it is listed all the same.
    async fn deleted(self) -> anyhow::Result<bool> {
        let nodes = self.lab().api_nodes();
        nodes.delete(self.name(), &DeleteParams::default()).await?;
        Ok(self.listed().await?.is_some())
    }

    /// Drains it: no new Pods, and none left but those that belong to it.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn drain(self) -> anyhow::Result<()> {
        self.lab().step(format!("drain {self}"));
        match self.lab().bootstrap() {
            Bootstrap::Kubeadm => {
                let drain = format!("drain {self} --ignore-daemonsets");
                self.lab().kubectl(drain).within(DRAIN).await?;
                Ok(())
            }
            Bootstrap::ByHand => self.cordon_and_evict().await,
        }
    }

    /// What `kubectl drain` does: cordon, then an eviction for every Pod of the node.
    async fn cordon_and_evict(self) -> anyhow::Result<()> {
        self.lab().api_nodes().cordon(self.name()).await?;
        let evict = EvictParams::default();
        let pods: Api<Pod> = Api::default_namespaced(self.lab().cluster().api());
        for pod in self.lab().pods().anybodys().on(self).await? {
            pods.evict(pod.name(), &evict).await?;
        }
        Ok(())
    }

    /// Deletes its Node: it is off the list at once.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it is not.
    pub async fn delete(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("delete {self}: it is off the list at once"));
        let listed = self.deleted().await?;
        ensure!(!listed, Answered, "{self} off the list", "it is listed");
        Ok(())
    }

    /// Takes it off the cluster: its kubelet stops and its Node goes.
    ///
    /// # Errors
    /// When either does not happen.
    pub async fn take_off(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("stop the kubelet of {self} and delete its Node"));
        self.stop("kubelet").await?;
        let listed = self.deleted().await?;
        anyhow::ensure!(!listed, "{self} is still listed after its deletion");
        Ok(())
    }

    /// Takes away what it kept of the cluster.
    ///
    /// # Errors
    /// When it does not carry that out.
    pub async fn wipe(self) -> anyhow::Result<()> {
        match self.lab().bootstrap() {
            Bootstrap::Kubeadm => {
                self.lab().kubeadm(self.number()).reset().await?;
            }
            Bootstrap::ByHand => {
                self.lab()
                    .step(format!("stop {self}'s daemons and wipe what they kept"));
                self.run(WIPE).await?;
            }
        }
        self.remove_old_pod_network().await
    }

    /// Removes what `kubeadm reset` leaves and says so: the bridge, the plugins' state, and the CNI
    /// file of a network that writes its own. The file of a network by hand stays: nobody would write
    /// it again.
    ///
    /// # Errors
    /// When it does not carry that out.
    pub async fn remove_old_pod_network(self) -> anyhow::Result<()> {
        self.lab()
            .step(format!("remove the old Pod network from {self}"));
        let mut command = REMOVE_BRIDGES.to_owned();
        if self.lab().pod_network() != PodNetwork::Routes {
            // Of a range that flannel has left the CNI plugin that it publishes would give addresses again.
            command += " /etc/cni/net.d/* /run/flannel/subnet.env; \
                         ip link delete flannel.1 2>/dev/null; true";
        }
        self.run(command).await?;
        Ok(())
    }

    /// Joins again, and waits until every Node is Ready.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn join_again(self) -> anyhow::Result<()> {
        let lab = self.lab();
        match lab.bootstrap() {
            Bootstrap::Kubeadm => {
                let command = lab.join_command().await?;
                lab.kubeadm(self.number()).join(&command).await?;
            }
            Bootstrap::ByHand => {
                lab.step("start its daemons again: it joins with its own kubeconfig");
                self.start("containerd kubelet").await?;
            }
        }
        lab.all_nodes_ready().await
    }

    /// Scales the workload to so many Pods as soon as it may have some of them, until all run and it has.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn takes_pods(self, wanted: usize) -> anyhow::Result<()> {
        self.until_open().await?;
        self.lab().deployment("blue").scale(wanted).await?;
        let pods = self.lab().pods().until_running_and(wanted, |pods| {
            let some = pods.iter().any(|pod| pod.node == self.number());
            (!some).then(|| format!("no Pod on {self} yet"))
        });
        pods.await.map(drop)
    }
}
