//! Changes of the packet filter's rules, as a node's journal has them.

use std::collections::BTreeSet;
use std::fmt;

use podwire_process::plain;
use serde::{Deserialize, Serialize};

/// What one command changed of a node's rules, at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleChange {
    /// When the node's journal had heard of it, milliseconds since the segment's start; to about a third of a second.
    pub at_ms: u64,
    /// On which node.
    pub node: String,
    /// The program that did it, as the kernel calls it: `nft`, `iptables-restor`; empty where the node has not told.
    pub by: String,
    /// The tables in question: `ip kube-proxy`.
    pub tables: BTreeSet<String>,
    /// Rules, chains, elements that came.
    pub added: usize,
    /// And those that went.
    pub deleted: usize,
    /// The first of them, as nft(8) writes it.
    pub first: String,
}

/// `node2's rules, by nft: 3 added, 1 deleted in ip kube-proxy`.
impl fmt::Display for RuleChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by.as_str() {
            "" => String::new(),
            by => format!(", by {by}"),
        };
        let counted = [(self.added, "added"), (self.deleted, "deleted")];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        let counted: Vec<String> = counted
            .map(|(count, how)| format!("{count} {how}"))
            .collect();
        let tables: Vec<&str> = self.tables.iter().map(String::as_str).collect();
        let (node, counted, tables) = (&self.node, counted.join(", "), tables.join(" and "));
        write!(f, "{node}'s rules{by}: {counted} in {tables}")
    }
}

/// Characters of a line that are kept.
const LINE: usize = 160;
/// How many of the last changes of a node are kept.
const CHANGES: usize = 200;

impl RuleChange {
    /// What a node is asked: how long it is up, then what it has heard of last. `unit` writes what `nft monitor` says
    /// into the journal.
    pub(crate) fn question(unit: &str) -> String {
        format!(
            "cat /proc/uptime; journalctl -b -u {unit} -o short-monotonic --no-hostname --no-pager -n 4000"
        )
    }

    /// What `node` answered to that, when the clone's age was `age_ms`: what came since it was `there_ms` old, in
    /// order. What its stage did last would seem younger than the segment: a frozen node's clock stands.
    pub(crate) fn read(node: &str, (there_ms, age_ms): (u64, u64), answer: &str) -> Vec<Self> {
        let mut lines = answer.lines();
        let up_ms = lines
            .next()
            .and_then(|line| line.split(' ').next())
            .and_then(millis);
        let Some(up_ms) = up_ms else {
            return Vec::new();
        };
        let mut all = Vec::new();
        let mut open: Option<Self> = None;
        for (stamp_ms, said) in lines.filter_map(stamped) {
            let at_ms = (age_ms + stamp_ms).checked_sub(up_ms);
            let Some(at_ms) = at_ms.filter(|at| *at >= there_ms) else {
                continue;
            };
            // A command's changes come before the generation that it made.
            if let Some(by) = said.strip_prefix("# new generation ") {
                if let Some(mut change) = open.take() {
                    change.by = program(by);
                    all.push(change);
                }
                continue;
            }
            let mut words = said.split_whitespace();
            let came = match words.next() {
                Some("add" | "insert" | "replace") => true,
                Some("delete" | "destroy") => false,
                _ => continue,
            };
            let change = open.get_or_insert_with(|| Self {
                at_ms,
                node: node.to_owned(),
                by: String::new(),
                tables: BTreeSet::new(),
                added: 0,
                deleted: 0,
                first: plain::line(&said.chars().take(LINE).collect::<String>()),
            });
            match came {
                true => change.added += 1,
                false => change.deleted += 1,
            }
            if let (Some(family), Some(table)) = (words.nth(1), words.next()) {
                change
                    .tables
                    .insert(plain::line(&format!("{family} {table}")));
            }
        }
        all.extend(open);
        all.split_off(all.len().saturating_sub(CHANGES))
    }
}

/// `[  123.456789] rules[77]: add rule ...`: when, in milliseconds since the boot, and what.
fn stamped(line: &str) -> Option<(u64, &str)> {
    let (stamp, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (_, said) = rest.split_once(": ")?;
    Some((millis(stamp.trim())?, said))
}

/// Of seconds: `123.456789`.
fn millis(seconds: &str) -> Option<u64> {
    let (whole, fraction) = seconds.split_once('.')?;
    let fraction = format!("{fraction:0<3}");
    let fraction = fraction.get(..3)?.parse::<u64>().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(fraction)
}

/// `nft` of `6 by process 19164 (nft)`.
fn program(by: &str) -> String {
    let named = by
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(')'));
    plain::line(named.map_or("", |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written for this test, in the form of `nft monitor` and of journalctl's `short-monotonic`.
    const SAID: &str = "\
1234.50 900.10
[ 1200.000100] rules[77]: add table ip kube-proxy
[ 1200.100000] rules[77]: # new generation 2 by process 191 (nft)
[ 1230.250000] rules[77]: add element ip kube-proxy service-ips { 10.0.0.10 . tcp . 80 : goto a }
[ 1230.260000] rules[77]: add rule ip kube-proxy a drop
[ 1230.260000] rules[77]: delete rule ip kube-proxy a handle 5
[ 1230.270000] rules[77]: # new generation 3 by process 192 (kube-proxy) x)
[ 1231.000000] systemd[1]: podwire-rules.service: something else
[ 1234.000000] rules[77]: delete table ip podwire
";

    #[test]
    fn what_one_command_changed_is_one_change_at_the_clone_s_time() {
        let changes = RuleChange::read("node2", (26_000, 36_000), SAID);
        let told = changes
            .iter()
            .map(|it| format!("{} {it}: {}", it.at_ms, it.first));
        // The table was made before the clone was, whose segment was there before it.
        insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"), @"
        31750 node2's rules, by kube-proxy) x: 2 added, 1 deleted in ip kube-proxy: add element ip kube-proxy service-ips { 10.0.0.10 . tcp . 80 : goto a }
        35500 node2's rules: 1 deleted in ip podwire: delete table ip podwire
        ");
    }

    #[test]
    fn what_cannot_be_understood_is_left_out() {
        for answer in [
            "",
            "x",
            "1.5",
            "1.5 2\n[",
            "1.5 2\n[ 1.0] rules: \n[x] a: add\n[ 1.0] r: add",
        ] {
            let changes = RuleChange::read("node1", (0, 10_000), answer);
            assert!(changes.len() <= 1, "{answer:?}: {changes:?}");
        }
        let hostile = "1.5 2\n[ 1.0] rules[1]: add rule ip \u{1b}[31m t\n";
        let changes = RuleChange::read("node1", (0, 10_000), hostile);
        assert!(!format!("{changes:?}").contains('\u{1b}'), "{changes:?}");
        let many = "[ 1.0] rules[1]: add rule ip t c\n[ 1.0] rules[1]: # new generation 1 by process 1 (nft)\n";
        let many = format!("1.5 2\n{}", many.repeat(CHANGES + 5));
        assert_eq!(RuleChange::read("node1", (0, 10_000), &many).len(), CHANGES);
    }
}
