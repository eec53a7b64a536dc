//! In what the nodes of a cluster in which something failed are unlike those of a healthy clone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use podwire_cluster::addresses;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};

use crate::check::network::{State, as_state_has, in_order};

/// What [`Unlike::about`] calls rules.
const RULES: &str = "rules";
/// Lines of one node and one kind of them that are kept.
const LINES: usize = 40;

/// What the API server gives out (kube-apiserver, `--service-node-port-range`).
const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

/// What came of another clone, of the same stage or of the comparison's base, which did the same until the same step:
/// `twin.json` in the attempt's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    /// Whose clone it is: `a second clone`, `a clone of the base`; where that is not to be had, why not.
    pub whose: String,
    /// The step up to whose end it was led.
    pub step: String,
    /// Why it failed as well, where it did: nothing is compared then.
    pub failed: Option<String>,
    /// Where the nodes of both are unlike.
    pub unlike: Vec<Unlike>,
    /// The nodes of which nothing is known: one of both has not said all.
    pub unheard: Vec<String>,
}

impl Twin {
    /// Its name in the attempt's folder.
    pub const FILE: &'static str = "twin.json";

    /// What follows, in words.
    pub fn told(&self) -> &'static str {
        match (self.unlike.as_slice(), self.unheard.as_slice()) {
            ([], []) => "Routes, rules and sysctls of every node are the same in both.",
            ([], _) => {
                "Routes, rules and sysctls of every node that answered are the same in both."
            }
            _ => "What this one alone has (+), and that one alone (-), counters left out:",
        }
    }

    /// Whether that clone lacks a rule of the failed one's, as [`Met::rules`](crate::Met::rules) has it: behind its
    /// table and its chain.
    pub fn lacks(&self, node: &str, rule: &str) -> bool {
        let of_node = self.unlike.iter();
        let of_node = of_node.filter(|it| it.about == RULES && it.node == node);
        let own = of_node.flat_map(|it| &it.lines).filter(|it| !it.healthy);
        let own: Vec<String> = own.map(|it| masked(&it.text)).collect();
        let named = as_state_has(rule).unwrap_or_default();
        named.iter().any(|it| own.contains(&masked(it)))
    }
}

/// A line in which nothing is left that the API may have given out by chance.
fn masked(line: &str) -> String {
    let given_out = given_out(&[line.to_owned()]);
    let words = given_out.iter();
    words.fold(line.to_owned(), |line, (word, what)| {
        replaced(&line, word, what)
    })
}

/// Lines that one of both has and the other has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlike {
    /// The node's name.
    pub node: String,
    /// Of what: `rules`, `routes`, `sysctls`.
    pub about: String,
    /// [`LINES`] of them at most.
    pub lines: Vec<Line>,
    /// How many more there are.
    pub left_out: usize,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Whether the healthy clone has it, and the failed one has not.
    pub healthy: bool,
    /// It, behind the table and the chain that it is in.
    pub text: String,
}

/// `+ ip saddr 10.1.0.0/16 accept` where the failed one alone has it.
impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.healthy { '-' } else { '+' };
        write!(f, "{sign} {}", self.text)
    }
}

/// The same node of both, by its name: where these are unlike, and which of them one has not answered for.
pub(crate) fn compared(
    nodes: impl IntoIterator<Item = (String, Option<State>, Option<State>)>,
) -> (Vec<Unlike>, Vec<String>) {
    let (mut all, mut unheard) = (Vec::new(), Vec::new());
    for (node, failed, healthy) in nodes {
        match failed.zip(healthy) {
            Some((failed, healthy)) => all.extend(unlike(&node, &failed, &healthy)),
            None => unheard.push(node),
        }
    }
    (all, unheard)
}

/// Where one node's state is unlike that of the same node in a healthy clone. What no two clones have in common is
/// not compared: counters, and ClusterIPs and NodePorts that the API gave out by chance.
fn unlike(node: &str, failed: &State, healthy: &State) -> Vec<Unlike> {
    let of = |about: &str, failed: &[String], healthy: &[String]| {
        let (mut failed, mut healthy) = by_chance(failed, healthy);
        if about == RULES {
            in_order(&mut failed);
            in_order(&mut healthy);
        }
        let failed: Vec<&str> = failed.iter().map(String::as_str).collect();
        let healthy: Vec<&str> = healthy.iter().map(String::as_str).collect();
        let changes = TextDiff::from_slices(&healthy, &failed);
        let changes = changes.iter_all_changes();
        let all: Vec<Line> = changes
            .filter(|change| change.tag() != ChangeTag::Equal)
            .map(|change| Line {
                healthy: change.tag() == ChangeTag::Delete,
                text: change.value().to_owned(),
            })
            .collect();
        let left_out = all.len().saturating_sub(LINES);
        (!all.is_empty()).then(|| Unlike {
            node: node.to_owned(),
            about: about.to_owned(),
            lines: all.into_iter().take(LINES).collect(),
            left_out,
        })
    };
    let kinds = [
        of("routes", &failed.routes, &healthy.routes),
        of(RULES, &failed.rules, &healthy.rules),
        of("sysctls", &failed.sysctls, &healthy.sysctls),
    ];
    kinds.into_iter().flatten().collect()
}

