//! The command line, as types.

pub(crate) mod change;
pub(crate) mod house;
pub(crate) mod lab;
pub(crate) mod run;
mod value;

use clap::{Parser, Subcommand};

use crate::command::cli::house::{
    BenchArgs, BundleArgs, ChaosArgs, CleanArgs, DoctorArgs, FuzzArgs, ImageArgs, ScenariosArgs,
    StagesArgs,
};
use crate::command::cli::lab::{
    CaptureArgs, ClusterArgs, ConsoleArgs, ForwardArgs, HealArgs, ImpairArgs, KubeconfigArgs,
    KubectlArgs, SshArgs, WithArgs,
};
use crate::command::cli::run::{CompareArgs, MergeArgs, TestArgs};

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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use podwire_cluster::StageName;
    use podwire_lan::fuzz::Target;
    use std::time::Duration;

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
