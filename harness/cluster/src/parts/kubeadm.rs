//! What kubeadm is told: its configuration (kubeadm.k8s.io/v1beta4) and the commands of a person who
//! follows its documentation. Streams of JSON documents, which every reader of YAML takes.

use std::fmt;

use serde_json::{Value, json};

use super::component;
use super::config::{self, CLUSTER_DOMAIN, CRI_SOCKET};
use super::file::{NodeFile, secret};
use super::merge::{Merged, Need, merge};
use crate::plan::addresses::{API_PORT, PODS, SERVICES, api_address, node_name};
use crate::plan::cell::Cell;
use crate::plan::configurations::{Configurations, Kind};
use crate::plan::ip_families::{PODS_V6, SERVICES_V6, node_address_v6};
use crate::plan::layout::Layout;
use crate::plan::settings::{
    GO_MAX_PROCS, KUBEADM, LIVENESS_PERIOD, NODE_MONITOR_GRACE, READINESS_PERIOD, Settings,
};

/// What `kubeadm init` is given, on node 1.
pub const INIT_CONFIG: &str = "/root/podwire/init.json";
/// What it said.
pub const INIT_LOG: &str = "/root/podwire/init.log";
/// What changes the static Pods' manifests, on node 1 (kubeadm's `patches.directory`).
pub const PATCHES: &str = "/root/podwire/patches";
/// What `kubeadm join` is given, on every other node.
pub const JOIN_CONFIG: &str = "/root/podwire/join.json";
/// What it said.
pub const JOIN_LOG: &str = "/root/podwire/join.log";
/// The administrator's kubeconfig, on node 1.
pub const ADMIN_CONFIG: &str = "/etc/kubernetes/admin.conf";
/// The first bootstrap token: fixed, so that a stage's key says what is in it. It is valid for a
/// day of the guests' clocks, in clusters that nobody outside can reach.
pub const TOKEN: &str = "podwir.0123456789abcdef";

/// Keeps ordinary Pods off a control plane.
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// What a person does on every node before kubeadm: engine and network on, kubelet at every boot.
pub const PREPARE: &str =
    "systemctl enable --now node-network containerd && systemctl enable kubelet";

/// `kubeadm init` as [`INIT_CONFIG`] says, with more flags: `["--upload-certs"]`. Runs on node 1; ends with
/// kubeadm's own last words when it fails.
pub fn init(flags: &[&str]) -> String {
    let flags: String = flags.iter().map(|flag| format!(" {flag}")).collect();
    format!(
        "set -o pipefail; \
         kubeadm init --config {INIT_CONFIG}{flags} 2>&1 | tee {INIT_LOG} || \
         {{ tail -n 60 {INIT_LOG} >&2; exit 1; }}; \
         mkdir -p /root/.kube && cp {ADMIN_CONFIG} /root/.kube/config"
    )
}

/// `kubeadm join` as [`JOIN_CONFIG`] says; ends with kubeadm's own last words when it fails.
pub const JOIN: &str = "set -o pipefail; \
kubeadm join --config /root/podwire/join.json 2>&1 | tee /root/podwire/join.log || \
{ tail -n 60 /root/podwire/join.log >&2; exit 1; }";

/// Prints the administrator's kubeconfig, with everything in it, as JSON.
pub(crate) const SHOW_ADMIN: &str =
    "kubectl config view --raw --output json --kubeconfig /etc/kubernetes/admin.conf";

/// Node 1 without the taint that keeps other Pods off it, to be applied: what `kubectl taint` changes, without the
/// minute that kubectl's look at all that the API serves takes on a slow host, where its own limits end it.
pub(crate) fn untainted() -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" }, "spec": { "taints": [] } })
}

