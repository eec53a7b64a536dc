//! The components of a cluster by hand, as values: what each is started with can be changed and left
//! out before it is.

use std::net::Ipv4Addr;

use super::config;
use super::file::{NodeFile, public};
use super::kubeconfig;
use super::units::{self, Unit};
use crate::plan::addresses::{PODS, SERVICES, api_address, node_name};
use crate::plan::cell::PodNetwork;
use crate::plan::ip_families::{IpFamilies, PODS_V6, SERVICES_V6, node_address_v6};
use crate::plan::settings::{DAEMON_START, NODE_MONITOR_GRACE, Settings};

/// A daemon that systemd runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its unit, `etcd.service`.
    pub unit: String,
    /// Absolute path.
    pub program: String,
    /// In the order of the command line.
    flags: Vec<Flag>,
    form: Form,
    /// Whether systemd leaves it alone when it has ended.
    once: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Flag {
    name: String,
    value: Option<String>,
}

/// Where a component's unit comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// All of it is written here.
    Own(OwnUnit),
    /// It is a package's, which knows the component's usual command line. Flags replace that, by a
    /// drop-in of this name.
    Package { drop_in: &'static str },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnUnit {
    about: &'static str,
    after: Vec<String>,
    readiness: Readiness,
    /// systemd's `TimeoutStartSec`, seconds, where it is not its own.
    start_limit: Option<u32>,
    /// A drop-in of a package that would change the unit: a file of the same name without content
    /// takes its place (systemd.unit(5)).
    masks: Option<&'static str>,
}

/// When systemd takes a component for started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It says so itself (sd_notify(3)).
    Told,
    /// Its program runs.
    NotTold,
}

impl Component {
    fn own(
        unit: &str,
        about: &'static str,
        after: &[&str],
        readiness: Readiness,
        program: &str,
        settings: Settings,
    ) -> Self {
        Self {
            unit: unit.to_owned(),
            program: program.to_owned(),
            flags: Vec::new(),
            form: Form::Own(OwnUnit {
                about,
                after: after.iter().map(|unit| (*unit).to_owned()).collect(),
                readiness,
                start_limit: settings.idle(DAEMON_START),
                masks: None,
            }),
            once: false,
        }
    }

    /// The same with a flag, `--name`, set to a value: in the place of that flag, or as the last one.
    #[must_use]
    pub fn with(self, name: &str, value: impl ToString) -> Self {
        self.set(name, Some(value.to_string()))
    }

    /// The same with a flag that has no value.
    #[must_use]
    pub fn with_switch(self, name: &str) -> Self {
        self.set(name, None)
    }

    fn set(mut self, name: &str, value: Option<String>) -> Self {
        match self.flags.iter_mut().find(|flag| flag.name == name) {
            Some(flag) => flag.value = value,
            None => self.flags.push(Flag {
                name: name.to_owned(),
                value,
            }),
        }
        self
    }