/// Both without the ClusterIPs and the NodePorts that one of them alone has.
fn by_chance(one: &[String], other: &[String]) -> (Vec<String>, Vec<String>) {
    let [ours, theirs] = [one, other].map(given_out);
    let without = |lines: &[String], own: &GivenOut, others: &GivenOut| {
        let masked = own.iter().filter(|(word, _)| !others.contains_key(*word));
        let masked: Vec<_> = masked.collect();
        let lines = lines.iter().map(|line| {
            let masked = masked.iter();
            masked.fold(line.clone(), |line, (word, what)| {
                replaced(&line, word, what)
            })
        });
        lines.collect::<Vec<_>>()
    };
    (without(one, &ours, &theirs), without(other, &theirs, &ours))
}

/// What the API may have given out by chance, each with what stands in its place where it has.
type GivenOut = BTreeMap<String, &'static str>;

fn given_out(lines: &[String]) -> GivenOut {
    let mut all = GivenOut::new();
    for line in lines {
        let mut before = "";
        for word in line.split(is_no_part).filter(|word| !word.is_empty()) {
            let address = word.parse::<Ipv4Addr>();
            if address.is_ok_and(|it| addresses::SERVICES.contains(it)) {
                all.insert(word.to_owned(), "a-ClusterIP");
            }
            // A port stands behind `dport`, or as a part of an element: `tcp . 31234`.
            let port = matches!(before, "dport" | ".").then(|| word.parse::<u16>());
            if port.is_some_and(|it| it.is_ok_and(|it| NODE_PORTS.contains(&it))) {
                all.insert(word.to_owned(), "a-NodePort");
            }
            before = word;
        }
    }
    all
}

fn is_no_part(it: char) -> bool {
    !(it.is_ascii_alphanumeric() || it == '.')
}

/// Whole words only: 10.0.0.1 is no part of 10.0.0.19.
fn replaced(line: &str, word: &str, by: &str) -> String {
    let parts = line.split_inclusive(is_no_part);
    let parts = parts.map(|part| {
        let bare = part.trim_end_matches(is_no_part);
        match bare == word {
            true => part.replacen(word, by, 1),
            false => part.to_owned(),
        }
    });
    parts.collect()
}

/// Whether a clone has done all that another had done when it failed, by the steps of both, and has begun with
/// something else. In words of which no two clones have the same (Pods' names, addresses, how many requests more) they
/// may differ.
pub(crate) fn is_past(steps: &[String], failed: &[String]) -> bool {
    let Some(last) = failed.last().map(|it| alike(it)) else {
        return true;
    };
    let of = |all: &[String]| all.iter().filter(|it| alike(it) == last).count();
    let mut left = of(failed);
    let mut steps = steps.iter().map(|it| alike(it));
    while left > 0 {
        match steps.next() {
            Some(step) if step == last => left -= 1,
            Some(_) => {}
            None => return false,
        }
    }
    steps.any(|step| step != last)
}

