//! The arguments of commands on a cluster of one's own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use podwire_cluster::addresses::MAX_NODES;
use podwire_cluster::{Bootstrap, Layout, StageName};
use podwire_lan::{BitRate, Check, Ipv4Net, Percent, Protocol, Size, Time};

use crate::command::cli::change::{FromArgs, NetworkArgs, SourceArgs};

/// A cluster of one's own.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Who puts Kubernetes onto the machines: by-hand or kubeadm
    #[arg(long, value_name = "NAME", default_value_t = Bootstrap::ByHand)]
    pub(crate) bootstrap: Bootstrap,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Which nodes share a segment: flat (all of them), routed (nodes with even numbers are on a second
    /// segment, behind a router), second-card (all of them; node2 has a card on a second one as well) or
    /// control-planes (all of them, each with as much memory as node1)
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