    /// The same without a flag; one that is not there stays so.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.flags.retain(|flag| flag.name != name);
        self
    }

    /// The same without any flag: what its program does by itself.
    #[must_use]
    pub fn without_flags(mut self) -> Self {
        self.flags.clear();
        self
    }

    /// The same, started once: when it ends, systemd does not start it again.
    #[must_use]
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }

    fn with_all(self, flags: &[(&str, &str)]) -> Self {
        let each = flags.iter();
        each.fold(self, |all, (name, value)| all.with(name, value))
    }

    /// The same with flags that only an emulated component gets.
    fn idle(self, settings: Settings, flags: &[(&str, &str)]) -> Self {
        self.with_all(settings.idle(flags).unwrap_or_default())
    }

    /// The value of a flag; an empty one where it has none.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let flag = self.flags.iter().find(|flag| flag.name == name)?;
        Some(flag.value.as_deref().unwrap_or_default())
    }

    /// The units that it starts after, if they start too; nothing where a package says so.
    pub fn after(&self) -> &[String] {
        match &self.form {
            Form::Own(own) => &own.after,
            Form::Package { .. } => &[],
        }
    }

    /// When it counts as started; nothing where a package says so.
    pub fn readiness(&self) -> Option<Readiness> {
        match &self.form {
            Form::Own(own) => Some(own.readiness),
            Form::Package { .. } => None,
        }
    }

    /// Its unit file; of a package's unit the drop-in that changes it, and nothing where none does.
    pub fn unit(&self) -> Option<Unit> {
        let words = |separator: &str, before_value: char| {
            let flags = self.flags.iter().map(|flag| match &flag.value {
                Some(value) => format!("{}{before_value}{value}", flag.name),
                None => flag.name.clone(),
            });
            let words = std::iter::once(self.program.clone()).chain(flags);
            words.collect::<Vec<_>>().join(separator)
        };
        match &self.form {
            Form::Own(own) => Some(Unit {
                name: self.unit.clone(),
                text: own.text(&words(" \\\n    ", '='), self.once),
            }),
            Form::Package { drop_in } => {
                let command = (!self.flags.is_empty())
                    .then(|| format!("ExecStart=\nExecStart={}\n", words(" ", ' ')));
                let once = self.once.then(|| "Restart=no\n".to_owned());
                let changes: String = command.into_iter().chain(once).collect();
                (!changes.is_empty()).then(|| Unit {
                    name: (*drop_in).to_owned(),
                    text: format!("[Service]\n{changes}"),
                })
            }
        }
    }

    /// All that systemd reads of it.
    pub fn files(&self) -> Vec<NodeFile> {
        let masks = match &self.form {
            Form::Own(own) => own.masks,
            Form::Package { .. } => None,
        };
        let unit = self.unit().map(|unit| public(unit.path(), unit.text));
        let masks = masks.map(|path| public(path, ""));
        masks.into_iter().chain(unit).collect()
    }

    /// The path of a drop-in that a former start of it may have left, and that it has no more.
    pub(crate) fn left_over(&self) -> Option<String> {
        match &self.form {
            Form::Package { drop_in } if self.unit().is_none() => Some(units::path(drop_in)),
            Form::Own(_) | Form::Package { .. } => None,
        }
    }
}

