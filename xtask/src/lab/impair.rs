//! `cargo xtask impair` and `heal`: what becomes of the frames of a cluster that another process runs.

use std::fmt::Write as _;

use podwire_access::AccessError;
use podwire_lan::{Check, Impairment, Packets, Rule, RulesReport, Selector};

use crate::command::cli::lab::{HealArgs, ImpairArgs};
use crate::lab::access::{drive, reach};
use crate::say::stop::Stop;

/// What stands for every node, and the gateway.
const ANY: &str = "any";

/// Sets rules, or shows what is set.
pub(crate) fn impair(args: &ImpairArgs) -> Result<(), Stop> {
    let asked = if args.show { None } else { Some(asked(args)?) };
    drive(async {
        let link = reach(&args.run, None).await?;
        let report = match asked {
            None => link.rules().await,
            Some(asked) => link.impair(asked.rules, asked.check).await,
        };
        out!("{}", text(&report.map_err(usage)?));
        Ok(())
    })
}

/// Heals, and says what that was.
pub(crate) fn heal(args: &HealArgs) -> Result<(), Stop> {
    drive(async {
        let link = reach(&args.run, None).await?;
        let healed = link.heal(args.node.clone()).await.map_err(usage)?;
        out!("{}", text(&healed));
        Ok(())
    })
}

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    rules: Vec<Rule>,
    check: Option<(String, Check)>,
}

fn asked(args: &ImpairArgs) -> Result<Asked, Stop> {
    let named = |name: &Option<String>| name.clone().filter(|name| name != ANY);
    let from = named(&args.node);
    let check = match (args.check, &from) {
        (None, _) => None,
        (Some(check), Some(node)) => Some((node.clone(), check)),
        (Some(_), None) => {
            return Err(Stop::Usage(
                "--check is about one node's addresses: name it in place of `any`".to_owned(),
            ));
        }
    };
    let (packets, it) = (&args.packets, &args.impairment);
    let rule = Rule {
        selector: Selector {
            from,
            to: named(&args.to),
            packets: Packets {
                source: packets.source,
                destination: packets.destination,
                protocol: packets.protocol,
                source_port: packets.source_port,
                destination_port: packets.destination_port,
            },
        },
        impairment: Impairment {
            cut: it.cut,
            hole: it.hole,
            delay: it.delay,
            jitter: it.jitter,
            reorder: it.reorder,
            loss: it.loss,
            burst: it.burst,
            duplicate: it.duplicate,
            corrupt: it.corrupt,
            rate: it.rate,
            queue: it.queue,
            seed: it.seed,
        },
    };
    let only_checked = check.is_some() && rule.impairment == Impairment::default();
    let rules = match (only_checked, args.both) {
        (true, _) => Vec::new(),
        (false, true) => rule.both_ways(),
        (false, false) => vec![rule],
    };
    Ok(Asked { rules, check })
}

/// What the cluster refuses was wrong on the command line.
pub(super) fn usage(error: AccessError) -> Stop {
    match error {
        AccessError::Refused(reason) => Stop::Usage(reason),
        other => other.into(),
    }
}

/// What is set, as asked and as realised.
fn text(report: &RulesReport) -> String {
    let mut text = String::new();
    for it in &report.rules {
        let (rule, realised) = (&it.rule, &it.realised);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}: {}\n  {realised}", rule.selector, rule.impairment);
    }
    for it in &report.filters {
        let own: Vec<String> = it.filter.own.iter().map(ToString::to_string).collect();
        let direction = match it.filter.check {
            Check::Source => "source",
            Check::Destination => "destination",
            Check::Both => "source and destination",
        };
        let _ = writeln!(
            text,
            "{}: {direction} checked to be {}\n  {} seen, {} dropped for their source, {} for their \
             destination",
            it.filter.port,
            own.join(" or "),
            it.seen,
            it.dropped_source,
            it.dropped_destination
        );
    }
    if text.is_empty() {
        text.push_str("nothing is set\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use podwire_lan::{AddressFilter, FilterReport, Realised, RuleReport};

    use super::*;
    use crate::command::cli::{Cli, Command};

    fn parsed(line: &str) -> Result<Asked, String> {
        let words = ["xtask", "impair"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Impair(args)) => asked(&args).map_err(|stop| format!("{stop:?}")),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn said(line: &str) -> String {
        let asked = parsed(line).unwrap();
        let rules = asked.rules.iter();
        let lines = rules.map(|rule| format!("{}: {}\n", rule.selector, rule.impairment));
        let check = asked
            .check
            .map(|(node, check)| format!("{node} {check:?}\n"));
        lines.chain(check).collect()
    }

    #[test]
    fn a_command_line_is_rules() {
        insta::assert_snapshot!(said("node2 --to node3 --delay 40ms --jitter 5ms --loss 1% --burst 4 --rate 100mbit --seed 7"), @"node2 -> node3: delay 40ms jitter 5ms loss 1% burst 4 rate 100mbit seed 7");
        insta::assert_snapshot!(said("any --both --to node1 --cut --protocol tcp --source 10.1.2.3 --destination-port 80"), @r"
        any -> node1 tcp source 10.1.2.3/32 destination port 80: cut
        node1 -> any tcp source port 80 destination 10.1.2.3/32: cut
        ");
        insta::assert_snapshot!(said("node2 --check both"), @"node2 Both");
        insta::assert_snapshot!(said("node2 --check source --hole 1400 --queue 64kb --rate 1gbit"), @r"
        node2 -> any: hole 1400 rate 1gbit queue 64kb
        node2 Source
        ");
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_possible() {
        for (line, possible) in [
            ("node2 --delay 40", "40ms"),
            ("node2 --loss 1", "0.05%"),
            ("node2 --rate 100mbps", "100mbit"),
            ("node2 --protocol sctp", "arp, icmp, tcp, udp"),
            ("node2 --source 10.1.2", "10.1.2.0/24"),
            ("node2 --check all", "source, destination or both"),
            ("any --check both", "name it"),
            ("--cut", "NODE"),
            ("node2 --show", "--show"),
            ("--show --loss 1%", "--show"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(possible), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_set_is_shown_of_the_run_that_is_meant() {
        let words = ["xtask", "impair", "--run", "2026", "--show"];
        match Cli::try_parse_from(words).unwrap().command {
            Command::Impair(args) => assert!(args.show && args.run.run.is_some()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_set_reads_well() {
        let rule = parsed("node2 --loss 10%").unwrap().rules.remove(0);
        let json = r#"{"id":1,"rule":null,"realised":null}"#;
        let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
        json["rule"] = serde_json::to_value(rule).unwrap();
        json["realised"] = serde_json::to_value(Realised {
            seen: 20,
            lost: 3,
            longest_burst: 2,
            passed: 17,
            ..Realised::default()
        })
        .unwrap();
        let rule: RuleReport = serde_json::from_value(json).unwrap();
        let filter = FilterReport {
            filter: AddressFilter {
                port: "node2".to_owned(),
                own: vec!["172.30.0.12/32".parse().unwrap()],
                check: Check::Both,
            },
            seen: 7,
            dropped_source: 2,
            dropped_destination: 1,
        };
        let report = RulesReport {
            rules: vec![rule],
            filters: vec![filter],
        };
        insta::assert_snapshot!(text(&report), @r"
        node2 -> any: loss 10%
          20 seen, 17 passed, 3 lost, 2 in a row at most
        node2: source and destination checked to be 172.30.0.12/32
          7 seen, 2 dropped for their source, 1 for their destination
        ");
        insta::assert_snapshot!(text(&RulesReport::default()), @"nothing is set");
    }
}
