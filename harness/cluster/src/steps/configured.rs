//! What comes of the user's configurations where they are merged into podwire's.

use crate::parts::config;
use crate::parts::kubeadm;
use crate::parts::merge::{Conflict, Merged, Replaced};
use crate::plan::cell::Bootstrap;
use crate::plan::cluster_plan::ClusterPlan;
use crate::plan::configurations::Kind;
use crate::plan::settings::Settings;
use crate::steps::step::Hole;

impl ClusterPlan {
    /// Where the user's configurations say something else than podwire needs, on any node, each once. A
    /// cluster that is made all the same has podwire's values there.
    pub fn conflicts(&self) -> Vec<(Kind, Conflict)> {
        each_once(self.merged(), |merged| merged.conflicts)
    }

    /// What of podwire's own the user's configurations replace, each once.
    pub fn replaced(&self) -> Vec<(Kind, Replaced)> {
        each_once(self.merged(), |merged| merged.replaced)
    }

    /// Every document that some node or kubeadm is given.
    fn merged(&self) -> Vec<(Kind, Merged)> {
        let (cell, given) = (self.cell, &self.configurations);
        let settings = Settings::of(self.accelerator);
        match cell.bootstrap {
            Bootstrap::ByHand => {
                let proxies = (1..=self.nodes).map(|number| {
                    let merged = config::kube_proxy(number, cell, given);
                    (Kind::KubeProxy, merged)
                });
                let kubelet = (
                    Kind::Kubelet,
                    config::kubelet(settings, given, self.cluster_dns),
                );
                [kubelet].into_iter().chain(proxies).collect()
            }
            Bootstrap::Kubeadm => {
                let hash = Hole::CaHash.name();
                let joins = (2..=self.nodes).map(|number| {
                    let merged = kubeadm::join_config(number, cell, hash, settings, given);
                    (Kind::Join, merged)
                });
                let init = kubeadm::init_documents(&self.kubernetes, cell, settings, given);
                init.into_iter().chain(joins).collect()
            }
        }
    }
}

