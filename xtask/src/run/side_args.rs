//! The arguments of a run of one side: its own flags, and what holds for both.

use clap::{Parser as _, ValueEnum as _};
use podwire_cluster::Bootstrap;
use podwire_scenario::Profile;

use crate::command::cli::run::{Bootstraps, CompareArgs, ProfileName, TestArgs};
use crate::command::cli::{Cli, Command};
use crate::plan::select;
use crate::report::compare::Repeat;
use crate::say::stop::Stop;

/// What a run of a side has.
#[derive(Debug, Clone, Copy)]
pub(super) enum What<'a> {
    /// All scenarios that were asked for, or this machine's part of them.
    Verdicts(Option<&'a [String]>),
    /// Those that differed on clusters of one bootstrap.
    Repeat(&'a Repeat),
    /// Measurements on a cluster of this kind: these, or all that were asked for where none is named.
    Numbers(Bootstrap, &'a [String]),
}

impl What<'_> {
    /// What its runs are called, each with its number.
    pub(super) fn run(self) -> &'static str {
        match self {
            Self::Verdicts(_) | Self::Repeat(_) => "run",
            Self::Numbers(..) => "pair",
        }
    }
}

/// The arguments of a run of one side.
pub(super) fn words(args: &CompareArgs, flags: &[String], what: What<'_>) -> Vec<String> {
    let named = |profile: ProfileName| profile.to_possible_value();
    let profile = args.profile.and_then(named);
    let asked = args.bootstrap.map(|it| it.to_string());
    let (filter, profile, bootstrap) = match what {
        What::Verdicts(None) => (args.filter.clone(), profile, asked),
        // A filter alone would choose beyond the profile, on whose clusters each is to run.
        What::Verdicts(Some(part)) => {
            let unsaid = match select::widest(args.filter.as_deref(), None) {
                Profile::Full => ProfileName::Full,
                Profile::Everywhere | Profile::Default => ProfileName::Default,
            };
            let profile = args.profile.unwrap_or(unsaid);
            (Some(part.join(",")), named(profile), asked)
        }
        What::Repeat(repeat) => {
            let bootstrap = repeat.bootstrap.clone();
            (Some(repeat.names.join(",")), None, Some(bootstrap))
        }
        What::Numbers(on, names) => (
            match names {
                [] => args.measurements.clone(),
                _ => Some(names.join(",")),
            },
            profile.filter(|_| names.is_empty()),
            Some(on.to_string()),
        ),
    };
    let valued = [
        ("--filter", filter),
        ("--profile", profile.map(|it| it.get_name().to_owned())),
        ("--bootstrap", bootstrap),
        ("--nodes", (args.nodes != 3).then(|| args.nodes.to_string())),
        (
            "--max-size",
            args.max_size.map(|it| format!("{}B", it.as_u64())),
        ),
    ];
    let alone = [
        ("--measure", matches!(what, What::Numbers(..))),
        ("--yes", args.yes),
        ("--require-kvm", args.require_kvm),
        ("--locked", args.locked),
    ];
    let valued = valued.into_iter();
    let valued = valued.filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
    let alone = alone.into_iter().filter(|(_, is_given)| *is_given);
    let mut words = vec!["test".to_owned()];
    words.extend(valued.flatten());
    words.extend(alone.map(|(flag, _)| flag.to_owned()));
    words.extend(flags.iter().cloned());
    words
}

pub(super) fn test_args(words: &[String]) -> Result<TestArgs, Stop> {
    let all = ["xtask"]
        .into_iter()
        .chain(words.iter().map(String::as_str));
    match Cli::try_parse_from(all).map(|cli| cli.command) {
        Ok(Command::Test(args)) => Ok(args),
        Ok(_) => Err(Stop::Usage("it is no run".into())),
        Err(error) => Err(Stop::Usage(error.render().to_string())),
    }
}