fn alike(step: &str) -> String {
    let words = step.split_whitespace().map(|word| {
        let varies = word.contains(|it: char| it.is_ascii_digit());
        if varies { "#" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn told(failed: &str, healthy: &str) -> String {
        let state = |rules: &str| State {
            rules: lines(rules).iter().map(|it| format!("c: {it}")).collect(),
            ..State::default()
        };
        let all = unlike("node2", &state(failed), &state(healthy));
        let all = all.iter().map(|it| {
            let lines = it.lines.iter().map(|line| format!("\n{line}"));
            let lines: String = lines.collect();
            format!("{} {} ({} more){lines}", it.node, it.about, it.left_out)
        });
        all.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_only_one_of_both_has_is_told_in_its_order() {
        assert_eq!(told("a\nb", "a\nb"), "");
        insta::assert_snapshot!(told("a\nx\nb", "a\nb\nc"), @r"
        node2 rules (0 more)
        + c: x
        - c: c
        ");
        // The order of rules is what they mean.
        insta::assert_snapshot!(told("b\na", "a\nb"), @r"
        node2 rules (0 more)
        + c: b
        - c: b
        ");
        let many: String = (0..LINES + 3).map(|number| format!("{number}\n")).collect();
        assert!(told(&many, "").starts_with("node2 rules (3 more)\n+ c: 0\n"));
    }

    #[test]
    fn a_node_of_which_nothing_is_known_is_not_the_same() {
        let state = |rule: &str| {
            Some(State {
                rules: vec![rule.to_owned()],
                ..State::default()
            })
        };
        let node = |number: u32| format!("node{number}");
        let (unlike, unheard) = compared([
            (node(1), state("a"), state("a")),
            (node(2), None, state("a")),
            (node(3), state("a"), None),
            (node(4), state("a"), state("b")),
        ]);
        assert_eq!(unheard, [node(2), node(3)]);
        assert_eq!(unlike.len(), 1);
        assert_eq!(unlike[0].node, node(4));
    }

    #[test]
    fn cluster_ips_by_chance_are_no_difference_and_others_are() {
        assert_eq!(told("10.0.0.42 . tcp", "10.0.0.7 . tcp"), "");
        assert_eq!(told("10.0.0.10, 10.0.0.42", "10.0.0.10, 10.0.0.7"), "");
        insta::assert_snapshot!(told("10.0.0.10 . tcp\n10.0.0.42", "10.0.0.10 . udp\n10.0.0.4"), @r"
        node2 rules (0 more)
        - c: 10.0.0.10 . udp
        + c: 10.0.0.10 . tcp
        ");
        insta::assert_snapshot!(told("10.1.1.2", "10.1.1.3"), @r"
        node2 rules (0 more)
        - c: 10.1.1.3
        + c: 10.1.1.2
        ");
    }

    #[test]
    fn node_ports_by_chance_are_no_difference_and_a_missing_one_is() {
        let map = |port: u16| format!("tcp . {port} : goto external-green");
        let rule = |port: u16| format!("tcp dport {port} counter jump KUBE-EXT-GREEN");
        assert_eq!(told(&map(31234), &map(30999)), "");
        assert_eq!(told(&rule(31234), &rule(30999)), "");
        assert_eq!(
            told("th dport { 31234, 443 }", "th dport { 30999, 443 }"),
            ""
        );
        insta::assert_snapshot!(told(&format!("{}
a", map(31234)), "a"), @"
        node2 rules (0 more)
        + c: tcp . a-NodePort : goto external-green
        ");
        // No port of a NodePort Service, or none that was drawn.
        let differ = |one: &str, other: &str| assert_ne!(told(one, other), "", "{one}, {other}");
        differ(&map(8080), &map(8081));
        differ("meta mark set 31234", "meta mark set 30999");
        differ("tcp dport 31234 accept", "udp dport 30999 accept");
    }

    #[test]
    fn a_rule_that_the_failed_one_alone_has_is_found_as_the_packet_met_it() {
        let state = |rules: &str| State {
            rules: lines(rules),
            ..State::default()
        };
        let usual = "table ip a, chain c: ip daddr 10.9.9.9 drop\n";
        let failed = "table ip a, chain c: ip daddr 10.0.0.42 counter drop\n\
                      table ip a, map m: tcp . 80 : goto x, udp . 53 : drop";
        let healthy = state(&format!("{usual}table ip a, chain d: drop"));
        let twin = Twin {
            whose: "a second clone".to_owned(),
            step: String::new(),
            failed: None,
            unlike: unlike("node2", &state(&format!("{usual}{failed}")), &healthy),
            unheard: vec![],
        };
        for lacked in [
            "ip a c: ip daddr 10.0.0.42 counter packets 7 bytes 420 drop",
            "ip a m: elements = { tcp . 80 : goto x, udp . 53 : drop }",
        ] {
            assert!(twin.lacks("node2", lacked), "{lacked}: {twin:?}");
            assert!(!twin.lacks("node1", lacked));
        }
        for known in ["ip a c: ip daddr 10.9.9.9 drop", "ip a d: drop", "drop"] {
            assert!(!twin.lacks("node2", known), "{known}");
        }
    }

    #[test]
    fn a_clone_is_past_a_step_when_it_begins_with_another() {
        let steps = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let failed = steps("drain node3/ask blue-x1 (10.1.1.2)/drain node2");
        assert!(!is_past(&steps("drain node3"), &failed));
        assert!(!is_past(
            &steps("drain node3/ask blue-y7 (10.1.1.3)"),
            &failed
        ));
        let twice = "drain node3/ask blue-y7 (10.1.1.3)/drain node2";
        assert!(!is_past(&steps(twice), &failed));
        assert!(is_past(&steps(&format!("{twice}/scale")), &failed));
        // The counts left it open once more.
        let more = "spread/open: 600 more";
        assert!(!is_past(
            &steps("spread/open: 600 more/open: 600 more"),
            &steps(more)
        ));
        assert!(is_past(&steps("spread/open: 200 more/join"), &steps(more)));
        assert!(is_past(&[], &[]));
    }
}
