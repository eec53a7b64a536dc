//! The arguments of what is built alone, looked at, measured and removed.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use podwire_cluster::Bootstrap;
use podwire_cluster::addresses::MAX_NODES;
use podwire_lan::fuzz::Target;

use crate::command::cli::change::{FromArgs, SourceArgs};
use crate::command::cli::run::ProfileName;
use crate::command::cli::value::{parse_age, parse_size};

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

#[derive(Debug, Args)]
pub(crate) struct BenchConformanceArgs {
    /// Folders of runs, each on clusters of its own [default: target/podwire/latest]
    #[arg(value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchTarget {
    /// A cluster from nothing, beside clones of the same cluster
    Clone(BenchCloneArgs),
    /// Which of Kubernetes' network conformance tests passed in the last run, or in these, and what kept the others
    /// from it; as Markdown
    Conformance(BenchConformanceArgs),
    /// Sabotages, from the fault to the verdict: the ten slowest
    Red(BenchRedArgs),
    /// Scenarios on clones, beside the same with one cluster from nothing each
    Suite(BenchSuiteArgs),
    /// Frames per second and processor time of the segment's switch, beside vde_switch and taps on a Linux
    /// bridge on the same work, as far as these are here; and how true it is to a delay
    Switch,
    /// Whether the page of a failure names the node that is at fault, for the last run's sabotages whose place is
    /// known; as Markdown. Exit code 1 where fewer than nine of ten are right
    Truth,
}