/// Whose cluster is measured: one is enough, and takes long enough. It is the first of these that both sides
/// can be; beside an idle cluster by hand less runs, and fewer hosts are too slow for it.
pub(super) fn may_be_measured_on(args: &CompareArgs) -> Vec<Bootstrap> {
    match args.bootstrap {
        Some(Bootstraps::One(bootstrap)) => vec![bootstrap],
        Some(Bootstraps::Both) | None => vec![Bootstrap::ByHand, Bootstrap::Kubeadm],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::command::side::{Side, side};

    pub(in crate::run) fn args(line: &[&str]) -> CompareArgs {
        let words = ["xtask", "compare"].iter().chain(line);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Compare(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_has_the_side_s_flags_and_what_holds_for_both() {
        let line = [
            "--filter",
            "E7",
            "--kube-proxy nftables",
            "--kube-proxy iptables",
            "--bootstrap=by-hand",
            "--profile",
            "full",
            "--max-size",
            "10GiB",
            "--nodes",
            "4",
            "--yes",
        ];
        let args = args(&line);
        let flags = |asked: &str| match side(asked).unwrap() {
            Side::Flags(flags) => flags,
            Side::Revision(revision) => panic!("{revision}"),
        };
        let (base, head) = (flags(&args.base), flags(&args.head));
        let shown = |flags: &[String], what: What<'_>| words(&args, flags, what).join(" ");
        insta::assert_snapshot!(shown(&base, What::Verdicts(None)), @"test --filter E7 --profile full --bootstrap by-hand --nodes 4 --max-size 10737418240B --yes --kube-proxy nftables");
        let repeat = Repeat {
            names: ["a", "b"].map(String::from).into(),
            bootstrap: "by-hand".into(),
        };
        insta::assert_snapshot!(shown(&head, What::Repeat(&repeat)), @"test --filter a,b --bootstrap by-hand --nodes 4 --max-size 10737418240B --yes --kube-proxy iptables");
        let part = ["a", "b"].map(String::from);
        let of_part = |line: &[&str]| {
            let args = self::args(&[&["", ""], line].concat());
            words(&args, &[], What::Verdicts(Some(&part))).join(" ")
        };
        insta::assert_snapshot!(of_part(&[]), @"test --filter a,b --profile default");
        insta::assert_snapshot!(of_part(&["--filter", "a"]), @"test --filter a,b --profile full");
        insta::assert_snapshot!(of_part(&["--filter", "a", "--profile", "default"]), @"test --filter a,b --profile default");
        insta::assert_snapshot!(shown(&base, What::Numbers(Bootstrap::ByHand, &[])), @"test --profile full --bootstrap by-hand --nodes 4 --max-size 10737418240B --measure --yes --kube-proxy nftables");
        let again = ["measure_way".to_owned()];
        insta::assert_snapshot!(shown(&head, What::Numbers(Bootstrap::ByHand, &again)), @"test --filter measure_way --bootstrap by-hand --nodes 4 --max-size 10737418240B --measure --yes --kube-proxy iptables");
        let alone = CompareArgs {
            measurements: Some("measure_way,measure_drain".into()),
            ..args.clone()
        };
        let first = words(&alone, &base, What::Numbers(Bootstrap::ByHand, &[]));
        insta::assert_snapshot!(first.join(" "), @"test --filter measure_way,measure_drain --profile full --bootstrap by-hand --nodes 4 --max-size 10737418240B --measure --yes --kube-proxy nftables");
        let measures = test_args(&words(
            &args,
            &head,
            What::Numbers(Bootstrap::ByHand, &again),
        ))
        .unwrap();
        assert!(measures.measure && measures.filter.is_some());
        let run = test_args(&words(&args, &head, What::Verdicts(None))).unwrap();
        assert_eq!(run.max_size.map(|it| it.as_u64()), Some(10 << 30));
        assert_eq!(run.network.kube_proxy.to_string(), "iptables");
    }

    #[test]
    fn one_cluster_is_measured() {
        let on = |line: &[&str]| may_be_measured_on(&args(line));
        let either = [Bootstrap::ByHand, Bootstrap::Kubeadm];
        assert_eq!(on(&["", ""]), either);
        assert_eq!(on(&["", "", "--bootstrap", "both"]), either);
        let kubeadm = ["", "", "--bootstrap", "kubeadm"];
        assert_eq!(on(&kubeadm), [Bootstrap::Kubeadm]);
    }
}