impl OwnUnit {
    fn text(&self, command: &str, once: bool) -> String {
        let kind = match self.readiness {
            Readiness::Told => "notify",
            Readiness::NotTold => "exec",
        };
        let after = match self.after.as_slice() {
            [] => String::new(),
            units => format!("After={}\n", units.join(" ")),
        };
        let limit = self.start_limit;
        let limit = limit.map(|seconds| format!("TimeoutStartSec={seconds}\n"));
        let restart = match once {
            true => "Restart=no",
            false => "Restart=on-failure\nRestartSec=1",
        };
        format!(
            "\
[Unit]
Description={about}
{after}StartLimitIntervalSec=0

[Service]
Type={kind}
ExecStart={command}
{restart}
{limit}LimitNOFILE=65536
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
",
            about = self.about,
            limit = limit.unwrap_or_default(),
        )
    }
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

/// The cluster's state, on node 1. `notify`: it is there when it answers.
pub fn etcd(settings: Settings) -> Component {
    Component::own(
        units::ETCD,
        "etcd: the cluster's state",
        &[],
        Readiness::Told,
        "/usr/local/bin/etcd",
        settings,
    )
    .with_all(&[
        ("--data-dir", "/var/lib/etcd"),
        ("--listen-client-urls", "http://127.0.0.1:2379"),
        ("--advertise-client-urls", "http://127.0.0.1:2379"),
        ("--listen-peer-urls", "http://127.0.0.1:2380"),
    ])
    // A stage's disk is frozen whole or thrown away: flushing it protects nothing.
    .with_switch("--unsafe-no-fsync")
    // A single member has nobody to keep in step with: it only wakes up for it.
    .idle(
        settings,
        &[
            ("--heartbeat-interval", "1000"),
            ("--election-timeout", "10000"),
            ("--log-level", "warn"),
        ],
    )
}

/// The API server, on node 1. The Pods of a network that somebody brings change their node's network: they are privileged,
/// as a rule, which an API server refuses unless it is told otherwise.
pub fn api_server(network: PodNetwork, families: IpFamilies, settings: Settings) -> Component {
    let server = Component::own(
        units::API_SERVER,
        "Kubernetes API server",
        &[units::ETCD],
        Readiness::NotTold,
        "/usr/local/bin/kube-apiserver",
        settings,
    )
    .with("--bind-address", "0.0.0.0")
    .with("--advertise-address", api_address())
    .with(
        "--service-cluster-ip-range",
        families.listed(SERVICES, SERVICES_V6),
    )
    .with_all(&[
        ("--client-ca-file", units::CA_CERTIFICATE),
        ("--tls-cert-file", units::SERVING_CERTIFICATE),
        ("--tls-private-key-file", units::SERVING_KEY),
        ("--kubelet-certificate-authority", units::CA_CERTIFICATE),
        (
            "--kubelet-client-certificate",
            units::KUBELET_CLIENT_CERTIFICATE,
        ),
        ("--kubelet-client-key", units::KUBELET_CLIENT_KEY),
        ("--service-account-key-file", units::TOKEN_PUBLIC_KEY),
        ("--service-account-signing-key-file", units::TOKEN_KEY),
        ("--service-account-issuer", "https://kubernetes.default.svc"),
        ("--authorization-mode", "Node,RBAC"),
        ("--enable-admission-plugins", "NodeRestriction"),
        ("--etcd-servers", "http://127.0.0.1:2379"),
        ("--kubelet-preferred-address-types", "InternalIP"),
    ]);
    let server = match network.is_of_a_manifest() {
        true => server.with("--allow-privileged", true),
        false => server,
    };
    // Every kind of object's cache ticks several times a second, whether anybody asks or not; the few
    // clients here are served by etcd as fast.
    server.idle(
        settings,
        &[
            ("--profiling", "false"),
            ("--enable-priority-and-fairness", "false"),
            ("--watch-cache", "false"),
        ],
    )
}

/// The controller manager, on node 1.
pub fn controller_manager(
    network: PodNetwork,
    families: IpFamilies,
    settings: Settings,
) -> Component {
    let manager = Component::own(
        units::CONTROLLER_MANAGER,
        "Kubernetes controller manager",
        &[units::API_SERVER],
        Readiness::NotTold,
        "/usr/local/bin/kube-controller-manager",
        settings,
    )
    .with_all(&[
        ("--kubeconfig", kubeconfig::CONTROLLER_MANAGER_PATH),
        ("--root-ca-file", units::CA_CERTIFICATE),
        ("--service-account-private-key-file", units::TOKEN_KEY),
        ("--use-service-account-credentials", "true"),
    ]);
    let manager = match network.allocates() {
        true => manager
            .with("--allocate-node-cidrs", true)
            .with("--cluster-cidr", families.listed(PODS, PODS_V6)),
        false => manager,
    };
    let idlers = without(IDLERS.iter().chain(&CERTIFICATE_REQUESTS));
    manager.idle(
        settings,
        &[
            // A busy emulated processor lets a lease expire, and whoever loses it ends.
            ("--leader-elect", "false"),
            ("--profiling", "false"),
            ("--controllers", &format!("*{idlers}")),
            (
                "--node-monitor-grace-period",
                &format!("{NODE_MONITOR_GRACE}s"),
            ),
        ],
    )
}

/// The scheduler, on node 1.
pub fn scheduler(settings: Settings) -> Component {
    Component::own(
        units::SCHEDULER,
        "Kubernetes scheduler",
        &[units::API_SERVER],
        Readiness::NotTold,
        "/usr/local/bin/kube-scheduler",
        settings,
    )
    .with("--kubeconfig", kubeconfig::SCHEDULER_PATH)
    .idle(
        settings,
        &[("--leader-elect", "false"), ("--profiling", "false")],
    )
}

/// The engine, on every node: its package's own unit. On an emulated node it is told which
/// configuration to read; else nothing of it is changed.
pub fn containerd(settings: Settings) -> Component {
    Component {
        unit: units::CONTAINERD.to_owned(),
        program: "/usr/bin/containerd".to_owned(),
        flags: Vec::new(),
        form: Form::Package {
            drop_in: units::CONTAINERD_DROP_IN,
        },
        once: false,
    }
    .idle(settings, &[("--config", units::EMULATED_CONTAINERD)])
}

/// The node's agent, on every node: its number and address, and with two families that of the second one.
pub fn kubelet(
    number: u32,
    address: Ipv4Addr,
    families: IpFamilies,
    settings: Settings,
) -> Component {
    let mut kubelet = Component::own(
        units::KUBELET,
        "Kubernetes node agent",
        &[units::CONTAINERD, units::NETWORK],
        Readiness::NotTold,
        "/usr/bin/kubelet",
        settings,
    );
    if let Form::Own(own) = &mut kubelet.form {
        // Of the kubelet's package, for kubeadm: its settings would win over the unit's.
        own.masks = Some(units::NO_DROP_IN);
    }
    kubelet
        .with("--config", config::KUBELET_PATH)
        .with("--kubeconfig", kubeconfig::KUBELET_PATH)
        .with("--hostname-override", node_name(number))
        .with(
            "--node-ip",
            families.listed(address, node_address_v6(number)),
        )
        // Nothing here reads what it counts in every container's cgroup.
        .idle(settings, &[("--housekeeping-interval", "60s")])
}

/// The Service proxy, on every node.
pub fn kube_proxy(settings: Settings) -> Component {
    Component::own(
        units::KUBE_PROXY,
        "Kubernetes Service proxy",
        &[units::NETWORK],
        Readiness::NotTold,
        "/usr/local/bin/kube-proxy",
        settings,
    )
    .with("--config", config::KUBE_PROXY_CONFIG_PATH)
}

/// kube-router, on every node: with the arguments of its published DaemonSet
/// (daemonset/kubeadm-kuberouter.yaml of v2.1.0), which runs it as a Pod with the host's network.
pub fn kube_router(settings: Settings) -> Component {
    Component::own(
        units::KUBE_ROUTER,
        "kube-router: routes to the other nodes' Pods, learnt by BGP",
        &[units::NETWORK],
        Readiness::NotTold,
        "/usr/local/bin/kube-router",
        settings,
    )
    .with_all(&[
        ("--run-router", "true"),
        ("--run-firewall", "true"),
        ("--run-service-proxy", "false"),
        ("--bgp-graceful-restart", "true"),
        ("--kubeconfig", kubeconfig::KUBE_ROUTER_PATH),
    ])
}

/// Those of node 1 beside those of every node, in the order of their start.
pub fn control_plane(
    network: PodNetwork,
    families: IpFamilies,
    settings: Settings,
) -> [Component; 4] {
    [
        etcd(settings),
        api_server(network, families, settings),
        controller_manager(network, families, settings),
        scheduler(settings),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cell::FlannelBackend;
    use crate::plan::layout::Layout;

    fn shown<'a>(components: impl IntoIterator<Item = &'a Component>) -> String {
        let units = components.into_iter().filter_map(Component::unit);
        let shown = units.map(|unit| format!("# {}\n{}", unit.path(), unit.text));
        shown.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_components_are_started_as_meant_in_each_class() {
        for (settings, class) in [(Settings::OwnDefaults, "kvm"), (Settings::Idle, "tcg")] {
            let control_plane = control_plane(PodNetwork::Routes, IpFamilies::Ipv4, settings);
            insta::assert_snapshot!(format!("control-plane-{class}"), shown(&control_plane));
            let node = [
                kubelet(2, Layout::Flat.address(2), IpFamilies::Ipv4, settings),
                kube_proxy(settings),
            ];
            insta::assert_snapshot!(format!("node-{class}"), shown(&node));
        }
    }

    #[test]
    fn privileged_pods_are_let_in_where_somebody_brings_the_network() {
        let given = |network| {
            let server = api_server(network, IpFamilies::Ipv4, Settings::Idle);
            server.flag("--allow-privileged").map(str::to_owned)
        };
        assert_eq!(given(PodNetwork::Manifest).as_deref(), Some("true"));
        assert_eq!(given(PodNetwork::Routes), None);
    }

    #[test]
    fn what_has_ranges_and_addresses_has_them_of_both_families() {
        let (dual, settings) = (IpFamilies::Dual, Settings::OwnDefaults);
        let flannel = PodNetwork::Flannel(FlannelBackend::Vxlan);
        let [_, server, manager, _] = control_plane(flannel, dual, settings);
        let services = server.flag("--service-cluster-ip-range");
        assert_eq!(services, Some("10.0.0.0/24,fd00:10::/112"));
        let pods = manager.flag("--cluster-cidr");
        assert_eq!(pods, Some("10.1.0.0/16,fd00:10:1::/48"));
        let kubelet = kubelet(2, Layout::Flat.address(2), dual, settings);
        let own = kubelet.flag("--node-ip");
        assert_eq!(own, Some("172.30.0.12,fd00:172:30::12"));
    }

    #[test]
    fn kube_router_is_started_as_its_daemon_set_starts_it() {
        let command = shown(&[kube_router(Settings::OwnDefaults)]);
        let lines = command.lines().skip_while(|line| !line.starts_with("Exec"));
        let lines: Vec<&str> = lines.take(6).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        ExecStart=/usr/local/bin/kube-router \
            --run-router=true \
            --run-firewall=true \
            --run-service-proxy=false \
            --bgp-graceful-restart=true \
            --kubeconfig=/var/lib/kube-router/kubeconfig
        ");
    }

    #[test]
    fn a_flag_is_replaced_in_its_place_added_last_and_left_out() {
        let command = |scheduler: Component| {
            let text = scheduler.unit().unwrap().text;
            let lines = text
                .lines()
                .skip_while(|line| !line.starts_with("ExecStart="));
            let lines = lines.take_while(|line| !line.starts_with("Restart="));
            lines.collect::<Vec<_>>().join("\n")
        };
        let own = scheduler(Settings::Idle);
        assert_eq!(own.flag("--leader-elect"), Some("false"));
        let changed = own
            .with("--kubeconfig", "/elsewhere")
            .without("--profiling")
            .without("--never-there")
            .with("--v", 4);
        assert_eq!(changed.flag("--profiling"), None);
        insta::assert_snapshot!(command(changed), @r"
        ExecStart=/usr/local/bin/kube-scheduler \
            --kubeconfig=/elsewhere \
            --leader-elect=false \
            --v=4
        ");
    }

    #[test]
    fn of_a_package_s_unit_only_what_is_changed_is_written() {
        let usual = containerd(Settings::OwnDefaults);
        assert_eq!(usual.files(), []);
        insta::assert_snapshot!(shown(&[containerd(Settings::Idle)]), @r"
        # /etc/systemd/system/containerd.service.d/podwire.conf
        [Service]
        ExecStart=
        ExecStart=/usr/bin/containerd --config /etc/containerd/emulated.toml
        ");
        let debug = usual.with("--log-level", "debug").unit().unwrap().text;
        assert!(debug.ends_with("=/usr/bin/containerd --log-level debug\n"));
    }

    #[test]
    fn nothing_of_a_package_s_former_start_is_left() {
        let changed = containerd(Settings::Idle);
        let path = changed.unit().unwrap().path();
        assert_eq!(changed.left_over(), None);
        assert_eq!(changed.without_flags().left_over(), Some(path));
        let own = scheduler(Settings::Idle).without_flags();
        assert_eq!(own.left_over(), None);
    }

    #[test]
    fn one_that_is_started_once_is_not_started_again() {
        let restart = |component: &Component| {
            let text = component.unit().unwrap().text;
            let lines = text.lines().filter(|line| line.starts_with("Restart"));
            lines.collect::<Vec<_>>().join(" ")
        };
        let own = scheduler(Settings::Idle);
        assert_eq!(restart(&own), "Restart=on-failure RestartSec=1");
        assert_eq!(restart(&own.once()), "Restart=no");
        insta::assert_snapshot!(shown(&[containerd(Settings::OwnDefaults).once()]), @r"
        # /etc/systemd/system/containerd.service.d/podwire.conf
        [Service]
        Restart=no
        ");
    }

    #[test]
    fn the_kubelet_comes_without_the_drop_in_of_its_package() {
        let files = kubelet(1, api_address(), IpFamilies::Ipv4, Settings::Idle).files();
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [units::NO_DROP_IN, "/etc/systemd/system/kubelet.service"]
        );
        assert_eq!(files[0].text, "");
    }
}
