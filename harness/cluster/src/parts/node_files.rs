//! What is written onto a node on the way to a cluster by hand, and before kubeadm.

use super::cni;
use super::component::{self, Component};
use super::config;
use super::file::{NodeFile, public, secret};
use super::kubeconfig;
use super::pki::{Identity, Pki};
use super::units;
use crate::plan::addresses::pod_range;
use crate::plan::breaks::Break;
use crate::plan::cell::{Cell, PodNetwork};
use crate::plan::cluster_plan::ClusterPlan;
use crate::plan::ip_families::{IpFamilies, pod_range_v6};
use crate::plan::settings::Settings;

fn embedded(path: &str, pki: &Pki, identity: &Identity) -> NodeFile {
    let server = kubeconfig::server();
    secret(
        path,
        kubeconfig::embedded(&server, &pki.ca.certificate, identity),
    )
}

/// What a node has before any part of Kubernetes, whoever bootstraps the cluster: its kernel's set-up
/// and its engine's.
pub fn prepared(cell: Cell, settings: Settings) -> Vec<NodeFile> {
    let unit = units::network(cell.network, cell.ip_families);
    let mut files = vec![public(unit.path(), unit.text)];
    files.extend(component::containerd(settings).files());
    if cell.network == PodNetwork::Routes {
        files.push(public(cni::MASQUERADE_PATH, cni::masquerade(cell.layout)));
    }
    files
}

/// What node 1 gets before its control plane starts, in a stable order.
pub fn control_plane(pki: &Pki, cell: Cell, settings: Settings) -> Vec<NodeFile> {
    let mut files = vec![
        public(units::CA_CERTIFICATE, &pki.ca.certificate),
        public(units::SERVING_CERTIFICATE, &pki.serving.certificate),
        secret(units::SERVING_KEY, &pki.serving.key),
        public(
            units::KUBELET_CLIENT_CERTIFICATE,
            &pki.kubelet_client.certificate,
        ),
        secret(units::KUBELET_CLIENT_KEY, &pki.kubelet_client.key),
        secret(units::TOKEN_KEY, &pki.tokens.private),
        public(units::TOKEN_PUBLIC_KEY, &pki.tokens.public),
        embedded(
            kubeconfig::CONTROLLER_MANAGER_PATH,
            pki,
            &pki.controller_manager,
        ),
        embedded(kubeconfig::SCHEDULER_PATH, pki, &pki.scheduler),
        embedded(kubeconfig::ADMIN_PATH, pki, &pki.admin),
    ];
    let components = component::control_plane(cell.network, cell.ip_families, settings);
    files.extend(components.iter().flat_map(Component::files));
    files
}

/// What a node gets before its kubelet starts, in a stable order.
pub(crate) fn node(number: u32, pki: &Pki, plan: &ClusterPlan) -> Vec<NodeFile> {
    let (cell, given) = (plan.cell, &plan.configurations);
    let settings = Settings::of(plan.accelerator);
    let kubelet = config::kubelet(settings, given, plan.cluster_dns);
    let kube_proxy = config::kube_proxy(number, cell, given);
    let mut files = prepared(cell, settings);
    files.extend([
        public(units::CA_CERTIFICATE, &pki.ca.certificate),
        public(config::KUBELET_PATH, kubelet.text()),
        public(config::KUBE_PROXY_CONFIG_PATH, kube_proxy.text()),
        embedded(kubeconfig::KUBE_PROXY_PATH, pki, &pki.kube_proxy),
        // The kubelet complains every second while the folder is missing, and skips dotfiles.
        public(format!("{}/.keep", config::STATIC_PODS), ""),
    ]);
    if let Some(identity) = pki.node(number) {
        files.extend([
            public(units::NODE_CERTIFICATE, &identity.certificate),
            secret(units::NODE_KEY, &identity.key),
            embedded(kubeconfig::KUBELET_PATH, pki, identity),
        ]);
    }
    let components = [
        component::kubelet(
            number,
            cell.layout.address(number),
            cell.ip_families,
            settings,
        ),
        component::kube_proxy(settings),
    ];
    files.extend(components.iter().flat_map(Component::files));
    files
}

