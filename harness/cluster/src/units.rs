//! systemd units of every component, and where its files are.

use crate::addresses::{PODS, SERVICES, node_address, node_name};
use crate::cell::PodNetwork;
use crate::config;
use crate::kubeconfig;
use crate::settings::{DAEMON_START, NODE_MONITOR_GRACE, Settings};

/// The authority's certificate, on every node.
pub const CA_CERTIFICATE: &str = "/etc/kubernetes/pki/ca.crt";
/// The API server's certificate, on node 1. It is read again when it changes.
pub const SERVING_CERTIFICATE: &str = "/etc/kubernetes/pki/apiserver.crt";
/// Its key.
pub const SERVING_KEY: &str = "/etc/kubernetes/pki/apiserver.key";
/// What the API server shows to kubelets, on node 1.
pub const KUBELET_CLIENT_CERTIFICATE: &str = "/etc/kubernetes/pki/apiserver-kubelet-client.crt";
/// Its key.
pub const KUBELET_CLIENT_KEY: &str = "/etc/kubernetes/pki/apiserver-kubelet-client.key";
/// The key that signs ServiceAccount tokens, on node 1.
pub const TOKEN_KEY: &str = "/etc/kubernetes/pki/sa.key";
/// The key that verifies them.
pub const TOKEN_PUBLIC_KEY: &str = "/etc/kubernetes/pki/sa.pub";
/// The kubelet's certificate, on every node; it both dials and serves with it.
pub const NODE_CERTIFICATE: &str = "/etc/kubernetes/pki/kubelet.crt";
/// Its key.
pub const NODE_KEY: &str = "/etc/kubernetes/pki/kubelet.key";

/// Takes the place of the drop-in of the kubelet's package, of the same name (systemd.unit(5)).
pub const NO_DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
/// Kernel modules, sysctls and the masquerade rule; once per boot, on every node.
pub const NETWORK: &str = "node-network.service";
/// The engine: its package's own unit.
pub const CONTAINERD: &str = "containerd.service";
/// What changes that unit on an emulated node.
pub const CONTAINERD_DROP_IN: &str = "/etc/systemd/system/containerd.service.d/podwire.conf";
/// Its text: the node image has this configuration beside the usual one. Containers start by crun in
/// it, where the image has one that fits its containerd.
pub const EMULATED_CONTAINERD: &str = "\
[Service]
ExecStart=
ExecStart=/usr/bin/containerd --config /etc/containerd/emulated.toml
";
/// The node's agent.
pub const KUBELET: &str = "kubelet.service";
/// Written, and never started by the bootstrap.
pub const KUBE_PROXY: &str = "kube-proxy.service";
/// Key-value store, on node 1.
pub const ETCD: &str = "etcd.service";
/// API server, on node 1.
pub const API_SERVER: &str = "kube-apiserver.service";
/// Controller manager, on node 1.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager.service";
/// Scheduler, on node 1.
pub const SCHEDULER: &str = "kube-scheduler.service";

/// A unit file: its name and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// File name under /etc/systemd/system.
    pub name: &'static str,
    /// Its content.
    pub text: String,
}

impl Unit {
    /// `/etc/systemd/system/NAME`.
    pub fn path(&self) -> String {
        format!("/etc/systemd/system/{}", self.name)
    }
}

/// Whether a daemon tells systemd that it is ready (sd_notify(3)).
enum Readiness {
    Told,
    NotTold,
}

struct Daemon<'a> {
    name: &'static str,
    about: &'a str,
    after: &'a [&'a str],
    readiness: Readiness,
    command: Vec<String>,
}