/// What kubeadm is told of a cluster that is not its own, for [`APPLY_CORE_DNS`]. Without a version it would ask for
/// one on the internet; where it finds the cluster's authority, it wants kubeconfigs of its own beside it.
pub(crate) fn core_dns_file(kubernetes: &str) -> NodeFile {
    let config = json!({
        "apiVersion": API,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": format!("v{kubernetes}"),
        "certificatesDir": "/root/podwire/no-certificates",
        "networking": { "serviceSubnet": SERVICES.to_string(), "dnsDomain": CLUSTER_DOMAIN },
    });
    secret("/root/podwire/core-dns.json", format!("{config:#}\n"))
}

/// Has kubeadm print what it would apply of CoreDNS, and applies that. Runs on node 1.
pub(crate) const APPLY_CORE_DNS: &str = "cd /root/podwire && \
kubeadm init phase addon coredns --config core-dns.json --print-manifest > core-dns.yaml && \
kubectl apply --server-side --validate=false -f core-dns.yaml";

/// `kubeadm upgrade apply`, with the patches that `kubeadm init` was given, where it was: it keeps the
/// configuration in the cluster, and these nowhere.
pub fn upgrade_apply(arguments: &str, settings: Settings) -> String {
    let patches = settings.idle(PATCHES);
    let patches = patches.map(|folder| format!(" --patches {folder}"));
    format!(
        "kubeadm upgrade apply {arguments}{}",
        patches.unwrap_or_default()
    )
}

/// A worker's part of [`crate::parts::node_files`].
pub(crate) fn join_file(
    number: u32,
    cell: Cell,
    ca_hash: &str,
    settings: Settings,
    given: &Configurations,
) -> NodeFile {
    let told = join_config(number, cell, ca_hash, settings, given);
    secret(JOIN_CONFIG, told.text())
}

/// Node 1's: what `kubeadm init` is told, and what changes the manifests that it writes.
pub fn init_files(
    kubernetes: &str,
    cell: Cell,
    settings: Settings,
    given: &Configurations,
) -> Vec<NodeFile> {
    let config = init_config(kubernetes, cell, settings, given);
    std::iter::once(secret(INIT_CONFIG, config))
        .chain(patches(cell.layout, settings))
        .collect()
}

/// What changes the manifests of a control plane node's static Pods, in [`PATCHES`].
pub fn patches(layout: Layout, settings: Settings) -> impl Iterator<Item = NodeFile> {
    let patched = settings.idle(PATCHED).into_iter().flatten();
    patched.map(move |(component, has_readiness)| {
        let path = format!("{PATCHES}/{component}+strategic.json");
        secret(path, patch(component, has_readiness, layout))
    })
}

/// The static Pods, and whether kubeadm gives them a readiness probe.
const PATCHED: [(&str, bool); 4] = [
    ("etcd", true),
    ("kube-apiserver", true),
    ("kube-controller-manager", false),
    ("kube-scheduler", true),
];

/// What the control plane's emulated static Pods ask for, each; their own 100 to 250 thousandths of a
/// processor give them 26 times the weight of kube-proxy and flannel, which ask for nothing and, on a
/// node that is busy for minutes, then stand still as long.
const REQUEST: &str = "10m";

/// How many probes may fail where several control planes share few processors: while one joins, an API server of
/// another may be slow for minutes, and is slower yet, with all others, when it is started anew for that.
const AMONG_SEVERAL: u32 = 60;

/// A patch of an emulated static Pod's manifest: its weight, its threads, and how often it is probed.
/// Each probe of three of them is a TLS handshake, which at one a second keeps a tenth of an emulated
/// processor busy each.
fn patch(component: &str, has_readiness: bool, layout: Layout) -> String {
    let mut container = json!({
        "name": component,
        // A container has none of the variables of the daemon that starts it.
        "env": [{ "name": "GOMAXPROCS", "value": GO_MAX_PROCS.to_string() }],
        "livenessProbe": { "periodSeconds": LIVENESS_PERIOD },
        "resources": { "requests": { "cpu": REQUEST } },
    });
    if has_readiness {
        container["readinessProbe"] = json!({ "periodSeconds": READINESS_PERIOD });
    }
    if layout == Layout::ControlPlanes {
        for probe in ["livenessProbe", "startupProbe"] {
            container[probe]["failureThreshold"] = AMONG_SEVERAL.into();
        }
    }
    format!("{:#}\n", json!({ "spec": { "containers": [container] } }))
}

