//! The arguments of a run, of a comparison, and of parts that become one.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use podwire_cluster::addresses::MAX_NODES;
use podwire_cluster::{Bootstrap, Break, UnknownPart};
use podwire_scenario::Profile;

use crate::command::cli::change::{FromArgs, NetworkArgs, SourceArgs};
use crate::command::cli::value::{parse_break, parse_percent, parse_size};
use crate::plan::shard::AskedShard;

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
    /// own, as with `with`. 0 is passed; a JUnit file that it writes to $PODWIRE_JUNIT is taken into the results.
    /// Or conformance: the network conformance tests of this version of Kubernetes, built here
    #[arg(long, value_name = "DIR|conformance", conflicts_with_all = ["profile", "broken"])]
    pub(crate) tests: Option<AskedTests>,
    /// Take the readings that `compare` compares, once, instead of running scenarios: one measurement after the
    /// other, each on a clone of its own. No reading is judged by itself
    #[arg(long, conflicts_with_all = ["tests", "broken", "shard", "keep"])]
    pub(crate) measure: bool,
    /// Which scenarios run: the default list, or all
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) profile: Option<ProfileName>,
    /// Who puts Kubernetes onto the machines: by-hand, kubeadm, or both, one cluster after the other
    /// [default: both, of which the default list has by hand alone most that is for either; by-hand with --break]
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

#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// What head is compared with: a quoted list of the flags by which a change is named
    /// ("--replace kube-proxy=./old/kube-proxy --kubernetes 1.36.4"; "" is what `test` runs without any),
    /// or a file with such a list, in which # begins a comment; or a revision of --repository, "git:main".
    /// Both sides have paths relative to here
    #[arg(value_name = "BASE", allow_hyphen_values = true)]
    pub(crate) base: String,
    /// What may break something, likewise. The same as BASE shows how often the comparison itself errs by
    /// chance; both have one frozen cluster then, and how two of the same may differ is not shown
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
    /// Make what both sides need and other machines can take over with the cache, as with `test`, then stop
    #[arg(long)]
    pub(crate) prepare_only: bool,
    /// Only these scenarios, as with `test`
    #[arg(long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
    /// Which scenarios run: the default list, or all
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) profile: Option<ProfileName>,
    /// Who puts Kubernetes onto the machines of both sides: by-hand, kubeadm, or both [default: both, as with `test`]
    #[arg(long, value_name = "NAME")]
    pub(crate) bootstrap: Option<Bootstraps>,
    /// Only part M of N of the scenarios, on both sides, for one of several machines, as with `test`. The first
    /// part measures the numbers; `cargo xtask merge` makes one comparison of all
    #[arg(long, value_name = "M/N")]
    pub(crate) shard: Option<AskedShard>,
    /// How many pairs of readings are taken on clones, in turns, once there are verdicts: what stands out is
    /// measured in as many again. 0 measures nothing
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) pairs: u32,
    /// Only these measurements, by name, with commas between them [default: those of the profile]
    #[arg(long, value_name = "NAMES")]
    pub(crate) measurements: Option<String>,
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

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The folders of all parts' results, each with its results.json, or compare.json, in any order
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

/// `--tests` of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskedTests {
    /// Kubernetes' own, which certify a network.
    Conformance,
    /// Programs of the user's.
    Folder(PathBuf),
}

/// What stands for them in the place of a folder.
const CONFORMANCE: &str = "conformance";

impl AskedTests {
    /// As it was written.
    pub(crate) fn word(&self) -> OsString {
        match self {
            Self::Conformance => CONFORMANCE.into(),
            Self::Folder(folder) => folder.into(),
        }
    }
}

impl FromStr for AskedTests {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            CONFORMANCE => Self::Conformance,
            folder => Self::Folder(folder.into()),
        })
    }
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
