//! The command line, as types.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use podwire_cluster::addresses::MAX_NODES;
use podwire_cluster::{
    Bootstrap, Break, Cell, IpFamilies, Layout, PodNetwork, ProxyMode, StageName, UnknownPart,
};
use podwire_images::bundle::{BundleFrom, Replacement};
use podwire_images::image::ImageFrom;
use podwire_lan::fuzz::Target;
use podwire_lan::{BitRate, Check, Ipv4Net, Percent, Protocol, Size, Time};
use podwire_scenario::Profile;

use crate::plan::shard::AskedShard;

/// Real machines, a real Kubernetes, and assertions about what its network really does.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_version_flag = true,
    after_help = "Start here: `cargo xtask test`. It says what is missing and how long it takes, \
                  then does everything.\n\n\
                  Exit codes: 0 passed, 1 assertions failed, 2 usage, 3 environment or set-up, \
                  130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The main job: set up what is missing, build a cluster, run the scenarios, report
    Test(TestArgs),
    /// Does a change break anything? The same scenarios on a base and on a head, and what differs
    Compare(CompareArgs),
    /// Make one result of the parts of a run on several machines
    Merge(MergeArgs),
    /// Run a cluster until Ctrl-C, and say how to reach it
    Up(ClusterArgs),
    /// Run a program of your own beside a fresh cluster, which goes when the program has ended
    With(WithArgs),
    /// A shell on a node of a running cluster, or one command
    Ssh(SshArgs),
    /// What a node prints on its serial line: the last lines, then what comes
    Console(ConsoleArgs),
    /// kubectl, on the control-plane node of a running cluster
    Kubectl(KubectlArgs),
    /// A kubeconfig of a running cluster for programs on this host, until Ctrl-C
    Kubeconfig(KubeconfigArgs),
    /// A port of a node of a running cluster on the loopback of this host, until Ctrl-C
    Forward(ForwardArgs),
    /// Lose, delay or damage what a node of a running cluster sends, or let it through only so fast
    Impair(ImpairArgs),
    /// Take away what impairs a node of a running cluster, or all of it
    Heal(HealArgs),
    /// What is sent on a running cluster's network, as pcapng: a file, or live for Wireshark
    Capture(CaptureArgs),
    /// Look at this machine: what podwire needs, what it finds, how to fix the rest
    Doctor(DoctorArgs),
    /// Build the node image alone (and what it needs)
    Image(ImageArgs),
    /// Build the Kubernetes binaries and container images alone
    Bundle(BundleArgs),
    /// List the scenarios: what each shows, covers, starts from, and the faults that prove it
    Scenarios(ScenariosArgs),
    /// The project's own checks: format, lints, licences, every test that needs no QEMU
    Check,
    /// Give the segment what no guest of good will sends, for as long as asked
    Fuzz(FuzzArgs),
    /// Kill runs at random, fill their disk, cut their files, and look what becomes of the next run
    Chaos(ChaosArgs),
    /// Write anew what is made of the code: docs/scenarios.md, docs/measurements.md, and parts of
    /// docs/writing-a-scenario.md
    Docs,
    /// List the frozen clusters in the cache: what they cost, and which would be made again
    Stages(StagesArgs),
    /// Remove what podwire has built or left behind
    Clean(CleanArgs),
    /// Measure: where the last run's time went, or one part against a rival
    Bench(BenchArgs),
}

/// Which scenarios a run takes when none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileName {
    /// What everybody runs
    Default,
    /// All of them
    Full,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Default => Self::Default,
            ProfileName::Full => Self::Full,
        }
    }
}