impl Daemon<'_> {
    fn unit(self, settings: Settings) -> Unit {
        let kind = match self.readiness {
            Readiness::Told => "notify",
            Readiness::NotTold => "exec",
        };
        let after = match self.after {
            [] => String::new(),
            units => format!("After={}\n", units.join(" ")),
        };
        let start = settings.idle(format!("TimeoutStartSec={DAEMON_START}\n"));
        let text = format!(
            "\
[Unit]
Description={about}
{after}StartLimitIntervalSec=0

[Service]
Type={kind}
ExecStart={command}
Restart=on-failure
RestartSec=1
{start}LimitNOFILE=65536
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
",
            about = self.about,
            command = self.command.join(" \\\n    "),
            start = start.unwrap_or_default(),
        );
        Unit {
            name: self.name,
            text,
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Arguments that only an emulated component gets.
fn idle(settings: Settings, arguments: &[&str]) -> Vec<String> {
    words(settings.idle(arguments).unwrap_or_default())
}

/// Controllers for what no cluster here has: quotas, volumes, autoscalers, resource claims. Each ticks
/// twice a second per queue, and quotas read the whole discovery every half minute.
pub(crate) const IDLERS: [&str; 14] = [
    "resourcequota-controller",
    "horizontal-pod-autoscaler-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
    "ephemeral-volume-controller",
    "volumeattributesclass-protection-controller",
    "ttl-controller",
    "resourceclaim-controller",
    "device-taint-eviction-controller",
    "storage-version-migrator-controller",
    "legacy-serviceaccount-token-cleaner-controller",
];

/// Those for certificate requests, of which only a cluster by hand has none.
const CERTIFICATE_REQUESTS: [&str; 3] = [
    "certificatesigningrequest-signing-controller",
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
];

/// `--controllers` without those.
pub(crate) fn without<'a>(controllers: impl IntoIterator<Item = &'a &'a str>) -> String {
    controllers
        .into_iter()
        .map(|name| format!(",-{name}"))
        .collect()
}

/// The units of node 1 beside those of every node, in the order of their start.
pub fn control_plane(network: PodNetwork, settings: Settings) -> Vec<Unit> {
    let etcd = Daemon {
        name: ETCD,
        about: "etcd: the cluster's state",
        after: &[],
        readiness: Readiness::Told,
        command: [
            words(&[
                "/usr/local/bin/etcd",
                "--data-dir=/var/lib/etcd",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                // A stage's disk is frozen whole or thrown away: flushing it protects nothing.
                "--unsafe-no-fsync",
            ]),
            idle(
                settings,
                &[
                    // A single member has nobody to keep in step with: it only wakes up for it.
                    "--heartbeat-interval=1000",
                    "--election-timeout=10000",
                    "--log-level=warn",
                ],
            ),
        ]
        .concat(),
    };
    let api_server = Daemon {
        name: API_SERVER,
        about: "Kubernetes API server",
        after: &[ETCD],
        readiness: Readiness::NotTold,
        command: [
            words(&["/usr/local/bin/kube-apiserver", "--bind-address=0.0.0.0"]),
            vec![
                format!("--advertise-address={}", node_address(1)),
                format!("--service-cluster-ip-range={SERVICES}"),
                format!("--client-ca-file={CA_CERTIFICATE}"),
                format!("--tls-cert-file={SERVING_CERTIFICATE}"),
                format!("--tls-private-key-file={SERVING_KEY}"),
                format!("--kubelet-certificate-authority={CA_CERTIFICATE}"),
                format!("--kubelet-client-certificate={KUBELET_CLIENT_CERTIFICATE}"),
                format!("--kubelet-client-key={KUBELET_CLIENT_KEY}"),
                format!("--service-account-key-file={TOKEN_PUBLIC_KEY}"),
                format!("--service-account-signing-key-file={TOKEN_KEY}"),
            ],
            words(&[
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--etcd-servers=http://127.0.0.1:2379",
                "--kubelet-preferred-address-types=InternalIP",
            ]),
            idle(
                settings,
                &[
                    "--profiling=false",
                    "--enable-priority-and-fairness=false",
                    // Every kind of object's cache ticks several times a second, whether anybody
                    // asks or not; the few clients here are served by etcd as fast.
                    "--watch-cache=false",
                ],
            ),
        ]
        .concat(),
    };
    let allocation = match network.allocates() {
        true => vec![
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={PODS}"),
        ],
        false => Vec::new(),
    };
    let controller_manager = Daemon {
        name: CONTROLLER_MANAGER,
        about: "Kubernetes controller manager",
        after: &[API_SERVER],
        readiness: Readiness::NotTold,
        command: [
            vec![
                "/usr/local/bin/kube-controller-manager".into(),
                format!("--kubeconfig={}", kubeconfig::CONTROLLER_MANAGER_PATH),
                format!("--root-ca-file={CA_CERTIFICATE}"),
                format!("--service-account-private-key-file={TOKEN_KEY}"),
                "--use-service-account-credentials=true".into(),
            ],
            allocation,
            idle(
                settings,
                &[
                    // A busy emulated processor lets a lease expire, and whoever loses it ends.
                    "--leader-elect=false",
                    "--profiling=false",
                    &format!(
                        "--controllers=*{}",
                        without(IDLERS.iter().chain(&CERTIFICATE_REQUESTS))
                    ),
                    &format!("--node-monitor-grace-period={NODE_MONITOR_GRACE}s"),
                ],
            ),
        ]
        .concat(),
    };
    let scheduler = Daemon {
        name: SCHEDULER,
        about: "Kubernetes scheduler",
        after: &[API_SERVER],
        readiness: Readiness::NotTold,
        command: [
            vec![
                "/usr/local/bin/kube-scheduler".into(),
                format!("--kubeconfig={}", kubeconfig::SCHEDULER_PATH),
            ],
            idle(settings, &["--leader-elect=false", "--profiling=false"]),
        ]
        .concat(),
    };
    [etcd, api_server, controller_manager, scheduler]
        .map(|daemon| daemon.unit(settings))
        .into()
}

/// The units of every node.
pub fn node(number: u32, settings: Settings) -> Vec<Unit> {
    let kubelet = Daemon {
        name: KUBELET,
        about: "Kubernetes node agent",
        after: &[CONTAINERD, NETWORK],
        readiness: Readiness::NotTold,
        command: [
            vec![
                "/usr/bin/kubelet".into(),
                format!("--config={}", config::KUBELET_PATH),
                format!("--kubeconfig={}", kubeconfig::KUBELET_PATH),
                format!("--hostname-override={}", node_name(number)),
                format!("--node-ip={}", node_address(number)),
            ],
            // Nothing here reads what it counts in every container's cgroup.
            idle(settings, &["--housekeeping-interval=60s"]),
        ]
        .concat(),
    };
    let kube_proxy = Daemon {
        name: KUBE_PROXY,
        about: "Kubernetes Service proxy",
        after: &[NETWORK],
        readiness: Readiness::NotTold,
        command: vec![
            "/usr/local/bin/kube-proxy".into(),
            format!("--config={}", config::KUBE_PROXY_CONFIG_PATH),
        ],
    };
    vec![kubelet.unit(settings), kube_proxy.unit(settings)]
}

/// What a node's kernel needs for Pods: [`NETWORK`]. With static routes it hides Pods from the
/// outside as well; another Pod network does that by itself.
pub fn network(network: PodNetwork) -> Unit {
    let (modules, masquerade) = match network {
        PodNetwork::Routes => (
            "overlay br_netfilter",
            format!(
                "ExecStart=/usr/sbin/nft -f {}\n",
                crate::cni::MASQUERADE_PATH
            ),
        ),
        PodNetwork::Flannel(_) | PodNetwork::Manifest => {
            ("overlay br_netfilter vxlan", String::new())
        }
    };
    let text = format!(
        "\
[Unit]
Description=Kernel modules, sysctls and the masquerade rule of a Kubernetes node

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/modprobe -a {modules}
ExecStart=/sbin/sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
{masquerade}
[Install]
WantedBy=multi-user.target
"
    );
    Unit {
        name: NETWORK,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::FlannelBackend;

    fn shown(units: &[Unit]) -> String {
        let shown = units
            .iter()
            .map(|unit| format!("# {}\n{}", unit.path(), unit.text));
        shown.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_components_are_started_as_meant_in_each_class() {
        for (settings, class) in [(Settings::OwnDefaults, "kvm"), (Settings::Idle, "tcg")] {
            let control_plane = control_plane(PodNetwork::Routes, settings);
            insta::assert_snapshot!(format!("control-plane-{class}"), shown(&control_plane));
            insta::assert_snapshot!(format!("node-{class}"), shown(&node(2, settings)));
        }
    }

    #[test]
    fn a_node_s_kernel_is_set_up_as_meant() {
        let first = network(PodNetwork::Routes);
        insta::assert_snapshot!(shown(&[first]), @r"
        # /etc/systemd/system/node-network.service
        [Unit]
        Description=Kernel modules, sysctls and the masquerade rule of a Kubernetes node

        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/sbin/modprobe -a overlay br_netfilter
        ExecStart=/sbin/sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
        ExecStart=/usr/sbin/nft -f /etc/kubernetes/masquerade.nft

        [Install]
        WantedBy=multi-user.target
        ");
        let flannel = network(PodNetwork::Flannel(FlannelBackend::Vxlan)).text;
        assert!(flannel.contains("br_netfilter vxlan\n") && !flannel.contains("nft"));
    }

    #[test]
    fn the_image_has_what_an_emulated_node_s_containerd_reads() {
        let path = "/etc/containerd/emulated.toml";
        assert!(EMULATED_CONTAINERD.contains(&format!(" --config {path}\n")));
        let recipe = include_str!("../../../images/recipes/node.toml");
        assert!(recipe.contains(&format!("path = \"{path}\"\n")));
    }
}