fn each_once<T: PartialEq>(
    merged: Vec<(Kind, Merged)>,
    take: impl Fn(Merged) -> Vec<T>,
) -> Vec<(Kind, T)> {
    let mut all = Vec::new();
    for (kind, merged) in merged {
        for one in take(merged) {
            let one = (kind, one);
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use podwire_vm::Accelerator;
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::cell::Cell;
    use crate::plan::cluster_plan::ImageFiles;
    use crate::plan::configurations::Configurations;
    use crate::plan::stage_name::StageName;

    fn plan(bootstrap: Bootstrap, given: &[(Kind, Value)]) -> ClusterPlan {
        let (cell, image) = (Cell::usual(bootstrap), ImageFiles::default());
        let tcg = Accelerator::Tcg;
        let plan = ClusterPlan::new(2, cell, "1.36.4", &image, tcg, "", "", None).unwrap();
        plan.with_configurations(Configurations(given.iter().cloned().collect()))
    }

    fn told(plan: &ClusterPlan) -> String {
        let conflicts = plan.conflicts().into_iter();
        let conflicts = conflicts.map(|(kind, it)| format!("{kind}: {it}"));
        let replaced = plan.replaced().into_iter();
        let replaced = replaced.map(|(kind, it)| format!("replaced in {kind}: {it}"));
        conflicts.chain(replaced).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn podwire_s_own_configurations_are_what_it_needs() {
        for cell in Cell::all() {
            let mut plan = plan(cell.bootstrap, &[]);
            plan.cell = cell;
            let own = plan.merged().into_iter();
            let own = own.map(|(kind, merged)| (kind, merged.config));
            // What a node is told alone is none of the others'.
            let own = own.filter(|(kind, _)| {
                *kind != Kind::KubeProxy || cell.bootstrap == Bootstrap::Kubeadm
            });
            let given = Configurations(own.collect());
            let again = plan.clone().with_configurations(given);
            assert_eq!(told(&again), "", "{cell}");
            for stage in plan.stages() {
                let same = plan.key(*stage).ok() == again.key(*stage).ok();
                assert!(same, "{cell}: {stage}");
            }
        }
    }

    #[test]
    fn by_hand_what_a_node_needs_is_told_once_and_what_is_for_idle_nodes_may_be_replaced() {
        let kubelet = json!({
            "maxPods": 7,
            "nodeLeaseDurationSeconds": 40,
            "evictionHard": { "memory.available": "50Mi" },
            "cgroupDriver": "cgroupfs",
            "clusterDNS": ["10.96.0.10"],
            "authentication": { "anonymous": { "enabled": true } },
            "tlsCertFile": "",
        });
        let proxy = json!({
            "mode": "iptables",
            "clusterCIDR": "10.1.0.0/16",
            "hostnameOverride": "node1",
            "conntrack": { "tcpEstablishedTimeout": "1h" },
        });
        let cluster = json!({ "imageRepository": "mirror.example" });
        let given = [
            (Kind::Kubelet, kubelet),
            (Kind::KubeProxy, proxy),
            (Kind::Cluster, cluster),
        ];
        insta::assert_snapshot!(told(&plan(Bootstrap::ByHand, &given)), @r#"
        KubeletConfiguration: cgroupDriver is "cgroupfs", and podwire needs "systemd", since containerd has systemd make its cgroups
        KubeletConfiguration: authentication.anonymous.enabled is true, and podwire needs false, since scenarios look at who may ask a kubelet
        KubeletConfiguration: tlsCertFile is "", and podwire needs "/etc/kubernetes/pki/kubelet.crt", since the node's certificate is there
        KubeProxyConfiguration: mode is "iptables", and podwire needs "nftables", since the cell is named by it (--kube-proxy)
        KubeProxyConfiguration: clusterCIDR is "10.1.0.0/16", and podwire needs "", since no node here knows a range of all Pods
        KubeProxyConfiguration: hostnameOverride is "node1", and podwire needs "node2", since each node has its own name
        replaced in KubeletConfiguration: evictionHard.memory.available: "50Mi", not "0%"
        replaced in KubeletConfiguration: nodeLeaseDurationSeconds: 40, not 120
        "#);
        insta::assert_snapshot!(told(&plan(Bootstrap::Kubeadm, &given)), @r#"
        ClusterConfiguration: imageRepository is "mirror.example", and podwire needs "registry.k8s.io", since the nodes have the images under its names, and reach no registry
        KubeletConfiguration: cgroupDriver is "cgroupfs", and podwire needs "systemd", since containerd has systemd make its cgroups
        KubeletConfiguration: authentication.anonymous.enabled is true, and podwire needs false, since scenarios look at who may ask a kubelet
        KubeletConfiguration: clusterDNS is ["10.96.0.10"], and podwire needs ["10.0.0.10"], since kubeadm gives that address to CoreDNS
        KubeProxyConfiguration: mode is "iptables", and podwire needs "nftables", since the cell is named by it (--kube-proxy)
        KubeProxyConfiguration: hostnameOverride is "node1", and podwire needs nothing, since kubeadm gives each node's name by a flag
        replaced in KubeletConfiguration: evictionHard.memory.available: "50Mi", not "0%"
        replaced in KubeletConfiguration: nodeLeaseDurationSeconds: 40, not 120
        "#);
    }

    #[test]
    fn of_kubeadm_s_own_what_the_cell_and_the_token_say_is_needed() {
        let init = json!({
            "bootstrapTokens": [{ "token": "abcdef.0123456789abcdef" }],
            "nodeRegistration": {
                "taints": [],
                "kubeletExtraArgs": [{ "name": "v", "value": "4" }],
            },
        });
        let cluster = json!({
            "kubernetesVersion": "v1.35.0",
            "networking": { "podSubnet": "10.244.0.0/16", "dnsDomain": "cluster.local" },
            "apiServer": { "certSANs": ["api.example"] },
            "scheduler": { "extraArgs": [{ "name": "profiling", "value": "true" }] },
        });
        let join = json!({
            "discovery": { "file": { "kubeConfigPath": "/root/discovery.conf" } },
            "nodeRegistration": { "name": "worker" },
            "timeouts": { "discovery": "60s" },
        });
        let given = [
            (Kind::Init, init),
            (Kind::Cluster, cluster),
            (Kind::Join, join),
        ];
        insta::assert_snapshot!(told(&plan(Bootstrap::Kubeadm, &given)), @r#"
        InitConfiguration: bootstrapTokens is [{"token":"abcdef.0123456789abcdef"}], and podwire needs [{"groups":["system:bootstrappers:kubeadm:default-node-token"],"token":"podwir.0123456789abcdef","ttl":"23h59m0s","usages":["signing","authentication"]}], since the other nodes join with that one
        InitConfiguration: nodeRegistration.taints is [], and podwire needs [{"effect":"NoSchedule","key":"node-role.kubernetes.io/control-plane"}], since kubeadm taints node1 so by itself, and the stage workload takes that taint away
        ClusterConfiguration: kubernetesVersion is "v1.35.0", and podwire needs "v1.36.4", since the nodes have its programs and images (--kubernetes)
        ClusterConfiguration: networking.podSubnet is "10.244.0.0/16", and podwire needs "10.1.0.0/16", since the Pod network is set up for it (--pod-network)
        JoinConfiguration: nodeRegistration.name is "worker", and podwire needs "node2", since each node has its own name
        JoinConfiguration: discovery.file is {"kubeConfigPath":"/root/discovery.conf"}, and podwire needs nothing, since nodes join as the command says that kubeadm init prints
        replaced in ClusterConfiguration: scheduler.extraArgs.profiling: "true", not "false"
        replaced in JoinConfiguration: timeouts.discovery: "60s", not "1200s"
        "#);
        assert_eq!(told(&plan(Bootstrap::ByHand, &given)), "");
    }

    #[test]
    fn each_kind_makes_other_stages_from_where_it_is_read_on() {
        let first = |bootstrap, kind: Kind, given: Value| {
            let own = plan(bootstrap, &[]);
            let other = plan(bootstrap, &[(kind, given)]);
            let mut stages = own.stages().iter();
            let differs = |it: &&StageName| own.key(**it).unwrap() != other.key(**it).unwrap();
            stages.find(differs).copied()
        };
        let anything = || json!({ "anything": 1 });
        for bootstrap in Bootstrap::ALL {
            for kind in Kind::ALL {
                let says_nothing = json!({ "kind": kind.name(), "apiVersion": kind.api_version() });
                assert_eq!(first(bootstrap, kind, says_nothing), None, "{kind}");
            }
        }
        let by_hand = |kind| first(Bootstrap::ByHand, kind, anything());
        let kubeadm = |kind| first(Bootstrap::Kubeadm, kind, anything());
        for kind in [Kind::Kubelet, Kind::KubeProxy] {
            assert_eq!(by_hand(kind), Some(StageName::Joined));
            assert_eq!(kubeadm(kind), Some(StageName::Init));
        }
        for kind in [Kind::Init, Kind::Cluster, Kind::Join] {
            assert_eq!(by_hand(kind), None);
        }
        assert_eq!(kubeadm(Kind::Init), Some(StageName::Init));
        assert_eq!(kubeadm(Kind::Cluster), Some(StageName::Init));
        assert_eq!(kubeadm(Kind::Join), Some(StageName::Joined));
    }
}