/// What a run makes of what stands out on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WireMode {
    /// A failure
    Strict,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Install missing system packages without asking (also: take current package versions where
    /// the archive has dropped a locked one)
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print what would be done and about how long it takes, then stop
    #[arg(long)]
    pub(crate) plan: bool,
    /// Make what these arguments need and other machines can take over with the cache (tools, images,
    /// bundle), compile the tests, then stop. No test is run: KVM is no matter, even with --require-kvm
    #[arg(long)]
    pub(crate) prepare_only: bool,
    /// Only these scenarios: a name, part of a name, or a covered id (C6, E7); several by comma.
    /// Chooses among all scenarios unless --profile is given too
    #[arg(long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
    /// Run your own programs instead: each executable file directly in this folder, beside a cluster of its
    /// own, as with `with`. 0 is passed; a JUnit file that it writes to $PODWIRE_JUNIT is taken into the results
    #[arg(long, value_name = "DIR", conflicts_with_all = ["profile", "broken"])]
    pub(crate) tests: Option<PathBuf>,
    /// Take the readings that `compare` compares, once, instead of running scenarios: one measurement after the
    /// other, each on a clone of its own. No reading is judged by itself
    #[arg(long, conflicts_with_all = ["tests", "broken", "shard", "keep"])]
    pub(crate) measure: bool,
    /// Which scenarios run: the default list, or all
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) profile: Option<ProfileName>,
    /// Who puts Kubernetes onto the machines: by-hand, kubeadm, or both, one cluster after the other
    /// [default: both; by-hand with --break]
    #[arg(long, value_name = "NAME")]
    pub(crate) bootstrap: Option<Bootstraps>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Only part M of N of the scenarios, for one of several machines: 1/3, 2/3 and 3/3 are all of
    /// them. `auto` takes the part from what GitLab sets, `auto/N` also from a Kubernetes Indexed Job.
    /// The harness's own tests run in each; `cargo xtask merge` makes one result of all
    #[arg(long, value_name = "M/N")]
    pub(crate) shard: Option<AskedShard>,
    /// Machines in the cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    pub(crate) nodes: u32,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// Stop with exit code 3 when guests cannot run under KVM here, instead of emulating them
    #[arg(long)]
    pub(crate) require_kvm: bool,
    /// Let skipped scenarios fail the run (implied by CI=true, however a CI service writes it)
    #[arg(long)]
    pub(crate) strict: bool,
    /// strict: what stands out on the wire (lost and sent again, resets, ICMP errors, wrong checksums,
    /// a slow pair of nodes) fails a scenario that has passed otherwise. Nothing implies it
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) wire: Option<WireMode>,
    /// Run each scenario this often, each time in a fresh clone, until it fails; its sabotages once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Keep the cluster of the first failed scenario running until Ctrl-C, and say how to reach it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Build in a fault on purpose, to see what a broken cluster looks like
    #[arg(long = "break", value_name = "NAME", value_parser = parse_break)]
    pub(crate) broken: Option<Break>,
    /// How large the cache may get: 10GiB, 500M. What was not used for longest goes, except what is
    /// in use or needed now [default: what leaves a twentieth of the disk free]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_size: Option<ByteSize>,
    /// Fail when the package archive no longer has a locked version
    #[arg(long)]
    pub(crate) locked: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// What head is compared with: a quoted list of the flags by which a change is named
    /// ("--replace kube-proxy=./old/kube-proxy --kubernetes 1.36.4"; "" is what `test` runs without any),
    /// or a file with such a list, in which # begins a comment; or a revision of --repository, "git:main".
    /// Both sides have paths relative to here
    #[arg(value_name = "BASE", allow_hyphen_values = true)]
    pub(crate) base: String,
    /// What may break something, likewise. The same as BASE shows how often the comparison itself errs
    #[arg(value_name = "HEAD", allow_hyphen_values = true)]
    pub(crate) head: String,
    /// The git repository of which a side is a revision. Each is checked out, and built, in
    /// target/podwire/revisions, once
    #[arg(long, value_name = "DIR")]
    pub(crate) repository: Option<PathBuf>,
    /// What builds a revision, by sh in its checkout ("make kube-proxy") [default: nothing is built]
    #[arg(long, value_name = "COMMAND", requires = "repository")]
    pub(crate) build: Option<String>,
    /// By which flags of a change a revision is tested; {} is its checkout
    /// ("--replace kube-proxy={}/out/kube-proxy")
    #[arg(
        long,
        value_name = "FLAGS",
        allow_hyphen_values = true,
        requires = "repository"
    )]
    pub(crate) takes: Option<String>,
    /// Print what would be done on each side and about how long it takes, then stop
    #[arg(long)]
    pub(crate) plan: bool,
    /// Only these scenarios, as with `test`
    #[arg(long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
    /// Which scenarios run: the default list, or all
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) profile: Option<ProfileName>,
    /// Who puts Kubernetes onto the machines of both sides: by-hand, kubeadm, or both [default: both]
    #[arg(long, value_name = "NAME")]
    pub(crate) bootstrap: Option<Bootstraps>,
    /// How many pairs of readings are taken on clones, in turns, once there are verdicts: what stands out is
    /// measured in as many again. 0 measures nothing
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) pairs: u32,
    /// How much worse a number may be
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = parse_percent)]
    pub(crate) margin: f64,
    /// Machines in each cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    pub(crate) nodes: u32,
    /// Install missing system packages, and take current versions for dropped ones, without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Stop with exit code 3 when guests cannot run under KVM here, instead of emulating them
    #[arg(long)]
    pub(crate) require_kvm: bool,
    /// How large the cache may get, as with `test`
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_size: Option<ByteSize>,
    /// Fail when the package archive no longer has a locked version
    #[arg(long)]
    pub(crate) locked: bool,
}