/// A node's Pod network: one bridge with the node's own range.
pub fn pod_network(number: u32, families: IpFamilies, broken: Option<Break>) -> NodeFile {
    let number = match broken {
        Some(Break::PodRange) => 1,
        _ => number,
    };
    let (first, second) = (pod_range(number), pod_range_v6(number));
    let config = match families {
        IpFamilies::Ipv4 => cni::bridge(first),
        IpFamilies::Dual => cni::dual_stack_bridge(first, second),
    };
    public(cni::PATH, config)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use podwire_vm::Accelerator;

    use super::*;
    use crate::plan::cell::Bootstrap;
    use crate::plan::cluster_plan::ImageFiles;

    fn cell() -> Cell {
        Cell::usual(Bootstrap::ByHand)
    }

    fn plan() -> ClusterPlan {
        let image = ImageFiles::default();
        ClusterPlan::new(2, cell(), "1.36.4", &image, Accelerator::Tcg, "", "", None).unwrap()
    }

    fn nodes() -> [Ipv4Addr; 2] {
        [1, 2].map(|number| cell().layout.address(number))
    }

    fn all(pki: &Pki) -> Vec<NodeFile> {
        let mut files = control_plane(pki, cell(), Settings::Idle);
        files.extend(node(2, pki, &plan()));
        files.push(pod_network(2, IpFamilies::Ipv4, None));
        files
    }

    fn list(files: &[NodeFile]) -> String {
        let lines = files
            .iter()
            .map(|file| format!("{:o} {}", file.mode, file.path));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_node_gets_its_files() {
        let pki = Pki::placeholder(&nodes(), None);
        insta::assert_snapshot!(list(&control_plane(&pki, cell(), Settings::Idle)), @r"
        644 /etc/kubernetes/pki/ca.crt
        644 /etc/kubernetes/pki/apiserver.crt
        600 /etc/kubernetes/pki/apiserver.key
        644 /etc/kubernetes/pki/apiserver-kubelet-client.crt
        600 /etc/kubernetes/pki/apiserver-kubelet-client.key
        600 /etc/kubernetes/pki/sa.key
        644 /etc/kubernetes/pki/sa.pub
        600 /etc/kubernetes/controller-manager.conf
        600 /etc/kubernetes/scheduler.conf
        600 /root/.kube/config
        644 /etc/systemd/system/etcd.service
        644 /etc/systemd/system/kube-apiserver.service
        644 /etc/systemd/system/kube-controller-manager.service
        644 /etc/systemd/system/kube-scheduler.service
        ");
        insta::assert_snapshot!(list(&node(2, &pki, &plan())), @r"
        644 /etc/systemd/system/node-network.service
        644 /etc/systemd/system/containerd.service.d/podwire.conf
        644 /etc/kubernetes/masquerade.nft
        644 /etc/kubernetes/pki/ca.crt
        644 /etc/kubernetes/kubelet.json
        644 /etc/kubernetes/kube-proxy.json
        600 /etc/kubernetes/kube-proxy.conf
        644 /etc/kubernetes/manifests/.keep
        644 /etc/kubernetes/pki/kubelet.crt
        600 /etc/kubernetes/pki/kubelet.key
        600 /etc/kubernetes/kubelet.conf
        644 /etc/systemd/system/kubelet.service.d/10-kubeadm.conf
        644 /etc/systemd/system/kubelet.service
        644 /etc/systemd/system/kube-proxy.service
        ");
    }

    #[test]
    fn only_an_emulated_node_s_containerd_is_told_which_configuration_to_read() {
        let of = |settings| {
            let files = prepared(cell(), settings).into_iter();
            files.map(|file| file.path).collect::<Vec<_>>()
        };
        assert_eq!(
            of(Settings::OwnDefaults),
            [
                "/etc/systemd/system/node-network.service",
                cni::MASQUERADE_PATH
            ]
        );
        let mut emulated = of(Settings::Idle);
        let drop_in = emulated.remove(1);
        assert!(drop_in.ends_with(units::CONTAINERD_DROP_IN), "{drop_in}");
        assert_eq!(emulated, of(Settings::OwnDefaults));
    }

    #[test]
    fn no_key_is_readable_for_others() {
        for file in all(&Pki::placeholder(&nodes(), None)) {
            let holds_key = file.path.ends_with(".key") || file.text.contains("client-key-data");
            assert_eq!(holds_key, file.mode == 0o600, "{}", file.path);
        }
    }

    #[test]
    fn the_break_gives_every_node_the_first_range() {
        let broken = Some(Break::PodRange);
        for families in IpFamilies::ALL {
            let file = |number, broken| pod_network(number, families, broken);
            assert_eq!(file(1, broken), file(1, None));
            assert_eq!(file(2, broken), file(1, None));
            assert_ne!(file(2, None), file(1, None));
        }
    }
}