/// What `kubeadm init` is told, a stream of [`init_documents`].
pub fn init_config(
    kubernetes: &str,
    cell: Cell,
    settings: Settings,
    given: &Configurations,
) -> String {
    let documents = init_documents(kubernetes, cell, settings, given);
    let documents = documents.map(|(_, merged)| merged.text());
    documents.join("---\n")
}

/// InitConfiguration, ClusterConfiguration, KubeletConfiguration and KubeProxyConfiguration, the user's
/// merged in.
///
/// Keys on elliptic curves, as by hand: an emulated processor draws them in milliseconds, RSA keys in
/// seconds each. Emulated, kubeadm waits longer, by its own `timeouts`, and what a cluster without
/// load never needs, and only costs idle time, is off as in the cluster by hand.
pub(crate) fn init_documents(
    kubernetes: &str,
    cell: Cell,
    settings: Settings,
    given: &Configurations,
) -> [(Kind, Merged); 4] {
    let families = cell.ip_families;
    let mut networking = json!({
        "dnsDomain": CLUSTER_DOMAIN,
        "serviceSubnet": families.listed(SERVICES, SERVICES_V6),
    });
    if cell.network.allocates() {
        networking["podSubnet"] = families.listed(PODS, PODS_V6).into();
    }
    // kubeadm's own two beside the usual ones.
    let controllers = format!(
        "*,bootstrapsigner,tokencleaner{}",
        component::without(&component::IDLERS)
    );
    let grace = format!("{NODE_MONITOR_GRACE}s");
    let idle = |given: &[(&str, &str)]| arguments(settings, &[], given);
    let etcd = arguments(
        settings,
        &[("unsafe-no-fsync", "true")],
        &[
            ("heartbeat-interval", "1000"),
            ("election-timeout", "10000"),
            ("log-level", "warn"),
        ],
    );
    let mut init = json!({
        "apiVersion": API,
        "kind": "InitConfiguration",
        "bootstrapTokens": bootstrap_tokens(),
        "localAPIEndpoint": { "advertiseAddress": api_address(), "bindPort": API_PORT },
        "nodeRegistration": registration(1, cell, settings),
    });
    with_patches(&mut init, settings);
    with_timeouts(&mut init, settings);
    let cluster = json!({
        "apiVersion": API,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": format!("v{kubernetes}"),
        "encryptionAlgorithm": "ECDSA-P256",
        "networking": networking,
        "apiServer": { "extraArgs": idle(&[
            ("profiling", "false"),
            ("enable-priority-and-fairness", "false"),
            ("watch-cache", "false"),
        ]) },
        "controllerManager": { "extraArgs": idle(&[
            ("leader-elect", "false"),
            ("profiling", "false"),
            ("controllers", &controllers),
            ("node-monitor-grace-period", &grace),
        ]) },
        "scheduler": { "extraArgs": idle(&[
            ("leader-elect", "false"),
            ("profiling", "false"),
        ]) },
        "etcd": { "local": { "dataDir": ETCD_DATA, "extraArgs": etcd } },
    });
    let init = merge(init, given.of(Kind::Init), &init_needs(cell));
    let cluster_needs = cluster_needs(kubernetes, cell);
    let cluster = merge(cluster, given.of(Kind::Cluster), &cluster_needs);
    [
        (Kind::Init, init),
        (Kind::Cluster, cluster),
        (Kind::Kubelet, config::kubelet_for_kubeadm(settings, given)),
        (Kind::KubeProxy, config::kube_proxy_for_kubeadm(cell, given)),
    ]
}