/// By which a change is named: what one side of a comparison has and the other may not have.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The folders of all parts' results, each with its results.json, in any order
    #[arg(value_name = "DIR", required = true)]
    pub(crate) folders: Vec<PathBuf>,
    /// Write the result into this folder [default: a new run's, target/podwire/latest]. To the evidence of
    /// parts below it, it leads by relative paths: it can be moved, and kept, as a whole
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    /// Let skipped scenarios fail it (implied by CI=true, however a CI service writes it)
    #[arg(long)]
    pub(crate) strict: bool,
}

/// `--bootstrap` of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bootstraps {
    One(Bootstrap),
    Both,
}

impl fmt::Display for Bootstraps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(one) => one.fmt(f),
            Self::Both => f.pad("both"),
        }
    }
}

impl FromStr for Bootstraps {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "both" => Ok(Self::Both),
            one => one.parse().map(Self::One),
        }
    }
}

/// `--pod-network`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskedNetwork {
    Known(PodNetwork),
    /// A file that is there.
    Manifest(PathBuf),
}

impl FromStr for AskedNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = PodNetwork::ALL.into_iter();
        let mut known = known.filter(|network| *network != PodNetwork::Manifest);
        if let Some(network) = known.clone().find(|network| network.to_string() == text) {
            return Ok(Self::Known(network));
        }
        if Path::new(text).exists() {
            return Ok(Self::Manifest(text.into()));
        }
        let names: Vec<String> = known.by_ref().map(|network| network.to_string()).collect();
        Err(format!(
            "there is no such file, and the Pod networks that need none are {}",
            names.join(", ")
        ))
    }
}

/// Where Kubernetes comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SourceArgs {
    /// Kubernetes version, 1.36.4 or 1.35; of a release any whole one since 1.33 [default: the newest
    /// that has a folder in images/bundle/]
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes: Option<String>,
    /// A newer one, whose packages and images are on the nodes too: for the scenario that upgrades a cluster of
    /// kubeadm's to it, or for your own hands [default: none]
    #[arg(long, value_name = "VERSION")]
    pub(crate) upgrade_to: Option<String>,
    /// modules: built here from the pinned Go modules; release: the official programs and images,
    /// downloaded; or a folder of your own programs (bin/NAME, cni/NAME or NAME), of which what is
    /// missing comes from the default [default: modules, see images/sources.toml]
    #[arg(long, value_name = "modules|release|DIR")]
    pub(crate) bundle_from: Option<BundleFrom>,
    /// Your own build of one component, wherever it runs: kube-proxy=PATH, cni/bridge=PATH; several by
    /// repeating it
    #[arg(long, value_name = "COMPONENT=PATH")]
    pub(crate) replace: Vec<Replacement>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// What the nodes run.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FromArgs {
    /// What the node image is made of: debian (its packages), or ubuntu:24.04 (the official cloud image)
    /// [default: debian, see images/sources.toml]
    #[arg(long, value_name = "SYSTEM", global = true)]
    pub(crate) from: Option<ImageFrom>,
}

/// The settings of where things come from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// A file that replaces single addresses and defaults of images/sources.toml, for mirrors [default:
    /// $PODWIRE_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// The network under test.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// How kube-proxy translates: nftables or iptables
    #[arg(long, value_name = "MODE", default_value_t = ProxyMode::Nftables)]
    pub(crate) kube_proxy: ProxyMode,
    /// What connects the Pods: routes, flannel (VXLAN), flannel-host-gw, or a manifest of your own
    /// (YAML or JSON) [default: routes by hand, flannel with kubeadm]
    #[arg(long, value_name = "NETWORK|FILE")]
    pub(crate) pod_network: Option<AskedNetwork>,
    /// An archive with images of that manifest, of `docker save` or `skopeo copy` to oci-archive:;
    /// several by repeating it. What no archive holds is pulled by this host, once; nodes reach no
    /// registry
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) pod_images: Vec<PathBuf>,
    /// Read that manifest with `imagePullPolicy: IfNotPresent` wherever a node would ask a registry
    #[arg(long)]
    pub(crate) pull_policy_as_present: bool,
    /// Files over the nodes' own, which boot with them before anything of Kubernetes starts: sysctl.d,
    /// systemd-networkd, nftables, units; DIR/etc/... on every node, DIR/node2/etc/... on node2 alone
    #[arg(long, value_name = "DIR")]
    pub(crate) node_files: Option<PathBuf>,
    /// A KubeletConfiguration (YAML or JSON) that is merged into podwire's, on every node
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_config: Option<PathBuf>,
    /// A KubeProxyConfiguration that is merged into podwire's
    #[arg(long, value_name = "FILE")]
    pub(crate) kube_proxy_config: Option<PathBuf>,
    /// kubeadm's ClusterConfiguration, InitConfiguration (node1) and JoinConfiguration (all others), in one
    /// file, that are merged into podwire's; clusters by hand do not read it
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeadm_config: Option<PathBuf>,
    /// Which families of IP nodes, Pods and Services have addresses of: ipv4, or dual (both, IPv4 first).
    /// In a dual-stack cluster the scenarios run that look at both
    #[arg(long, value_name = "FAMILIES", default_value_t = IpFamilies::Ipv4)]
    pub(crate) ip_families: IpFamilies,
}

impl NetworkArgs {
    /// The cell with a bootstrap.
    pub(crate) fn cell(&self, bootstrap: Bootstrap) -> Cell {
        Cell {
            bootstrap,
            proxy: self.kube_proxy,
            network: match &self.pod_network {
                None => Cell::usual(bootstrap).network,
                Some(AskedNetwork::Known(network)) => *network,
                Some(AskedNetwork::Manifest(_)) => PodNetwork::Manifest,
            },
            layout: Layout::Flat,
            ip_families: self.ip_families,
        }
    }

    /// The same with nodes laid out like that, where there can be such a cluster.
    ///
    /// # Errors
    /// In words, for two families where something carries IPv4 alone: the bundle's flanneld, the router between
    /// two segments.
    pub(crate) fn existing_cell(
        &self,
        bootstrap: Bootstrap,
        layout: Layout,
    ) -> Result<Cell, String> {
        let cell = self.cell(bootstrap).laid_out(layout);
        if cell.ip_families.is_dual() && matches!(cell.network, PodNetwork::Flannel(_)) {
            return Err(format!(
                "--ip-families dual: in {bootstrap}'s cluster the Pod network would be {}, and the bundle's \
                 flanneld carries IPv4 alone; add --pod-network routes, or a manifest of your own",
                cell.network
            ));
        }
        if !cell.exists() {
            return Err(format!(
                "--layout {layout}: no router leads from one segment to another by IPv6; --ip-families dual is \
                 for clusters whose nodes share one"
            ));
        }
        Ok(cell)
    }
}

/// A cluster of one's own.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Who puts Kubernetes onto the machines: by-hand or kubeadm
    #[arg(long, value_name = "NAME", default_value_t = Bootstrap::ByHand)]
    pub(crate) bootstrap: Bootstrap,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Which nodes share a segment: flat (all of them), routed (nodes with even numbers are on a second
    /// segment, behind a router) or second-card (all of them; node2 has a card on a second one as well)
    #[arg(long, value_name = "LAYOUT", default_value_t = Layout::Flat)]
    pub(crate) layout: Layout,
    /// The stage that the cluster is a clone of: identified; then by hand control-plane, joined, cni,
    /// workload-bare or workload; with kubeadm init, joined, pod-network or workload
    #[arg(long, value_name = "STAGE", default_value_t = StageName::Workload)]
    pub(crate) stage: StageName,
    /// Machines in the cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    pub(crate) nodes: u32,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// Install missing system packages, and take current versions for dropped ones, without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Fail when the package archive no longer has a locked version
    #[arg(long)]
    pub(crate) locked: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WithArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// The program and its arguments. It has your terminal or pipes, KUBECONFIG, and the cluster's facts
    /// in variables; `with` ends with its exit status, 128 and the signal's number when a signal ended it
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Which of the running clusters.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The cluster of the run whose name begins like this [default: the one that $PODWIRE_RUN
    /// names, else the newest cluster]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) run: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// node1, node2, ...
    pub(crate) node: String,
    /// Its words are joined by blanks and given to the node's shell, as ssh(1) does it [default: a
    /// shell to type in]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// node1, node2, ..., or router where there is one
    pub(crate) node: String,
}

#[derive(Debug, Args)]
pub(crate) struct KubectlArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Arguments of kubectl. Files and folders that -f names are those of this machine
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KubeconfigArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Where connections go: node1:6443
    #[arg(value_name = "NODE:PORT")]
    pub(crate) to: NodePort,
    /// The port of this host's loopback [default: one that the kernel chooses, which is said]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) local: Option<u16>,
}