fn init_needs(cell: Cell) -> Vec<Need> {
    let mut needs = registration_needs(1, cell);
    let taint = json!([{ "key": CONTROL_PLANE_TAINT, "effect": "NoSchedule" }]);
    needs.extend([
        Need::new(
            &["bootstrapTokens"],
            bootstrap_tokens(),
            "the other nodes join with that one",
        ),
        Need::new(
            &["localAPIEndpoint", "advertiseAddress"],
            json!(api_address()),
            "it is node1's address",
        ),
        Need::new(
            &["localAPIEndpoint", "bindPort"],
            API_PORT,
            "the API server is asked there",
        ),
        Need::new(
            &["nodeRegistration", "taints"],
            taint,
            "kubeadm taints node1 so by itself, and the stage workload takes that taint away",
        ),
    ]);
    needs
}

/// Where kubeadm's etcd has its data.
const ETCD_DATA: &str = "/var/lib/etcd";

fn cluster_needs(kubernetes: &str, cell: Cell) -> Vec<Need> {
    let families = cell.ip_families;
    let pods = match cell.network.allocates() {
        true => families.listed(PODS, PODS_V6).into(),
        false => Value::Null,
    };
    vec![
        Need::new(
            &["kubernetesVersion"],
            format!("v{kubernetes}"),
            "the nodes have its programs and images (--kubernetes)",
        ),
        Need::new(
            &["networking", "podSubnet"],
            pods,
            "the Pod network is set up for it (--pod-network)",
        ),
        Need::new(
            &["networking", "serviceSubnet"],
            families.listed(SERVICES, SERVICES_V6),
            "scenarios ask Services in it",
        ),
        Need::new(
            &["networking", "dnsDomain"],
            CLUSTER_DOMAIN,
            "scenarios ask for names in it",
        ),
        Need::new(
            &["certificatesDir"],
            "/etc/kubernetes/pki",
            "scenarios look there",
        ),
        Need::new(
            &["imageRepository"],
            "registry.k8s.io",
            "the nodes have the images under its names, and reach no registry",
        ),
        Need::new(
            &["etcd", "local", "dataDir"],
            ETCD_DATA,
            "scenarios look there",
        ),
        Need::new(&["etcd", "external"], Value::Null, "etcd runs on node1"),
        Need::new(&["proxy", "disabled"], false, "stages wait for kube-proxy"),
        Need::new(&["dns", "disabled"], false, "stages wait for CoreDNS"),
    ]
}

/// JoinConfiguration of a worker. `ca_hash` is `sha256:` and the digest of the authority's public
/// key, as `kubeadm init` prints it.
pub(crate) fn join_config(
    number: u32,
    cell: Cell,
    ca_hash: &str,
    settings: Settings,
    given: &Configurations,
) -> Merged {
    let endpoint = format!("{}:{API_PORT}", api_address());
    let mut join = json!({
        "apiVersion": API,
        "kind": "JoinConfiguration",
        "discovery": { "bootstrapToken": {
            "token": TOKEN,
            "apiServerEndpoint": endpoint,
            "caCertHashes": [ca_hash],
        } },
        "nodeRegistration": registration(number, cell, settings),
    });
    with_timeouts(&mut join, settings);
    let mut needs = registration_needs(number, cell);
    needs.extend([
        Need::new(&["discovery", "bootstrapToken", "token"], TOKEN, BY_TOKEN),
        Need::new(
            &["discovery", "bootstrapToken", "apiServerEndpoint"],
            endpoint,
            BY_TOKEN,
        ),
        Need::new(
            &["discovery", "bootstrapToken", "caCertHashes"],
            json!([ca_hash]),
            BY_TOKEN,
        ),
        Need::new(&["discovery", "file"], Value::Null, BY_TOKEN),
        Need::new(&["discovery", "tlsBootstrapToken"], TOKEN, BY_TOKEN),
        Need::new(
            &["controlPlane"],
            Value::Null,
            "node1 alone has a control plane",
        ),
    ]);
    merge(join, given.of(Kind::Join), &needs)
}