/// A port of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePort {
    pub(crate) node: String,
    pub(crate) port: u16,
}

impl FromStr for NodePort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.rsplit_once(':').filter(|(node, _)| !node.is_empty());
        let (node, port) = parts.ok_or("a node and a port are node1:6443")?;
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self {
                node: node.to_owned(),
                port,
            }),
            _ => Err(format!("`{port}` is no port: those are 1 to 65535")),
        }
    }
}

/// Units are those of tc(8): us, ms, s; %; bit, kbit, mbit, gbit; b, kb, mb.
#[derive(Debug, Args)]
pub(crate) struct ImpairArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Whose frames: node1, node2, ..., gateway, router-1 (a router's card on the first segment), or any
    #[arg(required_unless_present = "show")]
    pub(crate) node: Option<String>,
    /// Print what is set, as asked and as realised
    #[arg(long, conflicts_with_all = ["node", "to", "both", "check", "PacketArgs", "ImpairmentArgs"])]
    pub(crate) show: bool,
    /// Only those for this one: node1, node2, ..., gateway [default: for any]
    #[arg(long, value_name = "NODE")]
    pub(crate) to: Option<String>,
    /// Also what comes back
    #[arg(long)]
    pub(crate) both: bool,
    #[command(flatten)]
    pub(crate) packets: PacketArgs,
    #[command(flatten)]
    pub(crate) impairment: ImpairmentArgs,
    /// Drop what does not carry the node's own address, as a cloud does: source (of what it sends),
    /// destination (of what it gets), or both
    #[arg(long, value_name = "DIRECTION", value_parser = parse_check, conflicts_with_all = ["to", "both"])]
    pub(crate) check: Option<Check>,
}

/// Which packets; those in VXLAN and in IP-in-IP count as well.
#[derive(Debug, Args)]
pub(crate) struct PacketArgs {
    /// Only arp, icmp, tcp or udp
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<Protocol>,
    /// Only from these addresses: 10.1.2.0/24, 10.1.2.3
    #[arg(long, value_name = "NET", value_parser = parse_net)]
    pub(crate) source: Option<Ipv4Net>,
    /// Only to these addresses
    #[arg(long, value_name = "NET", value_parser = parse_net)]
    pub(crate) destination: Option<Ipv4Net>,
    /// Only from this port of tcp or udp
    #[arg(long, value_name = "PORT")]
    pub(crate) source_port: Option<u16>,
    /// Only to this port of tcp or udp
    #[arg(long, value_name = "PORT")]
    pub(crate) destination_port: Option<u16>,
}

/// What becomes of them. Given again for the same frames, it is added to what is set.
#[derive(Debug, Args)]
pub(crate) struct ImpairmentArgs {
    /// All vanish
    #[arg(long)]
    pub(crate) cut: bool,
    /// Those vanish whose IP packet is longer than this: 1400
    #[arg(long, value_name = "OCTETS")]
    pub(crate) hole: Option<u16>,
    /// How much later they arrive: 40ms
    #[arg(long, value_name = "TIME")]
    pub(crate) delay: Option<Time>,
    /// How much more or less than that: 5ms
    #[arg(long, value_name = "TIME")]
    pub(crate) jitter: Option<Time>,
    /// Let jitter change the order of a flow's frames
    #[arg(long)]
    pub(crate) reorder: bool,
    /// How many are lost: 1%
    #[arg(long, value_name = "SHARE")]
    pub(crate) loss: Option<Percent>,
    /// How many are lost in a row, on average: 4
    #[arg(long, value_name = "FRAMES")]
    pub(crate) burst: Option<u32>,
    /// How many come twice: 1%
    #[arg(long, value_name = "SHARE")]
    pub(crate) duplicate: Option<Percent>,
    /// In how many a bit is flipped: 0.1%
    #[arg(long, value_name = "SHARE")]
    pub(crate) corrupt: Option<Percent>,
    /// How fast they leave, all together: 100mbit
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<BitRate>,
    /// How much waits for that at most: 64kb [default: what 1000 full frames have]
    #[arg(long, value_name = "SIZE")]
    pub(crate) queue: Option<Size>,
    /// What chance begins with [default: 0]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct HealArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// What is set for this one, in either direction: node1, node2, ..., gateway, ... [default: everything]
    pub(crate) node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Only what this node sends and gets, as it comes to it: node1, node2, ..., gateway [default: all that
    /// is sent, once]
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Which frames: arp, icmp, tcp, udp, host 10.1.2.3, net 10.1.0.0/16, port 80, and, or, not,
    /// parentheses; also inside VXLAN and IP-in-IP [default: all]
    #[arg(
        long,
        value_name = "EXPR",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) filter: String,
    /// Where to; `-` is standard output
    #[arg(short, long, value_name = "FILE|-", default_value = "-")]
    pub(crate) write: PathBuf,
}

fn parse_net(text: &str) -> Result<Ipv4Net, String> {
    let net = if text.contains('/') {
        text.to_owned()
    } else {
        format!("{text}/32")
    };
    net.parse()
        .map_err(|_| "it is an address or a range: 10.1.2.3, 10.1.2.0/24".to_owned())
}

fn parse_check(text: &str) -> Result<Check, String> {
    match text {
        "source" => Ok(Check::Source),
        "destination" => Ok(Check::Destination),
        "both" => Ok(Check::Both),
        _ => Err("it is source, destination or both".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.parse()
        .map_err(|_| "it is a number with a unit: 10GiB, 500M".to_owned())
}

/// A share: 0.1 of `10%`.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|it| it.trim().parse().ok());
    let share = number.map(|percent: f64| percent / 100.0);
    let usable = share.filter(|share| (0.001..=10.0).contains(share));
    usable.ok_or_else(|| "it is a number of per cent, of 0.1% to 1000%: 10%, 2.5%".to_owned())
}

fn parse_age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "it is a number with a unit: 7d, 12h, 1h30m".to_owned())
}

fn parse_break(name: &str) -> Result<Break, String> {
    name.parse::<Break>().map_err(|_| {
        let known = Break::ALL.map(|broken| broken.to_string()).join(", ");
        format!("there is no such fault; there are: {known}")
    })
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Also count emulation as a problem
    #[arg(long)]
    pub(crate) require_kvm: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) action: Option<ImageAction>,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    pub(crate) build: ImageBuildArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ImageBuildArgs {
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// Install missing system packages, and take current versions for dropped ones, without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Fail when the package archive no longer has a locked version
    #[arg(long)]
    pub(crate) locked: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageAction {
    /// Move the lock of package versions to what the archive has today; with --from ubuntu:24.04, the pin
    /// to the newest cloud image
    Bump,
}

#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// Install missing system packages without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScenariosArgs {
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
    /// Only these: a name, part of a name, or a covered id; several by comma
    #[arg(long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// Only this: arp, dhcp, dns, icmp, udp, tcp, framing, held, rules; several by repeating it
    #[arg(long = "target", value_name = "NAME")]
    pub(crate) targets: Vec<Target>,
    /// Where chance begins: the same inputs with the same number [default: another each time]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Stop after so many [default: 10000000, or none with --seconds]
    #[arg(long, value_name = "N")]
    pub(crate) inputs: Option<u64>,
    /// Stop after so long
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// Begin no more rounds after so long; what is made before the first does not count [default: 600]
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// Where chance begins: the same rounds with the same number [default: another each time]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Begin with that round of the seed's
    #[arg(long, value_name = "ROUND", default_value_t = 1)]
    pub(crate) from: usize,
    /// Only print so many of the seed's rounds
    #[arg(long, value_name = "N")]
    pub(crate) draw: Option<usize>,
    /// Only these scenarios: a name, part of a name, or a covered id; several by comma [default:
    /// a few short ones, from different stages]
    #[arg(long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
    /// All scenarios of a profile that the cluster can carry, or those of it that --filter names
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<ProfileName>,
    /// Who puts Kubernetes onto the machines: by-hand or kubeadm
    #[arg(long, value_name = "NAME", default_value_t = Bootstrap::ByHand)]
    pub(crate) bootstrap: Bootstrap,
    /// Where its own cache and its runs go, in a folder that is removed unless something was wrong
    /// [default: target/podwire/chaos]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// Read every file of theirs, and remove the stages of which one was damaged, unless they are in
    /// use; exit code 3 when there was any
    #[arg(long)]
    pub(crate) verify: bool,
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Only say what would be removed, with sizes
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also what the cache holds and nobody used for so long: 7d, 12h, 1h30m. Younger runs are kept
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    pub(crate) older_than: Option<Duration>,
    /// Also what was not used for longest, until the cache is no larger than this: 10GiB, 500M
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_size: Option<ByteSize>,
    /// Also the whole cache: tools, bundles, images, stages (the next run builds them again)
    #[arg(long, conflicts_with_all = ["older_than", "max_size"])]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: Option<BenchTarget>,
    /// For programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct BenchCloneArgs {
    /// Machines in the cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=i64::from(MAX_NODES)))]
    pub(crate) nodes: u32,
    /// How many clones are timed, one after the other
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) clones: u32,
}