/// JoinConfiguration of a further control plane node, by the command that `kubeadm init --upload-certs` prints: of a
/// machine that is smaller than kubeadm wants one for that, and that, emulated, is as patient as the first.
pub fn control_plane_join_config(
    number: u32,
    cell: Cell,
    command: &JoinCommand,
    settings: Settings,
) -> String {
    let mut registration = registration(number, cell, settings);
    registration["ignorePreflightErrors"] = json!(["NumCPU", "Mem"]);
    let mut join = json!({
        "apiVersion": API,
        "kind": "JoinConfiguration",
        "discovery": command.discovery(),
        "nodeRegistration": registration,
        "controlPlane": {
            "certificateKey": command.certificate_key,
            "localAPIEndpoint": {
                "advertiseAddress": cell.layout.address(number),
                "bindPort": API_PORT,
            },
        },
    });
    with_patches(&mut join, settings);
    with_timeouts(&mut join, settings);
    format!("{join:#}\n")
}

const BY_TOKEN: &str = "nodes join as the command says that kubeadm init prints";

/// What a node needs to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinCommand {
    /// Address and port of the API server, or of the balancer before several.
    pub endpoint: String,
    /// The bootstrap token.
    pub token: String,
    /// `sha256:` and the digest of the authority's public key.
    pub hash: String,
    /// A control plane node's: what decrypts the certificates that `kubeadm init --upload-certs` has left in the
    /// cluster. A worker has none.
    pub certificate_key: Option<String>,
}

impl JoinCommand {
    /// The command for workers in what kubeadm printed.
    pub fn find(text: &str) -> Option<Self> {
        let mut all = Self::all(text).into_iter();
        all.find(|it| it.certificate_key.is_none())
    }

    /// The command for further control plane nodes in what kubeadm printed, if it has uploaded the certificates.
    pub fn find_for_control_planes(text: &str) -> Option<Self> {
        let mut all = Self::all(text).into_iter();
        all.find(|it| it.certificate_key.is_some())
    }

    /// Control plane nodes join without a key as well, with certificates that somebody has brought them.
    fn all(text: &str) -> Vec<Self> {
        let text = text.replace("\\\n", " ");
        let lines = text
            .lines()
            .filter(|line| line.contains(CONTROL_PLANE) == line.contains(CERTIFICATE_KEY));
        lines.filter_map(Self::parse).collect()
    }

    /// What stands behind `kubeadm join`, which its phases take as well: `kubeadm join phase preflight ARGUMENTS`.
    pub fn arguments(&self) -> String {
        let Self {
            endpoint,
            token,
            hash,
            certificate_key,
        } = self;
        let all = format!("{endpoint} --token {token} --discovery-token-ca-cert-hash {hash}");
        match certificate_key {
            Some(key) => format!("{all} {CONTROL_PLANE} {CERTIFICATE_KEY} {key}"),
            None => all,
        }
    }

    /// `discovery` of a JoinConfiguration that says the same.
    pub fn discovery(&self) -> Value {
        json!({ "bootstrapToken": {
            "token": self.token,
            "apiServerEndpoint": self.endpoint,
            "caCertHashes": [self.hash],
        } })
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["kubeadm", "join", endpoint, rest @ ..] = words.as_slice() else {
            return None;
        };
        let after = |flag: &str| {
            let mut rest = rest.iter();
            rest.find(|word| **word == flag)?;
            rest.next().map(ToString::to_string)
        };
        Some(Self {
            endpoint: (*endpoint).to_owned(),
            token: after("--token")?,
            hash: after("--discovery-token-ca-cert-hash").filter(|it| it.starts_with("sha256:"))?,
            certificate_key: after(CERTIFICATE_KEY),
        })
    }
}