#[derive(Debug, Args)]
pub(crate) struct BenchSuiteArgs {
    /// Machines in the cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    pub(crate) nodes: u32,
    /// Only these scenarios: a name, part of a name, or a covered id; several by comma [default:
    /// three short ones]
    #[arg(long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchRedArgs {
    /// Machines in the cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    pub(crate) nodes: u32,
    /// Only these scenarios: a name, part of a name, or a covered id; several by comma [default:
    /// those with a dead Service, a dead way to a node, a dead component]
    #[arg(long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchTarget {
    /// A cluster from nothing, beside clones of the same cluster
    Clone(BenchCloneArgs),
    /// Sabotages, from the fault to the verdict: the ten slowest
    Red(BenchRedArgs),
    /// Scenarios on clones, beside the same with one cluster from nothing each
    Suite(BenchSuiteArgs),
    /// Frames per second and processor time of the segment's switch, beside vde_switch and taps on a Linux
    /// bridge on the same work, as far as these are here
    Switch,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn a_margin_is_a_share_of_something() {
        for (text, share) in [("10%", 0.1), ("2.5 %", 0.025), ("1000%", 10.0)] {
            assert_eq!(parse_percent(text), Ok(share));
        }
        for text in ["10", "0%", "-5%", "ten%", "%", "inf%", "NaN%", "1001%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_unknown_target_of_fuzz_lists_the_known_ones() {
        let error = Cli::try_parse_from(["xtask", "fuzz", "--target", "http"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        for target in Target::ALL {
            assert!(text.contains(&target.to_string()), "{text}");
        }
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        let error = Cli::try_parse_from(["xtask", "test", "--filtre", "C6"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("'--filter'"), "{error}");
    }

    #[test]
    fn a_component_and_a_source_are_known_before_anything_starts() {
        let refused = |flag: &str, value: &str| {
            let error = Cli::try_parse_from(["xtask", "bundle", flag, value]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        let error = refused("--replace", "kubeproxy=x");
        assert!(error.contains("there is no component kubeproxy"), "{error}");
        let error = refused("--bundle-from", "relaese");
        assert!(error.contains("modules, release"), "{error}");
        for command in ["test", "up", "image", "bundle"] {
            let words = ["xtask", command, "--bundle-from", "release"];
            let more = [
                "--replace",
                "kube-proxy=a",
                "--replace",
                "bridge=b",
                "--config",
                "c",
            ];
            Cli::try_parse_from(words.iter().chain(&more)).unwrap();
        }
    }

    #[test]
    fn flannel_carries_one_family() {
        let cell = |line: &str, bootstrap| {
            let words = ["xtask", "test"].into_iter().chain(line.split(' '));
            let Command::Test(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("{line} is not about a test");
            };
            let cell = args.network.existing_cell(bootstrap, Layout::Flat);
            cell.map(|cell| cell.to_string())
        };
        let (by_hand, kubeadm) = (Bootstrap::ByHand, Bootstrap::Kubeadm);
        let dual = "--ip-families dual";
        let routes = "--ip-families dual --pod-network routes";
        assert_eq!(cell(dual, by_hand).unwrap(), "by-hand/nftables/routes+dual");
        assert_eq!(
            cell(routes, kubeadm).unwrap(),
            "kubeadm/nftables/routes+dual"
        );
        insta::assert_snapshot!(cell(dual, kubeadm).unwrap_err(), @"--ip-families dual: in kubeadm's cluster the Pod network would be flannel, and the bundle's flanneld carries IPv4 alone; add --pod-network routes, or a manifest of your own");
        assert!(cell("--ip-families ipv4", kubeadm).is_ok());
    }

    #[test]
    fn a_pod_network_is_a_known_one_or_a_file() {
        let parsed = |network: &str| {
            let words = ["xtask", "test", "--pod-network", network];
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Test(args)) => Ok(args.network),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let network = |asked: &str| parsed(asked).unwrap().cell(Bootstrap::Kubeadm).network;
        for known in ["routes", "flannel", "flannel-host-gw"] {
            assert_eq!(network(known).to_string(), known);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(network(file.path().to_str().unwrap()), PodNetwork::Manifest);
        // It names a kind of network, and no network.
        let error = parsed("manifest").unwrap_err();
        assert!(error.contains("no such file"), "{error}");
        assert!(
            error.contains("routes, flannel, flannel-host-gw"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_break_lists_the_known_ones() {
        let error = Cli::try_parse_from(["xtask", "test", "--break", "dns"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        for name in ["route", "kube-proxy", "pod-range", "san"] {
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn what_is_for_the_node_is_left_alone() {
        let parsed = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Ssh(args) => (args.run.run, args.command),
            Command::Kubectl(args) => (args.run.run, args.args),
            other => panic!("{other:?}"),
        };
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            parsed("xtask ssh node1 ip -o --run addr -- -h"),
            (None, words("ip -o --run addr -- -h"))
        );
        assert_eq!(
            parsed("xtask kubectl --run 2026 exec -it web -- sh -c x"),
            (Some("2026".into()), words("exec -it web -- sh -c x"))
        );
        assert_eq!(
            parsed("xtask kubectl -n web get pods --help"),
            (None, words("-n web get pods --help"))
        );
    }

    #[test]
    fn a_program_is_what_stands_behind_two_dashes() {
        let parsed = |line: &str| match Cli::try_parse_from(line.split(' ')) {
            Ok(cli) => match cli.command {
                Command::With(args) => Ok((args.cluster.stage, args.command)),
                other => panic!("{other:?}"),
            },
            Err(error) => Err(error.exit_code()),
        };
        let (stage, command) =
            parsed("xtask with --stage cni -- kubectl get nodes --stage x").unwrap();
        assert_eq!(stage, StageName::Cni);
        assert_eq!(command, ["kubectl", "get", "nodes", "--stage", "x"]);
        for wrong in [
            "xtask with",
            "xtask with --",
            "xtask with kubectl get nodes",
        ] {
            assert_eq!(parsed(wrong).unwrap_err(), 2, "{wrong}");
        }
    }

    #[test]
    fn a_port_is_a_node_s() {
        let parsed = |text: &str| text.parse::<NodePort>();
        let node = "node1".to_owned();
        assert_eq!(parsed("node1:6443"), Ok(NodePort { node, port: 6443 }));
        for wrong in [
            "node1",
            ":6443",
            "6443",
            "node1:",
            "node1:0",
            "node1:65536",
            "node1:x",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_durations_are_read_as_people_write_them() {
        let clean = |line: &str| {
            let words = ["xtask", "clean"].into_iter().chain(line.split(' '));
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Clean(args)) => Ok((args.max_size.map(|it| it.0), args.older_than)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err((error.exit_code(), error.to_string())),
            }
        };
        assert_eq!(clean("--max-size 10GiB"), Ok((Some(10 << 30), None)));
        assert_eq!(clean("--max-size 500M"), Ok((Some(500_000_000), None)));
        let day = Duration::from_hours(24);
        assert_eq!(clean("--older-than 7d"), Ok((None, Some(day * 7))));
        for (wrong, help) in [
            ("--max-size much", "10GiB"),
            ("--max-size -1", "-1"),
            ("--older-than 7", "1h30m"),
            ("--all --older-than 7d", "--older-than"),
        ] {
            let (code, said) = clean(wrong).unwrap_err();
            assert_eq!(code, 2, "{wrong}");
            assert!(said.contains(help), "{said}");
        }
    }

    #[test]
    fn a_cluster_without_nodes_is_a_usage_error() {
        let error = Cli::try_parse_from(["xtask", "test", "--nodes", "0"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