impl fmt::Display for JoinCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kubeadm join {}", self.arguments())
    }
}

const CONTROL_PLANE: &str = "--control-plane";
const CERTIFICATE_KEY: &str = "--certificate-key";

const API: &str = "kubeadm.k8s.io/v1beta4";

/// Arguments of a component: those it needs, and those that it gets only where it is emulated.
fn arguments(settings: Settings, needed: &[(&str, &str)], idle: &[(&str, &str)]) -> Value {
    let idle = settings.idle(idle).unwrap_or_default();
    let all = needed.iter().chain(idle);
    all.map(|(name, value)| json!({ "name": name, "value": value }))
        .collect()
}

fn bootstrap_tokens() -> Value {
    json!([{
        "token": TOKEN,
        "ttl": "23h59m0s",
        "usages": ["signing", "authentication"],
        "groups": ["system:bootstrappers:kubeadm:default-node-token"],
    }])
}

/// A node's addresses, of each family.
fn node_ip(number: u32, cell: Cell) -> String {
    let (first, second) = (cell.layout.address(number), node_address_v6(number));
    cell.ip_families.listed(first, second)
}

/// What is missing shows at once, and no node asks a registry.
const PULL_POLICY: &str = "Never";

fn registration(number: u32, cell: Cell, settings: Settings) -> Value {
    json!({
        "name": node_name(number),
        "criSocket": CRI_SOCKET,
        "imagePullPolicy": PULL_POLICY,
        "kubeletExtraArgs": arguments(
            settings,
            &[("node-ip", &node_ip(number, cell))],
            // Nothing here reads what it counts in every container's cgroup.
            &[("housekeeping-interval", "60s")],
        ),
    })
}

/// Of Init's and Join's configuration.
fn registration_needs(number: u32, cell: Cell) -> Vec<Need> {
    vec![
        Need::new(
            &["nodeRegistration", "name"],
            node_name(number),
            "each node has its own name",
        ),
        Need::new(
            &["nodeRegistration", "criSocket"],
            CRI_SOCKET,
            "containerd listens there",
        ),
        Need::new(
            &["nodeRegistration", "imagePullPolicy"],
            PULL_POLICY,
            "the nodes have all images, and reach no registry",
        ),
        Need::new(
            &["nodeRegistration", "kubeletExtraArgs", "node-ip"],
            node_ip(number, cell),
            "it is the address of the node's card",
        ),
        Need::new(&["dryRun"], false, "a cluster is to come of it"),
    ]
}

fn with_patches(config: &mut Value, settings: Settings) {
    if let Some(directory) = settings.idle(PATCHES) {
        config["patches"] = json!({ "directory": directory });
    }
}

/// Longer ones where everything is emulated, else kubeadm's own.
fn with_timeouts(config: &mut Value, settings: Settings) {
    let Some(seconds) = settings.idle(format!("{KUBEADM}s")) else {
        return;
    };
    config["timeouts"] = json!({
        "controlPlaneComponentHealthCheck": seconds,
        "kubeletHealthCheck": seconds,
        "kubernetesAPICall": seconds,
        "etcdAPICall": seconds,
        "tlsBootstrap": seconds,
        "discovery": seconds,
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::cell::{Bootstrap, PodNetwork};
    use crate::plan::ip_families::IpFamilies;

    const NONE: Configurations = Configurations(BTreeMap::new());

    #[test]
    fn kubeadm_is_told() {
        let cell = Cell::usual(Bootstrap::Kubeadm);
        for (settings, class) in [(Settings::OwnDefaults, "kvm"), (Settings::Idle, "tcg")] {
            let init = init_config("1.36.4", cell, settings, &NONE);
            insta::assert_snapshot!(format!("init-{class}"), init);
            let join = join_config(2, cell, "sha256:0123", settings, &NONE);
            insta::assert_snapshot!(format!("join-{class}"), join.text());
        }
    }

    #[test]
    fn static_pods_under_kvm_are_as_kubeadm_makes_them() {
        let cell = Cell::usual(Bootstrap::Kubeadm);
        let files = init_files("1.36.4", cell, Settings::OwnDefaults, &NONE);
        let shown: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(shown, [INIT_CONFIG]);
    }

    #[test]
    fn emulated_static_pods_are_probed_less_often_and_ask_for_little() {
        let cell = Cell::usual(Bootstrap::Kubeadm);
        let files = init_files("1.36.4", cell, Settings::Idle, &NONE);
        let shown: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        /root/podwire/init.json
        /root/podwire/patches/etcd+strategic.json
        /root/podwire/patches/kube-apiserver+strategic.json
        /root/podwire/patches/kube-controller-manager+strategic.json
        /root/podwire/patches/kube-scheduler+strategic.json
        ");
        insta::assert_snapshot!(files[1].text, @r#"
        {
          "spec": {
            "containers": [
              {
                "env": [
                  {
                    "name": "GOMAXPROCS",
                    "value": "1"
                  }
                ],
                "livenessProbe": {
                  "periodSeconds": 30
                },
                "name": "etcd",
                "readinessProbe": {
                  "periodSeconds": 10
                },
                "resources": {
                  "requests": {
                    "cpu": "10m"
                  }
                }
              }
            ]
          }
        }
        "#);
    }

    #[test]
    fn a_slow_control_plane_among_several_is_not_started_anew() {
        let probes = |layout: Layout| {
            let patches: Vec<NodeFile> = patches(layout, Settings::Idle).collect();
            let server: Value = serde_json::from_str(&patches[1].text).unwrap();
            let server = &server["spec"]["containers"][0];
            format!("{} {}", server["livenessProbe"], server["startupProbe"])
        };
        insta::assert_snapshot!(probes(Layout::Flat), @r#"{"periodSeconds":30} null"#);
        insta::assert_snapshot!(probes(Layout::ControlPlanes), @r#"{"failureThreshold":60,"periodSeconds":30} {"failureThreshold":60}"#);
        assert_eq!(
            patches(Layout::ControlPlanes, Settings::OwnDefaults).count(),
            0
        );
    }

    #[test]
    fn ranges_are_allocated_for_the_networks_that_need_it() {
        let settings = Settings::Idle;
        let mut cell = Cell::usual(Bootstrap::Kubeadm);
        assert!(init_config("1.36.4", cell, settings, &NONE).contains("podSubnet"));
        cell.network = PodNetwork::Routes;
        assert!(!init_config("1.36.4", cell, settings, &NONE).contains("podSubnet"));
    }

    #[test]
    fn of_two_families_it_is_told_both_ranges_and_addresses() {
        let cell = Cell::usual(Bootstrap::Kubeadm).with_families(IpFamilies::Dual);
        let lines = |config: String| {
            let mut lines = config.lines().filter(|line| line.contains("fd00:"));
            let lines = lines.by_ref().map(str::trim);
            lines.collect::<Vec<_>>().join("\n")
        };
        let settings = Settings::OwnDefaults;
        insta::assert_snapshot!(lines(init_config("1.36.4", cell, settings, &NONE)), @r#"
        "value": "172.30.0.11,fd00:172:30::11"
        "podSubnet": "10.1.0.0/16,fd00:10:1::/48",
        "serviceSubnet": "10.0.0.0/24,fd00:10::/112"
        "#);
        insta::assert_snapshot!(lines(join_config(2, cell, "sha256:0123", settings, &NONE).text()), @r#""value": "172.30.0.12,fd00:172:30::12""#);
    }

    #[test]
    fn the_workers_command_is_found_in_what_kubeadm_prints() {
        let init = "\
Then you can join any number of worker nodes by running the following on each as root:

kubeadm join 172.30.0.11:6443 --token a.b \\
\t--discovery-token-ca-cert-hash sha256:00 \\
\t--control-plane --certificate-key k

kubeadm join 172.30.0.11:6443 --token podwir.0123456789abcdef \\
\t--discovery-token-ca-cert-hash sha256:00ff \n";
        let command = JoinCommand::find(init).unwrap();
        assert_eq!(
            command.to_string(),
            "kubeadm join 172.30.0.11:6443 --token podwir.0123456789abcdef \
             --discovery-token-ca-cert-hash sha256:00ff"
        );
        assert_eq!(JoinCommand::find(&command.to_string()), Some(command));
        assert_eq!(JoinCommand::find("kubeadm join 172.30.0.11:6443"), None);
    }

    #[test]
    fn a_further_control_plane_node_is_told_the_printed_command_and_its_own_address() {
        let command = JoinCommand {
            endpoint: "172.30.0.1:6443".to_owned(),
            token: "a.b".to_owned(),
            hash: "sha256:00".to_owned(),
            certificate_key: Some("0f".to_owned()),
        };
        let cell = Cell::usual(Bootstrap::Kubeadm);
        let told = control_plane_join_config(3, cell, &command, Settings::OwnDefaults);
        insta::assert_snapshot!(told, @r#"
        {
          "apiVersion": "kubeadm.k8s.io/v1beta4",
          "controlPlane": {
            "certificateKey": "0f",
            "localAPIEndpoint": {
              "advertiseAddress": "172.30.0.13",
              "bindPort": 6443
            }
          },
          "discovery": {
            "bootstrapToken": {
              "apiServerEndpoint": "172.30.0.1:6443",
              "caCertHashes": [
                "sha256:00"
              ],
              "token": "a.b"
            }
          },
          "kind": "JoinConfiguration",
          "nodeRegistration": {
            "criSocket": "unix:///run/containerd/containerd.sock",
            "ignorePreflightErrors": [
              "NumCPU",
              "Mem"
            ],
            "imagePullPolicy": "Never",
            "kubeletExtraArgs": [
              {
                "name": "node-ip",
                "value": "172.30.0.13"
              }
            ],
            "name": "node3"
          }
        }
        "#);
        let emulated = control_plane_join_config(3, cell, &command, Settings::Idle);
        assert!(emulated.contains(PATCHES) && emulated.contains("timeouts"));
    }

    #[test]
    fn a_control_plane_s_command_is_found_with_its_key_and_not_without() {
        let printed = "\
  kubeadm join 172.30.0.1:6443 --token a.b \\
\t--discovery-token-ca-cert-hash sha256:00 \\
\t--control-plane --certificate-key 0f

kubeadm join 172.30.0.1:6443 --token a.b \\
\t--discovery-token-ca-cert-hash sha256:00 \n";
        let found = JoinCommand::find_for_control_planes(printed).unwrap();
        assert_eq!(
            found.to_string(),
            "kubeadm join 172.30.0.1:6443 --token a.b --discovery-token-ca-cert-hash sha256:00 \
             --control-plane --certificate-key 0f"
        );
        assert_eq!(JoinCommand::find(printed).unwrap().certificate_key, None);
        let not_uploaded = printed.replace(" --certificate-key 0f", "");
        assert_eq!(JoinCommand::find_for_control_planes(&not_uploaded), None);
        assert!(JoinCommand::find(&not_uploaded).is_some());
    }

    #[test]
    fn the_hash_is_read_from_the_printed_command() {
        let log = "kubeadm join 172.30.0.11:6443 --token a.b \\\n\t--discovery-token-ca-cert-hash sha256:00ff \n";
        assert_eq!(JoinCommand::find(log).unwrap().hash, "sha256:00ff");
        let other = log.replace("sha256:00ff", "md5:0");
        assert_eq!(JoinCommand::find(&other), None);
        assert_eq!(
            JoinCommand::find("--discovery-token-ca-cert-hash md5:0"),
            None
        );
        assert_eq!(JoinCommand::find(""), None);
    }
}
